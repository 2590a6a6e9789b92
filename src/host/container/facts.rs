//! What is known of a container, as values.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::oci::ProcessUser;

/// The facts about a container that the hook reads from the state JSON and config.json. They are
/// stored in the record, so that a restarted watcher needs neither.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerFacts {
    pub id: String,
    /// The host's pid of the container's init.
    pub pid: i32,
    /// The start time of init in clock ticks since boot (proc_pid_stat(5), field 22), which
    /// distinguishes it from a later process with the same pid.
    pub start_time: u64,
    pub bundle: PathBuf,
    /// The root file system: an absolute path on the host.
    pub rootfs: PathBuf,
    /// The OCI config's `linux.cgroupsPath`.
    pub cgroups_path: Option<String>,
    /// The OCI config's `process.user`.
    pub user: ProcessUser,
    /// Whether the OCI config mounts /sys read-only. A runtime may do that only after the hooks
    /// (crun 1.21, createRuntime).
    #[serde(default)]
    pub read_only_sys: bool,
}

/// The container's own cgroups, as directories of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupPaths {
    /// The cgroup in the v1 devices hierarchy, if that is mounted.
    pub v1_devices: Option<PathBuf>,
    /// The cgroups in the v2 hierarchy, from the leaf up to the container's own top cgroup. Never
    /// an ancestor that other containers share.
    pub v2: Vec<PathBuf>,
}
