//! Which devices the host has now: the kernel's facts in sysfs, completed by those of udev's
//! database as far as requests need them.

use std::path::Path;

use super::database::Stored;
use super::error::MonitorError;
use super::links::HostLinks;
use super::sysfs::Attributes;
use super::{DeviceMonitor, message};
use crate::model::device::{Aliases, Device, SysPath, UdevState};

impl DeviceMonitor {
    /// All devices with nodes, all that lie above them, those that [`FactsNeeded::followed_paths`]
    /// lead to, and the static nodes.
    ///
    /// Parents come before their children; `seqnum` is 0 and `udev_state` is
    /// [`UdevState::Pending`], unless the requests need udev's facts of all: then each is
    /// completed. Errors: sysfs cannot be listed.
    pub fn enumerate(&self) -> Result<Vec<Device>, MonitorError> {
        let links = self.renewed_links();
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
        let links = self.links();
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

    /// Adds what udev's database knows: properties, tags, links.
    ///
    /// `udev_state` becomes [`UdevState::Processed`] when udevd has processed the device, and
    /// [`UdevState::NoUdevd`] when none runs. Of most devices without a node udevd stores nothing:
    /// not being in its database says nothing of them, and they count as processed. (udevd
    /// processes a device after those above it: what is decided by such a device is certain when
    /// the device with the node below it was processed.) Of a device that is gone all facts stay.
    /// What the database has of an earlier device with the same number does not count
    /// ([`Stored::OfAnEarlierDevice`]).
    pub fn complete(&self, device: &mut Device) {
        self.complete_where(device, self.udevd.runs(), &self.links());
    }

    /// The devices without a node at or below a path, which [`Self::enumerate`] leaves out, with
    /// udev's facts. Parents come before their children.
    pub fn nodeless_below(&self, root: &SysPath) -> Vec<Device> {
        let mut devices = self.sysfs.nodeless_below(root, &self.needed.attributes);
        let (udevd_runs, links) = (self.udevd.runs(), self.links());
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

    fn complete_where(&self, device: &mut Device, udevd_runs: bool, links: &HostLinks) {
        let mut is_stored = false;
        match self.database.read(device) {
            Stored::Gone => {}
            Stored::OfAnEarlierDevice => {
                let known = self.sysfs.device(&device.syspath, &Attributes::new());
                device.properties = known.map(|known| known.properties).unwrap_or_default();
            }
            Stored::Properties { of_all, is_processed } => {
                device.properties = of_all;
                is_stored = is_processed;
            }
        }
        if is_stored {
            take_udev_facts(device, links);
        }
        if is_stored || (udevd_runs && device.node.is_none()) {
            device.udev_state = UdevState::Processed;
        } else if !udevd_runs {
            device.udev_state = device.udev_state.max(UdevState::NoUdevd);
        }
    }
}

/// Takes udev's tags and links out of the properties, and finds out which of the links point to the
/// device.
pub(super) fn take_udev_facts(device: &mut Device, links: &HostLinks) {
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
    use std::path::PathBuf;

    use super::*;
    use crate::host::monitor::RECEIVE_BUFFER;
    use crate::model::request::facts_needed::FactsNeeded;

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
    fn a_device_is_complete_at_once_where_no_udevd_runs() {
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
