//! One container's watcher: a process with one thread and one epoll.
//!
//! ```text
//!   kernel, udevd ──> DeviceMonitor ──> Inventory ─┐
//!   the second's tick, control socket ─────────────┴─> Reconciler::plan ──> transaction::apply ──> Inside
//!   container's init ends, SIGTERM ──> the end
//! ```
//! Every wake ends in the same `reconcile`: events only update the inventory.

mod admission;
pub mod command;
pub mod detach;
pub mod effects;
pub mod launch;
pub mod transaction;

mod run;
mod settle;

pub use run::{Ending, Settings, WatcherError, run};

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;

use self::admission::Gate;
use self::effects::{EffectError, Inside, Memory};
use self::transaction::Effects;
use crate::host::container::Container;
use crate::host::control::{Asker, Problem, Status};
use crate::host::filter::FilterError;
use crate::host::monitor::{DeviceMonitor, MonitorError};
use crate::host::registry::Record;
use crate::model::asked::Asked;
use crate::model::attachment::{Attachment, Attachments, Found, Maker};
use crate::model::device::{Device, Seen, SysPath};
use crate::model::event::DeviceEvent;
use crate::model::grants::{Change, GrantSet};
use crate::model::inventory::Inventory;
use crate::model::policy::Policy;
use crate::model::reconcile::{Plan, Reconciler, RootRemoved, Step, moved};
use crate::model::request::OnRemoval;
use crate::model::symlink::SymlinkRule;
use crate::model::wanted::Wanted;

/// How long a container that was asked to stop may take before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// How long udevd may take to speak of a device before the kernel's word is enough.
const UDEVD_PATIENCE: Duration = Duration::from_secs(10);

/// The longest pause before something that failed is tried again.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// A step that failed, and when to try again.
#[derive(Debug, Clone)]
struct Setback {
    reason: String,
    attempts: u32,
    retry_at: Instant,
}

/// Somebody who waits until the devices that are present are in place.
struct Waiter {
    who: Who,
    until: Instant,
    /// The requests this is about, as text: they must be there if they are required.
    requests: Vec<String>,
}

/// To whom readiness is told.
enum Who {
    /// The hook that started us, through our standard output of old.
    Starter(File),
    /// Somebody at the control socket.
    Asker(Asker),
}

/// One container, what it asks for, what there is, and what is inside.
struct Watcher {
    container: Container,
    record: Record,
    monitor: DeviceMonitor,
    inventory: Inventory,
    reconciler: Reconciler,
    inside: Inside,
    attachments: Attachments,
    granted: GrantSet,
    setbacks: BTreeMap<PathBuf, Setback>,
    /// What is wrong with the access of all; empty = nothing.
    access_problem: Option<String>,
    gate: Gate,
    /// The devices that the last plan admits.
    admitted: BTreeSet<SysPath>,
    last_plan: Plan,
    /// Since when udevd owes a word about a device.
    owed: BTreeMap<SysPath, Instant>,
    /// When a container that was asked to stop is killed.
    kill_at: Option<Instant>,
    waiters: Vec<Waiter>,
    /// How long somebody waits for readiness before it is told all the same.
    ready_patience: Duration,
}

impl Watcher {
    /// Looks at the container and at the devices, and takes up what an earlier watcher left.
    fn open(
        record: Record,
        inside: Inside,
        container: Container,
        memory: Memory,
        settings: Settings,
    ) -> Result<Self, MonitorError> {
        let state_dir = inside.lock().state_dir().to_owned();
        let mut asked = record.asked.clone();
        for (asked, roots) in asked.iter_mut().zip(memory.roots) {
            asked.roots = roots;
        }
        let reconciler = Reconciler::new(asked, record.symlinks.clone(), record.container.user);
        let monitor = DeviceMonitor::open(
            wanted(&reconciler, &settings.policy),
            crate::host::monitor::RECEIVE_BUFFER,
        )?;
        let mut watcher = Self {
            container,
            record,
            monitor,
            inventory: Inventory::default(),
            reconciler,
            inside,
            granted: memory.filter.held.clone(),
            attachments: memory.attachments,
            setbacks: BTreeMap::new(),
            access_problem: None,
            gate: Gate::new(settings.policy, settings.config, &state_dir),
            admitted: BTreeSet::new(),
            last_plan: Plan::default(),
            owed: BTreeMap::new(),
            kill_at: None,
            waiters: Vec::new(),
            ready_patience: settings.ready_patience,
        };
        watcher.check_attachments();
        watcher.enumerate()?;
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
                for (link, _) in attachment.links.iter().filter(|(_, maker)| **maker == Maker::Us) {
                    if let Err(error) = inside.remove_link(link, &path) {
                        tracing::warn!(container = %self.record.container.id, "{error}");
                    }
                }
            }
        }
    }

    /// Reads anew what devices there are.
    fn enumerate(&mut self) -> Result<(), MonitorError> {
        self.inventory.replace(self.monitor.enumerate()?);
        for event in self.monitor.poll_static_nodes() {
            self.inventory.apply(event);
        }
        self.complete_selected();
        Ok(())
    }

    /// An enumeration has the kernel's facts only: reads udev's for the few devices that matter.
    fn complete_selected(&mut self) {
        // The roots of before stay as they are: which of them are gone is for `reconcile` to find out.
        let mut probe = self.reconciler.clone();
        probe.find_roots(&self.inventory);
        let selected: BTreeSet<SysPath> = probe
            .selected(&self.inventory)
            .map(|(_, _, device)| device.syspath.clone())
            .collect();
        for syspath in selected {
            if let Some(device) = self.inventory.get_mut(&syspath) {
                self.monitor.complete(device);
            }
        }
    }

    /// Takes in all events that have come, and acts on them.
    fn take_events(&mut self) {
        let mut news = false;
        for event in self.monitor.drain() {
            news |= self.take_event(event);
        }
        if news {
            self.reconcile();
        }
    }

    /// Takes one event in; whether there is something left to act on.
    fn take_event(&mut self, event: DeviceEvent) -> bool {
        match &event {
            DeviceEvent::Overrun => {
                tracing::warn!(container = %self.record.container.id, "device events were lost; reading all devices anew");
                return match self.enumerate() {
                    Ok(()) => true,
                    Err(error) => {
                        tracing::error!(container = %self.record.container.id, "{error}");
                        false
                    }
                };
            }
            DeviceEvent::Moved { from, device } => {
                self.reconciler.follow_move(from, &device.syspath);
                follow_move(&mut self.attachments, from, &device.syspath);
            }
            // What is pulled out goes at once, also when it is plugged in again in the same breath: the
            // container is to see both.
            DeviceEvent::Removed { syspath, .. } if self.concerns(syspath) => {
                if self.inventory.apply(event) {
                    self.reconcile();
                }
                return false;
            }
            _ => {}
        }
        self.inventory.apply(event)
    }

    fn concerns(&self, syspath: &SysPath) -> bool {
        self.attachments
            .iter()
            .any(|(_, attachment)| attachment.device.syspath == *syspath)
            || self
                .reconciler
                .asked()
                .iter()
                .any(|asked| asked.roots.contains(syspath))
    }

    /// Brings the container to what it asks for and what there is.
    fn reconcile(&mut self) {
        let removed = self.reconciler.find_roots(&self.inventory);
        let held_back = self.held_back();
        let plan = self.plan(&held_back);
        self.inside.note_roots(self.reconciler.asked());
        // What failed for a device that has gone says nothing of the next one.
        self.setbacks
            .retain(|path, _| plan.held_back.contains(path) || touches(&plan, path));
        if !plan.steps.is_empty() {
            self.carry_out(&plan);
        }
        self.note_owed(&plan);
        self.last_plan = plan;
        self.release_leases();
        self.tell_refusals();
        for root in removed {
            self.act_on_removal(&root);
        }
    }

    fn carry_out(&mut self, plan: &Plan) {
        let before = self.attachments.clone();
        let failures = transaction::apply(
            plan.steps.clone(),
            &mut self.attachments,
            &mut self.granted,
            &mut self.inside,
            unix_time(),
        );
        self.log_changes(&before);
        let touched: Vec<&Path> = plan.steps.iter().filter_map(touched_path).collect();
        self.setbacks.retain(|path, _| {
            !touched.contains(&path.as_path())
                || failures
                    .iter()
                    .any(|failure| failure.path.as_deref() == Some(path))
        });
        let mut access_problem = None;
        for failure in failures {
            match failure.path {
                Some(path) => self.note_setback(path, failure.reason),
                None => access_problem = Some(failure.reason),
            }
        }
        self.note_access_problem(access_problem);
    }

    fn note_setback(&mut self, path: PathBuf, reason: String) {
        let before = self.setbacks.get(&path);
        let attempts = before.map_or(1, |setback| setback.attempts + 1);
        if before.is_none_or(|setback| setback.reason != reason) {
            tracing::error!(container = %self.record.container.id, path = %path.display(), "{reason}");
        }
        let pause = Duration::from_secs(1 << attempts.min(6)).min(RETRY_MAX);
        self.setbacks.insert(
            path,
            Setback {
                reason,
                attempts,
                retry_at: Instant::now() + pause,
            },
        );
    }

    fn note_access_problem(&mut self, problem: Option<String>) {
        if let Some(reason) = problem.as_ref().filter(|_| problem != self.access_problem) {
            tracing::error!(container = %self.record.container.id, "{reason}");
        }
        self.access_problem = problem;
    }

    /// What failed lately and is to be left alone until its pause is over.
    fn held_back(&self) -> BTreeSet<PathBuf> {
        let now = Instant::now();
        let mut paths = BTreeSet::new();
        paths.extend(
            self.setbacks
                .iter()
                .filter(|(_, setback)| setback.retry_at > now)
                .map(|(path, _)| path.clone()),
        );
        paths
    }

    fn note_owed(&mut self, plan: &Plan) {
        let now = Instant::now();
        self.owed.retain(|syspath, _| plan.pending.contains(syspath));
        for syspath in &plan.pending {
            self.owed.entry(syspath.clone()).or_insert(now);
        }
    }

    fn log_changes(&self, before: &Attachments) {
        let id = &self.record.container.id;
        for (path, attachment) in before
            .iter()
            .filter(|(path, _)| self.attachments.get(path).is_none())
        {
            tracing::info!(container = %id, "detached {} ({})", path.display(), attachment.node.num);
        }
        for (path, attachment) in self.attachments.iter() {
            let known = before.get(path).is_some_and(|old| same_device(old, attachment));
            if !known {
                tracing::info!(
                    container = %id,
                    "attached {} ({} {}) of {}",
                    path.display(),
                    attachment.node.num,
                    attachment.access,
                    attachment.device.syspath
                );
            }
        }
    }

    fn act_on_removal(&mut self, removed: &RootRemoved) {
        let id = &self.record.container.id;
        tracing::info!(container = %id, "{} is gone, which {:?} had selected", removed.root, removed.request);
        let signal = match &removed.action {
            OnRemoval::Keep => return,
            OnRemoval::Stop => {
                self.kill_at = Some(Instant::now() + STOP_PATIENCE);
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
        tracing::warn!(container = %id, "sending {signal} to the container, as {:?} asks", removed.request);
        if let Err(error) = self.container.init().signal(signal) {
            tracing::error!(container = %id, "{error}");
        }
    }

    /// The second's round: what no event tells of.
    ///
    /// # Errors
    /// [`FilterError::Gone`] when the container's cgroup is gone: then so is the container.
    fn tick(&mut self) -> Result<(), FilterError> {
        match self.inside.ensure(&self.granted) {
            Ok(Change::None) => {
                if !self
                    .last_plan
                    .steps
                    .iter()
                    .any(|step| matches!(step, Step::SetGrants(_)))
                {
                    self.note_access_problem(None);
                }
            }
            Ok(Change::Made) => {
                tracing::warn!(container = %self.record.container.id, "the engine replaced the device filter; access is given again");
            }
            Err(error @ FilterError::Gone { .. }) => return Err(error),
            Err(error) => self.note_access_problem(Some(error.to_string())),
        }
        if self.kill_at.is_some_and(|at| at <= Instant::now()) {
            self.kill_at = None;
            tracing::warn!(container = %self.record.container.id, "it did not stop within {STOP_PATIENCE:?}; killing it");
            if let Err(error) = self.container.init().signal(Signal::SIGKILL) {
                tracing::error!(container = %self.record.container.id, "{error}");
            }
        }
        for event in self.monitor.poll_static_nodes() {
            self.inventory.apply(event);
        }
        self.remind_udevd();
        self.reconcile();
        Ok(())
    }

    /// udevd may have been started, stopped or killed meanwhile: what it owes for too long, it will not bring.
    fn remind_udevd(&mut self) {
        if !self.owed.is_empty() {
            self.monitor.doubt_udevd();
        }
        for (syspath, since) in &self.owed {
            let Some(device) = self.inventory.get_mut(syspath) else {
                continue;
            };
            self.monitor.complete(device);
            if device.seen == Seen::Kernel && since.elapsed() >= UDEVD_PATIENCE {
                tracing::warn!(container = %self.record.container.id, "udevd has not spoken of {syspath} for {UDEVD_PATIENCE:?}; the kernel's word must do");
                device.seen = Seen::Udev;
            }
        }
    }

    fn status(&self) -> Status {
        let setbacks = self.setbacks.iter().map(|(path, setback)| Problem {
            path: path.clone(),
            reason: setback.reason.clone(),
        });
        let conflicts = self.last_plan.conflicts.iter().map(|conflict| Problem {
            path: conflict.path.clone(),
            reason: format!("{} wants it, and {} has it", conflict.syspath, conflict.holder),
        });
        let pending = self.last_plan.pending.iter().map(|syspath| Problem {
            path: syspath.as_path().to_owned(),
            reason: "waiting for udevd to finish with it".into(),
        });
        let access = self.access_problem.iter().map(|reason| Problem {
            path: PathBuf::from("/dev"),
            reason: reason.clone(),
        });
        Status {
            watcher: i32::try_from(std::process::id()).unwrap_or_default(),
            container: self.record.container.clone(),
            asked: self.reconciler.asked().to_vec(),
            attached: self.attachments.clone(),
            problems: setbacks
                .chain(self.admission_problems())
                .chain(conflicts)
                .chain(pending)
                .chain(access)
                .collect(),
        }
    }

    /// Takes further requests in. Those that are new are written into the record.
    ///
    /// # Errors
    /// When the record can't be written, or the devices can't be read.
    fn add(&mut self, asked: Vec<Asked>, symlinks: Vec<SymlinkRule>) -> Result<(), EffectError> {
        let mut grown = self.reconciler.clone();
        grown.add(asked, symlinks);
        let mut record = self.record.clone();
        record.asked = grown.asked().iter().map(Asked::without_roots).collect();
        record.symlinks = grown.symlinks().to_vec();
        self.inside.lock().write_record(&record)?;
        self.record = record;
        self.reconciler = grown;
        self.monitor.want(wanted(&self.reconciler, self.gate.policy()));
        if let Err(error) = self.enumerate() {
            tracing::error!(container = %self.record.container.id, "{error}");
        }
        self.reconcile();
        Ok(())
    }
}

fn wanted(reconciler: &Reconciler, policy: &Policy) -> Wanted {
    let requests: Vec<_> = reconciler
        .asked()
        .iter()
        .map(|asked| asked.request.clone())
        .collect();
    let mut wanted = Wanted::of(&requests, reconciler.symlinks());
    wanted.merge(&Wanted::of_policy(policy.selectors()));
    wanted
}

fn same_device(old: &Attachment, new: &Attachment) -> bool {
    old.device.syspath == new.device.syspath && old.node == new.node
}

fn touches(plan: &Plan, path: &Path) -> bool {
    plan.steps.iter().any(|step| touched_path(step) == Some(path))
}

fn touched_path(step: &Step) -> Option<&Path> {
    match step {
        Step::AddNode { path, .. } | Step::RemoveNode { path } => Some(path),
        Step::AddLink { link, .. } | Step::RemoveLink { link, .. } => Some(link),
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
