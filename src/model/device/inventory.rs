//! The devices that are present now, according to the events received so far.
//!
//! Applies events from two sources, the kernel and udevd, which arrive in no common order, and
//! keeps one snapshot per device. Must not know what any request selects (`plan`).

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::model::device::event::DeviceEvent;
use crate::model::device::{Aliases, Device, LinkTargets, STATIC_NODE, STATIC_NODES, SysPath, UdevState};
use crate::model::request::selector::Chain;

/// For how many paths the inventory keeps the number of the last event that added or removed a
/// device there.
const FLOORS_KEPT: usize = 1024;

/// All known devices by their place in sysfs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    devices: BTreeMap<SysPath, Device>,
    /// For each path, the sequence number of the event that last added or removed a device there:
    /// older events are stale.
    floors: BTreeMap<SysPath, u64>,
}

impl Inventory {
    /// An inventory of these devices.
    pub fn new(devices: impl IntoIterator<Item = Device>) -> Self {
        let mut inventory = Self::default();
        inventory.replace(devices);
        inventory
    }

    /// Applies a fresh enumeration: a device that it does not contain is gone. An enumeration has
    /// only the kernel's facts, so udevd's facts of a device that is still the same are kept.
    pub fn replace(&mut self, devices: impl IntoIterator<Item = Device>) {
        let mut before = std::mem::take(&mut self.devices);
        for device in devices {
            let merged = match before.remove(&device.syspath) {
                Some(known) => merge(known, device),
                None => device,
            };
            self.devices.insert(merged.syspath.clone(), merged);
        }
    }

    /// Applies one event, and returns whether it changed anything. [`DeviceEvent::Overrun`] changes
    /// nothing here: the caller enumerates the devices again.
    pub fn apply(&mut self, event: DeviceEvent) -> bool {
        match event {
            DeviceEvent::Added(device) => {
                if self.is_stale(&device.syspath, device.seqnum) {
                    return false;
                }
                if device.udev_state == UdevState::Pending {
                    self.set_floor(&device.syspath, device.seqnum);
                }
                self.take(device)
            }
            DeviceEvent::Changed(device) => {
                !self.is_stale(&device.syspath, device.seqnum) && self.take(device)
            }
            DeviceEvent::Moved { from, device } => {
                if self.is_stale(&device.syspath, device.seqnum) {
                    return false;
                }
                self.rename(&from, &device.syspath);
                self.set_floor(&from, device.seqnum);
                self.take(device)
            }
            DeviceEvent::Removed { syspath, seqnum } => {
                if self.is_stale(&syspath, seqnum) {
                    return false;
                }
                self.set_floor(&syspath, seqnum);
                self.remove(&syspath)
            }
            DeviceEvent::Overrun => false,
        }
    }

    /// Updates all devices with where links point now: `named` contains all links that selectors
    /// name, `claimed` some of udev's links. udevd sends no event for the device that gains or
    /// loses a link. Returns whether anything changed.
    pub fn take_links(&mut self, named: &Aliases, claimed: &LinkTargets) -> bool {
        let mut is_news = false;
        let known = |device: &&mut Device| device.subsystem.as_deref() != Some(STATIC_NODE);
        for device in self.devices.values_mut().filter(known) {
            let aliases = named.of(device);
            if aliases != device.aliases {
                device.aliases = aliases;
                is_news = true;
            }
            if !claimed.is_empty() {
                is_news |= device.sort_links(claimed);
            }
        }
        is_news
    }

    /// All links that a device claims and that point elsewhere. A device can gain such a link
    /// without an event for that device.
    pub fn lost_links(&self) -> impl Iterator<Item = &PathBuf> {
        self.devices.values().flat_map(|device| &device.lost_links)
    }

    pub fn get(&self, syspath: &SysPath) -> Option<&Device> {
        self.devices.get(syspath)
    }

    /// The device at a path, for adding facts that were read later.
    pub fn get_mut(&mut self, syspath: &SysPath) -> Option<&mut Device> {
        self.devices.get_mut(syspath)
    }

    /// All devices, in the order of their paths.
    pub fn iter(&self) -> impl Iterator<Item = &Device> {
        self.devices.values()
    }

    /// The device at `root` and all below it, in the order of their paths.
    pub fn at_or_below<'a>(&'a self, root: &SysPath) -> impl Iterator<Item = &'a Device> + use<'a> {
        // The paths below `/a/b` are exactly those between `/a/b/` and `/a/b0`: in ASCII, '0'
        // follows '/'.
        let first = SysPath::new(format!("{root}/\0"));
        let end = SysPath::new(format!("{root}0"));
        self.devices
            .get(root)
            .into_iter()
            .chain(self.devices.range(first..end).map(|(_, device)| device))
    }

    /// The devices whose paths begin with this text, in the order of their paths.
    pub fn starting_with<'a>(&'a self, text: &'a str) -> impl Iterator<Item = &'a Device> {
        let from = self.devices.range(SysPath::new(text)..);
        from.map(|(_, device)| device)
            .take_while(move |device| device.syspath.as_str().starts_with(text))
    }

    /// The static nodes (`node:`), which sysfs does not know by their paths.
    pub fn static_nodes(&self) -> impl Iterator<Item = &Device> {
        self.starting_with(STATIC_NODES)
    }

    /// The devices above this one, the nearest first. Directories that are not devices are skipped,
    /// as udev_device_get_parent(3) does.
    pub fn ancestors<'a>(&'a self, syspath: &SysPath) -> impl Iterator<Item = &'a Device> + use<'a> {
        syspath.ancestors().filter_map(|path| self.devices.get(&path))
    }

    /// For a static node (`node:`), the device that sysfs has under the node's number; for any
    /// other device, the device itself.
    pub fn real<'a>(&'a self, device: &'a Device) -> &'a Device {
        if device.subsystem.as_deref() != Some(STATIC_NODE) {
            return device;
        }
        let Some(node) = &device.node else { return device };
        self.devices
            .values()
            .find(|other| {
                other.subsystem.as_deref() != Some(STATIC_NODE)
                    && other.node.as_ref().is_some_and(|known| known.num == node.num)
            })
            .unwrap_or(device)
    }

    /// What selectors are evaluated on: a device under all its names (a static node also as the
    /// device that sysfs has under its number), and its parents.
    pub fn chain<'a>(&'a self, device: &'a Device) -> Chain<'a> {
        let real = self.real(device);
        let names = [device, real];
        let own = if real.syspath == device.syspath {
            &names[..1]
        } else {
            &names[..]
        };
        Chain::new(own, self.ancestors(&real.syspath))
    }

    /// The other half of a USB 3 hub. One of them knows it: the first to be plugged in has had its
    /// last event before the other appeared.
    pub fn companion_of(&self, hub: &SysPath) -> Option<&SysPath> {
        let known = self.devices.get(hub)?;
        if known.devtype.as_deref() != Some("usb_device") {
            return None;
        }
        let by_other = || {
            let mut others = self.devices.values();
            others.find(|other| other.companion.as_ref() == Some(hub))
        };
        let own = known.companion.as_ref().and_then(|other| self.devices.get(other));
        own.or_else(by_other).map(|companion| &companion.syspath)
    }

    /// Removes a device. A later device at its path is not the other half of the same hub.
    fn remove(&mut self, syspath: &SysPath) -> bool {
        let removed = self.devices.remove(syspath);
        let has_companion = |device: &&mut Device| device.companion.as_ref() == Some(syspath);
        for hub in self.devices.values_mut().filter(has_companion) {
            hub.companion = None;
        }
        removed.is_some()
    }

    fn take(&mut self, device: Device) -> bool {
        let before = self.devices.get(&device.syspath);
        let merged = match before {
            Some(known) => merge(known.clone(), device),
            None => device,
        };
        if before == Some(&merged) {
            return false;
        }
        self.devices.insert(merged.syspath.clone(), merged);
        true
    }

    /// A move renames the whole subtree, and the kernel sends only one event for it.
    fn rename(&mut self, from: &SysPath, to: &SysPath) {
        let moved: Vec<SysPath> = self
            .at_or_below(from)
            .map(|device| device.syspath.clone())
            .collect();
        for old in moved {
            if let Some(mut device) = self.devices.remove(&old) {
                let tail = &old.as_str()[from.as_str().len()..];
                device.syspath = SysPath::new(format!("{to}{tail}"));
                self.devices.insert(device.syspath.clone(), device);
            }
        }
    }

    /// udevd's events come late: an event of an earlier device at the same path must not change the
    /// present one.
    fn is_stale(&self, syspath: &SysPath, seqnum: u64) -> bool {
        seqnum != 0 && self.floors.get(syspath).is_some_and(|floor| seqnum < *floor)
    }

    fn set_floor(&mut self, syspath: &SysPath, seqnum: u64) {
        if seqnum == 0 {
            return;
        }
        self.floors.insert(syspath.clone(), seqnum);
        if self.floors.len() > FLOORS_KEPT {
            // Forget the lower half: those events are long past, and udevd is never that far
            // behind.
            let mut seqnums: Vec<u64> = self.floors.values().copied().collect();
            seqnums.sort_unstable();
            let middle = seqnums[seqnums.len() / 2];
            self.floors.retain(|_, floor| *floor >= middle);
        }
    }
}

/// The `known` device with the facts of `news`. The kernel's news replace neither the facts that
/// udevd has added nor an overdue state: nothing waits for such a device again.
fn merge(known: Device, news: Device) -> Device {
    let same_device = known.node == news.node;
    if !(same_device && known.udev_state > UdevState::Pending && news.udev_state == UdevState::Pending) {
        return news;
    }
    Device {
        properties: known.properties,
        tags: known.tags,
        links: known.links,
        lost_links: known.lost_links,
        udev_state: known.udev_state,
        // Keep the number of udevd's last event: the kernel's change is announced after udevd has
        // processed it.
        seqnum: known.seqnum,
        ..news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::device::{DevKind, DevNode, DevNum};

    fn device(path: &str, minor: u32, seqnum: u64, udev_state: UdevState) -> Device {
        let mut device = Device::new(SysPath::new(path));
        device.node = Some(DevNode {
            path: "/dev/x".into(),
            num: DevNum {
                kind: DevKind::Char,
                major: 9,
                minor,
            },
        });
        device.seqnum = seqnum;
        device.udev_state = udev_state;
        if udev_state == UdevState::Processed {
            device.properties.insert("TOLD_BY".into(), "udevd".into());
        }
        device
    }

    const PATH: &str = "/sys/devices/a/b";

    #[test]
    fn a_late_add_from_udevd_does_not_restore_a_removed_device() {
        let mut inventory = Inventory::default();
        inventory.apply(DeviceEvent::Added(device(PATH, 0, 10, UdevState::Pending)));
        inventory.apply(DeviceEvent::Removed {
            syspath: SysPath::new(PATH),
            seqnum: 11,
        });
        assert!(!inventory.apply(DeviceEvent::Added(device(PATH, 0, 10, UdevState::Processed))));
        assert_eq!(inventory.iter().count(), 0);
    }

    #[test]
    fn a_late_remove_from_udevd_does_not_touch_the_device_that_came_back() {
        let mut inventory = Inventory::default();
        inventory.apply(DeviceEvent::Added(device(PATH, 0, 10, UdevState::Pending)));
        inventory.apply(DeviceEvent::Removed {
            syspath: SysPath::new(PATH),
            seqnum: 11,
        });
        inventory.apply(DeviceEvent::Added(device(PATH, 1, 12, UdevState::Pending)));
        assert!(!inventory.apply(DeviceEvent::Added(device(PATH, 0, 10, UdevState::Processed))));
        assert!(!inventory.apply(DeviceEvent::Removed {
            syspath: SysPath::new(PATH),
            seqnum: 11
        }));
        assert!(inventory.apply(DeviceEvent::Added(device(PATH, 1, 12, UdevState::Processed))));
        let now = inventory.get(&SysPath::new(PATH)).unwrap();
        assert_eq!(now.node.as_ref().unwrap().num.minor, 1);
        assert_eq!(now.udev_state, UdevState::Processed);
    }

    #[test]
    fn a_change_from_the_kernel_keeps_the_facts_of_udevd() {
        let mut told = device(PATH, 0, 5, UdevState::Processed);
        told.tags.insert("seat".into());
        told.links.insert("/dev/by-id/x".into());
        told.lost_links.insert("/dev/by-label/x".into());
        let mut inventory = Inventory::new([told.clone()]);
        let mut change = device(PATH, 0, 7, UdevState::Pending);
        change.driver = Some("other".into());
        assert!(inventory.apply(DeviceEvent::Changed(change)));
        let now = inventory.get(&SysPath::new(PATH)).unwrap();
        assert_eq!(now.driver.as_deref(), Some("other"));
        assert_eq!(now.properties["TOLD_BY"], "udevd");
        assert_eq!((now.udev_state, now.seqnum), (UdevState::Processed, 5));
        assert_eq!(
            (&now.tags, &now.links, &now.lost_links),
            (&told.tags, &told.links, &told.lost_links)
        );
    }

    #[test]
    fn a_device_that_is_overdue_stays_so_until_udevd_processes_it() {
        let mut inventory = Inventory::new([device(PATH, 0, 5, UdevState::Overdue)]);
        inventory.apply(DeviceEvent::Changed(device(PATH, 0, 7, UdevState::Pending)));
        assert_eq!(
            inventory.get(&SysPath::new(PATH)).unwrap().udev_state,
            UdevState::Overdue
        );
        inventory.apply(DeviceEvent::Changed(device(PATH, 0, 7, UdevState::Processed)));
        let now = inventory.get(&SysPath::new(PATH)).unwrap();
        assert_eq!(
            (now.udev_state, now.properties["TOLD_BY"].as_str()),
            (UdevState::Processed, "udevd")
        );
    }

    #[test]
    fn a_device_with_another_number_at_the_same_path_is_another_device() {
        let mut inventory = Inventory::new([device(PATH, 0, 5, UdevState::Processed)]);
        inventory.apply(DeviceEvent::Added(device(PATH, 1, 9, UdevState::Pending)));
        let now = inventory.get(&SysPath::new(PATH)).unwrap();
        assert!(now.properties.is_empty());
        assert_eq!(now.udev_state, UdevState::Pending);
    }

    #[test]
    fn the_same_event_twice_changes_nothing() {
        let mut inventory = Inventory::default();
        let event = DeviceEvent::Added(device(PATH, 0, 10, UdevState::Processed));
        assert!(inventory.apply(event.clone()));
        assert!(!inventory.apply(event));
    }

    #[test]
    fn a_move_takes_the_devices_below_along() {
        let mut inventory = Inventory::new([
            device("/sys/devices/a/b", 0, 0, UdevState::Processed),
            device("/sys/devices/a/b/c", 1, 0, UdevState::Processed),
            device("/sys/devices/a/bc", 2, 0, UdevState::Processed),
        ]);
        inventory.apply(DeviceEvent::Moved {
            from: SysPath::new("/sys/devices/a/b"),
            device: device("/sys/devices/z", 0, 3, UdevState::Pending),
        });
        let paths: Vec<&str> = inventory.iter().map(|device| device.syspath.as_str()).collect();
        assert_eq!(paths, ["/sys/devices/a/bc", "/sys/devices/z", "/sys/devices/z/c"]);
    }

    #[test]
    fn below_a_hub_port_1_are_not_the_devices_of_port_10() {
        let inventory = Inventory::new([
            device("/sys/devices/1-1", 0, 0, UdevState::Pending),
            device("/sys/devices/1-1/1-1.1", 1, 0, UdevState::Pending),
            device("/sys/devices/1-1-0", 2, 0, UdevState::Pending),
            device("/sys/devices/1-10", 3, 0, UdevState::Pending),
            device("/sys/devices/1-1/1-1.1/tty/ttyUSB0", 4, 0, UdevState::Pending),
        ]);
        let below: Vec<&str> = inventory
            .at_or_below(&SysPath::new("/sys/devices/1-1"))
            .map(|device| device.syspath.as_str())
            .collect();
        assert_eq!(
            below,
            [
                "/sys/devices/1-1",
                "/sys/devices/1-1/1-1.1",
                "/sys/devices/1-1/1-1.1/tty/ttyUSB0"
            ]
        );
    }

    #[test]
    fn an_enumeration_removes_absent_devices_and_keeps_the_facts_of_udevd() {
        let mut inventory = Inventory::new([
            device(PATH, 0, 5, UdevState::Processed),
            device("/sys/devices/gone", 1, 6, UdevState::Processed),
        ]);
        inventory.replace([device(PATH, 0, 0, UdevState::Pending)]);
        assert_eq!(inventory.iter().count(), 1);
        assert_eq!(
            inventory.get(&SysPath::new(PATH)).unwrap().udev_state,
            UdevState::Processed
        );
    }

    #[test]
    fn the_number_of_remembered_events_is_limited() {
        let mut inventory = Inventory::default();
        for number in 1..5000u64 {
            let syspath = SysPath::new(format!("/sys/devices/x{number}"));
            inventory.apply(DeviceEvent::Removed {
                syspath,
                seqnum: number,
            });
        }
        assert!(inventory.floors.len() <= FLOORS_KEPT);
    }

    #[test]
    fn the_later_half_of_the_remembered_events_is_kept() {
        let mut inventory = Inventory::default();
        let path = |number: usize| SysPath::new(format!("/sys/devices/x{number}"));
        let mut remove = |number: usize| {
            inventory.apply(DeviceEvent::Removed {
                syspath: path(number),
                seqnum: number as u64,
            });
            inventory.floors.len()
        };
        assert_eq!((1..=FLOORS_KEPT).map(&mut remove).last(), Some(FLOORS_KEPT));
        assert_eq!(remove(FLOORS_KEPT + 1), FLOORS_KEPT / 2 + 1);
        assert!(inventory.is_stale(&path(FLOORS_KEPT + 1), 1));
        assert!(!inventory.is_stale(&path(1), 1), "it is forgotten");
    }

    #[test]
    fn news_of_the_kernel_are_applied_until_udevd_has_processed_the_device() {
        let mut inventory = Inventory::new([device(PATH, 0, 5, UdevState::Pending)]);
        let mut change = device(PATH, 0, 7, UdevState::Pending);
        change.properties.insert("MEDIA".into(), "1".into());
        assert!(inventory.apply(DeviceEvent::Changed(change.clone())));
        assert_eq!(inventory.get(&SysPath::new(PATH)), Some(&change));
    }

    #[test]
    fn a_moved_link_and_a_new_alias_are_changes() {
        let link = PathBuf::from("/dev/by-id/x");
        let mut claimant = device(PATH, 0, 5, UdevState::Processed);
        claimant.lost_links.insert(link.clone());
        let mut inventory = Inventory::new([claimant, device("/sys/devices/z", 1, 5, UdevState::Processed)]);
        let none = Aliases::default();
        let here: LinkTargets = [(link.clone(), Some(PATH.into()))].into();
        assert!(
            inventory.take_links(&none, &here),
            "the first of two devices has gained it"
        );
        assert!(!inventory.take_links(&none, &here), "nothing has moved");
        let named = Aliases::new([("/dev/alias".into(), Some(PATH.into()))].into());
        assert!(inventory.take_links(&named, &LinkTargets::new()));
        assert!(!inventory.take_links(&named, &here), "neither has moved");
        // If several links moved, looking at one is enough.
        let elsewhere: LinkTargets = [(link, None)].into();
        assert!(inventory.take_links(&none, &elsewhere));
    }
}
