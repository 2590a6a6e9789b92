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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::device::Access;
    use crate::model::plan::attachment::tests::attachment;
    use proptest::prelude::*;

    /// Attachments at these paths; the number makes those of one path different.
    fn attachments(numbers: &BTreeMap<u8, u8>) -> Attachments {
        let mut all = Attachments::default();
        for (path, number) in numbers {
            let path = format!("/dev/tty{path}");
            all.insert(path.into(), attachment(u32::from(*number), Access::ALL));
        }
        all
    }

    proptest! {
        #[test]
        fn the_changes_make_the_later_attachments_of_the_earlier_ones(
            before in prop::collection::btree_map(0..4_u8, 0..3_u8, 0..4),
            after in prop::collection::btree_map(0..4_u8, 0..3_u8, 0..4),
        ) {
            let (old, new) = (attachments(&before), attachments(&after));
            let changes = AttachmentChanges::between(&old, &new);
            let all: Vec<u8> = before.keys().chain(after.keys()).copied().collect();
            let differ = |path: &&u8| before.get(*path) != after.get(*path);
            let different: std::collections::BTreeSet<&u8> = all.iter().filter(differ).collect();
            prop_assert_eq!(changes.0.len(), different.len(), "only changes are listed");
            prop_assert_eq!(changes.is_empty(), before == after);
            let text = serde_json::to_string(&changes).unwrap();
            let read: AttachmentChanges = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&read, &changes);
            let mut changed = old;
            read.apply_to(&mut changed);
            prop_assert_eq!(changed, new);
        }
    }
}
