//! Decides which candidates may be attached: the policy's verdict on each, and the lease that
//! enforces `exclusive`.
//!
//! Does not know how an admitted device is attached (`transaction`).

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::holders::Holders;
use crate::host::config::Config;
use crate::host::host_use::HostUseReader;
use crate::host::log::event;
use crate::host::state::control::{Problem, first_of};
use crate::host::state::leases::{Hold, Leases};
use crate::model::device::inventory::Inventory;
use crate::model::device::same_data;
use crate::model::device::{Device, SysPath};
use crate::model::plan::admission::{Admissions, Decision};
use crate::model::plan::attachment::Attachments;
use crate::model::plan::{Candidate, Candidates, NotAttached, Planner, Reason};
use crate::model::policy::{ContainerTraits, HostUse, Policy, PolicyContext, blocks_that_decide};

/// How long a decision holds unless something is known to have changed: less than the ten seconds
/// between two ticks, which begin before the decision, so that each of them ends it.
const DECISION_HOLDS: Duration = Duration::from_millis(9500);

/// The policy, the leases, and what has been logged of devices that are not attached.
pub(super) struct Admission {
    policy: Policy,
    /// The path of the configuration, to read it again; `None` = the default one.
    config: Option<PathBuf>,
    leases: Leases,
    host_use: HostUseReader,
    /// When the last decision was made.
    decided: Instant,
    /// The devices for which the last decision needs leases.
    leased: BTreeSet<SysPath>,
    /// The devices that the last plan does not attach.
    not_attached: Vec<NotAttached>,
    /// What has been logged of them, so that each line is logged once.
    logged: BTreeSet<String>,
    /// Why it is unknown which devices the host uses; `None` if it is known.
    host_problem: Option<String>,
    /// Why the current configuration is not in force; `None` if it is.
    config_problem: Option<String>,
}

impl Admission {
    pub(super) fn new(policy: Policy, config: Option<PathBuf>, leases: Leases) -> Self {
        Self {
            policy,
            config,
            leases,
            host_use: HostUseReader::default(),
            decided: Instant::now(),
            leased: BTreeSet::new(),
            not_attached: Vec::new(),
            logged: BTreeSet::new(),
            host_problem: None,
            config_problem: None,
        }
    }

    pub(super) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Decides on each candidate: first the policy, then the lease for what it allows. Leases are
    /// taken here, and released by [`Admission::finish`] after the plan has been applied.
    pub(super) fn decide(&mut self, candidates: &Candidates<'_>, traits: &ContainerTraits) -> Admissions {
        self.decided = Instant::now();
        let host_use = self.host_use(candidates);
        let context = PolicyContext {
            traits,
            inventory: candidates.inventory(),
            host_use: &host_use,
        };
        let mut admissions = Admissions::by_policy(candidates, &self.policy, &context);
        self.leased.clear();
        for (candidate, decision) in admissions.admitted_mut(candidates) {
            if let Err(reason) = self.lease(candidate, candidates.inventory()) {
                *decision = Decision::Waiting(reason);
            }
        }
        admissions
    }

    /// Whether the same candidates may be decided on differently now, although no event came: the
    /// host may use other disks, another container may have released a lease, or the last decision
    /// was long ago.
    pub(super) fn may_decide_differently(&mut self) -> bool {
        self.host_use.may_differ() || self.has_refused() || self.decided.elapsed() >= DECISION_HOLDS
    }

    /// Whether the last plan does not attach some of the devices.
    pub(super) fn has_refused(&self) -> bool {
        !self.not_attached.is_empty()
    }

    /// Whether the use of disks by the host can change the decision without an event.
    pub(super) fn depends_on_host_use(&self) -> bool {
        self.host_use.was_read()
    }

    /// Which devices the host uses. Read only if that decides on an untrusted request now: a device
    /// that has just been plugged in (its number is that of an event) and that udevd must process
    /// is not attached before the next plan, which decides again.
    fn host_use(&mut self, candidates: &Candidates<'_>) -> HostUse {
        let is_new = |candidate: &Candidate<'_>| candidate.device.seqnum > 0;
        let is_decided = |candidate: &&Candidate<'_>| {
            let is_decided_later = is_new(candidate) && candidate.awaited().is_some();
            !candidate.entry.is_trusted() && !is_decided_later
        };
        let mut blocks: Vec<&Device> = candidates
            .iter()
            .filter(is_decided)
            .flat_map(|candidate| blocks_that_decide(candidate.device, candidates.inventory()))
            .collect();
        if blocks.is_empty() {
            return HostUse::default();
        }
        blocks.sort_by(|one, other| one.syspath.cmp(&other.syspath));
        blocks.dedup_by(|one, other| one.syspath == other.syspath);
        let (host_use, problem) = match self.host_use.read(&blocks) {
            Ok(host_use) => (host_use, None),
            Err(error) => (HostUse::unknown(), Some(error.to_string())),
        };
        if let Some(problem) = problem.as_ref().filter(|_| problem != self.host_problem) {
            tracing::error!("{problem}");
        }
        self.host_problem = problem;
        host_use
    }

    /// Takes the lease of a candidate's device.
    ///
    /// # Errors
    /// The reason why the container does not get the lease.
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
                Err("the request is `exclusive`, but another container has the device".into())
            }
            _ => Err("another container has it exclusively".into()),
        }
    }

    /// Whether another container may have the device, or a part of it, too.
    pub(super) fn is_shared(&self, device: &SysPath) -> bool {
        self.leases.is_shared(device)
    }

    /// Call this after a plan was applied: releases the leases of devices that are neither admitted
    /// nor attached any more, and logs once for each device why it is not attached.
    pub(super) fn finish(
        &mut self,
        not_attached: Vec<NotAttached>,
        planner: &Planner,
        holders: &Holders<'_>,
    ) {
        self.release_leases(holders.inside().attachments(), holders.inventory());
        self.not_attached = not_attached;
        self.log(planner, holders);
    }

    fn release_leases(&mut self, attachments: &Attachments, inventory: &Inventory) {
        let attached: Vec<&SysPath> = attachments
            .iter()
            .map(|(_, attachment)| &inventory.real(&attachment.device).syspath)
            .collect();
        let leased = &self.leased;
        self.leases
            .keep(|device| leased.contains(device) || attached.contains(&device));
    }

    fn log(&mut self, planner: &Planner, holders: &Holders<'_>) {
        let mut logged = BTreeSet::new();
        let mut groups: Vec<Group<'_>> = Vec::new();
        let mut waiting = Vec::new();
        for not_attached in &self.not_attached {
            let Some(why) = planner.describe(not_attached) else {
                continue;
            };
            let key = format!("{} {why}", not_attached.path.display());
            let is_known = self.logged.contains(&key);
            if !logged.insert(key) || is_known {
                continue;
            }
            match not_attached.reason {
                Reason::Denied(_) | Reason::Reserved(_) => {
                    let path = not_attached.path.as_path();
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
                // A conflict between requests of one container is shown only in its status.
                Reason::Conflict(_) => {}
            }
        }
        let inside = holders.inside();
        for group in groups {
            let text = format!("{} not attached, {}", first_of(&group.paths), group.why);
            inside.log_event(event::DENIED, group.device.as_str(), group.paths[0], &text);
            // The line names the first path, which was counted with it; count the others.
            for _ in &group.paths[1..] {
                inside.count(|counters| counters.count(event::DENIED));
            }
        }
        for not_attached in waiting {
            let (device, path) = (&not_attached.device, &not_attached.path);
            let named = not_attached.with_holders(&holders.of(device));
            let text = format!("{} not attached, {named}", path.display());
            inside.log_event(event::WAITING, device.as_str(), path, &text);
        }
        self.logged = logged;
    }

    pub(super) fn not_attached(&self) -> &[NotAttached] {
        &self.not_attached
    }

    /// Forgets the leases, because their files were removed.
    pub(super) fn renew_leases(&mut self, state_dir: &Path) {
        self.leases = Leases::new(state_dir);
    }

    /// The files whose locks are the leases, for the next watcher.
    pub(super) fn lease_files(&self) -> impl Iterator<Item = &File> {
        self.leases.files()
    }

    /// Leaves the leases to the next watcher, which has the files.
    pub(super) fn forget_leases(&mut self) {
        self.leases.forget();
    }

    /// Reads the configuration again, and puts its policy in force.
    ///
    /// # Errors
    /// The reason why the configuration cannot be used; the previous policy stays in force. The
    /// status shows the reason, too.
    pub(super) fn reload(&mut self, state_dir: &Path) -> Result<(), String> {
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

    /// Problems with devices that are not attached, with the host and with the configuration.
    pub(super) fn problems(&self, planner: &Planner, holders: &Holders<'_>) -> Vec<Problem> {
        let of_device = |not_attached: &NotAttached| {
            let waiting = not_attached.is_waiting();
            let named = waiting.then(|| not_attached.with_holders(&holders.of(&not_attached.device)));
            Some(Problem {
                path: not_attached.path.clone(),
                device: Some(not_attached.device.clone()),
                reason: planner.describe(named.as_ref().unwrap_or(not_attached))?,
                waiting,
            })
        };
        let general = |path: &Path, reason: &Option<String>| {
            let path = path.to_owned();
            reason.clone().map(|reason| Problem {
                path,
                device: None,
                reason,
                waiting: false,
            })
        };
        let of_devices = self.not_attached.iter().filter_map(of_device);
        of_devices
            .chain(general(Path::new("/dev"), &self.host_problem))
            .chain(general(&self.policy.written_in, &self.config_problem))
            .collect()
    }
}

/// Nodes that are not attached for the same reason.
struct Group<'p> {
    /// The device of the first node.
    device: &'p SysPath,
    paths: Vec<&'p Path>,
    why: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::device::{DevKind, DevNode, DevNum, UdevState};
    use crate::model::oci::ProcessUser;
    use crate::model::policy::Fallback;
    use crate::model::request::entry::{Origin, RequestEntry};

    #[test]
    fn which_disks_the_host_uses_is_read_when_a_disk_can_be_attached() {
        let scratch = tempfile::tempdir().unwrap();
        let mut device = Device::new(SysPath::new("/sys/devices/virtual/block/lab0"));
        device.subsystem = Some("block".to_owned());
        device.devtype = Some("disk".to_owned());
        device.node = Some(DevNode {
            path: "/dev/lab0".into(),
            num: DevNum {
                kind: DevKind::Block,
                major: 240,
                minor: 0,
            },
        });
        for (origin, udev_state, seqnum, is_read) in [
            (Origin::Annotation, UdevState::Pending, 7, false),
            (Origin::Annotation, UdevState::Pending, 0, true),
            (Origin::Annotation, UdevState::Processed, 7, true),
            (Origin::Annotation, UdevState::Overdue, 7, true),
            (Origin::Root, UdevState::Processed, 7, false),
        ] {
            (device.udev_state, device.seqnum) = (udev_state, seqnum);
            let inventory = Inventory::new([device.clone()]);
            let entry = RequestEntry::new(origin, "devnode:/dev/lab0".parse().unwrap());
            let mut planner = Planner::new(vec![entry], Vec::new(), ProcessUser::default());
            planner.find_roots(&inventory);
            let leases = Leases::new(scratch.path());
            let policy = Policy {
                fallback: Fallback::Anything,
                ..Policy::default()
            };
            let mut admission = Admission::new(policy, None, leases);
            let candidates = planner.candidates(&inventory);
            assert_eq!(candidates.iter().count(), 1);
            let admissions = admission.decide(&candidates, &ContainerTraits::default());
            assert_eq!(
                admission.depends_on_host_use(),
                is_read,
                "{origin:?} {udev_state:?}"
            );
            let is_pending = |(_, decision): (_, &Decision)| matches!(decision, Decision::Pending(_));
            let is_waiting = udev_state == UdevState::Pending;
            assert_eq!(admissions.of(&candidates).any(is_pending), is_waiting);
        }
    }
}
