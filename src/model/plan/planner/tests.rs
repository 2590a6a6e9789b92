mod usb_hub;

use super::*;
use crate::model::device::{Access, UdevState};
use crate::model::plan::attachment::Attachments;
use crate::model::plan::not_attached::tests::not_attached;
use crate::model::plan::{Plan, Reason, Step, plan_without_restrictions};
use crate::model::request::entry::Origin;

fn planner(requests: &[&str]) -> Planner {
    let entry = |text: &&str| RequestEntry::new(Origin::Annotation, text.parse().unwrap());
    let entry = requests.iter().map(entry).collect();
    Planner::new(entry, Vec::new(), ProcessUser::default())
}

fn tty(name: &str, udev_state: UdevState) -> Device {
    let mut device =
        crate::model::device::recorded::virtual_device("tty", name, &format!("/dev/{name}"), 4, 1);
    device.udev_state = udev_state;
    device
}

fn plan(planner: &Planner, inventory: &Inventory) -> Plan {
    plan_without_restrictions(planner, inventory, &Attachments::default())
}

#[test]
fn duplicate_requests_are_merged() {
    let rule: SymlinkRule = "usb:0403:6001:0=/dev/ttyBOARD".parse().unwrap();
    let other_rule: SymlinkRule = "usb:0403:6001:1=/dev/ttyBOARD".parse().unwrap();
    let mut all = planner(&["usb:0403"]);
    all.entries[0].roots.insert(SysPath::new("/sys/devices/a"));
    let more = planner(&["usb:0403", "usb:1050"]).entries;
    all.add(more.clone(), vec![rule.clone(), rule.clone()]);
    all.add(more, vec![rule.clone(), other_rule.clone()]);
    let requests: Vec<String> = all.entries().iter().map(RequestEntry::display_name).collect();
    assert_eq!(requests, ["usb:0403", "usb:1050"]);
    assert_eq!(all.entries()[0].roots.len(), 1, "the one that was there stays");
    assert_eq!(all.symlinks(), [rule, other_rule]);
}

#[test]
fn entries_with_the_same_request_share_its_id_and_ids_are_not_used_again() {
    let request: Request = "usb:0403".parse().unwrap();
    let entry = |origin| RequestEntry::new(origin, request.clone());
    let mut all = planner(&["usb:0403", "usb:1050"]);
    all.add(vec![entry(Origin::Root)], Vec::new());
    let ids: Vec<RequestId> = all.requests().map(|(id, _)| id).collect();
    let second = RequestId::FIRST.next();
    assert_eq!(ids, [RequestId::FIRST, second, RequestId::FIRST]);
    all.remove(&[entry(Origin::Annotation)]);
    assert_eq!(all.request(RequestId::FIRST), Some(&request));
    all.remove(&[entry(Origin::Root)]);
    assert_eq!(all.request(RequestId::FIRST), None);
    assert!(!all.is_without_root(RequestId::FIRST) && all.is_without_root(second));
    all.add(vec![entry(Origin::Annotation)], Vec::new());
    assert_eq!(all.id_of(&request), Some(second.next()));
}

#[test]
fn a_request_is_shown_by_its_id_until_it_is_removed() {
    let mut all = planner(&["usb:0403"]);
    let id = RequestId::FIRST;
    let reserved = not_attached(Reason::Reserved("it is reserved".into()));
    assert_eq!(all.text(id), "usb:0403");
    let described = all.describe(&reserved).unwrap();
    assert_eq!(described, "device request \"usb:0403\": it is reserved");
    all.remove(&planner(&["usb:0403"]).entries);
    assert_eq!((all.text(id).as_str(), all.describe(&reserved)), ("", None));
}

#[test]
fn nodes_belong_to_the_user_of_the_container_unless_the_request_says_otherwise() {
    let inventory = Inventory::new([tty("tty1", UdevState::Processed)]);
    let owner = |request: &str| {
        let entry = RequestEntry::new(Origin::Annotation, request.parse().unwrap());
        let mut planner = Planner::new(vec![entry], Vec::new(), ProcessUser { uid: 7, gid: 8 });
        planner.find_roots(&inventory);
        let nodes = plan(&planner, &inventory).steps.into_iter();
        let mut nodes = nodes.filter_map(|step| match step {
            Step::AddNode { attachment, .. } => Some((attachment.node.uid, attachment.node.gid)),
            _ => None,
        });
        nodes.next()
    };
    assert_eq!(owner("devnode:/dev/tty1"), Some((7, 8)));
    assert_eq!(owner("devnode:/dev/tty1;uid=9"), Some((9, 8)));
}

#[test]
fn a_remote_device_is_bound_until_it_is_unbound_or_bound_again() {
    let [one, other] = ["lab/0403:6001", "lab/1050:0407"].map(|text| text.parse::<RemoteDevice>().unwrap());
    let bound = |minor| Binding {
        syspath: SysPath::new("/sys/devices/vhci/1-1"),
        num: crate::model::device::DevNum {
            kind: crate::model::device::DevKind::Char,
            major: 189,
            minor,
        },
        last: "1-1,0,40000".parse().unwrap(),
    };
    let mut all = planner(&[]);
    all.bind(one.clone(), bound(1));
    all.bind(other.clone(), bound(2));
    all.bind(one.clone(), bound(3));
    assert_eq!(all.bound(), [(other.clone(), bound(2)), (one.clone(), bound(3))]);
    all.unbind(&other);
    assert_eq!(all.bound(), [(one, bound(3))]);
    assert_eq!(all.bound_as(&other), None);
}

#[test]
fn a_root_that_moves_in_sysfs_stays_a_root() {
    let [root, below, other] = [
        "/sys/devices/a/1-1",
        "/sys/devices/a/1-1/1-1.1",
        "/sys/devices/a/1-10",
    ]
    .map(SysPath::new);
    let mut all = planner(&["usb:0403"]);
    all.entries[0].roots = [root.clone(), below, other.clone()].into();
    all.entries[0].named = Some([root.clone()].into());
    let to = SysPath::new("/sys/devices/b/2-1");
    all.follow_move(&root, &to);
    let moved = SysPath::new("/sys/devices/b/2-1/1-1.1");
    assert_eq!(all.entries()[0].roots, [to.clone(), moved, other].into());
    assert_eq!(all.entries()[0].named, Some([to].into()));
}

#[test]
fn a_restarted_watcher_keeps_a_root_only_while_it_is_selected() {
    let inventory = Inventory::new([
        tty("tty1", UdevState::Processed),
        tty("tty2", UdevState::Processed),
    ]);
    let mut all = planner(&["devnode:/dev/tty1"]);
    let stray = inventory.iter().last().unwrap().syspath.clone();
    all.entries[0].roots.insert(stray);
    assert_eq!(all.find_roots(&inventory), []);
    let names: Vec<&str> = all.entries()[0].roots.iter().map(SysPath::name).collect();
    assert_eq!(names, ["tty1"]);
}

#[test]
fn changes_of_selected_and_reserved_devices_and_of_parents_in_joined_terms_affect_the_plan() {
    let tree = crate::model::device::recorded::hub_with_two_adapters();
    let inventory = Inventory::new(tree.clone());
    let hub = &crate::model::device::recorded::named(&tree, "1-1").syspath;
    // No root is known yet.
    assert!(!planner(&["usb:0403:6001:A"]).is_affected_by(hub, &inventory));
    assert!(planner(&["usb:0403:6001:A&subsystem:usb"]).is_affected_by(hub, &inventory));

    // The device that is named is below the parent that it makes a root.
    assert!(planner(&["parent-of:usb:0403:6001:A"]).is_affected_by(hub, &inventory));

    let before = Inventory::new([tty("tty1", UdevState::Pending)]);
    let syspath = &tty("tty1", UdevState::Pending).syspath;
    assert!(planner(&["subsystem:tty&!tag:lab"]).is_affected_by(syspath, &before));
    assert!(!planner(&["glob:/dev/other*"]).is_affected_by(syspath, &before));

    let mut all = planner(&[]);
    let reserved = |owner: Option<&str>| ReservedDevice {
        syspath: hub.clone(),
        reason: "it is looked at".into(),
        container: owner.map(Into::into),
    };
    all.set_reserved(vec![reserved(None)]);
    assert!(all.is_affected_by(hub, &inventory));
    assert!(!all.is_affected_by(syspath, &inventory), "it lies elsewhere");
    all.set_reserved(vec![reserved(Some("c1"))]);
    assert!(!all.is_affected_by(hub, &inventory));
}

#[test]
fn a_parent_of_a_reserved_device_is_reported_even_without_a_root() {
    let tree = crate::model::device::recorded::hub_with_two_adapters();
    let inventory = Inventory::new(tree.clone());
    let mut all = planner(&["parent-of:usb:0403:6001:A"]);
    all.set_reserved(vec![ReservedDevice {
        syspath: crate::model::device::recorded::named(&tree, "1-1")
            .syspath
            .clone(),
        reason: "it is another's".into(),
        container: Some("c1".into()),
    }]);
    all.find_roots(&inventory);
    let reserved = all.reserved_candidates(&inventory);
    let hub = reserved.iter().any(|reserved| reserved.device.name() == "1-1");
    assert!(hub, "{reserved:?}");
    assert_eq!(plan(&all, &inventory).not_attached, reserved);
}

#[test]
fn only_a_named_link_to_a_node_that_udevd_has_not_processed_is_unconfirmed() {
    let with_alias = |mut device: Device, alias: &str| {
        device.aliases.insert(alias.into());
        device
    };
    let nodeless = Device {
        node: None,
        ..tty("nodeless", UdevState::Pending)
    };
    let inventory = Inventory::new([
        with_alias(tty("tty1", UdevState::Pending), "/dev/board"),
        with_alias(tty("tty2", UdevState::Pending), "/dev/other"),
        with_alias(tty("tty3", UdevState::Processed), "/dev/board"),
        with_alias(nodeless, "/dev/board"),
    ]);
    let unconfirmed = |request: &str| -> Vec<String> {
        let plan = plan(&planner(&[request]), &inventory);
        let names = plan
            .unconfirmed_links
            .iter()
            .map(|syspath| syspath.name().to_owned());
        names.collect()
    };
    assert_eq!(unconfirmed("devnode:/dev/board"), ["tty1"]);
    assert_eq!(unconfirmed("subsystem:tty&!devnode:/dev/board"), [""; 0]);
}

#[test]
fn a_device_is_pending_only_if_the_facts_of_the_kernel_match() {
    let inventory = Inventory::new([tty("tty1", UdevState::Pending)]);
    let pending = |request: &str| {
        let mut all = planner(&[request]);
        all.find_roots(&inventory);
        plan(&all, &inventory).pending.len()
    };
    assert_eq!(pending("subsystem:tty&!tag:lab"), 1);
    assert_eq!(pending("tag:lab"), 0);
    assert_eq!(pending("glob:/dev/other*&!tag:lab"), 0);
}

#[test]
fn two_requests_for_one_device_do_not_conflict_and_their_access_is_combined() {
    let inventory = Inventory::new([tty("tty1", UdevState::Processed)]);
    let mut all = planner(&["subsystem:tty;access=r", "devnode:/dev/tty1;access=w"]);
    all.find_roots(&inventory);
    let plan = plan(&all, &inventory);
    assert_eq!(plan.not_attached, []);
    let granted = plan.steps.iter().find_map(|step| match step {
        Step::SetGrants(grants) => grants.values().next().copied(),
        _ => None,
    });
    assert_eq!(granted, Some(Access::READ | Access::WRITE));
}

#[test]
fn requests_are_removed_by_text_and_origin() {
    let entry = |text: &str, origin| RequestEntry::new(origin, text.parse().unwrap());
    let all = [
        entry("usb:0403", Origin::Annotation),
        entry("usb:1050", Origin::Annotation),
        entry("usb:0403", Origin::Root),
    ];
    let mut planner = Planner::new(all.to_vec(), Vec::new(), ProcessUser::default());
    let mut found = all[2].clone();
    found.roots.extend([SysPath::new("/sys/devices/a")]);
    assert_eq!(planner.remove(&[found]), 2, "with the roots that it has now");
    assert_eq!(
        planner.remove(&[all[2].clone()]),
        2,
        "nothing goes: as many as there are"
    );
    assert_eq!(planner.remove(&[all[0].clone()]), 0);
    assert_eq!(planner.entries(), [all[1].clone()]);
}

#[test]
fn a_remote_device_is_identified_by_its_number_and_not_by_its_path_alone() {
    let device = crate::model::device::recorded::hub_with_two_adapters()
        .into_iter()
        .find(|device| device.devtype.as_deref() == Some("usb_device") && device.node.is_some())
        .unwrap();
    let remote: RemoteDevice = "lab/0403:6001".parse().unwrap();
    let bound = Binding {
        syspath: device.syspath.clone(),
        num: device.node.as_ref().unwrap().num,
        last: "1-1,0,40000".parse().unwrap(),
    };
    let entry = RequestEntry::new(Origin::Root, "usbip:lab/0403:6001".parse().unwrap());
    let mut planner = Planner::new(vec![entry], Vec::new(), ProcessUser::default());
    let present = Inventory::new(vec![device.clone()]);
    planner.find_roots(&present);
    assert_eq!(planner.entries()[0].roots, BTreeSet::new(), "nothing is attached");
    planner.bind(remote.clone(), bound.clone());
    assert_eq!(planner.bound_as(&remote), Some(&bound));
    planner.find_roots(&present);
    assert_eq!(
        planner.entries()[0].roots,
        BTreeSet::from([device.syspath.clone()])
    );
    let mut another = device;
    another.node.as_mut().unwrap().num.minor += 1;
    planner.find_roots(&Inventory::new(vec![another]));
    assert_eq!(planner.entries()[0].roots, BTreeSet::new());
    assert_eq!((planner.bound(), planner.bound_as(&remote)), (&[][..], None));
}

#[test]
fn an_alternative_to_parent_of_selects_only_what_matches_now() {
    let mut inventory = Inventory::new(crate::model::device::recorded::hub_with_two_adapters());
    let request = "subsystem:tty&!tag:secret;or=parent-of:driver:ftdi_sio";
    let entry = RequestEntry::new(Origin::Annotation, request.parse().unwrap());
    let mut planner = Planner::new(vec![entry], Vec::new(), ProcessUser::default());
    planner.find_roots(&inventory);
    let before = planner.entries()[0].roots.clone();
    let of = |is_tty: bool| -> Vec<SysPath> {
        let roots = before
            .iter()
            .filter(|root| root.name().starts_with("tty") == is_tty);
        roots.cloned().collect()
    };
    let (ttys, adapters) = (of(true), of(false));
    assert!(!ttys.is_empty() && !adapters.is_empty(), "{before:?}");
    // A restarted watcher knows only the roots.
    let mut restored = planner.entries()[0].without_roots();
    restored.roots = before.clone();
    let mut restarted = Planner::new(vec![restored], Vec::new(), ProcessUser::default());
    restarted.find_roots(&inventory);
    // A new tag excludes the first tty, and no child leads to the other roots any more.
    for tty in &ttys {
        let device = inventory.get_mut(tty).unwrap();
        device.tags.insert("secret".into());
        device.udev_state = UdevState::Processed;
    }
    for device in inventory
        .iter()
        .map(|device| device.syspath.clone())
        .collect::<Vec<_>>()
    {
        inventory.get_mut(&device).unwrap().driver = None;
    }
    for mut planner in [planner, restarted] {
        assert_eq!(planner.find_roots(&inventory), []);
        let after: Vec<SysPath> = planner.entries()[0].roots.iter().cloned().collect();
        assert_eq!(after, adapters);
    }
}

#[test]
fn a_reserved_device_is_not_selected_and_the_devices_beside_it_are() {
    let inventory = Inventory::new(crate::model::device::recorded::hub_with_two_adapters());
    let mut adapters = inventory.iter().filter(|device| device.node.is_some());
    let anothers = adapters
        .find(|device| {
            let is_adapter = "usb:0403:6001".parse::<Request>().unwrap();
            is_adapter.selector.names_itself(device) == Match::Yes
        })
        .unwrap();
    let requests = ["usb:0403:6001", "parent-of:usb:0403:6001", "subsystem:tty"];
    let entries = requests.map(|text| RequestEntry::new(Origin::Root, text.parse().unwrap()));
    let mut planner = Planner::new(entries.to_vec(), Vec::new(), ProcessUser::default());
    let selected = |planner: &mut Planner| {
        planner.find_roots(&inventory);
        let is_its = |device: &Device| device.syspath.is_at_or_below(&anothers.syspath);
        let all: Vec<bool> = planner
            .candidates(&inventory)
            .iter()
            .map(|candidate| is_its(candidate.device))
            .collect();
        (all.contains(&true), all.contains(&false))
    };
    assert_eq!(selected(&mut planner), (true, true));
    planner.set_reserved(vec![ReservedDevice {
        syspath: anothers.syspath.clone(),
        reason: "it is another's".into(),
        container: Some("c1".into()),
    }]);
    assert_eq!(selected(&mut planner), (false, true));
    let reserved = planner.reserved_candidates(&inventory);
    for request in requests {
        let id = planner.id_of(&request.parse().unwrap()).unwrap();
        let is_reported = reserved
            .iter()
            .any(|reserved| reserved.request == id && reserved.device.is_at_or_below(&anothers.syspath));
        assert!(is_reported, "{request}: {reserved:?}");
    }
    planner.set_reserved(Vec::new());
    assert_eq!(selected(&mut planner), (true, true));
}

#[test]
fn a_reserved_device_is_not_selected_by_another_name_of_its_node() {
    let mut devices = crate::model::device::recorded::hub_with_two_adapters();
    let place = SysPath::new(devices[0].syspath.as_str());
    let node = devices.iter().find_map(|device| device.node.clone()).unwrap();
    let mut other = Device::new(SysPath::new("/sys/devices/oci-hotplug-node/dev/char/189:0"));
    other.subsystem = Some(crate::model::device::STATIC_NODE.to_owned());
    other.udev_state = UdevState::Pending;
    other.node = Some(crate::model::device::DevNode {
        path: "/dev/char/189:0".into(),
        ..node
    });
    devices.push(other);
    let inventory = Inventory::new(devices);
    let request = "node:/dev/char/189:0";
    let entry = vec![RequestEntry::new(Origin::Root, request.parse().unwrap())];
    let mut planner = Planner::new(entry, Vec::new(), ProcessUser::default());
    let count = |planner: &mut Planner| {
        planner.find_roots(&inventory);
        planner.candidates(&inventory).iter().count()
    };
    assert_eq!(count(&mut planner), 1);
    planner.set_reserved(vec![ReservedDevice {
        syspath: place,
        reason: "it is another's".into(),
        container: Some("c1".into()),
    }]);
    assert_eq!(count(&mut planner), 0);
    let reserved = planner.reserved_candidates(&inventory);
    let paths: Vec<_> = reserved.iter().map(|reserved| reserved.path.to_str()).collect();
    assert_eq!(paths, [Some("/dev/char/189:0")]);
}
