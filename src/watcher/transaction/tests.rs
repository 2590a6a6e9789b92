//! Plans and their application together: what a container has at the end, in whatever order events
//! arrive, and whatever fails in between.

mod links;
mod naming;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::{Effects, Failure, apply};
use crate::model::cgroup::grants::GrantSet;
use crate::model::device::event::DeviceEvent;
use crate::model::device::inventory::Inventory;
use crate::model::device::recorded::{before_udev, disk_with_partitions, hub_with_two_adapters, root_hubs};
use crate::model::device::{Access, DevKind, DevNum, Device, SysPath, UdevState};
use crate::model::oci::ProcessUser;
use crate::model::plan::admission::{Admissions, Decision};
use crate::model::plan::attachment::{Attachments, Found, NodeCreator, NodeSpec};
use crate::model::plan::{Current, NotAttached, Plan, Planner, Reason, Step, plan, still_due};
use crate::model::policy::Denial;
use crate::model::request::entry::{Origin, RequestEntry};
use crate::model::request::parse_requests;
use crate::model::request::symlink::parse_symlinks;
use crate::model::uevent::{UeventAction, UeventForm};

/// A container in memory, in which operations can fail.
#[derive(Default, Clone)]
struct FakeContainer {
    nodes: BTreeMap<PathBuf, NodeSpec>,
    /// Nodes of the image or the engine.
    theirs: BTreeMap<PathBuf, DevNum>,
    links: BTreeMap<PathBuf, PathBuf>,
    /// Links of the image or the engine.
    their_links: BTreeMap<PathBuf, PathBuf>,
    granted: GrantSet,
    announced: Vec<String>,
    noted: Attachments,
    /// All notes, the first one first.
    notes: Vec<Attachments>,
    journal_is_broken: bool,
    /// Paths whose operations fail.
    broken: BTreeSet<PathBuf>,
    filter_is_broken: bool,
    /// Numbers that a cgroup above the container denies.
    denied: BTreeSet<DevNum>,
    nobody_can_be_told: bool,
    /// Numbers whose access must be revoked before anything in the container is inspected.
    going: BTreeSet<DevNum>,
    log: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
#[error("{0} refuses")]
struct Refusal(String);

impl FakeContainer {
    fn check(&self, path: &Path) -> Result<(), Refusal> {
        if self.broken.contains(path) {
            Err(Refusal(path.display().to_string()))
        } else {
            Ok(())
        }
    }

    fn may(&self, num: DevNum) -> Access {
        self.granted.get(&num).copied().unwrap_or(Access::NONE)
    }

    /// Called by every operation that inspects or changes the container, because any of them could
    /// block for ever.
    fn is_entered(&self) {
        let left = self.going.iter().find(|num| self.granted.contains_key(num));
        assert!(
            left.is_none() || self.filter_is_broken,
            "the container is entered before access is revoked: {left:?}"
        );
    }
}

impl Effects for FakeContainer {
    type Error = Refusal;

    fn find_node(&mut self, path: &Path, node: &NodeSpec) -> Result<Found, Refusal> {
        self.is_entered();
        let there = self
            .nodes
            .get(path)
            .map(|node| node.num)
            .or(self.theirs.get(path).copied());
        Ok(match there {
            None => Found::Vacant,
            Some(num) if num == node.num => Found::Same,
            Some(_) => Found::Other,
        })
    }

    fn find_link(&mut self, link: &Path, target: &Path) -> Result<Found, Refusal> {
        self.is_entered();
        Ok(match self.links.get(link).or(self.their_links.get(link)) {
            None => Found::Vacant,
            Some(there) if there == target => Found::Same,
            Some(_) => Found::Other,
        })
    }

    fn add_node(&mut self, path: &Path, node: &NodeSpec) -> Result<NodeCreator, Refusal> {
        self.is_entered();
        self.check(path)?;
        assert!(
            !self.may(node.num).is_none(),
            "a node before its access: {}",
            path.display()
        );
        assert!(
            self.noted.get(path).is_some(),
            "a node before its note: {}",
            path.display()
        );
        self.log.push(format!("node {}", path.display()));
        match self.theirs.get(path) {
            Some(num) if *num == node.num => Ok(NodeCreator::Other),
            Some(_) => Err(Refusal("another node".into())),
            None => {
                self.nodes.insert(path.to_owned(), node.clone());
                Ok(NodeCreator::Watcher)
            }
        }
    }

    fn remove_node(&mut self, path: &Path, _: &NodeSpec) -> Result<(), Refusal> {
        self.is_entered();
        self.check(path)?;
        assert!(
            !self.links.values().any(|target| target == path),
            "a link to nowhere: {}",
            path.display()
        );
        self.log.push(format!("no node {}", path.display()));
        assert!(
            self.nodes.remove(path).is_some(),
            "removed what was not ours: {}",
            path.display()
        );
        Ok(())
    }

    fn add_link(&mut self, link: &Path, target: &Path) -> Result<NodeCreator, Refusal> {
        self.is_entered();
        self.check(link)?;
        assert!(
            self.nodes.contains_key(target) || self.theirs.contains_key(target),
            "a link before its node: {}",
            link.display()
        );
        if self.their_links.get(link).is_some_and(|there| there == target) {
            return Ok(NodeCreator::Other);
        }
        self.log.push(format!("link {}", link.display()));
        self.links.insert(link.to_owned(), target.to_owned());
        Ok(NodeCreator::Watcher)
    }

    fn remove_link(&mut self, link: &Path, _: &Path) -> Result<(), Refusal> {
        self.is_entered();
        self.check(link)?;
        self.log.push(format!("no link {}", link.display()));
        self.links.remove(link);
        Ok(())
    }

    fn set_grants(&mut self, grants: &GrantSet) -> Result<Vec<(DevNum, String)>, Refusal> {
        if self.filter_is_broken {
            return Err(Refusal("the filter".into()));
        }
        if !self.journal_is_broken {
            let noted = self.noted.grants();
            for (num, access) in grants {
                let is_noted = [&self.granted, &noted]
                    .iter()
                    .any(|known| known.get(num).is_some_and(|known| known.covers(*access)));
                assert!(is_noted, "access before its note: {num}");
            }
        }
        self.log.push("grants".into());
        self.granted = grants.clone();
        let refused: Vec<DevNum> = grants
            .keys()
            .copied()
            .filter(|num| self.denied.contains(num))
            .collect();
        self.granted.retain(|num, _| !refused.contains(num));
        Ok(refused
            .into_iter()
            .map(|num| (num, format!("{num} refuses")))
            .collect())
    }

    fn announce(
        &mut self,
        form: UeventForm,
        action: UeventAction,
        _: &Device,
        path: &Path,
    ) -> Result<(), Refusal> {
        self.is_entered();
        if self.nobody_can_be_told {
            return Err(Refusal("the network namespace".into()));
        }
        if form == UeventForm::Udev {
            self.announced.push(format!("{action} {}", path.display()));
            self.log.push(format!("{action} {}", path.display()));
        }
        Ok(())
    }

    fn journal(&mut self, attachments: &Attachments) -> Result<(), Refusal> {
        if self.journal_is_broken {
            return Err(Refusal("the journal".into()));
        }
        self.noted = attachments.clone();
        self.notes.push(attachments.clone());
        Ok(())
    }
}

fn admit_all(_: &RequestEntry, _: &Device) -> Decision {
    Decision::Admitted
}

/// The entries of a plan that are not attached for a reason of this kind.
fn not_attached(plan: &Plan, is_such: impl Fn(&Reason) -> bool) -> Vec<&NotAttached> {
    let all = plan.not_attached.iter();
    all.filter(|not_attached| is_such(&not_attached.reason)).collect()
}

fn conflicts(plan: &Plan) -> usize {
    not_attached(plan, |reason| matches!(reason, Reason::Conflict(_))).len()
}

/// A watcher without a host.
struct Scenario {
    admit: fn(&RequestEntry, &Device) -> Decision,
    inventory: Inventory,
    planner: Planner,
    attachments: Attachments,
    granted: GrantSet,
    container: FakeContainer,
}

impl Scenario {
    fn new(requests: &str, symlinks: &str) -> Self {
        let entry = parse_requests(requests)
            .unwrap()
            .into_iter()
            .map(|request| RequestEntry::new(Origin::Annotation, request))
            .collect();
        let rules = if symlinks.is_empty() {
            Vec::new()
        } else {
            parse_symlinks(symlinks).unwrap()
        };
        Self {
            admit: admit_all,
            inventory: Inventory::default(),
            planner: Planner::new(entry, rules, ProcessUser { uid: 1000, gid: 100 }),
            attachments: Attachments::default(),
            granted: GrantSet::new(),
            container: FakeContainer::default(),
        }
    }

    fn plan(&mut self) -> Plan {
        self.planner.find_roots(&self.inventory);
        self.plan_postponed(&BTreeSet::new())
    }

    fn plan_postponed(&self, postponed: &BTreeSet<PathBuf>) -> Plan {
        let candidates = self.planner.candidates(&self.inventory);
        let mut admissions = Admissions::all(&candidates);
        for (candidate, decision) in admissions.admitted_mut(&candidates) {
            *decision = (self.admit)(candidate.entry, candidate.device);
        }
        let current = Current {
            attachments: &self.attachments,
            granted: &self.granted,
            postponed,
        };
        plan(&candidates, &admissions, &current)
    }

    fn reconcile(&mut self) -> Vec<Failure> {
        let plan = self.plan();
        let given = plan.steps.iter().rev().find_map(|step| match step {
            Step::SetGrants(grants) | Step::Revoke(grants) => Some(grants),
            _ => None,
        });
        self.container.going = given.map_or_else(BTreeSet::new, |given| {
            let goes = |num: &&DevNum| !given.contains_key(num);
            self.granted.keys().filter(goes).copied().collect()
        });
        apply(
            plan.steps,
            &mut self.attachments,
            &mut self.granted,
            &mut self.container,
            1,
        )
    }

    fn take(&mut self, event: DeviceEvent) {
        self.inventory.apply(event);
        let failures = self.reconcile();
        assert_eq!(failures, []);
    }

    fn plug(&mut self, devices: &[Device]) {
        for device in devices {
            self.take(DeviceEvent::Added(device.clone()));
        }
    }

    fn unplug(&mut self, devices: &[Device]) {
        for device in devices.iter().rev() {
            self.take(DeviceEvent::Removed {
                syspath: device.syspath.clone(),
                seqnum: 0,
            });
        }
    }

    fn nodes(&self) -> Vec<String> {
        self.container
            .nodes
            .keys()
            .map(|path| path.display().to_string())
            .collect()
    }

    fn links(&self) -> Vec<String> {
        self.container
            .links
            .iter()
            .map(|(link, target)| format!("{} -> {}", link.display(), target.display()))
            .collect()
    }

    /// Whether nothing of ours is left.
    fn is_empty(&self) -> bool {
        self.container.nodes.is_empty()
            && self.container.links.is_empty()
            && self.container.granted.is_empty()
            && self.attachments.is_empty()
            && self.container.noted.is_empty()
    }
}

fn tty_nodes(nodes: Vec<String>) -> Vec<String> {
    nodes.into_iter().filter(|node| node.contains("tty")).collect()
}

#[test]
fn a_request_selects_all_matching_devices() {
    let mut scenario = Scenario::new("usb:0403:6001", "");
    scenario.plug(&hub_with_two_adapters());
    assert_eq!(tty_nodes(scenario.nodes()).len(), 2, "{:?}", scenario.nodes());
    scenario.unplug(&hub_with_two_adapters());
    assert!(scenario.is_empty());
}

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
        log.starts_with("grants\nremove ")
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
fn a_node_of_the_engine_is_adopted_and_not_removed() {
    let tree = hub_with_two_adapters();
    let tty = tree
        .iter()
        .find(|device| device.subsystem.as_deref() == Some("tty") && device.node.is_some())
        .unwrap();
    let node = tty.node.clone().unwrap();
    let mut scenario = Scenario::new("subsystem:tty", "");
    scenario.container.theirs.insert(node.path.clone(), node.num);
    scenario.plug(std::slice::from_ref(tty));
    assert!(scenario.container.nodes.is_empty());
    assert_eq!(scenario.container.may(node.num), Access::ALL);
    scenario.unplug(std::slice::from_ref(tty));
    assert!(scenario.container.theirs.contains_key(&node.path));
    assert!(scenario.is_empty());
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
fn removal_does_not_depend_on_the_announcement() {
    let mut scenario = Scenario::new("usb:0403:6001", "");
    scenario.container.nobody_can_be_told = true;
    scenario.plug(&hub_with_two_adapters());
    assert_eq!(tty_nodes(scenario.nodes()).len(), 2);
    scenario.unplug(&hub_with_two_adapters());
    assert!(scenario.is_empty());
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
fn the_first_device_keeps_a_path_and_the_second_gets_it_afterwards() {
    let tree = hub_with_two_adapters();
    let ttys: Vec<Device> = tree
        .iter()
        .filter(|device| device.subsystem.as_deref() == Some("tty") && device.node.is_some())
        .cloned()
        .collect();
    let mut scenario = Scenario::new("subsystem:tty;path=/dev/board", "");
    // The device whose path is later in order is plugged in first.
    scenario.plug(&ttys[1..]);
    scenario.plug(&ttys[..1]);
    let held = |scenario: &Scenario| {
        scenario
            .attachments
            .get(Path::new("/dev/board"))
            .unwrap()
            .device
            .syspath
            .clone()
    };
    assert_eq!(held(&scenario), ttys[1].syspath);
    assert_eq!(conflicts(&scenario.plan()), 1);
    scenario.unplug(&ttys[1..]);
    assert_eq!(held(&scenario), ttys[0].syspath);
}

#[test]
fn link_and_path_name_the_adapters_tty_and_the_usb_node_has_its_usual_path() {
    for (option, board) in [("link", None), ("path", Some("/dev/board"))] {
        let mut scenario = Scenario::new(&format!("usb:0403:6001:A;{option}=/dev/board"), "");
        let (raw, rest): (Vec<Device>, Vec<Device>) = hub_with_two_adapters()
            .into_iter()
            .partition(|device| device.devtype.as_deref() == Some("usb_device"));
        scenario.plug(&raw);
        // A process that waits for /dev/board must not get the wrong device.
        assert_eq!(scenario.nodes(), ["/dev/bus/usb/001/003"]);
        assert!(scenario.container.links.is_empty());
        scenario.plug(&rest);
        let tty = board.unwrap_or("/dev/ttyUSB0");
        let mut nodes = scenario.nodes();
        nodes.sort();
        let mut wanted = ["/dev/bus/usb/001/003", tty];
        wanted.sort_unstable();
        assert_eq!(nodes, wanted);
        if board.is_none() {
            assert_eq!(
                scenario.container.links[Path::new("/dev/board")],
                Path::new("/dev/ttyUSB0")
            );
        }
        assert_eq!(scenario.plan().not_attached, []);
        scenario.unplug(&hub_with_two_adapters());
        assert!(scenario.is_empty());
    }
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
    let mut stranger = Device::new(SysPath::new("/sys/devices/virtual/mem/null"));
    stranger.subsystem = Some("mem".into());
    scenario.inventory.apply(DeviceEvent::Added(stranger.clone()));
    assert!(
        !scenario
            .planner
            .is_affected_by(&stranger.syspath, &scenario.inventory)
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

/// A device of the properties: one of a few paths, with a device that is added, processed by udevd,
/// changed and removed.
fn place(index: usize, life: u32, udev_state: UdevState, seqnum: u64) -> Device {
    let mut device = Device::new(SysPath::new(format!(
        "/sys/devices/hub/port{}/tty{index}",
        index % 2
    )));
    device.subsystem = Some("tty".into());
    device.node = Some(crate::model::device::DevNode {
        path: format!("/dev/tty{index}").into(),
        num: DevNum {
            kind: if index % 3 == 0 {
                DevKind::Block
            } else {
                DevKind::Char
            },
            major: 7,
            minor: life * 10 + index as u32,
        },
    });
    device.udev_state = udev_state;
    device.seqnum = seqnum;
    if udev_state == UdevState::Processed {
        device.links.insert(format!("/dev/by-place/{}", index % 2).into());
        device.tags.insert("spoken".into());
    }
    device
}

/// What the kernel does, in this order.
#[derive(Debug, Clone)]
enum Act {
    Plug(usize),
    Pull(usize),
    Change(usize),
}

fn any_acts() -> impl Strategy<Value = Vec<Act>> {
    let act = (0..3, 0..4usize).prop_map(|(what, index)| match what {
        0 => Act::Plug(index),
        1 => Act::Pull(index),
        _ => Act::Change(index),
    });
    prop::collection::vec(act, 1..30)
}

const REQUESTS: [&str; 5] = [
    "subsystem:tty",
    "subsystem:tty;path=/dev/one, glob:/dev/tty*;access=r",
    "tag:spoken;link=/dev/spoken",
    "subsystem:tty&!tag:spoken",
    "devnode:/dev/tty1;ready=udev, devnode:/dev/by-place/0;mode=0600",
];

/// The events of the kernel and those of udevd for these acts, each in their own order.
fn events(acts: &[Act]) -> (Vec<DeviceEvent>, Vec<DeviceEvent>) {
    let mut lives = [0u32; 4];
    let mut present = [false; 4];
    let (mut kernel, mut udevd) = (Vec::new(), Vec::new());
    for (seqnum, act) in (1u64..).zip(acts) {
        match *act {
            Act::Plug(index) if !present[index] => {
                lives[index] += 1;
                present[index] = true;
                kernel.push(DeviceEvent::Added(place(
                    index,
                    lives[index],
                    UdevState::Pending,
                    seqnum,
                )));
                udevd.push(DeviceEvent::Added(place(
                    index,
                    lives[index],
                    UdevState::Processed,
                    seqnum,
                )));
            }
            Act::Pull(index) if present[index] => {
                present[index] = false;
                let syspath = place(index, 0, UdevState::Pending, 0).syspath;
                kernel.push(DeviceEvent::Removed {
                    syspath: syspath.clone(),
                    seqnum,
                });
                udevd.push(DeviceEvent::Removed { syspath, seqnum });
            }
            Act::Change(index) if present[index] => {
                kernel.push(DeviceEvent::Changed(place(
                    index,
                    lives[index],
                    UdevState::Pending,
                    seqnum,
                )));
                udevd.push(DeviceEvent::Changed(place(
                    index,
                    lives[index],
                    UdevState::Processed,
                    seqnum,
                )));
            }
            _ => {}
        }
    }
    (kernel, udevd)
}

/// One order of both; `choices` says when udevd's next event comes. It never comes before the
/// kernel's.
fn interleave(kernel: &[DeviceEvent], udevd: &[DeviceEvent], choices: &[bool]) -> Vec<DeviceEvent> {
    let (mut from_kernel, mut from_udevd) = (0, 0);
    let mut all = Vec::new();
    for choice in choices.iter().copied().chain(std::iter::repeat(true)) {
        if from_udevd == udevd.len() {
            break;
        }
        if (choice && from_udevd < from_kernel) || from_kernel == kernel.len() {
            all.push(udevd[from_udevd].clone());
            from_udevd += 1;
        } else {
            all.push(kernel[from_kernel].clone());
            from_kernel += 1;
        }
    }
    all
}

proptest! {
    #[test]
    fn after_applying_a_plan_the_next_plan_is_empty(
        acts in any_acts(),
        choices in prop::collection::vec(any::<bool>(), 60),
        requests in prop::sample::select(&REQUESTS[..]),
    ) {
        let (kernel, udevd) = events(&acts);
        let mut scenario = Scenario::new(requests, "");
        for event in interleave(&kernel, &udevd, &choices) {
            scenario.inventory.apply(event);
            prop_assert_eq!(scenario.reconcile(), []);
            let again = scenario.plan();
            prop_assert_eq!(again.steps, []);
            prop_assert_eq!(&scenario.container.granted, &scenario.attachments.grants());
            prop_assert_eq!(&scenario.container.noted, &scenario.attachments);
        }
    }

    #[test]
    fn every_order_of_events_has_the_same_result(
        acts in any_acts(),
        choices in prop::collection::vec(any::<bool>(), 60),
        // If two devices request one path, the first one keeps it: there the history counts, on
        // purpose.
        requests in prop::sample::select(&REQUESTS[..]).prop_filter("path=", |text| !text.contains("path=")),
    ) {
        let (kernel, udevd) = events(&acts);
        let end = |choices: &[bool], each: bool| {
            let mut scenario = Scenario::new(requests, "");
            for event in interleave(&kernel, &udevd, choices) {
                scenario.inventory.apply(event);
                if each {
                    scenario.reconcile();
                }
            }
            scenario.reconcile();
            scenario
        };
        // udevd sends its event at once, at some time, or only at the end; the watcher plans after
        // each event, or once at the end.
        let (prompt, some, last) = (end(&[true; 80], true), end(&choices, true), end(&[], true));
        let once = end(&choices, false);
        for scenario in [&some, &last, &once] {
            prop_assert_eq!(&scenario.container.granted, &prompt.container.granted);
            prop_assert_eq!(scenario.nodes(), prompt.nodes());
            prop_assert_eq!(scenario.container.links.len(), prompt.container.links.len());
        }
    }

    #[test]
    fn planning_only_for_affected_devices_has_the_same_result(
        acts in any_acts(),
        choices in prop::collection::vec(any::<bool>(), 60),
        requests in prop::sample::select(&[
            "devnode:/dev/tty1;link=/dev/one",
            "tag:spoken&devnode:/dev/by-place/0",
            "parent-of:devnode:/dev/tty2",
            "parent-of:subsystem:tty&!tag:spoken",
            "syspath:/sys/devices/hub/port0",
            "subsystem:tty&tag:lab",
            "subsystem:tty&!tag:lab",
            "glob:/dev/tty*&syspath:/sys/devices/hub/port1&!tag:lab;only=tag:spoken",
            "syspath:/sys/devices/hub/port0&!tag:spoken",
        ][..]),
        port_changes in prop::collection::vec((0..40usize, 0..2usize, any::<bool>()), 0..6),
    ) {
        let (kernel, udevd) = events(&acts);
        // The kernel adds the ports first.
        let ports = [0, 1].map(|port| Device::new(SysPath::new(format!("/sys/devices/hub/port{port}"))));
        let mut scenario = Scenario::new(requests, "");
        scenario.plug(&ports);
        let mut events = interleave(&kernel, &udevd, &choices);
        for (at, port, is_tagged) in port_changes {
            let mut port = ports[port].clone();
            port.udev_state = UdevState::Processed;
            if is_tagged {
                port.tags.insert("lab".into());
            }
            events.insert(at.min(events.len()), DeviceEvent::Changed(port));
        }
        let mut pending = false;
        for event in events {
            let syspath = event.syspath().cloned().expect("no overrun");
            scenario.inventory.apply(event);
            let affected = pending || scenario.planner.is_affected_by(&syspath, &scenario.inventory);
            // A watcher that does not plan does not look for roots either.
            let roots = scenario.planner.clone();
            let plan = scenario.plan();
            if affected {
                prop_assert_eq!(scenario.reconcile(), []);
            } else {
                prop_assert!(plan.steps.is_empty(), "{} was not to matter: {:?}", syspath, plan.steps);
                scenario.planner = roots;
            }
            pending = affected && !scenario.plan().pending.is_empty();
        }
    }

    #[test]
    fn after_all_devices_are_unplugged_nothing_is_left_despite_earlier_failures(
        acts in any_acts(),
        choices in prop::collection::vec(any::<bool>(), 60),
        requests in prop::sample::select(&REQUESTS[..]),
        broken in prop::collection::btree_set(0..4usize, 0..3),
        broken_link in any::<bool>(),
    ) {
        let (kernel, udevd) = events(&acts);
        let mut scenario = Scenario::new(requests, "");
        scenario.container.broken = broken.iter().map(|index| format!("/dev/tty{index}").into()).collect();
        if broken_link {
            scenario.container.broken.insert("/dev/by-place/0".into());
        }
        for event in interleave(&kernel, &udevd, &choices) {
            scenario.inventory.apply(event);
            scenario.reconcile();
            for (path, node) in &scenario.container.nodes {
                let stuck = scenario.container.broken.contains(path);
                prop_assert!(stuck || !scenario.container.may(node.num).is_none(), "{} without access", path.display());
            }
            for num in scenario.container.granted.keys() {
                let has_node = scenario.container.nodes.values().any(|node| node.num == *num);
                prop_assert!(has_node, "{} granted without a node", num);
            }
        }
        scenario.container.broken.clear();
        scenario.inventory.replace([]);
        prop_assert_eq!(scenario.reconcile(), []);
        prop_assert!(scenario.is_empty());
    }
}
