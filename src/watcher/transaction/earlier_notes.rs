//! Compares the notes of an earlier watcher with the container.

use super::Effects;
use crate::model::plan::attachment::{Attachments, NodeCreator, PathState};

/// Drops attachments of an earlier watcher's notes that do not exist: that watcher may have crashed
/// after it wrote the note and before it made the change. Removes what is left of them. Returns
/// what could not be removed.
pub(crate) fn check<E: Effects>(attachments: &mut Attachments, effects: &mut E) -> Vec<E::Error> {
    let mut missing = Vec::new();
    let mut missing_links = Vec::new();
    for (path, attachment) in attachments.iter_mut() {
        let is_missing = !matches!(effects.find_node(path, &attachment.node), Ok(PathState::Same));
        if is_missing {
            missing.push((path.clone(), attachment.node_creator));
        }
        attachment.links.retain(|link, creator| {
            let exists = matches!(effects.find_link(link, path), Ok(PathState::Same));
            // A link to a node that does not exist goes with it.
            if (is_missing || !exists) && *creator == NodeCreator::Watcher {
                missing_links.push((link.clone(), path.clone()));
            }
            exists
        });
    }
    let mut errors = Vec::new();
    for (link, path) in missing_links {
        errors.extend(effects.remove_link_remains(&link, &path).err());
    }
    for (path, creator) in missing {
        attachments.remove(&path);
        if creator == NodeCreator::Watcher {
            errors.extend(effects.remove_remains(&path).err());
        }
    }
    errors
}
