//! Which devices are attached, and when.

use super::*;

#[test]
fn a_request_selects_all_matching_devices() {
    let mut scenario = Scenario::new("usb:0403:6001", "");
    scenario.plug(&hub_with_two_adapters());
    assert_eq!(tty_nodes(scenario.nodes()).len(), 2, "{:?}", scenario.nodes());
    scenario.unplug(&hub_with_two_adapters());
    assert!(scenario.is_empty());
}

#[test]
fn a_parent_stays_selected_after_its_child_is_removed() {
    let tree = hub_with_two_adapters();
    let mut scenario = Scenario::new("parent-of:usb:0403:6001:A", "");
    let mut all = root_hubs();
    all.extend(tree.iter().cloned());
    scenario.plug(&all);
    let before = tty_nodes(scenario.nodes());
    assert_eq!(before.len(), 2, "{before:?}");
    let named: Vec<Device> = {
        let adapter = tree
            .iter()
            .find(|device| device.attribute("serial") == Some("A"))
            .expect("adapter A");
        tree.iter()
            .filter(|device| device.syspath.is_at_or_below(&adapter.syspath))
            .cloned()
            .collect()
    };
    scenario.unplug(&named);
    assert_eq!(
        tty_nodes(scenario.nodes()).len(),
        1,
        "the other one stays: {:?}",
        scenario.nodes()
    );
}

#[test]
fn the_node_is_added_on_the_kernels_event_and_links_after_udevd() {
    let tree = hub_with_two_adapters();
    let early: Vec<Device> = tree.iter().cloned().map(before_udev).collect();
    let mut scenario = Scenario::new("usb:0403:6001:A", "usb:0403:6001:0=/dev/ttyBOARD");
    scenario.plug(&early);
    assert_eq!(tty_nodes(scenario.nodes()).len(), 1);
    assert!(
        !scenario.links().iter().any(|link| link.contains("by-id")),
        "{:?}",
        scenario.links()
    );
    assert!(scenario.container.announced.is_empty());
    scenario.plug(&tree);
    assert!(
        scenario.links().iter().any(|link| link.contains("by-id")),
        "{:?}",
        scenario.links()
    );
    assert!(
        scenario
            .links()
            .iter()
            .any(|link| link.starts_with("/dev/ttyBOARD -> ")),
        "{:?}",
        scenario.links()
    );
    assert!(
        scenario
            .container
            .announced
            .iter()
            .any(|event| event.starts_with("add /dev/tty"))
    );
}

#[test]
fn a_block_device_waits_for_udev_by_default() {
    let early: Vec<Device> = disk_with_partitions().into_iter().map(before_udev).collect();
    let mut scenario = Scenario::new("subsystem:block", "");
    scenario.plug(&early);
    assert!(scenario.nodes().is_empty());
    assert!(!scenario.plan().pending.is_empty());
    scenario.plug(&disk_with_partitions());
    assert!(!scenario.nodes().is_empty());

    let mut scenario = Scenario::new("subsystem:block;ready=kernel", "");
    scenario.plug(&early);
    assert!(!scenario.nodes().is_empty());
}

#[test]
fn a_removed_root_triggers_the_action_of_its_request() {
    let tree = hub_with_two_adapters();
    let mut scenario = Scenario::new("usb:0403:6001:A;on-removal=kill", "");
    for device in &tree {
        scenario.inventory.apply(DeviceEvent::Added(device.clone()));
    }
    assert!(scenario.planner.find_roots(&scenario.inventory).is_empty());
    let root = tree
        .iter()
        .find(|device| device.attribute("serial") == Some("A"))
        .unwrap();
    scenario.inventory.apply(DeviceEvent::Removed {
        syspath: root.syspath.clone(),
        seqnum: 0,
    });
    let removed = scenario.planner.find_roots(&scenario.inventory);
    assert_eq!(removed.len(), 1);
    assert_eq!(removed[0].action.to_string(), "kill");
    assert!(
        scenario.planner.find_roots(&scenario.inventory).is_empty(),
        "told once"
    );
}

#[test]
fn events_of_devices_that_no_request_selects_change_nothing() {
    let mut scenario = Scenario::new("usb:0403:6001:A", "");
    let tree = hub_with_two_adapters();
    scenario.plug(&tree);
    let mut unrelated = Device::new(SysPath::new("/sys/devices/virtual/mem/null"));
    unrelated.subsystem = Some("mem".into());
    scenario.inventory.apply(DeviceEvent::Added(unrelated.clone()));
    assert!(
        !scenario
            .planner
            .is_affected_by(&unrelated.syspath, &scenario.inventory)
    );
    let (ours, others): (Vec<&Device>, Vec<&Device>) = tree.iter().partition(|device| {
        let root = scenario.planner.entries()[0].roots.first().expect("a root");
        device.syspath.is_at_or_below(root) || root.is_at_or_below(&device.syspath)
    });
    assert!(
        ours.len() > 3 && others.len() > 3,
        "{} and {}",
        ours.len(),
        others.len()
    );
    for device in ours {
        assert!(
            scenario
                .planner
                .is_affected_by(&device.syspath, &scenario.inventory),
            "{}",
            device.syspath
        );
    }
    for device in others {
        assert!(
            !scenario
                .planner
                .is_affected_by(&device.syspath, &scenario.inventory),
            "{}",
            device.syspath
        );
    }
}
