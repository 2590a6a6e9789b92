//! Device trees for tests, in the form that a real kernel and udevd report: parents before their
//! children.
//!
//! Must not judge what should match; the tests do.

mod disks;
mod documented_host;
mod functions;
mod hubs;
mod recipes;
mod usb_device_with;

use std::path::{Path, PathBuf};

use crate::model::device::usb_classes::UsbClasses;
use crate::model::device::{DevKind, DevNode, DevNum, Device, SysPath, UdevState};

pub(crate) use disks::*;
pub(crate) use documented_host::documented_host;
pub(crate) use functions::*;
pub(crate) use hubs::*;
pub(crate) use recipes::recipe_host;
pub(crate) use usb_device_with::*;

const XHCI: &str = "/sys/devices/pci0000:00/0000:00:14.0";

impl Device {
    fn recorded(path: impl Into<String>, subsystem: &str) -> Self {
        let mut device = Self::new(SysPath::new(path));
        device.subsystem = Some(subsystem.to_owned());
        device.udev_state = UdevState::Processed;
        device
            .property("SUBSYSTEM", subsystem)
            .property("USEC_INITIALIZED", "4711")
    }

    fn devtype(mut self, devtype: &str) -> Self {
        self.devtype = Some(devtype.to_owned());
        self.property("DEVTYPE", devtype)
    }

    fn driver(mut self, driver: &str) -> Self {
        self.driver = Some(driver.to_owned());
        self.property("DRIVER", driver)
    }

    fn node(mut self, path: &str, kind: DevKind, major: u32, minor: u32) -> Self {
        self.node = Some(DevNode {
            path: PathBuf::from(path),
            num: DevNum { kind, major, minor },
        });
        self.property("DEVNAME", path)
    }

    fn attr(mut self, name: &str, value: &str) -> Self {
        self.attributes.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The descriptors of a USB device of this class with these interfaces (class, subclass,
    /// protocol), in the monitor's format.
    fn descriptors(self, class: u8, interfaces: &[[u8; 3]]) -> Self {
        let mut bytes = vec![18, 1, 0, 2, class, 0, 0, 64, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1];
        bytes.extend([9, 2, 0, 0, 1, 1, 0, 0x80, 50]);
        for [class, subclass, protocol] in interfaces {
            bytes.extend([9, 4, 0, 0, 1, *class, *subclass, *protocol, 0]);
            bytes.extend([7, 5, 0x81, 3, 8, 0, 10]);
        }
        let classes = UsbClasses::in_descriptors(&bytes).map(|classes| classes.to_text());
        self.attr("descriptors", &classes.unwrap_or_default())
    }

    fn property(mut self, key: &str, value: &str) -> Self {
        self.properties.insert(key.to_owned(), value.to_owned());
        self
    }

    fn tag(mut self, tag: &str) -> Self {
        self.tags.insert(tag.to_owned());
        self
    }

    fn link(mut self, link: &str) -> Self {
        self.links.insert(PathBuf::from(link));
        self
    }

    /// The properties that udev's usb_id sets on the devices of an interface.
    fn usb_id(self, vendor: &str, product: &str, interface: &str) -> Self {
        self.property("ID_BUS", "usb")
            .property("ID_VENDOR_ID", vendor)
            .property("ID_MODEL_ID", product)
            .property("ID_USB_INTERFACE_NUM", interface)
    }
}

/// The device between the kernel's event and udevd's.
pub(crate) fn before_udev(mut device: Device) -> Device {
    device
        .properties
        .retain(|key, _| !key.starts_with("ID_") && !matches!(key.as_str(), "USEC_INITIALIZED" | "DEVLINKS"));
    device.tags.clear();
    device.links.clear();
    device.udev_state = UdevState::Pending;
    device
}

/// The first device of a tree with this kernel name.
pub(crate) fn named<'d>(devices: &'d [Device], name: &str) -> &'d Device {
    let found = devices.iter().find(|device| device.syspath.name() == name);
    found.unwrap_or_else(|| panic!("no device {name} was recorded"))
}

pub(crate) fn with_node<'d>(devices: &'d [Device], path: &str) -> &'d Device {
    let is_it = |device: &&Device| {
        device
            .node
            .as_ref()
            .is_some_and(|node| node.path == Path::new(path))
    };
    let found = devices.iter().find(is_it);
    found.unwrap_or_else(|| panic!("no node {path} was recorded"))
}

/// The devices above this one, the nearest first.
pub(crate) fn ancestors<'d>(devices: &'d [Device], device: &Device) -> Vec<&'d Device> {
    let paths = device.syspath.ancestors();
    paths
        .filter_map(|path| devices.iter().find(|device| device.syspath == path))
        .collect()
}

fn usb_device(path: &str, bus: u32, number: u32, ids: (&str, &str), serial: Option<&str>) -> Device {
    let node = format!("/dev/bus/usb/{bus:03}/{number:03}");
    let device = Device::recorded(path, "usb")
        .devtype("usb_device")
        .driver("usb")
        .node(&node, DevKind::Char, 189, (bus - 1) * 128 + number - 1)
        .attr("idVendor", ids.0)
        .attr("idProduct", ids.1)
        .descriptors(0, &[[0xff, 0, 0]])
        .property("ID_BUS", "usb")
        .property("ID_VENDOR_ID", ids.0)
        .property("ID_MODEL_ID", ids.1);
    match serial {
        Some(serial) => device.attr("serial", serial).property("ID_SERIAL_SHORT", serial),
        None => device,
    }
}

fn usb_interface(path: &str, number: &str, driver: &str) -> Device {
    Device::recorded(path, "usb")
        .devtype("usb_interface")
        .driver(driver)
        .attr("bInterfaceNumber", number)
}

/// A device with two functions: a modem (interfaces 00 and 01, one tty) and a keypad (interface 02,
/// HID).
pub(crate) fn composite_device() -> Vec<Device> {
    let device = format!("{XHCI}/usb1/1-2");
    let hid = format!("{device}/1-2:1.2/0003:2341:8036.0001");
    let mut devices = root_hubs();
    devices.extend([
        usb_device(&device, 1, 5, ("2341", "8036"), Some("HIDPC"))
            .descriptors(0xef, &[[2, 2, 0], [10, 0, 0], [3, 1, 1]]),
        usb_interface(&format!("{device}/1-2:1.0"), "00", "cdc_acm"),
        Device::recorded(format!("{device}/1-2:1.0/tty/ttyACM0"), "tty")
            .node("/dev/ttyACM0", DevKind::Char, 166, 0)
            .usb_id("2341", "8036", "00")
            .tag("systemd")
            .link("/dev/serial/by-id/usb-Arduino_LLC_Arduino_Leonardo_HIDPC-if00"),
        usb_interface(&format!("{device}/1-2:1.1"), "01", "cdc_acm"),
        usb_interface(&format!("{device}/1-2:1.2"), "02", "usbhid"),
        Device::recorded(&hid, "hid")
            .driver("hid-generic")
            .attr("report_descriptor", "0001:0006"),
        Device::recorded(format!("{hid}/hidraw/hidraw0"), "hidraw").node(
            "/dev/hidraw0",
            DevKind::Char,
            243,
            0,
        ),
        Device::recorded(format!("{hid}/input/input7"), "input")
            .attr("name", "Arduino LLC Arduino Leonardo")
            .attr("capabilities", "keyboard"),
        Device::recorded(format!("{hid}/input/input7/event7"), "input")
            .node("/dev/input/event7", DevKind::Char, 13, 71)
            .usb_id("2341", "8036", "02")
            .property("ID_INPUT", "1")
            .property("ID_INPUT_KEYBOARD", "1")
            .tag("power-switch")
            .link("/dev/input/by-id/usb-Arduino_LLC_Arduino_Leonardo_HIDPC-if02-event-kbd"),
    ]);
    devices
}

/// A joystick at 1-3: a HID device that is not a keyboard.
pub(crate) fn joystick() -> Vec<Device> {
    let device = format!("{XHCI}/usb1/1-3");
    let hid = format!("{device}/1-3:1.0/0003:046D:C215.0002");
    let mut devices = root_hubs();
    devices.extend([
        usb_device(&device, 1, 6, ("046d", "c215"), None).descriptors(0, &[[3, 0, 0]]),
        usb_interface(&format!("{device}/1-3:1.0"), "00", "usbhid"),
        Device::recorded(&hid, "hid")
            .driver("hid-generic")
            .attr("report_descriptor", "0001:0004"),
        Device::recorded(format!("{hid}/hidraw/hidraw1"), "hidraw").node(
            "/dev/hidraw1",
            DevKind::Char,
            243,
            1,
        ),
        Device::recorded(format!("{hid}/input/input8"), "input").attr("capabilities", "joystick"),
        Device::recorded(format!("{hid}/input/input8/event8"), "input")
            .node("/dev/input/event8", DevKind::Char, 13, 72)
            .property("ID_INPUT", "1")
            .property("ID_INPUT_JOYSTICK", "1"),
        Device::recorded(format!("{hid}/input/input8/js0"), "input")
            .node("/dev/input/js0", DevKind::Char, 13, 0)
            .property("ID_INPUT", "1")
            .property("ID_INPUT_JOYSTICK", "1"),
    ]);
    devices
}

/// A device that every host has, below /sys/devices/virtual.
pub(crate) fn virtual_device(subsystem: &str, name: &str, node: &str, major: u32, minor: u32) -> Device {
    Device::recorded(format!("/sys/devices/virtual/{subsystem}/{name}"), subsystem).node(
        node,
        DevKind::Char,
        major,
        minor,
    )
}

/// A USB device with these interfaces (number and driver) below it.
fn usb_function(
    place: (&str, u32, u32),
    ids: (&str, &str),
    serial: Option<&str>,
    interfaces: &[(&str, &str)],
) -> Vec<Device> {
    let (port, bus, number) = place;
    let path = format!("{XHCI}/usb{bus}/{port}");
    let mut devices = vec![usb_device(&path, bus, number, ids, serial)];
    for (interface, driver) in interfaces {
        let own = u8::from_str_radix(interface, 16).unwrap_or_default();
        let path = format!("{path}/{port}:1.{own}");
        devices.push(usb_interface(&path, interface, driver));
    }
    devices
}
