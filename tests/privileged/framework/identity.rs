//! Users on the host other than root: a thread with another user's ids, and uevents that such a
//! user might forge. Does not know the product.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sendto, socket,
};
use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, set_capabilities, set_keep_capabilities, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

/// The user id of `nobody`, which owns nothing.
pub const NOBODY: u32 = 65534;

/// The user and the privileges of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// `nobody` without capabilities.
    Nobody,
    /// `nobody` with CAP_NET_ADMIN, like a container in the host's network namespace may have it.
    NetworkAdministrator,
    /// root in the network namespace of the process with this id.
    RootInTheNetworkOf(i32),
    /// root on the host: may send as the kernel.
    Root,
}

impl Identity {
    /// Runs something with this identity, in a separate thread.
    pub fn run<T: Send>(self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                self.become_it();
                work()
            });
            thread.join().expect("the thread of another identity ends")
        })
    }

    fn become_it(self) {
        match self {
            Self::Nobody => become_nobody(CapabilitySet::empty()),
            Self::NetworkAdministrator => become_nobody(CapabilitySet::NET_ADMIN),
            Self::RootInTheNetworkOf(pid) => {
                let namespace = fs::File::open(format!("/proc/{pid}/ns/net")).expect("a network namespace");
                setns(namespace, CloneFlags::CLONE_NEWNET).expect("enter a network namespace");
            }
            Self::Root => {}
        }
    }

    /// Sends `messages` to each of these addresses; returns how many the kernel accepted.
    pub fn send(self, places: &[NetlinkAddr], messages: &[Vec<u8>]) -> usize {
        self.run(|| {
            let socket = socket(
                AddressFamily::Netlink,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::NetlinkKObjectUEvent,
            )
            .expect("a socket for uevents");
            let mut taken = 0;
            for place in places {
                for message in messages {
                    match sendto(socket.as_raw_fd(), message, place, MsgFlags::MSG_DONTWAIT) {
                        Ok(_) => taken += 1,
                        // Permission denied; no listener; or the buffer of a listener is full, or
                        // it never reads.
                        Err(
                            Errno::EPERM
                            | Errno::ECONNREFUSED
                            | Errno::ESRCH
                            | Errno::EAGAIN
                            | Errno::ENOBUFS,
                        ) => {}
                        Err(error) => panic!("{self:?} sends a uevent: {error}"),
                    }
                }
            }
            taken
        })
    }
}

fn become_nobody(keeping: CapabilitySet) {
    set_thread_groups(&[]).expect("leave all groups");
    let group = Gid::from_raw(NOBODY);
    set_thread_res_gid(group, group, group).expect("become another group");
    set_keep_capabilities(true).expect("keep capabilities");
    let user = Uid::from_raw(NOBODY);
    set_thread_res_uid(user, user, user).expect("become another user");
    let sets = CapabilitySets {
        effective: keeping,
        permitted: keeping,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).expect("drop capabilities");
}

/// The multicast groups of the kernel's and of udevd's uevents.
pub const GROUPS: [u32; 2] = [1, 2];

/// The netlink ports of a process's uevent sockets: messages to such a port reach only that
/// process.
pub fn uevent_ports(pid: i32) -> Vec<NetlinkAddr> {
    // /proc/net/netlink: sk, protocol, port, groups ... inode. The protocol of uevents is 15
    // (linux/netlink.h).
    let table = fs::read_to_string("/proc/thread-self/net/netlink").expect("list netlink sockets");
    let rows = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let inodes: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("list descriptors")
        .flatten()
        .filter_map(|entry| fs::metadata(entry.path()).ok())
        .map(|metadata| metadata.ino().to_string())
        .collect();
    rows.filter(|row| {
        row[1] == "15"
            && row
                .last()
                .is_some_and(|inode| inodes.iter().any(|own| own == inode))
    })
    .map(|row| NetlinkAddr::new(row[2].parse().expect("a port"), 0))
    .collect()
}

/// A uevent in the kernel's form, from `KEY=VALUE` entries.
pub fn in_the_kernels_form(action: &str, devpath: &str, entries: &[String]) -> Vec<u8> {
    let mut message = format!("{action}@{devpath}\0ACTION={action}\0DEVPATH={devpath}\0").into_bytes();
    entries
        .iter()
        .for_each(|entry| message.extend_from_slice(format!("{entry}\0").as_bytes()));
    message
}

/// The same in udevd's form: libudev's header of 40 bytes (its filters are empty), then the
/// properties.
pub fn in_udevds_form(action: &str, devpath: &str, entries: &[String]) -> Vec<u8> {
    let plain = in_the_kernels_form(action, devpath, entries);
    let properties = &plain[plain.iter().position(|byte| *byte == 0).expect("a first line") + 1..];
    let mut message = b"libudev\0\xfe\xed\xca\xfe".to_vec();
    let length = u32::try_from(properties.len()).expect("a short message");
    for word in [40_u32, 40, length, 0, 0, 0, 0] {
        message.extend_from_slice(&word.to_ne_bytes());
    }
    message.extend_from_slice(properties);
    message
}
