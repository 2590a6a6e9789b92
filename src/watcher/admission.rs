//! Which devices may be inside now: the policy's verdict on each, and the lease that keeps exclusive devices apart.
//!
//! Must not know what is done with a device that is admitted (`transaction`).

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeSet;
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
use crate::model::plan::attachment::{Attachment, Attachments};
use crate::model::plan::{Admission, Plan, Reconciler};
use crate::model::policy::{HostUse, Policy, Situation, Verdict, blocks_that_decide};
use crate::model::request::entry::RequestEntry;
use crate::model::request::selector::Found;

/// What a container's devices are measured by.
pub(super) struct Gate {
    policy: Policy,
    /// The configuration that was named, for when it is read again.
    config: Option<PathBuf>,
    leases: RefCell<Leases>,
    /// What has been logged of refused and waiting devices: each is told once.
    told: BTreeSet<String>,
    /// Why it is not known what the host uses; empty = it is known.
    host_problem: Option<String>,
    /// Why the configuration that is there now is not the one in force; empty = it is.
    config_problem: Option<String>,
}

/// One look: what was true of the host when a plan was made.
struct Look<'a> {
    gate: &'a Gate,
    situation: Situation<'a>,
    /// The devices that may be inside: their leases are kept.
    admitted: RefCell<BTreeSet<SysPath>>,
}

impl Gate {
    pub fn new(policy: Policy, config: Option<PathBuf>, leases: Leases) -> Self {
        Self {
            policy,
            config,
            leases: RefCell::new(leases),
            told: BTreeSet::new(),
            host_problem: None,
            config_problem: None,
        }
    }

    /// Forgets the leases that are held: their files are gone.
    pub fn renew_leases(&mut self, state_dir: &Path) {
        self.leases = RefCell::new(Leases::new(state_dir));
    }

    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The leases, for whoever comes next.
    pub fn leases(&mut self) -> &mut Leases {
        self.leases.get_mut()
    }

    /// What the host uses, read only where it decides about a device that a stranger asks for.
    fn host_use(&mut self, reconciler: &Reconciler, inventory: &Inventory) -> HostUse {
        let mut blocks: Vec<&Device> = reconciler
            .selected(inventory)
            .filter(|(entry, _, _)| !entry.is_trusted())
            .flat_map(|(_, _, device)| blocks_that_decide(device, inventory))
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

    /// Lets go of the leases of devices that are neither admitted nor inside any more.
    fn release(&self, admitted: &BTreeSet<SysPath>, inside: &Attachments, inventory: &Inventory) {
        let inside: Vec<&SysPath> = inside
            .iter()
            .map(|(_, attachment)| &inventory.real(&attachment.device).syspath)
            .collect();
        self.leases
            .borrow_mut()
            .keep(|device| admitted.contains(device) || inside.contains(&device));
    }

    /// What is wrong beside single devices.
    pub fn problems(&self) -> impl Iterator<Item = Problem> + '_ {
        let of = |path: &Path, reason: &Option<String>| {
            let path = path.to_owned();
            reason.clone().map(|reason| Problem {
                path,
                device: None,
                reason,
                waiting: false,
            })
        };
        of(Path::new("/dev"), &self.host_problem)
            .into_iter()
            .chain(of(&self.policy.written_in, &self.config_problem))
    }
}

/// Nodes that are kept out for the same reason.
struct Kept<'p> {
    /// The device of the first one.
    syspath: &'p SysPath,
    paths: Vec<&'p Path>,
    /// The request, and why.
    why: String,
}

impl Look<'_> {
    fn admit(&self, entry: &RequestEntry, device: &Device) -> Admission {
        match self.gate.policy.judge(entry, device, &self.situation) {
            Verdict::Denied(denial) => Admission::Refused(denial),
            Verdict::Undecided(whose) => Admission::Pending(whose),
            // It is not its turn yet.
            Verdict::Allowed(_) if entry.request.awaits_udev(device) => Admission::Admitted,
            Verdict::Allowed(_) => self.lease(entry, device),
        }
    }

    fn lease(&self, entry: &RequestEntry, device: &Device) -> Admission {
        let inventory = self.situation.inventory;
        let syspath = &inventory.real(device).syspath;
        let extents = same_data::extents(device, inventory);
        let hold = if entry.request.options.exclusive {
            Hold::Exclusive
        } else {
            Hold::Shared
        };
        match self.gate.leases.borrow_mut().take(syspath, &extents, hold) {
            Ok(held) => {
                if held.is_some() {
                    self.admitted.borrow_mut().insert(syspath.clone());
                }
                match held {
                    Some(held) if held >= hold => Admission::Admitted,
                    _ if hold == Hold::Exclusive => {
                        Admission::Waiting("it is asked for exclusively, and another container has it".into())
                    }
                    _ => Admission::Waiting("another container has it exclusively".into()),
                }
            }
            Err(error) => Admission::Waiting(error.to_string()),
        }
    }
}

impl Watcher {
    /// What is to be done now. Leases are taken for what is to come in.
    pub(super) fn plan(&mut self, postponed: &BTreeSet<PathBuf>) -> Plan {
        let (mut plan, mut admitted) = self.look(postponed);
        // What decides may be a device that nobody asked for, of which no event is to be expected any more. Each round
        // completes one at least, so that there is an end.
        while self.complete_pending(&plan) {
            // Nothing was removed since the roots were found a moment ago.
            let _ = self.reconciler.find_roots(&self.inventory);
            (plan, admitted) = self.look(postponed);
        }
        self.admitted = admitted;
        plan
    }

    fn look(&mut self, postponed: &BTreeSet<PathBuf>) -> (Plan, BTreeSet<SysPath>) {
        let host_use = self.gate.host_use(&self.reconciler, &self.inventory);
        let look = Look {
            gate: &self.gate,
            situation: Situation {
                circumstances: &self.record.circumstances,
                inventory: &self.inventory,
                host_use: &host_use,
            },
            admitted: RefCell::default(),
        };
        let plan = self.reconciler.plan(
            &self.inventory,
            &self.attachments,
            &self.granted,
            postponed,
            &|entry, device| look.admit(entry, device),
        );
        (plan, look.admitted.into_inner())
    }

    /// Reads udev's word of devices that are waited for and that no request selects; whether one was there.
    fn complete_pending(&mut self, plan: &Plan) -> bool {
        let selected: Vec<&SysPath> = if plan.pending.is_empty() {
            return false;
        } else {
            let selected = self.reconciler.selected(&self.inventory);
            selected.map(|(_, _, device)| &device.syspath).collect()
        };
        let others: Vec<SysPath> = plan
            .pending
            .iter()
            .filter(|syspath| !selected.contains(syspath) && !self.awaiting_udevd.contains_key(*syspath))
            .cloned()
            .collect();
        let mut news = false;
        for syspath in others {
            if let Some(device) = self
                .inventory
                .get_mut(&syspath)
                .filter(|device| device.seen == Seen::Kernel)
            {
                self.monitor.complete(device);
                news |= device.seen != Seen::Kernel;
            }
        }
        news
    }

    /// To be called when a plan was carried out: lets go of what is not inside any more.
    pub(super) fn release_leases(&mut self) {
        self.gate
            .release(&self.admitted, &self.attachments, &self.inventory);
    }

    /// Logs what is refused and what is waited for, each once.
    pub(super) fn log_not_attached(&mut self) {
        let plan = &self.last_plan;
        if plan.refused.is_empty() && plan.waiting.is_empty() && plan.withheld.is_empty() {
            self.gate.told.clear();
            return;
        }
        let refused = plan.refused.iter().map(|refusal| {
            let why = format!("device request {:?}: {}", refusal.request, refusal.denial);
            (&refusal.syspath, refusal.path.as_path(), why)
        });
        let withheld = plan.withheld.iter().map(|withheld| {
            let why = format!("device request {:?}: {}", withheld.request, withheld.reason);
            (&withheld.syspath, withheld.path.as_path(), why)
        });
        let mut told = BTreeSet::new();
        let mut groups: Vec<Kept<'_>> = Vec::new();
        for (syspath, path, why) in refused.chain(withheld) {
            let key = format!("{} {why}", path.display());
            if !self.gate.told.contains(&key) && !told.contains(&key) {
                match groups.iter_mut().find(|group| group.why == why) {
                    Some(group) => group.paths.push(path),
                    None => groups.push(Kept {
                        syspath,
                        paths: vec![path],
                        why,
                    }),
                }
            }
            told.insert(key);
        }
        for group in groups {
            let text = format!("{} not attached, {}", first_of(&group.paths), group.why);
            self.log_event(event::REFUSED, group.syspath.as_str(), group.paths[0], &text);
            // The line is about all of them, and the first was counted with it.
            for _ in &group.paths[1..] {
                self.inside.count(|tally| tally.count(event::REFUSED));
            }
        }
        let others = OnceCell::new();
        for waiting in &plan.waiting {
            let text = format!("{} is waited for: {}", waiting.path.display(), waiting.reason);
            if !self.gate.told.contains(&text) && !told.contains(&text) {
                let whole = format!("{text}{}", self.holders(&waiting.syspath, &others));
                self.log_event(event::WAITING, waiting.syspath.as_str(), &waiting.path, &whole);
            }
            told.insert(text);
        }
        self.gate.told = told;
    }

    /// The problems that refused and waiting devices are.
    pub(super) fn admission_problems(&self) -> Vec<Problem> {
        let others = OnceCell::new();
        let refused = self.last_plan.refused.iter().map(|refusal| Problem {
            path: refusal.path.clone(),
            device: Some(refusal.syspath.clone()),
            reason: format!("device request {:?}: {}", refusal.request, refusal.denial),
            waiting: false,
        });
        let waiting = self.last_plan.waiting.iter().map(|waiting| Problem {
            path: waiting.path.clone(),
            device: Some(waiting.syspath.clone()),
            reason: format!(
                "{}{}: waiting until the other container releases it",
                waiting.reason,
                self.holders(&waiting.syspath, &others)
            ),
            waiting: true,
        });
        let withheld = self.last_plan.withheld.iter().map(|withheld| Problem {
            path: withheld.path.clone(),
            device: Some(withheld.syspath.clone()),
            reason: format!("device request {:?}: {}", withheld.request, withheld.reason),
            waiting: false,
        });
        refused
            .chain(withheld)
            .chain(waiting)
            .chain(self.gate.problems())
            .collect()
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

    /// Why a container that starts is to be refused: of a request of these, devices are here, and it may have none of
    /// them, nor anything below them.
    pub(super) fn refused_at_start(&self, requests: &[String]) -> Option<String> {
        self.reconciler.entries().iter().find_map(|entry| {
            let request = entry.request.to_string();
            if !requests.contains(&request) {
                return None;
            }
            let refusal_of = |root: &SysPath| {
                self.last_plan
                    .refused
                    .iter()
                    .find(|refusal| refusal.request == request && refusal.syspath == *root)
            };
            let has_node = |root: &&SysPath| {
                self.inventory.get(root).is_some_and(|device| {
                    device.node.is_some() && entry.request.gives(root, device, &self.inventory) != Found::No
                })
            };
            let is_refused = |device: &Device| {
                let mut refused = self.last_plan.refused.iter();
                refused.any(|refusal| refusal.request == request && refusal.syspath == device.syspath)
            };
            let mut selected = self.reconciler.selected(&self.inventory);
            if selected.any(|(its, _, device)| std::ptr::eq(its, entry) && !is_refused(device)) {
                return None;
            }
            let refusals: Option<Vec<_>> = entry.roots.iter().filter(has_node).map(refusal_of).collect();
            let refusal = refusals?
                .into_iter()
                .find(|refusal| refusal.denial.refuses_start())?;
            Some(format!("device request {request:?}: {}", refusal.denial))
        })
    }

    /// Why a container that starts lacks a device that it requires: another one has it.
    pub(super) fn required_and_waiting(&self, requests: &[String]) -> Option<String> {
        let others = OnceCell::new();
        self.last_plan.waiting.iter().find_map(|waiting| {
            let is_it = |entry: &&RequestEntry| {
                entry.request.options.required && entry.request.to_string() == waiting.request
            };
            let entry = self.reconciler.entries().iter().find(is_it)?;
            requests.contains(&waiting.request).then(|| {
                let holders = self.holders(&waiting.syspath, &others);
                format!("device request {:?}: {}{holders}, and it is required (leave out `;required` to have it when that lets go)", entry.request.to_string(), waiting.reason)
            })
        })
    }

    /// Reads the configuration again, and applies its policy.
    ///
    /// # Errors
    /// Why the configuration can't be used, for the operator. It is also in the log and in the status; the policy that was
    /// in force before stays.
    pub(super) fn reload(&mut self) -> Result<(), String> {
        let id = self.record.container.id.clone();
        let root = self.inside.lock().state_dir();
        let policy = Config::load(self.gate.config.as_deref(), Some(root)).and_then(|config| config.policy());
        match policy {
            Ok(policy) => {
                tracing::info!(container = %id, "the configuration was read again: its policy is in force");
                self.gate.policy = policy;
                self.gate.config_problem = None;
                self.monitor
                    .want(super::wanted(&self.reconciler, &self.gate.policy));
                if let Err(error) = self.enumerate() {
                    tracing::error!(container = %id, "{error}");
                }
                self.reconcile();
                self.note_remotes();
                Ok(())
            }
            Err(error) => {
                let problem = format!("{error} (the policy that was in force before stays)");
                tracing::error!(container = %id, "{problem}");
                self.gate.config_problem = Some(problem.clone());
                Err(problem)
            }
        }
    }
}

fn name_of(device: &Device) -> String {
    let node = device.node.as_ref();
    node.map_or(device.syspath.to_string(), |node| node.path.display().to_string())
}
