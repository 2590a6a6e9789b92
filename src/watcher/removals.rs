//! Acts on removed roots as `on-removal=` says: sends signals to the container's init.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::inside::Inside;
use crate::host::state::control::Problem;
use crate::model::plan::removal::Removals;
use crate::model::plan::{Planner, RootRemoved};
use crate::model::request::OnRemoval;

/// How long a container may take to stop before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// The removals with a running grace period, and the kill that follows a stop.
#[derive(Debug, Default)]
pub(super) struct RemovalActions {
    pending: Removals,
    /// When a container that was requested to stop is killed.
    kill_at: Option<Instant>,
}

impl RemovalActions {
    /// Takes roots that were removed just now. Returns those without a grace period, to act on at
    /// once.
    pub(super) fn take(&mut self, removed: Vec<RootRemoved>, planner: &Planner) -> Vec<RootRemoved> {
        self.pending.take(removed, planner, Instant::now())
    }

    /// The removed roots whose grace period runs.
    pub(super) fn pending(&self) -> Vec<RootRemoved> {
        self.pending
            .pending()
            .map(|(removed, _)| removed.clone())
            .collect()
    }

    /// When the next grace period ends.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.pending.next()
    }

    /// Whether the container was requested to stop and has not been killed yet.
    pub(super) fn is_stopping(&self) -> bool {
        self.kill_at.is_some()
    }

    /// Acts on the removals whose grace period is over.
    pub(super) fn act_on_due(&mut self, planner: &Planner, inside: &Inside) {
        for removed in self.pending.due(Instant::now()) {
            self.act(&removed, planner, inside);
        }
    }

    /// Does what the request's `on-removal=` says.
    pub(super) fn act(&mut self, removed: &RootRemoved, planner: &Planner, inside: &Inside) {
        let id = inside.id();
        let request = planner.text(removed.request);
        tracing::info!(container = %id, "device {} was removed; request {request:?} had selected it", removed.root);
        let signal = match &removed.action {
            OnRemoval::Keep => return,
            OnRemoval::Stop => {
                self.kill_at = Some(Instant::now() + STOP_TIMEOUT);
                Signal::SIGTERM
            }
            OnRemoval::Kill => Signal::SIGKILL,
            OnRemoval::Signal(name) => match name.parse() {
                Ok(signal) => signal,
                Err(error) => {
                    tracing::error!(container = %id, "cannot send signal {name} to the container: {error}");
                    return;
                }
            },
        };
        tracing::warn!(container = %id, "sending {signal} to the container, as device request {request:?} says");
        inside.signal(signal);
    }

    /// Kills a container that did not stop in time.
    pub(super) fn kill_overdue(&mut self, inside: &Inside) {
        if self.kill_at.is_some_and(|at| at <= Instant::now()) {
            self.kill_at = None;
            tracing::warn!(container = %inside.id(), "the container did not stop within {STOP_TIMEOUT:?}; killing it");
            inside.signal(Signal::SIGKILL);
        }
    }

    /// The actions that will follow the end of a grace period, as problems.
    pub(super) fn problems(&self, planner: &Planner) -> impl Iterator<Item = Problem> {
        let now = Instant::now();
        self.pending.pending().map(move |(removed, until)| Problem {
            waiting: false,
            path: removed.root.as_path().to_owned(),
            device: Some(removed.root.clone()),
            reason: format!(
                "device request {:?}: its device was removed; on-removal={} in {} s unless a device returns",
                planner.text(removed.request),
                removed.action,
                until.saturating_duration_since(now).as_secs_f32().ceil()
            ),
        })
    }
}
