//! The entries that a container's udev database should have: attached devices that udevd has
//! processed, the devices without a node that belong to them, and the parents of both.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::model::device::inventory::Inventory;
use crate::model::device::{Device, STATIC_NODE, SysPath, UdevState, nodeless};
use crate::model::plan::desired::Desired;
use crate::model::plan::{Candidates, Current};
use crate::model::udev_database::{DatabaseId, EntryFacts, EntryKind, RUN_UDEV};

/// The desired entries.
pub(super) type DesiredEntries = BTreeMap<DatabaseId, EntryFacts>;

/// The path of an entry in the container.
pub fn path_of(id: &DatabaseId) -> PathBuf {
    Path::new(RUN_UDEV).join("data").join(id.to_string())
}

/// The entries for these nodes; none if the container has no database. A device has its entry from
/// the moment on at which it is announced in udevd's form, as on the host.
pub(super) fn entries(
    desired: &Desired<'_>,
    candidates: &Candidates<'_>,
    current: &Current<'_>,
) -> DesiredEntries {
    let mut entries = DesiredEntries::new();
    if current.entries.is_none() {
        return entries;
    }
    add_attached(desired, current, &mut entries);
    add_others(desired, candidates, &mut entries);
    entries
}

fn add_attached(desired: &Desired<'_>, current: &Current<'_>, entries: &mut DesiredEntries) {
    for node in desired.values().filter(|node| is_processed(node.device)) {
        let Some(id) = DatabaseId::of(node.device) else {
            continue;
        };
        let facts = entries
            .entry(id)
            .or_insert_with(|| facts_of(node.device, EntryKind::Attached));
        facts.seqnum = facts.seqnum.max(node.device.seqnum);
        // sysfs may not know a node that only the host's /dev has.
        facts.is_certain |= node.device.subsystem.as_deref() != Some(STATIC_NODE);
        let links = node.links.keys();
        let links = links.filter(|link| !current.postponed.contains(*link));
        facts.links.extend(links.cloned());
    }
}

/// Adds devices without a node, and parents.
fn add_others(desired: &Desired<'_>, candidates: &Candidates<'_>, entries: &mut DesiredEntries) {
    let inventory = candidates.inventory();
    let processed = desired.values().filter(|node| is_processed(node.device));
    let attached: BTreeSet<&SysPath> = processed.map(|node| &node.device.syspath).collect();
    let requested = candidates.planner().entries().iter();
    let places: BTreeSet<&SysPath> = requested.flat_map(|entry| entry.places()).collect();
    let mut states = desired.values().map(|node| node.device.udev_state);
    let is_certain = states.any(|state| state == UdevState::NoUdevd);
    let belonging = nodeless::belonging(places, &attached, inventory);
    for device in belonging.values() {
        if let Some(id) = DatabaseId::of(device) {
            let mut facts = facts_of(device, EntryKind::Nodeless);
            facts.is_certain = is_certain;
            entries.entry(id).or_insert(facts);
        }
    }
    let own = attached.iter().filter_map(|syspath| inventory.get(syspath));
    let own: Vec<&Device> = own.map(|device| inventory.real(device)).collect();
    for device in own.into_iter().chain(belonging.into_values()) {
        add_parents(device, inventory, entries);
    }
}

fn add_parents(device: &Device, inventory: &Inventory, entries: &mut DesiredEntries) {
    for parent in inventory.ancestors(&device.syspath) {
        if let Some(id) = DatabaseId::of(parent) {
            entries
                .entry(id)
                .or_insert_with(|| facts_of(parent, EntryKind::Parent));
        }
    }
}

fn is_processed(device: &Device) -> bool {
    device.udev_state > UdevState::Pending
}

fn facts_of(device: &Device, kind: EntryKind) -> EntryFacts {
    EntryFacts {
        kind,
        seqnum: device.seqnum,
        links: BTreeSet::new(),
        is_certain: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_file_of_the_data_directory() {
        let id = DatabaseId::parse("c188:0").unwrap();
        assert_eq!(path_of(&id), Path::new("/run/udev/data/c188:0"));
    }
}
