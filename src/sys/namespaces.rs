//! How namespaces are related (ioctl_ns(2)).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

/// linux/nsfs.h: `_IO(0xb7, 0x1)`, `_IO(0xb7, 0x2)` and `_IO(0xb7, 0x4)`.
const NS_GET_USERNS: libc::c_ulong = 0xb701;
const NS_GET_PARENT: libc::c_ulong = 0xb702;
const NS_GET_OWNER_UID: libc::c_ulong = 0xb704;

/// The user namespace that owns a namespace of another kind.
///
/// # Errors
/// PermissionDenied when it is neither the calling process's own user namespace nor one below it.
pub(crate) fn owner_of(namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    related(namespace, NS_GET_USERNS)
}

/// The user namespace around a user namespace.
///
/// # Errors
/// As [`owner_of`].
pub(crate) fn parent_of(user_namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    related(user_namespace, NS_GET_PARENT)
}

/// The user who created a user namespace, as the calling process sees users.
///
/// # Errors
/// Those of ioctl(2).
#[allow(unsafe_code)]
pub(crate) fn creator_of(user_namespace: BorrowedFd<'_>) -> io::Result<u32> {
    let mut uid: libc::uid_t = u32::MAX;
    // SAFETY: the kernel writes one uid_t through the pointer, which is valid for the call.
    let result = unsafe { libc::ioctl(user_namespace.as_raw_fd(), NS_GET_OWNER_UID as _, &raw mut uid) };
    Errno::result(result)?;
    Ok(uid)
}

#[allow(unsafe_code)]
fn related(namespace: BorrowedFd<'_>, request: libc::c_ulong) -> io::Result<OwnedFd> {
    // SAFETY: both requests take no argument and touch no memory of ours.
    let fd = Errno::result(unsafe { libc::ioctl(namespace.as_raw_fd(), request as _) })?;
    // SAFETY: the kernel has just created this descriptor for us, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn namespaces_above_our_own_are_hidden_and_other_files_have_none() {
        let user = File::open("/proc/self/ns/user").unwrap();
        let error = parent_of(user.as_fd()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        let network = File::open("/proc/self/ns/net").unwrap();
        match owner_of(network.as_fd()) {
            Ok(owner) => assert!(creator_of(owner.as_fd()).is_ok()),
            // In another user namespace the owner may be above ours.
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        }
        let null = File::open("/dev/null").unwrap();
        for outcome in [owner_of(null.as_fd()), parent_of(null.as_fd())] {
            assert_eq!(outcome.unwrap_err().raw_os_error(), Some(libc::ENOTTY));
        }
        assert!(creator_of(null.as_fd()).is_err());
    }
}
