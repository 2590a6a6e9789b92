//! What a hook learns from the runtime: the state on standard input, and the relevant parts of the
//! bundle's config.json. Parsing is lenient, because no two runtimes write the same state.

pub mod engine;
pub(crate) mod go_json;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use self::go_json::go_fields;
use crate::model::quoting::shown;

/// The longest id: it becomes the name of a directory (NAME_MAX, limits.h).
const MAX_ID: usize = 255;

/// How many characters of a JSON parser's message are shown.
const MAX_FAULT: usize = 200;

/// `process.user` of config.json: it owns the nodes unless the request names an owner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessUser {
    /// `process.user.uid`, in the container's user namespace.
    pub uid: u32,
    /// `process.user.gid`, in the container's user namespace.
    pub gid: u32,
}

/// A container's id, which is safe as a file name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ContainerId(String);

/// A text that is not a container id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "container id {shown:?}: must be 1 to {MAX_ID} letters, digits and the characters `_`, `+`, `-` and `.`, and not `.` or `..`"
)]
pub struct ContainerIdError {
    shown: String,
}

impl ContainerId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerId {
    type Err = ContainerIdError;

    /// Accepts the ids that runc accepts (libcontainer/factory_linux.go, validateID).
    fn from_str(text: &str) -> Result<Self, ContainerIdError> {
        let fits = (1..=MAX_ID).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte))
            && text != "."
            && text != "..";
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(ContainerIdError {
                shown: text.chars().take(80).collect(),
            })
        }
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ContainerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Annotations by key.
pub type Annotations = BTreeMap<String, String>;

/// The container's state as the runtime passes it to a hook (runtime-spec, runtime.md, "State").
///
/// Known deviations: crun adds `root` and writes `created` instead of `creating`; at poststop, pid
/// is absent, 0 or the old one; Docker passes no annotations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookState {
    pub id: ContainerId,
    /// The pid of the container's init on the host; `None` if absent or 0.
    pub pid: Option<i32>,
    pub bundle: Option<PathBuf>,
    /// The annotations, if the runtime passes any.
    pub annotations: Annotations,
}

/// The relevant fields with arbitrary types; other fields are skipped.
#[derive(Default, Deserialize)]
#[serde(default)]
struct RawState {
    id: Value,
    pid: Value,
    bundle: Value,
    annotations: Value,
}

/// Why a state is unusable.
#[derive(Debug, thiserror::Error)]
pub enum HookStateError {
    /// Empty input or another JSON type.
    #[error(
        "cannot read the container's state from standard input: not a JSON object (this program is an OCI hook, which the runtime starts; operators use oci-hotplug(1))"
    )]
    NoObject,
    #[error(
        "cannot read the container's state from standard input: {} (this program is an OCI hook, which the runtime starts; operators use oci-hotplug(1))",
        quoted(.0)
    )]
    Json(serde_json::Error),
    #[error("cannot read the container's state from standard input: `id` is not a string")]
    NoId,
    #[error("cannot read the container's state from standard input: {0}")]
    Id(#[from] ContainerIdError),
}

/// The parser's message, shortened: it may quote text of any length.
fn quoted(error: &serde_json::Error) -> String {
    shown(&error.to_string(), MAX_FAULT)
}

impl HookState {
    /// Parses the JSON text of a state. Only `id` is required; a field of an unexpected type counts
    /// as absent.
    ///
    /// # Errors
    /// If the text is not a JSON object, or its id is missing or malformed.
    pub fn parse(json: &[u8]) -> Result<Self, HookStateError> {
        // serde would accept an array as the fields in their order.
        if !json.trim_ascii_start().starts_with(b"{") {
            return Err(HookStateError::NoObject);
        }
        let state: RawState = serde_json::from_slice(json).map_err(HookStateError::Json)?;
        let id = state.id.as_str().ok_or(HookStateError::NoId)?.parse()?;
        let annotations = match state.annotations {
            Value::Object(map) => map
                .into_iter()
                .filter_map(|(key, value)| match value {
                    Value::String(text) => Some((key, text)),
                    _ => None,
                })
                .collect(),
            _ => Annotations::new(),
        };
        Ok(Self {
            id,
            pid: state
                .pid
                .as_i64()
                .and_then(|pid| i32::try_from(pid).ok())
                .filter(|pid| *pid > 0),
            bundle: state.bundle.as_str().map(PathBuf::from),
            annotations,
        })
    }
}

/// The bundle in the command line of a runtime (`/proc/PID/cmdline`, proc_pid_cmdline(5)): the
/// value of `--bundle` or `-b`, if it is absolute. `None` if the container's id is not among the
/// arguments: the command is then about another container.
pub fn bundle_argument(cmdline: &[u8], id: &ContainerId) -> Option<PathBuf> {
    let words: Vec<&str> = cmdline
        .split(|byte| *byte == 0)
        .filter_map(|word| std::str::from_utf8(word).ok())
        .collect();
    if !words.contains(&id.as_str()) {
        return None;
    }
    let after = |option: &str| {
        let at = words.iter().position(|word| *word == option)?;
        words.get(at + 1).copied()
    };
    let joined = || words.iter().find_map(|word| word.strip_prefix("--bundle="));
    let bundle = after("--bundle").or_else(joined).or_else(|| after("-b"))?;
    bundle.starts_with('/').then(|| PathBuf::from(bundle))
}

/// The relevant parts of config.json (runtime-spec, config.md).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleConfig {
    /// `root.path`, made absolute with the bundle.
    pub rootfs: PathBuf,
    /// `annotations`.
    pub annotations: Annotations,
    /// `process.user`.
    pub user: ProcessUser,
    /// `linux.cgroupsPath`.
    pub cgroups_path: Option<String>,
    /// Whether `linux.namespaces` has a user namespace.
    pub user_namespace: bool,
    /// Whether `linux.resources.devices` allows every device, as engines write it for
    /// `--privileged`.
    pub allows_every_device: bool,
}

/// Only the relevant fields: decoding the whole specification would double the size of the hook.
/// Names and types are those of runtime-spec's specs-go/config.go; an `Option` is a pointer there.
#[derive(Default)]
struct RawConfig {
    root: Option<RawRoot>,
    annotations: Annotations,
    process: Option<RawProcess>,
    linux: Option<RawLinux>,
}
go_fields!(RawConfig {
    "root" => root,
    "annotations" => annotations,
    "process" => process,
    "linux" => linux,
});

#[derive(Default)]
struct RawRoot {
    path: String,
}
go_fields!(RawRoot { "path" => path });

#[derive(Default)]
struct RawProcess {
    user: RawUser,
}
go_fields!(RawProcess { "user" => user });

#[derive(Default)]
struct RawUser {
    uid: u32,
    gid: u32,
}
go_fields!(RawUser { "uid" => uid, "gid" => gid });

#[derive(Default)]
struct RawLinux {
    cgroups_path: String,
    namespaces: Vec<RawNamespace>,
    resources: Option<RawResources>,
}
go_fields!(RawLinux {
    "cgroupsPath" => cgroups_path,
    "namespaces" => namespaces,
    "resources" => resources,
});

#[derive(Default)]
struct RawNamespace {
    kind: String,
}
go_fields!(RawNamespace { "type" => kind });

#[derive(Default)]
struct RawResources {
    devices: Vec<RawDeviceRule>,
}
go_fields!(RawResources { "devices" => devices });

/// An element of `linux.resources.devices` (runtime-spec, config-linux.md). An absent type, major
/// or minor means all.
#[derive(Default)]
struct RawDeviceRule {
    allow: bool,
    kind: String,
    major: Option<i64>,
    minor: Option<i64>,
}
go_fields!(RawDeviceRule {
    "allow" => allow,
    "type" => kind,
    "major" => major,
    "minor" => minor,
});

impl RawDeviceRule {
    fn is_for_every_device(&self) -> bool {
        let all = |number: Option<i64>| number.is_none_or(|number| number < 0);
        matches!(self.kind.as_str(), "" | "a") && all(self.major) && all(self.minor)
    }
}

impl RawLinux {
    fn has_user_namespace(&self) -> bool {
        self.namespaces.iter().any(|namespace| namespace.kind == "user")
    }

    /// The last rule for all devices decides: runtimes apply rules in order.
    fn allows_every_device(&self) -> bool {
        let mut rules = self.resources.iter().flat_map(|resources| &resources.devices);
        rules
            .rfind(|rule| rule.is_for_every_device())
            .is_some_and(|rule| rule.allow)
    }
}

/// Why a config.json is unusable.
#[derive(Debug, thiserror::Error)]
pub enum BundleConfigError {
    /// Not JSON, or a field has another type than in the specification.
    #[error("cannot read {path}: {fault}", path = path.display(), fault = quoted(source))]
    Json {
        path: PathBuf,
        source: serde_json::Error,
    },
    /// Without a root file system there can be no /dev.
    #[error("cannot read {path}: `root` is missing", path = path.display())]
    NoRoot { path: PathBuf },
}

impl BundleConfig {
    /// Parses the JSON text of `bundle`'s config.json, in any spelling that runc accepts.
    ///
    /// # Errors
    /// If the text is not JSON, a relevant field has the wrong type, or `root` is missing. No
    /// runtime starts such a container.
    pub fn parse(bundle: &Path, json: &[u8]) -> Result<Self, BundleConfigError> {
        let path = || bundle.join("config.json");
        let raw: RawConfig =
            go_json::from_slice(json).map_err(|source| BundleConfigError::Json { path: path(), source })?;
        let root = raw
            .root
            .ok_or_else(|| BundleConfigError::NoRoot { path: path() })?;
        let rootfs = match root.path.as_str() {
            "" => bundle.to_owned(),
            path => bundle.join(path),
        };
        let linux = raw.linux.unwrap_or_default();
        let user = raw.process.unwrap_or_default().user;
        Ok(Self {
            rootfs,
            annotations: raw.annotations,
            user: ProcessUser {
                uid: user.uid,
                gid: user.gid,
            },
            user_namespace: linux.has_user_namespace(),
            allows_every_device: linux.allows_every_device(),
            cgroups_path: Some(linux.cgroups_path).filter(|path| !path.is_empty()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_command_line_of_a_runtime_has_the_bundle_of_its_container_only() {
        let bundle = |words: &str| {
            let id = "c1".parse().unwrap();
            bundle_argument(words.replace(' ', "\0").as_bytes(), &id)
        };
        for words in [
            "/usr/bin/crun --systemd-cgroup create --bundle /b --pid-file /p c1",
            "crun create --bundle=/b c1",
            "runc run -b /b c1",
            "/usr/bin/conmon --api-version 1 -c c1 -u c1 -r /usr/bin/crun -b /b -p /p",
        ] {
            assert_eq!(bundle(words), Some(PathBuf::from("/b")), "{words}");
        }
        for words in [
            "crun create --bundle /b c2",
            "crun create --bundle b c1",
            "crun create c1 --bundle",
            "c1",
            "",
        ] {
            assert_eq!(bundle(words), None, "{words}");
        }
    }

    #[test]
    fn the_states_of_all_runtimes_are_parsed() {
        let states = [
            // runc, createRuntime
            (
                r#"{"ociVersion":"1.2.0","id":"c1","status":"creating","pid":42,"bundle":"/b","annotations":{"k":"v"}}"#,
                Some(42),
            ),
            // crun, createRuntime: `root` is not in the specification
            (
                r#"{"ociVersion":"1.0","id":"c1","pid":42,"root":"/b/rootfs","bundle":"/b","status":"created","annotations":{"k":"v"}}"#,
                Some(42),
            ),
            // crun, poststop: pid 0
            (
                r#"{"ociVersion":"1.0","id":"c1","pid":0,"root":"/b/rootfs","bundle":"/b","status":"stopped","annotations":{"k":"v"}}"#,
                None,
            ),
            // runc, poststop: no pid
            (
                r#"{"ociVersion":"1.2.0","id":"c1","status":"stopped","bundle":"/b","annotations":{"k":"v"}}"#,
                None,
            ),
            // youki before 0.6: its internal state
            (
                r#"{"ociVersion":"v1.0.2","id":"c1","status":"created","pid":42,"bundle":"/b","annotations":{"k":"v"},"created":"2024-01-01T00:00:00Z","creator":0,"useSystemd":false}"#,
                Some(42),
            ),
        ];
        for (json, pid) in states {
            let state = HookState::parse(json.as_bytes()).unwrap();
            assert_eq!(state.id.as_str(), "c1", "{json}");
            assert_eq!(state.pid, pid, "{json}");
            assert_eq!(state.bundle.as_deref(), Some(Path::new("/b")), "{json}");
            assert_eq!(state.annotations["k"], "v", "{json}");
        }
    }

    #[test]
    fn null_annotations_count_as_absent() {
        let state = HookState::parse(br#"{"id":"c1","annotations":null,"pid":null}"#).unwrap();
        assert!(state.annotations.is_empty());
        assert_eq!(state.pid, None);
    }

    #[test]
    fn ids_with_path_components_are_refused() {
        for id in ["", ".", "..", "a/b", "../x", "a\0b", "a b", "é", &"x".repeat(256)] {
            assert!(id.parse::<ContainerId>().is_err(), "{id:?}");
        }
        for id in ["a", "A-b_c.d+e", "...", &"x".repeat(255)] {
            assert_eq!(id.parse::<ContainerId>().unwrap().to_string(), id);
        }
    }

    #[test]
    fn an_error_names_what_is_wrong() {
        let error = |json: &str| HookState::parse(json.as_bytes()).unwrap_err().to_string();
        for text in ["", "[]", "\"c1\"", "[\"c1\",1,\"/b\"]"] {
            assert!(error(text).contains("not a JSON object"), "{}", error(text));
        }
        let long = error(&format!("{{\"id\":\"c1\" \"{}", "x".repeat(5000)));
        assert!(long.len() < 500, "{long}");
        let fault = error(r#"{"id":}"#);
        assert!(fault.contains(": expected value at line 1 column 7 ("), "{fault}");
        assert_eq!(
            error("{}"),
            "cannot read the container's state from standard input: `id` is not a string"
        );
        assert!(error(r#"{"id":"../x"}"#).contains(r#"container id "../x": must be"#));
    }

    #[test]
    fn the_config_has_root_user_and_cgroup() {
        let json = br#"{"ociVersion":"1.0.2","root":{"path":"rootfs","readonly":true},
            "process":{"user":{"uid":1000,"gid":100,"additionalGids":[5]},"args":["sh"],"cwd":"/"},
            "annotations":{"a":"b"},"linux":{"cgroupsPath":"machine.slice:libpod:c1","namespaces":[]}}"#;
        let config = BundleConfig::parse(Path::new("/b"), json).unwrap();
        assert_eq!(config.rootfs, Path::new("/b/rootfs"));
        assert_eq!(config.user, ProcessUser { uid: 1000, gid: 100 });
        assert_eq!(config.cgroups_path.as_deref(), Some("machine.slice:libpod:c1"));
        assert_eq!(config.annotations["a"], "b");
    }

    #[test]
    fn user_namespaces_and_privileged_containers_are_recognized() {
        let config = |linux: &str| {
            let json = format!(r#"{{"root":{{"path":"r"}},"linux":{linux}}}"#);
            let config = BundleConfig::parse(Path::new("/b"), json.as_bytes()).unwrap();
            (config.user_namespace, config.allows_every_device)
        };
        let ordinary = r#"{"namespaces":[{"type":"pid"}],"resources":{"devices":[{"allow":false,"access":"rwm"},
            {"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"}]}}"#;
        assert_eq!(config(ordinary), (false, false));
        assert_eq!(
            config(r#"{"namespaces":[{"type":"user"}],"resources":null}"#),
            (true, false)
        );
        // Docker, containerd and podman with --privileged.
        let privileged =
            r#"{"resources":{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"access":"rwm"}]}}"#;
        assert_eq!(config(privileged), (false, true));
        let taken_back =
            r#"{"resources":{"devices":[{"allow":true,"type":"a","major":-1},{"allow":false}]}}"#;
        assert_eq!(config(taken_back), (false, false));
        for (rule, is_for_every_device) in [
            (r#""type":"a""#, true),
            (r#""type":"a","major":-1,"minor":-1"#, true),
            (r#""type":"c""#, false),
            (r#""type":"a","major":0"#, false),
            (r#""type":"a","major":1"#, false),
            (r#""minor":0"#, false),
            (r#""minor":1"#, false),
        ] {
            let linux = format!(r#"{{"resources":{{"devices":[{{"allow":true,{rule}}}]}}}}"#);
            assert_eq!(config(&linux).1, is_for_every_device, "{rule}");
        }
    }

    /// Case README 19. runc 1.1.5 started a container with each of these files and ran its hooks.
    #[test]
    fn every_config_that_runc_accepts_is_accepted() {
        let parse = |json: &str| BundleConfig::parse(Path::new("/b"), json.as_bytes());
        let plain = parse(r#"{"root":{"path":"r"}}"#).unwrap();
        for json in [
            r#"{"root":{"path":"r"},"process":{"user":null}}"#,
            r#"{"root":{"path":"r"},"process":{}}"#,
            r#"{"root":{"path":"r"},"process":null,"linux":null,"annotations":null}"#,
            r#"{"root":{"path":"r"},"process":{"user":{"uid":null,"gid":null,"additionalGids":null,"umask":18,"username":null}}}"#,
            r#"{"root":{"path":"r"},"linux":{"resources":{"devices":[{"access":"rwm"}]}}}"#,
            r#"{"root":{"path":"r"},"linux":{"resources":{"devices":[{"allow":null,"type":null,"major":null,"minor":null,"access":"rwm"}]}}}"#,
            r#"{"root":{"path":"r"},"linux":{"resources":{"devices":null},"namespaces":null,"cgroupsPath":null}}"#,
            r#"{"root":{"path":"r"},"linux":{"resources":null}}"#,
            r#"{"root":{"path":"r"},"foo":{"x":[1e30,null,1e400,123456789012345678901234567890]}}"#,
            r#"{"root":{"path":"x"},"root":{"readonly":false},"root":{"path":"r","path":null}}"#,
            r#"{"ROOT":{"Path":"r"}}"#,
            r#"{"root":{"path":"r"},"proceſs":{"user":{"uid":0}}}"#,
            r#"{"root":{"path":"r"}} garbage"#,
        ] {
            assert_eq!(parse(json).unwrap(), plain, "{json}");
        }
        let emptied = r#"{"root":{"path":"r"},"annotations":{"a":"b"},"annotations":null,"linux":{"namespaces":[{"type":"user"}],"namespaces":null}}"#;
        assert_eq!(parse(emptied).unwrap(), plain, "null empties lists and maps");
        let config = parse(r#"{"root":{},"annotations":{"a":"b"},"annotations":{"c":null,"d":"\ud800x"},"LINUX":{"CGROUPSPATH":"g"},"process":{"user":{"uid":1}},"process":{"user":{"gid":2}}}"#).unwrap();
        assert_eq!(config.rootfs, Path::new("/b"));
        let annotations: Vec<_> = config
            .annotations
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        assert_eq!(annotations[..2], [("a", "b"), ("c", "")]);
        assert!(config.annotations["d"].ends_with('x'), "{annotations:?}");
        assert_eq!(config.user, ProcessUser { uid: 1, gid: 2 });
        assert_eq!(config.cgroups_path.as_deref(), Some("g"));
    }

    /// Case README 19: a file that runc refuses is refused.
    #[test]
    fn a_config_that_runtimes_refuse_is_refused_with_its_path() {
        for json in [
            r#"{"root":{"path":"r"},"process":{"user":{"uid":"5"}}}"#,
            r#"{"root":{"path":"r"},"process":{"user":{"uid":-1}}}"#,
            r#"{"root":{"path":"r"},"process":{"user":{"uid":4294967296}}}"#,
            r#"{"root":{"path":"r"},"annotations":{"a":1}}"#,
            r#"{"root":{"path":"r"},"root":null}"#,
            r#"{"root":{"path":"r"}"#,
            "{}",
            "null",
            "[]",
        ] {
            let error = BundleConfig::parse(Path::new("/b"), json.as_bytes()).unwrap_err();
            assert!(
                error.to_string().starts_with("cannot read /b/config.json: "),
                "{error}"
            );
        }
        for (json, expected) in [
            (r#"{"root":5}"#, "expected an object at"),
            (r#"{"root":{"path":5}}"#, "expected a string at"),
            (r#"{"linux":{"namespaces":5}}"#, "expected a list at"),
            (r#"{"annotations":5}"#, "expected an object of strings at"),
        ] {
            let error = BundleConfig::parse(Path::new("/b"), json.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn an_absolute_root_is_not_joined_with_the_bundle() {
        let config = BundleConfig::parse(Path::new("/b"), br#"{"root":{"path":"/var/merged"}}"#).unwrap();
        assert_eq!(config.rootfs, Path::new("/var/merged"));
        assert_eq!(config.user, ProcessUser { uid: 0, gid: 0 });
    }

    proptest! {
        #[test]
        fn no_state_causes_a_panic(json in ".{0,200}") {
            let _ = HookState::parse(json.as_bytes());
        }

        #[test]
        fn no_config_causes_a_panic(json in ".{0,200}") {
            let _ = BundleConfig::parse(Path::new("/b"), json.as_bytes());
        }

        #[test]
        fn an_id_never_contains_a_separator(text in ".{0,40}") {
            if let Ok(id) = text.parse::<ContainerId>() {
                prop_assert!(!id.as_str().contains('/') && id.as_str() != ".." && id.as_str() != ".");
            }
        }
    }
}
