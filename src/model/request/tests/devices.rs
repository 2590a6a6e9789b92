//! Which recorded devices a request selects, and which of them wait for udevd.

use super::*;
use crate::model::device::recorded;
use crate::model::oci::ProcessUser;
use crate::model::plan::Planner;
use crate::model::request::entry::{Origin, RequestEntry};

#[test]
fn a_character_device_is_attached_when_it_matches_for_certain_and_a_block_device_after_udevd() {
    let mut devices = recorded::hub_with_two_adapters();
    devices.extend(recorded::disk_with_partitions());
    let early: Vec<Device> = devices.iter().cloned().map(recorded::before_udev).collect();
    // Whether the device matches at the kernel's event, and whether it then waits for udevd.
    let at_the_kernels = |text: &str, node: &str| {
        let inventory = Inventory::new(early.clone());
        let device = inventory.get(&recorded::with_node(&early, node).syspath).unwrap();
        let request = request(text);
        (
            matches!(
                request.gives(&device.syspath, device, &inventory),
                Match::Unknown(_)
            ),
            request.awaits_udev(device),
        )
    };
    for (text, node, expected) in [
        ("usb:0403", "/dev/bus/usb/001/003", (false, false)),
        ("usb:0403", "/dev/ttyUSB0", (false, false)),
        ("usb:0403;ready=udev", "/dev/ttyUSB0", (false, true)),
        ("subsystem:tty&!tag:x;ready=kernel", "/dev/ttyUSB0", (true, false)),
        ("subsystem:tty&!driver:x", "/dev/ttyUSB0", (false, false)),
        ("usb:0403;only=tag:systemd", "/dev/ttyUSB0", (true, false)),
        (
            "usb:0403;only=tag:systemd;only=subsystem:tty",
            "/dev/ttyUSB0",
            (false, false),
        ),
        ("subsystem:block", "/dev/sda1", (false, true)),
        ("subsystem:block;ready=kernel", "/dev/sda1", (false, false)),
        (
            "subsystem:block;only=property:ID_FS_TYPE=*;ready=kernel",
            "/dev/sda1",
            (true, false),
        ),
    ] {
        assert_eq!(at_the_kernels(text, node), expected, "{text} {node}");
        let inventory = Inventory::new(devices.clone());
        let device = inventory
            .get(&recorded::with_node(&devices, node).syspath)
            .unwrap();
        assert_eq!(
            request(text).gives(&device.syspath, device, &inventory),
            Match::Yes,
            "{text} {node}"
        );
        assert!(!request(text).awaits_udev(device), "{text} {node}");
    }
}

/// Case README 26. Case README 2.
#[test]
fn alternatives_are_roots_of_one_request() {
    let host = recorded::documented_host();
    let inventory = Inventory::new(host.clone());
    let nodes = |text: &str, inventory: &Inventory| {
        let asked = RequestEntry::new(Origin::Root, text.parse().unwrap());
        let mut planner = Planner::new(vec![asked], Vec::new(), ProcessUser::default());
        planner.find_roots(inventory);
        let candidates = planner.candidates(inventory);
        let mut nodes: Vec<String> = candidates
            .iter()
            .map(|candidate| candidate.device.syspath.name().to_owned())
            .collect();
        nodes.sort();
        (nodes, planner.required_and_absent().count())
    };
    for (text, given) in [
        ("usb:1a6e:089a;or=usb:18d1:9302;required", vec!["1-10", "1-9"]),
        ("usb:ffff;or=usb:18d1:9302;required", vec!["1-10"]),
        ("usb:ffff:0001;or=usb:ffff:0002", vec![]),
        // Each alternative has its own negated terms.
        ("usb:1366&!subsystem:tty;or=port:1-9", vec!["1-8", "1-9"]),
        ("usb:1366&!subsystem:tty;or=usb:1366", vec!["1-8", "ttyACM1"]),
        (
            "usb:1366&!subsystem:tty;or=parent-of:parent-of:devnode:/dev/hidraw5&!subsystem:usb",
            vec!["1-8"],
        ),
        ("usb:ffff;or=parent-of:devnode:/dev/ttyACM1", vec!["ttyACM1"]),
        ("usb:1366;or=usb:1050;only=subsystem:usb", vec!["1-7", "1-8"]),
    ] {
        assert_eq!(nodes(text, &inventory).0, given, "{text}");
    }
    assert_eq!(nodes("usb:ffff;or=usb:18d1:9302;required", &inventory).1, 0);
    assert_eq!(nodes("usb:ffff;or=usb:fffe;required", &inventory).1, 1);
}

#[test]
fn any_of_several_only_options_may_match() {
    let devices = recorded::composite_device();
    let admitted = |text: &str| {
        let options = request(text).options;
        let nodes = devices
            .iter()
            .filter(|device| device.node.is_some() && options.admits(&[device]) == Match::Yes);
        nodes.map(|device| device.syspath.name()).collect::<Vec<_>>()
    };
    assert_eq!(admitted("usb:2341;only=subsystem:tty"), ["ttyACM0"]);
    assert_eq!(
        admitted("usb:2341;only=subsystem:tty;only=glob:hidraw*"),
        ["ttyACM0", "hidraw0"]
    );
    assert_eq!(admitted("usb:2341").len(), 6);
}
