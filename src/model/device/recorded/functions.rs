//! USB devices with several functions, or with keys besides their main function: game controllers,
//! a camera, a headset, a security key, a debug probe. The facts are from public dumps of such
//! devices; serial numbers are made up.

use super::{XHCI, root_hubs, usb_device, usb_interface};
use crate::model::device::input_capabilities::{InputCapabilities, bitmap};
use crate::model::device::{DevKind, Device};

/// KEY_* that a full keyboard has, BTN_* that gamepads have (linux/input-event-codes.h).
const LETTERS: std::ops::RangeInclusive<u32> = 1..=57;
const PAD_BUTTONS: std::ops::Range<u32> = 0x130..0x13f;
const KEY_VOLUMEDOWN: u32 = 114;
const KEY_VOLUMEUP: u32 = 115;
const KEY_RECORD: u32 = 167;
const KEY_CAMERA: u32 = 212;
const BTN_LEFT: u32 = 0x110;
const BTN_TOOL_FINGER: u32 = 0x145;
const BTN_TOUCH: u32 = 0x14a;

/// An `inputN` with its nodes (name and minor number of each).
fn input(
    above: &str,
    number: u32,
    keys: &[u32],
    properties: &[u32],
    udev: &[&str],
    nodes: &[(&str, u32)],
) -> Vec<Device> {
    let path = format!("{above}/input/input{number}");
    let found = InputCapabilities::in_bitmaps(&bitmap(keys), &bitmap(properties));
    let text = found.map(InputCapabilities::to_text).unwrap_or_default();
    let mut devices = vec![Device::recorded(&path, "input").attr("capabilities", &text)];
    for (name, minor) in nodes {
        let node = format!("/dev/input/{name}");
        let device = Device::recorded(format!("{path}/{name}"), "input")
            .node(&node, DevKind::Char, 13, *minor)
            .property("ID_INPUT", "1");
        devices.push(udev.iter().fold(device, |device, key| device.property(key, "1")));
    }
    devices
}

/// A HID device with its hidraw node.
fn hid(above: &str, name: &str, driver: &str, usages: &str, hidraw: u32) -> Vec<Device> {
    let path = format!("{above}/{name}");
    vec![
        Device::recorded(&path, "hid")
            .driver(driver)
            .attr("report_descriptor", usages),
        Device::recorded(format!("{path}/hidraw/hidraw{hidraw}"), "hidraw").node(
            &format!("/dev/hidraw{hidraw}"),
            DevKind::Char,
            243,
            hidraw,
        ),
    ]
}

fn pad_with(keys: &[u32]) -> Vec<u32> {
    keys.iter().copied().chain(PAD_BUTTONS).collect()
}

/// A gamepad at 1-4 whose one event node is a joystick with keys, and a motion sensor.
pub(crate) fn dualshock3() -> Vec<Device> {
    let device = format!("{XHCI}/usb1/1-4");
    let interface = format!("{device}/1-4:1.0");
    let name = "0003:054C:0268.0003";
    let above = format!("{interface}/{name}");
    let mut devices = root_hubs();
    devices.push(usb_device(&device, 1, 7, ("054c", "0268"), None).descriptors(0, &[[3, 0, 0]]));
    devices.push(usb_interface(&interface, "00", "usbhid"));
    devices.extend(hid(&interface, name, "sony", "0001:0004", 3));
    let udev = ["ID_INPUT_JOYSTICK", "ID_INPUT_KEY"];
    devices.extend(input(
        &above,
        9,
        &pad_with(&[KEY_RECORD]),
        &[],
        &udev,
        &[("event9", 73), ("js1", 1)],
    ));
    devices.extend(input(
        &above,
        10,
        &[],
        &[6],
        &["ID_INPUT_ACCELEROMETER"],
        &[("event10", 74)],
    ));
    devices
}

/// A gamepad at 1-5 with a motion sensor and a touchpad, each a separate input, and a sound card.
pub(crate) fn dualsense() -> Vec<Device> {
    let device = format!("{XHCI}/usb1/1-5");
    let interface = format!("{device}/1-5:1.3");
    let name = "0003:054C:0CE6.0004";
    let above = format!("{interface}/{name}");
    let mut devices = root_hubs();
    let interfaces = [[1, 1, 0], [1, 2, 0], [3, 0, 0]];
    devices.push(usb_device(&device, 1, 8, ("054c", "0ce6"), None).descriptors(0, &interfaces));
    devices.push(usb_interface(&format!("{device}/1-5:1.0"), "00", "snd-usb-audio"));
    devices.push(
        Device::recorded(format!("{device}/1-5:1.0/sound/card1/controlC1"), "sound").node(
            "/dev/snd/controlC1",
            DevKind::Char,
            116,
            8,
        ),
    );
    devices.push(usb_interface(&interface, "03", "usbhid"));
    devices.extend(hid(&interface, name, "playstation", "0001:0005", 4));
    let pad = [("event11", 75), ("js2", 2)];
    devices.extend(input(
        &above,
        11,
        &pad_with(&[]),
        &[],
        &["ID_INPUT_JOYSTICK"],
        &pad,
    ));
    devices.extend(input(
        &above,
        12,
        &[],
        &[6],
        &["ID_INPUT_ACCELEROMETER"],
        &[("event12", 76)],
    ));
    let touchpad = [("event13", 77), ("mouse1", 33)];
    let keys = [BTN_LEFT, BTN_TOOL_FINGER, BTN_TOUCH];
    devices.extend(input(
        &above,
        13,
        &keys,
        &[0, 2],
        &["ID_INPUT_TOUCHPAD"],
        &touchpad,
    ));
    devices
}

/// A gamepad at 1-6 that is not a HID device: one event node, a joystick with a key.
pub(crate) fn xbox_series() -> Vec<Device> {
    let device = format!("{XHCI}/usb1/1-6");
    let interface = format!("{device}/1-6:1.0");
    let mut devices = root_hubs();
    devices.push(usb_device(&device, 1, 9, ("045e", "0b12"), None).descriptors(0, &[[0xff, 0x47, 0xd0]]));
    devices.push(usb_interface(&interface, "00", "xpad"));
    let udev = ["ID_INPUT_JOYSTICK", "ID_INPUT_KEY"];
    let nodes = [("event14", 78), ("js3", 3)];
    devices.extend(input(
        &interface,
        14,
        &pad_with(&[KEY_RECORD]),
        &[],
        &udev,
        &nodes,
    ));
    devices
}

/// A gamepad at 1-7 whose HID interface also has a complete keyboard, as a separate input.
pub(crate) fn xbox_elite() -> Vec<Device> {
    let device = format!("{XHCI}/usb1/1-7");
    let interface = format!("{device}/1-7:1.0");
    let name = "0003:045E:0B22.0005";
    let above = format!("{interface}/{name}");
    let mut devices = root_hubs();
    devices.push(usb_device(&device, 1, 10, ("045e", "0b22"), None).descriptors(0, &[[3, 0, 0]]));
    devices.push(usb_interface(&interface, "00", "usbhid"));
    devices.extend(hid(&interface, name, "microsoft", "0001:0005,0001:0006", 5));
    let pad = [("event15", 79), ("js4", 4)];
    devices.extend(input(
        &above,
        15,
        &pad_with(&[]),
        &[],
        &["ID_INPUT_JOYSTICK"],
        &pad,
    ));
    let letters: Vec<u32> = LETTERS.collect();
    let udev = ["ID_INPUT_KEY", "ID_INPUT_KEYBOARD"];
    devices.extend(input(&above, 16, &letters, &[], &udev, &[("event16", 80)]));
    devices
}

/// A camera at 1-8 with a button, which is an input of the camera's driver and not a HID device.
pub(crate) fn camera_with_button() -> Vec<Device> {
    let device = format!("{XHCI}/usb1/1-8");
    let interface = format!("{device}/1-8:1.0");
    let video = |name: &str, minor| {
        Device::recorded(format!("{interface}/video4linux/{name}"), "video4linux").node(
            &format!("/dev/{name}"),
            DevKind::Char,
            81,
            minor,
        )
    };
    let mut devices = root_hubs();
    let interfaces = [[0x0e, 1, 0], [0x0e, 2, 0]];
    devices.push(usb_device(&device, 1, 11, ("046d", "082d"), None).descriptors(0xef, &interfaces));
    devices.push(usb_interface(&interface, "00", "uvcvideo"));
    devices.extend([video("video0", 0), video("video1", 1)]);
    devices.extend(input(
        &interface,
        17,
        &[KEY_CAMERA],
        &[],
        &["ID_INPUT_KEY"],
        &[("event17", 81)],
    ));
    devices
}

/// A headset at 1-9 with volume keys.
pub(crate) fn headset() -> Vec<Device> {
    let device = format!("{XHCI}/usb1/1-9");
    let interface = format!("{device}/1-9:1.3");
    let name = "0003:0D8C:0014.0006";
    let above = format!("{interface}/{name}");
    let mut devices = root_hubs();
    let interfaces = [[1, 1, 0], [1, 2, 0], [3, 0, 0]];
    devices.push(usb_device(&device, 1, 12, ("0d8c", "0014"), None).descriptors(0, &interfaces));
    devices.push(usb_interface(&interface, "03", "usbhid"));
    devices.extend(hid(&interface, name, "hid-generic", "000c:0001", 6));
    let keys = [KEY_VOLUMEDOWN, KEY_VOLUMEUP];
    devices.extend(input(
        &above,
        18,
        &keys,
        &[],
        &["ID_INPUT_KEY"],
        &[("event18", 82)],
    ));
    devices
}

/// A security key at 1-10: a keyboard that types one-time passwords, a FIDO interface and a smart
/// card.
pub(crate) fn security_key() -> Vec<Device> {
    let device = format!("{XHCI}/usb1/1-10");
    let (otp, fido) = (format!("{device}/1-10:1.0"), format!("{device}/1-10:1.1"));
    let name = "0003:1050:0407.0007";
    let mut devices = root_hubs();
    let interfaces = [[3, 1, 1], [3, 0, 0], [0x0b, 0, 0]];
    devices.push(usb_device(&device, 1, 13, ("1050", "0407"), None).descriptors(0, &interfaces));
    devices.push(usb_interface(&otp, "00", "usbhid"));
    devices.extend(hid(&otp, name, "hid-generic", "0001:0006", 7));
    let letters: Vec<u32> = LETTERS.collect();
    let udev = ["ID_INPUT_KEY", "ID_INPUT_KEYBOARD"];
    devices.extend(input(
        &format!("{otp}/{name}"),
        19,
        &letters,
        &[],
        &udev,
        &[("event19", 83)],
    ));
    devices.push(usb_interface(&fido, "01", "usbhid"));
    devices.extend(hid(&fido, "0003:1050:0407.0008", "hid-generic", "f1d0:0001", 8));
    devices
}

/// A debug probe at 1-11: a drive for firmware, a tty, and a HID interface for debuggers.
pub(crate) fn debug_probe() -> Vec<Device> {
    let device = format!("{XHCI}/usb1/1-11");
    let scsi = format!("{device}/1-11:1.0/host7/target7:0:0/7:0:0:0");
    let debug = format!("{device}/1-11:1.3");
    let mut devices = root_hubs();
    let interfaces = [[8, 6, 0x50], [2, 2, 1], [10, 0, 0], [3, 0, 0]];
    devices
        .push(usb_device(&device, 1, 14, ("0d28", "0204"), Some("0240000A")).descriptors(0xef, &interfaces));
    devices.push(usb_interface(&format!("{device}/1-11:1.0"), "00", "usb-storage"));
    devices.push(
        Device::recorded(&scsi, "scsi")
            .devtype("scsi_device")
            .driver("sd"),
    );
    devices.push(
        Device::recorded(format!("{scsi}/scsi_generic/sg2"), "scsi_generic").node(
            "/dev/sg2",
            DevKind::Char,
            21,
            2,
        ),
    );
    for (path, node, minor, devtype) in [
        (format!("{scsi}/block/sdc"), "/dev/sdc", 32, "disk"),
        (format!("{scsi}/block/sdc/sdc1"), "/dev/sdc1", 33, "partition"),
    ] {
        let block = Device::recorded(path, "block").devtype(devtype);
        devices.push(
            block
                .node(node, DevKind::Block, 8, minor)
                .usb_id("0d28", "0204", "00"),
        );
    }
    devices.push(usb_interface(&format!("{device}/1-11:1.1"), "01", "cdc_acm"));
    devices.push(
        Device::recorded(format!("{device}/1-11:1.1/tty/ttyACM1"), "tty")
            .node("/dev/ttyACM1", DevKind::Char, 166, 1)
            .usb_id("0d28", "0204", "01"),
    );
    devices.push(usb_interface(&debug, "03", "usbhid"));
    devices.extend(hid(&debug, "0003:0D28:0204.0009", "hid-generic", "ff00:0001", 9));
    devices
}

/// A loop device backed by a disk or any other file.
pub(crate) fn loop_over(number: u32, file: &str) -> Device {
    Device::recorded(format!("/sys/devices/virtual/block/loop{number}"), "block")
        .devtype("disk")
        .node(&format!("/dev/loop{number}"), DevKind::Block, 7, number)
        .attr("loop/backing_file", file)
}

/// A device-mapper device made of other devices.
pub(crate) fn mapped(number: u32, slaves: &str) -> Device {
    Device::recorded(format!("/sys/devices/virtual/block/dm-{number}"), "block")
        .devtype("disk")
        .node(&format!("/dev/dm-{number}"), DevKind::Block, 253, number)
        .attr("slaves", slaves)
}
