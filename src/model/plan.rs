//! From requests, devices and attachments to the steps that bring a container up to date.
//!
//! ```text
//! candidates = planner.candidates(&inventory)              which devices the requests select
//! admissions = policy and leases, for each candidate       which of them may be attached now
//! plan       = plan(&candidates, &admissions, &current)    the steps, and what is not attached
//! ```
//! Level-triggered: it does not matter which event caused the plan. Applying a plan and planning again yields the empty plan.
//! Pure: no I/O, no clock, no callback. Must not know how a step is carried out (`watcher::transaction`).

pub mod admission;
pub mod attachment;
mod candidates;
mod desired;
pub mod named_node;
mod not_attached;
mod planner;
pub mod removal;
mod steps;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

pub use candidates::{Candidate, Candidates};
pub use not_attached::{NotAttached, Reason};
pub use planner::{Planner, moved};
pub use steps::{remove_all, still_due};

use crate::model::cgroup::grants::GrantSet;
use crate::model::device::inventory::Inventory;
use crate::model::device::{Access, Device, SysPath};
use crate::model::plan::admission::Admissions;
use crate::model::plan::attachment::{Attachment, Attachments};
use crate::model::request::OnRemoval;
use crate::model::request::id::RequestId;

/// One change inside the container. A plan lists steps in the order in which they are safe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Reduce the granted access to this, before the container is inspected.
    Revoke(GrantSet),
    /// Announce that the device of this node is removed.
    AnnounceRemove {
        /// The node's path.
        path: PathBuf,
    },
    /// Remove a link.
    RemoveLink {
        /// The path of the node that it points to.
        path: PathBuf,
        /// The link's own path.
        link: PathBuf,
    },
    /// Remove a node.
    RemoveNode {
        /// The node's path.
        path: PathBuf,
    },
    /// Grant exactly this access.
    SetGrants(GrantSet),
    /// Create a node.
    AddNode {
        /// The node's path.
        path: PathBuf,
        /// Its device and properties; links are separate steps.
        attachment: Box<Attachment>,
    },
    /// Record newer facts of a device whose node stays as it is.
    Refresh {
        /// The node's path.
        path: PathBuf,
        /// The device as it is now.
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
    /// Announce that the device of this node was added or changed.
    Announce {
        /// The node's path.
        path: PathBuf,
    },
}

/// What to do, and what can't be done now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// Devices that requests select and that are not attached, grouped by kind of reason.
    pub not_attached: Vec<NotAttached>,
    /// Devices that udevd has not processed yet and whose facts decide about a candidate.
    pub pending: Vec<SysPath>,
    /// Devices that a requested link points to and that udevd has not processed yet. The link can be left from a removed device
    /// with the same node name, so such a device is not attached before udevd has processed it, however long that takes.
    pub unconfirmed_links: Vec<SysPath>,
    /// The nodes and links that the plan would create if they were not postponed.
    pub postponed: Vec<PathBuf>,
}

/// The state of the container that a plan starts from.
#[derive(Debug, Clone, Copy)]
pub struct Current<'a> {
    /// What is attached.
    pub attachments: &'a Attachments,
    /// The access that is in force.
    pub granted: &'a GrantSet,
    /// Nodes and links that failed lately and are not tried again yet.
    pub postponed: &'a BTreeSet<PathBuf>,
}

/// A root that was removed, and what its request says about that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootRemoved {
    /// The device that was the root.
    pub root: SysPath,
    /// The request.
    pub request: RequestId,
    /// What is to happen to the container.
    pub action: OnRemoval,
    /// How long the request may be without a root before that happens; `None`: it happens whatever other roots there are.
    pub grace: Option<Duration>,
}

/// The steps after which exactly the admitted candidates are attached.
pub fn plan(candidates: &Candidates<'_>, admissions: &Admissions, current: &Current<'_>) -> Plan {
    let mut plan = Plan {
        not_attached: candidates.reserved().to_vec(),
        pending: candidates.undecided_roots().cloned().collect(),
        unconfirmed_links: candidates.unconfirmed_links().to_vec(),
        ..Plan::default()
    };
    let desired = desired::nodes(candidates, admissions, current, &mut plan);
    steps::append(&desired, current, &mut plan);
    plan.not_attached
        .sort_by_key(|not_attached| not_attached.reason.rank());
    plan
}

/// What the planner's requests attach, if policy and leases admit everything, to a container with these attachments.
pub fn plan_without_restrictions(
    planner: &Planner,
    inventory: &Inventory,
    attachments: &Attachments,
) -> Plan {
    let candidates = planner.candidates(inventory);
    let current = Current {
        attachments,
        granted: &GrantSet::new(),
        postponed: &BTreeSet::new(),
    };
    plan(&candidates, &Admissions::all(&candidates), &current)
}
