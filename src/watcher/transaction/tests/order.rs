//! The order of steps, and when access ends.

use super::*;

#[test]
fn steps_are_ordered_grant_node_link_announcement_and_revocation_before_removal() {
    let tree = hub_with_two_adapters();
    let tty = tree
        .iter()
        .find(|device| device.subsystem.as_deref() == Some("tty") && device.node.is_some())
        .unwrap();
    let node = tty.node.as_ref().unwrap().path.display().to_string();
    let mut scenario = Scenario::new(&format!("devnode:{node};link=/dev/board"), "");
    scenario.plug(std::slice::from_ref(tty));
    let position = |log: &[String], what: &str| {
        log.iter()
            .position(|entry| entry == what)
            .unwrap_or_else(|| panic!("{what} in {log:?}"))
    };
    let log = std::mem::take(&mut scenario.container.log);
    assert!(
        position(&log, "grants") < position(&log, &format!("node {node}")),
        "{log:?}"
    );
    assert!(
        position(&log, &format!("node {node}")) < position(&log, "link /dev/board"),
        "{log:?}"
    );
    assert!(
        position(&log, "link /dev/board") < position(&log, &format!("add {node}")),
        "{log:?}"
    );
    scenario.unplug(std::slice::from_ref(tty));
    let log = std::mem::take(&mut scenario.container.log);
    assert!(
        position(&log, &format!("remove {node}")) < position(&log, "no link /dev/board"),
        "{log:?}"
    );
    assert!(
        position(&log, "no link /dev/board") < position(&log, &format!("no node {node}")),
        "{log:?}"
    );
    assert_eq!(position(&log, "grants"), 0, "{log:?}");
    let revocations = log.iter().filter(|entry| *entry == "grants").count();
    assert_eq!(revocations, 1, "and nothing is granted afterwards: {log:?}");
}

/// Case security 1.
#[test]
fn revocation_precedes_inspection_of_the_container_even_if_another_device_is_added() {
    let ttys: Vec<Device> = hub_with_two_adapters()
        .into_iter()
        .filter(|device| device.subsystem.as_deref() == Some("tty") && device.node.is_some())
        .collect();
    let mut scenario = Scenario::new("subsystem:tty;link=/dev/board", "");
    scenario.plug(&ttys[..1]);
    scenario.container.log.clear();
    scenario.inventory.replace([ttys[1].clone()]);
    assert_eq!(scenario.reconcile(), []);
    let [gone, here] = [0, 1].map(|index| ttys[index].node.clone().unwrap());
    let log = scenario.container.log.join("\n");
    assert!(
        log.starts_with("grants\nno entry c188:0\nremove ")
            && log.contains(&format!("no node {}\ngrants\nnode", gone.path.display())),
        "{log}"
    );
    assert!(scenario.container.may(gone.num).is_none());
    assert_eq!(scenario.container.may(here.num), Access::ALL);
}

/// Case security 1.
#[test]
fn access_is_due_only_while_the_device_exists_with_its_number() {
    let mut tty = hub_with_two_adapters()
        .into_iter()
        .find(|device| device.subsystem.as_deref() == Some("tty") && device.node.is_some())
        .unwrap();
    let mut scenario = Scenario::new("subsystem:tty", "");
    scenario.plug(std::slice::from_ref(&tty));
    let due = |scenario: &Scenario| still_due(&scenario.granted, &scenario.attachments, &scenario.inventory);
    assert_eq!(due(&scenario), scenario.granted);
    // A grant without a device, such as one of a watcher that was killed, is not due.
    let stray = DevNum {
        kind: DevKind::Block,
        major: 8,
        minor: 0,
    };
    scenario.granted.insert(stray, Access::ALL);
    assert!(!due(&scenario).contains_key(&stray));
    scenario.granted.remove(&stray);
    // Another device has replaced it, and its number may belong to any device now.
    tty.node.as_mut().unwrap().num.minor += 7;
    scenario.inventory.apply(DeviceEvent::Changed(tty.clone()));
    assert_eq!(due(&scenario), GrantSet::new());
    scenario.inventory.replace([]);
    assert_eq!(due(&scenario), GrantSet::new());
}

#[test]
fn access_stays_until_the_last_node_with_a_number_is_removed() {
    let tree = hub_with_two_adapters();
    let tty = tree
        .iter()
        .find(|device| device.subsystem.as_deref() == Some("tty") && device.node.is_some())
        .unwrap();
    let num = tty.node.as_ref().unwrap().num;
    let mut scenario = Scenario::new(
        "subsystem:tty;access=r;path=/dev/a, subsystem:tty;access=w;path=/dev/b",
        "",
    );
    scenario.plug(std::slice::from_ref(tty));
    assert_eq!(scenario.nodes(), ["/dev/a", "/dev/b"]);
    assert_eq!(scenario.container.may(num), Access::READ | Access::WRITE);
}

#[test]
fn removal_does_not_depend_on_the_announcement() {
    let mut scenario = Scenario::new("usb:0403:6001", "");
    scenario.container.nobody_can_be_told = true;
    scenario.plug(&hub_with_two_adapters());
    assert_eq!(tty_nodes(scenario.nodes()).len(), 2);
    scenario.unplug(&hub_with_two_adapters());
    assert!(scenario.is_empty());
}

#[test]
fn a_change_is_announced_as_a_change() {
    let tree = hub_with_two_adapters();
    let mut tty = tree
        .iter()
        .find(|device| device.subsystem.as_deref() == Some("tty") && device.node.is_some())
        .unwrap()
        .clone();
    let mut scenario = Scenario::new("subsystem:tty", "");
    tty.seqnum = 5;
    scenario.take(DeviceEvent::Added(tty.clone()));
    tty.seqnum = 6;
    scenario.take(DeviceEvent::Changed(tty.clone()));
    let path = tty.node.unwrap().path.display().to_string();
    assert_eq!(
        scenario.container.announced,
        [format!("add {path}"), format!("change {path}")]
    );
}
