//! What devices the host has, and what happens to them: subscribe, then enumerate, then drain.
//!
//! Must not know requests, containers, nor what a device is wanted for. No thread, no sleep, and no
//! device node is ever opened.
//!
//! ```text
//! socket.rs        uevents of kernel and udevd, overruns
//! message.rs       their text as facts (pure)
//! sysfs.rs         listing and reading devices
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
//! ```

mod below;
mod database;
mod error;
mod events;
mod hubs;
mod link_directories;
mod links;
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
use std::path::{Path, PathBuf};

pub use self::error::MonitorError;
use self::link_directories::UsedDirectories;
use self::links::HostLinks;
use self::order::Gone;
pub use self::skipped::Skipped;
use self::socket::{MessageBuffer, UeventSocket};
use self::static_nodes::StaticNodes;
use self::sysfs::SysFs;
use self::udevd::Udevd;
pub use self::udevd::{is_listened_on, udevd_is_running};
use crate::model::device::event::DeviceEvent;
use crate::model::device::{Aliases, Device, LinkTargets, SysPath, UdevState};
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
    static_nodes: StaticNodes,
    gone: Gone,
    udevd: Udevd,
    /// Where [`FactsNeeded::followed_paths`] led when last followed, also if nothing is there yet.
    ends: RefCell<HashSet<PathBuf>>,
    /// The directories that decided where followed links led when all were last followed.
    directories: RefCell<UsedDirectories>,
    skipped: Skipped,
    /// Whether udevd has moved a link since this was last read.
    links_may_have_moved: bool,
    context: udev::Udev,
}

/// Which sockets have messages. For each message of udevd's, one of the kernel's came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ready {
    /// Not that of udevd.
    Kernel,
    All,
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
        let mut static_nodes = StaticNodes::default();
        static_nodes.add(&needed.static_nodes)?;
        static_nodes.has_news();
        Ok(Self {
            needed,
            sysfs: SysFs::open("/sys")?,
            kernel,
            udev,
            buffer: MessageBuffer::new(),
            static_nodes,
            gone: Gone::default(),
            udevd: Udevd::default(),
            ends: RefCell::default(),
            directories: RefCell::default(),
            skipped: Skipped::default(),
            links_may_have_moved: false,
            context: database::context()?,
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

    /// All devices with nodes, all that lie above them, those that [`FactsNeeded::followed_paths`]
    /// lead to, and the static nodes.
    ///
    /// Parents come before their children; `seqnum` is 0 and `udev_state` is
    /// [`UdevState::Pending`], unless the requests need udev's facts of all: then each is
    /// completed. Errors: sysfs cannot be listed.
    pub fn enumerate(&self) -> Result<Vec<Device>, MonitorError> {
        let links = HostLinks::open();
        let named = self.follow_named(&links);
        let mut devices = self.sysfs.devices(&self.needed.attributes, &syspaths(&named))?;
        let udevd_runs = self.udevd.runs();
        for device in &mut devices {
            self.add_needed_facts(device, &named, udevd_runs, &links);
        }
        devices.extend(self.static_nodes.present());
        Ok(devices)
    }

    /// These devices as [`Self::enumerate`] has them; `None` for one that does not exist.
    pub fn read(&self, devices: impl IntoIterator<Item = SysPath>) -> Vec<(SysPath, Option<Device>)> {
        let links = HostLinks::open();
        let named = self.follow_named(&links);
        let udevd_runs = self.udevd.runs();
        let read = |syspath: &SysPath| {
            let mut device = self.sysfs.device(syspath, &self.needed.attributes)?;
            self.add_needed_facts(&mut device, &named, udevd_runs, &links);
            Some(device)
        };
        let devices = devices.into_iter();
        devices
            .map(|syspath| (read(&syspath), syspath))
            .map(|(device, syspath)| (syspath, device))
            .collect()
    }

    fn add_needed_facts(&self, device: &mut Device, named: &Aliases, udevd_runs: bool, links: &HostLinks) {
        device.aliases = named.of(device);
        // A link selects a device only after udevd has processed that device.
        let is_linked = device.aliases.iter().any(|path| path.starts_with("/dev"));
        if self.needed.udev_of_all || is_linked {
            self.complete_where(device, udevd_runs, links);
        } else {
            // Of the hundreds of devices only the few that are selected have their properties read,
            // and those are completed: for the others they would be most of a watcher's memory.
            device.properties.clear();
        }
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

    /// Adds what udev's database knows: properties, tags, links.
    ///
    /// `udev_state` becomes [`UdevState::Processed`] when udevd has processed the device, and
    /// [`UdevState::NoUdevd`] when none runs. Of most devices without a node udevd stores nothing:
    /// not being in its database says nothing of them, and they count as processed. (udevd
    /// processes a device after those above it: what is decided by such a device is certain when
    /// the device with the node below it was processed.) Of a device that is gone all facts stay.
    pub fn complete(&self, device: &mut Device) {
        self.complete_where(device, self.udevd.runs(), &HostLinks::open());
    }

    /// The devices without a node at or below a path, which [`Self::enumerate`] leaves out, with
    /// udev's facts. Parents come before their children.
    pub fn nodeless_below(&self, root: &SysPath) -> Vec<Device> {
        let mut devices = self.sysfs.nodeless_below(root, &self.needed.attributes);
        let (udevd_runs, links) = (self.udevd.runs(), HostLinks::open());
        for device in &mut devices {
            self.complete_where(device, udevd_runs, &links);
        }
        devices
    }

    /// Whether sysfs has the device now.
    pub fn has(&self, syspath: &SysPath) -> bool {
        self.sysfs.has(syspath)
    }

    /// The other half of a USB 3 hub now: sysfs may have it only after the hub's own events.
    pub fn companion(&self, hub: &SysPath) -> Option<SysPath> {
        self.sysfs.companion_at(hub)
    }

    /// Where [`FactsNeeded::followed_paths`] and these links of udev's point now.
    ///
    /// Several devices can claim one link. udevd moves the link while it processes a claimant's
    /// event, then sends that event (systemd, udev-worker.c); it sends no event for the device that
    /// gains or loses the link. Call this when [`Self::links_may_have_moved`] returns true, and
    /// when [`Self::are_links_unchanged`], asked each second, returns false, for links made by hand
    /// and for lost events. inotify would cost one of the 128 instances that each user has.
    pub fn follow_links<'a>(&self, claimed: impl IntoIterator<Item = &'a PathBuf>) -> FollowedLinks {
        let links = HostLinks::open().recording();
        let followed = FollowedLinks {
            named: self.follow_named(&links),
            claimed: links.follow(claimed),
        };
        self.directories.replace(links.used());
        followed
    }

    /// Whether all links in `/dev` certainly lead where they led at the last call of
    /// [`Self::follow_links`]. Costs one system call for each directory of such a link, and none if
    /// there is no such directory.
    pub fn are_links_unchanged(&self) -> bool {
        self.directories.borrow().are_unchanged()
    }

    /// Whether [`Self::are_links_unchanged`] can change without an event.
    pub fn follows_links(&self) -> bool {
        !self.directories.borrow().is_empty()
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

    fn complete_where(&self, device: &mut Device, udevd_runs: bool, links: &HostLinks) {
        let path = device.syspath.as_path();
        let found = udev::Device::from_syspath_with_context(self.context.clone(), path).ok();
        let spoken_of = found.as_ref().is_some_and(udev::Device::is_initialized);
        if let Some(found) = &found {
            // Without an entry in the database these are the kernel's alone.
            device.properties = database::properties(found);
        }
        if spoken_of {
            take_udev_facts(device, links);
        }
        if spoken_of || (udevd_runs && device.node.is_none()) {
            device.udev_state = UdevState::Processed;
        } else if !udevd_runs {
            device.udev_state = device.udev_state.max(UdevState::NoUdevd);
        }
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
        let always = [(Ready::Kernel, self.kernel.fd()), (Ready::All, self.udev.fd())];
        let static_nodes = self.static_nodes.fd().map(|fd| (Ready::Kernel, fd));
        always.into_iter().chain(static_nodes)
    }

    /// Looks at the static nodes: to be asked at the start and each second, for what inotify cannot
    /// tell (a link's far end, a directory that was not there yet).
    pub fn poll_static_nodes(&mut self) -> Vec<DeviceEvent> {
        self.static_nodes.poll()
    }

    /// Whether one of [`Self::fds`] was replaced or has been added: wait on them again, and
    /// enumerate. Ask each second.
    pub fn refresh(&mut self) -> bool {
        self.static_nodes.has_news()
    }
}

/// Takes udev's tags and links out of the properties, and finds out which of the links point to the
/// device.
fn take_udev_facts(device: &mut Device, links: &HostLinks) {
    message::take_udev_facts(device);
    let targets = links.follow(&device.links);
    device.sort_links(&targets);
}

/// The sysfs directories among the targets.
fn syspaths(named: &Aliases) -> Vec<SysPath> {
    let targets = named.targets().filter_map(Path::to_str);
    targets
        .filter(|target| target.starts_with("/sys/devices/"))
        .map(SysPath::new)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wants_add_up_and_an_attribute_wanted_for_two_devtypes_is_read_for_all() {
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

    #[test]
    fn the_host_s_null_device_is_enumerated_with_alias_and_attribute() {
        let needed = FactsNeeded {
            attributes: [("dev".to_owned(), None)].into(),
            followed_paths: [PathBuf::from("/sys/class/mem/null")].into(),
            static_nodes: [PathBuf::from("/dev/zero")].into(),
            ..FactsNeeded::default()
        };
        let monitor = DeviceMonitor::open(needed, RECEIVE_BUFFER).unwrap();
        let devices = monitor.enumerate().unwrap();
        let find = |path: &str| devices.iter().find(|device| device.syspath.as_str() == path);
        let null = find("/sys/devices/virtual/mem/null").unwrap();
        assert_eq!(null.attribute("dev"), Some("1:3"));
        assert_eq!(null.aliases, [PathBuf::from("/sys/class/mem/null")].into());
        assert_eq!((null.udev_state, null.seqnum), (UdevState::Pending, 0));
        assert!(find("/sys/devices/oci-hotplug-node/dev/zero").is_some());
    }

    #[test]
    fn a_device_is_complete_at_once_where_nobody_will_speak_of_it() {
        let monitor = DeviceMonitor::open(FactsNeeded::default(), RECEIVE_BUFFER).unwrap();
        let mut devices = monitor.enumerate().unwrap();
        let null = devices
            .iter_mut()
            .find(|device| device.syspath.name() == "null")
            .unwrap();
        monitor.complete_where(null, false, &HostLinks::open());
        assert_eq!(null.udev_state, UdevState::NoUdevd);
        assert_eq!(null.properties["DEVNAME"], "/dev/null");
    }
}
