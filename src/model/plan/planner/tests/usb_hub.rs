//! USB 3 hubs, which are two devices.

use super::*;
use crate::model::device::event::DeviceEvent;
use crate::model::device::recorded;

/// Adapters below the half 1-1, and a stick below the half 2-1.
fn hub() -> Inventory {
    Inventory::new(recorded::usb3_hub())
}

fn path_of(name: &str) -> SysPath {
    recorded::named(&recorded::usb3_hub(), name).syspath.clone()
}

/// The nodes that these requests give, without those in /dev/bus.
fn nodes(requests: &[&str], inventory: &Inventory) -> Vec<String> {
    let mut planner = planner(requests);
    planner.find_roots(inventory);
    nodes_of(&planner, inventory)
}

fn nodes_of(planner: &Planner, inventory: &Inventory) -> Vec<String> {
    let added = plan(planner, inventory).steps.into_iter();
    let paths = added.filter_map(|step| match step {
        Step::AddNode { path, .. } => Some(path.display().to_string()),
        _ => None,
    });
    let mut paths: Vec<String> = paths.filter(|path| !path.starts_with("/dev/bus")).collect();
    paths.sort();
    paths
}

const ALL: [&str; 4] = ["/dev/sdb", "/dev/sdb1", "/dev/ttyUSB0", "/dev/ttyUSB1"];

#[test]
fn either_half_gives_what_is_plugged_into_both() {
    for request in [
        "usb:2109:2813",
        "usb:2109:0813",
        "usb:2109",
        "port:1-1",
        "port:2-1",
        "parent-of:usb:0403:6001:A",
        "parent-of:usb:0781:5581",
    ] {
        assert_eq!(nodes(&[request], &hub()), ALL, "{request}");
    }
    assert_eq!(nodes(&["port:2-1;only=subsystem:block"], &hub()), ALL[..2]);
    assert_eq!(nodes(&["port:2-1&!subsystem:block"], &hub()), ALL[2..]);
}

#[test]
fn what_is_plugged_into_the_hub_stays_without_a_companion() {
    assert_eq!(nodes(&["usb:0403:6001"], &hub()), ALL[2..]);
    assert_eq!(nodes(&["port:2-1.3"], &hub()), ALL[..2]);
    let mut halves = recorded::hub_with_two_adapters();
    halves.extend(recorded::companion_hub());
    let apart = Inventory::new(halves);
    assert_eq!(nodes(&["port:1-1"], &apart), ALL[2..], "two unrelated hubs");
}

#[test]
fn both_halves_together_name_one_node() {
    let named = ["/dev/board", "/dev/sdb", "/dev/sdb1", "/dev/ttyUSB1"];
    for request in ["usb:2109:2813;path=/dev/board", "usb:2109;path=/dev/board"] {
        assert_eq!(nodes(&[request], &hub()), named, "{request}");
    }
    let mut planner = planner(&["usb:2109;path=/dev/board"]);
    planner.find_roots(&hub());
    assert_eq!(plan(&planner, &hub()).not_attached, []);
}

#[test]
fn an_alternative_decides_about_the_half_that_it_selects() {
    let request = "port:1-1;or=port:2-1&!attr:partition=1";
    assert_eq!(
        nodes(&[request], &hub()),
        ["/dev/sdb", "/dev/ttyUSB0", "/dev/ttyUSB1"]
    );
}

#[test]
fn a_half_that_appears_later_affects_the_request_and_its_removal_is_no_removal_of_the_root() {
    let all = recorded::usb3_hub();
    let is_late = |device: &Device| device.syspath.is_at_or_below(&path_of("2-1"));
    let (late, early): (Vec<Device>, Vec<Device>) = all.into_iter().partition(is_late);
    let mut inventory = Inventory::new(early);
    let mut planner = planner(&["port:1-1"]);
    planner.find_roots(&inventory);
    for device in &late {
        inventory.apply(DeviceEvent::Added(device.clone()));
        assert!(
            planner.is_affected_by(&device.syspath, &inventory),
            "{}",
            device.syspath
        );
    }
    assert!(planner.find_roots(&inventory).is_empty());
    assert_eq!(nodes_of(&planner, &inventory), ALL);
    for device in late.iter().rev() {
        let syspath = device.syspath.clone();
        inventory.apply(DeviceEvent::Removed { syspath, seqnum: 0 });
    }
    assert_eq!(planner.find_roots(&inventory), []);
    assert_eq!(nodes_of(&planner, &inventory), ALL[2..]);
}

#[test]
fn a_device_at_the_path_of_a_removed_half_is_not_the_other_half() {
    let mut devices = recorded::usb3_hub();
    for device in &mut devices {
        // Only the half that stays knows the other.
        device.companion = (device.syspath == path_of("1-1")).then(|| path_of("2-1"));
    }
    let mut inventory = Inventory::new(devices.clone());
    assert_eq!(inventory.companion_of(&path_of("2-1")), Some(&path_of("1-1")));
    let half = recorded::named(&devices, "2-1").clone();
    inventory.apply(DeviceEvent::Removed {
        syspath: half.syspath.clone(),
        seqnum: 0,
    });
    inventory.apply(DeviceEvent::Added(half));
    assert_eq!(inventory.companion_of(&path_of("1-1")), None);
    assert_eq!(nodes(&["port:1-1"], &inventory), ALL[2..]);
}

#[test]
fn a_remote_hub_is_alone() {
    let remote: RemoteDevice = "lab/2109:2813".parse().unwrap();
    let mut planner = planner(&["usbip:lab/2109:2813"]);
    planner.bind(
        remote,
        Binding {
            syspath: path_of("1-1"),
            num: hub().get(&path_of("1-1")).unwrap().node.as_ref().unwrap().num,
            last: "1-1,0,40000".parse().unwrap(),
        },
    );
    planner.find_roots(&hub());
    assert_eq!(planner.entries()[0].roots, [path_of("1-1")].into());
    assert_eq!(nodes_of(&planner, &hub()), ALL[2..]);
}
