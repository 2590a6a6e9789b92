//! Why the host's devices cannot be listed or watched.

use std::io;
use std::path::PathBuf;

/// Why the host's devices cannot be listed or watched.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// A group of uevents could not be joined.
    #[error(
        "cannot subscribe to the {group} group of uevents: {source} (is the kernel built with CONFIG_NET, and are netlink sockets allowed?)"
    )]
    Subscribe {
        /// `kernel` or `udev`.
        group: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
    /// udev's database could not be opened.
    #[error("cannot open udev's database through libudev: {0} (is the host out of memory?)")]
    Database(io::Error),
    /// sysfs could not be read.
    #[error("cannot read the host's devices at {path}: {source} (sysfs must be mounted at /sys)")]
    SysFs {
        /// What was to be read.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Static nodes cannot be watched.
    #[error(
        "cannot create an inotify instance to watch device nodes: {0} (raise fs.inotify.max_user_instances)"
    )]
    Inotify(io::Error),
}
