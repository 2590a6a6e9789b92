//! Device trees for tests, in the form that a real kernel and udevd report: parents before their
//! children.
//!
//! Must not judge what should match; the tests do.

mod documented_host;
mod functions;
mod recipes;

use std::path::{Path, PathBuf};

use crate::model::device::usb_classes::UsbClasses;
use crate::model::device::{DevKind, DevNode, DevNum, Device, SysPath, UdevState};

pub(crate) use documented_host::documented_host;
pub(crate) use functions::*;
pub(crate) use recipes::recipe_host;

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

/// The host controller and the root hubs of its two buses: 1 (USB 2) and 2 (USB 3).
pub(crate) fn root_hubs() -> Vec<Device> {
    vec![
        Device::recorded(XHCI, "pci")
            .driver("xhci_hcd")
            .attr("vendor", "0x8086"),
        usb_device(
            &format!("{XHCI}/usb1"),
            1,
            1,
            ("1d6b", "0002"),
            Some("0000:00:14.0"),
        )
        .descriptors(9, &[[9, 0, 0]]),
        usb_interface(&format!("{XHCI}/usb1/1-0:1.0"), "00", "hub"),
        usb_device(
            &format!("{XHCI}/usb2"),
            2,
            1,
            ("1d6b", "0003"),
            Some("0000:00:14.0"),
        )
        .descriptors(9, &[[9, 0, 0]]),
        usb_interface(&format!("{XHCI}/usb2/2-0:1.0"), "00", "hub"),
    ]
}

/// One FTDI adapter: the device, its interface, the usb-serial port and the tty.
pub(crate) fn ftdi_adapter(path: &str, bus: u32, number: u32, serial: &str, tty: u32) -> Vec<Device> {
    let name = path.rsplit('/').next().unwrap_or_default();
    let interface = format!("{path}/{name}:1.0");
    let by_id = format!("/dev/serial/by-id/usb-FTDI_FT232R_USB_UART_{serial}-if00-port0");
    let by_path = format!(
        "/dev/serial/by-path/pci-0000:00:14.0-usb-0:{}:1.0-port0",
        &name[2..]
    );
    vec![
        usb_device(path, bus, number, ("0403", "6001"), Some(serial)),
        usb_interface(&interface, "00", "ftdi_sio"),
        Device::recorded(format!("{interface}/ttyUSB{tty}"), "usb-serial").driver("ftdi_sio"),
        Device::recorded(format!("{interface}/ttyUSB{tty}/tty/ttyUSB{tty}"), "tty")
            .node(&format!("/dev/ttyUSB{tty}"), DevKind::Char, 188, tty)
            .usb_id("0403", "6001", "00")
            .property("ID_SERIAL_SHORT", serial)
            .tag("systemd")
            .link(&by_id)
            .link(&by_path),
    ]
}

/// A USB 2 hub at 1-1 with two adapters that differ only in their serial numbers: A at 1-1.1, B at
/// 1-1.2.
pub(crate) fn hub_with_two_adapters() -> Vec<Device> {
    hub_with_adapters([("1-1.1", 3, "A", 0), ("1-1.2", 4, "B", 1)])
}

/// A USB 2 hub at 1-1 with FTDI adapters: port, device number, serial number, tty.
fn hub_with_adapters<const N: usize>(adapters: [(&str, u32, &str, u32); N]) -> Vec<Device> {
    let hub = format!("{XHCI}/usb1/1-1");
    let mut devices = root_hubs();
    devices.push(usb_device(&hub, 1, 2, ("2109", "2813"), None).descriptors(9, &[[9, 0, 0]]));
    devices.push(usb_interface(&format!("{hub}/1-1:1.0"), "00", "hub"));
    for (port, number, serial, tty) in adapters {
        devices.extend(ftdi_adapter(&format!("{hub}/{port}"), 1, number, serial, tty));
    }
    devices
}

/// A serial adapter of another host, at the first port of a virtual controller.
#[cfg(feature = "kubernetes")]
pub(crate) fn remote_adapter() -> Vec<Device> {
    ftdi_adapter("/sys/devices/platform/vhci_hcd.0/usb3/3-1", 3, 2, "A", 0)
}

/// A Coral USB Accelerator at a port of a root hub: 1a6e:089a until its first use, then 18d1:9302.
#[cfg(feature = "kubernetes")]
pub(crate) fn accelerator(bus: u32, port: u32, number: u32, ids: (&str, &str)) -> Vec<Device> {
    let path = format!("{XHCI}/usb{bus}/{bus}-{port}");
    let interface = Device::recorded(format!("{path}/{bus}-{port}:1.0"), "usb").devtype("usb_interface");
    let mut devices = root_hubs();
    devices.push(usb_device(&path, bus, number, ids, None));
    devices.push(interface.attr("bInterfaceNumber", "00"));
    devices
}

/// The USB 3 half of the hub at 1-1, a separate device at 2-1 with another product id, and a stick
/// in it. Append it to [`hub_with_two_adapters`], which contains the root hubs.
pub(crate) fn companion_hub() -> Vec<Device> {
    let hub = format!("{XHCI}/usb2/2-1");
    let stick = format!("{hub}/2-1.3");
    let scsi = format!("{stick}/2-1.3:1.0/host6/target6:0:0/6:0:0:0");
    let by_id = "/dev/disk/by-id/usb-SanDisk_Ultra_4C530001-0:0";
    vec![
        usb_device(&hub, 2, 2, ("2109", "0813"), None).descriptors(9, &[[9, 0, 0]]),
        usb_interface(&format!("{hub}/2-1:1.0"), "00", "hub"),
        usb_device(&stick, 2, 3, ("0781", "5581"), Some("4C530001")),
        usb_interface(&format!("{stick}/2-1.3:1.0"), "00", "usb-storage"),
        Device::recorded(&scsi, "scsi")
            .devtype("scsi_device")
            .driver("sd"),
        Device::recorded(format!("{scsi}/block/sdb"), "block")
            .devtype("disk")
            .node("/dev/sdb", DevKind::Block, 8, 16)
            .attr("removable", "1")
            .usb_id("0781", "5581", "00")
            .tag("systemd")
            .link(by_id),
        Device::recorded(format!("{scsi}/block/sdb/sdb1"), "block")
            .devtype("partition")
            .node("/dev/sdb1", DevKind::Block, 8, 17)
            .attr("partition", "1")
            .usb_id("0781", "5581", "00")
            .property("ID_FS_LABEL", "BACKUP")
            .tag("systemd")
            .link(&format!("{by_id}-part1"))
            .link("/dev/disk/by-label/BACKUP"),
    ]
}

/// A USB 3 hub: adapters below its half 1-1, and a stick below its half 2-1.
pub(crate) fn usb3_hub() -> Vec<Device> {
    let mut devices = hub_with_two_adapters();
    devices.extend(companion_hub());
    join_halves(&mut devices);
    devices
}

/// Makes the hubs 1-1 and 2-1 the halves of one hub.
fn join_halves(devices: &mut [Device]) {
    for (own, other, kind) in [("1/1-1", "2/2-1", "9/0/1"), ("2/2-1", "1/1-1", "9/0/3")] {
        let [own, other] = [own, other].map(|name| SysPath::new(format!("{XHCI}/usb{name}")));
        for half in devices.iter_mut().filter(|device| device.syspath == own) {
            half.companion = Some(other.clone());
            half.properties.insert("TYPE".to_owned(), kind.to_owned());
        }
    }
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
fn devices_between(base: &str, below: &str) -> Vec<Device> {
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
fn has_usb_id(subsystem: &str) -> bool {
    ["tty", "block", "input", "video4linux", "sound"].contains(&subsystem)
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

/// A SATA disk with two partitions.
pub(crate) fn disk_with_partitions() -> Vec<Device> {
    let controller = "/sys/devices/pci0000:00/0000:00:17.0";
    let scsi = format!("{controller}/ata1/host0/target0:0:0/0:0:0:0");
    let disk = format!("{scsi}/block/sda");
    let block = |path: &str, node: &str, minor: u32, devtype: &str, id: &str| {
        Device::recorded(path, "block")
            .devtype(devtype)
            .node(node, DevKind::Block, 8, minor)
            .property("ID_BUS", "ata")
            .tag("systemd")
            .link(&format!("/dev/disk/by-id/ata-QEMU_HARDDISK_QM00001{id}"))
    };
    vec![
        Device::recorded(controller, "pci").driver("ahci"),
        Device::recorded(&scsi, "scsi")
            .devtype("scsi_device")
            .driver("sd"),
        Device::recorded(format!("{scsi}/scsi_generic/sg0"), "scsi_generic").node(
            "/dev/sg0",
            DevKind::Char,
            21,
            0,
        ),
        block(&disk, "/dev/sda", 0, "disk", "").attr("size", "41943040"),
        block(&format!("{disk}/sda1"), "/dev/sda1", 1, "partition", "-part1")
            .attr("partition", "1")
            .property("ID_FS_TYPE", "vfat"),
        block(&format!("{disk}/sda2"), "/dev/sda2", 2, "partition", "-part2")
            .attr("partition", "2")
            .property("ID_FS_TYPE", "ext4")
            .link("/dev/disk/by-label/root"),
    ]
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
