//! Finds out which other containers have a device, from the notes of their watchers. For messages
//! only.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use super::inside::Inside;
use crate::host::engine_names;
use crate::host::log::event;
use crate::host::state::notes::Notes;
use crate::host::state::registry::Registry;
use crate::model::device::inventory::Inventory;
use crate::model::device::{DevKind, Device, SysPath, same_data};
use crate::model::oci::ContainerId;
use crate::model::oci::engine::short_id;
use crate::model::plan::attachment::Attachment;

/// The attachments of other containers. Their notes are files, which are read on first use.
pub(super) struct Holders<'a> {
    inside: &'a Inside,
    inventory: &'a Inventory,
    others: OnceCell<Vec<(ContainerId, Notes)>>,
}

impl<'a> Holders<'a> {
    /// The other containers, as seen from the container of `inside`.
    pub(super) fn new(inside: &'a Inside, inventory: &'a Inventory) -> Self {
        Self {
            inside,
            inventory,
            others: OnceCell::new(),
        }
    }

    /// The container that this is about.
    pub(super) fn inside(&self) -> &'a Inside {
        self.inside
    }

    pub(super) fn inventory(&self) -> &'a Inventory {
        self.inventory
    }

    /// The other containers that have the device, or a device that exposes its data, as text in
    /// parentheses; empty if there are none.
    pub(super) fn of(&self, device: &SysPath) -> String {
        let others = self.others.get_or_init(|| self.read().collect());
        let holders: Vec<String> = others
            .iter()
            .filter_map(|(id, notes)| self.holder(id, notes, device))
            .collect();
        if holders.is_empty() {
            return String::new();
        }
        format!(" ({})", holders.join("; "))
    }

    fn read(&self) -> impl Iterator<Item = (ContainerId, Notes)> {
        let registry = Registry::new(self.inside.state_dir());
        let ids = registry.ids().unwrap_or_default().into_iter();
        ids.filter_map(move |id| {
            let is_other = id.as_str() != self.inside.id() && registry.is_watched(&id);
            let notes = is_other.then(|| registry.attached(&id).ok().flatten())??;
            Some((id, notes))
        })
    }

    /// How a container has the device; `None` if it does not.
    fn holder(&self, id: &ContainerId, notes: &Notes, device: &SysPath) -> Option<String> {
        let known = self.inventory.get(device);
        let num = known.and_then(|device| device.node.as_ref()).map(|node| node.num);
        let extents = known.map(|device| same_data::extents(device, self.inventory));
        let is_same = |attachment: &Attachment| {
            attachment.device.syspath == *device || Some(attachment.node.num) == num
        };
        let overlaps = |attachment: &Attachment| {
            let attached = self.inventory.get(&attachment.device.syspath);
            let attached = attached.map(|device| same_data::extents(device, self.inventory));
            extents
                .as_ref()
                .zip(attached)
                .is_some_and(|(wanted, attached)| same_data::overlap(wanted, &attached))
        };
        let all = || notes.attachments.iter().map(|(_, attachment)| attachment);
        if all().any(is_same) {
            return Some(format!("container {}", self.name(id)));
        }
        let related = all().find(|attachment| overlaps(attachment))?;
        Some(format!(
            "container {}, which has {}",
            self.name(id),
            node_of(&related.device)
        ))
    }

    /// The container's name for people.
    fn name(&self, id: &ContainerId) -> String {
        match Registry::new(self.inside.state_dir()).record(id) {
            Ok(Some(record)) => engine_names::display_name(&record.container, &record.traits.annotations),
            _ => short_id(id.as_str()).to_owned(),
        }
    }

    /// Warns if a disk among the new attachments is in another container as well: two systems that
    /// write to one disk destroy its data. Sharing other devices is normal. `is_shared` returns
    /// whether another container has the lease of a device, too: of two that get a disk at the same
    /// time, the later one finds the notes of the earlier one.
    pub(super) fn warn_of_shared_disks(&self, attached: &[PathBuf], is_shared: impl Fn(&SysPath) -> bool) {
        let is_shared_disk = |attachment: &Attachment| {
            let leased = &self.inventory.real(&attachment.device).syspath;
            attachment.node.num.kind == DevKind::Block && is_shared(leased)
        };
        let attachments = self.inside.attachments();
        let new = attached
            .iter()
            .filter_map(|path| Some((path, attachments.get(path)?)));
        let mut disks: Vec<_> = new.filter(|(_, attachment)| is_shared_disk(attachment)).collect();
        if disks.is_empty() {
            return;
        }
        // One other container is named for each disk, so the notes of the rest need not be read.
        for (id, notes) in self.read() {
            disks.retain(|(path, attachment)| {
                let device = &attachment.device.syspath;
                let holder = self.holder(&id, &notes, device);
                if let Some(holder) = &holder {
                    self.warn_of_shared_disk(device, path, holder);
                }
                holder.is_none()
            });
            if disks.is_empty() {
                return;
            }
        }
    }

    fn warn_of_shared_disk(&self, device: &SysPath, path: &Path, holder: &str) {
        let text = format!(
            "{} is in another container as well ({holder}); add `;exclusive` to the request to prevent that",
            path.display()
        );
        self.inside.log_event(event::SHARED, device.as_str(), path, &text);
    }
}

fn node_of(device: &Device) -> String {
    let node = device.node.as_ref();
    node.map_or(device.syspath.to_string(), |node| node.path.display().to_string())
}
