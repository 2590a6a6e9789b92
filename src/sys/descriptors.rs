//! Descriptors that a process was born with.

use nix::errno::Errno;

/// Closes all descriptors from `first` on (close_range(2), Linux 5.9). To be called before anything
/// of the process's own is open: the owner of a descriptor in this range would find it closed.
///
/// # Errors
/// As the system call; ENOSYS on older kernels.
#[allow(unsafe_code)]
pub(crate) fn close_from(first: u32) -> std::io::Result<()> {
    // SAFETY: close_range takes three integers and touches no memory of ours. That no owner of a
    // descriptor in the range exists is what the caller promises; breaking it gives EBADF, not
    // undefined behaviour of this call.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0u32) };
    Errno::result(result)?;
    Ok(())
}
