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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn properties(pairs: &[(&str, &str)]) -> Properties {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn message(pairs: &[(&str, &str)]) -> Option<Message> {
        Message::from_properties(properties(pairs), UdevState::Pending)
    }

    const TTY: &str = "/devices/pci0000:00/0000:00:14.0/usb1/1-1/1-1:1.0/ttyUSB0/tty/ttyUSB0";

    #[test]
    fn a_uevent_file_gives_number_node_devtype_and_driver() {
        let text = b"MAJOR=189\nMINOR=5\nDEVNAME=bus/usb/001/006\nDEVTYPE=usb_device\nDRIVER=usb\nPRODUCT=403/6001/600\n";
        let device = from_uevent(
            SysPath::new("/sys/devices/usb1/1-1"),
            Some("usb".into()),
            parse_uevent(text),
        );
        let node = device.node.unwrap();
        assert_eq!(node.path, PathBuf::from("/dev/bus/usb/001/006"));
        assert_eq!(node.num.to_string(), "c 189:5");
        assert_eq!(device.devtype.as_deref(), Some("usb_device"));
        assert_eq!(device.driver.as_deref(), Some("usb"));
        assert_eq!(device.properties["PRODUCT"], "403/6001/600");
        assert_eq!(device.properties["DEVNAME"], "/dev/bus/usb/001/006");
    }

    #[test]
    fn numbers_of_the_block_subsystem_are_block_numbers() {
        let text = parse_uevent(b"MAJOR=7\nMINOR=0\nDEVNAME=loop0\nDEVTYPE=disk\n");
        let device = from_uevent(
            SysPath::new("/sys/devices/virtual/block/loop0"),
            Some("block".into()),
            text,
        );
        assert_eq!(device.node.unwrap().num.to_string(), "b 7:0");
    }

    #[test]
    fn a_device_without_number_or_with_a_broken_one_has_no_node() {
        for text in [
            &b"DRIVER=ftdi_sio\n"[..],
            b"MAJOR=x\nMINOR=0\nDEVNAME=a\n",
            b"MAJOR=1\nMINOR=3\n",
        ] {
            let device = from_uevent(SysPath::new("/sys/devices/a"), None, parse_uevent(text));
            assert_eq!(device.node, None, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        let found = parse_uevent(b"NAME=\"caf\xe9\"\nno equals sign\n=no key\nEMPTY=\n");
        assert_eq!(found["NAME"], "\"caf\u{fffd}\"");
        assert_eq!(found["EMPTY"], "");
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn an_add_message_becomes_added_with_path_node_and_number() {
        let found = message(&[
            ("ACTION", "add"),
            ("DEVPATH", TTY),
            ("SUBSYSTEM", "tty"),
            ("MAJOR", "188"),
            ("MINOR", "0"),
            ("DEVNAME", "/dev/ttyUSB0"),
            ("SEQNUM", "4711"),
        ]);
        let Some(DeviceEvent::Added(device)) = found.map(Message::into_event) else {
            panic!("not Added");
        };
        assert_eq!(device.syspath.as_str(), format!("/sys{TTY}"));
        assert_eq!(device.subsystem.as_deref(), Some("tty"));
        assert_eq!(device.node.unwrap().path, PathBuf::from("/dev/ttyUSB0"));
        assert_eq!((device.seqnum, device.udev_state), (4711, UdevState::Pending));
    }

    #[test]
    fn change_bind_unbind_online_offline_and_unknown_actions_are_changes() {
        for action in ["change", "bind", "unbind", "online", "offline", "frobnicate"] {
            let found = message(&[("ACTION", action), ("DEVPATH", TTY)]).unwrap();
            assert_eq!(found.happened, Happened::Changed, "{action}");
        }
    }

    #[test]
    fn a_move_tells_where_the_device_was() {
        let found = message(&[
            ("ACTION", "move"),
            ("DEVPATH", "/devices/b"),
            ("DEVPATH_OLD", "/devices/a"),
            ("SEQNUM", "9"),
        ]);
        let Some(DeviceEvent::Moved { from, device }) = found.map(Message::into_event) else {
            panic!("not Moved");
        };
        assert_eq!(
            (from.as_str(), device.syspath.as_str()),
            ("/sys/devices/a", "/sys/devices/b")
        );
        let without = message(&[("ACTION", "move"), ("DEVPATH", "/devices/b")]).unwrap();
        assert_eq!(without.happened, Happened::Changed);
    }

    #[test]
    fn a_remove_is_only_a_path_and_a_number() {
        let found = message(&[("ACTION", "remove"), ("DEVPATH", TTY), ("SEQNUM", "12")]).unwrap();
        let syspath = SysPath::new(format!("/sys{TTY}"));
        assert_eq!(found.into_event(), DeviceEvent::Removed { syspath, seqnum: 12 });
    }

    #[test]
    fn messages_about_modules_drivers_and_strange_paths_are_no_device_messages() {
        for devpath in [
            "/module/loop",
            "/bus/usb/drivers/cp210x",
            "/devices/",
            "/devices/../etc",
            "devices/a",
            "",
        ] {
            assert_eq!(
                message(&[("ACTION", "add"), ("DEVPATH", devpath)]),
                None,
                "{devpath}"
            );
        }
        assert_eq!(message(&[("DEVPATH", TTY)]), None);
    }

    #[test]
    fn current_tags_count_where_the_database_knows_them() {
        let old = properties(&[("TAGS", ":systemd:seat:")]);
        assert_eq!(
            tags(&old),
            BTreeSet::from(["systemd".to_owned(), "seat".to_owned()])
        );
        let new = properties(&[("TAGS", ":systemd:seat:"), ("CURRENT_TAGS", ":seat:")]);
        assert_eq!(tags(&new), BTreeSet::from(["seat".to_owned()]));
        let none_left = properties(&[("TAGS", ":systemd:"), ("UDEV_DATABASE_VERSION", "1")]);
        assert_eq!(tags(&none_left), BTreeSet::new());
    }

    #[test]
    fn links_are_the_absolute_paths_below_dev() {
        let found = links(&properties(&[(
            "DEVLINKS",
            "/dev/serial/by-id/usb-FTDI /etc/passwd /dev/serial/by-path/x",
        )]));
        let expected = ["/dev/serial/by-id/usb-FTDI", "/dev/serial/by-path/x"].map(PathBuf::from);
        assert_eq!(found, BTreeSet::from(expected));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_uevent_parser_panic(text in prop::collection::vec(any::<u8>(), 0..512)) {
            let syspath = SysPath::new("/sys/devices/a");
            let mut device = from_uevent(syspath, Some("block".into()), parse_uevent(&text));
            take_udev_facts(&mut device);
        }

        #[test]
        fn what_is_written_as_uevent_is_read_back(
            pairs in prop::collection::btree_map("[A-Z_]{1,12}", "[ -~]{0,24}", 0..12),
        ) {
            let text: String = pairs.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
            prop_assert_eq!(parse_uevent(text.as_bytes()), pairs);
        }

        #[test]
        fn every_message_keeps_its_path_below_sys_devices(
            pairs in prop::collection::btree_map(
                "ACTION|DEVPATH|DEVPATH_OLD|SEQNUM|MAJOR|MINOR|DEVNAME|SUBSYSTEM|TAGS|DEVLINKS",
                "(/devices)?[/.a-z0-9:]{0,24}|add|move|remove", 0..10,
            ),
        ) {
            if let Some(found) = Message::from_properties(pairs, UdevState::Processed) {
                prop_assert!(found.device.syspath.as_str().starts_with("/sys/devices/"));
                prop_assert!(!found.device.syspath.as_str().contains("/../"));
            }
        }
    }
}
