//! A watcher without a host.

use super::*;

pub(super) fn admit_all(_: &RequestEntry, _: &Device) -> Decision {
    Decision::Admitted
}

/// The entries of a plan that are not attached for a reason of this kind.
pub(super) fn not_attached(plan: &Plan, is_such: impl Fn(&Reason) -> bool) -> Vec<&NotAttached> {
    let all = plan.not_attached.iter();
    all.filter(|not_attached| is_such(&not_attached.reason)).collect()
}

pub(super) fn conflicts(plan: &Plan) -> usize {
    not_attached(plan, |reason| matches!(reason, Reason::Conflict(_))).len()
}

/// A watcher without a host.
pub(super) struct Scenario {
    pub(super) admit: fn(&RequestEntry, &Device) -> Decision,
    pub(super) inventory: Inventory,
    pub(super) planner: Planner,
    pub(super) attachments: Attachments,
    pub(super) granted: GrantSet,
    pub(super) container: FakeContainer,
    /// The events of devices without a node since the last plan.
    pub(super) events: Vec<Announcement>,
}

impl Scenario {
    pub(super) fn new(requests: &str, symlinks: &str) -> Self {
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
            container: FakeContainer {
                entries: Some(Entries::new()),
                ..FakeContainer::default()
            },
            events: Vec::new(),
        }
    }

    pub(super) fn plan(&mut self) -> Plan {
        self.planner.find_roots(&self.inventory);
        self.plan_postponed(&BTreeSet::new())
    }

    pub(super) fn plan_postponed(&self, postponed: &BTreeSet<PathBuf>) -> Plan {
        let candidates = self.planner.candidates(&self.inventory);
        let mut admissions = Admissions::all(&candidates);
        for (candidate, decision) in admissions.admitted_mut(&candidates) {
            *decision = (self.admit)(candidate.entry, candidate.device);
        }
        let current = Current {
            attachments: &self.attachments,
            granted: &self.granted,
            postponed,
            entries: self.container.entries.as_ref(),
            announced: &self.container.announced_devices,
            events: &self.events,
        };
        plan(&candidates, &admissions, &current)
    }

    pub(super) fn reconcile(&mut self) -> Vec<Failure> {
        let plan = self.plan();
        let given = plan.steps.iter().rev().find_map(|step| match step {
            Step::SetGrants(grants) | Step::Revoke(grants) => Some(grants),
            _ => None,
        });
        self.container.going = given.map_or_else(BTreeSet::new, |given| {
            let goes = |num: &&DevNum| !given.contains_key(num);
            self.granted.keys().filter(goes).copied().collect()
        });
        self.events.clear();
        apply(
            plan.steps,
            &mut self.attachments,
            &mut self.granted,
            &mut self.container,
            1,
        )
    }

    pub(super) fn take(&mut self, event: DeviceEvent) {
        self.events.extend(Announcement::of_event(&event));
        self.inventory.apply(event);
        let failures = self.reconcile();
        assert_eq!(failures, []);
    }

    pub(super) fn plug(&mut self, devices: &[Device]) {
        for device in devices {
            self.take(DeviceEvent::Added(device.clone()));
        }
    }

    pub(super) fn unplug(&mut self, devices: &[Device]) {
        for device in devices.iter().rev() {
            self.take(DeviceEvent::Removed {
                syspath: device.syspath.clone(),
                seqnum: 0,
            });
        }
    }

    pub(super) fn nodes(&self) -> Vec<String> {
        self.container
            .nodes
            .keys()
            .map(|path| path.display().to_string())
            .collect()
    }

    pub(super) fn links(&self) -> Vec<String> {
        self.container
            .links
            .iter()
            .map(|(link, target)| format!("{} -> {}", link.display(), target.display()))
            .collect()
    }

    /// Whether nothing of ours is left.
    pub(super) fn is_empty(&self) -> bool {
        self.container.nodes.is_empty()
            && self.container.links.is_empty()
            && self.container.granted.is_empty()
            && self.attachments.is_empty()
            && self.container.noted.is_empty()
            && self.container.entries.as_ref().is_none_or(Entries::is_empty)
    }
}

pub(super) fn tty_nodes(nodes: Vec<String>) -> Vec<String> {
    nodes.into_iter().filter(|node| node.contains("tty")).collect()
}
