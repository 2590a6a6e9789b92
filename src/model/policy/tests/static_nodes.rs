//! Static nodes, which sysfs does not know.

use super::*;

#[test]
fn a_static_node_is_judged_by_its_number() {
    let mut device = Device::new(SysPath::new("/sys/devices/oci-hotplug-node/dev/harmless"));
    device.subsystem = Some(STATIC_NODE.to_owned());
    device.udev_state = crate::model::device::UdevState::Processed;
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
            &ContainerTraits::default(),
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
fn the_path_of_a_static_node_never_allows_and_may_deny() {
    let entry = untrusted("node:/dev/ttyUSB7");
    let told = |policy: &Policy, entry: &RequestEntry, kind, major, minor| {
        let mut device = Device::new(SysPath::new("/sys/devices/oci-hotplug-node/dev/ttyUSB7"));
        device.subsystem = Some(STATIC_NODE.to_owned());
        device.udev_state = crate::model::device::UdevState::Processed;
        device.node = Some(DevNode {
            path: "/dev/ttyUSB7".into(),
            num: DevNum { kind, major, minor },
        });
        let mut devices = host();
        devices.push(device);
        told_among(
            policy,
            entry,
            "/dev/ttyUSB7",
            &ContainerTraits::default(),
            devices,
        )
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
    // sysfs has a device with this number, whose names count.
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
fn the_suggested_command_allows_a_denied_node() {
    let device = |number, path: &str| {
        let mut device = Device::new(SysPath::new(format!("/sys/devices/oci-hotplug-node{path}")));
        device.subsystem = Some(STATIC_NODE.to_owned());
        device.udev_state = crate::model::device::UdevState::Processed;
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
        let host = Host::new(devices);
        match host
            .setup()
            .verdict(policy, &untrusted("node:/dev/other"), "/dev/other")
        {
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
    // No rule matches a number that sysfs does not have, even a protected one (autofs).
    for number in [(240, 5), (10, 235)] {
        let suggested = hint(&nothing, number);
        assert!(
            suggested.contains("oci-hotplug class add") && suggested.contains("node:/dev/other"),
            "{suggested}"
        );
    }
}
