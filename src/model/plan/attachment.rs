//! What is attached to a container now.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::cgroup::grants::{GrantSet, granting};
use crate::model::device::{Access, DevNum, Device};

/// A node as a container should have it. The ids are the container's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    pub num: DevNum,
    pub mode: u32,
    /// Owner, in the container's user namespace.
    pub uid: u32,
    /// Group, in the container's user namespace.
    pub gid: u32,
}

/// Who made a node or link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeCreator {
    /// The watcher made it, and removes it again.
    Watcher,
    /// The image or the engine had already made it, exactly as requested: it is never removed.
    Other,
}

/// What exists at a path in a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathState {
    /// Nothing, or something that can be replaced.
    Vacant,
    /// Nothing, and a directory of the path is missing, too.
    NoDirectory,
    /// Exactly the desired node or link.
    Same,
    /// Something else.
    Other,
}

/// A device that is attached to a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The device as it was at its last change: complete even when the device is gone.
    pub device: Device,
    pub access: Access,
    pub node: NodeSpec,
    pub node_creator: NodeCreator,
    /// The links to the node, and who made each.
    pub links: BTreeMap<PathBuf, NodeCreator>,
    /// The sequence number of the last udev event that was announced in the container; `None`: none
    /// yet.
    pub announced: Option<u64>,
    /// When the device was attached: seconds since 1970 by the host's clock, for display.
    #[serde(default)]
    pub since: u64,
}

/// All attachments of one container, by the path of the node. A copy is cheap: it shares the
/// attachments until one of them changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attachments(BTreeMap<PathBuf, Arc<Attachment>>);

impl Attachments {
    /// The attachment whose node is at `path`.
    pub fn get(&self, path: &Path) -> Option<&Attachment> {
        self.0.get(path).map(Arc::as_ref)
    }

    pub fn get_mut(&mut self, path: &Path) -> Option<&mut Attachment> {
        self.0.get_mut(path).map(Arc::make_mut)
    }

    pub fn insert(&mut self, path: PathBuf, attachment: Attachment) {
        self.0.insert(path, Arc::new(attachment));
    }

    pub fn remove(&mut self, path: &Path) -> Option<Attachment> {
        self.0.remove(path).map(Arc::unwrap_or_clone)
    }

    /// All attachments, in the order of their paths.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&PathBuf, &Attachment)> {
        self.0
            .iter()
            .map(|(path, attachment)| (path, attachment.as_ref()))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&PathBuf, &mut Attachment)> {
        self.0
            .iter_mut()
            .map(|(path, attachment)| (path, Arc::make_mut(attachment)))
    }

    pub(super) fn shared(&self, path: &Path) -> Option<&Arc<Attachment>> {
        self.0.get(path)
    }

    pub(super) fn iter_shared(&self) -> impl Iterator<Item = (&PathBuf, &Arc<Attachment>)> {
        self.0.iter()
    }

    pub(super) fn insert_shared(&mut self, path: PathBuf, attachment: Arc<Attachment>) {
        self.0.insert(path, attachment);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The access that these attachments need. Two nodes with one device number count once, with
    /// the access of both.
    pub fn grants(&self) -> GrantSet {
        let attachments = self.0.values();
        granting(attachments.map(|attachment| (attachment.node.num, attachment.access)))
    }
}

impl Serialize for Attachments {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Attachments {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let attachments = BTreeMap::<PathBuf, Attachment>::deserialize(deserializer)?;
        Ok(attachments.into_iter().collect())
    }
}

impl FromIterator<(PathBuf, Attachment)> for Attachments {
    fn from_iter<I: IntoIterator<Item = (PathBuf, Attachment)>>(attachments: I) -> Self {
        let shared = attachments.into_iter();
        Self(
            shared
                .map(|(path, attachment)| (path, Arc::new(attachment)))
                .collect(),
        )
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::device::{DevKind, SysPath};

    pub(in crate::model::plan) fn attachment(minor: u32, access: Access) -> Attachment {
        Attachment {
            device: Device::new(SysPath::new("/sys/devices/tty")),
            access,
            node: NodeSpec {
                num: DevNum {
                    kind: DevKind::Char,
                    major: 188,
                    minor,
                },
                mode: 0o660,
                uid: 0,
                gid: 0,
            },
            node_creator: NodeCreator::Watcher,
            links: BTreeMap::new(),
            announced: None,
            since: 0,
        }
    }

    #[test]
    fn attachments_are_counted_and_two_nodes_of_one_number_share_a_grant() {
        let mut all = Attachments::default();
        assert!(all.is_empty() && all.grants().is_empty());
        all.insert("/dev/a".into(), attachment(0, Access::READ));
        all.insert("/dev/b".into(), attachment(0, Access::WRITE));
        all.insert("/dev/c".into(), attachment(1, Access::READ));
        assert_eq!((all.len(), all.is_empty()), (3, false));
        let accesses: Vec<Access> = all.grants().into_values().collect();
        assert_eq!(accesses, [Access::READ | Access::WRITE, Access::READ]);
        all.iter_mut().for_each(|(_, attachment)| attachment.since = 7);
        assert!(all.iter().all(|(_, attachment)| attachment.since == 7));
        // Two attachments of one device are one grant.
        all.insert("/dev/d".into(), attachment(1, Access::READ));
        assert_eq!(all.grants().into_values().last(), Some(Access::READ));
    }
}
