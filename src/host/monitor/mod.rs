//! What devices the host has, and what happens to them: subscribe, then enumerate, then drain.
//!
//! Must not know requests, containers, nor what a device is wanted for. No thread, no sleep, and no
//! device node is ever opened.
//!
//! ```text
//! socket.rs        uevents of kernel and udevd, overruns
//! message.rs       their text as facts (pure)
//! listing.rs       which devices exist, with all facts that are needed
//! sysfs.rs         devices in sysfs
//! static_nodes.rs  nodes that sysfs does not know
//! links.rs         where links lead
//! link_directories.rs  whether they may lead elsewhere by now
//! events.rs        messages as events
//! order.rs         udevd's late events sorted out (pure)
//! database.rs      udev's database, through libudev
//! udevd.rs         whether udevd runs
//! hubs.rs          the other half of a USB 3 hub
//! skipped.rs       devices whose events were skipped
//! below.rs         devices without a node
//! dev_files.rs     changes of /dev, where no uevents arrive
//! ```

mod below;
mod database;
mod dev_files;
mod error;
mod events;
mod hubs;
mod link_directories;
mod links;
mod listing;
pub mod message;
mod order;
mod skipped;
mod socket;
mod static_nodes;
mod sysfs;
mod udevd;

use std::cell::RefCell;
use std::collections::HashSet;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::rc::Rc;

use self::database::Database;
use self::dev_files::DeviceFiles;
pub use self::error::MonitorError;
use self::link_directories::UsedDirectories;
use self::links::HostLinks;
use self::order::{Gone, Heard};
pub use self::skipped::Skipped;
use self::socket::{MessageBuffer, UeventSocket};
use self::static_nodes::StaticNodes;
use self::sysfs::SysFs;
use self::udevd::Udevd;
pub use self::udevd::{is_listened_on, udevd_is_running};
use crate::host::rootless::receives_uevents;
use crate::model::device::event::DeviceEvent;
use crate::model::device::{Aliases, LinkTargets, SysPath};
use crate::model::request::facts_needed::FactsNeeded;
use crate::model::uevent::UeventForm;

/// A receive buffer for [`DeviceMonitor::open`], in bytes: room for some ten thousand events.
pub const RECEIVE_BUFFER: usize = 16 * 1024 * 1024;

/// The host's devices: a list of them, and events from the moment of opening on.
///
/// A device is reported twice where udevd runs: first from the kernel's event, with what sysfs
/// says, then from udevd's with its properties, tags and links. Removals come from the kernel
/// alone.
pub struct DeviceMonitor {
    needed: FactsNeeded,
    sysfs: SysFs,
    kernel: UeventSocket,
    udev: UeventSocket,
    buffer: MessageBuffer,
    /// Only where no uevents arrive.
    dev_files: Option<DeviceFiles>,
    /// Whether they have changed since this was last read.
    dev_files_have_changed: bool,
    static_nodes: StaticNodes,
    /// The host's `/dev` when links were last followed, or at the start.
    links: RefCell<Rc<HostLinks>>,
    heard: Heard,
    gone: Gone,
    udevd: Udevd,
    /// Where [`FactsNeeded::followed_paths`] led when last followed, also if nothing is there yet.
    ends: RefCell<HashSet<PathBuf>>,
    /// The directories that decided where followed links led when all were last followed.
    directories: RefCell<UsedDirectories>,
    skipped: Skipped,
    /// Whether udevd has moved a link since this was last read.
    links_may_have_moved: bool,
    database: Database,
}

/// Which sockets have messages. For each message of udevd's, one of the kernel's came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// Not that of udevd.
    Kernel,
    /// That of udevd alone.
    Udev,
    All,
}

impl Ready {
    /// What is ready if this is, too.
    pub fn and(self, also: Option<Self>) -> Self {
        match also {
            Some(other) if other != self => Self::All,
            _ => self,
        }
    }
}

/// Where links point now ([`DeviceMonitor::follow_links`]).
#[derive(Debug, Default)]
pub struct FollowedLinks {
    /// All of [`FactsNeeded::followed_paths`].
    pub named: Aliases,
    /// The requested links of udev's.
    pub claimed: LinkTargets,
}

impl DeviceMonitor {
    /// Subscribes to kernel and udevd, each with a receive buffer of this many bytes
    /// ([`RECEIVE_BUFFER`]). Nothing is enumerated before both subscriptions stand, so no event
    /// falls in between.
    pub fn open(needed: FactsNeeded, receive_buffer: usize) -> Result<Self, MonitorError> {
        let open = |form| UeventSocket::open(form, receive_buffer, needed.unneeded_events());
        let (kernel, udev) = (open(UeventForm::Kernel)?, open(UeventForm::Udev)?);
        let dev_files = (!receives_uevents()).then(DeviceFiles::open).transpose()?;
        let mut static_nodes = StaticNodes::default();
        static_nodes.add(&needed.static_nodes)?;
        static_nodes.has_news();
        Ok(Self {
            needed,
            sysfs: SysFs::open("/sys")?,
            kernel,
            udev,
            buffer: MessageBuffer::new(),
            dev_files,
            dev_files_have_changed: false,
            static_nodes,
            links: RefCell::new(Rc::new(HostLinks::open())),
            heard: Heard::default(),
            gone: Gone::default(),
            udevd: Udevd::default(),
            ends: RefCell::default(),
            directories: RefCell::default(),
            skipped: Skipped::default(),
            links_may_have_moved: false,
            database: Database::open()?,
        })
    }

    /// Adds the facts that further requests need. Call [`Self::poll_static_nodes`] and
    /// [`Self::enumerate`] afterwards for the devices that exist already.
    pub fn add_needed(&mut self, needed: &FactsNeeded) {
        // Where they can't be watched, the look that comes each second finds them.
        let _ = self.static_nodes.add(&needed.static_nodes);
        self.needed.merge(needed);
        self.receive_needed();
    }

    /// Whether events of virtual block devices are left out ([`FactsNeeded::no_virtual_blocks`]).
    pub fn leaves_out_virtual_blocks(&self) -> bool {
        self.needed.no_virtual_blocks
    }

    /// Reports virtual block devices, too, from now on. The events of those that exist, and of
    /// `known`, which may be gone, were left out: they count as skipped.
    pub fn add_virtual_blocks(&mut self, known: impl IntoIterator<Item = SysPath>) {
        self.needed.no_virtual_blocks = false;
        self.receive_needed();
        match self.sysfs.virtual_blocks() {
            Ok(present) => present
                .into_iter()
                .chain(known)
                .for_each(|syspath| self.skipped.add(syspath)),
            Err(_) => self.skip_all(),
        }
    }

    fn receive_needed(&mut self) {
        let unneeded = self.needed.unneeded_events();
        self.kernel.leave_out(unneeded);
        self.udev.leave_out(unneeded);
    }

    /// Follows [`FactsNeeded::followed_paths`].
    fn follow_named(&self, links: &HostLinks) -> Aliases {
        let paths = self.needed.followed_paths.iter();
        let ends = paths.map(|path| (path.clone(), links.end(path)));
        let (mut all, mut targets) = (HashSet::new(), LinkTargets::new());
        for (path, end) in ends {
            all.extend(end.as_ref().map(|(end, _)| end.clone()));
            targets.insert(path, end.and_then(|(end, exists)| exists.then_some(end)));
        }
        self.ends.replace(all);
        Aliases::new(targets)
    }

    /// Where [`FactsNeeded::followed_paths`] and these links of udev's point now.
    ///
    /// Several devices can claim one link. udevd moves the link while it processes a claimant's
    /// event, then sends that event (systemd, udev-worker.c); it sends no event for the device that
    /// gains or loses the link. Call this when [`Self::links_may_have_moved`] returns true, and
    /// when [`Self::are_links_unchanged`] returns false, for links made by hand and for lost
    /// events: ask that after [`Self::signal_links`], or each second.
    pub fn follow_links<'a>(&self, claimed: impl IntoIterator<Item = &'a PathBuf>) -> FollowedLinks {
        let mut links = HostLinks::open().recording();
        let followed = FollowedLinks {
            named: self.follow_named(&links),
            claimed: links.follow(claimed),
        };
        self.directories.replace(links.take_used());
        self.links.replace(Rc::new(links));
        followed
    }

    /// The host's `/dev`, to follow a few links. Another file system that is mounted there is
    /// noticed when all links are followed, every ten seconds.
    fn links(&self) -> Rc<HostLinks> {
        self.links.borrow().clone()
    }

    /// The same as it is mounted now.
    fn renewed_links(&self) -> Rc<HostLinks> {
        self.links.replace(Rc::new(HostLinks::open()));
        self.links()
    }

    /// Whether all links in `/dev` certainly lead where they led at the last call of
    /// [`Self::follow_links`]. Costs one system call for each directory of such a link, and none if
    /// there is no such directory.
    pub fn are_links_unchanged(&self) -> bool {
        self.directories.borrow().are_unchanged()
    }

    /// Whether [`Self::are_links_unchanged`] can change without an event and without a signal.
    pub fn must_poll_links(&self) -> bool {
        self.directories.borrow().must_be_polled()
    }

    /// Makes SIGIO report the next change of [`Self::are_links_unchanged`], if possible. The
    /// calling thread must have blocked it. It ends when links are followed again.
    pub fn signal_links(&mut self) {
        self.directories.get_mut().signal_next_change();
    }

    /// That signal has come.
    pub fn note_links_signal(&mut self) {
        self.directories.get_mut().note_signal();
    }

    /// Whether requests name nodes that sysfs may not know.
    pub fn has_static_nodes(&self) -> bool {
        !self.static_nodes.is_empty()
    }

    /// Whether udevd may have moved a link that matters since this was last called.
    pub fn links_may_have_moved(&mut self) -> bool {
        std::mem::take(&mut self.links_may_have_moved)
    }

    /// udevd has not processed a device in time: checks again whether it still runs.
    pub fn doubt_udevd(&self) {
        self.udevd.look_again();
    }

    /// Whether events were skipped since [`Self::take_skipped`] was last called.
    pub fn has_skipped(&self) -> bool {
        self.skipped != Skipped::None
    }

    /// All devices must be read again.
    pub fn skip_all(&mut self) {
        self.skipped = Skipped::Unknown;
    }

    /// The devices whose events were skipped since this was last called.
    pub fn take_skipped(&mut self) -> Skipped {
        std::mem::take(&mut self.skipped)
    }

    /// The descriptors to wait on, each with what is ready when it is readable.
    pub fn fds(&self) -> impl Iterator<Item = (Ready, BorrowedFd<'_>)> {
        let always = [(Ready::Kernel, self.kernel.fd()), (Ready::Udev, self.udev.fd())];
        let files = self.dev_files.as_ref().map(DeviceFiles::fd);
        let files = files.into_iter().chain(self.static_nodes.fd());
        always.into_iter().chain(files.map(|fd| (Ready::Kernel, fd)))
    }

    /// Whether [`Self::drain`] has found since the last call that the host's device files have
    /// changed. Always false where uevents arrive. All devices must then be read again; and once
    /// more a moment later, because the kernel removes a node before sysfs loses the device
    /// (drivers/base/core.c, device_del).
    pub fn dev_files_have_changed(&mut self) -> bool {
        std::mem::take(&mut self.dev_files_have_changed)
    }

    /// Looks at the static nodes: to be asked at the start and each second, for what inotify cannot
    /// tell (a link's far end, a directory that was not there yet).
    pub fn poll_static_nodes(&mut self) -> Vec<DeviceEvent> {
        self.static_nodes.poll()
    }

    /// Whether one of [`Self::fds`] was replaced or has been added: wait on them again, and
    /// enumerate. Ask each second.
    pub fn refresh(&mut self) -> bool {
        self.udevd.expire();
        self.dev_files.iter().for_each(DeviceFiles::watch);
        self.static_nodes.has_news()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needed_facts_add_up_and_an_attribute_needed_for_two_devtypes_is_read_for_all() {
        let needed = |devtype: Option<&str>| FactsNeeded {
            attributes: [("serial".to_owned(), devtype.map(str::to_owned))].into(),
            followed_paths: [PathBuf::from(format!("/dev/{devtype:?}"))].into(),
            udev_of_all: devtype.is_none(),
            ..FactsNeeded::default()
        };
        let mut monitor = DeviceMonitor::open(needed(Some("usb_device")), RECEIVE_BUFFER).unwrap();
        monitor.add_needed(&needed(Some("usb_device")));
        assert_eq!(monitor.needed.attributes["serial"].as_deref(), Some("usb_device"));
        assert!(!monitor.needed.udev_of_all);
        monitor.add_needed(&needed(None));
        assert_eq!(monitor.needed.attributes["serial"], None);
        monitor.add_needed(&needed(Some("disk")));
        assert_eq!(monitor.needed.attributes["serial"], None);
        assert_eq!(monitor.needed.followed_paths.len(), 3);
        assert!(monitor.needed.udev_of_all);
    }
}
