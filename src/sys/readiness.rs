//! Descriptors that an asynchronous program waits on. Only with the feature `kubernetes`.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A descriptor that can be waited for until it is readable.
///
/// # Errors
/// What epoll_ctl(2) says.
pub fn of(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open, stays the same for its whole life, and the AsyncFd owns it from
    // here on: nobody can close it, or put another file in its place, while it is registered.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}
