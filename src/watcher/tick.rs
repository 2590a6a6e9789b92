//! What the watcher checks because no event reports it: every second with few system calls whether
//! something may have changed, and only then everything; and everything every ten seconds. While
//! nothing can change without an event, it does not wake every second: while the container has no
//! device, a signal reports changes of the directories that links of the host are in.

use std::path::Path;
use std::time::Duration;

use super::access::Place;
use super::error::WatcherError;
use super::event_loop::EventLoop;
use super::restore::Entry;
use super::{Ending, Next, Watcher};
use crate::host::filter::FilterError;
use crate::host::log::event;
use crate::model::cgroup::grants::Change;
use crate::sys::memory::trim_heap;

/// The interval between two ticks while something may change without an event.
const SHORT: Duration = Duration::from_secs(1);

/// The interval between two ticks otherwise.
const LONG: Duration = Duration::from_secs(10);

impl Watcher {
    /// The interval between two ticks now.
    pub(super) fn tick_interval(&self) -> Duration {
        match self.is_tick_due_soon() || self.world.must_poll_links() {
            true => SHORT,
            false => LONG,
        }
    }

    /// Whether something other than a link of the host must be checked soon.
    fn is_tick_due_soon(&self) -> bool {
        let may_change = self.inside.has_access() || self.admission.depends_on_host_use();
        self.inside.is_unchecked() || may_change || self.awaits_plan() || self.awaits_check()
    }

    /// Checks whether something may have changed without an event, and if so, or if it is time,
    /// everything.
    pub(super) fn tick(&mut self, events: &mut EventLoop) -> Result<Next, WatcherError> {
        let must_plan = self.awaits_plan() || self.admission.may_decide_differently();
        let must_check = self.inside.take_unchecked() || must_plan || self.awaits_check();
        let next = match !must_check && self.inside.is_access_unchanged() && self.world.are_links_unchanged()
        {
            true => Next::Continue,
            false => self.check(must_plan, events)?,
        };
        if !self.is_tick_due_soon() {
            self.world.signal_links();
        }
        Ok(next)
    }

    /// Checks access, devices and the state directory.
    fn check(&mut self, must_plan: bool, events: &mut EventLoop) -> Result<Next, WatcherError> {
        let mut is_news = self.check_access();
        self.removals.kill_overdue(&self.inside);
        is_news |= self.world.poll_static_nodes();
        is_news |= self.world.follow_links(&self.planner);
        if must_plan {
            self.world.check_awaited(self.inside.id());
            is_news = true;
        }
        if is_news {
            self.inside.ensure_database();
            self.reconcile();
            self.inside.put_back_nodes();
            // Only few pages stay in use between two plans.
            trim_heap();
        }
        self.remotes.detach_if_blocked(&self.planner, &self.inside);
        self.inside.write_counters();
        self.check_sources(events)
    }

    /// Whether something waits for udevd, for another container, or for its next attempt.
    fn awaits_plan(&self) -> bool {
        !self.world.is_settled()
            || self.world.has_skipped()
            || self.world.has_overdue()
            || self.admission.has_refused()
            || !self.retries.is_empty()
            || !self.planner.reserved().is_empty()
    }

    /// Whether something is to be done or looked at with the next tick.
    fn awaits_check(&self) -> bool {
        self.world.has_static_nodes()
            || !self.planner.bound().is_empty()
            || self.remotes.workers().next().is_some()
            || self.removals.is_stopping()
            || self.handover.awaits_check()
            || self.inside.awaits_check()
    }

    /// Follows the container into another cgroup, and grants access again where it was lost.
    /// Returns whether a plan must follow.
    pub(super) fn check_access(&mut self) -> bool {
        let moved = match self.inside.follow() {
            Place::Same => None,
            Place::Moved(place) => {
                // What failed in the old cgroup may succeed in the new one. Store the new cgroup
                // before its first grant.
                self.retries.clear();
                self.remotes.forget_cgroup();
                if let Err(error) = self.inside.write_notes() {
                    self.retries.note_access(Some(error.to_string()), &self.inside);
                    return true;
                }
                Some(place)
            }
            Place::Nowhere(reason) => {
                self.retries.note_access(Some(reason), &self.inside);
                return true;
            }
        };
        match (self.inside.ensure_access(), moved) {
            (Ok(_), Some(place)) => {
                self.retries.note_access(None, &self.inside);
                let text = format!("the container was moved to cgroup {place}; access is granted there");
                self.inside.log_event(event::RESTORED, "", Path::new(""), &text);
            }
            (Ok(Change::None), None) => {
                self.retries.note_access_in_force();
                return false;
            }
            (Ok(Change::Made), None) => {
                let text = "the engine replaced the device filter; access is granted again";
                self.inside.log_event(event::RESTORED, "", Path::new(""), text);
            }
            // The container is ending or moving to another cgroup: the next check shows which. The
            // next plan sets the denied grants again.
            (Err(FilterError::Gone { .. } | FilterError::Refused { .. }), _) => {}
            (Err(error), _) => self.retries.note_access(Some(error.to_string()), &self.inside),
        }
        true
    }

    /// Restores subscriptions and the container's entry in the state directory if they were lost.
    fn check_sources(&mut self, events: &mut EventLoop) -> Result<Next, WatcherError> {
        let has_new_fds = self.world.refresh();
        let control = match self.inside.restore_entry() {
            Entry::InPlace => None,
            Entry::Restored(control) => {
                // Locks on removed files exclude no other container: the next plan takes each lease
                // again.
                self.admission.renew_leases(self.inside.state_dir());
                if let Err(error) = self.inside.write_notes() {
                    self.retries.note_access(Some(error.to_string()), &self.inside);
                }
                Some(control)
            }
            Entry::TakenBySuccessor => return Ok(Next::End(Ending::Requested)),
            Entry::TakenByOther => {
                self.inside.remove_all();
                return Ok(Next::End(Ending::Requested));
            }
        };
        if has_new_fds || control.is_some() {
            events.reopen(control, &self.sources())?;
        }
        Ok(Next::Continue)
    }
}
