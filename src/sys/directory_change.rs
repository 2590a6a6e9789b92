//! A signal when names in a directory change (fcntl(2), F_NOTIFY). Unlike inotify, of which each
//! user has 128 instances, this has no limit.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::unistd::gettid;

/// fcntl(2), F_SETOWN_EX: which thread gets signals about a file.
const F_SETOWN_EX: libc::c_int = 15;
const F_OWNER_TID: libc::c_int = 0;

#[repr(C)]
struct Owner {
    kind: libc::c_int,
    id: libc::pid_t,
}

/// A name was created, removed or renamed (linux/fcntl.h).
const DN_CREATE: libc::c_int = 0x04;
const DN_DELETE: libc::c_int = 0x08;
const DN_RENAME: libc::c_int = 0x10;

/// Makes the kernel send SIGIO to the calling thread when a name in the directory is next created,
/// removed or renamed; once, and only while the descriptor is open. The thread must have blocked
/// SIGIO: otherwise the signal ends the process.
///
/// # Errors
/// EINVAL when the kernel was built without this, or it is disabled (fs.dir-notify-enable); EBADF
/// for an O_PATH descriptor.
pub(crate) fn signal_once(directory: BorrowedFd<'_>) -> io::Result<()> {
    let owner = Owner {
        kind: F_OWNER_TID,
        id: gettid().as_raw(),
    };
    // SAFETY: the kernel reads a struct f_owner_ex, which has the two fields of `Owner` and lives
    // until the call returns, and writes nothing.
    let result = unsafe { libc::fcntl(directory.as_raw_fd(), F_SETOWN_EX, &raw const owner) };
    Errno::result(result)?;
    let changes = DN_CREATE | DN_DELETE | DN_RENAME;
    // SAFETY: F_NOTIFY takes an integer and touches no memory of ours.
    let result = unsafe { libc::fcntl(directory.as_raw_fd(), libc::F_NOTIFY, changes) };
    Errno::result(result)?;
    Ok(())
}
