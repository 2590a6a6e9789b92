//! Attributes of a single mount (mount_setattr(2), Linux 5.12). A mount is given by a descriptor of
//! its root (an O_PATH descriptor is enough). It must be detached, or be in the calling thread's
//! mount namespace.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// Makes a mount read-only, without setuid programs, device nodes and executables, and private: no
/// mount or unmount below it propagates.
///
/// # Errors
/// Those of mount_setattr(2); `ENOSYS` before Linux 5.12.
pub(crate) fn restrict(mount: BorrowedFd<'_>) -> io::Result<()> {
    let attributes =
        libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    set(mount, attributes, libc::MS_PRIVATE)
}

/// Makes the mount of a device node private, and without setuid programs and executables.
///
/// # Errors
/// As [`restrict`].
pub(crate) fn isolate(mount: BorrowedFd<'_>) -> io::Result<()> {
    set(
        mount,
        libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC,
        libc::MS_PRIVATE,
    )
}

/// Makes it impossible to open device nodes through a mount, also by descriptors that are held.
///
/// # Errors
/// As [`restrict`].
pub(crate) fn forbid_devices(mount: BorrowedFd<'_>) -> io::Result<()> {
    set(mount, libc::MOUNT_ATTR_NODEV, 0)
}

#[allow(unsafe_code)]
fn set(mount: BorrowedFd<'_>, attributes: u64, propagation: u64) -> io::Result<()> {
    let request = libc::mount_attr {
        attr_set: attributes,
        attr_clr: 0,
        propagation,
        userns_fd: 0,
    };
    // SAFETY: the kernel reads an empty C string and `size_of::<mount_attr>()` bytes of `request`,
    // which both live until the call returns, and writes nothing.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const request,
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(result)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn a_file_that_is_not_the_root_of_a_mount_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let file = File::open(directory.path()).unwrap();
        for change in [restrict, isolate, forbid_devices] {
            assert!(change(file.as_fd()).is_err());
        }
    }
}
