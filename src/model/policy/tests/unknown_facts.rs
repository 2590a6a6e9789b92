//! Verdicts before udevd has processed a device, or without udevd.

use super::properties::stick;
use super::*;

#[test]
fn a_device_that_the_default_denies_does_not_wait_for_udevd() {
    let devices: Vec<Device> = host().into_iter().map(before_udev).collect();
    let told = |fallback| {
        let policy = policy(fallback, vec![], vec![]);
        let entry = untrusted("subsystem:input");
        let node = "/dev/input/event8";
        told_among(
            &policy,
            &entry,
            node,
            &ContainerTraits::default(),
            devices.clone(),
        )
    };
    assert_eq!(told(Fallback::Removable), "waits for event8");
    assert_eq!(told(Fallback::Anything), "waits for event8");
    assert_eq!(told(Fallback::Nothing), "default = \"nothing\"");
}

#[test]
fn while_a_file_of_rules_is_invalid_the_requests_that_it_may_concern_are_denied() {
    let with_unknown = |may_concern_trusted| Policy {
        unknown: vec![UnknownRules {
            fault: "/etc/d/50.toml line 3: expected a value".to_owned(),
            may_concern_trusted,
        }],
        ..policy(Fallback::Anything, vec![], vec![])
    };
    let of = ContainerTraits::default();
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
                "denied by the policy (unknown rules): /etc/d/50.toml line 3: expected a value (fix or remove \
                 that file (`oci-hotplug check` tests it))"
            );
            assert_eq!(device, "unknown rules");
        } else {
            assert_eq!((start, device.as_str()), (Ok(()), "allowed"));
        }
    }
}

/// Case security 4.
#[test]
fn unknown_facts_match_deny_rules_and_do_not_match_allow_rules() {
    let entry = untrusted("subsystem:block");
    let verdict = |policy: &Policy, udev_state| {
        let mut devices: Vec<Device> = companion_hub().into_iter().map(before_udev).collect();
        for device in &mut devices {
            device.udev_state = if device.node.is_some() {
                udev_state
            } else {
                UdevState::Processed
            };
        }
        match Host::new(devices).setup().verdict(policy, &entry, "/dev/sdb1") {
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
    assert!(verdict(&denying, UdevState::Pending).starts_with("waits for "));
    let overdue = verdict(&denying, UdevState::Overdue);
    assert!(
        overdue.starts_with(
            "denied by the policy ([[policy.deny]] at /etc/c.toml line 7): udevd has not processed /sys/"
        ) && overdue.contains("/block/sdb/sdb1, and this deny rule depends on it (check `systemctl"),
        "{overdue}"
    );
    assert_eq!(
        verdict(&denying, UdevState::NoUdevd),
        "denied by the policy ([[policy.deny]] at /etc/c.toml line 7): no udevd runs on this host, and this deny rule \
         depends on facts that only udevd knows (start systemd-udevd, or write the rule without property:, tag: and links)"
    );
    assert_eq!(verdict(&denying, UdevState::Processed), "allowed");
    let allowing = policy(
        Fallback::Nothing,
        vec![allow(&["subsystem:block&!property:ID_FS_LABEL=secret"])],
        vec![],
    );
    assert!(verdict(&allowing, UdevState::Pending).starts_with("waits for "));
    for udev_state in [UdevState::Overdue, UdevState::NoUdevd] {
        assert!(
            verdict(&allowing, udev_state).contains("default = \"nothing\""),
            "{udev_state:?}"
        );
    }
    assert_eq!(verdict(&allowing, UdevState::Processed), "allowed");
    // The default decides whether the allow rule matches or not, so udevd is not awaited.
    let by_default = policy(Fallback::Removable, vec![allow(&["tag:x"])], vec![]);
    for udev_state in [UdevState::Pending, UdevState::Overdue, UdevState::NoUdevd] {
        assert_eq!(verdict(&by_default, udev_state), "allowed", "{udev_state:?}");
    }
}

/// Case security 4: a rule for the kernel's name of a node needs no udevd.
#[test]
fn a_deny_rule_for_a_nodes_own_name_is_decided_without_udevd() {
    let entry = untrusted("subsystem:tty");
    let of = ContainerTraits::default();
    let devices: Vec<Device> = hub_with_two_adapters()
        .into_iter()
        .map(before_udev)
        .map(|device| Device {
            udev_state: UdevState::NoUdevd,
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

/// Case security 12: a stick with the same label as another one must not take that one out of a
/// rule.
#[test]
fn a_deny_rule_for_a_link_matches_all_devices_that_claim_it_and_an_allow_rule_only_its_target() {
    let mut devices = companion_hub();
    let label = std::path::PathBuf::from("/dev/disk/by-label/BACKUP");
    for device in &mut devices {
        if device.links.remove(&label) {
            device.lost_links.insert(label.clone());
        }
    }
    let entry = untrusted("subsystem:block");
    let of = ContainerTraits::default();
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
fn a_claimed_link_counts_for_rules_about_that_link_alone() {
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
        let of = ContainerTraits::default();
        let told = told_among(&denying, &entry, "/dev/sdb1", &of, devices.clone());
        assert_eq!(told, expected, "{rule}");
    }
}

/// Case security 4.
#[test]
fn no_device_is_awaited_if_an_overdue_one_decides() {
    let entry = untrusted("subsystem:block");
    let of = ContainerTraits::default();
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
    assert_eq!(told(UdevState::Overdue, UdevState::Pending), denied);
    assert_eq!(told(UdevState::Pending, UdevState::Overdue), denied);
    assert_eq!(told(UdevState::Pending, UdevState::Pending), "waits for sdb1");
}

/// The facts of a parent count, although udevd will not process the device itself: the device's own
/// facts are read first.
#[test]
fn an_allow_rule_for_a_parent_waits_for_the_parent_alone() {
    let entry = untrusted("subsystem:block");
    let of = ContainerTraits::default();
    let allowing = policy(
        Fallback::Nothing,
        vec![allow(&["property:ID_VENDOR_ID=0781"])],
        vec![],
    );
    let told = |parent: UdevState| {
        let mut devices: Vec<Device> = companion_hub();
        for device in &mut devices {
            if device.subsystem.as_deref() == Some("block") {
                *device = before_udev(device.clone());
                device.udev_state = UdevState::Overdue;
            } else if device.syspath.name() == "2-1.3" && parent == UdevState::Pending {
                *device = before_udev(device.clone());
            }
        }
        told_among(&allowing, &entry, "/dev/sdb1", &of, devices)
    };
    assert_eq!(told(UdevState::Pending), "waits for 2-1.3");
    assert_eq!(told(UdevState::Processed), "allowed");
}

#[test]
fn a_rule_about_udevs_facts_waits_for_them() {
    let devices: Vec<Device> = host().into_iter().map(before_udev).collect();
    let entry = untrusted("subsystem:tty");
    let of = ContainerTraits::default();
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
fn exactly_the_deny_rules_that_depend_on_udevd_are_listed() {
    let at_line = |line, devices: &[&str]| {
        let mut rule = deny(devices);
        rule.place.line = line;
        rule
    };
    let policy = policy(
        Fallback::Nothing,
        vec![allow(&["tag:uaccess"])],
        vec![
            at_line(1, &["usb:0403:6001"]),
            at_line(
                2,
                &["subsystem:tty", "subsystem:block&property:ID_FS_LABEL=secret"],
            ),
            at_line(3, &["devnode:/dev/ttyS0"]),
            at_line(4, &["glob:/dev/serial/by-id/*"]),
        ],
    );
    let lines = policy.denials_that_need_udevd().map(|place| place.line);
    assert_eq!(Vec::from_iter(lines), [2, 4]);
}
