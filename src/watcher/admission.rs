//! Which candidates may be attached: the policy's verdict on each, and the lease that keeps exclusive devices apart.
//!
//! Must not know how an admitted device is attached (`transaction`).

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::Watcher;
use super::effects::Memory;
use crate::host::config::Config;
use crate::host::engine_names;
use crate::host::host_use;
use crate::host::log::event;
use crate::host::state::control::{Problem, first_of};
use crate::host::state::leases::{Hold, Leases};
use crate::host::state::registry::Registry;
use crate::model::device::inventory::Inventory;
use crate::model::device::same_data;
use crate::model::device::{DevKind, Device, Seen, SysPath};
use crate::model::oci::ContainerId;
use crate::model::oci::engine::short_id;
use crate::model::plan::admission::{Admissions, Decision};
use crate::model::plan::attachment::{Attachment, Attachments};
use crate::model::plan::{Candidate, Candidates, Current, NotAttached, Plan, Reason, plan};
use crate::model::policy::{Circumstances, HostUse, Policy, Situation, blocks_that_decide};
use crate::model::request::id::RequestId;
use crate::model::request::selector::Found;

/// The policy, the leases, and what has been logged of devices that are not attached.
pub(super) struct Admission {
    policy: Policy,
    /// The configuration that was named, for when it is read again.
    config: Option<PathBuf>,
    leases: Leases,
    /// The devices that the last decision needs leases of.
    leased: BTreeSet<SysPath>,
    /// What has been logged of devices that are not attached: each is logged once.
    logged: BTreeSet<String>,
    /// Why it is unknown which devices the host uses; `None`: it is known.
    host_problem: Option<String>,
    /// Why the present configuration is not in force; `None`: it is.
    config_problem: Option<String>,
}

impl Admission {
    pub fn new(policy: Policy, config: Option<PathBuf>, leases: Leases) -> Self {
        Self {
            policy,
            config,
            leases,
            leased: BTreeSet::new(),
            logged: BTreeSet::new(),
            host_problem: None,
            config_problem: None,
        }
    }

    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Decides for each candidate: the policy first, then the lease of what it allows. Leases are taken here, and released by
    /// [`Admission::release_leases`] when the plan was applied.
    pub fn decide(&mut self, candidates: &Candidates<'_>, circumstances: &Circumstances) -> Admissions {
        let host_use = self.host_use(candidates);
        let situation = Situation {
            circumstances,
            inventory: candidates.inventory(),
            host_use: &host_use,
        };
        let mut admissions = Admissions::by_policy(candidates, &self.policy, &situation);
        self.leased.clear();
        for (candidate, decision) in admissions.admitted_mut(candidates) {
            if let Err(reason) = self.lease(candidate, candidates.inventory()) {
                *decision = Decision::Waiting(reason);
            }
        }
        admissions
    }

    /// Which devices the host uses. Reads them only where they decide about an untrusted request.
    fn host_use(&mut self, candidates: &Candidates<'_>) -> HostUse {
        let mut blocks: Vec<&Device> = candidates
            .iter()
            .filter(|candidate| !candidate.entry.is_trusted())
            .flat_map(|candidate| blocks_that_decide(candidate.device, candidates.inventory()))
            .collect();
        if blocks.is_empty() {
            return HostUse::default();
        }
        blocks.sort_by(|one, other| one.syspath.cmp(&other.syspath));
        blocks.dedup_by(|one, other| one.syspath == other.syspath);
        let (host_use, problem) = match host_use::read(&blocks) {
            Ok(host_use) => (host_use, None),
            Err(error) => (HostUse::unknown(), Some(error.to_string())),
        };
        if let Some(problem) = problem.as_ref().filter(|_| problem != self.host_problem) {
            tracing::error!("{problem}");
        }
        self.host_problem = problem;
        host_use
    }

    /// # Errors
    /// Why the container has no lease of the device.
    fn lease(&mut self, candidate: &Candidate<'_>, inventory: &Inventory) -> Result<(), String> {
        let syspath = &inventory.real(candidate.device).syspath;
        let extents = same_data::extents(candidate.device, inventory);
        let hold = if candidate.entry.request.options.exclusive {
            Hold::Exclusive
        } else {
            Hold::Shared
        };
        let held = self
            .leases
            .take(syspath, &extents, hold)
            .map_err(|error| error.to_string())?;
        if held.is_some() {
            self.leased.insert(syspath.clone());
        }
        match held {
            Some(held) if held >= hold => Ok(()),
            _ if hold == Hold::Exclusive => {
                Err("it is requested exclusively, and another container has it".into())
            }
            _ => Err("another container has it exclusively".into()),
        }
    }

    /// Releases the leases of devices that are neither admitted nor attached any more.
    pub fn release_leases(&mut self, attachments: &Attachments, inventory: &Inventory) {
        let attached: Vec<&SysPath> = attachments
            .iter()
            .map(|(_, attachment)| &inventory.real(&attachment.device).syspath)
            .collect();
        let leased = &self.leased;
        self.leases
            .keep(|device| leased.contains(device) || attached.contains(&device));
    }

    /// Forgets the leases that are held: their files are gone.
    pub fn renew_leases(&mut self, state_dir: &Path) {
        self.leases = Leases::new(state_dir);
    }

    /// The files whose locks are the leases, for the next watcher.
    pub fn lease_files(&self) -> impl Iterator<Item = &File> {
        self.leases.files()
    }

    /// Leaves the leases to the next watcher, which has the files.
    pub fn forget_leases(&mut self) {
        self.leases.forget();
    }

    /// Reads the configuration again, and puts its policy in force.
    ///
    /// # Errors
    /// Why the configuration can't be used; the previous policy stays in force. It is also in the status.
    pub fn reload(&mut self, state_dir: &Path) -> Result<(), String> {
        let config = Config::load(self.config.as_deref(), Some(state_dir));
        match config.and_then(|config| config.policy()) {
            Ok(policy) => {
                self.policy = policy;
                self.config_problem = None;
                Ok(())
            }
            Err(error) => {
                let problem = format!("{error} (the previous policy stays in force)");
                self.config_problem = Some(problem.clone());
                Err(problem)
            }
        }
    }

    /// Problems that concern no single device.
    pub fn problems(&self) -> impl Iterator<Item = Problem> + '_ {
        let problem = |path: &Path, reason: &Option<String>| {
            let path = path.to_owned();
            reason.clone().map(|reason| Problem {
                path,
                device: None,
                reason,
                waiting: false,
            })
        };
        problem(Path::new("/dev"), &self.host_problem)
            .into_iter()
            .chain(problem(&self.policy.written_in, &self.config_problem))
    }
}

/// Nodes that are not attached for the same reason.
struct Group<'p> {
    /// The device of the first one.
    device: &'p SysPath,
    paths: Vec<&'p Path>,
    why: String,
}

impl Watcher {
    /// What to do now. Takes the leases of what it attaches.
    pub(super) fn plan(&mut self, postponed: &BTreeSet<PathBuf>) -> Plan {
        loop {
            let candidates = self.planner.candidates(&self.inventory);
            let admissions = self.admission.decide(&candidates, &self.record.circumstances);
            let current = Current {
                attachments: &self.attachments,
                granted: &self.granted,
                postponed,
            };
            let plan = plan(&candidates, &admissions, &current);
            let unselected: Vec<SysPath> = candidates.unselected(&plan.pending).cloned().collect();
            // A device that no request selects can decide, and may send no further event. Each round completes at least one,
            // so that this ends.
            if !self.complete_pending(&unselected) {
                return plan;
            }
            // Nothing was removed since the roots were found a moment ago.
            let _ = self.planner.find_roots(&self.inventory);
        }
    }

    /// Reads the udev facts of pending devices that no request selects. Returns whether udevd has processed one.
    fn complete_pending(&mut self, unselected: &[SysPath]) -> bool {
        let mut is_news = false;
        for syspath in unselected {
            if self.awaiting_udevd.contains_key(syspath) {
                continue;
            }
            let device = self.inventory.get_mut(syspath);
            if let Some(device) = device.filter(|device| device.seen == Seen::Kernel) {
                self.monitor.complete(device);
                is_news |= device.seen != Seen::Kernel;
            }
        }
        is_news
    }

    /// Logs once for each device why it is not attached.
    pub(super) fn log_not_attached(&mut self) {
        let mut logged = BTreeSet::new();
        let mut groups: Vec<Group<'_>> = Vec::new();
        let mut waiting = Vec::new();
        for not_attached in &self.last_plan.not_attached {
            let Some(why) = self.describe(not_attached) else {
                continue;
            };
            let key = format!("{} {why}", not_attached.path.display());
            let is_known = self.admission.logged.contains(&key);
            if !logged.insert(key) || is_known {
                continue;
            }
            let path = not_attached.path.as_path();
            match not_attached.reason {
                Reason::Denied(_) | Reason::Reserved(_) => {
                    match groups.iter_mut().find(|group| group.why == why) {
                        Some(group) => group.paths.push(path),
                        None => groups.push(Group {
                            device: &not_attached.device,
                            paths: vec![path],
                            why,
                        }),
                    }
                }
                Reason::Waiting(_) => waiting.push(not_attached),
                // A conflict between requests of one container is only in its status.
                Reason::Conflict(_) => {}
            }
        }
        for group in groups {
            let text = format!("{} not attached, {}", first_of(&group.paths), group.why);
            self.log_event(event::REFUSED, group.device.as_str(), group.paths[0], &text);
            // The line is about all of them, and only the first was counted with it.
            for _ in &group.paths[1..] {
                self.inside.count(|tally| tally.count(event::REFUSED));
            }
        }
        let others = OnceCell::new();
        for not_attached in waiting {
            let (device, path) = (&not_attached.device, &not_attached.path);
            let named = not_attached.with_holders(&self.holders(device, &others));
            let text = format!("{} not attached, {named}", path.display());
            self.log_event(event::WAITING, device.as_str(), path, &text);
        }
        self.admission.logged = logged;
    }

    /// Why a device is not attached, unless its request was removed.
    fn describe(&self, not_attached: &NotAttached) -> Option<String> {
        let request = self.planner.request(not_attached.request)?;
        Some(not_attached.describe(request))
    }

    /// The devices that are not attached, as problems.
    pub(super) fn not_attached_problems(&self) -> Vec<Problem> {
        let others = OnceCell::new();
        let problem = |not_attached: &NotAttached| {
            let waiting = not_attached.is_waiting();
            let named = waiting.then(|| {
                let holders = self.holders(&not_attached.device, &others);
                not_attached.with_holders(&holders)
            });
            Some(Problem {
                path: not_attached.path.clone(),
                device: Some(not_attached.device.clone()),
                reason: self.describe(named.as_ref().unwrap_or(not_attached))?,
                waiting,
            })
        };
        let all = self.last_plan.not_attached.iter();
        all.filter_map(problem).collect()
    }

    /// What other containers have now, as their watchers have noted it. Each note is a file: to be asked once, however many
    /// devices it is about.
    fn others(&self) -> Vec<(ContainerId, Memory)> {
        let registry = Registry::new(self.inside.lock().state_dir());
        let ids = registry.ids().unwrap_or_default().into_iter();
        ids.filter(|id| id.as_str() != self.record.container.id && registry.is_watched(id))
            .filter_map(|id| {
                let memory: Memory = registry.attached(&id).ok().flatten()?;
                Some((id, memory))
            })
            .collect()
    }

    /// Which other containers have a device or one that exposes data of it; empty where none has. `others` is what they
    /// have, if that has been asked for a moment ago.
    fn holders(&self, device: &SysPath, others: &OnceCell<Vec<(ContainerId, Memory)>>) -> String {
        let registry = Registry::new(self.inside.lock().state_dir());
        let known = self.inventory.get(device);
        let num = known.and_then(|device| device.node.as_ref()).map(|node| node.num);
        let extents = known.map(|device| same_data::extents(device, &self.inventory));
        let is_it = |attachment: &Attachment| {
            attachment.device.syspath == *device || Some(attachment.node.num) == num
        };
        let has_some_of_it = |attachment: &Attachment| {
            let its = self.inventory.get(&attachment.device.syspath);
            let its = its.map(|device| same_data::extents(device, &self.inventory));
            extents
                .as_ref()
                .zip(its)
                .is_some_and(|(one, other)| same_data::overlap(one, &other))
        };
        let called = |id: &_| match registry.record(id) {
            Ok(Some(record)) => engine_names::called(&record.container, &record.circumstances.annotations),
            _ => short_id(id.as_str()).to_owned(),
        };
        let what_it_has = |(id, memory): &(ContainerId, Memory)| {
            let all = || memory.attachments.iter().map(|(_, attachment)| attachment);
            if all().any(is_it) {
                return Some(format!("container {}", called(id)));
            }
            let related = all().find(|attachment| has_some_of_it(attachment))?;
            Some(format!(
                "container {}, which has {}",
                called(id),
                name_of(&related.device)
            ))
        };
        let others = others.get_or_init(|| self.others());
        let holders: Vec<String> = others.iter().filter_map(what_it_has).collect();
        if holders.is_empty() {
            return String::new();
        }
        format!(" ({})", holders.join("; "))
    }

    /// Warns, once for each attachment, of disks that another container has, too: two that write to one destroy it. For
    /// other devices, to be shared is nothing unusual.
    pub(super) fn warn_of_sharing(&self, new: &[(&PathBuf, &Attachment)]) {
        let others = OnceCell::new();
        for (path, attachment) in new {
            if attachment.node.num.kind != DevKind::Block {
                continue;
            }
            let holders = self.holders(&attachment.device.syspath, &others);
            if !holders.is_empty() {
                let text = format!(
                    "{} is in another container as well{holders}; add `;exclusive` to the request to have it alone",
                    path.display()
                );
                self.log_event(event::SHARED, attachment.device.syspath.as_str(), path, &text);
            }
        }
    }

    /// Why the container may not start: the policy denies everything that one of these requests selects now.
    pub(super) fn refused_at_start(&self, requests: &[RequestId]) -> Option<String> {
        let candidates = self.planner.candidates(&self.inventory);
        let denial_of = |request: RequestId, device: &SysPath| {
            self.last_plan
                .not_attached
                .iter()
                .find_map(|not_attached| match &not_attached.reason {
                    Reason::Denied(denial)
                        if not_attached.request == request && not_attached.device == *device =>
                    {
                        Some(denial)
                    }
                    _ => None,
                })
        };
        self.planner.requests().find_map(|(id, entry)| {
            if !requests.contains(&id) {
                return None;
            }
            let has_node = |root: &&SysPath| {
                self.inventory.get(root).is_some_and(|device| {
                    device.node.is_some() && entry.request.gives(root, device, &self.inventory) != Found::No
                })
            };
            let mut selected = candidates
                .iter()
                .filter(|candidate| std::ptr::eq(candidate.entry, entry));
            if selected.any(|candidate| denial_of(id, &candidate.device.syspath).is_none()) {
                return None;
            }
            let denials: Option<Vec<_>> = entry
                .roots
                .iter()
                .filter(has_node)
                .map(|root| denial_of(id, root))
                .collect();
            let denial = denials?.into_iter().find(|denial| denial.refuses_start())?;
            Some(format!(
                "device request {:?}: {denial}",
                entry.request.to_string()
            ))
        })
    }

    /// Why a container that starts lacks a device that it requires: another container has it.
    pub(super) fn required_and_waiting(&self, requests: &[RequestId]) -> Option<String> {
        let others = OnceCell::new();
        let waiting = self.last_plan.not_attached.iter();
        let mut required = waiting.filter_map(|not_attached| {
            let Reason::Waiting(reason) = &not_attached.reason else {
                return None;
            };
            let request = self.planner.request(not_attached.request)?;
            let is_required = request.options.required && requests.contains(&not_attached.request);
            is_required.then_some((request, &not_attached.device, reason))
        });
        let (request, device, reason) = required.next()?;
        let holders = self.holders(device, &others);
        Some(format!(
            "device request {:?}: {reason}{holders}, and it is required (without `;required`, the container starts and gets the device when it is released)",
            request.to_string()
        ))
    }

    /// Reads the configuration again, and applies its policy.
    ///
    /// # Errors
    /// Why the configuration can't be used, for the operator. It is also in the log and in the status; the previous policy
    /// stays in force.
    pub(super) fn reload(&mut self) -> Result<(), String> {
        let id = self.record.container.id.clone();
        if let Err(problem) = self.admission.reload(self.inside.lock().state_dir()) {
            tracing::error!(container = %id, "{problem}");
            return Err(problem);
        }
        tracing::info!(container = %id, "the configuration was read again: its policy is in force");
        let needed = super::wanted(&self.planner, self.admission.policy());
        self.monitor.want(needed);
        if let Err(error) = self.enumerate() {
            tracing::error!(container = %id, "{error}");
        }
        self.reconcile();
        self.note_remotes();
        Ok(())
    }
}

fn name_of(device: &Device) -> String {
    let node = device.node.as_ref();
    node.map_or(device.syspath.to_string(), |node| node.path.display().to_string())
}
