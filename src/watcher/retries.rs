//! Nodes, links and access that failed, and when each is tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::inside::Inside;
use super::report::Report;
use crate::host::backoff::Backoff;
use crate::host::log::event;
use crate::host::state::control::Problem;
use crate::model::device::SysPath;

/// The first and the maximum interval between two attempts.
const FIRST_INTERVAL: Duration = Duration::from_secs(2);
const MAX_INTERVAL: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
struct Retry {
    device: Option<SysPath>,
    reason: String,
    backoff: Backoff,
    at: Instant,
}

/// Everything that failed in one container.
#[derive(Debug, Default)]
pub(super) struct Retries {
    paths: BTreeMap<PathBuf, Retry>,
    /// Why access as a whole cannot be granted; `None` if it is as planned.
    access: Option<String>,
    /// Whether the last plan changed access: then its outcome shows whether access is as planned.
    plan_changed_access: bool,
}

impl Retries {
    /// Updates the retries from the outcome of a plan. Logs each failure whose reason is new.
    pub(super) fn update(&mut self, report: &Report, inside: &Inside) {
        for failure in &report.failures {
            self.note(&failure.path, &failure.reason, failure.device.clone(), inside);
        }
        // A device that is gone is not a problem any more.
        self.paths.retain(|path, _| {
            let failed = report.failures.iter().any(|failure| failure.path == *path);
            failed || report.postponed.contains(path)
        });
        if report.was_applied {
            self.note_access(report.access_problem.clone(), inside);
        }
        self.plan_changed_access = report.changed_access;
    }

    fn note(&mut self, path: &Path, reason: &str, device: Option<SysPath>, inside: &Inside) {
        let before = self.paths.get(path);
        let mut backoff = before.map_or(Backoff::new(FIRST_INTERVAL), |retry| retry.backoff);
        if before.is_none_or(|retry| retry.reason != reason) {
            let device = device.as_ref().map_or("", SysPath::as_str);
            inside.log_event(event::FAILED, device, path, reason);
        }
        let interval = backoff.failed(MAX_INTERVAL);
        self.paths.insert(
            path.to_owned(),
            Retry {
                device,
                reason: reason.to_owned(),
                backoff,
                at: Instant::now() + interval,
            },
        );
    }

    /// Stores whether access is as planned. Logs a new problem.
    pub(super) fn note_access(&mut self, problem: Option<String>, inside: &Inside) {
        if let Some(reason) = problem.as_ref().filter(|_| problem != self.access) {
            inside.log_event(event::FAILED, "", Path::new(""), reason);
        }
        self.access = problem;
    }

    /// Stores that access is in force, unless the last plan changed access and has reported
    /// something else.
    pub(super) fn note_access_in_force(&mut self) {
        if !self.plan_changed_access {
            self.access = None;
        }
    }

    /// The paths that are not to be tried again yet.
    pub(super) fn postponed(&self) -> BTreeSet<PathBuf> {
        let now = Instant::now();
        let waiting = self.paths.iter().filter(|(_, retry)| retry.at > now);
        waiting.map(|(path, _)| path.clone()).collect()
    }

    /// Tries everything again with the next plan.
    pub(super) fn clear(&mut self) {
        self.paths.clear();
    }

    pub(super) fn access_problem(&self) -> Option<&str> {
        self.access.as_deref()
    }

    /// The reason of the first node or link that failed.
    pub(super) fn first_reason(&self) -> Option<&str> {
        self.paths.values().next().map(|retry| retry.reason.as_str())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.access.is_none()
    }

    /// The nodes and links that failed, as problems.
    pub(super) fn problems(&self) -> impl Iterator<Item = Problem> {
        self.paths.iter().map(|(path, retry)| Problem {
            path: path.clone(),
            device: retry.device.clone(),
            reason: retry.reason.clone(),
            waiting: false,
        })
    }

    /// What is wrong with access as a whole, as a problem.
    pub(super) fn access_problems(&self) -> impl Iterator<Item = Problem> {
        self.access.iter().map(|reason| Problem {
            path: PathBuf::from("/dev"),
            device: None,
            reason: reason.clone(),
            waiting: false,
        })
    }
}
