//! One group of uevents, subscribed through libudev: the kernel's own, or udevd's.
//!
//! Knows libudev's and netlink's traps; must not know what the messages mean.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{NetlinkAddr, getsockname, setsockopt, sockopt};

use super::error::MonitorError;
use super::message::Properties;

/// Most messages taken in one go, so that a flood cannot keep its reader from anything else.
const BATCH: usize = 16 * 1024;

/// Who speaks in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    /// The kernel, as soon as something happens (netlink group 1).
    Kernel,
    /// udevd, when it has run its rules (netlink group 2).
    Udev,
}

impl Group {
    fn name(self) -> &'static str {
        match self {
            Group::Kernel => "kernel",
            Group::Udev => "udev",
        }
    }
}

/// What was waiting on a socket.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// The messages, the oldest first.
    pub messages: Vec<Properties>,
    /// Whether others were lost.
    pub overrun: bool,
}

/// A subscription.
pub(super) struct UeventSocket {
    socket: udev::MonitorSocket,
}

impl UeventSocket {
    /// Subscribes, with a receive buffer of this many bytes (the kernel doubles it for its
    /// bookkeeping, socket(7)).
    ///
    /// SO_RCVBUFFORCE goes beyond net.core.rmem_max but needs CAP_NET_ADMIN; without it SO_RCVBUF
    /// gives what is allowed.
    pub fn open(group: Group, receive_buffer: usize) -> Result<Self, MonitorError> {
        let failed = |source| MonitorError::Subscribe {
            group: group.name(),
            source,
        };
        let builder = match group {
            Group::Kernel => udev::MonitorBuilder::new_kernel(),
            Group::Udev => udev::MonitorBuilder::new(),
        };
        let builder = builder.map_err(failed)?;
        setsockopt(&builder.as_fd(), sockopt::RcvBufForce, &receive_buffer)
            .or_else(|_| setsockopt(&builder.as_fd(), sockopt::RcvBuf, &receive_buffer))
            .map_err(|errno| failed(errno.into()))?;
        let socket = builder.listen().map_err(failed)?;
        Ok(Self { socket })
    }

    /// Whether the socket really is in its group.
    ///
    /// libudev leaves udevd's group out, and says nothing, where /run/udev/control is missing and
    /// /dev is no devtmpfs (systemd, device-monitor.c). A bound socket cannot join later: it must
    /// be opened anew.
    pub fn is_subscribed(&self) -> bool {
        getsockname::<NetlinkAddr>(self.socket.as_raw_fd()).is_ok_and(|address| address.groups() != 0)
    }

    /// For epoll: readable when there is something to receive.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Takes everything that waits.
    ///
    /// libudev answers "nothing" for the end (EAGAIN), for an overrun (ENOBUFS), for a message of a
    /// wrong sender (also EAGAIN) and for a broken one (EINVAL and others). So errno tells the
    /// overrun, and poll(2) the end.
    pub fn receive(&self) -> Received {
        let mut received = Received::default();
        let mut refused = 0;
        // While a socket that overran is not empty, the kernel drops what comes without telling
        // again (NETLINK_S_CONGESTED, net/netlink/af_netlink.c): then the end must be reached, and
        // will be.
        while received.overrun || received.messages.len() + refused < BATCH {
            Errno::clear();
            let message = self.socket.iter().next();
            let errno = Errno::last();
            match message {
                Some(event) => received.messages.push(properties(&event)),
                None if errno == Errno::ENOBUFS => received.overrun = true,
                None if self.has_more() => refused += 1,
                None => break,
            }
        }
        received
    }

    fn has_more(&self) -> bool {
        let mut fds = [PollFd::new(self.fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }
}

/// A libudev device's properties; bytes that are no UTF-8 are replaced.
pub(super) fn properties(device: &udev::Device) -> Properties {
    let text = |bytes: &std::ffi::OsStr| bytes.to_string_lossy().into_owned();
    device
        .properties()
        .map(|entry| (text(entry.name()), text(entry.value())))
        .collect()
}

/// A libudev context; it holds nothing, but older versions insist on one.
pub(super) fn context() -> Result<udev::Udev, MonitorError> {
    udev::Udev::new().map_err(|source: io::Error| MonitorError::Subscribe {
        group: Group::Udev.name(),
        source,
    })
}
