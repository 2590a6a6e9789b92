//! A USB device with nodes that a test chooses.

use super::hubs::root_hubs;
use super::{XHCI, usb_device, usb_interface};
use crate::model::device::{DevKind, Device};

/// A node of [`usb_device_with`]: the interface's number (255: none), subsystem, sysfs path below
/// the interface, path of the node, DEVTYPE or nothing.
pub(crate) type Probe = (u8, &'static str, &'static str, &'static str, &'static str);

/// A USB device 1209:0001 at 1-1 with these nodes, and the devices between. Parents come before
/// their children.
pub(crate) fn usb_device_with(nodes: &[Probe]) -> Vec<Device> {
    let path = format!("{XHCI}/usb1/1-1");
    let mut devices = vec![usb_device(&path, 1, 9, ("1209", "0001"), None)];
    for (minor, (interface, subsystem, below, node, devtype)) in (0..).zip(nodes) {
        let is_own = *interface == 255;
        let number = format!("{interface:02x}");
        let base = if is_own {
            path.clone()
        } else {
            format!("{path}/1-1:1.{interface}")
        };
        if !is_own {
            devices.push(usb_interface(&base, &number, "probe"));
        }
        devices.extend(devices_between(&base, below));
        let kind = if *subsystem == "block" {
            DevKind::Block
        } else {
            DevKind::Char
        };
        let mut device = Device::recorded(format!("{base}/{below}"), subsystem).node(node, kind, 200, minor);
        if !devtype.is_empty() {
            device = device.devtype(devtype);
        }
        if has_usb_id(subsystem) && !is_own {
            device = device.usb_id("1209", "0001", &number);
        }
        devices.push(device);
    }
    devices.sort_by(|one, other| one.syspath.cmp(&other.syspath));
    devices.dedup_by(|one, other| one.syspath == other.syspath);
    let mut all = root_hubs();
    all.extend(devices);
    all
}

/// The devices between an interface and a path below it: HID devices, inputs, serial ports, SCSI
/// devices, sound cards.
pub(super) fn devices_between(base: &str, below: &str) -> Vec<Device> {
    let paths = below.match_indices('/').map(|(index, _)| &below[..index]);
    let with_subsystem = paths.filter_map(|path| {
        let name = path.rsplit('/').next()?;
        let is_numbered = |prefix: &&str| {
            let rest = name.strip_prefix(*prefix);
            rest.is_some_and(|rest| rest.starts_with(|digit: char| digit.is_ascii_digit()))
        };
        let prefixes = ["0003:", "input", "ttyUSB", "rc", "card"];
        let subsystems = ["hid", "input", "usb-serial", "rc", "sound"];
        let mut found = prefixes.iter().zip(subsystems);
        let subsystem = match found.find(|(prefix, _)| is_numbered(prefix)) {
            Some((_, subsystem)) => subsystem,
            // HOST:CHANNEL:TARGET:LUN
            None if name.split(':').count() == 4 => "scsi",
            None => return None,
        };
        Some(Device::recorded(format!("{base}/{path}"), subsystem))
    });
    with_subsystem.collect()
}

/// Whether udev's rules run usb_id for what a USB interface has of this subsystem (60-serial,
/// 60-persistent-*.rules).
pub(super) fn has_usb_id(subsystem: &str) -> bool {
    ["tty", "block", "input", "video4linux", "sound"].contains(&subsystem)
}
