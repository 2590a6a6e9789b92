//! Which recorded devices each kind of selector matches.

use std::path::PathBuf;

use super::*;
use crate::model::device::inventory::Inventory;
use crate::model::device::recorded;
use crate::model::device::{DevKind, DevNode, DevNum, Device, SysPath};

#[test]
fn two_identical_adapters_are_both_found_and_distinguished_by_serial_port_or_path() {
    let devices = recorded::hub_with_two_adapters();
    assert_eq!(matching(&devices, "usb:0403:6001"), ["1-1.1", "1-1.2"]);
    assert_eq!(matching(&devices, "usb:0403:6001:B"), ["1-1.2"]);
    assert_eq!(matching(&devices, "usb:0403:6001:b"), [""; 0]);
    assert_eq!(matching(&devices, r"usb:0403:6001:B\ "), ["1-1.2"]);
    assert_eq!(matching(&devices, "usb:0403:6001&!port:1-1.1"), ["1-1.2"]);
    assert_eq!(matching(&devices, "port:1-1.1"), ["1-1.1"]);
    assert_eq!(matching(&devices, "port:usb1"), ["usb1"]);
    let by_id = "devnode:/dev/serial/by-id/usb-FTDI_FT232R_USB_UART_A-if00-port0";
    assert_eq!(matching(&devices, by_id), ["ttyUSB0"]);
    assert_eq!(matching(&devices, "devnode:/dev/ttyUSB1"), ["ttyUSB1"]);
    assert_eq!(matching(&devices, "attr:serial=[AB]"), ["1-1.1", "1-1.2"]);
}

/// Case README 6.
#[test]
fn a_serial_number_matches_in_udevs_spelling_and_a_mismatch_lists_those_present() {
    let devices = recorded::documented_host();
    assert_eq!(matching(&devices, "usb:0403:6001:My Board 01"), ["1-1.3"]);
    assert_eq!(matching(&devices, "usb:0403:6001:My_Board_01"), ["1-1.3"]);
    assert_eq!(matching(&devices, "usb:0403:6001:My_Board_1"), [""; 0]);
    let inventory = Inventory::new(devices);
    let nothing = |text: &str| selector(text).why_nothing(&inventory);
    let reason = nothing("usb:0403:6001:My-Board-01").unwrap();
    assert!(
        reason.starts_with("no device matches usb:0403:6001:My-Board-01 (another serial number: ")
            && reason.contains("1-1.3 has \"My Board 01\""),
        "{reason}"
    );
    assert!(nothing("usb:10c4:8a2a:X").unwrap().contains("1-5 has none"));
    assert_eq!(nothing("usb:ffff:0000:X"), None);
}

#[test]
fn an_interface_is_not_a_usb_device_whatever_its_attributes_are() {
    let mut devices = recorded::composite_device();
    let interface = devices
        .iter_mut()
        .find(|device| device.syspath.name() == "1-2:1.0")
        .unwrap();
    interface
        .attributes
        .insert("idVendor".to_owned(), "2341".to_owned());
    assert_eq!(matching(&devices, "usb:2341"), ["1-2"]);
}

#[test]
fn hex_ids_of_the_device_may_be_in_upper_case() {
    let mut device = recorded::named(&recorded::root_hubs(), "usb1").clone();
    device.attributes.insert("idVendor".to_owned(), "1D6B".to_owned());
    assert_eq!(alone(&device, "usb:1d6b:0002"), Match::Yes);
}

#[test]
fn the_halves_of_a_usb3_hub_have_one_vendor_and_two_products() {
    let mut devices = recorded::hub_with_two_adapters();
    devices.extend(recorded::companion_hub());
    assert_eq!(matching(&devices, "usb:2109"), ["1-1", "2-1"]);
    assert_eq!(matching(&devices, "usb:2109:0813"), ["2-1"]);
}

#[test]
fn the_functions_of_a_composite_device_are_distinguished() {
    let devices = recorded::composite_device();
    assert_eq!(matching(&devices, "driver:cdc_acm"), ["1-2:1.0", "1-2:1.1"]);
    assert_eq!(matching(&devices, "subsystem:input"), ["input7", "event7"]);
    assert_eq!(
        matching(&devices, "subsystem:input&property:ID_INPUT_KEYBOARD=1"),
        ["event7"]
    );
    assert_eq!(matching(&devices, "tag:power-switch"), ["event7"]);
    assert_eq!(matching(&devices, r"regex:^(tty|hidraw)"), ["ttyACM0", "hidraw0"]);
    assert_eq!(matching(&devices, "regex:event-kbd$"), ["event7"]);
    assert_eq!(matching(&devices, "glob:input/*"), ["event7"]);
    assert_eq!(matching(&devices, "glob:*Leonardo*"), [""; 0]);
    assert_eq!(
        matching(&devices, "glob:/dev/*/by-id/*Leonardo*"),
        ["ttyACM0", "event7"]
    );
    assert_eq!(matching(&devices, "attr:name=Arduino*"), ["input7"]);
    assert_eq!(matching(&devices, "attr:absent=*"), [""; 0]);
}

#[test]
fn a_disk_is_distinguished_from_its_partitions() {
    let devices = recorded::disk_with_partitions();
    assert_eq!(matching(&devices, "glob:sda"), ["sda"]);
    assert_eq!(matching(&devices, "subsystem:block"), ["sda", "sda1", "sda2"]);
    assert_eq!(matching(&devices, "subsystem:block&!attr:partition=*"), ["sda"]);
    assert_eq!(matching(&devices, "property:ID_FS_TYPE=ext*"), ["sda2"]);
    assert_eq!(matching(&devices, "devnode:/dev/disk/by-label/root"), ["sda2"]);
    assert_eq!(matching(&devices, "pci:00:17.0"), ["0000:00:17.0"]);
    assert_eq!(matching(&devices, "pci:00:17.1"), [""; 0]);
    let disk = "/sys/devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda";
    assert_eq!(matching(&devices, &format!("syspath:{disk}/")), ["sda"]);
}

#[test]
fn a_path_that_leads_to_a_device_selects_it() {
    let mut devices = recorded::disk_with_partitions();
    let disk = devices
        .iter_mut()
        .find(|device| device.syspath.name() == "sda")
        .unwrap();
    disk.aliases.insert(PathBuf::from("/sys/class/block/sda"));
    disk.aliases.insert(PathBuf::from("/dev/my-disk"));
    assert_eq!(matching(&devices, "syspath:/sys/class/block/sda"), ["sda"]);
    assert_eq!(matching(&devices, "devnode:/dev/my-disk"), ["sda"]);
    let disk = recorded::named(&devices, "sda").clone();
    assert_eq!(alone(&disk, "devnode:/dev/my-disk"), Match::Yes);
    let disk = recorded::before_udev(disk);
    let unknown = Match::Unknown(disk.syspath.clone());
    assert_eq!(alone(&disk, "devnode:/dev/my-disk"), unknown);
    assert_eq!(alone(&disk, "syspath:/sys/class/block/sda"), Match::Yes);
    // An alias that another request uses for the device does not match.
    assert_eq!(matching(&devices, "glob:my-*"), [""; 0]);
}

#[test]
fn a_static_node_is_selected_by_its_path() {
    let mut device = Device::new(SysPath::new("/sys/devices/oci-hotplug-node/dev/fuse"));
    device.node = Some(DevNode {
        path: PathBuf::from("/dev/fuse"),
        num: DevNum {
            kind: DevKind::Char,
            major: 10,
            minor: 229,
        },
    });
    assert_eq!(alone(&device, "node:/dev/fuse"), Match::Yes);
    assert_eq!(alone(&device, "node:/dev/net/tun"), Match::No);
}

/// Case README 5. Case README 25.
#[test]
fn a_term_may_match_the_device_or_one_of_its_parents_as_in_udev() {
    let mut devices = recorded::hub_with_two_adapters();
    devices.extend(recorded::composite_device().split_off(5));
    // Each text with its roots and the nodes that a container gets.
    for (text, roots, given) in [
        (
            "usb:0403:6001",
            vec!["1-1.1", "1-1.2"],
            vec!["1-1.1", "ttyUSB0", "1-1.2", "ttyUSB1"],
        ),
        (
            "subsystem:tty&usb:0403:6001",
            vec!["ttyUSB0", "ttyUSB1"],
            vec!["ttyUSB0", "ttyUSB1"],
        ),
        (
            "usb:0403:6001&subsystem:tty",
            vec!["ttyUSB0", "ttyUSB1"],
            vec!["ttyUSB0", "ttyUSB1"],
        ),
        ("subsystem:tty&usb:0403:6001:B", vec!["ttyUSB1"], vec!["ttyUSB1"]),
        ("subsystem:tty&port:1-1.2", vec!["ttyUSB1"], vec!["ttyUSB1"]),
        (
            "subsystem:tty&driver:ftdi_sio",
            vec!["ttyUSB0", "ttyUSB1"],
            vec!["ttyUSB0", "ttyUSB1"],
        ),
        ("subsystem:tty&!driver:ftdi_sio", vec!["ttyACM0"], vec!["ttyACM0"]),
        ("subsystem:tty&!usb:0403", vec!["ttyACM0"], vec!["ttyACM0"]),
        (
            "usb:0403&!subsystem:tty",
            vec!["1-1.1", "1-1.2"],
            vec!["1-1.1", "1-1.2"],
        ),
        ("usb:0403&!port:1-1.1", vec!["1-1.2"], vec!["1-1.2", "ttyUSB1"]),
        (
            "usb:2341:8036&attr:bInterfaceNumber=02",
            vec!["1-2:1.2"],
            vec!["hidraw0", "event7"],
        ),
        ("usb:2341:8036&attr:bInterfaceNumber=03", vec![], vec![]),
        ("usb:2341&usb:0403", vec![], vec![]),
        // The term for the child that leads to the parent may exclude what is below the parent.
        (
            "parent-of:subsystem:tty&usb:2341&!driver:ftdi_sio",
            vec!["ttyACM0"],
            vec!["ttyACM0"],
        ),
    ] {
        assert_eq!(matching(&devices, text), roots, "{text}");
        assert_eq!(nodes(&devices, text), given, "{text}");
    }
}

/// Case README 5.
#[test]
fn the_explanation_of_a_mismatch_names_the_failing_term() {
    let devices = recorded::hub_with_two_adapters();
    let inventory = Inventory::new(devices.clone());
    let tty = recorded::with_node(&devices, "/dev/ttyUSB1");
    let why = |text: &str| selector(text).why_not(&inventory.chain(tty));
    assert_eq!(why("subsystem:tty&usb:0403"), None);
    assert_eq!(
        why("subsystem:tty&usb:1050").unwrap(),
        "usb:1050 does not match the device or any of its parents"
    );
    assert_eq!(
        why("subsystem:tty&!subsystem:tty").unwrap(),
        "!subsystem:tty: subsystem:tty matches the device"
    );
    let reason = why("subsystem:tty&!port:1-1.2").unwrap();
    assert!(
        reason.starts_with("!port:1-1.2: port:1-1.2 matches its parent /sys/"),
        "{reason}"
    );
    let nothing = |text: &str| selector(text).why_nothing(&inventory);
    assert_eq!(nothing("usb:1050"), None);
    // Of the two ttys, the explanation is about the one with a single failing term.
    let reason = nothing("subsystem:tty&usb:0403:6001:A&attr:serial=A&port:1-1.2").unwrap();
    assert!(
        reason.starts_with("the nearest is ") && reason.contains("/ttyUSB0: port:1-1.2 does not match"),
        "{reason}"
    );
    assert_eq!(
        nothing("subsystem:tty&usb:1050").unwrap(),
        "no device matches usb:1050"
    );
    let reason = nothing("subsystem:tty&!driver:ftdi_sio").unwrap();
    assert!(
        reason.contains("ttyUSB0: !driver:ftdi_sio: driver:ftdi_sio matches its parent"),
        "{reason}"
    );
    let reason = nothing("port:1-1.1&usb:0403:6001:B").unwrap();
    assert!(
        reason.contains("does not match the device or any of its parents"),
        "{reason}"
    );
}
