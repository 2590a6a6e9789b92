//! Errors of a container.

use std::io;
use std::path::PathBuf;

use crate::host::process::ProcessError;

/// A container cannot be examined.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// The init process ended, or its pid belongs to another process by now.
    #[error("container {id} has ended: its process {pid} does not exist any more")]
    Gone {
        id: String,
        /// The pid that init had.
        pid: i32,
    },
    /// The init process cannot be opened.
    #[error("cannot open container {id}: {source}")]
    Init { id: String, source: ProcessError },
    /// A file of `/proc/PID` cannot be read.
    #[error("cannot read {path} of container {id}: {source}")]
    Proc {
        id: String,
        path: String,
        source: io::Error,
    },
    /// An id map is not in the kernel's format.
    #[error("cannot read the id maps of container {id}: line {line:?} must be three numbers")]
    IdMap { id: String, line: String },
    /// The root file system cannot be opened.
    #[error("cannot open the root file system {} of container {id}: {source}", rootfs.display())]
    Rootfs {
        id: String,
        /// The path on the host.
        rootfs: PathBuf,
        source: io::Error,
    },
    /// The container's cgroup is not below any cgroup mount of this process.
    #[error(
        "cannot find the cgroup {} of container {id}: it is not below any mounted cgroup {version} hierarchy (mount the hierarchy, or run outside of a cgroup namespace)",
        path.display()
    )]
    CgroupNotMounted {
        id: String,
        /// The cgroup, as in `/proc/PID/cgroup`.
        path: PathBuf,
        /// `v1 devices` or `v2`.
        version: &'static str,
    },
}
