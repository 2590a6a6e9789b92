//! The steps from what a container has to what it should have.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::model::cgroup::grants::{GrantSet, common, granting};
use crate::model::device::inventory::Inventory;
use crate::model::device::{DevNum, SysPath, UdevState};
use crate::model::plan::announcements::{Announcement, Announcements};
use crate::model::plan::attachment::{Attachment, Attachments, NodeCreator};
use crate::model::plan::database::{DesiredEntries, path_of};
use crate::model::plan::desired::{Desired, DesiredNode};
use crate::model::plan::{Current, Plan, Step};
use crate::model::udev_database::{DatabaseId, Entries, EntryFacts, EntryKind};

/// Appends the steps after which the container has exactly the desired nodes, and its udev database
/// exactly the desired entries. Announces the devices without a node between them.
pub(super) fn append(
    desired: &Desired<'_>,
    entries: &DesiredEntries,
    announcements: Announcements,
    current: &Current<'_>,
    plan: &mut Plan,
) {
    let grants = grants_of(desired);
    let kept = common(current.granted, &grants);
    if kept != *current.granted {
        plan.steps.push(Step::Revoke(kept.clone()));
    }
    let outdated = outdated_entries(desired, entries, current);
    let removed = outdated.iter().map(|id| Step::RemoveEntry { id: (*id).clone() });
    plan.steps.extend(removed);
    append_removals(
        desired,
        announcements.removals,
        current.attachments,
        &mut plan.steps,
    );
    if grants != kept {
        plan.steps.push(Step::SetGrants(grants));
    }
    let new = NewEntries::new(entries, &outdated, current, &mut plan.postponed);
    append_additions(desired, &new, announcements.additions, current, plan);
    let changes = announcements.changes.into_iter();
    plan.steps
        .extend(changes.map(|change| Step::AnnounceNodeless(Box::new(change))));
}

/// The steps that remove everything from the container.
pub fn remove_all(current: &Current<'_>) -> Vec<Step> {
    let mut plan = Plan::default();
    let announcements = Announcements::of_all_removals(current.announced);
    append(
        &Desired::new(),
        &DesiredEntries::new(),
        announcements,
        current,
        &mut plan,
    );
    plan.steps
}

/// The part of `granted` for attachments whose device still has the number of their node. Looks up
/// each attachment and evaluates no selector.
pub fn still_due(granted: &GrantSet, attachments: &Attachments, inventory: &Inventory) -> GrantSet {
    let has_its_number = |attachment: &&Attachment| {
        let device = inventory.get(&attachment.device.syspath);
        let node = device.and_then(|device| device.node.as_ref());
        node.is_some_and(|node| node.num == attachment.node.num)
    };
    let due = attachments.iter().map(|(_, attachment)| attachment);
    let due = due.filter(has_its_number);
    common(
        granted,
        &granting(due.map(|attachment| (attachment.node.num, attachment.access))),
    )
}

fn grants_of(desired: &Desired<'_>) -> GrantSet {
    granting(desired.values().map(|node| (node.node.num, node.access)))
}

/// Whether the node that is attached is the desired one.
fn stays(attachment: &Attachment, desired: &DesiredNode<'_>) -> bool {
    attachment.node == desired.node && attachment.device.syspath == desired.device.syspath
}

/// The entries to remove before the removals are announced: those that are not desired, and those
/// of nodes that go, even if another device has the number from now on.
fn outdated_entries<'a>(
    desired: &Desired<'_>,
    entries: &DesiredEntries,
    current: &Current<'a>,
) -> BTreeSet<&'a DatabaseId> {
    let attachments = current.attachments.iter();
    let (kept, gone): (Vec<_>, Vec<_>) = attachments
        .partition(|(path, attachment)| desired.get(*path).is_some_and(|node| stays(attachment, node)));
    let has_number = |attachments: &[(&PathBuf, &Attachment)], id: &DatabaseId| {
        let mut numbers = attachments.iter().map(|(_, attachment)| attachment.node.num);
        numbers.any(|num| *id == DatabaseId::Number(num))
    };
    let is_outdated =
        |id: &&DatabaseId| !entries.contains_key(*id) || (has_number(&gone, id) && !has_number(&kept, id));
    let current = current.entries.into_iter().flat_map(Entries::keys);
    current.filter(is_outdated).collect()
}

/// The desired entries that have to be written.
struct NewEntries<'a>(Vec<(&'a DatabaseId, &'a EntryFacts)>);

impl<'a> NewEntries<'a> {
    /// Adds to `postponed` the entries that are not retried yet.
    fn new(
        entries: &'a DesiredEntries,
        outdated: &BTreeSet<&DatabaseId>,
        current: &Current<'_>,
        postponed: &mut Vec<PathBuf>,
    ) -> Self {
        let mut new = Vec::new();
        for (id, facts) in entries {
            let written = current.entries.and_then(|entries| entries.get(id));
            let is_written = written.is_some_and(|written| written.as_ref() == Some(facts));
            if is_written && !outdated.contains(id) {
                continue;
            }
            let path = path_of(id);
            match current.postponed.contains(&path) {
                true => postponed.push(path),
                false => new.push((id, facts)),
            }
        }
        Self(new)
    }

    /// The steps that write the entries of devices that are not attached.
    fn of_others(&self) -> impl Iterator<Item = Step> {
        self.steps(|_, facts| facts.kind != EntryKind::Attached)
    }

    /// The step that writes the entry of a number, if it is new.
    fn of_number(&self, num: DevNum) -> impl Iterator<Item = Step> {
        self.steps(move |id, facts| facts.kind == EntryKind::Attached && *id == DatabaseId::Number(num))
    }

    fn steps(&self, is_meant: impl Fn(&DatabaseId, &EntryFacts) -> bool) -> impl Iterator<Item = Step> {
        let meant = self.0.iter().filter(move |(id, facts)| is_meant(id, facts));
        meant.map(|(id, facts)| Step::WriteEntry {
            id: (*id).clone(),
            facts: (*facts).clone(),
        })
    }
}

/// Announcements first, those of children before those of their parents; then links, then nodes.
/// Access has been revoked before.
fn append_removals(
    desired: &Desired<'_>,
    nodeless: Vec<Announcement>,
    attachments: &Attachments,
    steps: &mut Vec<Step>,
) {
    let is_removed = |(path, attachment): &(&PathBuf, &Attachment)| {
        let node = desired.get(*path);
        !node.is_some_and(|node| stays(attachment, node))
    };
    let removed: Vec<(&PathBuf, &Attachment)> = attachments.iter().rev().filter(is_removed).collect();
    append_announced_removals(&removed, nodeless, steps);
    for (path, attachment) in attachments.iter() {
        let kept = desired.get(path).filter(|node| stays(attachment, node));
        for link in attachment.links.keys() {
            if !kept.is_some_and(|node| node.links.contains_key(link)) {
                steps.push(Step::RemoveLink {
                    path: path.clone(),
                    link: link.clone(),
                });
            }
        }
    }
    for (path, _) in removed {
        steps.push(Step::RemoveNode { path: path.clone() });
    }
}

fn append_announced_removals(
    removed: &[(&PathBuf, &Attachment)],
    nodeless: Vec<Announcement>,
    steps: &mut Vec<Step>,
) {
    let mut announcements: Vec<(SysPath, Step)> = Vec::new();
    for removal in nodeless {
        let syspath = removal.device.syspath.clone();
        announcements.push((syspath, Step::AnnounceNodeless(Box::new(removal))));
    }
    for (path, attachment) in removed {
        if attachment.announced.is_some() {
            let path = (*path).clone();
            announcements.push((attachment.device.syspath.clone(), Step::AnnounceRemove { path }));
        }
    }
    announcements.sort_by(|(left, _), (right, _)| right.cmp(left));
    steps.extend(announcements.into_iter().map(|(_, step)| step));
}

/// For each node: the node, its links, its entry in the udev database, its announcement. The
/// entries of parents and of devices without a node come before the first announcement. Parents are
/// announced before their children, also those without a node.
fn append_additions(
    desired: &Desired<'_>,
    entries: &NewEntries<'_>,
    nodeless: Vec<Announcement>,
    current: &Current<'_>,
    plan: &mut Plan,
) {
    let mut others = entries.of_others();
    let mut written = BTreeSet::new();
    let mut nodes: Vec<(&PathBuf, &DesiredNode<'_>)> = desired.iter().collect();
    nodes.sort_by_key(|(_, node)| &node.device.syspath);
    let mut nodeless = nodeless.into_iter().peekable();
    for (path, node) in nodes {
        while let Some(parent) = nodeless.next_if(|parent| parent.device.syspath < node.device.syspath) {
            plan.steps.extend(others.by_ref());
            plan.steps.push(Step::AnnounceNodeless(Box::new(parent)));
        }
        let attachment = current.attachments.get(path);
        let attached = attachment.filter(|attachment| stays(attachment, node));
        plan.steps.extend(add_or_refresh(path, node, attached));
        append_links(path, node, attached, current, plan);
        if must_be_announced(node, attached) {
            plan.steps.extend(others.by_ref());
            if written.insert(node.node.num) {
                plan.steps.extend(entries.of_number(node.node.num));
            }
            plan.steps.push(Step::Announce { path: path.clone() });
        }
    }
    plan.steps.extend(others);
    let nodeless = nodeless.map(|device| Step::AnnounceNodeless(Box::new(device)));
    plan.steps.extend(nodeless);
    // Nodes without an announcement, such as those of an earlier watcher.
    let numbers: BTreeSet<DevNum> = desired.values().map(|node| node.node.num).collect();
    let unwritten = numbers.difference(&written);
    plan.steps
        .extend(unwritten.flat_map(|num| entries.of_number(*num)));
}

/// The step that creates a node, or records newer facts of its device.
fn add_or_refresh(path: &Path, node: &DesiredNode<'_>, attached: Option<&Attachment>) -> Option<Step> {
    match attached {
        None => Some(Step::AddNode {
            path: path.to_owned(),
            attachment: Box::new(new_attachment(node)),
        }),
        Some(attachment) if attachment.device != *node.device || attachment.access != node.access => {
            Some(Step::Refresh {
                path: path.to_owned(),
                device: Box::new(node.device.clone()),
                access: node.access,
            })
        }
        Some(_) => None,
    }
}

fn append_links(
    path: &Path,
    node: &DesiredNode<'_>,
    attached: Option<&Attachment>,
    current: &Current<'_>,
    plan: &mut Plan,
) {
    let is_new = |link: &&PathBuf| !attached.is_some_and(|attachment| attachment.links.contains_key(*link));
    for link in node.links.keys().filter(is_new) {
        if current.postponed.contains(link) {
            plan.postponed.push(link.clone());
        } else {
            plan.steps.push(Step::AddLink {
                path: path.to_owned(),
                link: link.clone(),
            });
        }
    }
}

fn must_be_announced(node: &DesiredNode<'_>, attached: Option<&Attachment>) -> bool {
    let announced = attached.and_then(|attachment| attachment.announced);
    // udevd sends no event for a device that gains or loses a link, but the container's udev
    // database needs the new links.
    let has_other_links = attached.is_some_and(|attachment| attachment.device.links != node.device.links);
    node.device.udev_state > UdevState::Pending && (announced != Some(node.device.seqnum) || has_other_links)
}

fn new_attachment(node: &DesiredNode<'_>) -> Attachment {
    Attachment {
        device: node.device.clone(),
        access: node.access,
        node: node.node.clone(),
        node_creator: NodeCreator::Watcher,
        links: BTreeMap::new(),
        announced: None,
        since: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::device::{Access, Device, SysPath, recorded};
    use crate::model::plan::attachment::NodeSpec;
    use crate::model::request::id::RequestId;

    #[test]
    fn a_node_stays_only_while_it_has_the_same_properties_and_device() {
        let mut device = recorded::virtual_device("tty", "tty1", "/dev/tty1", 4, 1);
        device.udev_state = UdevState::Processed;
        let desired = |device| DesiredNode {
            request: RequestId::FIRST,
            device,
            node: NodeSpec {
                num: device.node.as_ref().unwrap().num,
                mode: 0o660,
                uid: 0,
                gid: 0,
            },
            access: Access::ALL,
            links: BTreeMap::new(),
        };
        let attachment = new_attachment(&desired(&device));
        assert!(stays(&attachment, &desired(&device)));
        let mut renumbered = device.clone();
        renumbered.node.as_mut().unwrap().num.minor += 1;
        assert!(!stays(&attachment, &desired(&renumbered)));
        let elsewhere = Device {
            syspath: SysPath::new("/sys/devices/virtual/tty/other"),
            ..device.clone()
        };
        assert!(!stays(&attachment, &desired(&elsewhere)));
    }
    #[test]
    fn access_is_revoked_before_everything_is_removed() {
        let device = recorded::virtual_device("tty", "tty1", "/dev/tty1", 4, 1);
        let num = device.node.as_ref().unwrap().num;
        let node = NodeSpec {
            num,
            mode: 0o660,
            uid: 0,
            gid: 0,
        };
        let path = PathBuf::from("/dev/tty1");
        let desired = DesiredNode {
            request: RequestId::FIRST,
            device: &device,
            node,
            access: Access::ALL,
            links: BTreeMap::new(),
        };
        let mut attachments = Attachments::default();
        attachments.insert(
            path.clone(),
            Attachment {
                announced: Some(1),
                ..new_attachment(&desired)
            },
        );
        let current = Current {
            attachments: &attachments,
            granted: &GrantSet::from([(num, Access::ALL)]),
            postponed: &Default::default(),
            entries: None,
            announced: &Default::default(),
            events: &[],
        };
        let expected = [
            Step::Revoke(GrantSet::new()),
            Step::AnnounceRemove { path: path.clone() },
            Step::RemoveNode { path },
        ];
        assert_eq!(remove_all(&current), expected);
    }
}
