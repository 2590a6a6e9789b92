//! The relevant parts of a bundle's config.json.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::go_json::{self, go_fields};
use super::{Annotations, quoted};

/// `process.user` of config.json: it owns the nodes unless the request names an owner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessUser {
    /// `process.user.uid`, in the container's user namespace.
    pub uid: u32,
    /// `process.user.gid`, in the container's user namespace.
    pub gid: u32,
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
    /// Whether `mounts` mounts /sys read-only.
    pub read_only_sys: bool,
}

/// Only the relevant fields: decoding the whole specification would double the size of the hook.
/// Names and types are those of runtime-spec's specs-go/config.go; an `Option` is a pointer there.
#[derive(Default)]
struct RawConfig {
    root: Option<RawRoot>,
    annotations: Annotations,
    process: Option<RawProcess>,
    mounts: Vec<RawMount>,
    linux: Option<RawLinux>,
}
go_fields!(RawConfig {
    "root" => root,
    "annotations" => annotations,
    "process" => process,
    "mounts" => mounts,
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
struct RawMount {
    destination: String,
    options: Vec<String>,
}
go_fields!(RawMount { "destination" => destination, "options" => options });

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

/// The last mount on /sys decides: it covers the others.
fn has_read_only_sys(mounts: &[RawMount]) -> bool {
    let sys = mounts
        .iter()
        .rfind(|mount| mount.destination.trim_end_matches('/') == "/sys");
    sys.is_some_and(|sys| sys.options.iter().any(|option| option == "ro"))
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
            read_only_sys: has_read_only_sys(&raw.mounts),
            cgroups_path: Some(linux.cgroups_path).filter(|path| !path.is_empty()),
        })
    }
}
