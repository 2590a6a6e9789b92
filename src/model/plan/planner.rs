//! What one container requests, and which devices are the roots of its requests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use crate::model::device::inventory::Inventory;
use crate::model::device::{Device, SysPath};
use crate::model::oci::ProcessUser;
use crate::model::plan::NotAttached;
use crate::model::remote::address::RemoteDevice;
use crate::model::remote::binding::Binding;
use crate::model::remote::reservation::{ReservedDevice, is_reserved};
use crate::model::request::entry::RequestEntry;
use crate::model::request::id::RequestId;
use crate::model::request::selector::{DeviceSelector, Match};
use crate::model::request::symlink::SymlinkRule;
use crate::model::request::{OnRemoval, Request};

/// The requests of one container with their roots, and the facts about remote devices that decide
/// what they select.
#[derive(Debug, Clone)]
pub struct Planner {
    entries: Vec<RequestEntry>,
    /// The id of each entry's request, in the same order.
    ids: Vec<RequestId>,
    next_id: RequestId,
    symlinks: Vec<SymlinkRule>,
    owner: ProcessUser,
    /// The remote devices that are attached for this container; usually few or none.
    bound: Vec<(RemoteDevice, Binding)>,
    /// Remote devices that are attached for other containers; usually few or none.
    reserved: Vec<ReservedDevice>,
    /// Devices whose udev facts decide whether a device is a root.
    undecided: BTreeSet<SysPath>,
}

/// A root that was removed, with the removal options of its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootRemoved {
    pub root: SysPath,
    pub request: RequestId,
    pub action: OnRemoval,
    /// How long the request may be without a root before the action happens; `None` if the action
    /// happens at once, even if the request has other roots.
    pub grace: Option<Duration>,
}

impl Planner {
    /// A planner for a container with these requests; `owner` owns the nodes.
    pub fn new(entries: Vec<RequestEntry>, symlinks: Vec<SymlinkRule>, owner: ProcessUser) -> Self {
        let mut planner = Self {
            entries: Vec::new(),
            ids: Vec::new(),
            next_id: RequestId::FIRST,
            symlinks,
            owner,
            bound: Vec::new(),
            reserved: Vec::new(),
            undecided: BTreeSet::new(),
        };
        for entry in entries {
            planner.push(entry);
        }
        planner
    }

    fn push(&mut self, entry: RequestEntry) {
        let id = self.id_of(&entry.request).unwrap_or(self.next_id);
        if id == self.next_id {
            self.next_id = id.next();
        }
        self.entries.push(entry);
        self.ids.push(id);
    }

    /// The id of a request, if the container has it.
    pub fn id_of(&self, request: &Request) -> Option<RequestId> {
        let mut requests = self.requests();
        let entry = requests.find(|(_, entry)| entry.request == *request);
        entry.map(|(id, _)| id)
    }

    /// The request with this id, unless it was removed.
    pub fn request(&self, id: RequestId) -> Option<&Request> {
        let index = self.ids.iter().position(|known| *known == id)?;
        self.entries.get(index).map(|entry| &entry.request)
    }

    /// The text of a request, for display.
    pub fn text(&self, id: RequestId) -> String {
        self.request(id).map_or_else(String::new, ToString::to_string)
    }

    /// Why a device is not attached; `None` if its request was removed.
    pub fn describe(&self, not_attached: &NotAttached) -> Option<String> {
        let request = self.request(not_attached.request)?;
        Some(not_attached.describe(request))
    }

    /// All requests with their ids.
    pub fn requests(&self) -> impl Iterator<Item = (RequestId, &RequestEntry)> + Clone {
        self.ids.iter().copied().zip(&self.entries)
    }

    /// Whether the container has this request, and the request has no root.
    pub fn is_without_root(&self, id: RequestId) -> bool {
        let mut entries = self.requests().filter(|(known, _)| *known == id).peekable();
        entries.peek().is_some() && entries.all(|(_, entry)| entry.roots.is_empty())
    }

    /// Sets the devices that only `usbip:` requests select.
    pub fn set_reserved(&mut self, reserved: Vec<ReservedDevice>) {
        self.reserved = reserved;
    }

    /// The devices that only `usbip:` requests select.
    pub fn reserved(&self) -> &[ReservedDevice] {
        &self.reserved
    }

    /// The devices whose udev facts decide whether a device is a root.
    pub(super) fn undecided_roots(&self) -> impl Iterator<Item = &SysPath> {
        self.undecided.iter()
    }

    /// The user who owns the nodes unless the request says otherwise.
    pub(super) fn owner(&self) -> ProcessUser {
        self.owner
    }

    /// The remote devices that are attached for this container, as far as they are present.
    pub fn bound(&self) -> &[(RemoteDevice, Binding)] {
        &self.bound
    }

    /// The local device of an attached remote device, if it is present.
    pub fn bound_as(&self, remote: &RemoteDevice) -> Option<&Binding> {
        let mut bound = self.bound.iter();
        bound.find(|(known, _)| known == remote).map(|(_, bound)| bound)
    }

    /// Records the local device of a remote device.
    pub fn bind(&mut self, remote: RemoteDevice, bound: Binding) {
        self.unbind(&remote);
        self.bound.push((remote, bound));
    }

    /// Records that a remote device is detached.
    pub fn unbind(&mut self, remote: &RemoteDevice) {
        self.bound.retain(|(bound, _)| bound != remote);
    }

    /// The requests, with their origin and roots.
    pub fn entries(&self) -> &[RequestEntry] {
        &self.entries
    }

    /// The rules for additional links.
    pub fn symlinks(&self) -> &[SymlinkRule] {
        &self.symlinks
    }

    /// Adds requests and rules that the container does not have yet.
    pub fn add(&mut self, entries: Vec<RequestEntry>, symlinks: Vec<SymlinkRule>) {
        for new in entries {
            if !self
                .entries
                .iter()
                .any(|old| old.without_roots() == new.without_roots())
            {
                self.push(new);
            }
        }
        for rule in symlinks {
            if !self.symlinks.contains(&rule) {
                self.symlinks.push(rule);
            }
        }
    }

    /// Removes requests with these texts and origins. Returns the index of the first removed one,
    /// or the number of requests. Rules for links stay: they request no device by themselves.
    pub fn remove(&mut self, entries: &[RequestEntry]) -> usize {
        let goes = |old: &RequestEntry| {
            entries
                .iter()
                .any(|gone| gone.without_roots() == old.without_roots())
        };
        let first = self.entries.iter().position(goes).unwrap_or(self.entries.len());
        let ids = std::mem::take(&mut self.ids);
        let all = std::mem::take(&mut self.entries).into_iter().zip(ids);
        (self.entries, self.ids) = all.filter(|(old, _)| !goes(old)).unzip();
        first
    }

    /// Updates the roots of all requests, and returns the previous roots that are gone.
    ///
    /// A parent that was found (`parent-of:`) stays selected while it exists, even after the child
    /// that selected it is gone.
    pub fn find_roots(&mut self, inventory: &Inventory) -> Vec<RootRemoved> {
        let mut removed = Vec::new();
        self.undecided.clear();
        self.bound.retain(|(_, bound)| bound.is_present(inventory));
        for (entry, id) in self.entries.iter_mut().zip(&self.ids) {
            let mut named = BTreeSet::new();
            let mut parents = BTreeSet::new();
            match entry.request.selector.remote() {
                Some(remote) => {
                    let bound = self.bound.iter().find(|(known, _)| *known == remote);
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
                        request: *id,
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
            entry.companions = companions(entry, inventory);
        }
        removed
    }

    /// Updates roots after a device moved in sysfs.
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

    /// The udev links that can change the plan when they move: links of the roots and of the
    /// devices above and below them, and all links that point elsewhere than to the device that
    /// claims them.
    pub fn followed_links<'a>(&self, inventory: &'a Inventory) -> BTreeSet<&'a PathBuf> {
        let roots = self.entries.iter().flat_map(RequestEntry::places);
        let devices = roots.flat_map(|root| inventory.at_or_below(root).chain(inventory.ancestors(root)));
        let mut links = BTreeSet::new();
        links.extend(inventory.lost_links());
        links.extend(devices.flat_map(|device| &device.links));
        links
    }

    /// Whether a change of this device, which the inventory contains already, can change the plan:
    /// a request selects it, or it is at, below or above a root (rules for links look at parents).
    ///
    /// Most devices of a host are not related to any request, and planning is expensive.
    pub fn is_affected_by(&self, syspath: &SysPath, inventory: &Inventory) -> bool {
        let device = inventory.get(syspath);
        // A device under verification can become available without a uevent, so plan again.
        let is_under_verification = |reserved: &ReservedDevice| {
            reserved.container.is_none() && syspath.is_at_or_below(&reserved.syspath)
        };
        if self.reserved.iter().any(is_under_verification) {
            return true;
        }
        // The other half of a hub that has just appeared is not in `companions` yet.
        let at_or_above = device.into_iter().chain(inventory.ancestors(syspath));
        let halves: Vec<&SysPath> = at_or_above.filter_map(|hub| hub.companion.as_ref()).collect();
        self.entries.iter().any(|entry| {
            let is_near_a_root =
                |root: &SysPath| syspath.is_at_or_below(root) || root.is_at_or_below(syspath);
            let is_affected = |selector: &DeviceSelector| {
                let is_named = |device: &Device| match selector.names(device, || inventory.chain(device)) {
                    Match::Yes => true,
                    Match::Unknown(_) => selector.names_itself(device) == Match::Yes,
                    Match::No => false,
                };
                device.is_some_and(is_named)
                    // A term that matches a parent counts for all devices below it, and the root of
                    // `parent-of:` is above the device that is named.
                    || ((selector.terms().len() > 1 || selector.parents() > 0)
                        && inventory.at_or_below(syspath).any(is_named))
            };
            entry.places().any(is_near_a_root)
                || halves.iter().any(|half| entry.roots.contains(half))
                || entry.request.selectors().any(is_affected)
        })
    }

    /// The required requests that have found no device at the start.
    pub fn required_and_absent(&self) -> impl Iterator<Item = (RequestId, &Request)> {
        self.requests()
            .filter(|(_, entry)| entry.request.options.required && entry.roots.is_empty())
            .map(|(id, entry)| (id, &entry.request))
    }
}

/// The path after `from` moved to `to`; `None` when it is not at or below `from`.
pub fn moved(path: &SysPath, from: &SysPath, to: &SysPath) -> Option<SysPath> {
    path.is_at_or_below(from)
        .then(|| SysPath::new(format!("{to}{}", &path.as_str()[from.as_str().len()..])))
}

/// The other halves of the roots that are USB 3 hubs. A remote device has none: it is alone, even
/// if another one is attached at the port beside it.
fn companions(entry: &RequestEntry, inventory: &Inventory) -> BTreeMap<SysPath, SysPath> {
    let mut companions = BTreeMap::<SysPath, SysPath>::new();
    if entry.request.selector.remote().is_some() {
        return companions;
    }
    for root in &entry.roots {
        let is_part_of_other = companions.values().any(|other| other == root);
        if let Some(other) = inventory.companion_of(root).filter(|_| !is_part_of_other) {
            companions.insert(root.clone(), other.clone());
        }
    }
    companions
}

/// The roots of one selector now. Adds to `undecided` the devices whose udev facts decide about a
/// device that the selector matches by the kernel's facts.
fn roots_of(
    selector: &DeviceSelector,
    inventory: &Inventory,
    reserved: &[ReservedDevice],
    undecided: &mut BTreeSet<SysPath>,
) -> BTreeSet<SysPath> {
    let mut roots = BTreeSet::new();
    for device in inventory.iter() {
        let found = selector.names(device, || inventory.chain(device));
        if found == Match::No || is_reserved(reserved, device, inventory) {
            continue;
        }
        if let Match::Unknown(whose) = found {
            if selector.names_itself(device) == Match::Yes {
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

#[cfg(test)]
mod tests;
