//! Steps that fail.

use super::*;

/// Case security 1.
#[test]
fn a_node_that_cannot_be_removed_does_not_block_other_devices() {
    let ttys: Vec<Device> = hub_with_two_adapters()
        .into_iter()
        .filter(|device| device.subsystem.as_deref() == Some("tty") && device.node.is_some())
        .collect();
    let [stuck, other] = [0, 1].map(|index| ttys[index].node.clone().unwrap());
    let mut scenario = Scenario::new("subsystem:tty", "");
    scenario.plug(&ttys[..1]);
    scenario.container.broken.insert(stuck.path.clone());
    scenario.inventory.replace([ttys[1].clone()]);
    assert_eq!(scenario.reconcile().len(), 1);
    assert!(scenario.container.may(stuck.num).is_none(), "it has no access");
    assert!(scenario.container.nodes.contains_key(&other.path));
    assert_eq!(scenario.container.may(other.num), Access::ALL);
}

#[test]
fn a_failed_device_loses_its_access_and_affects_no_other() {
    let tree = hub_with_two_adapters();
    let ttys: Vec<&Device> = tree
        .iter()
        .filter(|device| device.subsystem.as_deref() == Some("tty") && device.node.is_some())
        .collect();
    let bad = ttys[0].node.clone().unwrap();
    let good = ttys[1].node.clone().unwrap();
    let mut scenario = Scenario::new("subsystem:tty", "");
    scenario.container.broken.insert(bad.path.clone());
    for tty in &ttys {
        scenario.inventory.apply(DeviceEvent::Added((*tty).clone()));
    }
    let failures = scenario.reconcile();
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].path.as_deref(), Some(bad.path.as_path()));
    assert!(scenario.container.nodes.contains_key(&good.path));
    assert!(scenario.container.may(bad.num).is_none());
    assert!(scenario.attachments.get(&bad.path).is_none());
    // After the cause is removed, the node is created.
    scenario.container.broken.clear();
    assert_eq!(scenario.reconcile(), []);
    assert!(scenario.container.nodes.contains_key(&bad.path));
}
