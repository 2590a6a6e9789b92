//! Descriptors that an asynchronous program waits on. Only with the feature `kubernetes`.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A descriptor to wait for until it is readable.
///
/// # Errors
/// Those of epoll_ctl(2).
pub(crate) fn of(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open and stays the same for its whole life, and the AsyncFd owns it
    // from here on, so it cannot be closed or replaced while it is registered.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}
