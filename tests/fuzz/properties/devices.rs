//! A few devices to try a selector on, and what every path in a container must be.

use std::path::{Component, Path};

use oci_hotplug::model::device::{DevKind, DevNode, DevNum, Device, SysPath, UdevState};

/// A USB adapter, its serial port, a disk's partition before udevd's word, and a device of which
/// little is known.
pub fn samples() -> [Device; 4] {
    let usb = "/sys/devices/pci0000:00/0000:00:14.0/usb1/1-1";
    let mut adapter = device(usb, "usb", "/dev/bus/usb/001/002", (DevKind::Char, 189, 1));
    adapter.devtype = Some("usb_device".to_owned());
    for (name, value) in [("idVendor", "0403"), ("idProduct", "6001"), ("serial", "FT0042")] {
        adapter.attributes.insert(name.to_owned(), value.to_owned());
    }
    let mut port = device(
        &format!("{usb}/1-1:1.0/ttyUSB0/tty/ttyUSB0"),
        "tty",
        "/dev/ttyUSB0",
        (DevKind::Char, 188, 0),
    );
    port.udev_state = UdevState::Processed;
    port.tags.insert("systemd".to_owned());
    port.links.insert("/dev/serial/by-id/usb-FTDI".into());
    for (key, value) in [
        ("ID_BUS", "usb"),
        ("ID_VENDOR_ID", "0403"),
        ("ID_MODEL_ID", "6001"),
        ("ID_USB_INTERFACE_NUM", "00"),
    ] {
        port.properties.insert(key.to_owned(), value.to_owned());
    }
    let mut partition = device(
        "/sys/devices/virtual/block/loop0/loop0p1",
        "block",
        "/dev/loop0p1",
        (DevKind::Block, 259, 0),
    );
    partition.devtype = Some("partition".to_owned());
    [
        adapter,
        port,
        partition,
        Device::new(SysPath::new("/sys/devices/a")),
    ]
}

fn device(syspath: &str, subsystem: &str, node: &str, (kind, major, minor): (DevKind, u32, u32)) -> Device {
    let mut device = Device::new(SysPath::new(syspath));
    device.subsystem = Some(subsystem.to_owned());
    device.node = Some(DevNode {
        path: node.into(),
        num: DevNum { kind, major, minor },
    });
    device
}

/// A path in a container leads from its root straight to one place: no `..`, no NUL, nothing that a
/// log line ends at.
#[track_caller]
pub fn is_plain(path: &Path) {
    let parts: Vec<Component> = path.components().collect();
    assert!(parts.len() >= 2 && parts[0] == Component::RootDir, "{path:?}");
    assert!(
        parts[1..].iter().all(|part| matches!(part, Component::Normal(_))),
        "{path:?}"
    );
    let text = path.to_str().expect("it was read from a text");
    assert!(!text.chars().any(char::is_control), "{path:?}");
}
