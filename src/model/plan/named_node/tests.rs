use super::*;
use crate::model::device::recorded;

/// The node that this request names among these devices.
fn named(request: &str, devices: &[Device]) -> Option<String> {
    let request: Request = request.parse().unwrap();
    let inventory = Inventory::new(devices.to_vec());
    let given = inventory
        .iter()
        .filter(|device| request.options.admits(&[device]) != Match::No);
    let chosen = of_request(&request, given, &inventory)?;
    Some(chosen.node.as_ref()?.path.display().to_string())
}

fn node(subsystem: &str, name: &str) -> Device {
    let mut device = Device::new(SysPath::new(format!("/sys/devices/usb1/1-1/{subsystem}/{name}")));
    device.subsystem = Some(subsystem.to_owned());
    let is_partition = subsystem == "block" && name.ends_with('1');
    device.devtype = is_partition.then(|| "partition".to_owned());
    let name = device.syspath.name();
    device.node = recorded::virtual_device(subsystem, name, &format!("/dev/{name}"), 1, 1).node;
    device
}

#[test]
fn the_node_of_the_earlier_class_is_named() {
    let in_order = [
        vec![node("tty", "ttyUSB0")],
        vec![node("video4linux", "video0")],
        vec![node("dvb", "dvb0.frontend0")],
        vec![node("block", "sdb")],
        vec![node("block", "sda1")],
        // A joystick's event node has a jsN beside it; jsN is named only if there is no event node.
        vec![node("input", "event5"), node("input", "js0")],
        vec![node("video4linux", "radio0")],
        vec![node("lirc", "lirc0")],
        vec![node("sound", "controlC0")],
        vec![node("usbmisc", "cdc-wdm0")],
        vec![node("input", "event7")],
        vec![node("input", "js1")],
        vec![node("input", "joydump0")],
        vec![node("hidraw", "hidraw0")],
        vec![node("media", "media0")],
        vec![node(PINS, "gpiochip0")],
    ];
    let path = |device: &Device| device.node.as_ref().unwrap().path.display().to_string();
    let glob = "glob:**;path=/dev/board";
    for (index, first) in in_order.iter().enumerate() {
        for later in &in_order[index + 1..] {
            // Without a jsN beside it, the event node is in another class.
            let is_joystick = |nodes: &[Device]| nodes[0].subsystem.as_deref() == Some("input");
            if is_joystick(first) && is_joystick(later) {
                continue;
            }
            let both: Vec<Device> = later.iter().chain(first).cloned().collect();
            assert_eq!(
                named(glob, &both),
                Some(path(&first[0])),
                "beside {}",
                path(&later[0])
            );
        }
    }
    for (first, second) in [("event7", "js1"), ("js1", "joydump0"), ("event7", "accel0")] {
        let both = [node("input", second), node("input", first)];
        assert_eq!(named(glob, &both), Some(format!("/dev/{first}")));
    }
}

#[test]
fn within_a_class_the_main_node_is_named_else_the_least_name() {
    for (nodes, expected) in [
        ([("sound", "aloopC0"), ("sound", "controlC1")], "/dev/controlC1"),
        (
            [("dvb", "dvb0.demux0"), ("dvb", "dvb0.frontend1")],
            "/dev/dvb0.frontend1",
        ),
        ([("tty", "ttyUSB10"), ("tty", "ttyUSB9")], "/dev/ttyUSB9"),
    ] {
        let mut devices = nodes.map(|(subsystem, name)| node(subsystem, name)).to_vec();
        let mut unit = Device::new(SysPath::new("/sys/devices/usb1/1-1"));
        unit.devtype = Some("usb_device".to_owned());
        devices.push(unit);
        assert_eq!(named("glob:**;path=/dev/x", &devices).as_deref(), Some(expected));
    }
}

#[test]
fn the_unit_of_a_node_is_its_usb_device_else_the_nearest_device_of_another_subsystem() {
    let unit = |devices: &[Device], node: &str| {
        let inventory = Inventory::new(devices.to_vec());
        unit_of(recorded::with_node(devices, node), &inventory)
            .name()
            .to_owned()
    };
    assert_eq!(unit(&recorded::hub_with_two_adapters(), "/dev/ttyUSB0"), "1-1.1");
    let disk = recorded::disk_with_partitions();
    let of_disk = unit(&disk, "/dev/sda");
    assert_ne!(of_disk, "sda");
    assert_eq!(unit(&disk, "/dev/sda1"), of_disk, "its partition has the same");
    let alone = [recorded::virtual_device("tty", "tty7", "/dev/tty7", 4, 7)];
    assert_eq!(unit(&alone, "/dev/tty7"), "tty7");
}

#[test]
fn the_tty_of_an_adapter_is_named_and_never_its_raw_node() {
    let tree = recorded::hub_with_two_adapters();
    let adapter: Vec<Device> = tree
        .iter()
        .filter(|device| device.syspath.as_str().contains("1-1.1"))
        .cloned()
        .collect();
    assert_eq!(
        named("usb:0403:6001;path=/dev/board", &adapter).as_deref(),
        Some("/dev/ttyUSB0")
    );
    assert_eq!(named("usb:0403:6001;path=/dev/board", &adapter[..1]), None);
}

#[test]
fn the_raw_node_is_named_if_the_request_means_it() {
    let tree = recorded::hub_with_two_adapters();
    for request in [
        "usb:0403:6001:A;only=subsystem:usb;path=/dev/probe",
        "devnode:/dev/bus/usb/001/003;path=/dev/probe",
        "glob:/dev/bus/usb/001/*;path=/dev/probe",
    ] {
        let raw: Vec<Device> = tree
            .iter()
            .filter(|device| device.syspath.name() == "1-1.1")
            .cloned()
            .collect();
        assert_eq!(
            named(request, &raw).as_deref(),
            Some("/dev/bus/usb/001/003"),
            "{request}"
        );
    }
    assert_eq!(
        named("parent-of:devnode:/dev/ttyUSB0;path=/dev/x", &tree[..1]),
        None
    );
}

#[test]
fn the_pins_of_an_adapter_are_named_only_if_the_request_means_them() {
    let pins: Vec<Device> = recorded::hub_with_two_adapters()
        .into_iter()
        .filter(|device| device.subsystem.as_deref() == Some("tty"))
        .take(1)
        .map(|mut device| {
            device.subsystem = Some(PINS.into());
            device
        })
        .collect();
    let name = pins[0].node.as_ref().unwrap().path.display().to_string();
    for (request, is_named) in [
        ("usb:0403:6001;link=/dev/board", false),
        ("parent-of:usb:0403:6001;link=/dev/board", false),
        ("usb:0403:6001;only=subsystem:gpio;link=/dev/pins", true),
        ("subsystem:gpio;link=/dev/pins", true),
    ] {
        assert_eq!(named(request, &pins), is_named.then(|| name.clone()), "{request}");
    }
}

#[test]
fn kernel_names_are_compared_naturally() {
    let mut names = ["ttyUSB10", "sdaa", "ttyUSB9", "sdb10", "sdb9"].map(NaturalName::new);
    names.sort();
    let sorted = names.map(|name| format!("{}{}", name.text, name.number));
    assert_eq!(sorted, ["sdb9", "sdb10", "sdaa0", "ttyUSB9", "ttyUSB10"]);
}

#[test]
fn the_modem_of_a_composite_device_is_named_and_not_its_keys() {
    let tree = recorded::composite_device();
    assert_eq!(
        named("usb:2341:8036;link=/dev/board", &tree).as_deref(),
        Some("/dev/ttyACM0")
    );
    assert_eq!(
        named("usb:2341:8036;only=subsystem:hidraw;link=/dev/keys", &tree).as_deref(),
        Some("/dev/hidraw0")
    );
}

#[test]
fn a_disk_is_named_before_its_partitions() {
    let tree = recorded::disk_with_partitions();
    assert_eq!(
        named("pci:0000:00:17.0;path=/dev/data", &tree).as_deref(),
        Some("/dev/sda")
    );
}
