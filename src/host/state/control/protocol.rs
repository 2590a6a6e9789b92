//! What both ends of the control socket agree on.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;

/// The socket's name in the container's directory.
const SOCKET: &str = "control.sock";

/// How many files are sent in one message; the kernel's maximum is 253 (unix(7), SCM_RIGHTS).
pub(super) const FILES_AT_ONCE: usize = 200;

/// A path to the socket that is short even if the path of the directory is long (sun_path holds 108
/// bytes, unix(7)).
pub(super) fn socket_path(dir: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()))
}
