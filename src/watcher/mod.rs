//! One container's watcher: a process with one thread and one epoll.
//!
//! ```text
//!   kernel, udevd ──> DeviceMonitor ──> Inventory ─┐
//!   the second's tick, control socket ─────────────┴─> Planner::plan ──> transaction::apply ──> Inside
//!   container's init ends, SIGTERM ──> the end
//! ```
//! Every wake ends in the same `reconcile`, but for events of devices that concern nobody here: events only update the
//! inventory.

mod access;
mod admission;
pub mod command;
pub mod detach;
pub mod effects;
pub mod launch;
pub mod transaction;

mod event_loop;
mod handover;
mod remote;
mod restore;
mod systemd_unit;
mod waiters;

pub use event_loop::{Beginning, Ending, Settings, WatcherError, run};

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;

use self::access::Place;
use self::admission::Admission;
use self::effects::{EffectError, Inside, Memory};
use self::remote::Remotes;
use self::systemd_unit::SystemdUnit;
use self::transaction::Effects;
use crate::host::backoff::Backoff;
use crate::host::container::Container;
use crate::host::filter::FilterError;
use crate::host::log::event;
use crate::host::monitor::{DeviceMonitor, MonitorError};
use crate::host::state::control::{ControlClient, Problem, Status};
use crate::host::state::leases::Leases;
use crate::host::state::registry::{Record, RecordLock};
use crate::model::cgroup::grants::{Change, GrantSet};
use crate::model::counters::Counters;
use crate::model::device::event::DeviceEvent;
use crate::model::device::inventory::Inventory;
use crate::model::device::{Device, Seen, SysPath};
use crate::model::plan::attachment::{Attachment, Attachments, Found, NodeCreator};
use crate::model::plan::removal::Removals;
use crate::model::plan::{Plan, Planner, RootRemoved, Step, moved, still_due};
use crate::model::policy::Policy;
use crate::model::request::entry::RequestEntry;
use crate::model::request::facts_needed::FactsNeeded;
use crate::model::request::id::RequestId;
use crate::model::request::symlink::SymlinkRule;
use crate::model::request::{OnRemoval, Request};

/// How long a container that was asked to stop may take before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long udevd may take to process a device before nobody waits for it any more.
const UDEVD_TIMEOUT: Duration = Duration::from_secs(10);

/// The first and the longest pause before something that failed is tried again.
const FIRST_RETRY: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// A step that failed, and when to try again.
#[derive(Debug, Clone)]
struct Retry {
    /// Whose node or link it is about.
    device: Option<SysPath>,
    reason: String,
    backoff: Backoff,
    retry_at: Instant,
}

/// Somebody who waits until the devices that are present are in place.
struct Waiter {
    recipient: Recipient,
    since: Instant,
    until: Instant,
    /// The requests that this is about: those that are required must have their devices.
    requests: Vec<RequestId>,
}

/// To whom readiness is told.
enum Recipient {
    /// The hook that started us, through our standard output of old.
    Starter(File),
    /// Somebody at the control socket.
    ControlClient(ControlClient),
}

/// One container, what it asks for, what there is, and what is inside.
struct Watcher {
    container: Container,
    record: Record,
    monitor: DeviceMonitor,
    inventory: Inventory,
    planner: Planner,
    inside: Inside,
    attachments: Attachments,
    granted: GrantSet,
    retries: BTreeMap<PathBuf, Retry>,
    /// What is wrong with the access of all; empty = nothing.
    access_problem: Option<String>,
    /// Why the container's entry in the state directory is gone and can't be made again; empty = it is there.
    restore_problem: Option<String>,
    admission: Admission,
    last_plan: Plan,
    /// Since when udevd owes a word about a device.
    awaiting_udevd: BTreeMap<SysPath, Instant>,
    /// When a container that was asked to stop is killed.
    kill_at: Option<Instant>,
    /// The removed roots whose grace period runs.
    removals: Removals,
    waiters: Vec<Waiter>,
    /// How long somebody waits for readiness before it is told all the same.
    ready_timeout: Duration,
    /// Who wants to be the watcher in our place.
    successor: Option<ControlClient>,
    systemd_unit: SystemdUnit,
    remotes: Remotes,
}

impl Watcher {
    /// Looks at the devices and at the container, and takes up what an earlier watcher left: first of all it revokes
    /// the access to devices that are gone.
    fn open(
        record: Record,
        lock: RecordLock,
        container: Container,
        mut memory: Memory,
        leases: Leases,
        settings: Settings,
    ) -> Result<Self, WatcherError> {
        let systemd_unit = SystemdUnit::new(&record.container.id, settings.supervise);
        let mut entries = record.requests.clone();
        for (entry, roots) in entries.iter_mut().zip(memory.roots.iter().cloned()) {
            entry.roots = roots;
        }
        let mut planner = Planner::new(entries, record.symlinks.clone(), record.container.user);
        for (remote, bound) in memory.bound.iter().cloned() {
            planner.bind(remote, bound);
        }
        Self::undo_what_was_begun(lock.state_dir(), &record.container.id, &planner);
        let mut monitor = DeviceMonitor::open(
            wanted(&planner, &settings.policy),
            crate::host::monitor::RECEIVE_BUFFER,
        )?;
        let mut inventory = Inventory::default();
        take_all(&mut monitor, &mut inventory)?;
        let due = still_due(&memory.filter.held, &memory.attachments, &inventory);
        let (inside, granted) = Inside::open(&container, lock, &mut memory, due)?;
        let mut watcher = Self {
            container,
            record,
            monitor,
            inventory,
            planner,
            inside,
            granted,
            attachments: memory.attachments,
            retries: BTreeMap::new(),
            access_problem: None,
            restore_problem: None,
            admission: Admission::new(settings.policy, settings.config, leases),
            last_plan: Plan::default(),
            awaiting_udevd: BTreeMap::new(),
            kill_at: None,
            removals: Removals::default(),
            waiters: Vec::new(),
            ready_timeout: settings.ready_timeout,
            successor: None,
            systemd_unit,
            remotes: Remotes::default(),
        };
        watcher.check_attachments();
        watcher.complete_selected();
        watcher.note_remotes();
        Ok(watcher)
    }

    /// Forgets what the notes say is inside and is not: a crash may have come between the note and the deed.
    fn check_attachments(&mut self) {
        let mut missing = Vec::new();
        let inside = &mut self.inside;
        for (path, attachment) in self.attachments.iter_mut() {
            if !matches!(inside.find_node(path, &attachment.node), Ok(Found::Same)) {
                missing.push(path.clone());
            }
            attachment
                .links
                .retain(|link, _| matches!(inside.find_link(link, path), Ok(Found::Same)));
        }
        for path in missing {
            if let Some(attachment) = self.attachments.remove(&path) {
                for (link, _) in attachment
                    .links
                    .iter()
                    .filter(|(_, creator)| **creator == NodeCreator::Watcher)
                {
                    if let Err(error) = inside.remove_link(link, &path) {
                        tracing::warn!(container = %self.record.container.id, "{error}");
                    }
                }
            }
        }
    }

    /// Reads anew what devices there are.
    fn enumerate(&mut self) -> Result<(), MonitorError> {
        take_all(&mut self.monitor, &mut self.inventory)?;
        self.revoke_gone();
        self.complete_selected();
        // Devices that were known before kept their old links.
        self.follow_links();
        Ok(())
    }

    /// An enumeration has the kernel's facts only: reads udev's for the few devices that matter.
    fn complete_selected(&mut self) {
        // The roots of before stay as they are: which of them are gone is for `reconcile` to find out.
        let mut probe = self.planner.clone();
        probe.find_roots(&self.inventory);
        let selected: BTreeSet<SysPath> = probe
            .candidates(&self.inventory)
            .iter()
            .map(|candidate| candidate.device.syspath.clone())
            .collect();
        for syspath in selected {
            if let Some(device) = self.inventory.get_mut(&syspath) {
                self.monitor.complete(device);
            }
        }
    }

    /// Reads where the host's links point now. Returns whether a device gained or lost one.
    fn follow_links(&mut self) -> bool {
        let followed = self.planner.followed_links(&self.inventory);
        let found = self.monitor.follow_links(followed);
        self.inventory.take_links(&found.named, &found.claimed)
    }

    /// Takes in all events that have come, and acts on them.
    fn take_events(&mut self) {
        let woken = Instant::now();
        let events = self.monitor.drain();
        let events = self.take_removals(events);
        // Follow links before applying the events, so that one plan moves a link from one device to the other.
        let mut news = self.monitor.links_may_have_moved() && self.follow_links();
        for event in events {
            news |= self.take_event(event);
        }
        if news {
            self.reconcile();
        }
        let took = woken.elapsed().as_micros() as u64;
        self.inside.count(|tally| tally.count_wake(took));
    }

    /// Says that this watcher ends as it should.
    fn note_end(&mut self) {
        self.inside.count(Counters::end);
        self.note_tally();
    }

    /// Says, where a successor or `oci-hotplug metrics` finds it, what was counted.
    fn note_tally(&mut self) {
        if self.inside.has_counted() {
            if let Err(error) = self.inside.journal(&self.attachments) {
                tracing::debug!(container = %self.record.container.id, "{error}");
            }
        }
    }

    /// Takes in the removals of devices that are attached or selected, before all other events, and acts on them at
    /// once: access is revoked before anything is evaluated, and the container sees also a device that is plugged in
    /// again in the same batch go. Returns the other events; those of the lives that have ended are left out.
    fn take_removals(&mut self, events: Vec<DeviceEvent>) -> Vec<DeviceEvent> {
        // A move changes what the paths of the events behind it mean: then they are taken in as they come.
        if events
            .iter()
            .any(|event| matches!(event, DeviceEvent::Moved { .. }))
        {
            return events;
        }
        let mut ends = BTreeMap::<SysPath, u64>::new();
        for event in &events {
            match event {
                DeviceEvent::Removed { syspath, seqnum } if self.concerns(syspath) => {
                    let end = ends.entry(syspath.clone()).or_default();
                    *end = (*end).max(*seqnum);
                }
                _ => {}
            }
        }
        let mut left = Vec::with_capacity(events.len());
        let mut news = false;
        for event in events {
            let end = event.syspath().and_then(|syspath| ends.get(syspath));
            match (&event, end) {
                (DeviceEvent::Removed { seqnum, .. }, Some(end)) if seqnum == end => {
                    news |= self.inventory.apply(event);
                }
                (event, Some(end)) if event.seqnum() <= *end => {}
                _ => left.push(event),
            }
        }
        if news {
            self.reconcile();
        }
        left
    }

    /// Takes one event in; whether there is something left to act on.
    fn take_event(&mut self, event: DeviceEvent) -> bool {
        match &event {
            DeviceEvent::Overrun => {
                let text = "device events were lost; reading all devices anew";
                self.log_event(event::OVERRUN, "", Path::new(""), text);
                return match self.enumerate() {
                    Ok(()) => true,
                    Err(error) => {
                        tracing::error!(container = %self.record.container.id, "{error}");
                        false
                    }
                };
            }
            DeviceEvent::Moved { from, device } => {
                self.planner.follow_move(from, &device.syspath);
                follow_move(&mut self.attachments, from, &device.syspath);
            }
            // After a move in the same batch: `take_removals` did not know the device by this path.
            DeviceEvent::Removed { syspath, .. } if self.concerns(syspath) => {
                if self.inventory.apply(event) {
                    self.reconcile();
                }
                return false;
            }
            _ => {}
        }
        let Some(syspath) = event.syspath().cloned() else {
            return false;
        };
        // What is pending may hang on devices that nobody asks for.
        self.inventory.apply(event)
            && (!self.last_plan.pending.is_empty() || self.planner.is_affected_by(&syspath, &self.inventory))
    }

    fn concerns(&self, syspath: &SysPath) -> bool {
        self.attachments
            .iter()
            .any(|(_, attachment)| attachment.device.syspath == *syspath)
            || self
                .planner
                .entries()
                .iter()
                .any(|entry| entry.roots.contains(syspath))
    }

    /// Brings the container to what it asks for and what there is.
    fn reconcile(&mut self) {
        self.revoke_gone();
        self.respect_others();
        let removed = self.planner.find_roots(&self.inventory);
        let removed = self.removals.take(removed, &self.planner, Instant::now());
        let gone: Vec<RootRemoved> = self.removals.pending().map(|(gone, _)| gone.clone()).collect();
        let postponed = self.postponed();
        let plan = self.plan(&postponed);
        let new_roots = self.inside.note_roots(self.planner.requests(), &gone) | self.note_bound();
        let mut failed = Vec::new();
        if !plan.steps.is_empty() {
            failed = self.carry_out(&plan);
        } else if new_roots {
            // Also of a root without a node it is to be known after a crash that it was there.
            if let Err(error) = self.inside.journal(&self.attachments) {
                tracing::error!(container = %self.record.container.id, "{error}");
            }
        }
        self.forget_retries(&plan, &failed);
        self.note_awaited(&plan);
        self.last_plan = plan;
        self.admission.release_leases(&self.attachments, &self.inventory);
        self.log_not_attached();
        for root in removed {
            self.act_on_removal(&root);
        }
    }

    /// Revokes the access to devices that are gone or that have another number now: before the container is looked at,
    /// and before a selector is evaluated. From then on the number may be another device's.
    fn revoke_gone(&mut self) {
        let kept = still_due(&self.granted, &self.attachments, &self.inventory);
        if kept == self.granted {
            return;
        }
        if let Err(reason) = transaction::revoke(kept, &mut self.granted, &mut self.inside) {
            self.note_access_problem(Some(reason));
        }
    }

    /// Carries the plan out; the nodes and links that failed.
    fn carry_out(&mut self, plan: &Plan) -> Vec<PathBuf> {
        let before = self.attachments.clone();
        let failures = transaction::apply(
            plan.steps.clone(),
            &mut self.attachments,
            &mut self.granted,
            &mut self.inside,
            unix_time(),
        );
        self.log_changes(&before);
        let mut failed = Vec::new();
        let mut access_problem = None;
        for failure in failures {
            match failure.path {
                Some(path) => {
                    let device = plan.steps.iter().find_map(|step| device_of(step, &path));
                    let inside = before.get(&path).map(|attachment| &attachment.device.syspath);
                    failed.push(path.clone());
                    self.note_failure(path, failure.reason, device.or(inside).cloned());
                }
                None => access_problem = Some(failure.reason),
            }
        }
        self.note_access_problem(access_problem);
        failed
    }

    /// Of what failed earlier counts what has failed again, and what waits for its next attempt. A device that is gone
    /// is no problem any more.
    fn forget_retries(&mut self, plan: &Plan, failed: &[PathBuf]) {
        self.retries
            .retain(|path, _| failed.contains(path) || plan.postponed.contains(path));
    }

    fn note_failure(&mut self, path: PathBuf, reason: String, device: Option<SysPath>) {
        let before = self.retries.get(&path);
        let mut backoff = before.map_or(Backoff::new(FIRST_RETRY), |retry| retry.backoff);
        if before.is_none_or(|retry| retry.reason != reason) {
            let device = device.as_ref().map_or("", SysPath::as_str);
            self.log_event(event::FAILED, device, &path, &reason);
        }
        let pause = backoff.failed(RETRY_MAX);
        self.retries.insert(
            path,
            Retry {
                device,
                reason,
                backoff,
                retry_at: Instant::now() + pause,
            },
        );
    }

    fn note_access_problem(&mut self, problem: Option<String>) {
        if let Some(reason) = problem.as_ref().filter(|_| problem != self.access_problem) {
            self.log_event(event::FAILED, "", Path::new(""), reason);
        }
        self.access_problem = problem;
    }

    /// What failed lately and is to be left alone until its pause is over.
    fn postponed(&self) -> BTreeSet<PathBuf> {
        let now = Instant::now();
        let mut paths = BTreeSet::new();
        paths.extend(
            self.retries
                .iter()
                .filter(|(_, retry)| retry.retry_at > now)
                .map(|(path, _)| path.clone()),
        );
        paths
    }

    fn note_awaited(&mut self, plan: &Plan) {
        let now = Instant::now();
        self.awaiting_udevd
            .retain(|syspath, _| plan.pending.contains(syspath));
        for syspath in &plan.pending {
            self.awaiting_udevd.entry(syspath.clone()).or_insert(now);
        }
    }

    fn log_changes(&self, before: &Attachments) {
        // In the order in which they went.
        for (path, attachment) in before
            .iter()
            .rev()
            .filter(|(path, _)| self.attachments.get(path).is_none())
        {
            let text = format!("detached {} ({})", path.display(), attachment.node.num);
            self.log_event(event::DETACHED, attachment.device.syspath.as_str(), path, &text);
        }
        let mut new = Vec::new();
        for (path, attachment) in self.attachments.iter() {
            let known = before.get(path).is_some_and(|old| same_device(old, attachment));
            if !known {
                let text = format!(
                    "attached {} ({} {}) of {}",
                    path.display(),
                    attachment.node.num,
                    attachment.access,
                    attachment.device.syspath
                );
                self.log_event(event::ATTACHED, attachment.device.syspath.as_str(), path, &text);
                new.push((path, attachment));
            }
        }
        self.warn_of_sharing(&new);
    }

    /// Counts and logs what happens to a device, in the form that `oci-hotplug events` reads back: the fields are texts, so that
    /// the journal has them as they are and the log file quotes them, and they stand in this order. Device and node are
    /// empty where it is about all of them.
    fn log_event(&self, event: &'static str, device: &str, node: &Path, text: &str) {
        self.inside.count(|tally| tally.count(event));
        let container = self.record.container.id.as_str();
        let node = &*node.to_string_lossy();
        match event {
            event::ATTACHED | event::DETACHED => tracing::info!(container, event, device, node, "{text}"),
            event::FAILED => tracing::error!(container, event, device, node, "{text}"),
            _ => tracing::warn!(container, event, device, node, "{text}"),
        }
    }

    /// Does what `on-removal=` says where the grace period is over and the device has not returned.
    fn act_on_due_removals(&mut self) {
        for removed in self.removals.due(Instant::now()) {
            self.act_on_removal(&removed);
        }
    }

    /// The actions that the end of a grace period will bring.
    fn removal_problems(&self) -> impl Iterator<Item = Problem> + '_ {
        let now = Instant::now();
        self.removals.pending().map(move |(removed, until)| Problem {
            waiting: false,
            path: removed.root.as_path().to_owned(),
            device: Some(removed.root.clone()),
            reason: format!(
                "device request {:?}: its device is gone; on-removal={} in {} s unless one returns",
                self.text_of(removed.request),
                removed.action,
                until.saturating_duration_since(now).as_secs_f32().ceil()
            ),
        })
    }

    /// The text of a request, for people.
    fn text_of(&self, request: RequestId) -> String {
        let request = self.planner.request(request);
        request.map_or_else(String::new, ToString::to_string)
    }

    fn act_on_removal(&mut self, removed: &RootRemoved) {
        let id = &self.record.container.id;
        let request = self.text_of(removed.request);
        tracing::info!(container = %id, "{} was removed, which {request:?} had selected", removed.root);
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
                    tracing::error!(container = %id, "signal {name}: {error}");
                    return;
                }
            },
        };
        tracing::warn!(container = %id, "sending {signal} to the container, as {request:?} says");
        if let Err(error) = self.container.init().signal(signal) {
            tracing::error!(container = %id, "{error}");
        }
    }

    /// The second's round: what no event tells of.
    fn tick(&mut self) {
        self.check_access();
        if self.kill_at.is_some_and(|at| at <= Instant::now()) {
            self.kill_at = None;
            tracing::warn!(container = %self.record.container.id, "it did not stop within {STOP_TIMEOUT:?}; killing it");
            if let Err(error) = self.container.init().signal(Signal::SIGKILL) {
                tracing::error!(container = %self.record.container.id, "{error}");
            }
        }
        for event in self.monitor.poll_static_nodes() {
            self.inventory.apply(event);
        }
        self.follow_links();
        self.check_awaited_devices();
        self.reconcile();
        self.free_the_stuck();
    }

    /// Follows the container into another cgroup, and gives access back where it was lost.
    fn check_access(&mut self) {
        let moved = match self.inside.follow(&self.container) {
            Place::Same => None,
            Place::Moved(place) => {
                // What failed at the old place may succeed here. The note of the new place comes before its first grant.
                self.retries.clear();
                self.remotes.forget_place();
                if let Err(error) = self.inside.journal(&self.attachments) {
                    return self.note_access_problem(Some(error.to_string()));
                }
                Some(place)
            }
            Place::Nowhere(reason) => {
                // Nothing is in force: the plan asks for each number again, and is told why it can't be had.
                self.granted.clear();
                return self.note_access_problem(Some(reason));
            }
        };
        match (self.inside.ensure(&self.granted), moved) {
            (Ok(_), Some(place)) => {
                self.note_access_problem(None);
                let text = format!("the container was moved to cgroup {place}; access is given there");
                self.log_event(event::RESTORED, "", Path::new(""), &text);
            }
            (Ok(Change::None), None) => {
                let sets = |step: &Step| matches!(step, Step::Revoke(_) | Step::SetGrants(_));
                if !self.last_plan.steps.iter().any(sets) {
                    self.note_access_problem(None);
                }
            }
            (Ok(Change::Made), None) => {
                let text = "the engine replaced the device filter; access is given again";
                self.log_event(event::RESTORED, "", Path::new(""), text);
            }
            // The container is ending, or is on its way to another cgroup: the next look tells.
            (Err(FilterError::Gone { .. }), _) => {}
            // No longer in force: the plan asks for it again, and tells of which device that is.
            (Err(FilterError::Refused { refused }), _) => {
                for (num, _) in refused {
                    self.granted.remove(&num);
                }
            }
            (Err(error), _) => self.note_access_problem(Some(error.to_string())),
        }
    }

    /// udevd may have been started, stopped or killed meanwhile: a device that it has not processed in time is overdue.
    /// That ends the wait for `ready=udev`; what udevd would say of the device stays unknown until it does.
    fn check_awaited_devices(&mut self) {
        if !self.awaiting_udevd.is_empty() || !self.last_plan.unconfirmed_links.is_empty() {
            self.monitor.doubt_udevd();
        }
        for syspath in &self.last_plan.unconfirmed_links {
            if let Some(device) = self.inventory.get_mut(syspath) {
                self.monitor.complete(device);
            }
        }
        for (syspath, since) in &self.awaiting_udevd {
            let Some(device) = self.inventory.get_mut(syspath) else {
                continue;
            };
            self.monitor.complete(device);
            if device.seen == Seen::Kernel && since.elapsed() >= UDEVD_TIMEOUT {
                tracing::warn!(container = %self.record.container.id, "udevd has not processed {syspath} for {UDEVD_TIMEOUT:?}; its properties, tags and links stay unknown (is systemd-udevd stopped or overloaded?)");
                device.seen = Seen::Overdue;
            }
        }
        // Its event may have been lost.
        let overdue: Vec<SysPath> = self
            .inventory
            .iter()
            .filter(|device| device.seen == Seen::Overdue)
            .map(|device| device.syspath.clone())
            .collect();
        for syspath in &overdue {
            if let Some(device) = self.inventory.get_mut(syspath) {
                self.monitor.complete(device);
            }
        }
    }

    fn status(&self) -> Status {
        let retries = self.retries.iter().map(|(path, retry)| Problem {
            path: path.clone(),
            device: retry.device.clone(),
            reason: retry.reason.clone(),
            waiting: false,
        });
        let awaited = self
            .last_plan
            .pending
            .iter()
            .chain(&self.last_plan.unconfirmed_links);
        let pending = awaited.map(|syspath| Problem {
            path: syspath.as_path().to_owned(),
            device: Some(syspath.clone()),
            reason: "udevd has not processed the device yet".into(),
            waiting: false,
        });
        let access = self.access_problem.iter().map(|reason| Problem {
            path: PathBuf::from("/dev"),
            device: None,
            reason: reason.clone(),
            waiting: false,
        });
        Status {
            watcher: i32::try_from(std::process::id()).unwrap_or_default(),
            container: self.record.container.clone(),
            requests: self.planner.entries().to_vec(),
            attached: self.attachments.clone(),
            problems: retries
                .chain(self.not_attached_problems())
                .chain(self.admission.problems())
                .chain(self.remote_problems())
                .chain(self.removal_problems())
                .chain(pending)
                .chain(access)
                .collect(),
            tally: self.inside.tally(),
        }
    }

    /// Adds requests, writes the new ones into the record, and returns the ids of all of `entries`.
    ///
    /// # Errors
    /// When the record can't be written, or the devices can't be read.
    fn add(
        &mut self,
        entries: Vec<RequestEntry>,
        symlinks: Vec<SymlinkRule>,
    ) -> Result<Vec<RequestId>, EffectError> {
        let mut grown = self.planner.clone();
        let requests: Vec<Request> = entries.iter().map(|entry| entry.request.clone()).collect();
        grown.add(entries, symlinks);
        let mut record = self.record.clone();
        record.requests = grown.entries().iter().map(RequestEntry::without_roots).collect();
        record.symlinks = grown.symlinks().to_vec();
        self.inside.lock().write_record(&record)?;
        self.record = record;
        self.planner = grown;
        self.note_remotes();
        self.monitor.want(wanted(&self.planner, self.admission.policy()));
        if let Err(error) = self.enumerate() {
            tracing::error!(container = %self.record.container.id, "{error}");
        }
        self.reconcile();
        let ids = requests.iter().filter_map(|request| self.planner.id_of(request));
        Ok(ids.collect())
    }

    /// Gives requests up, and takes out what nobody else here asks for. Those that stay are written into the record.
    ///
    /// # Errors
    /// When the record or the notes can't be written.
    fn remove(&mut self, entries: &[RequestEntry]) -> Result<(), EffectError> {
        let mut shrunk = self.planner.clone();
        let first = shrunk.remove(entries);
        let mut record = self.record.clone();
        record.requests = shrunk.entries().iter().map(RequestEntry::without_roots).collect();
        // The notes know roots by their request's place in the record. Should we die between the two files, no
        // request may be taken to have selected what was another's.
        self.inside.note_roots(shrunk.requests().take(first), &[]);
        self.inside.journal(&self.attachments)?;
        self.inside.lock().write_record(&record)?;
        self.record = record;
        self.planner = shrunk;
        self.monitor.want(wanted(&self.planner, self.admission.policy()));
        // What could not be put in place for them is no concern any more; the rest may be tried again now.
        self.retries.clear();
        self.reconcile();
        self.note_remotes();
        self.inside.journal(&self.attachments)
    }
}

/// Reads all devices of the host into the inventory.
fn take_all(monitor: &mut DeviceMonitor, inventory: &mut Inventory) -> Result<(), MonitorError> {
    inventory.replace(monitor.enumerate()?);
    for event in monitor.poll_static_nodes() {
        inventory.apply(event);
    }
    Ok(())
}

fn wanted(planner: &Planner, policy: &Policy) -> FactsNeeded {
    let requests: Vec<_> = planner
        .entries()
        .iter()
        .map(|entry| entry.request.clone())
        .collect();
    let mut wanted = FactsNeeded::of(&requests, planner.symlinks());
    wanted.merge(&FactsNeeded::of_policy(policy.selectors()));
    wanted
}

fn same_device(old: &Attachment, new: &Attachment) -> bool {
    old.device.syspath == new.device.syspath && old.node == new.node
}

/// The device whose node or link a step puts at this path.
fn device_of<'s>(step: &'s Step, at: &Path) -> Option<&'s SysPath> {
    match step {
        Step::AddNode { path, attachment } if path == at => Some(&attachment.device.syspath),
        _ => None,
    }
}

fn follow_move(attachments: &mut Attachments, from: &SysPath, to: &SysPath) {
    for (_, attachment) in attachments.iter_mut() {
        if let Some(syspath) = moved(&attachment.device.syspath, from, to) {
            attachment.device = Device {
                syspath,
                ..attachment.device.clone()
            };
        }
    }
}

fn unix_time() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
