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
    /// Boxed, because a map of large values keeps room for as many again.
    devices: BTreeMap<SysPath, Box<Device>>,
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
            if let Some(known) = before.remove(&device.syspath) {
                self.devices.insert(device.syspath.clone(), known);
            }
            let syspath = device.syspath.clone();
            self.refresh(&syspath, Some(device));
        }
    }

    /// Applies what sysfs has of one device now; `None` if it is gone. See [`Self::replace`].
    pub fn refresh(&mut self, syspath: &SysPath, device: Option<Device>) {
        let Some(device) = device else {
            self.remove(syspath);
            return;
        };
        let merged = match self.devices.remove(syspath) {
            Some(known) => merge(*known, device),
            None => device,
        };
        self.devices.insert(merged.syspath.clone(), Box::new(merged));
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
        for device in self.devices.values_mut().map(Box::as_mut).filter(known) {
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
        self.devices.get(syspath).map(Box::as_ref)
    }

    /// The device at a path, for adding facts that were read later.
    pub fn get_mut(&mut self, syspath: &SysPath) -> Option<&mut Device> {
        self.devices.get_mut(syspath).map(Box::as_mut)
    }

    /// All devices, in the order of their paths.
    pub fn iter(&self) -> impl Iterator<Item = &Device> {
        self.devices.values().map(Box::as_ref)
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
            .map(Box::as_ref)
    }

    /// The devices whose paths begin with this text, in the order of their paths.
    pub fn starting_with<'a>(&'a self, text: &'a str) -> impl Iterator<Item = &'a Device> {
        let from = self.devices.range(SysPath::new(text)..);
        from.map(|(_, device)| device.as_ref())
            .take_while(move |device| device.syspath.as_str().starts_with(text))
    }

    /// The static nodes (`node:`), which sysfs does not know by their paths.
    pub fn static_nodes(&self) -> impl Iterator<Item = &Device> {
        self.starting_with(STATIC_NODES)
    }

    /// The devices above this one, the nearest first. Directories that are not devices are skipped,
    /// as udev_device_get_parent(3) does.
    pub fn ancestors<'a>(&'a self, syspath: &SysPath) -> impl Iterator<Item = &'a Device> + use<'a> {
        syspath.ancestors().filter_map(|path| self.get(&path))
    }

    /// For a static node (`node:`), the device that sysfs has under the node's number; for any
    /// other device, the device itself.
    pub fn real<'a>(&'a self, device: &'a Device) -> &'a Device {
        if device.subsystem.as_deref() != Some(STATIC_NODE) {
            return device;
        }
        let Some(node) = &device.node else { return device };
        self.iter()
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
        let known = self.get(hub)?;
        if known.devtype.as_deref() != Some("usb_device") {
            return None;
        }
        let by_other = || {
            let mut others = self.iter();
            others.find(|other| other.companion.as_ref() == Some(hub))
        };
        let own = known.companion.as_ref().and_then(|other| self.get(other));
        own.or_else(by_other).map(|companion| &companion.syspath)
    }

    /// Removes a device. A later device at its path is not the other half of the same hub.
    fn remove(&mut self, syspath: &SysPath) -> bool {
        let removed = self.devices.remove(syspath);
        let has_companion = |device: &&mut Device| device.companion.as_ref() == Some(syspath);
        let devices = self.devices.values_mut().map(Box::as_mut);
        for hub in devices.filter(has_companion) {
            hub.companion = None;
        }
        removed.is_some()
    }

    fn take(&mut self, device: Device) -> bool {
        let before = self.get(&device.syspath);
        let merged = match before {
            Some(known) => merge(known.clone(), device),
            None => device,
        };
        if before == Some(&merged) {
            return false;
        }
        self.devices.insert(merged.syspath.clone(), Box::new(merged));
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
mod tests;
