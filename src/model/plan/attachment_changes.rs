//! How the attachments of a container differ from what they were before.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::plan::attachment::{Attachment, Attachments};

/// The attachments that have changed, by the path of the node; `None`: removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AttachmentChanges(BTreeMap<PathBuf, Option<Arc<Attachment>>>);

impl AttachmentChanges {
    /// What makes `after` of `before`.
    pub(crate) fn between(before: &Attachments, after: &Attachments) -> Self {
        let is_unchanged = |path, attachment: &Arc<Attachment>| {
            before
                .shared(path)
                .is_some_and(|old| Arc::ptr_eq(old, attachment) || old == attachment)
        };
        let changed = after
            .iter_shared()
            .filter(|(path, attachment)| !is_unchanged(*path, attachment))
            .map(|(path, attachment)| (path.clone(), Some(attachment.clone())));
        let removed = before
            .iter_shared()
            .filter(|(path, _)| after.shared(path).is_none())
            .map(|(path, _)| (path.clone(), None));
        Self(changed.chain(removed).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Changes `attachments`.
    pub(crate) fn apply_to(self, attachments: &mut Attachments) {
        for (path, attachment) in self.0 {
            match attachment {
                Some(attachment) => attachments.insert_shared(path, attachment),
                None => _ = attachments.remove(&path),
            }
        }
    }
}

impl Serialize for AttachmentChanges {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let changes = self.0.iter();
        serializer.collect_map(changes.map(|(path, attachment)| (path, attachment.as_deref())))
    }
}

impl<'de> Deserialize<'de> for AttachmentChanges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let changes = BTreeMap::<PathBuf, Option<Attachment>>::deserialize(deserializer)?;
        let shared = changes.into_iter();
        Ok(Self(
            shared
                .map(|(path, attachment)| (path, attachment.map(Arc::new)))
                .collect(),
        ))
    }
}
