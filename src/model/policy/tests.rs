//! The policy on recorded devices: every line of the table, every kind of rule, and what must hold for all rules.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::model::device::recorded::{
    before_udev, camera_with_button, companion_hub, composite_device, debug_probe, disk_with_partitions,
    dualsense, dualshock3, headset, hub_with_two_adapters, joystick, loop_over, mapped, security_key,
    virtual_device, with_node, xbox_elite, xbox_series,
};
use crate::model::device::{DevKind, DevNode, DevNum, STATIC_NODE, Seen};
use crate::model::policy::rule::RuleDefinition;
use crate::model::request::entry::Origin;

/// A host with all sorts of devices.
fn host() -> Vec<Device> {
    let mut devices = hub_with_two_adapters();
    devices.extend(companion_hub());
    for more in [
        composite_device(),
        joystick(),
        disk_with_partitions(),
        dualshock3(),
        dualsense(),
        xbox_series(),
        xbox_elite(),
        camera_with_button(),
        headset(),
        security_key(),
        debug_probe(),
    ] {
        devices.extend(more);
    }
    devices.extend(
        [
            ("mem", "mem", "/dev/mem", 1, 1),
            ("mem", "kmem", "/dev/kmem", 1, 2),
            ("mem", "port", "/dev/port", 1, 4),
            ("mem", "kmsg", "/dev/kmsg", 1, 11),
            ("mem", "null", "/dev/null", 1, 3),
            ("msr", "msr0", "/dev/cpu/0/msr", 202, 0),
            ("tty", "console", "/dev/console", 5, 1),
            ("tty", "tty0", "/dev/tty0", 4, 0),
            ("tty", "tty63", "/dev/tty63", 4, 63),
            ("vc", "vcs1", "/dev/vcs1", 7, 1),
            ("vc", "vcsa1", "/dev/vcsa1", 7, 129),
            ("input", "mice", "/dev/input/mice", 13, 63),
            ("misc", "kvm", "/dev/kvm", 10, 232),
            ("misc", "vhost-net", "/dev/vhost-net", 10, 238),
            ("misc", "vfio", "/dev/vfio/vfio", 10, 196),
            ("vfio", "12", "/dev/vfio/12", 240, 0),
            ("misc", "loop-control", "/dev/loop-control", 10, 237),
            ("misc", "device-mapper", "/dev/mapper/control", 10, 236),
            ("misc", "fuse", "/dev/fuse", 10, 229),
            ("misc", "uinput", "/dev/uinput", 10, 223),
            ("misc", "uhid", "/dev/uhid", 10, 239),
            ("rtc", "rtc0", "/dev/rtc0", 250, 0),
            ("watchdog", "watchdog0", "/dev/watchdog0", 249, 0),
            ("misc", "watchdog", "/dev/watchdog", 10, 130),
            ("tpm", "tpm0", "/dev/tpm0", 10, 224),
            ("tpmrm", "tpmrm0", "/dev/tpmrm0", 253, 65536),
            ("usbmon", "usbmon1", "/dev/usbmon1", 248, 1),
            ("tty", "ttyS0", "/dev/ttyS0", 4, 64),
        ]
        .map(|(subsystem, name, node, major, minor)| virtual_device(subsystem, name, node, major, minor)),
    );
    devices
}

/// Devices and their inventory.
struct Host {
    devices: Vec<Device>,
    inventory: Inventory,
}

impl Host {
    fn new(devices: Vec<Device>) -> Self {
        let inventory = Inventory::new(devices.clone());
        Self { devices, inventory }
    }
}

/// The devices of [`host`], made once for all tests.
static HOST: LazyLock<Host> = LazyLock::new(|| Host::new(host()));

/// The same before udevd has processed any of them.
static HOST_BEFORE_UDEVD: LazyLock<Host> =
    LazyLock::new(|| Host::new(host().into_iter().map(before_udev).collect()));

/// The host uses its SATA disk's second partition, and a desktop has mounted the drive of a debug probe.
fn root_on_sda2() -> HostUse {
    let mounted = |point: &str| Use::new(format!("is mounted at {point:?}"), Some("unmount it"));
    HostUse::used([((8, 2), mounted("/")), ((8, 33), mounted("/media/DAPLINK"))])
}

fn rule(list: List, devices: &[&str], change: impl FnOnce(&mut RuleDefinition)) -> Rule {
    let mut definition = RuleDefinition {
        devices: devices.iter().map(|text| text.to_string()).collect(),
        access: None,
        annotations: BTreeMap::new(),
        user_namespace: None,
        privileged: None,
        reason: None,
        applies_to: None,
    };
    change(&mut definition);
    let place = Place {
        list,
        file: "/etc/c.toml".into(),
        line: 7,
    };
    Rule::parse(place, &definition).unwrap()
}

fn allow(devices: &[&str]) -> Rule {
    rule(List::Allow, devices, |_| {})
}

fn deny(devices: &[&str]) -> Rule {
    rule(List::Deny, devices, |_| {})
}

fn policy(fallback: Fallback, allow: Vec<Rule>, deny: Vec<Rule>) -> Policy {
    Policy {
        fallback,
        classes_only: false,
        allow,
        deny,
        written_in: "/etc/c.toml".into(),
        tool_options: String::new(),
        unknown: Vec::new(),
    }
}

fn untrusted(request: &str) -> RequestEntry {
    RequestEntry::new(Origin::Annotation, request.parse().unwrap())
}

/// What is told of the device at a node, when it is asked for with this request.
fn told_of(policy: &Policy, entry: &RequestEntry, node: &str, of: &Circumstances) -> String {
    told_in(policy, entry, node, of, &HOST)
}

fn told_among(
    policy: &Policy,
    entry: &RequestEntry,
    node: &str,
    of: &Circumstances,
    devices: Vec<Device>,
) -> String {
    told_in(policy, entry, node, of, &Host::new(devices))
}

fn told_in(policy: &Policy, entry: &RequestEntry, node: &str, of: &Circumstances, host: &Host) -> String {
    let situation = Situation {
        circumstances: of,
        inventory: &host.inventory,
        host_use: &root_on_sda2(),
    };
    match policy.judge(entry, with_node(&host.devices, node), &situation) {
        Verdict::Allowed(_) => "allowed".into(),
        Verdict::Undecided(whose) => format!("waits for {}", whose.name()),
        Verdict::Denied(denial) => denial.rule,
    }
}

fn told(policy: &Policy, node: &str) -> String {
    let entry = untrusted(&format!("devnode:{node}"));
    told_of(policy, &entry, node, &Circumstances::default())
}

const PROTECTED: [(&str, &[&str]); 13] = [
    (
        "host-disk",
        &[
            "/dev/sda",
            "/dev/sda1",
            "/dev/sda2",
            "/dev/sg0",
            "/dev/sdc",
            "/dev/sdc1",
            "/dev/sg2",
        ],
    ),
    (
        "memory",
        &[
            "/dev/mem",
            "/dev/kmem",
            "/dev/port",
            "/dev/kmsg",
            "/dev/cpu/0/msr",
        ],
    ),
    ("host-disk-usb", &["/dev/bus/usb/001/014"]),
    (
        "console",
        &[
            "/dev/console",
            "/dev/tty0",
            "/dev/tty63",
            "/dev/vcs1",
            "/dev/vcsa1",
        ],
    ),
    (
        "seat-input",
        &[
            "/dev/input/mice",
            "/dev/input/event7",
            "/dev/hidraw0",
            "/dev/bus/usb/001/005",
            // A gamepad's touchpad, and a keyboard beside another gamepad.
            "/dev/input/event13",
            "/dev/input/mouse1",
            "/dev/input/event16",
            "/dev/hidraw5",
            "/dev/bus/usb/001/010",
            // The part of a security key that types.
            "/dev/input/event19",
            "/dev/hidraw7",
            "/dev/bus/usb/001/013",
        ],
    ),
    (
        "virtualization",
        &["/dev/kvm", "/dev/vhost-net", "/dev/vfio/vfio", "/dev/vfio/12"],
    ),
    ("block-control", &["/dev/loop-control", "/dev/mapper/control"]),
    ("fuse", &["/dev/fuse"]),
    ("input-injection", &["/dev/uinput", "/dev/uhid"]),
    ("clock", &["/dev/rtc0"]),
    ("watchdog", &["/dev/watchdog", "/dev/watchdog0"]),
    ("tpm", &["/dev/tpm0", "/dev/tpmrm0"]),
    (
        "usb-hub",
        &[
            "/dev/bus/usb/001/001",
            "/dev/bus/usb/002/001",
            "/dev/bus/usb/001/002",
            "/dev/bus/usb/002/002",
            "/dev/usbmon1",
        ],
    ),
];

#[test]
fn every_line_of_the_table_protects_its_devices_whatever_the_default() {
    for fallback in [Fallback::Removable, Fallback::Nothing, Fallback::Anything] {
        for (line, nodes) in PROTECTED {
            for node in nodes {
                assert_eq!(
                    told(&policy(fallback, vec![], vec![]), node),
                    format!("protected: {line}"),
                    "{node}"
                );
            }
        }
    }
    let names: Vec<&str> = PROTECTED.iter().map(|(line, _)| *line).collect();
    assert_eq!(
        names,
        LINES.iter().map(|line| line.name).collect::<Vec<_>>(),
        "a line without a test"
    );
    assert!(
        LINES.is_sorted_by_key(|line| !line.always),
        "a line that a rule lifts comes before one that none lifts"
    );
}

#[test]
fn a_rule_lifts_a_line_that_is_not_for_ever() {
    let everything = policy(
        Fallback::Removable,
        vec![allow(&["glob:**", "subsystem:vc"])],
        vec![],
    );
    for (name, nodes) in PROTECTED {
        let always = LINES.iter().any(|line| line.name == name && line.always);
        for node in nodes {
            let expected = if always {
                format!("protected: {name}")
            } else {
                "allowed".into()
            };
            assert_eq!(told(&everything, node), expected, "{node}");
        }
    }
    assert_eq!(LINES.iter().filter(|line| line.always).count(), 2);
}

#[test]
fn the_documentation_has_every_line_with_its_reason() {
    let page = include_str!("../../../packaging/policy.md");
    for line in &LINES {
        let lifted = if line.always { "never" } else { "a rule" };
        let row = format!(
            "| `{}` | {} | {} | {lifted} |",
            line.name, line.devices, line.reason
        );
        assert!(page.contains(&row), "packaging/policy.md lacks: {row}");
    }
    assert_eq!(
        page.matches("\n| `").count(),
        LINES.len(),
        "a line that is no more"
    );
    let manual = include_str!("../../../packaging/man/oci-hotplug.toml.5");
    for line in &LINES {
        let never = if line.always { " (never)" } else { "" };
        let entry = format!(".B {}{never}\n{}: {}\n", line.name, line.devices, line.reason);
        assert!(manual.contains(&entry), "oci-hotplug.toml.5 lacks: {entry}");
    }
}

#[test]
fn by_default_an_untrusted_request_gets_what_is_on_usb_and_nothing_else() {
    let default = Policy::default();
    for node in [
        "/dev/ttyUSB0",
        "/dev/ttyUSB1",
        "/dev/bus/usb/001/003",
        "/dev/ttyACM0",
        "/dev/sdb",
        "/dev/sdb1",
        "/dev/bus/usb/002/003",
        "/dev/input/js0",
        "/dev/input/event8",
        "/dev/hidraw1",
        "/dev/bus/usb/001/006",
    ] {
        assert_eq!(told(&default, node), "allowed", "{node}");
    }
    for node in ["/dev/ttyS0", "/dev/null"] {
        assert_eq!(told(&default, node), "default = \"removable\"", "{node}");
        assert_eq!(
            told(&policy(Fallback::Nothing, vec![], vec![]), node),
            "default = \"nothing\""
        );
        assert_eq!(told(&policy(Fallback::Anything, vec![], vec![]), node), "allowed");
    }
    assert_eq!(
        told(&policy(Fallback::Nothing, vec![], vec![]), "/dev/ttyUSB0"),
        "default = \"nothing\""
    );
}

#[test]
fn a_refusal_by_the_default_says_what_the_default_gives() {
    let reason = |fallback| {
        let policy = policy(fallback, vec![], vec![]);
        let circumstances = Circumstances::default();
        let situation = Situation {
            circumstances: &circumstances,
            inventory: &HOST.inventory,
            host_use: &root_on_sda2(),
        };
        let device = with_node(&HOST.devices, "/dev/ttyS0");
        match policy.judge(&untrusted("subsystem:tty"), device, &situation) {
            Verdict::Denied(denial) => denial.reason,
            verdict => panic!("{verdict:?}"),
        }
    };
    assert_eq!(
        reason(Fallback::Removable),
        "not a USB device, and no rule allows it"
    );
    assert_eq!(reason(Fallback::Nothing), "no rule allows it");
}

#[test]
fn a_hub_is_no_way_to_what_is_plugged_into_it() {
    let hub = untrusted("usb:2109:2813");
    let of = Circumstances::default();
    assert_eq!(
        told_of(&Policy::default(), &hub, "/dev/bus/usb/001/002", &of),
        "protected: usb-hub"
    );
    assert_eq!(told_of(&Policy::default(), &hub, "/dev/ttyUSB0", &of), "allowed");
    assert_eq!(
        told_of(&Policy::default(), &hub, "/dev/input/event7", &of),
        "protected: seat-input"
    );
    let denied = policy(
        Fallback::Removable,
        vec![],
        vec![deny(&["usb:0403&subsystem:tty"])],
    );
    assert_eq!(
        told_of(&denied, &hub, "/dev/ttyUSB0", &of),
        "[[policy.deny]] at /etc/c.toml line 7"
    );
    // Its raw node is a way to the same data.
    assert_eq!(
        told_of(&denied, &hub, "/dev/bus/usb/001/003", &of),
        "[[policy.deny]] at /etc/c.toml line 7"
    );
}

/// Case README 3. Case README 22.
#[test]
fn what_has_keys_and_is_neither_typed_on_nor_pointed_with_is_no_seat() {
    for node in [
        // DualShock 3: a joystick with ID_INPUT_KEY.
        "/dev/input/event9",
        "/dev/input/js1",
        "/dev/input/event10",
        "/dev/hidraw3",
        "/dev/bus/usb/001/007",
        // DualSense: only the nodes of its touchpad are protected.
        "/dev/input/event11",
        "/dev/input/js2",
        "/dev/input/event12",
        "/dev/hidraw4",
        "/dev/snd/controlC1",
        "/dev/bus/usb/001/008",
        // Xbox Series, and the pad of an Elite.
        "/dev/input/event14",
        "/dev/input/js3",
        "/dev/bus/usb/001/009",
        "/dev/input/event15",
        "/dev/input/js4",
        // A camera's button, a headset's volume keys.
        "/dev/input/event17",
        "/dev/video0",
        "/dev/bus/usb/001/011",
        "/dev/input/event18",
        "/dev/hidraw6",
        "/dev/bus/usb/001/012",
        // The FIDO interface of a security key.
        "/dev/hidraw8",
    ] {
        assert_eq!(told(&Policy::default(), node), "allowed", "{node}");
    }
}

/// Case README 22.
#[test]
fn a_touchpad_is_let_pass_only_beside_a_joystick() {
    let mut devices = dualsense();
    for device in &mut devices {
        if device.attribute("capabilities") == Some("joystick") {
            device.attributes.insert("capabilities".into(), "other".into());
        }
    }
    let entry = untrusted("usb:054c");
    let of = Circumstances::default();
    let told = |node: &str| told_among(&Policy::default(), &entry, node, &of, devices.clone());
    assert_eq!(told("/dev/hidraw4"), "protected: seat-input");
    assert_eq!(told("/dev/bus/usb/001/008"), "protected: seat-input");
}

/// Case README 22.
#[test]
fn the_kernel_knows_a_keyboard_before_udevd_does_and_without_it() {
    let of = Circumstances::default();
    let entry = untrusted("subsystem:input");
    let told = |node: &str, seen, change: &dyn Fn(&mut Device)| {
        let mut devices: Vec<Device> = host().into_iter().map(before_udev).collect();
        for device in &mut devices {
            device.seen = seen;
            change(device);
        }
        told_among(&Policy::default(), &entry, node, &of, devices)
    };
    let as_it_is = |_: &mut Device| {};
    for seen in [Seen::Kernel, Seen::Overdue, Seen::NoUdevd] {
        for node in [
            "/dev/input/event7",
            "/dev/hidraw0",
            "/dev/bus/usb/001/005",
            "/dev/input/event13",
        ] {
            assert_eq!(
                told(node, seen, &as_it_is),
                "protected: seat-input",
                "{node} {seen:?}"
            );
        }
    }
    // What the kernel takes for a joystick udevd may still call a keyboard; where no udevd runs, none will.
    for node in [
        "/dev/input/event8",
        "/dev/hidraw1",
        "/dev/input/event17",
        "/dev/input/event9",
    ] {
        assert!(
            told(node, Seen::Kernel, &as_it_is).starts_with("waits for event"),
            "{node}"
        );
        assert_eq!(
            told(node, Seen::Overdue, &as_it_is),
            "protected: seat-input",
            "{node}"
        );
        assert_eq!(told(node, Seen::NoUdevd, &as_it_is), "allowed", "{node}");
        let unreadable = |device: &mut Device| device.attributes.clear();
        assert_eq!(
            told(node, Seen::NoUdevd, &unreadable),
            "protected: seat-input",
            "{node}"
        );
    }
    // A rule of udev's may make a keyboard of what the kernel takes for none.
    let told_by_udev = |device: &mut Device| {
        device.properties.insert("ID_INPUT_KEYBOARD".into(), "1".into());
    };
    assert_eq!(
        told("/dev/input/event8", Seen::Udev, &told_by_udev),
        "protected: seat-input"
    );
}

/// Case README 23.
#[test]
fn a_mounted_drive_is_protected_and_the_other_interfaces_of_its_device_are_not() {
    let default = Policy::default();
    for node in ["/dev/ttyACM1", "/dev/hidraw9"] {
        assert_eq!(told(&default, node), "allowed", "{node}");
    }
    let with_rule = policy(Fallback::Removable, vec![allow(&["usb:0d28"])], vec![]);
    assert_eq!(told(&with_rule, "/dev/bus/usb/001/014"), "allowed");
    for node in ["/dev/sdc", "/dev/sdc1", "/dev/sg2"] {
        assert_eq!(told(&with_rule, node), "protected: host-disk", "{node}");
    }
    let text = |node: &str| {
        let devices = host();
        let inventory = Inventory::new(devices.clone());
        let situation = Situation {
            circumstances: &Circumstances::default(),
            inventory: &inventory,
            host_use: &root_on_sda2(),
        };
        match default.judge(&untrusted("usb:0d28"), with_node(&devices, node), &situation) {
            Verdict::Denied(denial) => denial.to_string(),
            verdict => panic!("{node}: {verdict:?}"),
        }
    };
    assert_eq!(
        text("/dev/bus/usb/001/014"),
        "refused by the policy (protected: host-disk-usb): the USB nodes of devices with a disk that the host uses: \
         the USB node gives access to the disk (/dev/sdc1 is mounted at \"/media/DAPLINK\"): unmount it, \
         or, to allow it, run `oci-hotplug allow 'usb:0d28'`"
    );
    let of_disk = text("/dev/sdc");
    assert!(
        of_disk.contains("/dev/sdc1 is mounted at \"/media/DAPLINK\"): unmount it, or, to allow it anyway"),
        "{of_disk}"
    );
}

/// Case security 8.
#[test]
fn a_deny_rule_is_also_for_what_exposes_the_bytes_of_what_it_names() {
    let mut devices = host();
    devices.extend([
        loop_over(0, "/dev/sdb1"),
        loop_over(1, "/dev/loop0"),
        loop_over(2, "/srv/image"),
        mapped(0, "sdb1"),
        mapped(1, "sdb1"),
    ]);
    // A trusted request, so that no line of the table comes in between.
    let entry = RequestEntry::new(Origin::Root, "subsystem:block".parse().unwrap());
    let deny = |devices: &[&str]| rule(List::Deny, devices, |rule| rule.applies_to = Some(AppliesTo::All));
    let of = Circumstances::default();
    let told = |rule: &str, node: &str| {
        let denying = policy(Fallback::Nothing, vec![], vec![deny(&[rule])]);
        told_among(&denying, &entry, node, &of, devices.clone())
    };
    let denied = "[[policy.deny]] at /etc/c.toml line 7";
    for (rule, node) in [
        ("devnode:/dev/sdb1", "/dev/sdb1"),
        ("devnode:/dev/sdb1", "/dev/sdb"),
        ("devnode:/dev/sdb1", "/dev/bus/usb/002/003"),
        ("devnode:/dev/sdb1", "/dev/loop0"),
        ("devnode:/dev/sdb1", "/dev/loop1"),
        ("devnode:/dev/sdb1", "/dev/dm-0"),
        ("property:ID_FS_LABEL=BACKUP", "/dev/sdb"),
        ("usb:0781", "/dev/loop1"),
        ("devnode:/dev/dm-0", "/dev/sdb1"),
        ("devnode:/dev/dm-0", "/dev/sdb"),
        ("subsystem:tty", "/dev/bus/usb/001/003"),
        ("devnode:/dev/input/event11", "/dev/hidraw4"),
        ("devnode:/dev/hidraw4", "/dev/bus/usb/001/008"),
    ] {
        assert_eq!(told(rule, node), denied, "{rule} {node}");
    }
    for (rule, node) in [
        ("devnode:/dev/loop0", "/dev/loop2"),
        ("devnode:/dev/dm-0", "/dev/dm-1"),
        ("devnode:/dev/sdb&!devnode:/dev/sdb1", "/dev/sdb1"),
        ("subsystem:scsi_generic", "/dev/sdb"),
        ("subsystem:tty", "/dev/bus/usb/001/002"),
        ("subsystem:block&!devnode:/dev/dm-0", "/dev/dm-0"),
        ("devnode:/dev/ttyUSB0", "/dev/bus/usb/001/004"),
    ] {
        assert_eq!(told(rule, node), "allowed", "{rule} {node}");
    }
    let inventory = Inventory::new(devices.clone());
    let situation = Situation {
        circumstances: &of,
        inventory: &inventory,
        host_use: &HostUse::default(),
    };
    let denying = policy(Fallback::Anything, vec![], vec![deny(&["devnode:/dev/sdb1"])]);
    let Verdict::Denied(denial) =
        denying.judge(&entry, with_node(&devices, "/dev/bus/usb/002/003"), &situation)
    else {
        panic!("the raw node exposes the partition");
    };
    assert_eq!(
        denial.reason,
        "the rule denies it (the rule matches /dev/sdb1, whose data this device exposes)"
    );
}

/// Case security 8.
#[test]
fn a_loop_device_over_a_disk_of_the_host_is_that_disk_and_uses_it() {
    let mut devices = host();
    devices.extend([
        loop_over(0, "/dev/sda1"),
        loop_over(1, "/dev/loop0"),
        loop_over(2, "/dev/sdb1"),
        loop_over(3, "/srv/image"),
    ]);
    let entry = untrusted("subsystem:block");
    let of = Circumstances::default();
    let anything = policy(Fallback::Anything, vec![allow(&["subsystem:block"])], vec![]);
    let told = |node: &str| told_among(&anything, &entry, node, &of, devices.clone());
    assert_eq!(told("/dev/loop0"), "protected: host-disk");
    assert_eq!(told("/dev/loop1"), "protected: host-disk");
    assert_eq!(told("/dev/loop2"), "allowed");
    assert_eq!(told("/dev/loop3"), "allowed");
    // What a loop device is over is in use; the loop device itself is not.
    assert_eq!(told("/dev/sdb"), "protected: host-disk");
    assert_eq!(told("/dev/sdb1"), "protected: host-disk");
}

#[test]
fn a_disk_that_the_host_mounts_is_taken_with_its_usb_node() {
    let devices = host();
    let inventory = Inventory::new(devices.clone());
    let circumstances = Circumstances::default();
    let verdict = |node: &str, host_use: &HostUse| {
        let situation = Situation {
            circumstances: &circumstances,
            inventory: &inventory,
            host_use,
        };
        match Policy::default().judge(&untrusted("usb:0781"), with_node(&devices, node), &situation) {
            Verdict::Denied(denial) => denial.line,
            _ => None,
        }
    };
    for node in ["/dev/sdb", "/dev/sdb1", "/dev/bus/usb/002/003"] {
        let line = if node.contains("usb") {
            "host-disk-usb"
        } else {
            "host-disk"
        };
        assert_eq!(verdict(node, &HostUse::of([(8, 17)])), Some(line), "{node}");
        assert_eq!(verdict(node, &HostUse::unknown()), Some(line), "{node}");
        assert_eq!(verdict(node, &HostUse::of([(8, 1)])), None, "{node}");
    }
    assert_eq!(verdict("/dev/ttyUSB0", &HostUse::unknown()), None);
}

#[test]
fn what_the_host_uses_matters_only_to_what_has_disks() {
    let devices = host();
    let inventory = Inventory::new(devices.clone());
    let names = |node: &str| -> Vec<String> {
        blocks_that_decide(with_node(&devices, node), &inventory)
            .iter()
            .map(|device| device.syspath.name().to_owned())
            .collect()
    };
    assert_eq!(names("/dev/sda2"), ["sda", "sda1", "sda2"]);
    assert_eq!(names("/dev/sg0"), ["sda", "sda1", "sda2"]);
    assert_eq!(names("/dev/bus/usb/002/003"), ["sdb", "sdb1"]);
    assert!(names("/dev/ttyUSB0").is_empty() && names("/dev/bus/usb/001/003").is_empty());
}

#[test]
fn of_an_nvme_controller_all_namespaces_matter_wherever_they_lie_and_no_other_disk() {
    let nvme = |path: &str, subsystem: &str, kind, major, minor| {
        let mut device = Device::new(SysPath::new(path));
        device.subsystem = Some(subsystem.to_owned());
        let path = format!("/dev/{}", device.syspath.name()).into();
        let num = DevNum { kind, major, minor };
        device.node = Some(DevNode { path, num });
        device
    };
    let controller = "/sys/devices/pci0000:00/0000:00:1d.0/nvme/nvme0";
    let elsewhere = "/sys/devices/virtual/nvme-subsystem/nvme-subsys0";
    let mut devices = host();
    devices.extend([
        nvme(controller, "nvme", DevKind::Char, 240, 0),
        nvme(
            &format!("{controller}/ng0n1"),
            "nvme-generic",
            DevKind::Char,
            241,
            0,
        ),
        nvme(&format!("{elsewhere}/nvme0n1"), "block", DevKind::Block, 259, 0),
    ]);
    let inventory = Inventory::new(devices.clone());
    let decide = blocks_that_decide(with_node(&devices, "/dev/nvme0"), &inventory);
    let names: Vec<&str> = decide.iter().map(|device| device.syspath.name()).collect();
    assert_eq!(names, ["nvme0n1"]);
    // Of a namespace only itself and its partitions.
    devices.truncate(devices.len() - 1);
    devices.extend(
        ["nvme0n1", "nvme0n1/nvme0n1p1", "nvme0n2"]
            .map(|below| nvme(&format!("{controller}/{below}"), "block", DevKind::Block, 259, 0)),
    );
    let inventory = Inventory::new(devices.clone());
    for node in ["/dev/nvme0n1", "/dev/nvme0n1p1"] {
        let decide = blocks_that_decide(with_node(&devices, node), &inventory);
        let names: Vec<&str> = decide.iter().map(|device| device.syspath.name()).collect();
        assert_eq!(names, ["nvme0n1", "nvme0n1p1"], "{node}");
    }
}

#[test]
fn input_waits_for_udevd_and_is_refused_where_nobody_knows() {
    let mut devices: Vec<Device> = host();
    let entry = untrusted("subsystem:input");
    let of = Circumstances::default();
    for device in &mut devices {
        if device.subsystem.as_deref() == Some("input") {
            *device = before_udev(device.clone());
        }
    }
    let told =
        |node: &str, devices: &[Device]| told_among(&Policy::default(), &entry, node, &of, devices.to_vec());
    assert_eq!(told("/dev/input/event8", &devices), "waits for event8");
    // What the hidraw node belongs to is known when its event nodes are.
    assert_eq!(told("/dev/hidraw1", &devices), "waits for event8");
    // The USB node is decided by the descriptors, at once.
    assert_eq!(told("/dev/bus/usb/001/005", &devices), "protected: seat-input");
    // Of other HID devices only their inputs tell what they are.
    assert_eq!(told("/dev/bus/usb/001/006", &devices), "waits for event8");
    for device in &mut devices {
        device.seen = Seen::Udev;
        device.attributes.remove("capabilities");
    }
    assert_eq!(
        told("/dev/input/event8", &devices),
        "protected: seat-input",
        "neither the kernel nor udevd has said what it is"
    );
}

/// Case README 22.
#[test]
fn what_udev_calls_a_touchpad_is_one_unless_the_kernel_knows_it_for_a_gamepads() {
    let told = |tree: Vec<Device>, name: &str, node: &str| {
        let mut devices = tree;
        for device in &mut devices {
            if device.syspath.name() == name {
                device.properties.insert("ID_INPUT_TOUCHPAD".into(), "1".into());
            }
        }
        let entry = untrusted("subsystem:input");
        told_among(
            &Policy::default(),
            &entry,
            node,
            &Circumstances::default(),
            devices,
        )
    };
    // The pad's own touchpad, and a second one that udev alone takes for one: its sensors.
    assert_eq!(told(dualsense(), "event13", "/dev/hidraw4"), "allowed");
    assert_eq!(
        told(dualsense(), "event12", "/dev/hidraw4"),
        "protected: seat-input"
    );
    assert_eq!(
        told(joystick(), "event8", "/dev/input/event8"),
        "protected: seat-input"
    );
}

#[test]
fn an_input_is_judged_by_whichever_of_kernel_and_udev_knows_it() {
    let told = |is_known_to_kernel: bool, is_known_to_udev: bool| {
        let mut devices = joystick();
        for device in &mut devices {
            if !is_known_to_kernel {
                device.attributes.remove("capabilities");
            }
            device.properties.retain(|key, _| !key.starts_with("ID_INPUT"));
            if is_known_to_udev {
                device.properties.insert("ID_INPUT".into(), "1".into());
                device.properties.insert("ID_INPUT_JOYSTICK".into(), "1".into());
            }
        }
        let entry = untrusted("subsystem:input");
        let of = Circumstances::default();
        told_among(&Policy::default(), &entry, "/dev/input/event8", &of, devices)
    };
    assert_eq!(told(true, true), "allowed");
    assert_eq!(told(true, false), "allowed");
    assert_eq!(told(false, true), "allowed");
    assert_eq!(told(false, false), "protected: seat-input");
}

#[test]
fn a_usb_device_without_a_keyboard_or_mouse_does_not_wait_for_udevd() {
    let devices: Vec<Device> = host().into_iter().map(before_udev).collect();
    let entry = untrusted("usb:0403");
    let of = Circumstances::default();
    let told = |node: &str, devices| told_among(&Policy::default(), &entry, node, &of, devices);
    assert_eq!(told("/dev/bus/usb/001/003", devices.clone()), "allowed");
    // A hub that also reports to HID is a hub, whatever that reports.
    let mut with_hid_hub = devices;
    for device in &mut with_hid_hub {
        if device.syspath.name() == "1-1" {
            device
                .attributes
                .insert("descriptors".into(), "09:0300:0900".into());
        }
    }
    assert_eq!(told("/dev/bus/usb/001/002", with_hid_hub), "protected: usb-hub");
}

#[test]
fn an_input_that_udevd_is_late_with_counts_as_a_keyboard_and_the_refusal_says_so() {
    let devices: Vec<Device> = host()
        .into_iter()
        .map(|device| Device {
            seen: Seen::Overdue,
            ..before_udev(device)
        })
        .collect();
    let inventory = Inventory::new(devices.clone());
    let circumstances = Circumstances::default();
    let situation = Situation {
        circumstances: &circumstances,
        inventory: &inventory,
        host_use: &HostUse::default(),
    };
    let device = with_node(&devices, "/dev/input/event8");
    let policy = Policy::default();
    let Verdict::Denied(denial) = policy.judge(&untrusted("subsystem:input"), device, &situation) else {
        panic!("nobody knows what it is");
    };
    let ends = format!(
        "(udevd has not processed {}, which counts as protected until then)",
        device.syspath
    );
    assert!(denial.reason.ends_with(&ends), "{}", denial.reason);
    // Of what the kernel knows to be a keyboard there is nothing to say.
    let device = with_node(&devices, "/dev/input/event7");
    let Verdict::Denied(denial) = policy.judge(&untrusted("subsystem:input"), device, &situation) else {
        panic!("it is a keyboard");
    };
    assert!(!denial.reason.contains("udevd"), "{}", denial.reason);
}

#[test]
fn only_nodes_are_inputs_and_memory() {
    let policy = policy(Fallback::Anything, vec![], vec![]);
    let circumstances = Circumstances::default();
    let judge = |device: &Device, inventory: &Inventory| {
        let situation = Situation {
            circumstances: &circumstances,
            inventory,
            host_use: &HostUse::default(),
        };
        matches!(
            policy.judge(&untrusted("subsystem:input"), device, &situation),
            Verdict::Allowed(_)
        )
    };
    let mut nodeless = host();
    for device in &mut nodeless {
        device.node = None;
    }
    let inventory = Inventory::new(nodeless.clone());
    for name in ["event7", "mem", "1-1"] {
        let named = crate::model::device::recorded::named;
        assert!(!judge(named(&HOST.devices, name), &HOST.inventory), "{name}");
        assert!(judge(named(&nodeless, name), &inventory), "{name}");
    }
}

#[test]
fn a_rule_that_cannot_be_used_says_why_and_where() {
    let fault = |list, devices: &[&str], applies_to| {
        let definition = RuleDefinition {
            devices: devices.iter().map(|text| text.to_string()).collect(),
            access: None,
            annotations: BTreeMap::new(),
            user_namespace: None,
            privileged: None,
            reason: None,
            applies_to,
        };
        let place = Place {
            list,
            file: "/etc/c.toml".into(),
            line: 7,
        };
        Rule::parse(place, &definition).unwrap_err().to_string()
    };
    let place = "[[policy.deny]] at /etc/c.toml line 7";
    let told = |devices: &[&str]| fault(List::Deny, devices, None);
    assert_eq!(
        told(&[]),
        format!("{place}: no devices: write for example devices = [\"usb:0403\"]")
    );
    assert_eq!(
        told(&["usb:0403", "usb:0403;access=r"]),
        format!(
            "{place}: device \"usb:0403;access=r\": devices of a rule have no options: use the key access = \"rw\" (devices, element 2)"
        )
    );
    assert_eq!(
        told(&["parent-of:usb:0403"]),
        format!(
            "{place}: device \"parent-of:usb:0403\": rules do not support parent-of: select the parent itself, which includes all devices below it (devices, element 1)"
        )
    );
    assert!(told(&["usb:x"]).starts_with(&format!("{place}: device \"usb:x\": ")));
    assert!(
        fault(List::Allow, &["usb:0403"], Some(AppliesTo::All))
            .contains("applies-to is only for [[policy.deny]]")
    );
}

#[test]
fn nobody_waits_for_udevd_where_the_default_refuses_anyway() {
    let devices: Vec<Device> = host().into_iter().map(before_udev).collect();
    let told = |fallback| {
        let policy = policy(fallback, vec![], vec![]);
        let entry = untrusted("subsystem:input");
        let node = "/dev/input/event8";
        told_among(&policy, &entry, node, &Circumstances::default(), devices.clone())
    };
    assert_eq!(told(Fallback::Removable), "waits for event8");
    assert_eq!(told(Fallback::Anything), "waits for event8");
    assert_eq!(told(Fallback::Nothing), "default = \"nothing\"");
}

#[test]
fn while_a_file_of_rules_is_unknown_what_it_may_concern_is_refused() {
    let with_unknown = |may_concern_trusted| Policy {
        unknown: vec![UnknownRules {
            fault: "/etc/d/50.toml line 3: expected a value".to_owned(),
            may_concern_trusted,
        }],
        ..policy(Fallback::Anything, vec![], vec![])
    };
    let of = Circumstances::default();
    let untrusted = untrusted("usb:0403");
    let trusted = RequestEntry::new(Origin::Root, untrusted.request.clone());
    for (entry, may_concern_trusted, is_refused) in [
        (&untrusted, false, true),
        (&untrusted, true, true),
        (&trusted, false, false),
        (&trusted, true, true),
    ] {
        let policy = with_unknown(may_concern_trusted);
        let start = policy.authorise(&of, entry).map_err(|denial| denial.to_string());
        let device = told_of(&policy, entry, "/dev/ttyUSB0", &of);
        if is_refused {
            assert_eq!(
                start.unwrap_err(),
                "refused by the policy (unknown rules): /etc/d/50.toml line 3: expected a value: fix or remove \
                 that file (`oci-hotplug check` tests it)"
            );
            assert_eq!(device, "unknown rules");
        } else {
            assert_eq!((start, device.as_str()), (Ok(()), "allowed"));
        }
    }
}

/// Case security 4.
#[test]
fn what_udevd_does_not_say_is_yes_for_deny_rules_and_no_for_allow_rules() {
    let entry = untrusted("subsystem:block");
    let of = Circumstances::default();
    let verdict = |policy: &Policy, seen| {
        let mut devices: Vec<Device> = companion_hub().into_iter().map(before_udev).collect();
        for device in &mut devices {
            device.seen = if device.node.is_some() { seen } else { Seen::Udev };
        }
        let inventory = Inventory::new(devices.clone());
        let situation = Situation {
            circumstances: &of,
            inventory: &inventory,
            host_use: &HostUse::default(),
        };
        match policy.judge(&entry, with_node(&devices, "/dev/sdb1"), &situation) {
            Verdict::Allowed(_) => "allowed".to_owned(),
            Verdict::Undecided(whose) => format!("waits for {}", whose.name()),
            Verdict::Denied(denial) => denial.to_string(),
        }
    };
    let denying = policy(
        Fallback::Nothing,
        vec![allow(&["subsystem:block"])],
        vec![deny(&["property:ID_FS_LABEL=secret"])],
    );
    assert!(verdict(&denying, Seen::Kernel).starts_with("waits for "));
    let overdue = verdict(&denying, Seen::Overdue);
    assert!(
        overdue.starts_with(
            "refused by the policy ([[policy.deny]] at /etc/c.toml line 7): udevd has not processed /sys/"
        ) && overdue.contains("/block/sdb/sdb1, and this deny rule depends on it: see why with `systemctl"),
        "{overdue}"
    );
    assert_eq!(
        verdict(&denying, Seen::NoUdevd),
        "refused by the policy ([[policy.deny]] at /etc/c.toml line 7): no udevd runs on this host, and this deny rule \
         depends on facts that only udevd knows: start systemd-udevd, or write the rule without property:, tag: and links"
    );
    assert_eq!(verdict(&denying, Seen::Udev), "allowed");
    let allowing = policy(
        Fallback::Nothing,
        vec![allow(&["subsystem:block&!property:ID_FS_LABEL=secret"])],
        vec![],
    );
    assert!(verdict(&allowing, Seen::Kernel).starts_with("waits for "));
    for seen in [Seen::Overdue, Seen::NoUdevd] {
        assert!(
            verdict(&allowing, seen).contains("default = \"nothing\""),
            "{seen:?}"
        );
    }
    assert_eq!(verdict(&allowing, Seen::Udev), "allowed");
    // What an allow rule does not decide, udevd need not say.
    let by_default = policy(Fallback::Removable, vec![allow(&["tag:x"])], vec![]);
    for seen in [Seen::Kernel, Seen::Overdue, Seen::NoUdevd] {
        assert_eq!(verdict(&by_default, seen), "allowed", "{seen:?}");
    }
}

/// Case security 4: a rule on the kernel's name of a node needs no udevd.
#[test]
fn a_deny_rule_on_a_nodes_own_name_is_decided_where_no_udevd_runs() {
    let entry = untrusted("subsystem:tty");
    let of = Circumstances::default();
    let devices: Vec<Device> = hub_with_two_adapters()
        .into_iter()
        .map(before_udev)
        .map(|device| Device {
            seen: Seen::NoUdevd,
            ..device
        })
        .collect();
    let denied = "[[policy.deny]] at /etc/c.toml line 7";
    for (rule, expected) in [
        ("devnode:/dev/ttyUSB1", "allowed"),
        ("glob:/dev/ttyACM*", "allowed"),
        ("glob:/dev/ttyU*", denied),
        ("subsystem:block&tag:x", "allowed"),
        ("devnode:/dev/serial/by-id/x", denied),
        ("glob:/dev/s*", denied),
        ("glob:/dev/serial/**", denied),
        ("glob:by-id", denied),
        ("regex:nothing", denied),
        ("tag:x", denied),
        ("property:A=b", denied),
    ] {
        let denying = policy(Fallback::Removable, vec![], vec![deny(&[rule])]);
        let told = told_among(&denying, &entry, "/dev/ttyUSB0", &of, devices.clone());
        assert_eq!(told, expected, "{rule}");
    }
}

/// Case security 12: whoever gives a stick a label that another one has does not take that one out of a rule.
#[test]
fn a_deny_rule_on_a_link_is_for_all_that_claim_it_and_an_allow_rule_for_the_one_that_has_it() {
    let mut devices = companion_hub();
    let label = std::path::PathBuf::from("/dev/disk/by-label/BACKUP");
    for device in &mut devices {
        if device.links.remove(&label) {
            device.lost_links.insert(label.clone());
        }
    }
    let entry = untrusted("subsystem:block");
    let of = Circumstances::default();
    for rule in [
        "devnode:/dev/disk/by-label/BACKUP",
        "glob:/dev/disk/by-label/*",
        "regex:by-label/BACKUP$",
    ] {
        let denying = policy(Fallback::Removable, vec![], vec![deny(&[rule])]);
        let allowing = policy(Fallback::Nothing, vec![allow(&[rule])], vec![]);
        let told = |policy: &Policy| told_among(policy, &entry, "/dev/sdb1", &of, devices.clone());
        assert_eq!(told(&denying), "[[policy.deny]] at /etc/c.toml line 7", "{rule}");
        assert_eq!(told(&allowing), "default = \"nothing\"", "{rule}");
    }
}

/// Case security 12.
#[test]
fn a_link_that_a_device_claims_counts_for_rules_on_that_link_alone() {
    let mut devices = companion_hub();
    for device in &mut devices {
        device.lost_links = std::mem::take(&mut device.links);
    }
    let entry = untrusted("subsystem:block");
    for (rule, expected) in [
        (
            "devnode:/dev/disk/by-label/BACKUP",
            "[[policy.deny]] at /etc/c.toml line 7",
        ),
        ("devnode:/dev/disk/by-label/OTHER", "allowed"),
        ("tag:other", "allowed"),
    ] {
        let denying = policy(Fallback::Removable, vec![], vec![deny(&[rule])]);
        let of = Circumstances::default();
        let told = told_among(&denying, &entry, "/dev/sdb1", &of, devices.clone());
        assert_eq!(told, expected, "{rule}");
    }
}

/// Case security 4.
#[test]
fn nobody_waits_for_one_device_where_another_that_is_overdue_decides() {
    let entry = untrusted("subsystem:block");
    let of = Circumstances::default();
    let denying = policy(
        Fallback::Removable,
        vec![],
        vec![deny(&["property:ID_FS_LABEL=secret"])],
    );
    // The disk exposes its partition.
    let told = |disk, partition| {
        let devices = stick([disk, partition], 0);
        told_among(&denying, &entry, "/dev/sdb", &of, devices)
    };
    let denied = "[[policy.deny]] at /etc/c.toml line 7";
    assert_eq!(told(Seen::Overdue, Seen::Kernel), denied);
    assert_eq!(told(Seen::Kernel, Seen::Overdue), denied);
    assert_eq!(told(Seen::Kernel, Seen::Kernel), "waits for sdb1");
}

/// What a parent says counts, although udevd will not process the device itself: its facts are looked up first.
#[test]
fn an_allow_rule_on_a_parent_waits_for_the_parent_alone() {
    let entry = untrusted("subsystem:block");
    let of = Circumstances::default();
    let allowing = policy(
        Fallback::Nothing,
        vec![allow(&["property:ID_VENDOR_ID=0781"])],
        vec![],
    );
    let told = |parent: Seen| {
        let mut devices: Vec<Device> = companion_hub();
        for device in &mut devices {
            if device.subsystem.as_deref() == Some("block") {
                *device = before_udev(device.clone());
                device.seen = Seen::Overdue;
            } else if device.syspath.name() == "2-1.3" && parent == Seen::Kernel {
                *device = before_udev(device.clone());
            }
        }
        told_among(&allowing, &entry, "/dev/sdb1", &of, devices)
    };
    assert_eq!(told(Seen::Kernel), "waits for 2-1.3");
    assert_eq!(told(Seen::Udev), "allowed");
}

/// The order of decisions that the module's comment and packaging/policy.md describe, pair by pair.
#[test]
fn what_comes_first_decides() {
    let of = Circumstances::default();
    let entry = untrusted("subsystem:block");
    let all = || vec![allow(&["glob:**"])];
    let told = |policy: &Policy, node: &str| told_of(policy, &entry, node, &of);
    let deny_disks = || vec![deny(&["subsystem:block"])];
    let denied = "[[policy.deny]] at /etc/c.toml line 7";
    let classes = |policy: Policy| Policy {
        classes_only: true,
        ..policy
    };
    // Deny before classes-only, a line that nothing lifts, allow rules, the default.
    assert_eq!(
        told(
            &classes(policy(Fallback::Anything, all(), deny_disks())),
            "/dev/sda"
        ),
        denied
    );
    assert_eq!(
        told(&policy(Fallback::Anything, all(), deny_disks()), "/dev/sda"),
        denied
    );
    assert_eq!(
        told(&policy(Fallback::Anything, all(), deny_disks()), "/dev/sdb"),
        denied
    );
    // classes-only before the lines, allow rules and the default.
    let only = classes(policy(Fallback::Anything, all(), vec![]));
    for node in ["/dev/sda", "/dev/mem", "/dev/kvm", "/dev/ttyUSB0"] {
        assert_eq!(told(&only, node), "classes-only, in /etc/c.toml", "{node}");
    }
    // A line that nothing lifts before allow rules; these before the other lines; those before the default.
    assert_eq!(
        told(&policy(Fallback::Anything, all(), vec![]), "/dev/mem"),
        "protected: memory"
    );
    assert_eq!(
        told(&policy(Fallback::Anything, all(), vec![]), "/dev/kvm"),
        "allowed"
    );
    assert_eq!(
        told(&policy(Fallback::Anything, vec![], vec![]), "/dev/kvm"),
        "protected: virtualization"
    );
    // An allow rule for too little access: the default gives what the rule does not, unless a line protects it.
    let reading = || {
        vec![rule(List::Allow, &["glob:**"], |rule| {
            rule.access = Some(Access::READ)
        })]
    };
    assert_eq!(
        told(&policy(Fallback::Anything, reading(), vec![]), "/dev/ttyS0"),
        "allowed"
    );
    assert_eq!(
        told(&policy(Fallback::Anything, reading(), vec![]), "/dev/kvm"),
        "protected: virtualization"
    );
    assert_eq!(
        told(&policy(Fallback::Nothing, reading(), vec![]), "/dev/ttyS0"),
        "[[policy.allow]] at /etc/c.toml line 7"
    );
    assert_eq!(
        told(&policy(Fallback::Nothing, vec![], vec![]), "/dev/ttyS0"),
        "default = \"nothing\""
    );
    // Two rules that allow enough only together.
    let writing = rule(List::Allow, &["glob:**"], |rule| {
        rule.access = Some(Access::WRITE | Access::MKNOD)
    });
    let together = policy(
        Fallback::Nothing,
        reading().into_iter().chain([writing]).collect(),
        vec![],
    );
    assert_eq!(told(&together, "/dev/ttyS0"), "allowed");
}

#[test]
fn a_node_that_sysfs_does_not_know_by_its_path_is_judged_by_its_number() {
    let mut device = Device::new(SysPath::new("/sys/devices/oci-hotplug-node/dev/harmless"));
    device.subsystem = Some(STATIC_NODE.to_owned());
    device.seen = crate::model::device::Seen::Udev;
    let entry = untrusted("node:/dev/harmless");
    let told = |kind, major, minor| {
        let mut device = device.clone();
        device.node = Some(DevNode {
            path: "/dev/harmless".into(),
            num: DevNum { kind, major, minor },
        });
        let mut devices = host();
        devices.push(device);
        told_among(
            &policy(Fallback::Anything, vec![], vec![]),
            &entry,
            "/dev/harmless",
            &Circumstances::default(),
            devices,
        )
    };
    assert_eq!(told(DevKind::Char, 1, 1), "protected: memory");
    assert_eq!(told(DevKind::Char, 249, 0), "protected: watchdog");
    assert_eq!(
        told(DevKind::Char, 10, 231),
        "protected: memory",
        "no such device, but the number is known"
    );
    assert_eq!(told(DevKind::Block, 8, 1), "protected: host-disk");
    assert_eq!(told(DevKind::Block, 8, 2), "protected: host-disk");
    assert_eq!(told(DevKind::Char, 188, 0), "allowed");
}

/// Case security 2.
#[test]
fn the_path_of_a_node_that_sysfs_does_not_know_allows_nothing_and_denies() {
    let entry = untrusted("node:/dev/ttyUSB7");
    let told = |policy: &Policy, entry: &RequestEntry, kind, major, minor| {
        let mut device = Device::new(SysPath::new("/sys/devices/oci-hotplug-node/dev/ttyUSB7"));
        device.subsystem = Some(STATIC_NODE.to_owned());
        device.seen = crate::model::device::Seen::Udev;
        device.node = Some(DevNode {
            path: "/dev/ttyUSB7".into(),
            num: DevNum { kind, major, minor },
        });
        let mut devices = host();
        devices.push(device);
        told_among(policy, entry, "/dev/ttyUSB7", &Circumstances::default(), devices)
    };
    for rule in [
        "regex:ttyUSB[0-9]+$",
        "glob:**/ttyUSB*",
        "node:/dev/ttyUSB7",
        "subsystem:oci-hotplug-node",
        "glob:*&!driver:ftdi_sio",
    ] {
        let allowing = policy(Fallback::Nothing, vec![allow(&[rule])], vec![]);
        let unknown = told(&allowing, &entry, DevKind::Char, 240, 5);
        assert!(unknown.starts_with("default"), "{rule}: {unknown}");
        let mine = RequestEntry::new(Origin::Root, entry.request.clone());
        assert_eq!(told(&allowing, &mine, DevKind::Char, 240, 5), "allowed");
        let denying = policy(Fallback::Anything, vec![], vec![deny(&[rule])]);
        let denied = told(&denying, &entry, DevKind::Char, 240, 5);
        assert!(denied.starts_with("[[policy.deny]]"), "{rule}: {denied}");
    }
    // By its number it is a device that sysfs has: that one's names count.
    let by_spelling = policy(Fallback::Nothing, vec![allow(&["regex:ttyUSB7$"])], vec![]);
    let by_name = policy(Fallback::Nothing, vec![allow(&["devnode:/dev/ttyUSB0"])], vec![]);
    assert!(told(&by_spelling, &entry, DevKind::Char, 188, 0).starts_with("default"));
    assert_eq!(told(&by_name, &entry, DevKind::Char, 188, 0), "allowed");
    for name in ["devnode:/dev/ttyUSB0", "node:/dev/ttyUSB7"] {
        let denying = policy(Fallback::Anything, vec![], vec![deny(&[name])]);
        assert!(
            told(&denying, &entry, DevKind::Char, 188, 0).starts_with("[[policy.deny]]"),
            "{name}"
        );
    }
}

#[test]
fn what_a_refusal_of_a_node_suggests_allows_it() {
    let device = |number, path: &str| {
        let mut device = Device::new(SysPath::new(format!("/sys/devices/oci-hotplug-node{path}")));
        device.subsystem = Some(STATIC_NODE.to_owned());
        device.seen = crate::model::device::Seen::Udev;
        let (major, minor) = number;
        device.node = Some(DevNode {
            path: path.into(),
            num: DevNum {
                kind: DevKind::Char,
                major,
                minor,
            },
        });
        device
    };
    let hint = |policy: &Policy, number| {
        let mut devices = host();
        devices.push(device(number, "/dev/other"));
        let inventory = Inventory::new(devices.clone());
        let circumstances = Circumstances::default();
        let situation = Situation {
            circumstances: &circumstances,
            inventory: &inventory,
            host_use: &HostUse::default(),
        };
        let entry = untrusted("node:/dev/other");
        match policy.judge(&entry, with_node(&devices, "/dev/other"), &situation) {
            Verdict::Denied(denial) => denial.hint,
            verdict => format!("{verdict:?}"),
        }
    };
    let nothing = policy(Fallback::Nothing, vec![], vec![]);
    let suggested = hint(&nothing, (188, 0));
    assert_eq!(
        suggested,
        "to allow it, run `oci-hotplug allow 'devnode:/dev/ttyUSB0'`"
    );
    let allowing = policy(Fallback::Nothing, vec![allow(&["devnode:/dev/ttyUSB0"])], vec![]);
    assert!(hint(&allowing, (188, 0)).starts_with("Allowed"));
    // No rule matches what sysfs does not have, also where the number is a protected one (autofs).
    for number in [(240, 5), (10, 235)] {
        let suggested = hint(&nothing, number);
        assert!(
            suggested.contains("oci-hotplug class add") && suggested.contains("node:/dev/other"),
            "{suggested}"
        );
    }
}

#[test]
fn a_usb_device_without_descriptors_may_be_a_hub() {
    let mut devices = host();
    for device in &mut devices {
        device.attributes.remove("descriptors");
    }
    let told = told_among(
        &Policy::default(),
        &untrusted("usb:0403"),
        "/dev/bus/usb/001/003",
        &Circumstances::default(),
        devices,
    );
    assert_eq!(told, "protected: usb-hub");
}

#[test]
fn rules_reach_down_and_negation_looks_up() {
    let told =
        |devices: &[&str], node: &str| told(&policy(Fallback::Nothing, vec![allow(devices)], vec![]), node);
    assert_eq!(told(&["usb:0403:6001:A"], "/dev/ttyUSB0"), "allowed");
    assert_eq!(
        told(&["usb:0403:6001:A"], "/dev/ttyUSB1"),
        "default = \"nothing\""
    );
    assert_eq!(told(&["port:1-1"], "/dev/ttyUSB1"), "allowed");
    assert_eq!(
        told(&["port:1-1&subsystem:tty"], "/dev/bus/usb/001/003"),
        "default = \"nothing\""
    );
    assert_eq!(
        told(&["subsystem:tty&!port:1-1"], "/dev/ttyUSB1"),
        "default = \"nothing\""
    );
    assert_eq!(told(&["subsystem:tty&!port:1-1"], "/dev/ttyACM0"), "allowed");
    assert_eq!(told(&["pci:0000:00:17.0"], "/dev/sda1"), "protected: host-disk");
}

#[test]
fn a_rule_on_udevs_facts_waits_for_them() {
    let devices: Vec<Device> = host().into_iter().map(before_udev).collect();
    let entry = untrusted("subsystem:tty");
    let of = Circumstances::default();
    let told = |policy: &Policy| told_among(policy, &entry, "/dev/ttyUSB0", &of, devices.clone());
    assert_eq!(
        told(&policy(Fallback::Removable, vec![], vec![deny(&["tag:seat"])])),
        "waits for ttyUSB0"
    );
    assert_eq!(
        told(&policy(
            Fallback::Nothing,
            vec![allow(&["tag:seat&subsystem:tty"])],
            vec![]
        )),
        "waits for ttyUSB0"
    );
    assert_eq!(
        told(&policy(Fallback::Removable, vec![allow(&["tag:seat"])], vec![])),
        "allowed",
        "it needs no rule"
    );
    assert_eq!(
        told(&policy(
            Fallback::Removable,
            vec![],
            vec![deny(&["tag:seat&subsystem:block"])]
        )),
        "allowed"
    );
    assert_eq!(
        told(&policy(Fallback::Removable, vec![], vec![deny(&["usb:0403"])])),
        "[[policy.deny]] at /etc/c.toml line 7"
    );
}

#[test]
fn access_is_a_part_of_a_rule() {
    let of = Circumstances::default();
    let reading = rule(List::Allow, &["subsystem:tty"], |rule| {
        rule.access = Some(Access::READ)
    });
    let reading = policy(Fallback::Nothing, vec![reading], vec![]);
    assert_eq!(
        told_of(
            &reading,
            &untrusted("subsystem:tty;access=r"),
            "/dev/ttyUSB0",
            &of
        ),
        "allowed"
    );
    let devices = host();
    let inventory = Inventory::new(devices.clone());
    let situation = Situation {
        circumstances: &of,
        inventory: &inventory,
        host_use: &HostUse::default(),
    };
    let Verdict::Denied(denial) = reading.judge(
        &untrusted("subsystem:tty"),
        with_node(&devices, "/dev/ttyUSB0"),
        &situation,
    ) else {
        panic!("more than the rule allows");
    };
    assert_eq!(
        denial.to_string(),
        "refused by the policy ([[policy.allow]] at /etc/c.toml line 7): it allows access=r, and access=rwm is asked \
         for: request ;access=r"
    );
    let writing = rule(List::Deny, &["subsystem:tty"], |rule| {
        rule.access = Some(Access::WRITE);
        rule.reason = Some("the line is shared".into());
    });
    let writing = policy(Fallback::Removable, vec![], vec![writing]);
    assert_eq!(
        told_of(&writing, &untrusted("usb:0403;access=r"), "/dev/ttyUSB0", &of),
        "allowed"
    );
    let Verdict::Denied(denial) = writing.judge(
        &untrusted("usb:0403"),
        with_node(&devices, "/dev/ttyUSB0"),
        &situation,
    ) else {
        panic!("writing is denied");
    };
    assert_eq!(
        denial.to_string(),
        "refused by the policy ([[policy.deny]] at /etc/c.toml line 7): the line is shared: request ;access=rm, or change the rule"
    );
}

#[test]
fn conditions_look_at_the_container() {
    let annotations = [(
        "io.kubernetes.cri.sandbox-namespace".to_owned(),
        "lab-7".to_owned(),
    )]
    .into();
    let lab = Circumstances::new(annotations, true, false);
    let other = Circumstances::default();
    let entry = untrusted("usb:0403");
    let told = |change: fn(&mut RuleDefinition), of: &Circumstances| {
        let rule = rule(List::Allow, &["usb:0403"], change);
        told_of(
            &policy(Fallback::Nothing, vec![rule], vec![]),
            &entry,
            "/dev/ttyUSB0",
            of,
        ) == "allowed"
    };
    let namespace: fn(&mut RuleDefinition) = |rule| {
        rule.annotations = [("io.kubernetes.cri.sandbox-namespace".into(), "lab-*".into())].into();
    };
    let mapped: fn(&mut RuleDefinition) = |rule| rule.user_namespace = Some(true);
    let confined: fn(&mut RuleDefinition) = |rule| rule.privileged = Some(false);
    let privileged: fn(&mut RuleDefinition) = |rule| rule.privileged = Some(true);
    assert_eq!([told(namespace, &lab), told(namespace, &other)], [true, false]);
    assert_eq!([told(mapped, &lab), told(mapped, &other)], [true, false]);
    assert_eq!([told(confined, &lab), told(privileged, &lab)], [true, false]);
    let part: fn(&mut RuleDefinition) = |rule| {
        rule.annotations = [("io.kubernetes.cri.sandbox-namespace".into(), "lab".into())].into();
    };
    assert!(!told(part, &lab), "a pattern is of the whole value");
    let long = Circumstances::new([("a".to_owned(), "x".repeat(5000))].into(), false, false);
    assert!(long.annotations.is_empty());
}

#[test]
fn trusted_requests_are_allowed_unless_a_rule_is_for_all() {
    let of = Circumstances::default();
    let mine = RequestEntry::new(Origin::Root, "devnode:/dev/sda".parse().unwrap());
    let class = untrusted("devnode:/dev/sda").of_class("lab");
    let strict = |applies_to| {
        let mut rule = deny(&["subsystem:block"]);
        rule.applies_to = applies_to;
        Policy {
            classes_only: true,
            ..policy(Fallback::Nothing, vec![], vec![rule])
        }
    };
    for entry in [&mine, &class] {
        assert_eq!(
            told_of(&strict(AppliesTo::Untrusted), entry, "/dev/sda", &of),
            "allowed"
        );
        assert_eq!(
            told_of(&strict(AppliesTo::All), entry, "/dev/sda", &of),
            "[[policy.deny]] at /etc/c.toml line 7"
        );
        assert_eq!(strict(AppliesTo::All).authorise(&of, entry), Ok(()));
    }
}

#[test]
fn a_stranger_gets_a_device_of_another_host_only_by_a_rule_that_names_that_host() {
    let of = Circumstances::default();
    let entry = untrusted("usbip:lab:3241/0403:6001:FT001");
    let anything = |allow, deny| policy(Fallback::Anything, allow, deny);
    assert_eq!(
        anything(vec![], vec![])
            .authorise(&of, &entry)
            .unwrap_err()
            .to_string(),
        "refused by the policy (usbip): a device of another host, lab:3241, and no rule allows it: to allow all \
         devices of that host, run `oci-hotplug allow 'usbip:lab:3241'`"
    );
    for (devices, is_allowed) in [
        ("usbip:lab:3241", true),
        ("usbip:lab:3241/0403:6001", true),
        ("usbip:lab:3241/0403:6001:FT001", true),
        ("usbip:lab", false),
        ("usbip:lab:3241/0403:6010", false),
        ("usbip:lab:3241/busid:1-1", false),
        ("usb:0403:6001", false),
    ] {
        let allows = anything(vec![allow(&[devices])], vec![]);
        assert_eq!(allows.authorise(&of, &entry).is_ok(), is_allowed, "{devices}");
        let node = "/dev/ttyUSB0";
        let verdict = told_of(&allows, &entry, node, &of);
        assert_eq!(verdict == "allowed", is_allowed, "{devices}: {verdict}");
    }
    let nothing = policy(Fallback::Nothing, vec![allow(&["usbip:lab:3241"])], vec![]);
    assert_eq!(told_of(&nothing, &entry, "/dev/ttyUSB0", &of), "allowed");
    // A rule for other devices adds no access.
    let reading = rule(List::Allow, &["usbip:lab:3241"], |rule| {
        rule.access = Some(Access::READ)
    });
    let with_other = policy(Fallback::Nothing, vec![reading, allow(&["usb:1050"])], vec![]);
    assert_eq!(
        told_of(&with_other, &entry, "/dev/ttyUSB0", &of),
        "[[policy.allow]] at /etc/c.toml line 7"
    );

    let mine = RequestEntry::new(Origin::Root, entry.request.clone());
    assert_eq!(anything(vec![], vec![]).authorise(&of, &mine), Ok(()));
    let denies = |applies_to| {
        let mut rule = deny(&["usbip:lab:3241/0403:6001"]);
        rule.applies_to = applies_to;
        anything(vec![allow(&["usbip:lab:3241"])], vec![rule])
    };
    assert!(denies(AppliesTo::Untrusted).authorise(&of, &entry).is_err());
    assert_eq!(denies(AppliesTo::Untrusted).authorise(&of, &mine), Ok(()));
    assert!(denies(AppliesTo::All).authorise(&of, &mine).is_err());
    // What is denied by name is not had by who asks vaguely.
    for (request, is_allowed) in [
        ("usbip:lab:3241/*:6001", false),
        ("usbip:lab:3241/*:*:FT001", false),
        ("usbip:lab:3241/nth:2:0403:6001", false),
        ("usbip:lab:3241/busid:1-1", false),
        ("usbip:lab:3241/busid:1-1:0403:6010", true),
        ("usbip:lab:3241/0403:6010", true),
    ] {
        let judged = denies(AppliesTo::Untrusted).authorise(&of, &untrusted(request));
        assert_eq!(judged.is_ok(), is_allowed, "{request}");
    }
}

#[test]
fn what_is_certain_is_refused_before_any_device_is_looked_at() {
    let of = Circumstances::default();
    let refused = |policy: &Policy, request: &str| {
        policy
            .authorise(&of, &untrusted(request))
            .map_err(|denial| denial.to_string())
    };
    let default = policy(Fallback::Removable, vec![], vec![]);
    assert_eq!(
        refused(&default, "devnode:/dev/mem").unwrap_err(),
        "refused by the policy (protected: memory): mem, kmem, port, kmsg, core memory and model-specific registers: \
         they give access to the host's memory, I/O ports and kernel log: to allow it anyway, run `oci-hotplug class add devnode-dev-mem \
         'devnode:/dev/mem'` and request class:devnode-dev-mem"
    );
    assert_eq!(
        refused(&default, "node:/dev/kvm;access=rw").unwrap_err(),
        "refused by the policy (protected: virtualization): kvm, vhost and vfio: they give access to memory and devices of the host: to allow it, run `oci-hotplug allow 'node:/dev/kvm' --access rw`"
    );
    // No rule reaches what lies above the device that it names.
    let nothing = policy(Fallback::Nothing, vec![], vec![]);
    assert_eq!(
        refused(&nothing, "parent-of:usb:0403:6001;access=rw").unwrap_err(),
        "refused by the policy (default = \"nothing\"): no rule allows it: to allow it anyway, run \
         `oci-hotplug class add parent-of-usb-0403-6001 'parent-of:usb:0403:6001;access=rw'` and request \
         class:parent-of-usb-0403-6001"
    );
    for request in [
        "usb:0403",
        "parent-of:devnode:/dev/mem",
        "devnode:/dev/ttyS0",
        "subsystem:mem",
        "usb:0403&!devnode:/dev/mem",
    ] {
        assert_eq!(refused(&default, request), Ok(()), "{request}");
    }
    let with_rule = policy(Fallback::Nothing, vec![allow(&["subsystem:misc"])], vec![]);
    assert_eq!(
        refused(&with_rule, "devnode:/dev/kvm"),
        Ok(()),
        "a rule may allow it"
    );
    assert!(refused(&with_rule, "devnode:/dev/kmsg").is_err());
    assert!(
        refused(&policy(Fallback::Nothing, vec![], vec![]), "usb:0403")
            .unwrap_err()
            .contains("default = \"nothing\"")
    );
    let classes = Policy {
        classes_only: true,
        ..default
    };
    let error = refused(&classes, "usb:0403;access=r").unwrap_err();
    assert!(
        error.contains("classes-only, in /etc/c.toml") && error.contains("'usb:0403;access=r'"),
        "{error}"
    );
}

#[test]
fn only_a_hubs_own_node_is_no_reason_to_refuse_a_start() {
    for line in &LINES {
        let denial = Denial {
            rule: String::new(),
            reason: String::new(),
            hint: String::new(),
            line: Some(line.name),
        };
        assert_eq!(denial.refuses_start(), line.name != "usb-hub");
    }
}

#[test]
fn nodes_are_known_by_their_paths() {
    let line = |path: &str| protected::by_node(Path::new(path)).map(|line| line.name);
    for (path, name) in [
        ("/dev/mem", "memory"),
        ("/dev/cpu/12/msr", "memory"),
        ("/dev/tty", "console"),
        ("/dev/tty7", "console"),
        ("/dev/vcsa3", "console"),
        ("/dev/vfio/3", "virtualization"),
        ("/dev/watchdog1", "watchdog"),
        ("/dev/tpmrm0", "tpm"),
    ] {
        assert_eq!(line(path), Some(name), "{path}");
    }
    for path in [
        "/dev/ttyS0",
        "/dev/ttyUSB0",
        "/dev/memory",
        "/mem",
        "/dev/cpu/x/msr",
        "/dev/rtcx",
    ] {
        assert_eq!(line(path), None, "{path}");
    }
}

#[test]
fn a_verdict_is_quick() {
    let devices = host();
    let inventory = Inventory::new(devices.clone());
    let circumstances = Circumstances::default();
    let situation = Situation {
        circumstances: &circumstances,
        inventory: &inventory,
        host_use: &HostUse::default(),
    };
    let tty = with_node(&devices, "/dev/ttyUSB0");
    let entry = untrusted("usb:2109:2813");
    let policy = policy(
        Fallback::Removable,
        vec![allow(&["usb:1050", "port:1-7"])],
        vec![deny(&["usb:0781", "subsystem:block"])],
    );
    let begin = std::time::Instant::now();
    for _ in 0..1000 {
        assert!(matches!(
            policy.judge(&entry, tty, &situation),
            Verdict::Allowed(_)
        ));
    }
    let each = begin.elapsed() / 1000;
    println!("a verdict takes {each:?}");
    // In a build without optimisation on a busy machine: far from what would be felt beside 0.3 ms.
    assert!(each < std::time::Duration::from_micros(500), "{each:?}");
}

fn any_devices() -> impl Strategy<Value = Vec<&'static str>> {
    let selectors = [
        "usb:0403",
        "usb:0403:6001:A",
        "port:1-1",
        "subsystem:tty",
        "subsystem:block",
        "subsystem:input",
        "tag:systemd",
        "property:ID_BUS=usb",
        "driver:usb",
        "glob:ttyUSB*",
        "devnode:/dev/sda1",
        "subsystem:tty&!usb:0403",
        "subsystem:usb&!tag:seat",
        "subsystem:misc",
        "subsystem:mem",
        "!tag:x&subsystem:vc",
        "pci:0000:00:14.0",
    ];
    let usable: Vec<_> = selectors
        .into_iter()
        .filter(|text| !text.starts_with('!'))
        .collect();
    prop::collection::vec(prop::sample::select(usable), 1..4)
}

fn any_rule(list: List) -> impl Strategy<Value = Rule> {
    let condition = || prop_oneof![Just(None), Just(Some(true)), Just(Some(false))];
    (any_devices(), 1..8u32, condition(), condition(), any::<bool>()).prop_map(
        move |(devices, access, user_namespace, privileged, named)| {
            rule(list, &devices, |rule| {
                rule.access = Some(Access::from_bits_truncate(access));
                rule.user_namespace = user_namespace;
                rule.privileged = privileged;
                if named {
                    rule.annotations = [("ns".into(), "lab*".into())].into();
                }
                if list == List::Deny && privileged.is_none() {
                    rule.applies_to = Some(AppliesTo::All);
                }
            })
        },
    )
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let fallback = prop::sample::select(vec![Fallback::Removable, Fallback::Nothing, Fallback::Anything]);
    let allow = prop::collection::vec(any_rule(List::Allow), 0..4);
    let deny = prop::collection::vec(any_rule(List::Deny), 0..3);
    (fallback, allow, deny).prop_map(|(fallback, allow, deny)| policy(fallback, allow, deny))
}

fn any_circumstances() -> impl Strategy<Value = Circumstances> {
    (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(user_namespace, privileged, lab)| {
        let annotations = if lab {
            [("ns".to_owned(), "lab1".to_owned())].into()
        } else {
            Annotations::new()
        };
        Circumstances::new(annotations, user_namespace, privileged)
    })
}

/// 0 refused, 1 undecided, 2 allowed: for each device of the host.
fn verdicts(policy: &Policy, entry: &RequestEntry, of: &Circumstances, before: bool) -> Vec<u8> {
    let host = if before { &HOST_BEFORE_UDEVD } else { &HOST };
    let situation = Situation {
        circumstances: of,
        inventory: &host.inventory,
        host_use: &root_on_sda2(),
    };
    let judge = |device: &Device| match policy.judge(entry, device, &situation) {
        Verdict::Denied(_) => 0,
        Verdict::Undecided(_) => 1,
        Verdict::Allowed(_) => 2,
    };
    host.devices
        .iter()
        .filter(|device| device.node.is_some())
        .map(judge)
        .collect()
}

/// The name of a device, and what udev says of it.
type Fact = (&'static str, &'static str);

/// Facts of udev's that rules below look at: of the partition and of its disk.
const UDEV_FACTS: [Fact; 4] = [
    ("sdb1", "label"),
    ("sdb1", "tag"),
    ("sdb1", "link"),
    ("sdb", "label"),
];

/// The disk and the partition that [`UDEV_FACTS`] are of.
const STICK: [&str; 2] = ["sdb", "sdb1"];

fn any_rule_on_udevs_facts(list: List) -> impl Strategy<Value = Rule> {
    let selectors = vec![
        "property:ID_FS_LABEL=secret",
        "subsystem:block&!property:ID_FS_LABEL=secret",
        "tag:lab",
        "subsystem:block&!tag:lab",
        "devnode:/dev/disk/by-label/x",
        "usb:0781&!devnode:/dev/disk/by-label/x",
        "glob:/dev/disk/**",
        "tag:lab&property:ID_FS_LABEL=secret",
        "usb:0781",
        "devnode:/dev/sdb&!tag:lab",
    ];
    prop::collection::vec(prop::sample::select(selectors), 1..3)
        .prop_map(move |devices| rule(list, &devices, |_| {}))
}

fn with_fact(device: &mut Device, fact: &str) {
    match fact {
        "label" => drop(device.properties.insert("ID_FS_LABEL".into(), "secret".into())),
        "tag" => drop(device.tags.insert("lab".into())),
        _ => drop(device.links.insert("/dev/disk/by-label/x".into())),
    }
}

/// A set of udev's facts: bit `n` stands for fact `n` of [`UDEV_FACTS`].
type FactSet = usize;

const FACT_SETS: std::ops::Range<FactSet> = 0..1 << UDEV_FACTS.len();

/// The facts of a set that are of one device.
fn facts_of(name: &str, set: FactSet) -> FactSet {
    (0..UDEV_FACTS.len())
        .filter(|bit| UDEV_FACTS[*bit].0 == name)
        .fold(0, |its, bit| its | (set & 1 << bit))
}

/// The stick: what udevd has said of its disk and of its partition, where it has processed them.
fn stick(states: [Seen; 2], set: FactSet) -> Vec<Device> {
    let mut devices: Vec<Device> = companion_hub().into_iter().map(before_udev).collect();
    for device in &mut devices {
        device.seen = Seen::Udev;
        for (name, seen) in STICK.into_iter().zip(states) {
            if device.syspath.name() == name {
                device.seen = seen;
                let known = if seen == Seen::Udev {
                    facts_of(name, set)
                } else {
                    0
                };
                (0..UDEV_FACTS.len())
                    .filter(|bit| known >> bit & 1 == 1)
                    .for_each(|bit| with_fact(device, UDEV_FACTS[bit].1));
            }
        }
    }
    devices
}

/// Every state of the stick in which udevd has not processed all of it, each with the facts that are known then, and
/// the sets of facts that may turn out to be true.
fn partial_facts() -> Vec<(Vec<Device>, Vec<FactSet>)> {
    let states = [
        [Seen::Kernel, Seen::Kernel],
        [Seen::Overdue, Seen::Overdue],
        [Seen::NoUdevd, Seen::NoUdevd],
        [Seen::Udev, Seen::Kernel],
        [Seen::Udev, Seen::Overdue],
        [Seen::Overdue, Seen::Udev],
    ];
    let mut all = Vec::new();
    for states in states {
        let known = |set: FactSet| {
            let processed = STICK
                .into_iter()
                .zip(states)
                .filter(|(_, seen)| *seen == Seen::Udev);
            processed.fold(0, |known, (name, _)| known | facts_of(name, set))
        };
        for set in FACT_SETS.filter(|set| known(*set) == *set) {
            let possible = FACT_SETS.filter(|complete| known(*complete) == set).collect();
            all.push((stick(states, set), possible));
        }
    }
    all
}

fn allowed_among(policy: &Policy, devices: &[Device]) -> BTreeMap<String, bool> {
    let inventory = Inventory::new(devices.to_vec());
    let circumstances = Circumstances::default();
    let situation = Situation {
        circumstances: &circumstances,
        inventory: &inventory,
        host_use: &HostUse::default(),
    };
    let entry = untrusted("usb:0781");
    let nodes = ["sdb", "sdb1", "2-1.3"].map(|name| {
        let device = devices
            .iter()
            .find(|device| device.syspath.name() == name)
            .unwrap();
        let verdict = policy.judge(&entry, device, &situation);
        (name.to_owned(), matches!(verdict, Verdict::Allowed(_)))
    });
    nodes.into()
}

/// Case security 4: udevd's word on inputs, in all its variants.
#[test]
fn an_input_that_is_allowed_before_udevd_speaks_is_allowed_whatever_it_says() {
    let keys = [
        "ID_INPUT",
        "ID_INPUT_KEYBOARD",
        "ID_INPUT_MOUSE",
        "ID_INPUT_JOYSTICK",
        "ID_INPUT_TOUCHPAD",
    ];
    let of = Circumstances::default();
    let entry = untrusted("subsystem:input");
    for tree in [joystick(), dualsense(), headset(), security_key()] {
        let nodes: Vec<String> = tree
            .iter()
            .filter_map(|device| Some(device.node.as_ref()?.path.display().to_string()))
            .collect();
        let allowed = |seen, set: u32| -> Vec<bool> {
            let mut devices: Vec<Device> = tree.iter().cloned().map(before_udev).collect();
            for device in &mut devices {
                device.seen = seen;
                if device.subsystem.as_deref() == Some("input") && seen == Seen::Udev {
                    let said = (0..).zip(keys).filter(|(bit, _)| set >> bit & 1 == 1);
                    let said = said.map(|(_, key)| (key.to_owned(), "1".to_owned()));
                    device.properties.extend(said);
                }
            }
            let told = |node: &String| told_among(&Policy::default(), &entry, node, &of, devices.clone());
            nodes.iter().map(|node| told(node) == "allowed").collect()
        };
        for set in 0..1 << keys.len() {
            let after = allowed(Seen::Udev, set);
            for seen in [Seen::Kernel, Seen::Overdue] {
                let before = allowed(seen, 0);
                let lost = before.iter().zip(&after).any(|(before, after)| *before && !after);
                assert!(!lost, "{nodes:?} {set:b} {seen:?}");
            }
        }
    }
}

/// A third of the usual number of cases: each judges every device of a host.
fn fewer_cases() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig {
        cases: usual.cases.div_ceil(3),
        ..usual
    }
}

proptest! {
    #![proptest_config(fewer_cases())]

    #[test]
    fn a_deny_rule_more_never_gives_more(
        policy in any_policy(), more in any_rule(List::Deny), of in any_circumstances(), access in 1..8u32,
        trusted in any::<bool>(), before in any::<bool>(),
    ) {
        let mut entry = untrusted("subsystem:tty");
        entry.request.options.access = Access::from_bits_truncate(access);
        if trusted {
            entry.origin = Origin::Root;
        }
        let mut stricter = policy.clone();
        stricter.deny.push(more);
        let less = verdicts(&stricter, &entry, &of, before);
        prop_assert!(less.iter().zip(verdicts(&policy, &entry, &of, before)).all(|(less, all)| *less <= all));
    }

    #[test]
    fn an_allow_rule_more_never_takes_away(
        policy in any_policy(), more in any_rule(List::Allow), of in any_circumstances(), access in 1..8u32,
        before in any::<bool>(),
    ) {
        let mut entry = untrusted("subsystem:tty");
        entry.request.options.access = Access::from_bits_truncate(access);
        let mut wider = policy.clone();
        wider.allow.push(more);
        let more = verdicts(&wider, &entry, &of, before);
        prop_assert!(more.iter().zip(verdicts(&policy, &entry, &of, before)).all(|(more, all)| *more >= all));
    }

    #[test]
    fn a_deny_rule_wins_over_all_that_is_allowed(policy in any_policy(), devices in any_devices(), of in any_circumstances()) {
        let mut denying = policy.clone();
        denying.allow.push(allow(&devices));
        denying.deny.push(deny(&devices));
        let entry = untrusted("subsystem:tty");
        let only_allowed = verdicts(&super::tests::policy(Fallback::Nothing, vec![allow(&devices)], vec![]), &entry, &of, false);
        let denied = verdicts(&denying, &entry, &of, false);
        prop_assert!(denied.iter().zip(only_allowed).all(|(denied, allowed)| allowed != 2 || *denied == 0));
    }

    #[test]
    fn what_is_certain_before_udevd_speaks_is_so_afterwards(policy in any_policy(), of in any_circumstances()) {
        let entry = untrusted("subsystem:tty");
        let (before, after) = (verdicts(&policy, &entry, &of, true), verdicts(&policy, &entry, &of, false));
        let allowed = before.iter().zip(&after).filter(|(before, after)| **before == 2 && **after != 2).count();
        let refused = before.iter().zip(&after).filter(|(before, after)| **before == 0 && **after == 2).count();
        prop_assert_eq!((allowed, refused), (0, 0));
    }

    #[test]
    fn what_may_not_start_never_gets_a_device(policy in any_policy(), of in any_circumstances()) {
        for (request, node) in [("devnode:/dev/mem", "/dev/mem"), ("devnode:/dev/kvm", "/dev/kvm"), ("usb:0403", "/dev/ttyUSB0")] {
            let entry = untrusted(request);
            if policy.authorise(&of, &entry).is_err() {
                prop_assert_ne!(told_of(&policy, &entry, node, &of), "allowed");
            }
        }
    }
}

proptest! {
    // Each case tries all facts in all states.
    #![proptest_config(fewer_cases())]

    /// Case security 4.
    #[test]
    fn what_is_allowed_before_udevd_speaks_is_allowed_whatever_it_says(
        rules in prop::collection::vec(any_rule_on_udevs_facts(List::Allow), 0..3),
        denials in prop::collection::vec(any_rule_on_udevs_facts(List::Deny), 0..3),
        fallback in prop::sample::select(vec![Fallback::Removable, Fallback::Nothing, Fallback::Anything]),
    ) {
        let policy = policy(fallback, rules, denials);
        let after: Vec<_> =
            FACT_SETS.map(|set| allowed_among(&policy, &stick([Seen::Udev; 2], set))).collect();
        for (partial, possible) in partial_facts() {
            let before = allowed_among(&policy, &partial);
            for set in possible {
                for (node, allowed) in &before {
                    prop_assert!(!allowed || after[set][node], "{node} {set:b}");
                }
            }
        }
    }
}
