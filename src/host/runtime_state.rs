//! Running containers, as read from the state directories of OCI runtimes: for containers that were
//! started without our hook.
//!
//! The engine chooses ROOT: podman and CRI-O leave it to the runtime; containerd and Docker have
//! one below /run for each containerd namespace. Does not know which devices a container requests.

use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use rustix::fs::{Mode, OFlags};

use crate::host::container::ContainerFacts;
use crate::host::file_system;
use crate::host::process::{Process, start_time};
use crate::host::regular_file;
use crate::host::rootless::rootless;
use crate::model::oci::engine_files::RuntimeState;
use crate::model::oci::{BundleConfig, ContainerId, ProcessUser};
use crate::model::policy::ContainerTraits;

/// The default ROOTs of runtimes that run as root; `*` matches any one name.
const ROOTS: [&str; 5] = [
    "/run/runc",
    "/run/crun",
    "/run/youki",
    "/run/docker/runtime-runc/*",
    "/run/containerd/runc/*",
];

/// Those of a user's rootless engines, below the user's runtime directory.
const USER_ROOTS: [&str; 5] = [
    "runc",
    "crun",
    "youki",
    "docker/runtime-runc/*",
    "containerd/runc/*",
];

/// The maximum size of a state file or config.json that is read, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// A container that runs now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunningContainer {
    pub facts: ContainerFacts,
    /// The traits that conditions of policy rules are evaluated on.
    pub traits: ContainerTraits,
}

/// The directories to search: first `more` (the `--root` of a runtime that was started with one),
/// then the default ones that exist. Those of other users are left out: such a user could lead
/// root to a process of the user under the name of a container.
pub(crate) fn roots(more: &[PathBuf]) -> Vec<PathBuf> {
    let mut roots = more.to_vec();
    let uid = rootless().map_or_else(|| geteuid().as_raw(), |user| user.uid);
    let of_user = USER_ROOTS.map(|root| format!("/run/user/{uid}/{root}"));
    for pattern in ROOTS.map(str::to_owned).into_iter().chain(of_user) {
        let found = glob::glob(&pattern).into_iter().flatten().flatten();
        roots.extend(found.filter(|path| path.is_dir()));
    }
    roots
}

/// All containers below these directories whose init runs. Entries that cannot be parsed are
/// skipped: the runtime may be creating or removing the container right now.
pub(crate) fn running(roots: &[PathBuf]) -> Vec<RunningContainer> {
    let mut found: Vec<RunningContainer> = Vec::new();
    for root in roots {
        let entries = fs::read_dir(root).into_iter().flatten().flatten();
        for container in entries.filter_map(|entry| read(&entry.path())) {
            if !found.iter().any(|known| known.facts.pid == container.facts.pid) {
                found.push(container);
            }
        }
    }
    found
}

fn read(dir: &Path) -> Option<RunningContainer> {
    let id: ContainerId = dir.file_name()?.to_str()?.parse().ok()?;
    let state = ["state.json", "status"]
        .iter()
        .find_map(|name| read_file(&dir.join(name)))?;
    let RuntimeState { pid, started, bundle } = RuntimeState::parse(&state)?;
    let started = match started {
        Some(started) => started,
        None => start_time(pid).ok()?,
    };
    Process::open(pid, started).ok()?;
    let config = BundleConfig::parse(&bundle, &config_json(&bundle, pid)?).ok()?;
    Some(RunningContainer {
        facts: ContainerFacts {
            id: id.as_str().to_owned(),
            pid,
            start_time: started,
            bundle,
            rootfs: config.rootfs,
            cgroups_path: config.cgroups_path,
            user: config.user,
            read_only_sys: config.read_only_sys,
        },
        traits: ContainerTraits::new(
            config.annotations,
            config.user_namespace,
            config.allows_every_device,
        ),
    })
}

/// The bundle's config.json. A user's engine may run in another mount namespace, as in that of
/// rootlesskit, where the bundle has another path than here: the parent of the container's init,
/// the engine's monitor, finds it by the path that the runtime has written. Only the user looks
/// there: root reads no files of users.
fn config_json(bundle: &Path, init: i32) -> Option<Vec<u8>> {
    let path = bundle.join("config.json");
    let of_monitor = || {
        let monitor: i32 = status_line(init, "PPid:")?.trim().parse().ok()?;
        let root = PathBuf::from(format!("/proc/{monitor}/root"));
        regular_file::read_at_most_in(&root, &path, MAX_FILE).ok()
    };
    let is_users = rootless().is_some();
    is_users.then(of_monitor).flatten().or_else(|| read_file(&path))
}

/// Reads a file that an engine or a runtime has for each container; at most 16 MiB.
pub(super) fn read_file(path: &Path) -> Option<Vec<u8>> {
    regular_file::read_at_most(path, MAX_FILE).ok()
}

/// Why a process is not in a container.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotInContainer {
    /// The process does not exist.
    #[error("process {0} does not exist (--pid takes the host's pid of a container's process)")]
    Gone(i32),
    /// The process has the host's root directory.
    #[error(
        "process {0} has the host's root directory: it is not in a container (--pid takes the host's pid of a container's process)"
    )]
    Host(i32),
}

/// The container that a process is in, as far as /proc shows it. If the process is in another pid
/// namespace than this one, init is the first process of that namespace; else init is the process
/// itself.
///
/// # Errors
/// When the process does not exist or is not in a container.
pub(crate) fn of_process(pid: i32) -> Result<RunningContainer, NotInContainer> {
    // O_PATH: the root of a container may be on a file system whose server never answers.
    let root = |pid: &str| {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let root = rustix::fs::open(format!("/proc/{pid}/root"), flags, Mode::empty())?;
        file_system::attributes(root).map(|root| file_system::identity(&root))
    };
    let gone = |_| NotInContainer::Gone(pid);
    if root(&pid.to_string()).map_err(gone)? == root("self").map_err(gone)? {
        return Err(NotInContainer::Host(pid));
    }
    let namespace = |pid: i32, name: &str| fs::read_link(format!("/proc/{pid}/ns/{name}")).ok();
    let own = std::process::id() as i32;
    let init = match namespace(pid, "pid") {
        Some(theirs) if Some(&theirs) != namespace(own, "pid").as_ref() => all_processes()
            .find(|other| namespace(*other, "pid").as_ref() == Some(&theirs) && is_first(*other))
            .unwrap_or(pid),
        _ => pid,
    };
    let started = start_time(init).map_err(|_| NotInContainer::Gone(pid))?;
    let user_namespace = namespace(init, "user") != namespace(own, "user");
    Ok(RunningContainer {
        facts: ContainerFacts {
            id: format!("pid-{init}-{started}"),
            pid: init,
            start_time: started,
            bundle: PathBuf::new(),
            rootfs: PathBuf::from("/"),
            cgroups_path: None,
            user: if user_namespace {
                // /proc shows ids as the host counts them, not the container's: assume root of the
                // namespace.
                ProcessUser::default()
            } else {
                user_of(init).unwrap_or_default()
            },
            read_only_sys: false,
        },
        traits: ContainerTraits::new(Default::default(), user_namespace, false),
    })
}

fn all_processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Whether a process is number 1 in its pid namespace: the last number of `NSpid`
/// (proc_pid_status(5)).
fn is_first(pid: i32) -> bool {
    status_line(pid, "NSpid:").is_some_and(|line| line.split_whitespace().last() == Some("1"))
}

/// The effective ids: the second number of each line (proc_pid_status(5)).
fn user_of(pid: i32) -> Option<ProcessUser> {
    let id = |name| status_line(pid, name)?.split_whitespace().nth(1)?.parse().ok();
    Some(ProcessUser {
        uid: id("Uid:")?,
        gid: id("Gid:")?,
    })
}

fn status_line(pid: i32, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// A runtime's directory with one container, whose init is this test process.
    fn root_with(file: &str, state: &Value, scratch: &Path) -> PathBuf {
        let bundle = scratch.join("bundle");
        fs::create_dir_all(&bundle).unwrap();
        let config = r#"{"root":{"path":"rootfs"},"process":{"user":{"uid":7,"gid":8}},"linux":{"cgroupsPath":"a:b:c"},"annotations":{"k":"v"}}"#;
        fs::write(bundle.join("config.json"), config).unwrap();
        let root = scratch.join("root");
        fs::create_dir_all(root.join("c1")).unwrap();
        fs::create_dir_all(root.join("half-made")).unwrap();
        fs::write(root.join("c1").join(file), state.to_string()).unwrap();
        root
    }

    #[test]
    fn the_state_of_each_runtime_has_init_and_bundle() {
        let pid = std::process::id() as i32;
        let started = start_time(pid).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let bundle = scratch.path().join("bundle");
        let label = format!("bundle={}", bundle.display());
        for (file, state) in [
            (
                "state.json",
                serde_json::json!({"id": "c1", "init_process_pid": pid, "init_process_start": started, "config": {"labels": ["x=y", label]}}),
            ),
            (
                "status",
                serde_json::json!({"pid": pid, "process-start-time": started, "bundle": bundle}),
            ),
            (
                "state.json",
                serde_json::json!({"pid": pid, "bundle": bundle, "status": "running"}),
            ),
        ] {
            let root = root_with(file, &state, scratch.path());
            let found = running(&[root.clone(), root.clone()]);
            assert_eq!(found.len(), 1, "{state}");
            let facts = &found[0].facts;
            assert_eq!((facts.id.as_str(), facts.pid), ("c1", pid), "{state}");
            assert_eq!((facts.start_time, &facts.bundle), (started, &bundle), "{state}");
            assert_eq!((facts.user.uid, facts.user.gid), (7, 8));
            assert_eq!(facts.cgroups_path.as_deref(), Some("a:b:c"));
            assert_eq!(found[0].traits.annotations["k"], "v");
            fs::remove_dir_all(root).unwrap();
        }
    }

    #[test]
    fn a_container_whose_init_has_ended_does_not_run() {
        let pid = std::process::id();
        let scratch = tempfile::tempdir().unwrap();
        let state =
            serde_json::json!({"pid": pid, "process-start-time": 1, "bundle": scratch.path().join("bundle")});
        let root = root_with("status", &state, scratch.path());
        assert_eq!(running(&[root]), []);
    }

    #[test]
    fn a_process_of_the_host_is_not_in_a_container() {
        let own = std::process::id() as i32;
        assert!(matches!(of_process(own), Err(NotInContainer::Host(_))));
        assert!(matches!(of_process(i32::MAX), Err(NotInContainer::Gone(_))));
    }
}
