//! The host that the recipes of docs/recipes.md are tried on: each device that they name, and
//! beside it one that it could be confused with. Facts from public dumps; serial numbers are made
//! up.

use super::usb_device_with::{devices_between, has_usb_id};
use super::{XHCI, root_hubs, usb_device, usb_interface};
use crate::model::device::{DevKind, Device};

/// A USB device: port, ids, product, serial number, interfaces.
struct Usb(
    &'static str,
    (&'static str, &'static str),
    &'static str,
    Option<&'static str>,
    &'static [Interface],
);

/// An interface: number, class with subclass and protocol, driver, nodes.
struct Interface(u8, [u8; 3], &'static str, &'static [Node]);

/// A node: subsystem, path below the interface, node, properties of udev.
struct Node(
    &'static str,
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
);

const VENDOR: [u8; 3] = [0xff, 0, 0];
const ACM: [u8; 3] = [2, 2, 1];
const ACM_DATA: [u8; 3] = [0x0a, 0, 0];
const HID: [u8; 3] = [3, 0, 0];
const DISK: [u8; 3] = [8, 6, 0x50];
const AUDIO: [u8; 3] = [1, 1, 0];
const CAPTURE: &[(&str, &str)] = &[("ID_V4L_CAPABILITIES", ":capture:")];
const METADATA: &[(&str, &str)] = &[("ID_V4L_CAPABILITIES", ":")];
const WHOLE: &[(&str, &str)] = &[("DEVTYPE", "disk")];
const PARTITION: &[(&str, &str)] = &[("DEVTYPE", "partition")];

// A table: one line for each node.
#[rustfmt::skip]
const DEVICES: &[Usb] = &[
    // A Zigbee stick, and a plain adapter with the same ids.
    Usb("1-1", ("10c4", "ea60"), "Sonoff Zigbee 3.0 USB Dongle Plus", Some("0123456789abcdef0123456789abcdef"), &[
        Interface(0, VENDOR, "cp210x", &[
            Node("tty", "ttyUSB0/tty/ttyUSB0", "ttyUSB0", &[]),
            Node("gpio", "gpiochip1", "gpiochip1", &[]),
        ]),
    ]),
    Usb("1-2", ("10c4", "ea60"), "CP2102 USB to UART Bridge Controller", Some("0001"), &[
        Interface(0, VENDOR, "cp210x", &[Node("tty", "ttyUSB1/tty/ttyUSB1", "ttyUSB1", &[])]),
    ]),
    // Z-Wave, and a stick with a port for each. Another adapter's number lies between the two
    // ports.
    Usb("1-3", ("0658", "0200"), "", None, &[
        Interface(0, ACM, "cdc_acm", &[Node("tty", "tty/ttyACM0", "ttyACM0", &[])]),
        Interface(1, ACM_DATA, "cdc_acm", &[]),
    ]),
    Usb("1-4", ("10c4", "8a2a"), "HubZ Smart Home Controller", Some("A1B2C3D4"), &[
        Interface(0, VENDOR, "cp210x", &[Node("tty", "ttyUSB2/tty/ttyUSB2", "ttyUSB2", &[])]),
        Interface(1, VENDOR, "cp210x", &[Node("tty", "ttyUSB4/tty/ttyUSB4", "ttyUSB4", &[])]),
    ]),
    // Two boards with Klipper, and one whose bootloader runs.
    Usb("1-5", ("1d50", "614e"), "stm32f446xx", Some("1A002B000000123456789012"), &[
        Interface(0, ACM, "cdc_acm", &[Node("tty", "tty/ttyACM1", "ttyACM1", &[])]),
        Interface(1, ACM_DATA, "cdc_acm", &[]),
    ]),
    Usb("1-6", ("1d50", "614e"), "rp2040", Some("2B003C000000123456789012"), &[
        Interface(0, ACM, "cdc_acm", &[Node("tty", "tty/ttyACM2", "ttyACM2", &[])]),
        Interface(1, ACM_DATA, "cdc_acm", &[]),
    ]),
    Usb("1-13", ("1d50", "6177"), "stm32f446xx", Some("1A002B000000123456789012"), &[
        Interface(0, ACM, "cdc_acm", &[Node("tty", "tty/ttyACM3", "ttyACM3", &[])]),
        Interface(1, ACM_DATA, "cdc_acm", &[]),
    ]),
    // Two CH340, which differ in their ports only.
    Usb("1-7", ("1a86", "7523"), "USB Serial", None, &[
        Interface(0, [0xff, 1, 2], "ch341", &[Node("tty", "ttyUSB3/tty/ttyUSB3", "ttyUSB3", &[])]),
    ]),
    Usb("1-8", ("1a86", "7523"), "USB Serial", None, &[
        Interface(0, [0xff, 1, 2], "ch341", &[Node("tty", "ttyUSB5/tty/ttyUSB5", "ttyUSB5", &[])]),
    ]),
    // ESP32: its own USB, and TinyUSB.
    Usb("1-9", ("303a", "1001"), "USB JTAG/serial debug unit", Some("AA:BB:CC:DD:EE:01"), &[
        Interface(0, ACM, "cdc_acm", &[Node("tty", "tty/ttyACM4", "ttyACM4", &[])]),
        Interface(1, ACM_DATA, "cdc_acm", &[]),
        Interface(2, [0xff, 0xff, 1], "", &[]),
    ]),
    Usb("1-10", ("303a", "4001"), "Espressif Device", Some("123456"), &[
        Interface(0, ACM, "cdc_acm", &[Node("tty", "tty/ttyACM5", "ttyACM5", &[])]),
        Interface(1, ACM_DATA, "cdc_acm", &[]),
    ]),
    // A Leonardo with its sketch and with its bootloader, and an Uno.
    Usb("1-11", ("2341", "8036"), "Arduino Leonardo", None, &[
        Interface(0, ACM, "cdc_acm", &[Node("tty", "tty/ttyACM6", "ttyACM6", &[])]),
        Interface(1, ACM_DATA, "cdc_acm", &[]),
    ]),
    Usb("1-14", ("2341", "0036"), "Arduino Leonardo", None, &[
        Interface(0, ACM, "cdc_acm", &[Node("tty", "tty/ttyACM7", "ttyACM7", &[])]),
        Interface(1, ACM_DATA, "cdc_acm", &[]),
    ]),
    Usb("1-15", ("2341", "0043"), "", Some("85430000000012345678"), &[
        Interface(0, ACM, "cdc_acm", &[Node("tty", "tty/ttyACM8", "ttyACM8", &[])]),
        Interface(1, ACM_DATA, "cdc_acm", &[]),
    ]),
    // A Pico with its firmware and in BOOTSEL mode, and a debug probe that is a Pico.
    Usb("1-16", ("2e8a", "0005"), "Board in FS mode", Some("E6600000A1B2C3D4"), &[
        Interface(0, ACM, "cdc_acm", &[Node("tty", "tty/ttyACM9", "ttyACM9", &[])]),
        Interface(1, ACM_DATA, "cdc_acm", &[]),
    ]),
    Usb("1-17", ("2e8a", "0003"), "RP2 Boot", Some("E0C9125B0D9B"), &[
        Interface(0, DISK, "usb-storage", &[
            Node("block", "host6/target6:0:0/6:0:0:0/block/sdb", "sdb", WHOLE),
            Node("block", "host6/target6:0:0/6:0:0:0/block/sdb/sdb1", "sdb1", PARTITION),
        ]),
        Interface(1, VENDOR, "", &[]),
    ]),
    Usb("1-18", ("2e8a", "000c"), "Debug Probe (CMSIS-DAP)", Some("E6600000A1B2C3D5"), &[
        Interface(0, VENDOR, "", &[]),
        Interface(1, ACM, "cdc_acm", &[Node("tty", "tty/ttyACM10", "ttyACM10", &[])]),
        Interface(2, ACM_DATA, "cdc_acm", &[]),
    ]),
    // Two J-Links, and a DAPLink with its drive.
    Usb("1-19", ("1366", "0105"), "J-Link", Some("000123456789"), &[
        Interface(0, ACM, "cdc_acm", &[Node("tty", "tty/ttyACM11", "ttyACM11", &[])]),
        Interface(1, ACM_DATA, "cdc_acm", &[]),
        Interface(2, VENDOR, "", &[]),
    ]),
    Usb("1-20", ("1366", "0105"), "J-Link", Some("000123456780"), &[
        Interface(0, ACM, "cdc_acm", &[Node("tty", "tty/ttyACM12", "ttyACM12", &[])]),
        Interface(1, ACM_DATA, "cdc_acm", &[]),
        Interface(2, VENDOR, "", &[]),
    ]),
    Usb("1-21", ("0d28", "0204"), "DAPLink CMSIS-DAP", Some("0400000000000000000000000000000097969900"), &[
        Interface(0, DISK, "usb-storage", &[
            Node("block", "host7/target7:0:0/7:0:0:0/block/sdc", "sdc", WHOLE),
            Node("scsi_generic", "host7/target7:0:0/7:0:0:0/scsi_generic/sg2", "sg2", &[]),
        ]),
        Interface(1, ACM, "cdc_acm", &[Node("tty", "tty/ttyACM13", "ttyACM13", &[])]),
        Interface(2, ACM_DATA, "cdc_acm", &[]),
        Interface(3, HID, "usbhid", &[
            Node("hidraw", "0003:0D28:0204.0001/hidraw/hidraw0", "hidraw0", &[]),
        ]),
    ]),
    // A camera with metadata, button and microphone, and another camera.
    Usb("1-22", ("046d", "082d"), "HD Pro Webcam C920", Some("A1B2C3D4"), &[
        Interface(0, [0x0e, 1, 0], "uvcvideo", &[
            Node("video4linux", "video4linux/video0", "video0", CAPTURE),
            Node("video4linux", "video4linux/video1", "video1", METADATA),
            Node("input", "input/input5/event5", "input/event5", &[("ID_INPUT_KEY", "1")]),
        ]),
        Interface(2, AUDIO, "snd-usb-audio", &[
            Node("sound", "sound/card1/controlC1", "snd/controlC1", &[]),
        ]),
    ]),
    Usb("1-23", ("046d", "0825"), "", Some("SN0001"), &[
        Interface(0, [0x0e, 1, 0], "uvcvideo", &[
            Node("video4linux", "video4linux/video2", "video2", CAPTURE),
        ]),
    ]),
    // A Coral before and after its firmware is loaded, and a phone of the second vendor.
    Usb("1-24", ("1a6e", "089a"), "", None, &[
        Interface(0, [0xfe, 1, 2], "", &[]),
    ]),
    Usb("1-25", ("18d1", "9302"), "", None, &[
        Interface(0, VENDOR, "", &[]),
    ]),
    Usb("1-26", ("18d1", "4ee7"), "Pixel", Some("0A1B2C3D4E5F"), &[
        Interface(0, [0xff, 0x42, 1], "", &[]),
    ]),
    // Two sticks that differ in their serial numbers.
    Usb("1-27", ("0781", "5581"), "Ultra", Some("4C530000000000000001"), &[
        Interface(0, DISK, "usb-storage", &[
            Node("block", "host8/target8:0:0/8:0:0:0/block/sdd", "sdd", WHOLE),
            Node("block", "host8/target8:0:0/8:0:0:0/block/sdd/sdd1", "sdd1", PARTITION),
        ]),
    ]),
    Usb("1-28", ("0781", "5581"), "Ultra", Some("4C530000000000000002"), &[
        Interface(0, DISK, "usb-storage", &[
            Node("block", "host9/target9:0:0/9:0:0:0/block/sde", "sde", WHOLE),
            Node("block", "host9/target9:0:0/9:0:0:0/block/sde/sde1", "sde1", PARTITION),
        ]),
    ]),
    // A security key with its keyboard, and a FIDO key of another vendor.
    Usb("1-29", ("1050", "0407"), "YubiKey OTP+FIDO+CCID", None, &[
        Interface(0, [3, 1, 1], "usbhid", &[
            Node("hidraw", "0003:1050:0407.0002/hidraw/hidraw1", "hidraw1", &[]),
            Node("input", "0003:1050:0407.0002/input/input6/event6", "input/event6", &[("ID_INPUT_KEYBOARD", "1")]),
        ]),
        Interface(1, HID, "usbhid", &[
            Node("hidraw", "0003:1050:0407.0003/hidraw/hidraw2", "hidraw2", &[("ID_FIDO_TOKEN", "1")]),
        ]),
        Interface(2, [0x0b, 0, 0], "", &[]),
    ]),
    Usb("1-30", ("20a0", "42b2"), "Nitrokey 3", None, &[
        Interface(0, HID, "usbhid", &[
            Node("hidraw", "0003:20A0:42B2.0004/hidraw/hidraw3", "hidraw3", &[("ID_FIDO_TOKEN", "1")]),
        ]),
    ]),
    // A sound adapter with volume keys, and a MIDI controller.
    Usb("1-31", ("0d8c", "0014"), "USB Audio Device", None, &[
        Interface(0, AUDIO, "snd-usb-audio", &[
            Node("sound", "sound/card2/controlC2", "snd/controlC2", &[]),
            Node("sound", "sound/card2/pcmC2D0p", "snd/pcmC2D0p", &[]),
            Node("sound", "sound/card2/pcmC2D0c", "snd/pcmC2D0c", &[]),
        ]),
        Interface(3, HID, "usbhid", &[
            Node("hidraw", "0003:0D8C:0014.0005/hidraw/hidraw4", "hidraw4", &[]),
        ]),
    ]),
    Usb("1-32", ("0944", "0117"), "nanoKONTROL2", None, &[
        Interface(0, AUDIO, "snd-usb-audio", &[
            Node("sound", "sound/card3/controlC3", "snd/controlC3", &[]),
            Node("sound", "sound/card3/midiC3D0", "snd/midiC3D0", &[]),
        ]),
    ]),
    // A hub with two boards, and one of the same kind elsewhere.
    Usb("1-12", ("0409", "55aa"), "Hub", None, &[
        Interface(0, [9, 0, 0], "hub", &[]),
    ]),
    Usb("1-12.1", ("2b3e", "c310"), "CW310", Some("53208000000000000001"), &[
        Interface(0, VENDOR, "", &[]),
        Interface(1, ACM, "cdc_acm", &[Node("tty", "tty/ttyACM14", "ttyACM14", &[])]),
        Interface(3, ACM, "cdc_acm", &[Node("tty", "tty/ttyACM15", "ttyACM15", &[])]),
    ]),
    Usb("1-12.2", ("15ba", "002a"), "Olimex OpenOCD JTAG", Some("OL000001"), &[
        Interface(0, VENDOR, "", &[]),
        Interface(1, VENDOR, "ftdi_sio", &[Node("tty", "ttyUSB6/tty/ttyUSB6", "ttyUSB6", &[])]),
    ]),
    // Two TV tuners in one device, and one of another vendor.
    Usb("1-33", ("2040", "8265"), "WinTV-dualHD", Some("0011223344"), &[
        Interface(0, VENDOR, "em28xx", &[
            Node("dvb", "dvb/dvb1.demux0", "dvb/adapter1/demux0", &[]),
            Node("dvb", "dvb/dvb1.dvr0", "dvb/adapter1/dvr0", &[]),
            Node("dvb", "dvb/dvb1.frontend0", "dvb/adapter1/frontend0", &[]),
            Node("dvb", "dvb/dvb1.net0", "dvb/adapter1/net0", &[]),
            Node("dvb", "dvb/dvb2.demux0", "dvb/adapter2/demux0", &[]),
            Node("dvb", "dvb/dvb2.dvr0", "dvb/adapter2/dvr0", &[]),
            Node("dvb", "dvb/dvb2.frontend0", "dvb/adapter2/frontend0", &[]),
            Node("dvb", "dvb/dvb2.net0", "dvb/adapter2/net0", &[]),
            Node("i2c-dev", "i2c-7/i2c-dev/i2c-7", "i2c-7", &[]),
        ]),
    ]),
    Usb("1-34", ("0bda", "2838"), "RTL2838UHIDIR", Some("00000001"), &[
        Interface(0, VENDOR, "dvb_usb_rtl28xxu", &[
            Node("dvb", "dvb/dvb0.frontend0", "dvb/adapter0/frontend0", &[]),
        ]),
    ]),
];

/// The devices of the recipes, with parents before their children.
pub(crate) fn recipe_host() -> Vec<Device> {
    let mut devices = root_hubs();
    let mut minors = 0..;
    for (number, usb) in (10..).zip(DEVICES) {
        devices.extend(with_interfaces(usb, number, &mut minors));
    }
    devices.sort_by(|one, other| one.syspath.cmp(&other.syspath));
    devices.dedup_by(|one, other| one.syspath == other.syspath);
    devices
}

fn with_interfaces(usb: &Usb, number: u32, minors: &mut impl Iterator<Item = u32>) -> Vec<Device> {
    let Usb(port, ids, product, serial, interfaces) = usb;
    // 1-12.1 is below 1-12.
    let above = port.split_once('.').map(|(hub, _)| format!("/{hub}"));
    let path = format!("{XHCI}/usb1{}/{port}", above.unwrap_or_default());
    let classes: Vec<[u8; 3]> = interfaces.iter().map(|interface| interface.1).collect();
    let mut device = usb_device(&path, 1, number, *ids, *serial).descriptors(0, &classes);
    if !product.is_empty() {
        device = device.attr("product", product);
    }
    let mut devices = vec![device];
    for Interface(interface, _, driver, nodes) in *interfaces {
        let number = format!("{interface:02x}");
        let base = format!("{path}/{port}:1.{interface}");
        devices.push(usb_interface(&base, &number, driver));
        for Node(subsystem, below, node, properties) in *nodes {
            let (kind, major) = kind_and_major(subsystem);
            let minor = minors.next().unwrap_or_default();
            let node = format!("/dev/{node}");
            let mut device =
                Device::recorded(format!("{base}/{below}"), subsystem).node(&node, kind, major, minor);
            if has_usb_id(subsystem) {
                device = device.usb_id(ids.0, ids.1, &number);
            }
            devices.extend(devices_between(&base, below));
            devices.push(
                properties
                    .iter()
                    .fold(device, |device, (key, value)| device.property(key, value)),
            );
        }
    }
    devices
}

fn kind_and_major(subsystem: &str) -> (DevKind, u32) {
    match subsystem {
        "block" => (DevKind::Block, 8),
        "tty" => (DevKind::Char, 166),
        "input" => (DevKind::Char, 13),
        "scsi_generic" => (DevKind::Char, 21),
        "video4linux" => (DevKind::Char, 81),
        "sound" => (DevKind::Char, 116),
        _ => (DevKind::Char, 243),
    }
}
