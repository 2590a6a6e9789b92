//! When the removal of a root triggers the action of `on-removal=`: at once, or when the grace
//! period ends and the request still has no root.
//!
//! Must not know how a container is stopped (`watcher`), and reads no clock.

use std::time::Instant;

use crate::model::plan::{Planner, RootRemoved};
use crate::model::request::OnRemoval;

/// The removals whose grace period has not ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Removals {
    pending: Vec<(RootRemoved, Instant)>,
}

impl Removals {
    /// Records roots that `planner` has just removed, and returns the removals to act on at once.
    ///
    /// Drops pending removals of requests that have a root again or were removed.
    pub(crate) fn take(
        &mut self,
        removed: Vec<RootRemoved>,
        planner: &Planner,
        now: Instant,
    ) -> Vec<RootRemoved> {
        let is_without_root = |removed: &RootRemoved| planner.is_without_root(removed.request);
        self.pending.retain(|(removed, _)| is_without_root(removed));
        let mut due = Vec::new();
        for removed in removed {
            let Some(grace) = removed.grace.filter(|_| removed.action != OnRemoval::Keep) else {
                due.push(removed);
                continue;
            };
            let is_pending = self
                .pending
                .iter()
                .any(|(other, _)| other.request == removed.request);
            if is_pending || !is_without_root(&removed) {
                continue;
            }
            if grace.is_zero() {
                // Act once if several roots were removed together.
                if !due
                    .iter()
                    .any(|other: &RootRemoved| other.request == removed.request)
                {
                    due.push(removed);
                }
            } else {
                self.pending.push((removed, now + grace));
            }
        }
        due
    }

    /// Removes and returns the removals whose grace period is over.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<RootRemoved> {
        let (due, pending) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|(_, until)| *until <= now);
        self.pending = pending;
        due.into_iter().map(|(removed, _)| removed).collect()
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.pending.iter().map(|(_, until)| *until).min()
    }

    /// The removals whose grace period has not ended, each with its end.
    pub(crate) fn pending(&self) -> impl Iterator<Item = (&RootRemoved, Instant)> {
        self.pending.iter().map(|(removed, until)| (removed, *until))
    }
}

#[cfg(test)]
mod tests;
