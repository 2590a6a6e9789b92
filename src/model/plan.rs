//! From requests, devices and attachments to the steps that bring a container up to date.
//!
//! ```text
//! candidates = planner.candidates(&inventory)              which devices the requests select
//! admissions = policy and leases, for each candidate       which of them may be attached now
//! plan       = plan(&candidates, &admissions, &current)    the steps, and what is not attached
//! ```
//! Level-triggered: it does not matter which event caused the plan, except that events of devices
//! without a node are passed on. Applying a plan and planning again yields the empty plan. Pure: no
//! I/O, no clock, no callback. Must not know how a step is carried out (`watcher::transaction`).

pub(crate) mod admission;
pub(crate) mod announcements;
pub mod attachment;
pub(crate) mod attachment_changes;
mod candidates;
mod database;
mod desired;
pub(crate) mod named_node;
pub(crate) mod node_names;
mod not_attached;
mod planner;
pub(crate) mod relevance;
pub(crate) mod removal;
mod step;
mod steps;

use std::collections::BTreeSet;

pub use candidates::{Candidate, Candidates};
pub use database::path_of as path_of_entry;
pub use not_attached::{NotAttached, Reason};
pub use planner::{Planner, RootRemoved, moved};
pub use step::{Current, Plan, Step};
pub use steps::{remove_all, still_due};

use crate::model::cgroup::grants::GrantSet;
use crate::model::device::inventory::Inventory;
use crate::model::plan::admission::Admissions;
use crate::model::plan::announcements::AnnouncedDevices;
use crate::model::plan::attachment::Attachments;

/// The steps after which exactly the admitted candidates are attached.
pub fn plan(candidates: &Candidates<'_>, admissions: &Admissions, current: &Current<'_>) -> Plan {
    let mut plan = Plan {
        not_attached: candidates.reserved().to_vec(),
        pending: candidates.undecided_roots().cloned().collect(),
        unconfirmed_links: candidates.unconfirmed_links().to_vec(),
        ..Plan::default()
    };
    let desired = desired::nodes(candidates, admissions, current, &mut plan);
    let entries = database::entries(&desired, candidates, current);
    let attached = desired.values().map(|node| &node.device.syspath).collect();
    let announcements = announcements::of(&attached, candidates, current.announced, current.events);
    steps::append(&desired, &entries, announcements, current, &mut plan);
    plan.not_attached = not_attached::by_kind(plan.not_attached);
    plan
}

/// What the planner's requests attach, if policy and leases admit everything, to a container with
/// these attachments.
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
        entries: None,
        announced: &AnnouncedDevices::default(),
        events: &[],
    };
    plan(&candidates, &Admissions::all(&candidates), &current)
}
