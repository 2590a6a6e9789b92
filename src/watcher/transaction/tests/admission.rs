//! Devices that the policy or a lease does not admit.

use super::*;

fn refuse_ttys(_: &RequestEntry, device: &Device) -> Decision {
    if device.subsystem.as_deref() != Some("tty") {
        return Decision::Admitted;
    }
    Decision::Denied(Denial {
        rule: "a rule".into(),
        reason: "a reason".into(),
        hint: "a hint".into(),
        line: None,
    })
}

#[test]
fn denied_devices_are_detached_and_others_stay() {
    let mut scenario = Scenario::new("usb:0403:6001", "");
    scenario.plug(&hub_with_two_adapters());
    let all = scenario.nodes();
    scenario.admit = refuse_ttys;
    assert_eq!(scenario.reconcile(), []);
    assert_eq!(tty_nodes(scenario.nodes()), [""; 0]);
    assert_eq!(
        scenario.nodes().len(),
        2,
        "the USB nodes stay: {:?}",
        scenario.nodes()
    );
    assert_eq!(scenario.granted.len(), 2);
    let plan = scenario.plan();
    assert!(plan.steps.is_empty(), "carried out, nothing is left to do");
    let refused: Vec<_> = not_attached(&plan, |reason| matches!(reason, Reason::Denied(_)))
        .iter()
        .map(|denied| denied.path.display().to_string())
        .collect();
    assert_eq!(refused, ["/dev/ttyUSB0", "/dev/ttyUSB1"]);
    scenario.admit = admit_all;
    assert_eq!(scenario.reconcile(), []);
    assert_eq!(scenario.nodes(), all);
}

#[test]
fn a_device_denied_to_one_request_is_attached_with_the_access_of_another() {
    let mut scenario = Scenario::new("usb:0403:6001,subsystem:tty;access=r", "");
    scenario.admit = |entry, device| match entry.request.options.access == Access::READ {
        true => Decision::Admitted,
        false => refuse_ttys(entry, device),
    };
    scenario.plug(&hub_with_two_adapters());
    assert_eq!(tty_nodes(scenario.nodes()).len(), 2);
    assert_eq!(scenario.plan().not_attached, []);
    let ttys: Vec<Access> = scenario
        .granted
        .iter()
        .filter(|(num, _)| num.major == 188)
        .map(|(_, access)| *access)
        .collect();
    assert_eq!(ttys, [Access::READ, Access::READ]);
}

#[test]
fn a_device_of_another_container_is_reported_as_waiting() {
    let mut scenario = Scenario::new("subsystem:tty", "");
    scenario.admit = |_, _| Decision::Waiting("another has it".into());
    scenario.plug(&hub_with_two_adapters());
    assert!(scenario.is_empty());
    let plan = scenario.plan();
    assert_eq!((plan.not_attached.len(), plan.pending.len()), (2, 0));
    let reason = Reason::Waiting("another has it".into());
    assert!(plan.not_attached.iter().all(|waiting| waiting.reason == reason));
    scenario.admit = |_, device| Decision::Pending(device.syspath.clone());
    assert_eq!(scenario.plan().pending.len(), 2);
    scenario.admit = admit_all;
    assert_eq!(scenario.reconcile(), []);
    assert_eq!(scenario.nodes().len(), 2);
}

#[test]
fn a_device_that_is_not_attached_is_reported_while_it_exists() {
    let tree = hub_with_two_adapters();
    let tty = tree
        .iter()
        .find(|device| device.subsystem.as_deref() == Some("tty") && device.node.is_some())
        .unwrap();
    let node = tty.node.as_ref().unwrap().path.clone();
    let link = PathBuf::from("/dev/board");
    let mut scenario = Scenario::new("subsystem:tty;link=/dev/board", "");
    let told = |scenario: &Scenario, held: &[&PathBuf]| {
        let held: BTreeSet<PathBuf> = held.iter().copied().cloned().collect();
        let plan = scenario.plan_postponed(&held);
        plan.postponed.into_iter().collect::<BTreeSet<_>>()
    };
    scenario.inventory.apply(DeviceEvent::Added(tty.clone()));
    scenario.planner.find_roots(&scenario.inventory);
    assert!(told(&scenario, &[&node]).contains(&node));
    assert!(told(&scenario, &[&link]).contains(&link));
    assert!(told(&scenario, &[]).is_empty());
    scenario.unplug(std::slice::from_ref(tty));
    assert!(told(&scenario, &[&node, &link]).is_empty());
}

#[test]
fn a_node_without_access_is_not_created() {
    let mut scenario = Scenario::new("usb:0403:6001", "");
    scenario.container.filter_is_broken = true;
    for device in hub_with_two_adapters() {
        scenario.inventory.apply(DeviceEvent::Added(device));
    }
    assert!(!scenario.reconcile().is_empty());
    assert!(scenario.nodes().is_empty());
    scenario.container.filter_is_broken = false;
    assert_eq!(scenario.reconcile(), []);
    assert_eq!(tty_nodes(scenario.nodes()).len(), 2);
}

#[test]
fn a_denied_number_does_not_keep_other_devices_out() {
    let tree = hub_with_two_adapters();
    let ttys: Vec<&Device> = tree
        .iter()
        .filter(|device| device.subsystem.as_deref() == Some("tty") && device.node.is_some())
        .collect();
    let [bad, good] = [0, 1].map(|index| ttys[index].node.clone().unwrap());
    let mut scenario = Scenario::new("subsystem:tty", "");
    scenario.container.denied.insert(bad.num);
    for tty in &ttys {
        scenario.inventory.apply(DeviceEvent::Added((*tty).clone()));
    }
    let refused = vec![Failure {
        path: Some(bad.path.clone()),
        reason: format!("{} refuses", bad.num),
    }];
    assert_eq!(scenario.reconcile(), refused);
    assert_eq!(scenario.nodes(), [good.path.display().to_string()]);
    assert_eq!(scenario.granted, scenario.container.granted);
    // Once it is allowed, it is attached; if it is denied while attached, it stays as long as its
    // device does, and is reported.
    scenario.container.denied.clear();
    assert_eq!(scenario.reconcile(), []);
    assert!(scenario.container.nodes.contains_key(&bad.path));
    scenario.container.denied.insert(bad.num);
    scenario.granted.remove(&bad.num);
    assert_eq!(scenario.reconcile(), refused);
    assert!(scenario.container.nodes.contains_key(&bad.path));
    assert_eq!(scenario.container.may(good.num), Access::ALL);
    scenario.container.denied.clear();
    assert_eq!(scenario.reconcile(), []);
    assert_eq!(scenario.container.may(bad.num), Access::ALL);
    scenario.unplug(&tree);
    assert!(scenario.is_empty());
}
