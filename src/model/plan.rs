//! From what a container asks, what there is and what is inside, to what is to be done.
//!
//! Level-triggered: it does not matter which event woke us. Carrying a plan out and planning again gives the
//! empty plan. Must not know how a step is carried out (`watcher::transaction`).

pub mod attachment;
pub mod named_node;
pub mod removal;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::model::cgroup::grants::{GrantSet, common};
use crate::model::device::inventory::Inventory;
use crate::model::device::{Access, Device, Seen, SysPath};
use crate::model::plan::attachment::{Attachment, Attachments, NodeSpec};
use crate::model::plan::named_node::{Candidate, can_name, choose, unit_of};
use crate::model::policy::Denial;
use crate::model::remote::{Bound, RemoteDevice, Reserved};
use crate::model::request::entry::RequestEntry;
use crate::model::request::selector::{DeviceSelector, Found, Selector};
use crate::model::request::symlink::SymlinkRule;
use crate::model::request::{OnRemoval, Request};

/// The mode of a node when the request names none.
const DEFAULT_MODE: u32 = 0o660;

/// One thing to do inside the container. Steps stand in the order in which they are safe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Leave only this of the access that we give: before anything in the container is looked at.
    Revoke(GrantSet),
    /// Tell the container that the device of this node is about to go.
    AnnounceRemove {
        /// The node's path.
        path: PathBuf,
    },
    /// Take a link away.
    RemoveLink {
        /// The path of the node that it leads to.
        path: PathBuf,
        /// The link's own path.
        link: PathBuf,
    },
    /// Take a node away.
    RemoveNode {
        /// The node's path.
        path: PathBuf,
    },
    /// Make the access that we give exactly this.
    SetGrants(GrantSet),
    /// Put a node in place.
    AddNode {
        /// The node's path.
        path: PathBuf,
        /// What it belongs to and looks like; links are steps of their own.
        attachment: Box<Attachment>,
    },
    /// Note newer facts of a device whose node stays as it is.
    Refresh {
        /// The node's path.
        path: PathBuf,
        /// The device as it is now.
        device: Box<Device>,
        /// The access that its grant now has.
        access: Access,
    },
    /// Put a link in place.
    AddLink {
        /// The path of the node that it leads to.
        path: PathBuf,
        /// The link's own path.
        link: PathBuf,
    },
    /// Tell the container of the device of this node: that it came, or that it changed.
    Announce {
        /// The node's path.
        path: PathBuf,
    },
}

/// A device that is asked for and cannot be inside, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The device.
    pub syspath: SysPath,
    /// The node or link path that is taken.
    pub path: PathBuf,
    /// The device that has it.
    pub holder: SysPath,
}

/// Whether a device that is asked for may be inside now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It may.
    Admitted,
    /// That is certain only when udevd has spoken of this device.
    Pending(SysPath),
    /// The policy refuses it.
    Refused(Denial),
    /// Another container has it, and somebody wants it for himself: why, for people.
    Waiting(String),
}

/// Tells of each device that is asked for whether it may be inside.
pub type Admit<'a> = &'a dyn Fn(&RequestEntry, &Device) -> Admission;

/// Admits everything: for those who want to know what is asked for.
pub fn admit_all(_: &RequestEntry, _: &Device) -> Admission {
    Admission::Admitted
}

/// A device that is asked for and may not be inside.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    /// The device.
    pub syspath: SysPath,
    /// Where its node would be.
    pub path: PathBuf,
    /// The request.
    pub request: String,
    /// Why.
    pub denial: Denial,
}

/// A device that is asked for and that another container has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waiting {
    /// The device.
    pub syspath: SysPath,
    /// Where its node will be.
    pub path: PathBuf,
    /// The request.
    pub request: String,
    /// Who has it.
    pub reason: String,
}

/// A device that a request would select, were it not of another host and attached for somebody else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Withheld {
    /// The device.
    pub syspath: SysPath,
    /// Where its node would be.
    pub path: PathBuf,
    /// The request.
    pub request: String,
    /// Why.
    pub reason: String,
}

/// What is to be done, and what can't be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// Devices that are asked for, and whose place is taken by another.
    pub conflicts: Vec<Conflict>,
    /// Devices that are asked for, and of which udevd has yet to speak.
    pub pending: Vec<SysPath>,
    /// Devices that a requested link points to and that udevd has not processed yet. The link can be left from a removed device
    /// with the same node name, so such a device is not attached before udevd has processed it, however long that takes.
    pub unconfirmed_links: Vec<SysPath>,
    /// Devices that are asked for, and that the policy refuses.
    pub refused: Vec<Refusal>,
    /// Devices that are asked for, and that come when another container lets them go.
    pub waiting: Vec<Waiting>,
    /// Devices that would be asked for, were they not attached for other containers.
    pub withheld: Vec<Withheld>,
    /// The nodes and links that would be put in place, were they not held back.
    pub passed_over: Vec<PathBuf>,
}

/// A root that went away, and what its request wants done then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootRemoved {
    /// The device that was the root.
    pub root: SysPath,
    /// The request as text.
    pub request: String,
    /// What is to happen to the container.
    pub action: OnRemoval,
    /// How long the request may be without a root before that happens; `None`: it happens whatever other roots there are.
    pub grace: Option<Duration>,
}

/// Process ids as config.json gives them: nodes belong to them unless the request says otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ProcessUser {
    /// `process.user.uid`, in the container's user namespace.
    pub uid: u32,
    /// `process.user.gid`, in the container's user namespace.
    pub gid: u32,
}

/// Decides for one container.
#[derive(Debug, Clone)]
pub struct Reconciler {
    entries: Vec<RequestEntry>,
    symlinks: Vec<SymlinkRule>,
    owner: ProcessUser,
    /// The devices of other hosts that are attached for this container: few, if any.
    bound: Vec<(RemoteDevice, Bound)>,
    /// Those of others: few, if any.
    reserved: Vec<Reserved>,
    /// Devices whose facts of udev's decide whether something is a root.
    undecided: BTreeSet<SysPath>,
}

/// A node that is to be inside.
struct Wish<'a> {
    device: &'a Device,
    node: NodeSpec,
    access: Access,
    links: BTreeSet<PathBuf>,
}

/// A device that may be inside for a request, by way of a root of it.
struct Claim<'a> {
    entry: &'a RequestEntry,
    root: &'a SysPath,
    device: &'a Device,
    /// Whether it may be attached now. One that waits keeps its name free.
    is_ready: bool,
}

/// The links of symlink rules, each with the device that gets it.
type RuleLinks<'a> = Vec<(&'a PathBuf, &'a SysPath)>;

impl Reconciler {
    /// A reconciler for a container that asks for these; `owner` gets the nodes.
    pub fn new(entries: Vec<RequestEntry>, symlinks: Vec<SymlinkRule>, owner: ProcessUser) -> Self {
        Self {
            entries,
            symlinks,
            owner,
            bound: Vec::new(),
            reserved: Vec::new(),
            undecided: BTreeSet::new(),
        }
    }

    /// From now on these devices are there for `usbip:` requests alone: nothing else selects them.
    pub fn respect(&mut self, reserved: Vec<Reserved>) {
        self.reserved = reserved;
    }

    /// The devices of other hosts that are attached for this container, as far as they are there.
    pub fn bound(&self) -> &[(RemoteDevice, Bound)] {
        &self.bound
    }

    /// Which of this host's devices a remote one is, as far as it is there.
    pub fn bound_as(&self, remote: &RemoteDevice) -> Option<&Bound> {
        let mut bound = self.bound.iter();
        bound.find(|(one, _)| one == remote).map(|(_, bound)| bound)
    }

    /// From now on a remote device is this one of this host.
    pub fn bind(&mut self, remote: RemoteDevice, bound: Bound) {
        self.unbind(&remote);
        self.bound.push((remote, bound));
    }

    /// A remote device is none of this host's any more.
    pub fn unbind(&mut self, remote: &RemoteDevice) {
        self.bound.retain(|(bound, _)| bound != remote);
    }

    /// What is asked for.
    pub fn entries(&self) -> &[RequestEntry] {
        &self.entries
    }

    /// The rules for further links.
    pub fn symlinks(&self) -> &[SymlinkRule] {
        &self.symlinks
    }

    /// Adds requests and rules; what is asked for already is not asked for twice.
    pub fn add(&mut self, entries: Vec<RequestEntry>, symlinks: Vec<SymlinkRule>) {
        for new in entries {
            if !self
                .entries
                .iter()
                .any(|old| old.without_roots() == new.without_roots())
            {
                self.entries.push(new);
            }
        }
        for rule in symlinks {
            if !self.symlinks.contains(&rule) {
                self.symlinks.push(rule);
            }
        }
    }

    /// Takes requests away, wherever they came from; the place of the first that went, or how many there are.
    /// Rules for links stay: they ask for nothing by themselves.
    pub fn remove(&mut self, entries: &[RequestEntry]) -> usize {
        let goes = |old: &RequestEntry| {
            entries
                .iter()
                .any(|gone| gone.without_roots() == old.without_roots())
        };
        let first = self.entries.iter().position(goes).unwrap_or(self.entries.len());
        self.entries.retain(|old| !goes(old));
        first
    }

    /// Finds the roots of all requests anew, and tells which roots of before are gone.
    ///
    /// A parent that was found (`parent-of:`) stays selected while it exists, also when the child that named
    /// it is gone.
    pub fn find_roots(&mut self, inventory: &Inventory) -> Vec<RootRemoved> {
        let mut removed = Vec::new();
        self.undecided.clear();
        self.bound.retain(|(_, bound)| is_there(bound, inventory));
        for entry in &mut self.entries {
            let mut named = BTreeSet::new();
            let mut parents = BTreeSet::new();
            match entry.request.selector.remote() {
                Some(remote) => {
                    let bound = self.bound.iter().find(|(one, _)| *one == remote);
                    named.extend(bound.map(|(_, bound)| bound.syspath.clone()));
                }
                None => {
                    for selector in entry.request.selectors() {
                        let roots = roots_of(selector, inventory, &self.reserved, &mut self.undecided);
                        match selector.parents() {
                            0 => named.extend(roots),
                            _ => parents.extend(roots),
                        }
                    }
                }
            }
            let has_parents = entry.request.selectors().any(|selector| selector.parents() > 0);
            for old in std::mem::take(&mut entry.roots) {
                if inventory.get(&old).is_none() {
                    removed.push(RootRemoved {
                        root: old,
                        request: entry.request.to_string(),
                        action: entry.request.options.on_removal.clone(),
                        grace: entry
                            .request
                            .survives_on_another_root()
                            .then_some(entry.request.options.grace),
                    });
                } else if has_parents && !entry.named.as_ref().unwrap_or(&named).contains(&old) {
                    parents.insert(old);
                }
            }
            entry.named = Some(named.difference(&parents).cloned().collect());
            entry.roots = named.into_iter().chain(parents).collect();
        }
        removed
    }

    /// A device moved in sysfs: its root is the same one, elsewhere.
    pub fn follow_move(&mut self, from: &SysPath, to: &SysPath) {
        for entry in &mut self.entries {
            for roots in std::iter::once(&mut entry.roots).chain(&mut entry.named) {
                *roots = std::mem::take(roots)
                    .into_iter()
                    .map(|root| moved(&root, from, to).unwrap_or(root))
                    .collect();
            }
        }
    }

    /// The udev links that can change the plan when they move: links of the roots, of the devices above and below them, and
    /// all links that point elsewhere than to the device that claims them.
    pub fn followed_links<'a>(&self, inventory: &'a Inventory) -> BTreeSet<&'a PathBuf> {
        let roots = self.entries.iter().flat_map(|entry| &entry.roots);
        let devices = roots.flat_map(|root| inventory.at_or_below(root).chain(inventory.ancestors(root)));
        let mut links = BTreeSet::new();
        links.extend(inventory.lost_links());
        links.extend(devices.flat_map(|device| &device.links));
        links
    }

    /// Whether news of this device can change a plan, so far as the inventory tells, which has the news already: a request
    /// selects it, or it lies at, below or above what one has selected (a rule for links looks at what is above).
    ///
    /// Of most of a host's devices nobody here wants to know, and a plan is dear. What this can't see (a parent that
    /// comes after the child which names it) is found by whoever plans again each second.
    pub fn is_affected_by(&self, syspath: &SysPath, inventory: &Inventory) -> bool {
        let device = inventory.get(syspath);
        // What is looked at before anybody may have it may be had from one moment to the next.
        let is_looked_at =
            |reserved: &Reserved| reserved.owner.is_none() && syspath.is_at_or_below(&reserved.place);
        if self.reserved.iter().any(is_looked_at) {
            return true;
        }
        self.entries.iter().any(|entry| {
            let is_near_a_root =
                |root: &SysPath| syspath.is_at_or_below(root) || root.is_at_or_below(syspath);
            let is_affected = |selector: &DeviceSelector| {
                let is_named = |device: &Device| match selector.names(device, || inventory.chain(device)) {
                    Found::Yes => true,
                    Found::Unknown(_) => selector.names_itself(device) == Found::Yes,
                    Found::No => false,
                };
                device.is_some_and(is_named)
                    // What is true of a parent counts for all below it.
                    || (selector.terms().len() > 1 && inventory.at_or_below(syspath).any(is_named))
            };
            entry.roots.iter().any(is_near_a_root) || entry.request.selectors().any(is_affected)
        })
    }

    /// The requests that must find a device at the start and have found none.
    pub fn required_and_absent(&self) -> impl Iterator<Item = &Request> {
        self.entries
            .iter()
            .filter(|entry| entry.request.options.required && entry.roots.is_empty())
            .map(|entry| &entry.request)
    }

    /// All devices with nodes that are asked for now, whether udevd has spoken of them or not.
    /// Each with the request and the root that it hangs on; those of one root follow one another.
    pub fn selected<'a>(
        &'a self,
        inventory: &'a Inventory,
    ) -> impl Iterator<Item = (&'a RequestEntry, &'a SysPath, &'a Device)> {
        self.entries.iter().flat_map(move |entry| {
            entry.roots.iter().flat_map(move |root| {
                let is_remote = entry.request.selector.remote().is_some();
                inventory
                    .at_or_below(root)
                    .filter(move |device| {
                        device.node.is_some() && entry.request.gives(root, device, inventory) != Found::No
                    })
                    .filter(move |device| is_remote || !is_reserved(&self.reserved, device, inventory))
                    .map(move |device| (entry, root, device))
            })
        })
    }

    /// What requests would select, were it not attached for somebody else: only what has a node.
    pub fn withheld(&self, inventory: &Inventory) -> Vec<Withheld> {
        let mut withheld = Vec::new();
        for reserved in self.reserved.iter().filter(|reserved| reserved.owner.is_some()) {
            let behind_names = inventory
                .static_nodes()
                .filter(|node| inventory.real(node).syspath.is_at_or_below(&reserved.place));
            let here: Vec<&Device> = inventory
                .at_or_below(&reserved.place)
                .chain(behind_names)
                .collect();
            let local = |entry: &&RequestEntry| entry.request.selector.remote().is_none();
            for entry in self.entries.iter().filter(local) {
                let nodes = here.iter().filter(|device| {
                    let is_below = |root: &SysPath| device.syspath.is_at_or_below(root);
                    // The roots that there would be.
                    let named = here.iter().filter(|named| {
                        entry.request.selectors().any(|selector| {
                            (selector.parents() > 0 || is_below(&named.syspath))
                                && selector.names(named, || inventory.chain(named)) == Found::Yes
                        })
                    });
                    let gives = |root| entry.request.gives(root, device, inventory) != Found::No;
                    let mut roots = entry.roots.iter().filter(|root| is_below(root));
                    device.node.is_some()
                        && (roots.any(gives) || named.map(|named| &named.syspath).any(gives))
                });
                withheld.extend(nodes.map(|device| Withheld {
                    syspath: device.syspath.clone(),
                    path: place_of(entry, device),
                    request: entry.request.to_string(),
                    reason: reserved.reason.clone(),
                }));
            }
        }
        withheld
    }

    /// What is to be done so that exactly what is asked for and present is inside.
    ///
    /// `granted` is the access that is in force now. `held_back` are nodes and links that failed lately and
    /// are to be left alone for now. `admit` is asked of each device, each time: what it admitted before, it may
    /// refuse now.
    pub fn plan(
        &self,
        inventory: &Inventory,
        inside: &Attachments,
        granted: &GrantSet,
        held_back: &BTreeSet<PathBuf>,
        admit: Admit<'_>,
    ) -> Plan {
        let mut plan = Plan {
            withheld: self.withheld(inventory),
            unconfirmed_links: self.unconfirmed_links(inventory),
            ..Plan::default()
        };
        let wishes = self.wishes(inventory, inside, held_back, admit, &mut plan);
        let grants = grants_of(&wishes);
        let kept = common(granted, &grants);
        if kept != *granted {
            plan.steps.push(Step::Revoke(kept.clone()));
        }
        plan_removals(&wishes, inside, &mut plan.steps);
        if grants != kept {
            plan.steps.push(Step::SetGrants(grants));
        }
        plan_additions(&wishes, inside, held_back, &mut plan);
        plan
    }

    fn unconfirmed_links(&self, inventory: &Inventory) -> Vec<SysPath> {
        let selectors = self.entries.iter().flat_map(|entry| entry.request.selectors());
        let terms = selectors.flat_map(|selector| selector.terms());
        let links: Vec<&PathBuf> = terms
            .filter_map(|term| match &term.selector {
                Selector::DevNode(path) if !term.negated => Some(path),
                _ => None,
            })
            .collect();
        if links.is_empty() {
            return Vec::new();
        }
        let is_unconfirmed = |device: &&Device| {
            device.seen == Seen::Kernel
                && device.node.is_some()
                && links.iter().any(|link| device.aliases.contains(*link))
        };
        let unconfirmed = inventory.iter().filter(is_unconfirmed);
        unconfirmed.map(|device| device.syspath.clone()).collect()
    }

    /// The nodes that are to be inside, by path.
    fn wishes<'a>(
        &'a self,
        inventory: &'a Inventory,
        inside: &Attachments,
        held_back: &BTreeSet<PathBuf>,
        admit: Admit<'_>,
        plan: &mut Plan,
    ) -> BTreeMap<PathBuf, Wish<'a>> {
        let mut all: Vec<Claim<'a>> = Vec::new();
        plan.pending.extend(self.undecided.iter().cloned());
        for (entry, root, device) in self.selected(inventory) {
            let mut is_ready = false;
            if let Found::Unknown(whose) = entry.request.gives(root, device, inventory) {
                plan.pending.push(whose);
            } else {
                match admit(entry, device) {
                    Admission::Refused(denial) => {
                        plan.refused.push(Refusal {
                            syspath: device.syspath.clone(),
                            path: place_of(entry, device),
                            request: entry.request.to_string(),
                            denial,
                        });
                        continue;
                    }
                    Admission::Pending(whose) => plan.pending.push(whose),
                    _ if entry.request.awaits_udev(device) => plan.pending.push(device.syspath.clone()),
                    Admission::Waiting(reason) => plan.waiting.push(Waiting {
                        syspath: device.syspath.clone(),
                        path: place_of(entry, device),
                        request: entry.request.to_string(),
                        reason,
                    }),
                    Admission::Admitted => is_ready = true,
                }
            }
            all.push(Claim {
                entry,
                root,
                device,
                is_ready,
            });
        }
        let rule_links = self.rule_links(&all, inside, inventory);
        let mut claims: Vec<(PathBuf, Wish<'a>)> = Vec::new();
        for group in all.chunk_by(|a, b| std::ptr::eq(a.entry, b.entry) && a.root == b.root) {
            let named = named(group, inside, inventory);
            for claim in group.iter().filter(|claim| claim.is_ready) {
                let is_named = named.is_some_and(|named| std::ptr::eq(named, claim.device));
                claims.extend(self.wish(claim, is_named, &rule_links));
            }
        }
        // Whoever has a place keeps it: a second match must not drive the first one out.
        claims.sort_by_key(|(path, wish)| !holds(inside, path, wish.device));
        let mut wishes = BTreeMap::<PathBuf, Wish<'a>>::new();
        for (path, wish) in claims {
            if held_back.contains(&path) && !holds(inside, &path, wish.device) {
                plan.passed_over.push(path);
                plan.passed_over.extend(wish.links);
                continue;
            }
            match wishes.get_mut(&path) {
                Some(taken) if taken.device.syspath == wish.device.syspath => {
                    taken.access |= wish.access;
                    taken.links.extend(wish.links);
                }
                Some(taken) => plan.conflicts.push(Conflict {
                    syspath: wish.device.syspath.clone(),
                    path,
                    holder: taken.device.syspath.clone(),
                }),
                None => {
                    wishes.insert(path, wish);
                }
            }
        }
        // What one request may not have and another may is inside all the same.
        let given: BTreeSet<&SysPath> = wishes.values().map(|wish| &wish.device.syspath).collect();
        plan.refused.retain(|refusal| !given.contains(&refusal.syspath));
        settle_links(&mut wishes, inside, plan);
        wishes
    }

    /// Which node each symlink rule names: one of each USB device with the rule's ids.
    fn rule_links<'a>(
        &'a self,
        claims: &[Claim<'a>],
        inside: &Attachments,
        inventory: &Inventory,
    ) -> RuleLinks<'a> {
        let mut links = Vec::new();
        for rule in &self.symlinks {
            let mut by_unit = BTreeMap::<SysPath, Vec<Candidate<'a>>>::new();
            for claim in claims {
                let device = claim.device;
                if rule.matches(device, inventory.ancestors(&device.syspath)) {
                    let unit = unit_of(device, inventory);
                    let mut here = inside.iter().map(|(_, attachment)| attachment);
                    by_unit.entry(unit).or_default().push(Candidate {
                        device,
                        has_name: here.any(|attachment| {
                            attachment.device.syspath == device.syspath
                                && attachment.links.contains_key(&rule.path)
                        }),
                        is_ready: claim.is_ready,
                    });
                }
            }
            let chosen = by_unit.values().filter_map(|nodes| choose(nodes, inventory));
            links.extend(chosen.map(|device| (&rule.path, &device.syspath)));
        }
        links
    }

    /// The node that a claim is for, and its place. Of all nodes of a root `is_named` is the one that `path=` and
    /// `link=` are for; the others keep the host's paths.
    fn wish<'a>(
        &self,
        claim: &Claim<'a>,
        is_named: bool,
        rule_links: &RuleLinks<'_>,
    ) -> Option<(PathBuf, Wish<'a>)> {
        let device = claim.device;
        let options = &claim.entry.request.options;
        let host_node = device.node.as_ref()?;
        let mut links = device.links.clone();
        let path = if is_named {
            links.extend(options.links.iter().cloned());
            place_of(claim.entry, device)
        } else {
            host_node.path.clone()
        };
        let by_rules = rule_links.iter().filter(|(_, named)| **named == device.syspath);
        links.extend(by_rules.map(|(link, _)| (*link).clone()));
        links.remove(&path);
        let node = NodeSpec {
            num: host_node.num,
            mode: options.mode.unwrap_or(DEFAULT_MODE),
            uid: options.uid.unwrap_or(self.owner.uid),
            gid: options.gid.unwrap_or(self.owner.gid),
        };
        Some((
            path,
            Wish {
                device,
                node,
                access: options.access,
                links,
            },
        ))
    }
}

/// Where a path is after `from` became `to`; `None` when it did not lie there.
pub fn moved(path: &SysPath, from: &SysPath, to: &SysPath) -> Option<SysPath> {
    path.is_at_or_below(from)
        .then(|| SysPath::new(format!("{to}{}", &path.as_str()[from.as_str().len()..])))
}

/// Whether it is still the same device that is there.
fn is_there(bound: &Bound, inventory: &Inventory) -> bool {
    let node = inventory
        .get(&bound.syspath)
        .and_then(|device| device.node.as_ref());
    node.is_some_and(|node| node.num == bound.num)
}

/// Whether a device is one that is attached for somebody else, or a node of one.
fn is_reserved(reserved: &[Reserved], device: &Device, inventory: &Inventory) -> bool {
    // As a rule there is none, and then nothing is looked up.
    let is_it = |one: &Reserved| inventory.real(device).syspath.is_at_or_below(&one.place);
    reserved.iter().any(is_it)
}

/// The roots of one of a request's selectors now. Where the device itself is surely meant, as far as the kernel tells, and udev's facts of
/// it or a parent decide the rest, that device is `undecided`.
fn roots_of(
    selector: &DeviceSelector,
    inventory: &Inventory,
    reserved: &[Reserved],
    undecided: &mut BTreeSet<SysPath>,
) -> BTreeSet<SysPath> {
    let mut roots = BTreeSet::new();
    for device in inventory.iter() {
        let found = selector.names(device, || inventory.chain(device));
        if found == Found::No || is_reserved(reserved, device, inventory) {
            continue;
        }
        if let Found::Unknown(whose) = found {
            if selector.names_itself(device) == Found::Yes {
                undecided.insert(whose);
            }
            continue;
        }
        let root = match selector.parents() {
            0 => Some(device),
            up => inventory.ancestors(&device.syspath).nth(up - 1),
        };
        roots.extend(root.map(|root| root.syspath.clone()));
    }
    roots
}

/// The device of a root whose node `path=` and `link=` name.
fn named<'a>(group: &[Claim<'a>], inside: &Attachments, inventory: &Inventory) -> Option<&'a Device> {
    let request = &group.first()?.entry.request;
    let options = &request.options;
    if options.path.is_none() && options.links.is_empty() {
        return None;
    }
    let has_name = |device: &Device| {
        inside.iter().any(|(path, attachment)| {
            let is_there = options.path.as_ref() == Some(path)
                || options
                    .links
                    .iter()
                    .any(|link| attachment.links.contains_key(link));
            is_there && attachment.device.syspath == device.syspath
        })
    };
    let claims = group.iter().filter(|claim| can_name(request, claim.device));
    let candidates: Vec<Candidate<'a>> = claims
        .map(|claim| Candidate {
            device: claim.device,
            has_name: has_name(claim.device),
            is_ready: claim.is_ready,
        })
        .collect();
    choose(&candidates, inventory)
}

/// Where the node of a device goes for a request.
fn place_of(entry: &RequestEntry, device: &Device) -> PathBuf {
    let own = || {
        device
            .node
            .as_ref()
            .map_or(device.syspath.as_path(), |node| &node.path)
    };
    entry
        .request
        .options
        .path
        .clone()
        .unwrap_or_else(|| own().to_owned())
}

fn holds(inside: &Attachments, path: &Path, device: &Device) -> bool {
    inside
        .get(path)
        .is_some_and(|attachment| attachment.device.syspath == device.syspath)
}

/// Gives each link path to one node: to the one that has it, else to the first.
fn settle_links(wishes: &mut BTreeMap<PathBuf, Wish<'_>>, inside: &Attachments, plan: &mut Plan) {
    let mut claims: Vec<(bool, PathBuf, PathBuf)> = Vec::new();
    for (path, wish) in wishes.iter_mut() {
        for link in std::mem::take(&mut wish.links) {
            let held = inside
                .get(path)
                .is_some_and(|attachment| attachment.links.contains_key(&link));
            claims.push((!held, path.clone(), link));
        }
    }
    claims.sort();
    let mut owners = BTreeMap::<PathBuf, PathBuf>::new();
    for (_, path, link) in claims {
        let holder = if wishes.contains_key(&link) {
            Some(&link)
        } else {
            owners.get(&link)
        };
        if let Some(holder) = holder {
            plan.conflicts.push(Conflict {
                syspath: wishes[&path].device.syspath.clone(),
                path: link.clone(),
                holder: wishes[holder].device.syspath.clone(),
            });
            continue;
        }
        owners.insert(link.clone(), path.clone());
        if let Some(wish) = wishes.get_mut(&path) {
            wish.links.insert(link);
        }
    }
}

fn grants_of(wishes: &BTreeMap<PathBuf, Wish<'_>>) -> GrantSet {
    let mut grants = GrantSet::new();
    for wish in wishes.values() {
        *grants.entry(wish.node.num).or_insert(Access::NONE) |= wish.access;
    }
    grants
}

/// What of `granted` is due while nothing is known but which devices are there: the access of attachments whose device
/// still has the number of their node. Costs a look-up for each attachment, and evaluates no selector.
pub fn still_due(granted: &GrantSet, inside: &Attachments, inventory: &Inventory) -> GrantSet {
    let mut due = GrantSet::new();
    for (_, attachment) in inside.iter() {
        let device = inventory.get(&attachment.device.syspath);
        let number = device
            .and_then(|device| device.node.as_ref())
            .map(|node| node.num);
        if number == Some(attachment.node.num) {
            *due.entry(attachment.node.num).or_insert(Access::NONE) |= attachment.access;
        }
    }
    common(granted, &due)
}

/// Whether the node that is inside can stay for this wish.
fn stays(attachment: &Attachment, wish: &Wish<'_>) -> bool {
    attachment.node == wish.node && attachment.device.syspath == wish.device.syspath
}

/// Announcements first, then links, then nodes; the access is revoked before.
fn plan_removals(wishes: &BTreeMap<PathBuf, Wish<'_>>, inside: &Attachments, steps: &mut Vec<Step>) {
    let going: Vec<(&PathBuf, &Attachment)> = inside
        .iter()
        .rev()
        .filter(|(path, attachment)| !wishes.get(*path).is_some_and(|wish| stays(attachment, wish)))
        .collect();
    for (path, attachment) in &going {
        if attachment.announced.is_some() {
            steps.push(Step::AnnounceRemove {
                path: (*path).clone(),
            });
        }
    }
    for (path, attachment) in inside.iter() {
        let kept = wishes.get(path).filter(|wish| stays(attachment, wish));
        for link in attachment.links.keys() {
            if !kept.is_some_and(|wish| wish.links.contains(link)) {
                steps.push(Step::RemoveLink {
                    path: path.clone(),
                    link: link.clone(),
                });
            }
        }
    }
    for (path, _) in going {
        steps.push(Step::RemoveNode { path: path.clone() });
    }
}

/// For each node: the node, its links, its announcement.
fn plan_additions(
    wishes: &BTreeMap<PathBuf, Wish<'_>>,
    inside: &Attachments,
    held_back: &BTreeSet<PathBuf>,
    plan: &mut Plan,
) {
    let steps = &mut plan.steps;
    for (path, wish) in wishes {
        let here = inside.get(path).filter(|attachment| stays(attachment, wish));
        match here {
            None => steps.push(Step::AddNode {
                path: path.clone(),
                attachment: Box::new(Attachment {
                    device: wish.device.clone(),
                    access: wish.access,
                    node: wish.node.clone(),
                    node_creator: crate::model::plan::attachment::NodeCreator::Watcher,
                    links: BTreeMap::new(),
                    announced: None,
                    since: 0,
                }),
            }),
            Some(attachment) if attachment.device != *wish.device || attachment.access != wish.access => {
                steps.push(Step::Refresh {
                    path: path.clone(),
                    device: Box::new(wish.device.clone()),
                    access: wish.access,
                });
            }
            Some(_) => {}
        }
        for link in &wish.links {
            if here.is_some_and(|attachment| attachment.links.contains_key(link)) {
                continue;
            }
            if held_back.contains(link) {
                plan.passed_over.push(link.clone());
                continue;
            }
            steps.push(Step::AddLink {
                path: path.clone(),
                link: link.clone(),
            });
        }
        let told = here.and_then(|attachment| attachment.announced);
        // udevd sends no event for a device that gains or loses a link; the container's udev database is to have it.
        let has_other_links = here.is_some_and(|attachment| attachment.device.links != wish.device.links);
        if wish.device.seen > Seen::Kernel && (told != Some(wish.device.seqnum) || has_other_links) {
            steps.push(Step::Announce { path: path.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::request::entry::Origin;

    fn reconciler(requests: &[&str]) -> Reconciler {
        let entry = |text: &&str| RequestEntry::new(Origin::Annotation, text.parse().unwrap());
        let entry = requests.iter().map(entry).collect();
        Reconciler::new(entry, Vec::new(), ProcessUser::default())
    }

    /// A tty, with a node.
    fn tty(name: &str, seen: Seen) -> Device {
        let mut device =
            crate::model::device::recorded::virtual_device("tty", name, &format!("/dev/{name}"), 4, 1);
        device.seen = seen;
        device
    }

    fn plan(reconciler: &Reconciler, inventory: &Inventory) -> Plan {
        let (inside, granted) = (Attachments::default(), GrantSet::new());
        reconciler.plan(inventory, &inside, &granted, &BTreeSet::new(), &admit_all)
    }

    #[test]
    fn what_is_asked_for_twice_is_asked_for_once() {
        let rule: SymlinkRule = "usb:0403:6001:0=/dev/ttyBOARD".parse().unwrap();
        let other_rule: SymlinkRule = "usb:0403:6001:1=/dev/ttyBOARD".parse().unwrap();
        let mut all = reconciler(&["usb:0403"]);
        all.entries[0].roots.insert(SysPath::new("/sys/devices/a"));
        let more = reconciler(&["usb:0403", "usb:1050"]).entries;
        all.add(more.clone(), vec![rule.clone(), rule.clone()]);
        all.add(more, vec![rule.clone(), other_rule.clone()]);
        let requests: Vec<String> = all.entries().iter().map(RequestEntry::called).collect();
        assert_eq!(requests, ["usb:0403", "usb:1050"]);
        assert_eq!(all.entries()[0].roots.len(), 1, "the one that was there stays");
        assert_eq!(all.symlinks(), [rule, other_rule]);
    }

    #[test]
    fn a_remote_device_is_bound_until_it_is_unbound_or_bound_anew() {
        let [one, other] =
            ["lab/0403:6001", "lab/1050:0407"].map(|text| text.parse::<RemoteDevice>().unwrap());
        let bound = |minor| Bound {
            syspath: SysPath::new("/sys/devices/vhci/1-1"),
            num: crate::model::device::DevNum {
                kind: crate::model::device::DevKind::Char,
                major: 189,
                minor,
            },
            last: String::new(),
        };
        let mut all = reconciler(&[]);
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
        let mut all = reconciler(&["usb:0403"]);
        all.entries[0].roots = [root.clone(), below, other.clone()].into();
        all.entries[0].named = Some([root.clone()].into());
        let to = SysPath::new("/sys/devices/b/2-1");
        all.follow_move(&root, &to);
        let moved = SysPath::new("/sys/devices/b/2-1/1-1.1");
        assert_eq!(all.entries()[0].roots, [to.clone(), moved, other].into());
        assert_eq!(all.entries()[0].named, Some([to].into()));
    }

    #[test]
    fn a_watcher_that_was_restarted_keeps_a_root_only_while_it_is_selected() {
        let inventory = Inventory::new([tty("tty1", Seen::Udev), tty("tty2", Seen::Udev)]);
        let mut all = reconciler(&["devnode:/dev/tty1"]);
        let stray = inventory.iter().last().unwrap().syspath.clone();
        all.entries[0].roots.insert(stray);
        assert_eq!(all.find_roots(&inventory), []);
        let names: Vec<&str> = all.entries()[0].roots.iter().map(SysPath::name).collect();
        assert_eq!(names, ["tty1"]);
    }

    #[test]
    fn news_matter_of_what_may_be_selected_of_what_is_reserved_and_for_joined_terms_of_parents() {
        let tree = crate::model::device::recorded::hub_with_two_adapters();
        let inventory = Inventory::new(tree.clone());
        let hub = &crate::model::device::recorded::named(&tree, "1-1").syspath;
        // No root is known yet.
        assert!(!reconciler(&["usb:0403:6001:A"]).is_affected_by(hub, &inventory));
        assert!(reconciler(&["usb:0403:6001:A&subsystem:usb"]).is_affected_by(hub, &inventory));

        let before = Inventory::new([tty("tty1", Seen::Kernel)]);
        let syspath = &tty("tty1", Seen::Kernel).syspath;
        assert!(reconciler(&["subsystem:tty&!tag:lab"]).is_affected_by(syspath, &before));
        assert!(!reconciler(&["glob:/dev/other*"]).is_affected_by(syspath, &before));

        let mut all = reconciler(&[]);
        let reserved = |owner: Option<&str>| Reserved {
            place: hub.clone(),
            reason: "it is looked at".into(),
            owner: owner.map(Into::into),
        };
        all.respect(vec![reserved(None)]);
        assert!(all.is_affected_by(hub, &inventory));
        assert!(!all.is_affected_by(syspath, &inventory), "it lies elsewhere");
        all.respect(vec![reserved(Some("c1"))]);
        assert!(!all.is_affected_by(hub, &inventory));
    }

    #[test]
    fn a_parent_of_what_is_reserved_is_withheld_although_no_root_is_known() {
        let tree = crate::model::device::recorded::hub_with_two_adapters();
        let inventory = Inventory::new(tree.clone());
        let mut all = reconciler(&["parent-of:usb:0403:6001:A"]);
        all.respect(vec![Reserved {
            place: crate::model::device::recorded::named(&tree, "1-1")
                .syspath
                .clone(),
            reason: "it is another's".into(),
            owner: Some("c1".into()),
        }]);
        all.find_roots(&inventory);
        let withheld = all.withheld(&inventory);
        let hub = withheld.iter().any(|withheld| withheld.syspath.name() == "1-1");
        assert!(hub, "{withheld:?}");
        assert_eq!(plan(&all, &inventory).withheld, withheld);
    }

    #[test]
    fn only_a_named_link_to_a_node_that_udevd_has_not_processed_is_unconfirmed() {
        let with_alias = |mut device: Device, alias: &str| {
            device.aliases.insert(alias.into());
            device
        };
        let nodeless = Device {
            node: None,
            ..tty("nodeless", Seen::Kernel)
        };
        let inventory = Inventory::new([
            with_alias(tty("tty1", Seen::Kernel), "/dev/board"),
            with_alias(tty("tty2", Seen::Kernel), "/dev/other"),
            with_alias(tty("tty3", Seen::Udev), "/dev/board"),
            with_alias(nodeless, "/dev/board"),
        ]);
        let unconfirmed = |request: &str| -> Vec<String> {
            let plan = plan(&reconciler(&[request]), &inventory);
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
    fn what_udev_decides_is_pending_only_of_devices_that_the_kernel_knows_to_be_meant() {
        let inventory = Inventory::new([tty("tty1", Seen::Kernel)]);
        let pending = |request: &str| {
            let mut all = reconciler(&[request]);
            all.find_roots(&inventory);
            plan(&all, &inventory).pending.len()
        };
        assert_eq!(pending("subsystem:tty&!tag:lab"), 1);
        assert_eq!(pending("tag:lab"), 0);
        assert_eq!(pending("glob:/dev/other*&!tag:lab"), 0);
    }

    #[test]
    fn two_requests_for_one_device_are_no_conflict_and_their_access_adds_up() {
        let inventory = Inventory::new([tty("tty1", Seen::Udev)]);
        let mut all = reconciler(&["subsystem:tty;access=r", "devnode:/dev/tty1;access=w"]);
        all.find_roots(&inventory);
        let plan = plan(&all, &inventory);
        assert_eq!(plan.conflicts, []);
        let granted = plan.steps.iter().find_map(|step| match step {
            Step::SetGrants(grants) => grants.values().next().copied(),
            _ => None,
        });
        assert_eq!(granted, Some(Access::READ | Access::WRITE));
    }

    #[test]
    fn a_node_stays_only_while_it_looks_the_same_and_belongs_to_the_same_device() {
        let device = tty("tty1", Seen::Udev);
        let wish = |device| Wish {
            device,
            node: NodeSpec {
                num: device.node.as_ref().unwrap().num,
                mode: 0o660,
                uid: 0,
                gid: 0,
            },
            access: Access::ALL,
            links: BTreeSet::new(),
        };
        let attachment = Attachment {
            device: device.clone(),
            access: Access::ALL,
            node: wish(&device).node,
            node_creator: crate::model::plan::attachment::NodeCreator::Watcher,
            links: BTreeMap::new(),
            announced: None,
            since: 0,
        };
        assert!(stays(&attachment, &wish(&device)));
        let mut renumbered = device.clone();
        renumbered.node.as_mut().unwrap().num.minor += 1;
        assert!(!stays(&attachment, &wish(&renumbered)));
        let elsewhere = Device {
            syspath: SysPath::new("/sys/devices/virtual/tty/other"),
            ..device.clone()
        };
        assert!(!stays(&attachment, &wish(&elsewhere)));
    }

    #[test]
    fn requests_are_removed_by_what_they_are_and_who_made_them() {
        let entry = |text: &str, origin| RequestEntry::new(origin, text.parse().unwrap());
        let all = [
            entry("usb:0403", Origin::Annotation),
            entry("usb:1050", Origin::Annotation),
            entry("usb:0403", Origin::Administrator),
        ];
        let mut reconciler = Reconciler::new(all.to_vec(), Vec::new(), ProcessUser::default());
        let mut found = all[2].clone();
        found.roots.extend([SysPath::new("/sys/devices/a")]);
        assert_eq!(reconciler.remove(&[found]), 2, "with the roots that it has now");
        assert_eq!(
            reconciler.remove(&[all[2].clone()]),
            2,
            "nothing goes: as many as there are"
        );
        assert_eq!(reconciler.remove(&[all[0].clone()]), 0);
        assert_eq!(reconciler.entries(), [all[1].clone()]);
    }

    #[test]
    fn a_remote_device_is_the_one_that_it_was_attached_as_and_no_other_at_its_place() {
        let device = crate::model::device::recorded::hub_with_two_adapters()
            .into_iter()
            .find(|device| device.devtype.as_deref() == Some("usb_device") && device.node.is_some())
            .unwrap();
        let remote: RemoteDevice = "lab/0403:6001".parse().unwrap();
        let bound = Bound {
            syspath: device.syspath.clone(),
            num: device.node.as_ref().unwrap().num,
            last: String::new(),
        };
        let entry = RequestEntry::new(Origin::Administrator, "usbip:lab/0403:6001".parse().unwrap());
        let mut reconciler = Reconciler::new(vec![entry], Vec::new(), ProcessUser::default());
        let present = Inventory::new(vec![device.clone()]);
        reconciler.find_roots(&present);
        assert_eq!(
            reconciler.entries()[0].roots,
            BTreeSet::new(),
            "nothing is attached"
        );
        reconciler.bind(remote.clone(), bound.clone());
        assert_eq!(reconciler.bound_as(&remote), Some(&bound));
        reconciler.find_roots(&present);
        assert_eq!(
            reconciler.entries()[0].roots,
            BTreeSet::from([device.syspath.clone()])
        );
        let mut another = device;
        another.node.as_mut().unwrap().num.minor += 1;
        reconciler.find_roots(&Inventory::new(vec![another]));
        assert_eq!(reconciler.entries()[0].roots, BTreeSet::new());
        assert_eq!(
            (reconciler.bound(), reconciler.bound_as(&remote)),
            (&[][..], None)
        );
    }

    #[test]
    fn beside_parent_of_an_alternative_selects_only_what_it_selects_now() {
        let mut inventory = Inventory::new(crate::model::device::recorded::hub_with_two_adapters());
        let request = "subsystem:tty&!tag:secret;or=parent-of:driver:ftdi_sio";
        let entry = RequestEntry::new(Origin::Annotation, request.parse().unwrap());
        let mut reconciler = Reconciler::new(vec![entry], Vec::new(), ProcessUser::default());
        reconciler.find_roots(&inventory);
        let before = reconciler.entries()[0].roots.clone();
        let of = |is_tty: bool| -> Vec<SysPath> {
            let roots = before
                .iter()
                .filter(|root| root.name().starts_with("tty") == is_tty);
            roots.cloned().collect()
        };
        let (ttys, adapters) = (of(true), of(false));
        assert!(!ttys.is_empty() && !adapters.is_empty(), "{before:?}");
        // A watcher that is restarted knows the roots alone.
        let mut restored = reconciler.entries()[0].without_roots();
        restored.roots = before.clone();
        let mut restarted = Reconciler::new(vec![restored], Vec::new(), ProcessUser::default());
        restarted.find_roots(&inventory);
        // The one has a tag now that excludes it, and nothing leads to the others any more.
        for tty in &ttys {
            let device = inventory.get_mut(tty).unwrap();
            device.tags.insert("secret".into());
            device.seen = Seen::Udev;
        }
        for device in inventory
            .iter()
            .map(|device| device.syspath.clone())
            .collect::<Vec<_>>()
        {
            inventory.get_mut(&device).unwrap().driver = None;
        }
        for mut reconciler in [reconciler, restarted] {
            assert_eq!(reconciler.find_roots(&inventory), []);
            let after: Vec<SysPath> = reconciler.entries()[0].roots.iter().cloned().collect();
            assert_eq!(after, adapters);
        }
    }

    #[test]
    fn what_is_attached_for_another_is_selected_by_nothing_and_what_lies_beside_it_stays() {
        let inventory = Inventory::new(crate::model::device::recorded::hub_with_two_adapters());
        let mut adapters = inventory.iter().filter(|device| device.node.is_some());
        let anothers = adapters
            .find(|device| {
                let is_adapter = "usb:0403:6001".parse::<Request>().unwrap();
                is_adapter.selector.names_itself(device) == Found::Yes
            })
            .unwrap();
        let requests = ["usb:0403:6001", "parent-of:usb:0403:6001", "subsystem:tty"];
        let entries = requests.map(|text| RequestEntry::new(Origin::Administrator, text.parse().unwrap()));
        let mut reconciler = Reconciler::new(entries.to_vec(), Vec::new(), ProcessUser::default());
        let selected = |reconciler: &mut Reconciler| {
            reconciler.find_roots(&inventory);
            let is_its = |device: &Device| device.syspath.is_at_or_below(&anothers.syspath);
            let all: Vec<bool> = reconciler
                .selected(&inventory)
                .map(|(_, _, device)| is_its(device))
                .collect();
            (all.contains(&true), all.contains(&false))
        };
        assert_eq!(selected(&mut reconciler), (true, true));
        reconciler.respect(vec![Reserved {
            place: anothers.syspath.clone(),
            reason: "it is another's".into(),
            owner: Some("c1".into()),
        }]);
        assert_eq!(selected(&mut reconciler), (false, true));
        let withheld = reconciler.withheld(&inventory);
        for request in requests {
            let told = withheld.iter().any(|withheld| {
                withheld.request == request && withheld.syspath.is_at_or_below(&anothers.syspath)
            });
            assert!(told, "{request}: {withheld:?}");
        }
        reconciler.respect(Vec::new());
        assert_eq!(selected(&mut reconciler), (true, true));
    }

    #[test]
    fn what_is_attached_for_another_is_not_had_by_another_name_of_its_node() {
        let mut devices = crate::model::device::recorded::hub_with_two_adapters();
        let place = SysPath::new(devices[0].syspath.as_str());
        let node = devices.iter().find_map(|device| device.node.clone()).unwrap();
        let mut other = Device::new(SysPath::new("/sys/devices/oci-hotplug-node/dev/char/189:0"));
        other.subsystem = Some(crate::model::device::STATIC_NODE.to_owned());
        other.seen = Seen::Kernel;
        other.node = Some(crate::model::device::DevNode {
            path: "/dev/char/189:0".into(),
            ..node
        });
        devices.push(other);
        let inventory = Inventory::new(devices);
        let request = "node:/dev/char/189:0";
        let entry = vec![RequestEntry::new(Origin::Administrator, request.parse().unwrap())];
        let mut reconciler = Reconciler::new(entry, Vec::new(), ProcessUser::default());
        let count = |reconciler: &mut Reconciler| {
            reconciler.find_roots(&inventory);
            reconciler.selected(&inventory).count()
        };
        assert_eq!(count(&mut reconciler), 1);
        reconciler.respect(vec![Reserved {
            place,
            reason: "it is another's".into(),
            owner: Some("c1".into()),
        }]);
        assert_eq!(count(&mut reconciler), 0);
        let withheld = reconciler.withheld(&inventory);
        let told: Vec<_> = withheld.iter().map(|withheld| withheld.path.to_str()).collect();
        assert_eq!(told, [Some("/dev/char/189:0")]);
    }
}
