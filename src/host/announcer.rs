//! Announces uevents inside a container: messages on a netlink socket that belongs to the
//! container's network namespace.
//!
//! Does not know the content of the messages (`model::uevent`) or when they are due. Never sends in
//! the host's namespace.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::thread;

use nix::errno::Errno;
use nix::libc::{NLM_F_ACK, NLM_F_REQUEST, NLMSG_ERROR, NLMSG_MIN_TYPE, ucred};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, UnixCredentials,
    recv, sendmsg, socket,
};
use nix::sys::stat::fstat;

use crate::host::container::namespaces::{Namespace, OwnNamespace};
use crate::host::container::{Container, ContainerError};
use crate::model::cgroup::grants::Change;
use crate::model::device::Device;
use crate::model::plan::announcements::Announcement;
use crate::model::uevent::nodeless::is_broadcast;
use crate::model::uevent::{UeventAction, UeventForm, kernel_message, udev_message};
use crate::sys::namespaces::owner_of;

/// The multicast group that udevd sends to and libudev listens to (UDEV_MONITOR_UDEV, systemd's
/// device-monitor.c).
const UDEV_GROUP: u32 = 2;

/// The length of a netlink message's header in bytes (netlink(7)): length, type, flags, sequence
/// number, port.
const NETLINK_HEADER: usize = 16;

/// An announcement failed.
#[derive(Debug, thiserror::Error)]
pub enum AnnouncerError {
    /// The container's /proc files could not be read.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// Listeners would drop the messages.
    #[error(
        "cannot announce devices in the container: its root is not mapped in its user namespace (map user and group 0)"
    )]
    RootNotMapped,
    /// The socket could not be created in the container's network namespace.
    #[error("cannot announce devices in the container: cannot {action}: {source}")]
    Open { action: &'static str, source: io::Error },
    /// The kernel did not accept a message.
    #[error("cannot announce {action} of {syspath} in the container: {source}")]
    Send {
        action: UeventAction,
        syspath: String,
        source: io::Error,
    },
}

/// Where the announcements for one container go.
#[derive(Debug)]
pub enum Announcer {
    /// Nowhere. The container shares our network namespace: there udevd itself sends uevents, and
    /// ours would reach the host's own listeners.
    Suppressed,
    /// Into the container's own network namespace.
    Open(UeventSocket),
}

/// A socket in the container's network namespace, with the sender of its messages.
#[derive(Debug)]
pub struct UeventSocket {
    socket: OwnedFd,
    sender: UnixCredentials,
    /// Whether the kernel itself sends the events of all devices to this namespace.
    hears_kernel: bool,
}

impl Announcer {
    /// Creates the socket in the container's network namespace, unless that is our own.
    pub fn open(container: &Container) -> Result<Announcer, AnnouncerError> {
        let Some(namespace) = container.network_namespace()? else {
            return Ok(Announcer::Suppressed);
        };
        // libudev drops messages that are not from root, as its own user namespace maps users
        // (device-monitor.c).
        let maps = container.id_maps()?;
        let (uid, gid) = maps
            .map_or(Some((0, 0)), |maps| Some((maps.host_uid(0)?, maps.host_gid(0)?)))
            .ok_or(AnnouncerError::RootNotMapped)?;
        let sender = UnixCredentials::from(ucred {
            pid: nix::unistd::getpid().as_raw(),
            uid,
            gid,
        });
        let hears_kernel = is_of_initial_users(&namespace);
        let socket = if container.is_rootless() {
            socket_by_thread(&namespace)?
        } else {
            socket_in(&namespace)?
        };
        Ok(Announcer::Open(UeventSocket {
            socket,
            sender,
            hears_kernel,
        }))
    }

    /// Announces a device as the kernel or udevd would. `node` is the node's path in the container,
    /// if it differs from the host's. It is not an error if nothing listens. Returns `Change::None`
    /// if announcements are suppressed.
    ///
    /// The kernel's form goes through the kernel, because libudev accepts kernel messages from no
    /// other sender. Since Linux 4.18 the kernel broadcasts such a message as its own, only in that
    /// network namespace, with a new sequence number (counted host-wide in
    /// `/sys/kernel/uevent_seqnum`): `uevent_net_rcv_skb`, lib/kobject_uevent.c.
    pub fn announce(
        &mut self,
        form: UeventForm,
        action: UeventAction,
        device: &Device,
        node: Option<&Path>,
    ) -> Result<Change, AnnouncerError> {
        let Announcer::Open(socket) = self else {
            return Ok(Change::None);
        };
        let sent = match form {
            UeventForm::Udev => socket.multicast(&udev_message(action, device, node, device.seqnum)),
            UeventForm::Kernel => socket.through_kernel(&kernel_message(action, device, node, None)),
        };
        sent.map(|()| Change::Made)
            .map_err(|source| AnnouncerError::Send {
                action,
                syspath: device.syspath.to_string(),
                source: source.into(),
            })
    }
}

impl Announcer {
    /// Announces an event of a device without a node, except where the kernel itself sends it: its
    /// own message comes first, and such a device has no node that it could precede. (Nodes are
    /// announced in any case: the kernel's message comes before the node exists.)
    pub fn announce_nodeless(&mut self, announcement: &Announcement) -> Result<Change, AnnouncerError> {
        let Announcement { form, action, device } = announcement;
        let Announcer::Open(socket) = self else {
            return Ok(Change::None);
        };
        let subsystem = device.subsystem.as_deref().unwrap_or_default();
        if *form == UeventForm::Kernel && socket.hears_kernel && is_broadcast(subsystem) {
            return Ok(Change::None);
        }
        self.announce(*form, *action, device, None)
    }
}

/// The inode number of the initial user namespace (PROC_USER_INIT_INO, linux/proc_ns.h).
const INITIAL_USERS: u64 = 0xeffffffd;

/// Whether the initial user namespace owns a namespace. Where that cannot be found out, one message
/// too many is better than none.
fn is_of_initial_users(namespace: &OwnedFd) -> bool {
    let owner = owner_of(namespace.as_fd());
    let inode = owner.ok().and_then(|owner| fstat(&owner).ok());
    inode.is_some_and(|inode| inode.st_ino == INITIAL_USERS)
}

impl UeventSocket {
    fn multicast(&self, message: &[u8]) -> nix::Result<()> {
        match self.send(&[IoSlice::new(message)], UDEV_GROUP) {
            // These are the errors of netlink for a group without listeners.
            Err(Errno::ECONNREFUSED | Errno::ESRCH) => Ok(()),
            other => other,
        }
    }

    fn through_kernel(&self, message: &[u8]) -> nix::Result<()> {
        let length = (NETLINK_HEADER + message.len()) as u32;
        let flags = (NLM_F_REQUEST | NLM_F_ACK) as u16;
        let mut header = Vec::with_capacity(NETLINK_HEADER);
        header.extend_from_slice(&length.to_ne_bytes());
        header.extend_from_slice(&(NLMSG_MIN_TYPE as u16).to_ne_bytes());
        header.extend_from_slice(&flags.to_ne_bytes());
        header.resize(NETLINK_HEADER, 0);
        self.send(&[IoSlice::new(&header), IoSlice::new(message)], 0)?;
        // The kernel processes the message during the send, so its acknowledgement is available
        // already.
        let mut answer = [0; 256];
        let length = recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
        acknowledged(&answer[..length])
    }

    fn send(&self, parts: &[IoSlice<'_>], groups: u32) -> nix::Result<()> {
        let sender = [ControlMessage::ScmCredentials(&self.sender)];
        let address = NetlinkAddr::new(0, groups);
        sendmsg(
            self.socket.as_raw_fd(),
            parts,
            &sender,
            MsgFlags::MSG_DONTWAIT,
            Some(&address),
        )
        .map(drop)
    }
}

/// Reads the kernel's NLMSG_ERROR: after the header a negated errno, or 0 for success (netlink(7)).
fn acknowledged(answer: &[u8]) -> nix::Result<()> {
    let kind = answer
        .get(4..6)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u16::from_ne_bytes);
    let code = answer
        .get(NETLINK_HEADER..NETLINK_HEADER + 4)
        .and_then(|bytes| bytes.try_into().ok());
    match (kind.map(i32::from), code.map(i32::from_ne_bytes)) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(code)) => Err(Errno::from_raw(code.wrapping_neg())),
        _ => Err(Errno::EPROTO),
    }
}

/// Creates a uevent socket that belongs to a network namespace. The calling thread is in that
/// namespace only during the call socket(2).
fn socket_in(namespace: &OwnedFd) -> Result<OwnedFd, AnnouncerError> {
    let own = OwnNamespace::open(Namespace::Network).map_err(failed("open the host's network namespace"))?;
    own.run_and_return(|| enter_and_open(namespace))
}

/// [`socket_in`] for a process that cannot return to the host's network namespace, because that
/// needs privileges in the namespace (setns(2)): a thread enters the other one, and ends there.
fn socket_by_thread(namespace: &OwnedFd) -> Result<OwnedFd, AnnouncerError> {
    let ended = || failed("run a thread in its network namespace")(Errno::EAGAIN);
    thread::scope(|scope| {
        let opening = thread::Builder::new().spawn_scoped(scope, || enter_and_open(namespace));
        opening.map_err(|_| ended())?.join().map_err(|_| ended())?
    })
}

fn enter_and_open(namespace: &OwnedFd) -> Result<OwnedFd, AnnouncerError> {
    Namespace::Network
        .enter(namespace)
        .map_err(failed("enter its network namespace"))?;
    socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkKObjectUEvent,
    )
    .map_err(failed("create a uevent socket"))
}

fn failed(action: &'static str) -> impl FnOnce(Errno) -> AnnouncerError {
    move |source| AnnouncerError::Open {
        action,
        source: source.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: u16, code: i32) -> Vec<u8> {
        let mut bytes = vec![0; 20];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[16..20].copy_from_slice(&code.to_ne_bytes());
        bytes
    }

    #[test]
    fn an_acknowledgement_is_read_as_success_or_errno() {
        assert_eq!(acknowledged(&answer(2, 0)), Ok(()));
        assert_eq!(acknowledged(&answer(2, -1)), Err(Errno::EPERM));
        assert_eq!(acknowledged(&answer(3, 0)), Err(Errno::EPROTO));
        assert_eq!(acknowledged(&answer(2, 0)[..18]), Err(Errno::EPROTO));
        assert_eq!(acknowledged(&[]), Err(Errno::EPROTO));
    }
}
