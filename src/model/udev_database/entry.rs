//! What an entry depends on, beside the host's entry of the same device.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::DatabaseId;

/// Why a device has an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    /// It is above a device that has one. It has no tags and no links, so that programs that
    /// enumerate by tag find only the container's own devices.
    Parent,
    /// It has no node and belongs to an attached device.
    Nodeless,
    /// It is attached.
    Attached,
}

/// What the entry of a device depends on. An entry is written again when this changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryFacts {
    pub kind: EntryKind,
    /// The kernel's sequence number of the device's latest event; 0 if it was only enumerated.
    pub seqnum: u64,
    /// The links that the container has: absolute paths.
    pub links: BTreeSet<PathBuf>,
    /// Whether the device has an entry even if the host has none: udevd does not run, or is late.
    pub is_certain: bool,
}

/// The entries of a container; `None` for an entry of an earlier watcher, whose content is unknown.
pub type Entries = BTreeMap<DatabaseId, Option<EntryFacts>>;
