//! One container's watcher: a process with one thread.
//!
//! ```text
//! EventLoop::wait ──> Wake ──> Watcher::on ──> events change the World, clients the requests
//!                                   └──> reconcile: candidates ──> admissions ──> plan ──> report
//! ```
//! Every wake ends in the same `reconcile`, except events of devices that no request concerns: they
//! only update the inventory. Each part of the state has one owner, which is a field of
//! [`Watcher`].

mod access;
mod admission;
pub mod command;
mod database;
pub(crate) mod detach;
pub(crate) mod effects;
pub(crate) mod enroll;
pub(crate) mod launch;
pub(crate) mod transaction;

mod device_events;
mod error;
mod event_loop;
mod handover;
mod holders;
mod inside;
mod notes;
mod remote_devices;
mod remotes;
mod removals;
mod report;
mod requests;
mod restore;
mod retries;
mod run;
mod start;
mod status;
pub(crate) mod systemd_unit;
mod tick;
mod waiters;
mod world;

pub use error::WatcherError;
pub use run::{Beginning, run};

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use self::admission::Admission;
use self::event_loop::{EventLoop, Sources, Wake};
use self::handover::Handover;
use self::holders::Holders;
use self::inside::Inside;
use self::remotes::Remotes;
use self::removals::RemovalActions;
use self::retries::Retries;
use self::systemd_unit::SystemdUnit;
use self::waiters::{Recipient, Waiters};
use self::world::World;
use crate::host::container::Container;
use crate::host::state::leases::Leases;
use crate::host::state::leftovers;
use crate::host::state::notes::Notes;
use crate::host::state::record::Record;
use crate::host::state::record_lock::RecordLock;
use crate::host::state::registry::Registry;
use crate::host::systemd::Manager;
use crate::model::counters::Counters;
use crate::model::device::SysPath;
use crate::model::plan::{Plan, Planner, RootRemoved, plan};
use crate::model::policy::Policy;

/// Why a watcher ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The container's init has ended. The record is removed, unless some of its access could not
    /// be revoked.
    ContainerGone,
    /// The watcher was requested to end. Record and devices stay for the next watcher, or for
    /// poststop.
    Requested,
    /// The container may not start with its requests. The record is removed.
    Refused,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ContainerGone => "the container has ended",
            Self::Requested => "another process requested it",
            Self::Refused => "the container may not start",
        })
    }
}

/// The settings for all containers, from the configuration.
#[derive(Debug)]
pub struct Settings {
    pub policy: Policy,
    /// The path of the configuration, which is read again on SIGHUP; `None` = the default one.
    pub config: Option<PathBuf>,
    /// How long a client waits for its devices before it gets a response anyway.
    pub ready_timeout: Duration,
    /// The systemd manager that is to restart the watcher, if it runs and has the unit.
    pub manager: Option<Manager>,
}

struct Watcher {
    planner: Planner,
    world: World,
    inside: Inside,
    admission: Admission,
    remotes: Remotes,
    retries: Retries,
    removals: RemovalActions,
    waiters: Waiters,
    handover: Handover,
}

/// What follows a wake.
enum Next {
    /// Wait for the next wake.
    Continue,
    /// End the watcher.
    End(Ending),
}

impl Watcher {
    /// Opens devices and container, and continues from the notes of an earlier watcher: first it
    /// revokes the access to devices that are gone.
    fn open(
        record: Record,
        lock: RecordLock,
        container: Container,
        notes: Notes,
        leases: Leases,
        settings: Settings,
    ) -> Result<Self, WatcherError> {
        let unit = SystemdUnit::new(&record.container.id, settings.manager);
        let planner = planner_of(&record, &notes);
        let remotes = Remotes::open(&record.container.id, lock.state_dir(), &planner);
        let world = World::open(&planner, &settings.policy)?;
        let inside = Inside::open(container, record, lock, notes, world.inventory())?;
        let mut watcher = Self {
            planner,
            world,
            inside,
            admission: Admission::new(settings.policy, settings.config, leases),
            remotes,
            retries: Retries::default(),
            removals: RemovalActions::default(),
            waiters: Waiters::new(settings.ready_timeout),
            handover: Handover::new(unit),
        };
        watcher.world.complete_selected(&watcher.planner);
        watcher.update_remotes();
        Ok(watcher)
    }

    /// Attaches the devices that are present. `ready` is where the hook that started the watcher
    /// waits for the response.
    fn begin(&mut self, ready: Option<File>) {
        self.inside.count(Counters::begin);
        if let Some(pipe) = ready {
            let requests = self.planner.requests().map(|(id, _)| id).collect();
            self.waiters.add(Recipient::Starter(pipe), requests);
        }
        self.reconcile();
    }

    /// Removes what crashed hooks have left, and releases memory that only the start needed.
    fn tidy_up(&mut self) {
        let registry = Registry::new(self.inside.state_dir());
        if let Err(error) = leftovers::clear(&registry, leftovers::revoke) {
            tracing::warn!("{error}");
        }
        self.inside.write_counters();
        if let Err(error) = crate::sys::memory::forget_start_up() {
            tracing::debug!("cannot release unused memory: {error}");
        }
    }

    /// Handles everything that a wake brings, and then what has become due.
    fn on(&mut self, wake: Wake, events: &mut EventLoop) -> Result<Next, WatcherError> {
        // Check for container exit first: a stopped container needs no further work.
        if wake.container_exited {
            return Ok(Next::End(Ending::ContainerGone));
        }
        if wake.must_end {
            self.inside.note_end();
            return Ok(Next::End(Ending::Requested));
        }
        if wake.must_reload {
            // An error is in the log and in the status.
            let _ = self.reload();
        }
        if wake.links_signal {
            self.world.note_links_signal();
        }
        if let Some(ready) = wake.device_events {
            self.take_events(ready);
        }
        if wake.worker_replies {
            self.take_worker_replies();
        }
        for (client, request) in wake.requests {
            self.handle_request(client, request);
        }
        if wake.tick {
            if let Next::End(ending) = self.tick(events)? {
                return Ok(Next::End(ending));
            }
        }
        if !self.reply_to_ready_waiters() {
            return Ok(Next::End(Ending::Refused));
        }
        if self.hand_over_if_requested() {
            return Ok(Next::End(Ending::Requested));
        }
        self.removals.act_on_due(&self.planner, &self.inside);
        let (has_problems, is_idle) = (!self.retries.is_empty(), self.waiters.is_empty());
        self.handover.maintain_unit(&self.inside, has_problems, is_idle);
        self.start_attempts(events);
        Ok(Next::Continue)
    }

    /// Brings the container up to date with its requests and the devices that are present.
    fn reconcile(&mut self) {
        self.reconcile_once();
        // Programs wait for nodes, so devices without one are read afterwards.
        if self.world.read_nodeless(&self.planner) {
            self.reconcile_once();
        }
    }

    fn reconcile_once(&mut self) {
        self.world.catch_up(&self.planner);
        if !self.inside.is_in_place() {
            self.check_access();
        }
        self.revoke_gone();
        self.inside.begin_plan();
        self.read_reservations();
        let mut removed = self.planner.find_roots(self.world.inventory());
        let plan = self.plan(&mut removed);
        let removed = self.removals.take(removed, &self.planner);
        let has_new_notes = self.inside.note_requests(&self.planner, &self.removals.pending());
        let report = self.inside.apply(plan);
        self.world.forget_nodeless_events();
        if has_new_notes && !report.was_applied {
            // Write it even if nothing else has changed: a root without a node must be known after
            // a crash.
            self.inside.try_write_notes();
        }
        let holders = Holders::new(&self.inside, self.world.inventory());
        holders.warn_of_shared_disks(&report.attached, |device| self.admission.is_shared(device));
        self.retries.update(&report, &self.inside);
        self.admission
            .finish(report.not_attached, &self.planner, &holders);
        self.world.note_awaited(&report.pending, report.unconfirmed_links);
        for root in removed {
            self.removals.act(&root, &self.planner, &self.inside);
        }
    }

    /// Decides what to do now. Reads the devices that decisions depend on, and takes the leases of
    /// what the plan attaches. Adds to `removed` the roots that are found gone meanwhile.
    fn plan(&mut self, removed: &mut Vec<RootRemoved>) -> Plan {
        let postponed: BTreeSet<PathBuf> = self.retries.postponed();
        // Each round but the last completes a device, or is the only one that reads virtual block
        // devices, so this ends.
        loop {
            let candidates = self.planner.candidates(self.world.inventory());
            if self
                .world
                .lacks_virtual_blocks(&candidates, self.inside.attached_devices())
            {
                self.world.read_virtual_blocks(&self.planner);
                self.revoke_gone();
                removed.extend(self.planner.find_roots(self.world.inventory()));
                continue;
            }
            let admissions = self.admission.decide(&candidates, self.inside.traits());
            let plan = plan(
                &candidates,
                &admissions,
                &self.inside.current(&postponed, self.world.nodeless_events()),
            );
            let unselected: Vec<SysPath> = candidates.unselected(&plan.pending).cloned().collect();
            if !self.world.complete_unselected(&unselected) {
                return plan;
            }
            removed.extend(self.planner.find_roots(self.world.inventory()));
        }
    }

    /// Revokes the access to devices that are gone, before the container is inspected and before
    /// any selector is evaluated.
    fn revoke_gone(&mut self) {
        if let Err(reason) = self.inside.revoke_gone(self.world.inventory()) {
            self.retries.note_access(Some(reason), &self.inside);
        }
    }

    /// Hands lock and leases to the watcher that requests a handover, if there is one. Returns
    /// whether it has received them. Postpones the handover while a start waits, a signal is still
    /// to be sent, or an attempt to attach a remote device may end soon.
    fn hand_over_if_requested(&mut self) -> bool {
        let must_wait = self.removals.is_stopping() || self.waiters.has_starter();
        if must_wait || !self.handover.is_requested() || self.remotes.is_attaching() {
            return false;
        }
        // The next watcher makes its own attempts, which these would disturb.
        self.remotes.end_attempts();
        let leases = self.admission.lease_files();
        let is_taken = self.handover.hand_over(&mut self.inside, leases);
        if is_taken {
            self.admission.forget_leases();
        }
        is_taken
    }

    /// When something becomes due that no event reports.
    fn next_deadline(&self) -> Option<Instant> {
        let waiters = self
            .waiters
            .iter()
            .map(|waiter| self.awaits_remotes_until(waiter).unwrap_or(waiter.until()));
        waiters
            .chain(self.remotes.next_attempt())
            .chain(self.removals.next_deadline())
            .min()
    }

    /// The files that the event loop waits on for the watcher.
    fn sources(&self) -> Sources<'_> {
        Sources {
            container: self.inside.init().as_fd(),
            devices: self.world.fds().collect(),
            workers: self.remotes.workers().map(AsFd::as_fd).collect(),
        }
    }

    /// The container has ended or may not start: revokes its access, releases remote devices, and
    /// removes the record.
    fn close(mut self) -> Result<(), WatcherError> {
        let is_revoked = self.inside.revoke_all();
        self.remotes.release_all();
        let lock = self.inside.close();
        // Otherwise the next attempt needs the record.
        if is_revoked {
            lock.remove()?;
        }
        Ok(())
    }
}

/// The requests of the record, with the roots and remote devices in the notes of an earlier
/// watcher.
fn planner_of(record: &Record, notes: &Notes) -> Planner {
    let mut entries = record.requests.clone();
    for (entry, roots) in entries.iter_mut().zip(notes.roots.iter().cloned()) {
        entry.roots = roots;
    }
    let mut planner = Planner::new(entries, record.symlinks.clone(), record.container.user);
    for (remote, bound) in notes.bound.iter().cloned() {
        planner.bind(remote, bound);
    }
    planner
}
