//! A uevent's text as facts: what kernel and udevd write, turned into snapshots. Pure: no I/O.
//!
//! Must not know the socket that a message came through, nor read sysfs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::model::device::event::DeviceEvent;
use crate::model::device::{DevKind, DevNode, DevNum, Device, SysPath, UdevState};
use crate::model::uevent::received::ReceivedUevent;

/// A device's properties by name (`KEY=VALUE` of a uevent, of a `uevent` file or of udev's
/// database).
pub type Properties = BTreeMap<String, String>;

/// What a message says has happened (the kernel's `kobject_actions`, lib/kobject_uevent.c).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// `add`
    Added,
    /// `change`, `bind`, `unbind`, `online`, `offline`, and whatever a later kernel invents.
    Changed,
    /// `move`, with the place where the device was.
    Moved(SysPath),
    /// `remove`
    Removed,
}

/// One message about one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What has happened.
    pub happened: Happened,
    /// What the message alone tells of the device.
    pub device: Device,
}

impl Message {
    /// Reads a message's properties; `None` when it is not about a device (no DEVPATH below
    /// `/devices`: modules, bus drivers and slab caches send uevents too).
    pub fn from_properties(properties: Properties, udev_state: UdevState) -> Option<Self> {
        let syspath = syspath_of(properties.get("DEVPATH")?)?;
        let happened = match properties.get("ACTION").map(String::as_str)? {
            "add" => Happened::Added,
            "remove" => Happened::Removed,
            "move" => properties
                .get("DEVPATH_OLD")
                .and_then(|old| syspath_of(old))
                .map_or(Happened::Changed, Happened::Moved),
            _ => Happened::Changed,
        };
        let subsystem = properties.get("SUBSYSTEM").cloned();
        let mut device = from_uevent(syspath, subsystem, properties);
        device.udev_state = udev_state;
        device.seqnum = device
            .properties
            .get("SEQNUM")
            .and_then(|number| number.parse().ok())
            .unwrap_or(0);
        Some(Self { happened, device })
    }

    /// The message as the monitor reports it.
    pub fn into_event(self) -> DeviceEvent {
        let device = self.device;
        match self.happened {
            Happened::Added => DeviceEvent::Added(device),
            Happened::Changed => DeviceEvent::Changed(device),
            Happened::Moved(from) => DeviceEvent::Moved { from, device },
            Happened::Removed => DeviceEvent::Removed {
                syspath: device.syspath,
                seqnum: device.seqnum,
            },
        }
    }
}

/// The kernel's DEVPATH (it leaves `/sys` out) as identity, if it is a device's.
fn syspath_of(devpath: &str) -> Option<SysPath> {
    let below = devpath.strip_prefix("/devices/")?;
    let named = below.split('/').all(|name| !matches!(name, "" | "." | ".."));
    named.then(|| SysPath::new(format!("/sys{devpath}")))
}

/// The properties of a message; bytes that are not UTF-8 are replaced.
pub fn properties_of(message: &ReceivedUevent<'_>) -> Properties {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let properties = message.properties();
    properties.map(|(key, value)| (text(key), text(value))).collect()
}

/// Reads the text of a `uevent` file: lines `KEY=VALUE`. Bytes that are not UTF-8 are replaced,
/// other lines skipped.
pub fn parse_uevent(text: &[u8]) -> Properties {
    String::from_utf8_lossy(text)
        .lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(key, _)| !key.is_empty())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// The snapshot that a uevent alone gives: devtype, driver, node, properties.
pub fn from_uevent(syspath: SysPath, subsystem: Option<String>, mut properties: Properties) -> Device {
    let mut device = Device::new(syspath);
    device.devtype = properties.get("DEVTYPE").cloned();
    device.driver = properties.get("DRIVER").cloned();
    if let Some(name) = properties.get_mut("DEVNAME") {
        // The kernel names nodes relative to /dev, udevd absolutely.
        if !name.starts_with("/dev/") {
            *name = format!("/dev/{name}");
        }
    }
    device.node = node_of(&properties, subsystem.as_deref());
    device.subsystem = subsystem;
    device.properties = properties;
    device
}

fn node_of(properties: &Properties, subsystem: Option<&str>) -> Option<DevNode> {
    let number = |key| properties.get(key).and_then(|text| text.parse::<u32>().ok());
    let path = PathBuf::from(properties.get("DEVNAME")?);
    // Only the block class links its devices into /sys/dev/block
    // (Documentation/ABI/testing/sysfs-dev).
    let kind = match subsystem {
        Some("block") => DevKind::Block,
        _ => DevKind::Char,
    };
    let num = DevNum {
        kind,
        major: number("MAJOR")?,
        minor: number("MINOR")?,
    };
    Some(DevNode { path, num })
}

/// Takes udev's tags and links out of the properties that udevd (or its database) gave.
pub fn take_udev_facts(device: &mut Device) {
    device.tags = tags(&device.properties);
    device.links = links(&device.properties);
}

/// udev's tags as they are now.
///
/// TAGS keeps every tag that the device ever had; CURRENT_TAGS, which came with
/// UDEV_DATABASE_VERSION in systemd 247, those of the last run of the rules. Where the latter is
/// known it alone counts (udev(7), TAG).
fn tags(properties: &Properties) -> BTreeSet<String> {
    let current = properties.contains_key("UDEV_DATABASE_VERSION") || properties.contains_key("CURRENT_TAGS");
    let list = properties.get(if current { "CURRENT_TAGS" } else { "TAGS" });
    list.into_iter()
        .flat_map(|list| list.split(':'))
        .filter(|tag| !tag.is_empty())
        .map(str::to_owned)
        .collect()
}

/// udev's links to the node: DEVLINKS, separated by white space (udev replaces it inside names).
fn links(properties: &Properties) -> BTreeSet<PathBuf> {
    let list = properties.get("DEVLINKS").map_or("", String::as_str);
    let mut links = BTreeSet::new();
    links.extend(
        list.split_whitespace()
            .filter(|link| link.starts_with("/dev/"))
            .map(PathBuf::from),
    );
    links
}

#[cfg(test)]
mod tests;
