//! The container: its record, attachments, grants, and the effects that change them.

mod access;
mod log;

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;

use super::effects::ContainerEffects;
use super::error::EffectError;
use super::report::{FailedPath, Report};
use super::restore::Entry;
use super::transaction;
use crate::host::container::{CgroupPaths, Container, ContainerError, ContainerFacts};
use crate::host::log::event;
use crate::host::process::Process;
use crate::host::state::notes::Notes;
use crate::host::state::record::Record;
use crate::host::state::record_lock::RecordLock;
use crate::model::cgroup::grants::{Change, GrantSet};
use crate::model::counters::Counters;
use crate::model::device::inventory::Inventory;
use crate::model::device::{Device, SysPath};
use crate::model::plan::announcements::Announcement;
use crate::model::plan::attachment::{Attachments, NodeCreator};
use crate::model::plan::{Current, Plan, Planner, RootRemoved, Step, moved, remove_all, still_due};
use crate::model::policy::ContainerTraits;
use crate::model::request::entry::RequestEntry;
use crate::model::udev_database::DatabaseState;

/// One container.
pub(super) struct Inside {
    container: Rc<Container>,
    record: Record,
    attachments: Attachments,
    granted: GrantSet,
    effects: ContainerEffects,
    /// Why the container's entry in the state directory is missing and cannot be restored; `None`
    /// if it exists.
    entry_problem: Option<String>,
    /// Whether the entry was missing when last checked.
    is_entry_missing: bool,
    /// Whether a plan was applied since the last tick.
    is_unchecked: bool,
}

impl Inside {
    /// Opens a container with the notes of an earlier watcher, and revokes access that its
    /// attachments do not need any more; see [`ContainerEffects::open`].
    pub(super) fn open(
        container: Container,
        record: Record,
        lock: RecordLock,
        mut notes: Notes,
        inventory: &Inventory,
    ) -> Result<Self, EffectError> {
        let container = Rc::new(container);
        let due = still_due(&notes.filter.held, &notes.attachments, inventory);
        let (effects, granted) = ContainerEffects::open(&container, lock, &mut notes, due, record.udev)?;
        let mut inside = Self {
            container,
            record,
            attachments: notes.attachments,
            granted,
            effects,
            entry_problem: None,
            is_entry_missing: false,
            is_unchecked: true,
        };
        for error in transaction::check(&mut inside.attachments, &mut inside.effects) {
            tracing::warn!(container = %inside.record.container.id, "{error}");
        }
        Ok(inside)
    }

    pub(super) fn id(&self) -> &str {
        &self.record.container.id
    }

    pub(super) fn facts(&self) -> &ContainerFacts {
        &self.record.container
    }

    /// The traits that conditions of policy rules are evaluated on.
    pub(super) fn traits(&self) -> &ContainerTraits {
        &self.record.traits
    }

    /// Whether this is the given container, and not another one with the same id.
    pub(super) fn is_of(&self, container: &ContainerFacts) -> bool {
        self.record.is_of(container)
    }

    pub(super) fn init(&self) -> &Process {
        self.container.init()
    }

    pub(super) fn cgroup_paths(&self) -> Result<CgroupPaths, ContainerError> {
        self.container.cgroup_paths()
    }

    pub(super) fn state_dir(&self) -> &Path {
        self.effects.lock().state_dir()
    }

    pub(super) fn lock(&self) -> &RecordLock {
        self.effects.lock()
    }

    pub(super) fn attachments(&self) -> &Attachments {
        &self.attachments
    }

    /// The state that the next plan starts from.
    pub(super) fn current<'a>(
        &'a self,
        postponed: &'a std::collections::BTreeSet<PathBuf>,
        events: &'a [Announcement],
    ) -> Current<'a> {
        Current {
            attachments: &self.attachments,
            granted: &self.granted,
            postponed,
            entries: self.effects.entries(),
            announced: self.effects.announced(),
            events,
        }
    }

    /// Mounts the container's udev database unless it is mounted.
    pub(super) fn ensure_database(&mut self) {
        if self.effects.ensure_database() {
            // The directories are removed after a crash, too.
            self.try_write_notes();
        }
    }

    /// The same, even if the last attempt has just failed.
    pub(super) fn ensure_database_now(&mut self) {
        self.effects.end_database_pause();
        self.ensure_database();
    }

    /// Call this before a plan, see [`ContainerEffects::begin_plan`].
    pub(super) fn begin_plan(&mut self) {
        if self.effects.begin_plan() {
            self.try_write_notes();
        }
    }

    /// Whether the container has a udev database.
    pub(super) fn database_state(&self) -> &DatabaseState {
        self.effects.database_state()
    }

    /// The devices that are attached.
    pub(super) fn attached_devices(&self) -> impl Iterator<Item = &SysPath> {
        let attachments = self.attachments.iter();
        attachments.map(|(_, attachment)| &attachment.device.syspath)
    }

    /// Whether the device is attached, or was announced without a node.
    pub(super) fn has(&self, syspath: &SysPath) -> bool {
        self.attached_devices().any(|attached| attached == syspath)
            || self.effects.announced().contains(syspath)
    }

    /// Updates attachments after a device moved in sysfs.
    pub(super) fn follow_move(&mut self, from: &SysPath, to: &SysPath) {
        self.effects.follow_move(from, to);
        for (_, attachment) in self.attachments.iter_mut() {
            if let Some(syspath) = moved(&attachment.device.syspath, from, to) {
                attachment.device = Device {
                    syspath,
                    ..attachment.device.clone()
                };
            }
        }
    }

    /// Stores roots and remote devices for the next watcher; they are written with the next plan,
    /// or by [`Inside::write_notes`]. Returns whether they have changed.
    pub(super) fn note_requests(&mut self, planner: &Planner, gone: &[RootRemoved]) -> bool {
        let notes = self.effects.notes_mut();
        notes.note_roots(planner.requests(), gone) | notes.note_bound(planner.bound())
    }

    /// Stores the roots of only the first `count` requests, for the next notes.
    pub(super) fn note_first_roots(&mut self, planner: &Planner, count: usize) {
        let notes = self.effects.notes_mut();
        notes.note_roots(planner.requests().take(count), &[]);
    }

    /// Applies a plan, and logs what has changed.
    pub(super) fn apply(&mut self, plan: Plan) -> Report {
        let (steps, mut report) = Report::begin(plan);
        if !report.was_applied {
            return report;
        }
        self.is_unchecked = true;
        let before = self.attachments.clone();
        let new_devices = new_devices(&steps);
        for failure in self.apply_steps(steps) {
            let Some(path) = failure.path else {
                report.access_problem = Some(failure.reason);
                continue;
            };
            let is_new = |(new, _): &&(PathBuf, SysPath)| *new == path;
            let device = new_devices.iter().find(is_new).map(|(_, device)| device);
            let attached = before.get(&path).map(|attachment| &attachment.device.syspath);
            report.failures.push(FailedPath {
                device: device.or(attached).cloned(),
                reason: failure.reason,
                path,
            });
        }
        report.attached = self.log_changes(&before);
        self.log_inaccessible(&before);
        report
    }

    /// Whether a plan was applied since [`Self::take_unchecked`] was last called, so that the next
    /// tick must check the container.
    pub(super) fn is_unchecked(&self) -> bool {
        self.is_unchecked
    }

    pub(super) fn take_unchecked(&mut self) -> bool {
        std::mem::take(&mut self.is_unchecked)
    }

    fn apply_steps(&mut self, steps: Vec<Step>) -> Vec<transaction::Failure> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_secs());
        transaction::apply(
            steps,
            &mut self.attachments,
            &mut self.granted,
            &mut self.effects,
            now,
        )
    }

    /// Mounts the nodes again that the container has unmounted.
    pub(super) fn put_back_nodes(&mut self) {
        let mut restored = Vec::new();
        for (path, attachment) in self.attachments.iter() {
            if attachment.node_creator != NodeCreator::Watcher {
                continue;
            }
            match self.effects.put_back(path, &attachment.node) {
                Ok(Change::Made) => restored.push((path.clone(), attachment.device.syspath.clone())),
                Ok(Change::None) => {}
                // The device may be gone by now: the next plan removes the node.
                Err(error) => tracing::debug!(container = %self.id(), "{error}"),
            }
        }
        for (path, device) in restored {
            let text = format!(
                "{} was not mounted any more in the container; it is mounted again",
                path.display()
            );
            self.log_event(event::RESTORED, device.as_str(), &path, &text);
        }
    }

    /// Detaches everything, because the container may not start or another container has its id.
    pub(super) fn remove_all(&mut self) {
        let steps = remove_all(&self.current(&Default::default(), &[]));
        for failure in self.apply_steps(steps) {
            tracing::warn!(container = %self.id(), "{}", failure.reason);
        }
        self.effects.remove_database_mount();
    }

    /// Changes the counters.
    pub(super) fn count(&self, change: impl FnOnce(&mut Counters)) {
        self.effects.notes().count(change);
    }

    pub(super) fn counters(&self) -> Counters {
        self.effects.notes().counters()
    }

    /// Writes what is attached, granted, selected and counted.
    pub(super) fn write_notes(&mut self) -> Result<(), EffectError> {
        self.effects.write_all_notes(&self.attachments)
    }

    /// Like [`Inside::write_notes`], but only logs an error.
    pub(super) fn try_write_notes(&mut self) {
        if let Err(error) = self.write_notes() {
            tracing::error!(container = %self.id(), "{error}");
        }
    }

    /// Writes the counters, for the next watcher and for `oci-hotplug metrics`. Call this when no
    /// device waits: it may also shorten the notes.
    pub(super) fn write_counters(&mut self) {
        let written = match self.effects.notes().has_counted() {
            true => self.write_notes(),
            false => Ok(()),
        };
        if let Err(error) = written.and_then(|()| self.effects.compact_notes()) {
            tracing::debug!(container = %self.id(), "{error}");
        }
    }

    /// Stores that this watcher ends normally.
    pub(super) fn note_end(&mut self) {
        self.count(Counters::end);
        self.write_counters();
    }

    /// Writes requests and rules for links into the record.
    pub(super) fn record_requests(&mut self, planner: &Planner) -> Result<(), EffectError> {
        let mut record = self.record.clone();
        record.requests = planner
            .entries()
            .iter()
            .map(RequestEntry::without_roots)
            .collect();
        record.symlinks = planner.symlinks().to_vec();
        self.effects.lock().write_record(&record)?;
        self.record = record;
        Ok(())
    }

    /// Sends a signal to the container's init.
    pub(super) fn signal(&self, signal: Signal) {
        if let Err(error) = self.container.init().signal(signal) {
            tracing::error!(container = %self.id(), "{error}");
        }
    }

    /// Restores the container's entry in the state directory if it was removed.
    pub(super) fn restore_entry(&mut self) -> Entry {
        if self.effects.lock().is_in_place() {
            self.is_entry_missing = false;
            return Entry::InPlace;
        }
        let (entry, problem) = super::restore::restore(&mut self.effects, &self.record);
        if let Some(problem) = problem.as_ref().filter(|_| problem != self.entry_problem) {
            tracing::error!(container = %self.record.container.id, "{problem}");
        }
        self.entry_problem = problem;
        self.is_entry_missing = matches!(entry, Entry::InPlace);
        entry
    }

    /// Whether something is left to be written or restored at the next check.
    pub(super) fn awaits_check(&self) -> bool {
        self.is_entry_missing || self.effects.notes().has_counted()
    }

    /// After the container has ended: removes our files that still exist, and returns the lock.
    pub(super) fn close(mut self) -> RecordLock {
        self.effects
            .remove_outliving(&self.attachments, &self.record.container.rootfs);
        self.effects.into_lock()
    }
}

/// The device of each node that the steps create.
fn new_devices(steps: &[Step]) -> Vec<(PathBuf, SysPath)> {
    let added = steps.iter().filter_map(|step| match step {
        Step::AddNode { path, attachment } => Some((path.clone(), attachment.device.syspath.clone())),
        _ => None,
    });
    added.collect()
}
