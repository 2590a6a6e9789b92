//! A watcher's notes: what the next watcher of the container must know, and what is shown of a
//! container whose watcher does not answer.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::host::filter::FilterMemory;
use crate::host::state::journal::Journaled;
use crate::model::cgroup::grants::GrantSet;
use crate::model::counters::Counters;
use crate::model::device::{Access, DevNum, SysPath};
use crate::model::plan::announcements::{AnnouncedChanges, AnnouncedDevices};
use crate::model::plan::attachment::Attachments;
use crate::model::plan::attachment_changes::AttachmentChanges;
use crate::model::remote::address::RemoteDevice;
use crate::model::remote::binding::Binding;

/// What a watcher must know of its predecessor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notes {
    /// The version of the format.
    pub version: u32,
    /// What is attached, or was about to be.
    pub attachments: Attachments,
    /// What the device filter must know.
    pub filter: FilterMemory,
    /// The directories below /dev that were created for nodes and links.
    #[serde(default)]
    pub directories: BTreeSet<PathBuf>,
    /// The device number of the file system with the container's root directory, when that was
    /// first opened.
    #[serde(default)]
    pub root_file_system: Option<(u32, u32)>,
    /// The roots of each request, in the order of the record.
    #[serde(default)]
    pub roots: Vec<BTreeSet<SysPath>>,
    #[serde(default)]
    pub counters: Counters,
    /// The remote devices that are attached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bound: Vec<(RemoteDevice, Binding)>,
    /// The devices without a node that were announced in the container.
    #[serde(default, skip_serializing_if = "AnnouncedDevices::is_empty")]
    pub announced: AnnouncedDevices,
}

/// A difference between two notes: each part that has changed.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NotesChange {
    #[serde(skip_serializing_if = "AttachmentChanges::is_empty")]
    attachments: AttachmentChanges,
    /// The device numbers whose access has changed; `None`: revoked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    held: Vec<(DevNum, Option<Access>)>,
    /// If more than the access has changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<FilterMemory>,
    #[serde(skip_serializing_if = "Option::is_none")]
    directories: Option<BTreeSet<PathBuf>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    root_file_system: Option<(u32, u32)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    roots: Option<Vec<BTreeSet<SysPath>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    counters: Option<Counters>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bound: Option<Vec<(RemoteDevice, Binding)>>,
    #[serde(skip_serializing_if = "AnnouncedChanges::is_empty")]
    announced: AnnouncedChanges,
}

impl Journaled for Notes {
    type Change = NotesChange;

    /// The file system of the root directory is never forgotten once it is known.
    fn change_since(&self, before: &Self) -> Option<NotesChange> {
        let only_access = self.filter.is_at_the_place_of(&before.filter);
        let change = NotesChange {
            attachments: AttachmentChanges::between(&before.attachments, &self.attachments),
            held: match only_access {
                true => difference(&before.filter.held, &self.filter.held),
                false => Vec::new(),
            },
            filter: (!only_access).then(|| self.filter.clone()),
            directories: changed(&before.directories, &self.directories),
            root_file_system: changed(&before.root_file_system, &self.root_file_system).flatten(),
            roots: changed(&before.roots, &self.roots),
            counters: changed(&before.counters, &self.counters),
            bound: changed(&before.bound, &self.bound),
            announced: self.announced.changes_since(&before.announced),
        };
        (change != NotesChange::default()).then_some(change)
    }

    fn apply(&mut self, change: NotesChange) {
        change.attachments.apply_to(&mut self.attachments);
        replace(&mut self.filter, change.filter);
        for (num, access) in change.held {
            match access {
                Some(access) => _ = self.filter.held.insert(num, access),
                None => _ = self.filter.held.remove(&num),
            }
        }
        replace(&mut self.directories, change.directories);
        replace(&mut self.root_file_system, change.root_file_system.map(Some));
        replace(&mut self.roots, change.roots);
        replace(&mut self.counters, change.counters);
        replace(&mut self.bound, change.bound);
        self.announced.apply(change.announced);
    }
}

fn changed<T: PartialEq + Clone>(before: &T, after: &T) -> Option<T> {
    (before != after).then(|| after.clone())
}

fn replace<T>(part: &mut T, new: Option<T>) {
    if let Some(new) = new {
        *part = new;
    }
}

fn difference(before: &GrantSet, after: &GrantSet) -> Vec<(DevNum, Option<Access>)> {
    let revoked = before.keys().filter(|num| !after.contains_key(num));
    let changed = after
        .iter()
        .filter(|(num, access)| before.get(num) != Some(access));
    revoked
        .map(|num| (*num, None))
        .chain(changed.map(|(num, access)| (*num, Some(*access))))
        .collect()
}
