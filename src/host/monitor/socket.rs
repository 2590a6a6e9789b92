//! One group of uevents: the kernel's own, or udevd's.
//!
//! Knows netlink's traps; must not know what the messages mean.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, NetlinkAddr, RecvMsg, SockFlag, SockProtocol, SockType,
    UnixCredentials, bind, recvmsg, setsockopt, socket, sockopt,
};

use super::error::MonitorError;
use crate::host::rootless::host_root;
use crate::model::uevent::UeventForm;
use crate::model::uevent::nodeless::is_nodeless;
use crate::model::uevent::received::{KeptUevent, ReceivedUevent, Sender};
use crate::model::uevent::socket_filter;
use crate::sys::socket_filter::{Instruction, attach, detach};

/// Most messages taken in one go, so that a flood cannot keep its reader from anything else.
const BATCH: usize = 16 * 1024;

/// Space for one message, in bytes. The kernel's have at most 2 KiB (linux/kobject.h), udevd's are
/// seldom longer. A longer one counts as lost: then all devices are read again.
///
/// So much that the C library maps it instead of taking it from its heap (malloc(3),
/// M_MMAP_THRESHOLD): only the pages that messages reach take memory.
const MESSAGE_BUFFER: usize = 128 * 1024;

/// Room for one message, to be used again and again.
pub(super) struct MessageBuffer(Vec<u8>);

impl MessageBuffer {
    pub(super) fn new() -> Self {
        Self(vec![0; MESSAGE_BUFFER])
    }
}

/// What was waiting on a socket.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// The messages, the oldest first.
    pub messages: Vec<KeptUevent>,
    /// Whether others were lost.
    pub overrun: bool,
}

/// A subscription.
pub(super) struct UeventSocket {
    socket: OwnedFd,
    form: UeventForm,
    /// The user id by which this process sees the host's root, who sends the messages.
    host_root: u32,
    /// Whether messages about devices that never have a node are received, too.
    takes_nodeless: bool,
}

impl UeventSocket {
    /// Subscribes, with a receive buffer of this many bytes (the kernel doubles it for its
    /// bookkeeping, socket(7)).
    ///
    /// SO_RCVBUFFORCE goes beyond net.core.rmem_max but needs CAP_NET_ADMIN; without it SO_RCVBUF
    /// gives what is allowed.
    pub(super) fn open(
        form: UeventForm,
        receive_buffer: usize,
        takes_nodeless: bool,
    ) -> Result<Self, MonitorError> {
        Self::subscribe(form, receive_buffer, takes_nodeless).map_err(|errno| MonitorError::Subscribe {
            group: match form {
                UeventForm::Kernel => "kernel",
                UeventForm::Udev => "udev",
            },
            source: errno.into(),
        })
    }

    fn subscribe(form: UeventForm, receive_buffer: usize, takes_nodeless: bool) -> nix::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        setsockopt(&socket, sockopt::RcvBufForce, &receive_buffer)
            .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &receive_buffer))?;
        setsockopt(&socket, sockopt::PassCred, &true)?;
        if !takes_nodeless {
            // Without the filter the same messages are dropped later, at a higher cost.
            let _ = attach(socket.as_fd(), &mut instructions(form));
        }
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, form.group()))?;
        Ok(Self {
            socket,
            form,
            host_root: host_root(),
            takes_nodeless,
        })
    }

    /// Receives messages about devices that never have a node from now on. Those of before are
    /// lost.
    pub(super) fn take_nodeless(&mut self) {
        if !self.takes_nodeless {
            // It fails where there is no filter.
            let _ = detach(self.socket.as_fd());
            self.takes_nodeless = true;
        }
    }

    /// For epoll: readable when there is something to receive.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Takes everything that waits. Messages of other senders than the kernel and udevd are
    /// dropped, and so are malformed ones.
    pub(super) fn receive(&self, buffer: &mut MessageBuffer) -> Received {
        let mut received = Received::default();
        let mut control = cmsg_space!(UnixCredentials);
        let mut count = 0;
        // While a socket that overran is not empty, the kernel drops what comes without reporting
        // it again (NETLINK_S_CONGESTED, net/netlink/af_netlink.c): then the end must be reached,
        // and will be.
        while received.overrun || count < BATCH {
            let mut parts = [IoSliceMut::new(&mut buffer.0)];
            let fd = self.socket.as_raw_fd();
            let (sender, flags, length) =
                match recvmsg::<NetlinkAddr>(fd, &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT) {
                    Ok(message) => (sender_of(&message), message.flags, message.bytes),
                    Err(Errno::ENOBUFS) => {
                        received.overrun = true;
                        continue;
                    }
                    Err(Errno::EINTR) => continue,
                    // EAGAIN: the socket is empty.
                    Err(_) => break,
                };
            count += 1;
            if !self.form.is_from(sender, self.host_root) {
                continue;
            }
            // A message that did not fit is lost.
            received.overrun |= flags.contains(MsgFlags::MSG_TRUNC);
            let message = ReceivedUevent::parse(self.form, &buffer.0[..length]);
            let message = message.filter(|message| self.takes_nodeless || !is_nodeless(message));
            received
                .messages
                .extend(message.as_ref().map(ReceivedUevent::keep));
        }
        received
    }
}

fn instructions(form: UeventForm) -> Vec<Instruction> {
    let program = socket_filter::program(form).into_iter();
    program
        .map(|instruction| Instruction {
            code: instruction.code,
            jt: instruction.jump_true,
            jf: instruction.jump_false,
            k: instruction.operand,
        })
        .collect()
}

fn sender_of(message: &RecvMsg<'_, '_, NetlinkAddr>) -> Sender {
    let address = message.address;
    let user = message.cmsgs().ok().and_then(|mut messages| {
        messages.find_map(|message| match message {
            ControlMessageOwned::ScmCredentials(credentials) => Some(credentials.uid()),
            _ => None,
        })
    });
    Sender {
        port: address.map_or(u32::MAX, |address| address.pid()),
        groups: address.map_or(0, |address| address.groups()),
        user,
    }
}
