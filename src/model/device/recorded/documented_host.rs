//! The host of the documentation: a workstation with many kinds of devices.

use super::hubs::{hub_with_adapters, join_halves};
use super::*;
use crate::model::device::{DevKind, Device};

/// The host on which the examples of the documents are tested: FTDI adapters with the serial
/// numbers `FT001`, `FT002`, `My Board 01` (`My_Board_01` in udev), and `FT0042` at 1-1.4 with GPIO
/// pins, a USB 3 hub with a stick (sdb), a composite device, a joystick, a SATA disk, and other
/// devices of the examples: HubZ, C920, YubiKey, J-Link, ST-Link, Coral (before and after it loads
/// its firmware), a tablet, and cards on PCI.
pub(crate) fn documented_host() -> Vec<Device> {
    let hub = format!("{XHCI}/usb1/1-1");
    let mut devices = hub_with_adapters([
        ("1-1.1", 3, "FT001", 0),
        ("1-1.2", 4, "FT002", 1),
        ("1-1.3", 20, "My_Board_01", 4),
        ("1-1.4", 21, "FT0042", 5),
    ]);
    for device in &mut devices {
        if device.syspath.name() == "1-1.3" {
            device.attributes.insert("serial".into(), "My Board 01".into());
        }
    }
    devices.push(
        Device::recorded(format!("{hub}/1-1.4/1-1.4:1.0/gpiochip1"), "gpio").node(
            "/dev/gpiochip1",
            DevKind::Char,
            254,
            1,
        ),
    );
    devices.extend(companion_hub());
    join_halves(&mut devices);
    devices.extend(composite_device().split_off(5));
    devices.extend(joystick().split_off(5));
    devices.extend(disk_with_partitions());
    devices.extend(usb_function(
        ("1-5", 1, 22),
        ("10c4", "8a2a"),
        None,
        &[("00", "cp210x"), ("01", "cp210x")],
    ));
    for (interface, tty) in [("0", 6), ("1", 7)] {
        let port = format!("{XHCI}/usb1/1-5/1-5:1.{interface}/ttyUSB{tty}");
        devices.push(Device::recorded(&port, "usb-serial").driver("cp210x"));
        devices.push(
            Device::recorded(format!("{port}/tty/ttyUSB{tty}"), "tty")
                .node(&format!("/dev/ttyUSB{tty}"), DevKind::Char, 188, tty)
                .usb_id("10c4", "8a2a", &format!("0{interface}"))
                .tag("systemd"),
        );
    }
    devices.extend(camera());
    devices.extend(usb_function(
        ("1-7", 1, 24),
        ("1050", "0407"),
        None,
        &[("00", "usbhid"), ("01", "usbhid")],
    ));
    devices.push(
        Device::recorded(
            format!("{XHCI}/usb1/1-7/1-7:1.1/0003:1050:0407.0005/hidraw/hidraw5"),
            "hidraw",
        )
        .node("/dev/hidraw5", DevKind::Char, 243, 5)
        .tag("security-device"),
    );
    devices.extend(usb_function(
        ("1-8", 1, 25),
        ("1366", "0105"),
        Some("000123456789"),
        &[("00", "cdc_acm"), ("02", "")],
    ));
    devices.push(
        Device::recorded(format!("{XHCI}/usb1/1-8/1-8:1.0/tty/ttyACM1"), "tty")
            .node("/dev/ttyACM1", DevKind::Char, 166, 1)
            .usb_id("1366", "0105", "00")
            .tag("systemd"),
    );
    devices.extend(usb_function(
        ("1-11", 1, 28),
        ("0627", "0001"),
        Some("42"),
        &[("00", "usbhid")],
    ));
    let tablet = format!("{XHCI}/usb1/1-11/1-11:1.0/0003:0627:0001.0006");
    devices.push(
        Device::recorded(format!("{tablet}/input/input10/event10"), "input")
            .node("/dev/input/event10", DevKind::Char, 13, 74)
            .usb_id("0627", "0001", "00")
            .property("ID_INPUT", "1")
            .property("ID_INPUT_TABLET", "1"),
    );
    devices.extend(usb_function(
        ("1-12", 1, 29),
        ("0483", "374b"),
        Some("066CFF303430484257255318"),
        &[("00", ""), ("01", "usb-storage"), ("02", "cdc_acm")],
    ));
    devices.push(
        Device::recorded(format!("{XHCI}/usb1/1-12/1-12:1.2/tty/ttyACM2"), "tty")
            .node("/dev/ttyACM2", DevKind::Char, 166, 2)
            .usb_id("0483", "374b", "02")
            .tag("systemd"),
    );
    devices.extend(usb_function(
        ("1-9", 1, 26),
        ("1a6e", "089a"),
        None,
        &[("00", "")],
    ));
    devices.extend(usb_function(
        ("1-10", 1, 27),
        ("18d1", "9302"),
        None,
        &[("00", "")],
    ));
    for (slot, subsystem, name, node, major, minor) in [
        ("0000:00:1c.0/0000:02:00.0", "tty", "ttyS4", "/dev/ttyS4", 4, 68),
        (
            "0000:00:1c.1/0000:03:00.0",
            "video4linux",
            "video2",
            "/dev/video2",
            81,
            2,
        ),
    ] {
        let card = format!("/sys/devices/pci0000:00/{slot}");
        devices.push(Device::recorded(&card, "pci"));
        devices.push(
            Device::recorded(format!("{card}/{subsystem}/{name}"), subsystem).node(
                node,
                DevKind::Char,
                major,
                minor,
            ),
        );
    }
    devices.push(virtual_device("mem", "null", "/dev/null", 1, 3));
    devices
}

/// A webcam at 1-6: video and metadata nodes, a button, and a microphone on interface 2.
fn camera() -> Vec<Device> {
    let mut devices = usb_function(
        ("1-6", 1, 23),
        ("046d", "082d"),
        Some("1A2B3C4D"),
        &[("00", "uvcvideo"), ("02", "snd-usb-audio")],
    );
    let camera = format!("{XHCI}/usb1/1-6");
    for minor in [0, 1] {
        devices.push(
            Device::recorded(
                format!("{camera}/1-6:1.0/video4linux/video{minor}"),
                "video4linux",
            )
            .node(&format!("/dev/video{minor}"), DevKind::Char, 81, minor)
            .usb_id("046d", "082d", "00")
            .link(&format!(
                "/dev/v4l/by-id/usb-046d_HD_Pro_Webcam_C920_1A2B3C4D-video-index{minor}"
            )),
        );
    }
    let button = format!("{camera}/1-6:1.0/input/input9");
    devices.push(Device::recorded(&button, "input"));
    devices.push(
        Device::recorded(format!("{button}/event9"), "input")
            .node("/dev/input/event9", DevKind::Char, 13, 73)
            .property("ID_INPUT", "1")
            .property("ID_INPUT_KEY", "1"),
    );
    devices.push(
        Device::recorded(format!("{camera}/1-6:1.2/sound/card1/controlC1"), "sound").node(
            "/dev/snd/controlC1",
            DevKind::Char,
            116,
            9,
        ),
    );
    devices
}
