//! Which devices expose the same bytes, on recorded devices.

use proptest::prelude::*;

use super::extent::LEVEL_BITS;
use super::*;
use crate::model::device::recorded::{
    companion_hub, composite_device, debug_probe, disk_with_partitions, dualsense, hub_with_two_adapters,
    loop_over, mapped, with_node,
};
use crate::model::device::{DevKind, DevNode, DevNum};

/// Disks, devices made of them, and USB devices with several functions.
fn host() -> Vec<Device> {
    let mut devices = hub_with_two_adapters();
    devices.extend(companion_hub());
    for more in [
        composite_device(),
        dualsense(),
        debug_probe(),
        disk_with_partitions(),
    ] {
        devices.extend(more);
    }
    devices.extend([
        loop_over(0, "/dev/sdb1"),
        loop_over(1, "/dev/sdb1"),
        loop_over(2, "/srv/image"),
        loop_over(3, "/srv/image"),
        loop_over(4, "/dev/loop0"),
        mapped(0, "sda2"),
        mapped(1, "sda2"),
        mapped(2, "dm-1 sdb"),
    ]);
    devices
}

fn have_data_in_common(one: &str, other: &str) -> bool {
    let devices = host();
    let inventory = Inventory::new(devices.clone());
    let of = |node| extents(with_node(&devices, node), &inventory);
    let (one, other) = (of(one), of(other));
    assert_eq!(overlap(&one, &other), overlap(&other, &one));
    overlap(&one, &other)
}

/// Case security 8.
#[test]
fn a_whole_shares_bytes_with_each_part_and_two_parts_share_none() {
    for (one, other) in [
        ("/dev/sda", "/dev/sda1"),
        ("/dev/sda", "/dev/sda2"),
        ("/dev/sg0", "/dev/sda"),
        ("/dev/sg0", "/dev/sda2"),
        ("/dev/sdb1", "/dev/loop0"),
        ("/dev/sdb", "/dev/loop0"),
        ("/dev/loop0", "/dev/loop1"),
        ("/dev/loop0", "/dev/loop4"),
        ("/dev/loop4", "/dev/sdb1"),
        ("/dev/loop2", "/dev/loop3"),
        ("/dev/dm-0", "/dev/sda2"),
        ("/dev/dm-0", "/dev/sda"),
        ("/dev/dm-2", "/dev/dm-1"),
        ("/dev/dm-2", "/dev/sda"),
        ("/dev/dm-2", "/dev/sdb"),
        ("/dev/bus/usb/001/003", "/dev/ttyUSB0"),
        ("/dev/bus/usb/002/003", "/dev/sdb1"),
        ("/dev/bus/usb/002/003", "/dev/loop4"),
        ("/dev/bus/usb/001/014", "/dev/sg2"),
        ("/dev/hidraw4", "/dev/input/event13"),
        ("/dev/input/event11", "/dev/input/js2"),
        ("/dev/bus/usb/001/008", "/dev/hidraw4"),
    ] {
        assert!(have_data_in_common(one, other), "{one} {other}");
    }
    for (one, other) in [
        ("/dev/sda1", "/dev/sda2"),
        ("/dev/sda1", "/dev/dm-0"),
        ("/dev/dm-0", "/dev/dm-1"),
        ("/dev/dm-0", "/dev/dm-2"),
        ("/dev/loop0", "/dev/loop2"),
        ("/dev/sda", "/dev/sdb"),
        ("/dev/ttyUSB0", "/dev/ttyUSB1"),
        ("/dev/bus/usb/001/003", "/dev/bus/usb/001/004"),
        ("/dev/bus/usb/001/002", "/dev/ttyUSB0"),
        ("/dev/ttyACM0", "/dev/hidraw0"),
        ("/dev/ttyACM1", "/dev/sdc"),
        ("/dev/input/event11", "/dev/input/event13"),
        ("/dev/hidraw4", "/dev/snd/controlC1"),
    ] {
        assert!(!have_data_in_common(one, other), "{one} {other}");
    }
}

#[test]
fn a_device_exposes_its_parts_and_not_the_device_that_it_is_a_part_of() {
    let devices = host();
    let inventory = Inventory::new(devices.clone());
    let names = |node: &str| -> Vec<String> {
        let exposed = exposed(with_node(&devices, node), &inventory);
        exposed
            .iter()
            .map(|device| device.syspath.name().to_owned())
            .collect()
    };
    assert_eq!(names("/dev/ttyUSB0"), [""; 0]);
    assert_eq!(names("/dev/bus/usb/001/003"), ["ttyUSB0"]);
    assert_eq!(
        names("/dev/bus/usb/001/002"),
        [""; 0],
        "a hub is not what is plugged into it"
    );
    assert_eq!(
        names("/dev/bus/usb/001/014"),
        ["sdc", "sdc1", "ttyACM1", "hidraw9"]
    );
    assert_eq!(names("/dev/sg2"), ["sdc", "sdc1"]);
    assert_eq!(names("/dev/sdc1"), [""; 0]);
    assert_eq!(names("/dev/sda2"), ["dm-0", "dm-1", "dm-2"]);
    assert_eq!(names("/dev/sdb1"), ["loop0", "loop1", "loop4"]);
    assert_eq!(names("/dev/loop1"), ["sdb1", "loop0", "loop4"]);
    assert_eq!(names("/dev/loop2"), ["loop3"]);
    assert_eq!(names("/dev/hidraw4").len(), 5);
    assert_eq!(names("/dev/input/event13"), ["mouse1"]);
}

#[test]
fn devices_are_followed_to_all_that_they_are_made_of() {
    let devices = host();
    let inventory = Inventory::new(devices.clone());
    let names = |found: Vec<&Device>| -> Vec<String> {
        found
            .iter()
            .map(|device| device.syspath.name().to_owned())
            .collect()
    };
    let of = |node: &str| names(made_of(with_node(&devices, node), &inventory));
    assert_eq!(of("/dev/loop4"), ["loop0", "sdb1"]);
    assert_eq!(of("/dev/loop2"), [""; 0]);
    assert_eq!(of("/dev/dm-2"), ["sdb", "dm-1", "sda2"]);
    assert_eq!(of("/dev/sda1"), [""; 0]);
    let behind = |node: &str| names(behind_loops(with_node(&devices, node), &inventory));
    assert_eq!(behind("/dev/loop4"), ["loop0", "sdb1"]);
    assert_eq!(
        behind("/dev/dm-0"),
        [""; 0],
        "a volume has bytes that no other device shows"
    );
}

#[test]
fn loop_devices_that_back_each_other_are_followed_only_once() {
    let devices = vec![loop_over(0, "/dev/loop1"), loop_over(1, "/dev/loop0")];
    let inventory = Inventory::new(devices.clone());
    assert!(!extents(&devices[0], &inventory).is_empty());
    assert!(!made_of(&devices[0], &inventory).is_empty());
    assert!(overlap(
        &extents(&devices[0], &inventory),
        &extents(&devices[1], &inventory)
    ));
}

fn nvme(path: &str, subsystem: &str, kind: DevKind, major: u32, minor: u32) -> Device {
    let mut device = Device::new(SysPath::new(path));
    device.subsystem = Some(subsystem.to_owned());
    let name = device.syspath.name().to_owned();
    device.node = Some(DevNode {
        path: format!("/dev/{name}").into(),
        num: DevNum { kind, major, minor },
    });
    device.devtype = (kind == DevKind::Block).then(|| "disk".to_owned());
    device
}

#[test]
fn a_controller_exposes_its_namespaces_wherever_they_are_and_other_devices_do_not() {
    let controller = "/sys/devices/pci0000:00/0000:00:1d.0/nvme/nvme0";
    let elsewhere = "/sys/devices/virtual/nvme-subsystem/nvme-subsys0";
    let of_controller = nvme(controller, "nvme", DevKind::Char, 240, 0);
    let below = nvme(&format!("{controller}/nvme0n1"), "block", DevKind::Block, 259, 0);
    let apart = nvme(&format!("{elsewhere}/nvme0n1"), "block", DevKind::Block, 259, 0);
    let names = |devices: Vec<&Device>| -> Vec<String> {
        devices.iter().map(|device| device.syspath.to_string()).collect()
    };
    let mut devices = host();
    devices.extend([of_controller.clone(), apart.clone()]);
    let inventory = Inventory::new(devices.clone());
    assert_eq!(
        names(exposed(&of_controller, &inventory)),
        [apart.syspath.to_string()]
    );
    for device in host() {
        assert!(
            !overlap(&extents(&device, &inventory), &extents(&apart, &inventory)),
            "{}",
            device.syspath
        );
    }
    // If all its namespaces are below it, the controller is one medium.
    let inventory = Inventory::new([of_controller.clone(), below.clone()]);
    assert_eq!(
        names(exposed(&of_controller, &inventory)),
        [below.syspath.to_string()]
    );
    assert_eq!(
        extents(&of_controller, &inventory),
        [Extent::whole(of_controller.syspath.clone())]
    );
}

#[test]
fn disks_and_what_exposes_disks_depend_on_virtual_block_devices() {
    let mut devices = host();
    let controller = "/sys/devices/pci0000:00/0000:00:1d.0/nvme/nvme0";
    devices.push(nvme(controller, "nvme", DevKind::Char, 240, 0));
    devices.push(nvme(
        &format!("{controller}/ng0n1"),
        "nvme-generic",
        DevKind::Char,
        241,
        0,
    ));
    let inventory = Inventory::new(devices.clone());
    let depends = |node: &str| depends_on_virtual_blocks(with_node(&devices, node), &inventory);
    for node in [
        "/dev/sda",
        "/dev/sda2",
        "/dev/sdb1",
        "/dev/loop0",
        "/dev/dm-0",
        "/dev/sg2",
        "/dev/nvme0",
        "/dev/ng0n1",
        "/dev/bus/usb/002/003",
    ] {
        assert!(depends(node), "{node}");
    }
    for node in [
        "/dev/ttyUSB0",
        "/dev/ttyACM1",
        "/dev/hidraw4",
        "/dev/input/event11",
        "/dev/bus/usb/001/003",
    ] {
        assert!(!depends(node), "{node}");
    }
    let is_virtual = |node: &str| is_virtual_block(&with_node(&devices, node).syspath);
    assert!(is_virtual("/dev/loop0") && is_virtual("/dev/dm-0"));
    assert!(!is_virtual("/dev/sda") && !is_virtual("/dev/ttyUSB0"));
}

/// Different versions of the program, in different containers, must lock the same ranges.
#[test]
fn the_ranges_of_parts_are_the_same_in_every_version() {
    let whole = Extent::whole(SysPath::new("/sys/devices/x"));
    assert_eq!((whole.first, whole.last), (0, (1 << 60) - 1));
    let part = whole.clone().part("sda1");
    assert_eq!(
        (part.first, part.last - part.first),
        (0x07a0_af00_0000_0000, (1 << 40) - 1)
    );
    let below = part.part("p1");
    assert_eq!(
        (below.first, below.last - below.first),
        (0x07a0_af27_f5d0_0000, (1 << 20) - 1)
    );
    let last = below.part("p2");
    assert_eq!(
        (last.first, last.last),
        (0x07a0_af27_f5d2_7f5e, 0x07a0_af27_f5d2_7f5e)
    );
    assert_eq!(last.clone().part("p3"), last, "nothing is less than one");
    // A number that does not fit belongs to the name.
    let long = whole.clone().part("sda99999999999999999999");
    assert!(whole.overlaps(&long) && !long.overlaps(&whole.part("sda")));
}

#[test]
fn devices_below_the_depth_limit_of_a_stack_are_ignored() {
    let mut devices = disk_with_partitions();
    devices.push(mapped(0, "sda2"));
    devices.extend((1..10).map(|number| mapped(number, &format!("dm-{}", number - 1))));
    let inventory = Inventory::new(devices.clone());
    let of = |node: &str| extents(with_node(&devices, node), &inventory);
    let deepest = u32::try_from(MAX_STACK).unwrap() - 1;
    assert!(overlap(&of(&format!("/dev/dm-{deepest}")), &of("/dev/sda2")));
    assert!(!overlap(
        &of(&format!("/dev/dm-{}", deepest + 1)),
        &of("/dev/sda2")
    ));
}

#[test]
fn a_stacked_device_is_made_only_of_block_devices() {
    let mut devices = host();
    let namesake = nvme("/sys/devices/x/sdb", "tty", DevKind::Char, 4, 7);
    devices.push(namesake);
    let inventory = Inventory::new(devices.clone());
    let made = made_of(with_node(&devices, "/dev/dm-2"), &inventory);
    assert!(made.iter().all(|device| is_block(device)) && made.len() == 3);
}

#[test]
fn namespaces_of_one_controller_are_its_parts() {
    let controller = "/sys/devices/pci0000:00/0000:00:1d.0/nvme/nvme0";
    let own = vec![
        nvme(controller, "nvme", DevKind::Char, 240, 0),
        nvme(&format!("{controller}/nvme0n1"), "block", DevKind::Block, 259, 0),
        nvme(
            &format!("{controller}/ng0n1"),
            "nvme-generic",
            DevKind::Char,
            241,
            0,
        ),
        nvme(&format!("{controller}/nvme0n2"), "block", DevKind::Block, 259, 1),
    ];
    let elsewhere = vec![
        own[0].clone(),
        nvme(
            "/sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1",
            "block",
            DevKind::Block,
            259,
            0,
        ),
    ];
    for devices in [own, elsewhere] {
        let inventory = Inventory::new(devices.clone());
        let of = |index: usize| devices.get(index).map(|device| extents(device, &inventory));
        let common = |one, other| of(one).zip(of(other)).map(|(one, other)| overlap(&one, &other));
        assert_eq!(common(0, 1), Some(true));
        assert_ne!(common(1, 2), Some(false), "the namespace by its character node");
        assert_ne!(common(1, 3), Some(true));
    }
}

proptest! {
    #[test]
    fn parts_whose_names_differ_in_the_number_have_different_ranges(
        prefix in "[a-z0-9/:-]{0,12}[a-z]", numbers in prop::collection::btree_set(0..1u32 << LEVEL_BITS, 2..16),
    ) {
        let whole = Extent::whole(SysPath::new("/sys/devices/x"));
        let parts: Vec<Extent> = numbers.iter().map(|number| whole.clone().part(&format!("{prefix}{number}"))).collect();
        for (index, part) in parts.iter().enumerate() {
            prop_assert!(whole.overlaps(part));
            prop_assert!(parts[..index].iter().all(|other| !other.overlaps(part)));
            let below = part.clone().part("p1");
            prop_assert!(part.overlaps(&below) && part.covers(&below));
        }
    }
}
