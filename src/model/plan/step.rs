//! What a plan consists of, and what it starts from.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::model::cgroup::grants::GrantSet;
use crate::model::device::{Access, Device, SysPath};
use crate::model::plan::announcements::{AnnouncedDevices, Announcement};
use crate::model::plan::attachment::{Attachment, Attachments};
use crate::model::plan::not_attached::NotAttached;
use crate::model::udev_database::{DatabaseId, Entries, EntryFacts};

/// One change inside the container. A plan lists steps in the order in which they are safe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Reduce the granted access to this, before the container is inspected.
    Revoke(GrantSet),
    /// Announce that the device of this node is removed.
    AnnounceRemove { path: PathBuf },
    /// Remove a device from the container's udev database.
    RemoveEntry { id: DatabaseId },
    /// Remove a link.
    RemoveLink {
        /// The path of the node that it points to.
        path: PathBuf,
        /// The link's own path.
        link: PathBuf,
    },
    /// Remove a node.
    RemoveNode { path: PathBuf },
    /// Grant exactly this access.
    SetGrants(GrantSet),
    /// Create a node.
    AddNode {
        path: PathBuf,
        /// Its device and properties; links are separate steps.
        attachment: Box<Attachment>,
    },
    /// Record newer facts of a device whose node stays as it is.
    Refresh {
        path: PathBuf,
        device: Box<Device>,
        /// The access that its grant now has.
        access: Access,
    },
    /// Create a link.
    AddLink {
        /// The path of the node that it points to.
        path: PathBuf,
        /// The link's own path.
        link: PathBuf,
    },
    /// Write a device into the container's udev database.
    WriteEntry { id: DatabaseId, facts: EntryFacts },
    /// Announce that the device of this node was added or changed.
    Announce { path: PathBuf },
    /// Announce an event of a device without a node.
    AnnounceNodeless(Box<Announcement>),
}

/// What to do, and what cannot be done now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// Devices that requests select and that are not attached, grouped by kind of reason.
    pub not_attached: Vec<NotAttached>,
    /// Devices that udevd has not processed yet and whose facts decide about a candidate.
    pub pending: Vec<SysPath>,
    /// Devices that a requested link points to and that udevd has not processed yet. The link can
    /// be left from a removed device with the same node name, so such a device is not attached
    /// before udevd has processed it, however long that takes.
    pub unconfirmed_links: Vec<SysPath>,
    /// The nodes, links and entries that the plan would create if they were not postponed.
    pub postponed: Vec<PathBuf>,
}

/// The state of the container that a plan starts from.
#[derive(Debug, Clone, Copy)]
pub struct Current<'a> {
    pub attachments: &'a Attachments,
    /// The access that is in force.
    pub granted: &'a GrantSet,
    /// Nodes, links and entries that failed recently and are not retried yet.
    pub postponed: &'a BTreeSet<PathBuf>,
    /// The entries of the container's udev database; `None` if it has none.
    pub entries: Option<&'a Entries>,
    /// The devices without a node that the container knows of.
    pub announced: &'a AnnouncedDevices,
    /// The events of devices without a node since the last plan.
    pub events: &'a [Announcement],
}
