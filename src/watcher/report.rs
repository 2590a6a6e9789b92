//! The outcome of applying a plan. The owners of the watcher's state take from it what concerns
//! them.

use std::path::PathBuf;

use crate::model::device::SysPath;
use crate::model::plan::{NotAttached, Plan, Step};

/// The outcome of applying a plan.
pub(super) struct Report {
    /// The plan's devices that are not attached.
    pub not_attached: Vec<NotAttached>,
    /// The plan's pending devices.
    pub pending: Vec<SysPath>,
    /// The plan's unconfirmed links.
    pub unconfirmed_links: Vec<SysPath>,
    /// The plan's postponed nodes and links.
    pub postponed: Vec<PathBuf>,
    /// Nodes and links that failed.
    pub failures: Vec<FailedPath>,
    /// Why access as a whole could not be changed.
    pub access_problem: Option<String>,
    /// The nodes that are attached now and were not before.
    pub attached: Vec<PathBuf>,
    /// Whether the plan had steps.
    pub was_applied: bool,
    /// Whether the plan had steps that change access.
    pub changed_access: bool,
}

/// A node or link that could not be created or removed.
pub(super) struct FailedPath {
    pub path: PathBuf,
    pub device: Option<SysPath>,
    pub reason: String,
}

impl Report {
    /// Separates the steps of a plan from the part of the report that the plan already determines.
    pub(super) fn begin(plan: Plan) -> (Vec<Step>, Self) {
        let changes_access = |step: &Step| matches!(step, Step::Revoke(_) | Step::SetGrants(_));
        let report = Self {
            was_applied: !plan.steps.is_empty(),
            changed_access: plan.steps.iter().any(changes_access),
            not_attached: plan.not_attached,
            pending: plan.pending,
            unconfirmed_links: plan.unconfirmed_links,
            postponed: plan.postponed,
            failures: Vec::new(),
            access_problem: None,
            attached: Vec::new(),
        };
        (plan.steps, report)
    }
}
