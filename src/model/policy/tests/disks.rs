//! Disks that the host uses, and devices that expose the same bytes.

use super::*;

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
        let denial = HOST.setup().denial(&default, &untrusted("usb:0d28"), node);
        denial.to_string()
    };
    assert_eq!(
        text("/dev/bus/usb/001/014"),
        "denied by the policy (protected: host-disk-usb): the USB nodes of devices with a disk that the host uses \
         are protected, because the USB node gives access to the disk (/dev/sdc1 is mounted at \"/media/DAPLINK\") (unmount it, \
         or, to allow it, run `oci-hotplug allow 'usb:0d28'`)"
    );
    let of_disk = text("/dev/sdc");
    assert!(
        of_disk.contains("/dev/sdc1 is mounted at \"/media/DAPLINK\") (unmount it, or, to allow it anyway"),
        "{of_disk}"
    );
}

/// Case security 8.
#[test]
fn a_deny_rule_also_matches_devices_that_expose_the_bytes_of_a_named_device() {
    let mut devices = host();
    devices.extend([
        loop_over(0, "/dev/sdb1"),
        loop_over(1, "/dev/loop0"),
        loop_over(2, "/srv/image"),
        mapped(0, "sdb1"),
        mapped(1, "sdb1"),
    ]);
    // A trusted request, so that the protected lines do not apply.
    let entry = RequestEntry::new(Origin::Root, "subsystem:block".parse().unwrap());
    let deny = |devices: &[&str]| rule(List::Deny, devices, |rule| rule.applies_to = Some(AppliesTo::All));
    let of = ContainerTraits::default();
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
    let denying = policy(Fallback::Anything, vec![], vec![deny(&["devnode:/dev/sdb1"])]);
    let host = Host::new(devices);
    let denial = host.setup().denial(&denying, &entry, "/dev/bus/usb/002/003");
    assert_eq!(
        denial.reason,
        "the rule denies it (the rule matches /dev/sdb1, whose data this device exposes)"
    );
}

/// Case security 8.
#[test]
fn a_loop_device_on_a_disk_of_the_host_counts_as_that_disk_and_uses_it() {
    let mut devices = host();
    devices.extend([
        loop_over(0, "/dev/sda1"),
        loop_over(1, "/dev/loop0"),
        loop_over(2, "/dev/sdb1"),
        loop_over(3, "/srv/image"),
    ]);
    let entry = untrusted("subsystem:block");
    let of = ContainerTraits::default();
    let anything = policy(Fallback::Anything, vec![allow(&["subsystem:block"])], vec![]);
    let told = |node: &str| told_among(&anything, &entry, node, &of, devices.clone());
    assert_eq!(told("/dev/loop0"), "protected: host-disk");
    assert_eq!(told("/dev/loop1"), "protected: host-disk");
    assert_eq!(told("/dev/loop2"), "allowed");
    assert_eq!(told("/dev/loop3"), "allowed");
    // The device that backs a loop device is in use; the loop device itself is not.
    assert_eq!(told("/dev/sdb"), "protected: host-disk");
    assert_eq!(told("/dev/sdb1"), "protected: host-disk");
}

#[test]
fn a_disk_that_the_host_mounts_is_protected_including_its_usb_node() {
    let line = |node: &str, host_use: HostUse| {
        let setup = HOST.setup().using(host_use);
        match setup.verdict(&Policy::default(), &untrusted("usb:0781"), node) {
            Verdict::Denied(denial) => denial.line,
            _ => None,
        }
    };
    for node in ["/dev/sdb", "/dev/sdb1", "/dev/bus/usb/002/003"] {
        let expected = if node.contains("usb") {
            "host-disk-usb"
        } else {
            "host-disk"
        };
        assert_eq!(line(node, HostUse::of([(8, 17)])), Some(expected), "{node}");
        assert_eq!(line(node, HostUse::unknown()), Some(expected), "{node}");
        assert_eq!(line(node, HostUse::of([(8, 1)])), None, "{node}");
    }
    assert_eq!(line("/dev/ttyUSB0", HostUse::unknown()), None);
}

#[test]
fn the_use_by_the_host_matters_only_for_devices_with_disks() {
    let names = |node: &str| -> Vec<String> {
        blocks_that_decide(with_node(&HOST.devices, node), &HOST.inventory)
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
fn all_namespaces_of_an_nvme_controller_count_wherever_they_are_and_no_other_disk() {
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
    // For a namespace, only the namespace itself and its partitions count.
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
