//! The udev database of the container.

use super::*;
use crate::model::device::{STATIC_NODE, STATIC_NODES};

fn entries(scenario: &Scenario) -> Vec<String> {
    let entries = scenario.container.entries.iter().flatten();
    entries.map(|(id, _)| id.to_string()).collect()
}

fn position(log: &[String], what: &str) -> usize {
    let found = log.iter().position(|entry| entry == what);
    found.unwrap_or_else(|| panic!("{what} in {log:?}"))
}

/// A tty with a node, and the devices above it.
fn tty_with_parents() -> (Device, Vec<Device>) {
    let tree = hub_with_two_adapters();
    let is_tty = |device: &&Device| device.subsystem.as_deref() == Some("tty") && device.node.is_some();
    let tty = tree.iter().find(is_tty).unwrap().clone();
    let is_above = |device: &Device| tty.syspath.is_at_or_below(&device.syspath);
    (tty.clone(), tree.into_iter().filter(is_above).collect())
}

#[test]
fn the_order_is_node_link_parents_entry_announcement_and_the_entry_goes_before_the_announcement() {
    let (tty, above) = tty_with_parents();
    let node = tty.node.as_ref().unwrap();
    let path = node.path.display().to_string();
    let own = DatabaseId::of(&tty).unwrap();
    let mut scenario = Scenario::new(&format!("devnode:{path};link=/dev/board"), "");
    scenario.inventory.replace(
        above
            .iter()
            .filter(|device| device.syspath != tty.syspath)
            .cloned(),
    );
    scenario.plug(std::slice::from_ref(&tty));
    let log = std::mem::take(&mut scenario.container.log);
    let parent = DatabaseId::of(scenario.inventory.ancestors(&tty.syspath).next().unwrap()).unwrap();
    let order = [
        format!("node {path}"),
        "link /dev/board".to_owned(),
        format!("entry {parent}"),
        format!("entry {own}"),
        format!("add {path}"),
    ];
    let positions: Vec<usize> = order.iter().map(|what| position(&log, what)).collect();
    assert!(positions.is_sorted(), "{log:?}");
    let written = scenario.container.entries.as_ref().unwrap()[&own]
        .clone()
        .unwrap();
    assert_eq!(written.kind, EntryKind::Attached);
    assert!(written.links.contains(Path::new("/dev/board")));
    scenario.unplug(std::slice::from_ref(&tty));
    let log = std::mem::take(&mut scenario.container.log);
    let order = [
        "grants".to_owned(),
        format!("no entry {own}"),
        format!("remove {path}"),
    ];
    let positions: Vec<usize> = order.iter().map(|what| position(&log, what)).collect();
    assert!(positions.is_sorted(), "{log:?}");
    assert_eq!(entries(&scenario), [""; 0], "the parents' entries go, too");
}

#[test]
fn a_device_has_no_entry_before_udevd_has_processed_it() {
    let (mut tty, _) = tty_with_parents();
    tty.udev_state = UdevState::Pending;
    tty.seqnum = 5;
    let mut scenario = Scenario::new("subsystem:tty", "");
    scenario.plug(std::slice::from_ref(&tty));
    assert_eq!(scenario.nodes().len(), 1);
    assert_eq!(entries(&scenario), [""; 0]);
    tty.udev_state = UdevState::Processed;
    scenario.take(DeviceEvent::Changed(tty.clone()));
    assert_eq!(entries(&scenario).len(), 1);
    // udevd rewrites its entry with each event.
    scenario.container.log.clear();
    tty.seqnum = 6;
    scenario.take(DeviceEvent::Changed(tty.clone()));
    let id = DatabaseId::of(&tty).unwrap();
    let path = tty.node.unwrap().path.display().to_string();
    assert_eq!(
        scenario.container.log,
        [format!("entry {id}"), format!("change {path}")]
    );
}

#[test]
fn parents_and_devices_without_a_node_have_entries_of_their_kind() {
    let tree = hub_with_two_adapters();
    let mut scenario = Scenario::new("usb:0403:6001", "");
    scenario.inventory.replace(tree.clone());
    assert_eq!(scenario.reconcile(), []);
    let kinds: BTreeSet<(EntryKind, bool)> = scenario
        .container
        .entries
        .iter()
        .flatten()
        .map(|(id, facts)| (facts.as_ref().unwrap().kind, matches!(id, DatabaseId::Name(_))))
        .collect();
    assert!(kinds.contains(&(EntryKind::Attached, false)), "{kinds:?}");
    assert!(kinds.contains(&(EntryKind::Nodeless, true)), "{kinds:?}");
    // The hub above the adapters has a node, which is not attached.
    assert!(kinds.contains(&(EntryKind::Parent, false)), "{kinds:?}");
    assert!(!kinds.contains(&(EntryKind::Attached, true)), "{kinds:?}");
    scenario.inventory.replace([]);
    assert_eq!(scenario.reconcile(), []);
    assert!(scenario.is_empty());
}

#[test]
fn the_entry_of_a_number_that_another_device_takes_is_written_anew() {
    let (tty, _) = tty_with_parents();
    let own = DatabaseId::of(&tty).unwrap();
    let mut other = tty.clone();
    other.syspath = SysPath::new("/sys/devices/platform/tty/ttyUSB7");
    let mut scenario = Scenario::new("subsystem:tty", "");
    scenario.plug(std::slice::from_ref(&tty));
    scenario.container.log.clear();
    scenario.inventory.replace([other]);
    assert_eq!(scenario.reconcile(), []);
    let log = &scenario.container.log;
    let order = [format!("no entry {own}"), format!("entry {own}")];
    let positions: Vec<usize> = order.iter().map(|what| position(log, what)).collect();
    assert!(positions.is_sorted(), "{log:?}");
}

#[test]
fn the_entry_of_a_number_stays_while_one_of_its_nodes_stays() {
    let (tty, _) = tty_with_parents();
    let path = tty.node.as_ref().unwrap().path.display().to_string();
    let of = |name: &str| format!("devnode:{path};path=/dev/{name}");
    let mut scenario = Scenario::new(&format!("{},{}", of("a"), of("b")), "");
    scenario.plug(std::slice::from_ref(&tty));
    assert_eq!(scenario.nodes(), ["/dev/a", "/dev/b"]);
    scenario.container.log.clear();
    let request = of("b").parse().unwrap();
    scenario
        .planner
        .remove(&[RequestEntry::new(Origin::Annotation, request)]);
    assert_eq!(scenario.reconcile(), []);
    assert_eq!(scenario.nodes(), ["/dev/a"]);
    let log = &scenario.container.log;
    assert!(!log.iter().any(|entry| entry.contains("entry")), "{log:?}");
}

#[test]
fn an_entry_is_certain_without_udevd_or_if_sysfs_knows_its_node() {
    let tree = hub_with_two_adapters();
    let certain = |state: UdevState| {
        let mut scenario = Scenario::new("usb:0403:6001", "");
        let devices = tree.iter().cloned().map(|mut device| {
            device.udev_state = state;
            device
        });
        scenario.inventory.replace(devices);
        assert_eq!(scenario.reconcile(), []);
        let entries = scenario.container.entries.unwrap();
        let of_kind = |kind| entries.values().flatten().filter(move |facts| facts.kind == kind);
        let all = |kind| of_kind(kind).all(|facts| facts.is_certain);
        let none = |kind| of_kind(kind).all(|facts| !facts.is_certain);
        assert!(all(EntryKind::Attached) && none(EntryKind::Parent));
        (all(EntryKind::Nodeless), none(EntryKind::Nodeless))
    };
    assert_eq!(certain(UdevState::Processed), (false, true));
    assert_eq!(certain(UdevState::NoUdevd), (true, false));

    let mut node = tty_with_parents().0;
    node.syspath = SysPath::new(format!("{STATIC_NODES}/dev/x"));
    node.subsystem = Some(STATIC_NODE.into());
    node.node.as_mut().unwrap().path = "/dev/x".into();
    let mut scenario = Scenario::new("node:/dev/x", "");
    scenario.inventory.replace([node]);
    assert_eq!(scenario.reconcile(), []);
    let entries = scenario.container.entries.unwrap().into_values().flatten();
    let certain: Vec<bool> = entries.map(|facts| facts.is_certain).collect();
    assert_eq!(certain, [false]);
}

#[test]
fn a_plan_of_several_nodes_writes_each_entry_once() {
    let mut scenario = Scenario::new("usb:0403:6001", "");
    scenario.inventory.replace(hub_with_two_adapters());
    assert_eq!(scenario.reconcile(), []);
    let log = &scenario.container.log;
    let written: Vec<&String> = log.iter().filter(|step| step.starts_with("entry ")).collect();
    let different: BTreeSet<&&String> = written.iter().collect();
    assert_eq!(different.len(), written.len(), "{written:?}");
    assert_eq!(written.len(), entries(&scenario).len());
}

#[test]
fn entries_of_an_earlier_watcher_are_written_again_or_removed() {
    let (tty, _) = tty_with_parents();
    let mut scenario = Scenario::new("subsystem:tty", "");
    scenario.plug(std::slice::from_ref(&tty));
    let own = DatabaseId::of(&tty).unwrap();
    let stray = DatabaseId::parse("c4095:1").unwrap();
    scenario.container.entries = Some([(own.clone(), None), (stray.clone(), None)].into());
    scenario.container.log.clear();
    assert_eq!(scenario.reconcile(), []);
    assert_eq!(
        scenario.container.log,
        [format!("no entry {stray}"), format!("entry {own}")]
    );
    assert_eq!(scenario.plan().steps, []);
}

#[test]
fn a_container_without_a_database_has_the_same_steps_without_entries() {
    let mut scenario = Scenario::new("usb:0403:6001", "");
    scenario.container.entries = None;
    scenario.plug(&hub_with_two_adapters());
    assert_eq!(tty_nodes(scenario.nodes()).len(), 2);
    scenario.unplug(&hub_with_two_adapters());
    assert!(scenario.is_empty());
}

#[test]
fn an_entry_that_cannot_be_written_is_a_failure_that_leaves_the_device_attached() {
    let (tty, _) = tty_with_parents();
    let path = path_of_entry(&DatabaseId::of(&tty).unwrap());
    let mut scenario = Scenario::new("subsystem:tty", "");
    scenario.inventory.replace([tty.clone()]);
    scenario.container.broken.insert(path.clone());
    let failures = scenario.reconcile();
    let paths: Vec<_> = failures.iter().map(|failure| failure.path.clone()).collect();
    assert_eq!(paths, [Some(path.clone())]);
    assert_eq!(scenario.nodes().len(), 1);
    assert_eq!(scenario.container.announced.len(), 1);
    let plan = scenario.plan_postponed(&BTreeSet::from([path.clone()]));
    assert_eq!((plan.steps, plan.postponed), (Vec::new(), vec![path]));
    scenario.container.broken.clear();
    assert_eq!(scenario.reconcile(), []);
    assert_eq!(entries(&scenario).len(), 1);
}
