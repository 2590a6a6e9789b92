//! The lines of the table of protected devices.

use super::*;

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
            // The keyboard part of a security key.
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
fn every_line_of_the_table_protects_its_devices_whatever_the_default_is() {
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
fn an_allow_rule_lifts_a_line_unless_the_line_is_permanent() {
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
    let page = include_str!("../../../../docs/policy.md");
    for line in &LINES {
        let allowed_by = if line.always { "nothing" } else { "a rule" };
        let row = format!(
            "| `{}` | {} | {} | {allowed_by} |",
            line.name, line.devices, line.reason
        );
        assert!(page.contains(&row), "docs/policy.md lacks: {row}");
    }
    assert_eq!(
        page.matches("\n| `").count(),
        LINES.len(),
        "a line for a device that is not protected any longer"
    );
    let manual = include_str!("../../../../packaging/man/oci-hotplug.toml.5");
    for line in &LINES {
        let never = if line.always { " (never)" } else { "" };
        let entry = format!(".B {}{never}\n{}: {}\n", line.name, line.devices, line.reason);
        assert!(manual.contains(&entry), "oci-hotplug.toml.5 lacks: {entry}");
    }
}

#[test]
fn by_default_an_untrusted_request_gets_usb_devices_and_nothing_else() {
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
fn a_denial_by_the_default_says_what_the_default_allows() {
    let reason = |fallback| {
        let policy = policy(fallback, vec![], vec![]);
        let denial = HOST
            .setup()
            .denial(&policy, &untrusted("subsystem:tty"), "/dev/ttyS0");
        denial.reason
    };
    assert_eq!(
        reason(Fallback::Removable),
        "not a USB device, and no rule allows it"
    );
    assert_eq!(reason(Fallback::Nothing), "no rule allows it");
}

#[test]
fn access_to_a_hub_gives_no_access_to_the_devices_on_it() {
    let hub = untrusted("usb:2109:2813");
    let of = ContainerTraits::default();
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
    // The raw node gives access to the same data.
    assert_eq!(
        told_of(&denied, &hub, "/dev/bus/usb/001/003", &of),
        "[[policy.deny]] at /etc/c.toml line 7"
    );
}

#[test]
fn devices_without_a_node_are_neither_inputs_nor_memory() {
    let policy = policy(Fallback::Anything, vec![], vec![]);
    let is_allowed = |host: &Host, name: &str| {
        let device = crate::model::device::recorded::named(&host.devices, name);
        let verdict = host.setup().judge(&policy, &untrusted("subsystem:input"), device);
        matches!(verdict, Verdict::Allowed(_))
    };
    let mut nodeless = host();
    for device in &mut nodeless {
        device.node = None;
    }
    let nodeless = Host::new(nodeless);
    for name in ["event7", "mem", "1-1"] {
        assert!(!is_allowed(&HOST, name), "{name}");
        assert!(is_allowed(&nodeless, name), "{name}");
    }
}

#[test]
fn a_usb_device_without_descriptors_counts_as_a_hub() {
    let mut devices = host();
    for device in &mut devices {
        device.attributes.remove("descriptors");
    }
    let told = told_among(
        &Policy::default(),
        &untrusted("usb:0403"),
        "/dev/bus/usb/001/003",
        &ContainerTraits::default(),
        devices,
    );
    assert_eq!(told, "protected: usb-hub");
}

#[test]
fn only_the_denial_of_a_hubs_own_node_does_not_refuse_the_start() {
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
fn protected_nodes_are_recognized_by_their_paths() {
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
