//! Hubs, and the serial adapters at their ports.

use super::{XHCI, usb_device, usb_interface};
use crate::model::device::{DevKind, Device, SysPath};

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
pub(super) fn hub_with_adapters<const N: usize>(adapters: [(&str, u32, &str, u32); N]) -> Vec<Device> {
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
pub(super) fn join_halves(devices: &mut [Device]) {
    for (own, other, kind) in [("1/1-1", "2/2-1", "9/0/1"), ("2/2-1", "1/1-1", "9/0/3")] {
        let [own, other] = [own, other].map(|name| SysPath::new(format!("{XHCI}/usb{name}")));
        for half in devices.iter_mut().filter(|device| device.syspath == own) {
            half.companion = Some(other.clone());
            half.properties.insert("TYPE".to_owned(), kind.to_owned());
        }
    }
}
