//! Which devices the requests select now, before policy, leases and paths are considered.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::model::device::inventory::Inventory;
use crate::model::device::{Device, SysPath, UdevState};
use crate::model::plan::attachment::Attachments;
use crate::model::plan::node_names::NodePaths;
use crate::model::plan::planner::Planner;
use crate::model::plan::{NotAttached, Reason};
use crate::model::remote::reservation::{ReservedDevice, is_reserved};
use crate::model::request::entry::RequestEntry;
use crate::model::request::id::RequestId;
use crate::model::request::selector::{Match, Selector};

/// A device with a node that a request selects by one of its roots.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    pub request: RequestId,
    pub entry: &'a RequestEntry,
    pub root: &'a SysPath,
    /// The device, at or below the root or the other half of a root that is a USB 3 hub.
    pub device: &'a Device,
    /// The device whose udev facts decide whether the request selects this one; `None` if the
    /// request selects it for certain.
    pub undecided: Option<SysPath>,
}

impl Candidate<'_> {
    /// The device that udevd must process before this one can be attached, whatever else is decided
    /// about it.
    pub fn awaited(&self) -> Option<&SysPath> {
        let awaits_itself = self.entry.request.awaits_udev(self.device);
        let itself = awaits_itself.then_some(&self.device.syspath);
        self.undecided.as_ref().or(itself)
    }
}

/// All candidates of one container, and what else the plan needs of requests and devices.
#[derive(Debug, Clone)]
pub struct Candidates<'a> {
    planner: &'a Planner,
    inventory: &'a Inventory,
    all: Vec<Candidate<'a>>,
    reserved: Vec<NotAttached>,
    unconfirmed_links: Vec<SysPath>,
}

impl Planner {
    /// The devices that the requests select, as of the last [`Planner::find_roots`].
    pub fn candidates<'a>(&'a self, inventory: &'a Inventory) -> Candidates<'a> {
        Candidates {
            planner: self,
            inventory,
            all: self.selected(inventory),
            reserved: self.reserved_candidates(inventory),
            unconfirmed_links: self.unconfirmed_links(inventory),
        }
    }

    /// All selected devices with nodes, whether udevd has processed them or not. Candidates of one
    /// root are adjacent.
    fn selected<'a>(&'a self, inventory: &'a Inventory) -> Vec<Candidate<'a>> {
        let mut selected = Vec::new();
        for (request, entry) in self.requests() {
            let is_remote = entry.request.selector.remote().is_some();
            for (root, places) in entry.groups() {
                let devices = places.flat_map(|place| {
                    // Another alternative of the request may select the other half of a hub.
                    let named = if entry.roots.contains(place) { place } else { root };
                    let devices = inventory.at_or_below(place);
                    devices.map(move |device| (named, device))
                });
                for (named, device) in devices {
                    if device.node.is_none() {
                        continue;
                    }
                    let undecided = match entry.request.gives(named, device, inventory) {
                        Match::No => continue,
                        Match::Unknown(undecided) => Some(undecided),
                        Match::Yes => None,
                    };
                    if is_remote || !is_reserved(self.reserved(), device, inventory) {
                        selected.push(Candidate {
                            request,
                            entry,
                            root,
                            device,
                            undecided,
                        });
                    }
                }
            }
        }
        selected
    }

    /// The devices with nodes that requests would select if they were not reserved for other
    /// containers.
    pub fn reserved_candidates(&self, inventory: &Inventory) -> Vec<NotAttached> {
        let mut candidates = Vec::new();
        let none = Attachments::default();
        let mut paths = NodePaths::new(inventory, &none);
        let reserved = self.reserved().iter();
        for reserved in reserved.filter(|reserved| reserved.container.is_some()) {
            let devices = reserved_devices(reserved, inventory);
            for (request, entry) in self.requests() {
                if entry.request.selector.remote().is_some() {
                    continue;
                }
                let nodes = devices.iter().filter(|device| {
                    device.node.is_some() && would_select(entry, device, &devices, inventory)
                });
                candidates.extend(nodes.map(|device| NotAttached {
                    request,
                    device: device.syspath.clone(),
                    path: paths.path_of(&entry.request, device),
                    reason: Reason::Reserved(reserved.reason.clone()),
                }));
            }
        }
        candidates
    }

    fn unconfirmed_links(&self, inventory: &Inventory) -> Vec<SysPath> {
        let selectors = self.entries().iter().flat_map(|entry| entry.request.selectors());
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
            device.udev_state == UdevState::Pending
                && device.node.is_some()
                && links.iter().any(|link| device.aliases.contains(*link))
        };
        let unconfirmed = inventory.iter().filter(is_unconfirmed);
        unconfirmed.map(|device| device.syspath.clone()).collect()
    }
}

impl<'a> Candidates<'a> {
    /// The candidates, by request and root.
    pub fn iter(&self) -> impl Iterator<Item = &Candidate<'a>> {
        self.all.iter()
    }

    /// The paths at and below which the candidates are: roots, and the other halves of roots that
    /// are USB 3 hubs.
    pub(super) fn places(&self) -> BTreeSet<&'a SysPath> {
        let entries = self.all.iter().map(|candidate| candidate.entry);
        let mut places = BTreeSet::new();
        // Candidates of one entry are adjacent.
        let mut last: Option<&RequestEntry> = None;
        for entry in entries {
            if !last.is_some_and(|last| std::ptr::eq(last, entry)) {
                places.extend(entry.places());
                last = Some(entry);
            }
        }
        places
    }

    /// Those of these devices that are not candidates.
    pub fn unselected<'d>(&self, devices: &'d [SysPath]) -> impl Iterator<Item = &'d SysPath> {
        let is_selected =
            |syspath: &SysPath| self.iter().any(|candidate| candidate.device.syspath == *syspath);
        devices.iter().filter(move |syspath| !is_selected(syspath))
    }

    /// All devices of the host.
    pub fn inventory(&self) -> &'a Inventory {
        self.inventory
    }

    pub(super) fn planner(&self) -> &'a Planner {
        self.planner
    }

    pub(super) fn reserved(&self) -> &[NotAttached] {
        &self.reserved
    }

    pub(super) fn undecided_roots(&self) -> impl Iterator<Item = &'a SysPath> {
        self.planner.undecided_roots()
    }

    pub(super) fn unconfirmed_links(&self) -> &[SysPath] {
        &self.unconfirmed_links
    }
}

/// A reserved device, the devices below it, and the static nodes with their numbers.
fn reserved_devices<'a>(reserved: &ReservedDevice, inventory: &'a Inventory) -> Vec<&'a Device> {
    let other_names = inventory
        .static_nodes()
        .filter(|node| reserved.includes(node, inventory));
    inventory
        .at_or_below(&reserved.syspath)
        .chain(other_names)
        .collect()
}

/// Whether the request would select the device if none of `reserved` were reserved.
fn would_select(entry: &RequestEntry, device: &Device, reserved: &[&Device], inventory: &Inventory) -> bool {
    let is_below = |root: &SysPath| device.syspath.is_at_or_below(root);
    // The roots without the reservations.
    let named = reserved.iter().filter(|named| {
        entry.request.selectors().any(|selector| {
            (selector.parents() > 0 || is_below(&named.syspath))
                && selector.names(named, || inventory.chain(named)) == Match::Yes
        })
    });
    let gives = |root| entry.request.gives(root, device, inventory) != Match::No;
    let mut roots = entry.roots.iter().filter(|root| is_below(root));
    roots.any(gives) || named.map(|named| &named.syspath).any(gives)
}
