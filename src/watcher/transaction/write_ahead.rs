//! The note that is written before the steps are carried out, and the steps that it must not have.

use super::{Effects, Transaction};
use crate::model::cgroup::grants::{GrantSet, common, granting};
use crate::model::plan::Step;
use crate::model::plan::attachment::{Attachments, NodeCreator, PathState};

impl<E: Effects> Transaction<'_, E> {
    /// Leaves out the nodes at paths whose old node could not be removed: the notes must keep the
    /// old one. Access is granted only for the rest, which the notes will have.
    pub(super) fn leave_out_stuck(&mut self, additions: &mut Vec<Step>) {
        if self.stuck.is_empty() {
            return;
        }
        additions.retain(|step| match step {
            Step::AddNode { path, .. } if self.stuck.contains(path) => {
                self.given_up.insert(path.clone());
                false
            }
            _ => true,
        });
        let added = additions.iter().filter_map(|step| match step {
            Step::AddNode { attachment, .. } => Some((attachment.node.num, attachment.access)),
            Step::Refresh { path, access, .. } => {
                let attachment = self.attachments.get(path)?;
                Some((attachment.node.num, *access))
            }
            _ => None,
        });
        let due = granting(self.due().chain(added));
        for step in additions {
            if let Step::SetGrants(grants) = step {
                *grants = common(grants, &due);
            }
        }
    }

    /// Writes what is about to be created, before it is created: after a crash, the next watcher
    /// knows that it is ours. What the image or the engine has created is marked as theirs.
    pub(super) fn write_ahead(&mut self, steps: &[Step]) {
        let mut ahead = self.attachments.clone();
        let mut has_news = false;
        for step in steps {
            has_news |= self.note_ahead(step, &mut ahead);
        }
        if !has_news {
            return;
        }
        if let Err(error) = self.effects.write_notes(&ahead) {
            // Without its note, a node would be left behind by a crash: do not create it.
            self.fail(None, &error);
            self.given_up.extend(steps.iter().filter_map(|step| match step {
                Step::AddNode { path, .. } => Some(path.clone()),
                _ => None,
            }));
        }
    }

    /// Adds to `ahead` what a step will change. Returns whether the step creates or grants
    /// something.
    fn note_ahead(&mut self, step: &Step, ahead: &mut Attachments) -> bool {
        match step {
            Step::AddNode { path, attachment } => {
                let mut planned = (**attachment).clone();
                planned.since = self.now;
                let before = ahead.get(path);
                let is_ours = before.is_some_and(|before| before.node_creator == NodeCreator::Watcher);
                if !is_ours {
                    planned.node_creator = creator_of(self.effects.find_node(path, &planned.node));
                }
                ahead.insert(path.clone(), planned);
                true
            }
            Step::AddLink { path, .. } if self.given_up.contains(path) => false,
            Step::AddLink { path, link } => {
                let creator = creator_of(self.effects.find_link(link, path));
                if let Some(attachment) = ahead.get_mut(path) {
                    attachment.links.insert(link.clone(), creator);
                }
                true
            }
            Step::Refresh { path, access, .. } => {
                if let Some(attachment) = ahead.get_mut(path) {
                    attachment.access = *access;
                }
                false
            }
            Step::SetGrants(grants) => self.gives_more(grants),
            Step::Revoke(_)
            | Step::AnnounceRemove { .. }
            | Step::RemoveEntry { .. }
            | Step::WriteEntry { .. }
            | Step::RemoveLink { .. }
            | Step::RemoveNode { .. }
            | Step::Announce { .. }
            | Step::AnnounceNodeless(_) => false,
        }
    }

    fn gives_more(&self, grants: &GrantSet) -> bool {
        grants
            .iter()
            .any(|(num, access)| !self.granted.get(num).is_some_and(|held| held.covers(*access)))
    }
}

/// Which process has created, or will have created, what is at a path after a step. The step fails
/// if something else is there; nothing of that is ours.
fn creator_of<E>(found: Result<PathState, E>) -> NodeCreator {
    match found {
        Ok(PathState::Same | PathState::Other) => NodeCreator::Other,
        Ok(PathState::Vacant | PathState::NoDirectory) | Err(_) => NodeCreator::Watcher,
    }
}
