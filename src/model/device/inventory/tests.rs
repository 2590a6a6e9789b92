//! Events of the kernel and udevd in every order, and the queries of an inventory.

use super::*;
use crate::model::device::{DevKind, DevNode, DevNum};

fn device(path: &str, minor: u32, seqnum: u64, udev_state: UdevState) -> Device {
    let mut device = Device::new(SysPath::new(path));
    device.node = Some(DevNode {
        path: "/dev/x".into(),
        num: DevNum {
            kind: DevKind::Char,
            major: 9,
            minor,
        },
    });
    device.seqnum = seqnum;
    device.udev_state = udev_state;
    if udev_state == UdevState::Processed {
        device.properties.insert("TOLD_BY".into(), "udevd".into());
    }
    device
}

const PATH: &str = "/sys/devices/a/b";

#[test]
fn a_late_add_from_udevd_does_not_restore_a_removed_device() {
    let mut inventory = Inventory::default();
    inventory.apply(DeviceEvent::Added(device(PATH, 0, 10, UdevState::Pending)));
    inventory.apply(DeviceEvent::Removed {
        syspath: SysPath::new(PATH),
        seqnum: 11,
    });
    assert!(!inventory.apply(DeviceEvent::Added(device(PATH, 0, 10, UdevState::Processed))));
    assert_eq!(inventory.iter().count(), 0);
}

#[test]
fn a_late_remove_from_udevd_does_not_touch_the_device_that_came_back() {
    let mut inventory = Inventory::default();
    inventory.apply(DeviceEvent::Added(device(PATH, 0, 10, UdevState::Pending)));
    inventory.apply(DeviceEvent::Removed {
        syspath: SysPath::new(PATH),
        seqnum: 11,
    });
    inventory.apply(DeviceEvent::Added(device(PATH, 1, 12, UdevState::Pending)));
    assert!(!inventory.apply(DeviceEvent::Added(device(PATH, 0, 10, UdevState::Processed))));
    assert!(!inventory.apply(DeviceEvent::Removed {
        syspath: SysPath::new(PATH),
        seqnum: 11
    }));
    assert!(inventory.apply(DeviceEvent::Added(device(PATH, 1, 12, UdevState::Processed))));
    let now = inventory.get(&SysPath::new(PATH)).unwrap();
    assert_eq!(now.node.as_ref().unwrap().num.minor, 1);
    assert_eq!(now.udev_state, UdevState::Processed);
}

#[test]
fn a_change_from_the_kernel_keeps_the_facts_of_udevd() {
    let mut told = device(PATH, 0, 5, UdevState::Processed);
    told.tags.insert("seat".into());
    told.links.insert("/dev/by-id/x".into());
    told.lost_links.insert("/dev/by-label/x".into());
    let mut inventory = Inventory::new([told.clone()]);
    let mut change = device(PATH, 0, 7, UdevState::Pending);
    change.driver = Some("other".into());
    assert!(inventory.apply(DeviceEvent::Changed(change)));
    let now = inventory.get(&SysPath::new(PATH)).unwrap();
    assert_eq!(now.driver.as_deref(), Some("other"));
    assert_eq!(now.properties["TOLD_BY"], "udevd");
    assert_eq!((now.udev_state, now.seqnum), (UdevState::Processed, 5));
    assert_eq!(
        (&now.tags, &now.links, &now.lost_links),
        (&told.tags, &told.links, &told.lost_links)
    );
}

#[test]
fn a_device_that_is_overdue_stays_so_until_udevd_processes_it() {
    let mut inventory = Inventory::new([device(PATH, 0, 5, UdevState::Overdue)]);
    inventory.apply(DeviceEvent::Changed(device(PATH, 0, 7, UdevState::Pending)));
    assert_eq!(
        inventory.get(&SysPath::new(PATH)).unwrap().udev_state,
        UdevState::Overdue
    );
    inventory.apply(DeviceEvent::Changed(device(PATH, 0, 7, UdevState::Processed)));
    let now = inventory.get(&SysPath::new(PATH)).unwrap();
    assert_eq!(
        (now.udev_state, now.properties["TOLD_BY"].as_str()),
        (UdevState::Processed, "udevd")
    );
}

#[test]
fn a_device_with_another_number_at_the_same_path_is_another_device() {
    let mut inventory = Inventory::new([device(PATH, 0, 5, UdevState::Processed)]);
    inventory.apply(DeviceEvent::Added(device(PATH, 1, 9, UdevState::Pending)));
    let now = inventory.get(&SysPath::new(PATH)).unwrap();
    assert!(now.properties.is_empty());
    assert_eq!(now.udev_state, UdevState::Pending);
}

#[test]
fn the_same_event_twice_changes_nothing() {
    let mut inventory = Inventory::default();
    let event = DeviceEvent::Added(device(PATH, 0, 10, UdevState::Processed));
    assert!(inventory.apply(event.clone()));
    assert!(!inventory.apply(event));
}

#[test]
fn a_move_takes_the_devices_below_along() {
    let mut inventory = Inventory::new([
        device("/sys/devices/a/b", 0, 0, UdevState::Processed),
        device("/sys/devices/a/b/c", 1, 0, UdevState::Processed),
        device("/sys/devices/a/bc", 2, 0, UdevState::Processed),
    ]);
    inventory.apply(DeviceEvent::Moved {
        from: SysPath::new("/sys/devices/a/b"),
        device: device("/sys/devices/z", 0, 3, UdevState::Pending),
    });
    let paths: Vec<&str> = inventory.iter().map(|device| device.syspath.as_str()).collect();
    assert_eq!(paths, ["/sys/devices/a/bc", "/sys/devices/z", "/sys/devices/z/c"]);
}

#[test]
fn below_a_hub_port_1_are_not_the_devices_of_port_10() {
    let inventory = Inventory::new([
        device("/sys/devices/1-1", 0, 0, UdevState::Pending),
        device("/sys/devices/1-1/1-1.1", 1, 0, UdevState::Pending),
        device("/sys/devices/1-1-0", 2, 0, UdevState::Pending),
        device("/sys/devices/1-10", 3, 0, UdevState::Pending),
        device("/sys/devices/1-1/1-1.1/tty/ttyUSB0", 4, 0, UdevState::Pending),
    ]);
    let below: Vec<&str> = inventory
        .at_or_below(&SysPath::new("/sys/devices/1-1"))
        .map(|device| device.syspath.as_str())
        .collect();
    assert_eq!(
        below,
        [
            "/sys/devices/1-1",
            "/sys/devices/1-1/1-1.1",
            "/sys/devices/1-1/1-1.1/tty/ttyUSB0"
        ]
    );
}

#[test]
fn an_enumeration_removes_absent_devices_and_keeps_the_facts_of_udevd() {
    let mut inventory = Inventory::new([
        device(PATH, 0, 5, UdevState::Processed),
        device("/sys/devices/gone", 1, 6, UdevState::Processed),
    ]);
    inventory.replace([device(PATH, 0, 0, UdevState::Pending)]);
    assert_eq!(inventory.iter().count(), 1);
    assert_eq!(
        inventory.get(&SysPath::new(PATH)).unwrap().udev_state,
        UdevState::Processed
    );
}

#[test]
fn the_number_of_remembered_events_is_limited() {
    let mut inventory = Inventory::default();
    for number in 1..5000u64 {
        let syspath = SysPath::new(format!("/sys/devices/x{number}"));
        inventory.apply(DeviceEvent::Removed {
            syspath,
            seqnum: number,
        });
    }
    assert!(inventory.floors.len() <= FLOORS_KEPT);
}

#[test]
fn the_later_half_of_the_remembered_events_is_kept() {
    let mut inventory = Inventory::default();
    let path = |number: usize| SysPath::new(format!("/sys/devices/x{number}"));
    let mut remove = |number: usize| {
        inventory.apply(DeviceEvent::Removed {
            syspath: path(number),
            seqnum: number as u64,
        });
        inventory.floors.len()
    };
    assert_eq!((1..=FLOORS_KEPT).map(&mut remove).last(), Some(FLOORS_KEPT));
    assert_eq!(remove(FLOORS_KEPT + 1), FLOORS_KEPT / 2 + 1);
    assert!(inventory.is_stale(&path(FLOORS_KEPT + 1), 1));
    assert!(!inventory.is_stale(&path(1), 1), "it is forgotten");
}

#[test]
fn events_of_the_kernel_are_applied_until_udevd_has_processed_the_device() {
    let mut inventory = Inventory::new([device(PATH, 0, 5, UdevState::Pending)]);
    let mut change = device(PATH, 0, 7, UdevState::Pending);
    change.properties.insert("MEDIA".into(), "1".into());
    assert!(inventory.apply(DeviceEvent::Changed(change.clone())));
    assert_eq!(inventory.get(&SysPath::new(PATH)), Some(&change));
}

#[test]
fn a_moved_link_and_a_new_alias_are_changes() {
    let link = PathBuf::from("/dev/by-id/x");
    let mut claimant = device(PATH, 0, 5, UdevState::Processed);
    claimant.lost_links.insert(link.clone());
    let mut inventory = Inventory::new([claimant, device("/sys/devices/z", 1, 5, UdevState::Processed)]);
    let none = Aliases::default();
    let here: LinkTargets = [(link.clone(), Some(PATH.into()))].into();
    assert!(
        inventory.take_links(&none, &here),
        "the first of two devices has gained it"
    );
    assert!(!inventory.take_links(&none, &here), "nothing has moved");
    let named = Aliases::new([("/dev/alias".into(), Some(PATH.into()))].into());
    assert!(inventory.take_links(&named, &LinkTargets::new()));
    assert!(!inventory.take_links(&named, &here), "neither has moved");
    // If several links moved, looking at one is enough.
    let elsewhere: LinkTargets = [(link, None)].into();
    assert!(inventory.take_links(&none, &elsewhere));
}
