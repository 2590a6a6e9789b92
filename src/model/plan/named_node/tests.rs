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
        vec![node("mtd", "mtd0")],
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
fn a_directory_has_the_pins_of_an_adapter_only_if_the_request_means_them() {
    let mut pins = node("tty", "gpiochip3");
    pins.subsystem = Some(PINS.into());
    let is = |request: &str, device: &Device| is_in_directory(&request.parse().unwrap(), device);
    for (request, expected) in [
        ("usb:0403:6001;path=/dev/own/", false),
        ("usb:0403:6001;only=subsystem:gpio;path=/dev/own/", true),
        ("subsystem:gpio;path=/dev/own/", true),
    ] {
        assert_eq!(is(request, &pins), expected, "{request}");
    }
    assert!(is("usb:0403:6001;path=/dev/own/", &node("tty", "ttyUSB0")));
}

/// The node that exists first, as subsystem and path below the interface; the main node likewise;
/// and an option that means the first one.
type Beside = [&'static str; 5];

const BESIDE: [Beside; 12] = [
    [
        "scsi_generic",
        "7:0:0:0/scsi_generic/sg1",
        "block",
        "7:0:0:0/block/sdb",
        "only=subsystem:scsi_generic",
    ],
    [
        "bsg",
        "7:0:0:0/bsg/7:0:0:0",
        "block",
        "7:0:0:0/block/sdb",
        "only=subsystem:bsg",
    ],
    [
        "nvme",
        "nvme/nvme0",
        "block",
        "nvme/nvme0/nvme0n1",
        "only=subsystem:nvme",
    ],
    [
        "media",
        "media1",
        "video4linux",
        "video4linux/video2",
        "only=subsystem:media",
    ],
    [
        "i2c-dev",
        "i2c-8/i2c-dev/i2c-8",
        "dvb",
        "dvb/dvb1.frontend0",
        "only=subsystem:i2c-dev",
    ],
    [
        "dvb",
        "dvb/dvb1.demux0",
        "dvb",
        "dvb/dvb1.frontend0",
        "only=glob:/dev/*demux0",
    ],
    [
        "sound",
        "sound/card1/pcmC1D0p",
        "sound",
        "sound/card1/controlC1",
        "only=devnode:/dev/pcmC1D0p",
    ],
    [
        "input",
        "0003:1/input/input7/mouse0",
        "input",
        "0003:1/input/input7/event7",
        "only=glob:/dev/mouse*",
    ],
    [
        "input",
        "0003:1/input/input7/js0",
        "input",
        "0003:1/input/input7/event7",
        "only=glob:/dev/js*",
    ],
    [
        "drm",
        "drm/renderD128",
        "drm",
        "drm/card0",
        "only=regex:renderD128",
    ],
    [
        "hidraw",
        "0003:1/hidraw/hidraw4",
        "input",
        "0003:1/input/input7/event7",
        "only=subsystem:hidraw",
    ],
    ["gpio", "gpiochip1", "tty", "tty/ttyUSB0", "only=subsystem:gpio"],
];

/// A device whose HID device, if there is one, is a gamepad.
fn with_nodes(nodes: &[(&'static str, &'static str)]) -> Vec<Device> {
    let probes: Vec<(String, &(&str, &str))> = nodes
        .iter()
        .map(|node| (format!("/dev/{}", node.1.rsplit('/').next().unwrap()), node))
        .collect();
    let mut devices = Vec::new();
    for (path, (subsystem, below)) in &probes {
        let path: &'static str = path.clone().leak();
        devices.extend(recorded::usb_device_with(&[(0, subsystem, below, path, "")]));
    }
    for device in &mut devices {
        if device.subsystem.as_deref() == Some("hid") {
            device
                .attributes
                .insert("report_descriptor".into(), "0001:0005".into());
        }
    }
    devices
}

#[test]
fn a_node_that_exists_before_the_main_one_is_not_named_unless_the_request_means_it() {
    for [first, first_path, main, main_path, only] in BESIDE {
        let name = |path: &str| Some(format!("/dev/{}", path.rsplit('/').next().unwrap()));
        let early = with_nodes(&[(first, first_path)]);
        let both = with_nodes(&[(first, first_path), (main, main_path)]);
        let request = "usb:1209:0001;link=/dev/board";
        assert_eq!(named(request, &early), None, "{first_path}");
        assert_eq!(named(request, &both), name(main_path), "{first_path}");
        let of_main_too = format!("usb:1209:0001;only=subsystem:{main};link=/dev/board");
        assert_eq!(named(&of_main_too, &early), None, "{first_path}");
        assert_eq!(named(&of_main_too, &both), name(main_path), "{first_path}");
        let of_first = format!("usb:1209:0001;{only};link=/dev/board");
        let itself = format!("devnode:{};link=/dev/board", name(first_path).unwrap());
        for devices in [&early, &both] {
            assert_eq!(named(&of_first, devices), name(first_path), "{of_first}");
        }
        let alone = recorded::with_node(&early, &name(first_path).unwrap()).clone();
        assert_eq!(named(&itself, &[alone]), name(first_path), "{itself}");
    }
}

/// A policy or `only=` may exclude the main node.
#[test]
fn once_the_main_node_exists_another_one_can_be_named_in_its_place() {
    for [first, first_path, main, main_path, _] in BESIDE[5..11].iter().copied() {
        let both = with_nodes(&[(first, first_path), (main, main_path)]);
        let request: Request = "usb:1209:0001;link=/dev/board".parse().unwrap();
        let inventory = Inventory::new(both);
        let without_main = inventory
            .iter()
            .filter(|device| !device.syspath.as_str().ends_with(main_path));
        let chosen = of_request(&request, without_main, &inventory);
        let chosen = chosen.map(|device| device.syspath.as_str().ends_with(first_path));
        assert_eq!(chosen, Some(true), "{first_path}");
    }
}

#[test]
fn a_hidraw_node_of_a_device_without_an_input_is_named_at_once() {
    let mut key = with_nodes(&[("hidraw", "0003:1/hidraw/hidraw4")]);
    for usages in [Some("f1d0:0001"), None] {
        for device in &mut key {
            device.attributes.remove("report_descriptor");
            let usages = usages.map(|usages| ("report_descriptor".to_owned(), usages.to_owned()));
            device.attributes.extend(usages);
        }
        assert_eq!(
            named("usb:1209:0001;link=/dev/key", &key).as_deref(),
            Some("/dev/hidraw4")
        );
    }
}

#[test]
fn nodes_without_a_main_node_are_named_at_once() {
    let alone = recorded::virtual_device("sound", "timer", "/dev/snd/timer", 116, 33);
    assert_eq!(
        named("subsystem:sound;link=/dev/x", &[alone]).as_deref(),
        Some("/dev/snd/timer")
    );
    let tape = with_nodes(&[
        ("scsi_generic", "7:0:0:0/scsi_generic/sg1"),
        ("scsi_tape", "7:0:0:0/scsi_tape/nst0"),
        ("scsi_tape", "7:0:0:0/scsi_tape/st0"),
    ]);
    assert_eq!(
        named("usb:1209:0001;link=/dev/tape", &tape).as_deref(),
        Some("/dev/st0")
    );
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
