//! Selectors and devices that udevd has not processed, and negated terms.

use super::*;
use crate::model::device::inventory::Inventory;
use crate::model::device::recorded;
use crate::model::device::{DevKind, DevNode, DevNum, Device, SysPath, UdevState};

#[test]
fn only_a_device_with_a_node_waits_for_its_links() {
    let mut device = Device::new(SysPath::new("/sys/devices/hub"));
    for text in ["devnode:/dev/x", "glob:/dev/x*", "regex:x"] {
        assert_eq!(alone(&device, text), Match::No, "{text}");
    }
    device.node = Some(DevNode {
        path: "/dev/y".into(),
        num: DevNum {
            kind: DevKind::Char,
            major: 9,
            minor: 0,
        },
    });
    for text in ["devnode:/dev/x", "glob:/dev/x*", "regex:x"] {
        assert_eq!(
            alone(&device, text),
            Match::Unknown(device.syspath.clone()),
            "{text}"
        );
    }
}

#[test]
fn with_parent_of_a_negated_term_is_about_the_device_that_leads_to_the_parent() {
    let mut secret = Device::new(SysPath::new("/sys/devices/hub/tty"));
    secret.tags.insert("secret".into());
    secret.udev_state = UdevState::Processed;
    let leaves = |text: &str| selector(text).leaves(|| Chain::new(&[&secret], []));
    assert_eq!(leaves("subsystem:tty&!tag:secret"), Match::No);
    assert_eq!(leaves("parent-of:subsystem:tty&!tag:secret"), Match::Yes);
    assert_eq!(leaves("subsystem:tty"), Match::Yes);
}

#[test]
fn sysfs_facts_are_decided_by_the_kernel_and_the_rest_by_udev() {
    let devices = recorded::hub_with_two_adapters();
    let tty = recorded::with_node(&devices, "/dev/ttyUSB0");
    let early = recorded::before_udev(tty.clone());
    let unknown = || Match::Unknown(tty.syspath.clone());
    for (text, after, before) in [
        ("subsystem:tty", Match::Yes, Match::Yes),
        ("devnode:/dev/ttyUSB0", Match::Yes, Match::Yes),
        ("glob:ttyUSB*", Match::Yes, Match::Yes),
        ("regex:USB", Match::Yes, Match::Yes),
        ("glob:serial/by-id/*", Match::Yes, unknown()),
        ("regex:by-id", Match::Yes, unknown()),
        ("tag:systemd", Match::Yes, unknown()),
        ("property:ID_BUS=usb", Match::Yes, unknown()),
        ("subsystem:tty&tag:systemd", Match::Yes, unknown()),
        ("subsystem:tty&!driver:x", Match::Yes, Match::Yes),
        ("subsystem:tty&!tag:other", Match::Yes, unknown()),
        ("subsystem:tty&!tag:systemd", Match::No, unknown()),
        ("subsystem:tty&!glob:serial/*/*", Match::No, unknown()),
        ("subsystem:tty&!subsystem:tty", Match::No, Match::No),
        ("subsystem:net", Match::No, Match::No),
    ] {
        assert_eq!(alone(tty, text), after, "{text} after udev");
        assert_eq!(alone(&early, text), before, "{text} before udev");
    }
    let adapter = recorded::before_udev(recorded::named(&devices, "1-1.1").clone());
    assert_eq!(alone(&adapter, "usb:0403:6001:A"), Match::Yes);
}

/// Case README 5.
#[test]
fn an_unprocessed_parent_leaves_a_negated_term_undecided() {
    let mut devices = recorded::hub_with_two_adapters();
    for device in &mut devices {
        if device.syspath.name() == "1-1.2" {
            *device = recorded::before_udev(device.clone());
        }
    }
    let inventory = Inventory::new(devices.clone());
    let tty = recorded::with_node(&devices, "/dev/ttyUSB1");
    let parent = recorded::named(&devices, "1-1.2").syspath.clone();
    let found = |text: &str| selector(text).names(tty, || inventory.chain(tty));
    assert_eq!(found("subsystem:tty&!tag:secret"), Match::Unknown(parent.clone()));
    assert_eq!(found("subsystem:tty&tag:systemd"), Match::Yes);
    assert_eq!(
        found("subsystem:tty&property:ID_VENDOR=x"),
        Match::Unknown(parent)
    );
    assert_eq!(found("subsystem:net&!tag:secret"), Match::No);
}
