//! Applies a plan step by step, and undoes what a failed step would leave incomplete.
//!
//! A device that fails does not affect the others. Decides nothing (`model::plan` does).

mod earlier_notes;
mod write_ahead;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::model::cgroup::grants::{GrantSet, common, granting};
use crate::model::device::{Access, DevNum, Device};
use crate::model::plan::announcements::Announcement;
use crate::model::plan::attachment::{Attachment, Attachments, NodeCreator, NodeSpec, PathState};
use crate::model::plan::{Step, path_of_entry};
use crate::model::udev_database::{DatabaseId, EntryFacts, EntryKind};
use crate::model::uevent::{UeventAction, UeventForm};

pub(crate) use earlier_notes::check;

/// The operations of a transaction on a container. Each is idempotent.
pub(crate) trait Effects {
    /// The error; its text names the path or cgroup, and has a hint.
    type Error: std::error::Error;

    /// What is at the node's path.
    fn find_node(&mut self, path: &Path, node: &NodeSpec) -> Result<PathState, Self::Error>;
    /// What is at the link's path.
    fn find_link(&mut self, link: &Path, target: &Path) -> Result<PathState, Self::Error>;
    /// Creates a node unless it exists. Returns which process created it.
    fn add_node(&mut self, path: &Path, node: &NodeSpec) -> Result<NodeCreator, Self::Error>;
    /// Removes a node that the watcher created.
    fn remove_node(&mut self, path: &Path, node: &NodeSpec) -> Result<(), Self::Error>;
    /// Removes what an earlier watcher has left of a link that is not at this path.
    fn remove_link_remains(&mut self, link: &Path, target: &Path) -> Result<(), Self::Error>;
    /// Removes what an earlier watcher has left of a node that is not at this path.
    fn remove_remains(&mut self, path: &Path) -> Result<(), Self::Error>;
    /// Creates a link unless it exists. Returns which process created it.
    fn add_link(&mut self, link: &Path, target: &Path) -> Result<NodeCreator, Self::Error>;
    /// Removes a link that the watcher created.
    fn remove_link(&mut self, link: &Path, target: &Path) -> Result<(), Self::Error>;
    /// Grants exactly this access, except for the returned numbers, each with the reason why
    /// something outside the watcher's control denies it.
    fn set_grants(&mut self, grants: &GrantSet) -> Result<Vec<(DevNum, String)>, Self::Error>;
    /// Writes a device into the container's udev database.
    fn write_entry(&mut self, id: &DatabaseId, facts: &EntryFacts) -> Result<(), Self::Error>;
    /// Removes a device from the container's udev database.
    fn remove_entry(&mut self, id: &DatabaseId) -> Result<(), Self::Error>;
    /// Sends a uevent to the container's listeners.
    fn announce(
        &mut self,
        form: UeventForm,
        action: UeventAction,
        device: &Device,
        path: &Path,
    ) -> Result<(), Self::Error>;
    /// Sends an event of a device without a node, and records it.
    fn announce_nodeless(&mut self, announcement: &Announcement) -> Result<(), Self::Error>;
    /// Writes what is attached, or about to be.
    fn write_notes(&mut self, attachments: &Attachments) -> Result<(), Self::Error>;
}

/// A step that failed, and was undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The node, link or entry that failed; `None` for access as a whole, or the notes.
    pub path: Option<PathBuf>,
    pub reason: String,
}

/// A plan that is being applied, and what has failed so far.
pub(crate) struct Transaction<'a, E: Effects> {
    effects: &'a mut E,
    attachments: &'a mut Attachments,
    granted: &'a mut GrantSet,
    now: u64,
    failures: Vec<Failure>,
    /// Nodes that could not be created: the rest of their steps is skipped.
    given_up: BTreeSet<PathBuf>,
    /// Nodes that could not be removed: they stay in the notes, without access.
    stuck: BTreeSet<PathBuf>,
    /// Numbers whose access is denied, with the reasons.
    refused: Vec<(DevNum, String)>,
}

/// Applies `steps`. `attachments` and `granted` are correct after every step; `now` is the time for
/// [`Attachment::since`]. Returns what failed.
pub(crate) fn apply<E: Effects>(
    steps: Vec<Step>,
    attachments: &mut Attachments,
    granted: &mut GrantSet,
    effects: &mut E,
    now: u64,
) -> Vec<Failure> {
    let mut transaction = Transaction {
        effects,
        attachments,
        granted,
        now,
        failures: Vec::new(),
        given_up: BTreeSet::new(),
        stuck: BTreeSet::new(),
        refused: Vec::new(),
    };
    let is_revocation = |step: &Step| matches!(step, Step::Revoke(_));
    let (revocations, mut removals): (Vec<Step>, Vec<Step>) = steps.into_iter().partition(is_revocation);
    let begin = removals.iter().position(is_addition).unwrap_or(removals.len());
    let mut additions = removals.split_off(begin);
    // Before the container is inspected.
    for step in revocations {
        transaction.carry_out(step);
    }
    // Until these are done, the old note is correct. The new one would list another node at the
    // path of a replaced one, which nobody would remove after a crash.
    for step in removals {
        transaction.carry_out(step);
    }
    transaction.leave_out_stuck(&mut additions);
    transaction.write_ahead(&additions);
    for step in additions {
        transaction.carry_out(step);
    }
    transaction.finish()
}

/// Whether a step creates, grants or writes something.
fn is_addition(step: &Step) -> bool {
    match step {
        Step::SetGrants(_)
        | Step::AddNode { .. }
        | Step::Refresh { .. }
        | Step::AddLink { .. }
        | Step::WriteEntry { .. }
        | Step::Announce { .. } => true,
        Step::Revoke(_)
        | Step::AnnounceRemove { .. }
        | Step::RemoveEntry { .. }
        | Step::RemoveLink { .. }
        | Step::RemoveNode { .. }
        // Both a removal and an addition can have one.
        | Step::AnnounceNodeless(_) => false,
    }
}

/// Reduces the granted access to `kept`, without inspecting the container and without writing a
/// note: the old note stays correct until the next one, because it lists at least what is in force.
///
/// # Errors
/// The reason why the access is still in force.
pub(crate) fn revoke<E: Effects>(
    kept: GrantSet,
    granted: &mut GrantSet,
    effects: &mut E,
) -> Result<(), String> {
    let refused = effects.set_grants(&kept).map_err(|error| error.to_string())?;
    *granted = kept;
    for (num, _) in refused {
        granted.remove(&num);
    }
    Ok(())
}

impl<E: Effects> Transaction<'_, E> {
    fn carry_out(&mut self, step: Step) {
        match step {
            Step::AnnounceRemove { path } => self.announce_remove(&path),
            Step::RemoveLink { path, link } => self.remove_link(&path, &link),
            Step::RemoveNode { path } => self.remove_node(&path),
            Step::Revoke(grants) | Step::SetGrants(grants) => self.set_grants(grants),
            Step::AddNode { path, attachment } => self.add_node(path, *attachment),
            Step::Refresh { path, device, access } => self.refresh(&path, *device, access),
            Step::AddLink { path, link } => self.add_link(&path, link),
            Step::RemoveEntry { id } => self.remove_entry(&id),
            Step::WriteEntry { id, facts } => self.write_entry(&id, facts),
            Step::Announce { path } => self.announce(&path),
            Step::AnnounceNodeless(announcement) => self.announce_nodeless(&announcement),
        }
    }

    fn announce_remove(&mut self, path: &Path) {
        let Some(attachment) = self.attachments.get_mut(path) else {
            return;
        };
        attachment.announced = None;
        for form in [UeventForm::Kernel, UeventForm::Udev] {
            if let Err(error) = self
                .effects
                .announce(form, UeventAction::Remove, &attachment.device, path)
            {
                // Removal never depends on the announcement.
                tracing::warn!(path = %path.display(), "{error}");
            }
        }
    }

    fn remove_link(&mut self, path: &Path, link: &Path) {
        let Some(attachment) = self.attachments.get_mut(path) else {
            return;
        };
        if attachment.links.get(link) == Some(&NodeCreator::Watcher) {
            if let Err(error) = self.effects.remove_link(link, path) {
                return self.fail(Some(link), &error);
            }
        }
        attachment.links.remove(link);
    }

    fn remove_node(&mut self, path: &Path) {
        let Some(attachment) = self.attachments.get(path) else {
            return;
        };
        let removed = match attachment.node_creator {
            NodeCreator::Watcher => self.effects.remove_node(path, &attachment.node),
            NodeCreator::Other => Ok(()),
        };
        let links_left = !attachment.links.is_empty();
        match removed {
            Ok(()) if !links_left => {
                self.attachments.remove(path);
            }
            Ok(()) => {
                self.stuck.insert(path.to_owned());
            }
            Err(error) => {
                self.stuck.insert(path.to_owned());
                self.fail(Some(path), &error);
            }
        }
    }

    fn set_grants(&mut self, grants: GrantSet) {
        match self.effects.set_grants(&grants) {
            Ok(refused) => {
                *self.granted = grants;
                self.note_refused(refused);
            }
            // The previous grants stay in the notes, so that the next plan tries again. A node
            // without access is not created.
            Err(error) => self.fail(None, &error),
        }
    }

    /// A denied number does not affect the others. A node that is attached already stays, because
    /// its device is still there, and is reported.
    fn note_refused(&mut self, refused: Vec<(DevNum, String)>) {
        for (num, reason) in &refused {
            self.granted.remove(num);
            let has_num = |(_, attachment): &(&PathBuf, &Attachment)| attachment.node.num == *num;
            for (path, _) in self.attachments.iter().filter(has_num) {
                self.failures.push(Failure {
                    path: Some(path.clone()),
                    reason: reason.clone(),
                });
            }
        }
        self.refused.extend(refused);
    }

    fn add_node(&mut self, path: PathBuf, mut attachment: Attachment) {
        if self.given_up.contains(&path) {
            return;
        }
        let num = attachment.node.num;
        if let Some((_, reason)) = self.refused.iter().find(|(refused, _)| *refused == num) {
            self.failures.push(Failure {
                path: Some(path.clone()),
                reason: reason.clone(),
            });
            self.given_up.insert(path);
            return;
        }
        let has_access = self
            .granted
            .get(&attachment.node.num)
            .is_some_and(|held| held.covers(attachment.access));
        if !has_access {
            self.given_up.insert(path);
            return;
        }
        match self.effects.add_node(&path, &attachment.node) {
            Ok(creator) => attachment.node_creator = creator,
            Err(error) => {
                self.fail(Some(&path), &error);
                self.given_up.insert(path);
                return;
            }
        }
        attachment.since = self.now;
        if let Err(error) =
            self.effects
                .announce(UeventForm::Kernel, UeventAction::Add, &attachment.device, &path)
        {
            tracing::warn!(path = %path.display(), "{error}");
        }
        self.attachments.insert(path, attachment);
    }

    fn refresh(&mut self, path: &Path, device: Device, access: Access) {
        if let Some(attachment) = self.attachments.get_mut(path) {
            attachment.device = device;
            attachment.access = access;
        }
    }

    fn add_link(&mut self, path: &Path, link: PathBuf) {
        if self.given_up.contains(path) {
            return;
        }
        let Some(attachment) = self.attachments.get_mut(path) else {
            return;
        };
        match self.effects.add_link(&link, path) {
            Ok(creator) => {
                attachment.links.insert(link, creator);
            }
            Err(error) => self.fail(Some(&link), &error),
        }
    }

    fn remove_entry(&mut self, id: &DatabaseId) {
        if let Err(error) = self.effects.remove_entry(id) {
            self.fail(Some(&path_of_entry(id)), &error);
        }
    }

    fn write_entry(&mut self, id: &DatabaseId, mut facts: EntryFacts) {
        let has_number =
            |(_, attachment): &(&PathBuf, &Attachment)| *id == DatabaseId::Number(attachment.node.num);
        let mut attached = self.attachments.iter().filter(has_number).peekable();
        if facts.kind == EntryKind::Attached && attached.peek().is_none() {
            return;
        }
        let links: BTreeSet<&PathBuf> = attached
            .flat_map(|(_, attachment)| attachment.links.keys())
            .collect();
        facts.links.retain(|link| links.contains(link));
        if let Err(error) = self.effects.write_entry(id, &facts) {
            self.fail(Some(&path_of_entry(id)), &error);
        }
    }

    fn announce(&mut self, path: &Path) {
        let Some(attachment) = self
            .attachments
            .get_mut(path)
            .filter(|_| !self.given_up.contains(path))
        else {
            return;
        };
        let action = match attachment.announced {
            None => UeventAction::Add,
            Some(_) => UeventAction::Change,
        };
        attachment.announced = Some(attachment.device.seqnum);
        if let Err(error) = self
            .effects
            .announce(UeventForm::Udev, action, &attachment.device, path)
        {
            tracing::warn!(path = %path.display(), "{error}");
        }
    }

    fn announce_nodeless(&mut self, announcement: &Announcement) {
        if let Err(error) = self.effects.announce_nodeless(announcement) {
            tracing::warn!(device = %announcement.device.syspath, "{error}");
        }
    }

    /// The access of all attachments, but for nodes that could not be removed.
    fn due(&self) -> impl Iterator<Item = (DevNum, Access)> {
        let attached = self.attachments.iter();
        let attached = attached.filter(|(path, _)| !self.stuck.contains(*path));
        attached.map(|(_, attachment)| (attachment.node.num, attachment.access))
    }

    /// Revokes the access of failed nodes, and writes what is attached now.
    fn finish(mut self) -> Vec<Failure> {
        let mut due = granting(self.due());
        for (num, _) in &self.refused {
            due.remove(num);
        }
        // Only revoke: what was revoked or denied may still be in the notes as attached.
        let due = common(self.granted, &due);
        if !self.failures.is_empty() && *self.granted != due {
            self.set_grants(due);
        }
        if let Err(error) = self.effects.write_notes(self.attachments) {
            self.fail(None, &error);
        }
        self.failures
    }

    fn fail(&mut self, path: Option<&Path>, error: &E::Error) {
        self.failures.push(Failure {
            path: path.map(Path::to_owned),
            reason: error.to_string(),
        });
    }
}

#[cfg(test)]
mod tests;
