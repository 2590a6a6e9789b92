//! One group of uevents: the kernel's own, or udevd's.
//!
//! Knows netlink's traps; must not know what the messages mean.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, MultiHeaders, NetlinkAddr, RecvMsg, SockFlag, SockProtocol,
    SockType, UnixCredentials, bind, recv, recvmmsg, setsockopt, socket, sockopt,
};

use super::error::MonitorError;
use crate::host::rootless::host_root;
use crate::model::uevent::UeventForm;
use crate::model::uevent::received::{KeptUevent, ReceivedUevent, Sender};
use crate::model::uevent::socket_filter;
use crate::model::uevent::unneeded::Unneeded;
use crate::sys::socket_filter::{Instruction, attach, detach};

/// Most messages taken in one go, so that a flood cannot keep its reader from anything else.
pub(super) const BATCH: usize = 1024;

/// The same if udevd's messages have arrived: the kernel's, which come before them, must be among
/// those that are taken.
pub(super) const LARGE_BATCH: usize = 16 * 1024;

/// Space for one message, in bytes. The kernel's have at most 2 KiB (linux/kobject.h), udevd's are
/// seldom longer. A longer one counts as lost: then all devices are read again.
///
/// So much that the C library maps it instead of taking it from its heap (malloc(3),
/// M_MMAP_THRESHOLD): only the pages that messages reach take memory.
const MESSAGE_BUFFER: usize = 128 * 1024;

/// How many messages are received by one call. Usually one has arrived: then the call that receives
/// it finds out, too, that there is no second one.
const AT_ONCE: usize = 2;

/// Room for messages, to be used again and again.
pub(super) struct MessageBuffer(Vec<u8>);

impl MessageBuffer {
    pub(super) fn new() -> Self {
        Self(vec![0; AT_ONCE * MESSAGE_BUFFER])
    }

    /// Receives some messages, as far as they have arrived.
    fn receive(&mut self, socket: &OwnedFd) -> nix::Result<Vec<RawMessage<'_>>> {
        let heads: Vec<_> = {
            let (first, second) = self.0.split_at_mut(MESSAGE_BUFFER);
            let mut parts: [_; AT_ONCE] = [[IoSliceMut::new(first)], [IoSliceMut::new(second)]];
            let mut headers = MultiHeaders::preallocate(AT_ONCE, Some(cmsg_space!(UnixCredentials)));
            let (fd, flags) = (socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
            let messages = recvmmsg::<_, NetlinkAddr, _>(fd, &mut headers, parts.iter_mut(), flags, None)?;
            let head = |message: RecvMsg<'_, '_, NetlinkAddr>| {
                let is_cut = message.flags.contains(MsgFlags::MSG_TRUNC);
                (sender_of(&message), is_cut, message.bytes)
            };
            messages.map(head).collect()
        };
        let texts = self.0.chunks_exact(MESSAGE_BUFFER);
        let messages = heads.into_iter().zip(texts);
        let messages = messages.map(|((sender, is_cut, length), text)| RawMessage {
            sender,
            is_cut,
            text: &text[..length],
        });
        Ok(messages.collect())
    }
}

/// A message as it arrived.
struct RawMessage<'a> {
    sender: Sender,
    /// Whether it did not fit.
    is_cut: bool,
    text: &'a [u8],
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
    /// The messages that are not received.
    unneeded: Unneeded,
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
        unneeded: Unneeded,
    ) -> Result<Self, MonitorError> {
        Self::subscribe(form, receive_buffer, unneeded).map_err(|errno| MonitorError::Subscribe {
            group: match form {
                UeventForm::Kernel => "kernel",
                UeventForm::Udev => "udev",
            },
            source: errno.into(),
        })
    }

    fn subscribe(form: UeventForm, receive_buffer: usize, unneeded: Unneeded) -> nix::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        setsockopt(&socket, sockopt::RcvBufForce, &receive_buffer)
            .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &receive_buffer))?;
        setsockopt(&socket, sockopt::PassCred, &true)?;
        filter(&socket, form, unneeded);
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, form.group()))?;
        Ok(Self {
            socket,
            form,
            host_root: host_root(),
            unneeded,
        })
    }

    /// Receives all messages except these from now on. What the filter has dropped before is lost.
    pub(super) fn leave_out(&mut self, unneeded: Unneeded) {
        if self.unneeded != unneeded {
            filter(&self.socket, self.form, unneeded);
            self.unneeded = unneeded;
        }
    }

    /// For epoll: readable when there is something to receive.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Takes what waits, about this many messages at most. Messages of other senders than the
    /// kernel and udevd are dropped, and so are malformed ones.
    pub(super) fn receive(&self, buffer: &mut MessageBuffer, most: usize) -> Received {
        let mut received = Received::default();
        let mut count = 0;
        while count < most {
            let messages = match buffer.receive(&self.socket) {
                Ok(messages) => messages,
                Err(Errno::ENOBUFS) => {
                    drop_all(&self.socket);
                    received.overrun = true;
                    break;
                }
                Err(Errno::EINTR) => continue,
                // EAGAIN: the socket is empty.
                Err(_) => break,
            };
            // An error after the first message is reported by the next call (recvmmsg(2)).
            let is_empty = messages.len() < AT_ONCE;
            count += messages.len();
            for message in messages {
                self.take(message, &mut received);
            }
            if is_empty {
                break;
            }
        }
        received
    }

    fn take(&self, message: RawMessage<'_>, received: &mut Received) {
        if !self.form.is_from(message.sender, self.host_root) {
            return;
        }
        // A message that did not fit is lost.
        received.overrun |= message.is_cut;
        let message = ReceivedUevent::parse(self.form, message.text);
        let message = message.filter(|message| !self.unneeded.includes(message));
        received
            .messages
            .extend(message.as_ref().map(ReceivedUevent::keep));
    }
}

/// Drops everything that waits on a socket that overran. All devices are read again afterwards, so
/// the messages tell nothing; to process tens of thousands of them would keep the reader from
/// everything else. While the socket is not empty, the kernel drops what comes without reporting it
/// again (NETLINK_S_CONGESTED, net/netlink/af_netlink.c), so the end must be reached. It will be:
/// to drop a message takes less time than to send one.
fn drop_all(socket: &OwnedFd) {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
    while let Ok(_) | Err(Errno::ENOBUFS | Errno::EINTR) = recv(socket.as_raw_fd(), &mut [0], flags) {}
}

/// Lets the kernel drop these messages.
fn filter(socket: &OwnedFd, form: UeventForm, unneeded: Unneeded) {
    if unneeded == Unneeded::default() {
        // It fails where there is no filter.
        let _ = detach(socket.as_fd());
        return;
    }
    // A filter replaces the one before. Where none can be attached, the reader drops the same
    // messages, at a higher cost; so the one before must not stay.
    if attach(socket.as_fd(), &mut instructions(form, unneeded)).is_err() {
        let _ = detach(socket.as_fd());
    }
}

fn instructions(form: UeventForm, unneeded: Unneeded) -> Vec<Instruction> {
    let program = socket_filter::program(form, unneeded).into_iter();
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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use nix::sys::socket::{getsockname, sendto};

    use super::*;
    use crate::model::device::{Device, SysPath};
    use crate::model::uevent::{UeventAction, kernel_message, udev_message};

    #[test]
    fn one_call_receives_a_message_and_finds_that_there_is_no_other() {
        let open = || {
            let (family, flags) = (AddressFamily::Netlink, SockFlag::SOCK_CLOEXEC);
            let socket = socket(family, SockType::Raw, flags, SockProtocol::NetlinkUserSock).unwrap();
            bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).unwrap();
            socket
        };
        let (sender, receiver) = (open(), open());
        setsockopt(&receiver, sockopt::PassCred, &true).unwrap();
        let address: NetlinkAddr = getsockname(receiver.as_raw_fd()).unwrap();
        let send = |message: &[u8]| {
            sendto(sender.as_raw_fd(), message, &address, MsgFlags::empty()).unwrap();
        };
        let mut buffer = MessageBuffer::new();
        let own = nix::unistd::getuid().as_raw();
        for waiting in [1, 2, 3] {
            let messages: Vec<Vec<u8>> = (1..=waiting).map(|length| vec![7; length]).collect();
            for message in &messages {
                send(message);
            }
            let mut read = Vec::new();
            let mut counts = Vec::new();
            while let Ok(received) = buffer.receive(&receiver) {
                counts.push(received.len());
                for message in received {
                    assert_eq!((message.sender.user, message.is_cut), (Some(own), false));
                    read.push(message.text.to_owned());
                }
            }
            assert_eq!(read, messages);
            let expected = [vec![1], vec![2], vec![2, 1]];
            assert_eq!(counts, expected[waiting - 1], "{waiting} messages");
        }
        send(&vec![7; MESSAGE_BUFFER + 1]);
        let received = buffer.receive(&receiver).unwrap();
        assert!(received[0].is_cut);
        assert_eq!(received[0].text.len(), MESSAGE_BUFFER);
    }

    /// Sockets of every kind run the same filters, so no uevent is needed.
    #[test]
    fn the_kernel_accepts_each_filter_and_drops_what_the_reader_would_drop() {
        let (sender, receiver) = UnixDatagram::pair().unwrap();
        receiver.set_nonblocking(true).unwrap();
        let receiver = OwnedFd::from(receiver);
        let devices = [
            ("net/veth0", "net"),
            ("net/veth0/queues/rx-0", "queues"),
            ("bdi/7:0", "bdi"),
            ("block/loop0", "block"),
            ("block/loop0/loop0p1", "block"),
            ("mem/null", "mem"),
        ];
        for (form, nodeless, virtual_blocks) in [UeventForm::Kernel, UeventForm::Udev]
            .into_iter()
            .flat_map(|form| [(form, true, true), (form, true, false), (form, false, true)])
        {
            let unneeded = Unneeded {
                nodeless,
                virtual_blocks,
            };
            attach(receiver.as_fd(), &mut instructions(form, unneeded)).unwrap();
            let received = |message: &[u8]| {
                sender.send(message).unwrap();
                nix::unistd::read(&receiver, &mut [0; 4096]).is_ok()
            };
            let mut dropped = 0;
            for (place, subsystem) in devices {
                let mut device = Device::new(SysPath::new(format!("/sys/devices/virtual/{place}")));
                device.subsystem = Some(subsystem.to_owned());
                let message = match form {
                    UeventForm::Kernel => kernel_message(UeventAction::Change, &device, None, Some(7)),
                    UeventForm::Udev => udev_message(UeventAction::Change, &device, None, 7),
                };
                let read = ReceivedUevent::parse(form, &message).unwrap();
                let is_unneeded = unneeded.includes(&read);
                assert_eq!(received(&message), !is_unneeded, "{form:?} {unneeded:?} {place}");
                dropped += usize::from(is_unneeded);
            }
            assert_eq!(
                dropped,
                if nodeless { 3 } else { 0 } + if virtual_blocks { 2 } else { 0 }
            );
        }
        filter(&receiver, UeventForm::Kernel, Unneeded::default());
        sender.send(b"add@/devices/virtual/block/loop0").unwrap();
        assert!(
            nix::unistd::read(&receiver, &mut [0; 64]).is_ok(),
            "there is no filter"
        );
    }
}
