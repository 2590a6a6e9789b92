//! cgroup v1: devices.list of the container's cgroup, and devices.allow and devices.deny, which
//! cgroups-rs writes.
//!
//! `model::cgroup::device_rules` decides which rules to write; this module writes them and reads
//! them back. Child cgroups that the container creates do not inherit what is allowed later: the
//! kernel propagates only denials.

use std::error::Error;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use cgroups_rs::devices::{DevicePermissions, DeviceType, DevicesController};

use super::cgroup::Cgroup;
use super::error::{FilterError, is_gone};
use super::memory::FilterMemory;
use crate::host::kernel_text;
use crate::model::cgroup::device_rules::DeviceRule;
use crate::model::cgroup::grants::{Change, GrantSet, common};
use crate::model::cgroup::v1_transition::{Transition, Verdict, v1_held, v1_transition};
use crate::model::device::{Access, DevKind};

/// The rules of one cgroup.
#[derive(Debug)]
pub(super) struct Devices {
    cgroup: Cgroup,
    path: PathBuf,
    controller: DevicesController,
    /// `devices.list`, held open: it stays the one of this cgroup.
    list: File,
    baseline: Vec<DeviceRule>,
    held: GrantSet,
    /// The text of `devices.list` when it was last in order; `None` if it never was since the last
    /// change.
    in_order: Option<String>,
}

impl Devices {
    /// Opens the cgroup. What it allows now is the baseline, unless the memory has one.
    pub(super) fn open(cgroup: Cgroup, memory: FilterMemory) -> Result<Self, FilterError> {
        let path = cgroup.path.clone();
        let list = File::open(path.join("devices.list")).map_err(|source| list_error(&path, source))?;
        // The path may lead to a cgroup that was created later.
        if !cgroup.exists() {
            return Err(FilterError::Gone { cgroup: path });
        }
        let mut devices = Self {
            controller: DevicesController::new(path.clone()),
            path,
            cgroup,
            list,
            baseline: Vec::new(),
            held: memory.held,
            in_order: None,
        };
        let current = rules_in(&devices.list_text()?);
        devices.baseline = memory.baseline.unwrap_or(current);
        Ok(devices)
    }

    /// Whether the rules are certainly the same as when [`Self::ensure`] last found nothing to
    /// change. Costs one system call.
    pub(super) fn is_unchanged(&self) -> bool {
        let in_order = self.in_order.as_deref();
        in_order.is_some_and(|text| kernel_text::is_still(&self.list, text))
    }

    /// What the next watcher must know.
    pub(super) fn memory(&self) -> FilterMemory {
        FilterMemory {
            held: self.held.clone(),
            baseline: Some(self.baseline.clone()),
            ..FilterMemory::default()
        }
    }

    /// Whether anything is denied here: a cgroup that allows everything by default has the single
    /// rule `a *:* rwm`.
    pub(super) fn restricts(&self) -> Result<bool, FilterError> {
        Ok(!rules_in(&self.list_text()?)
            .iter()
            .any(|rule| rule.kind.is_none() && rule.access == Access::ALL))
    }

    /// Writes the rules that are missing, denies those that are too many, and reads back.
    pub(super) fn ensure(&mut self, wanted: &GrantSet) -> Result<Change, FilterError> {
        let text = self.list_text()?;
        let steps = v1_transition(&self.baseline, &rules_in(&text), &self.held, wanted);
        self.in_order = steps.is_empty().then_some(text);
        let mut outcome = Ok(());
        let mut refused = Vec::new();
        for step in &steps {
            match self.write(*step) {
                Ok(()) => self.held = v1_held(&self.held, &[*step]),
                // Continue with the other steps: one rejected grant must not prevent another from
                // being made or revoked.
                Err(error @ FilterError::Rule { .. }) if step.0 == Verdict::Allow => {
                    refused.push((step.1, error.to_string()));
                }
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        outcome?;
        if !steps.is_empty() {
            let now = rules_in(&self.list_text()?);
            for (verdict, num, access) in v1_transition(&self.baseline, &now, &self.held, wanted) {
                let (cgroup, rule) = (self.path.clone(), DeviceRule::exactly(num, access));
                let error = FilterError::Ineffective {
                    cgroup,
                    verdict,
                    rule,
                };
                match verdict {
                    Verdict::Deny => return Err(error),
                    Verdict::Allow if refused.iter().any(|(known, _)| *known == num) => {}
                    Verdict::Allow => refused.push((num, error.to_string())),
                }
            }
        }
        // What is held and not wanted has been denied by now, or belongs to the engine.
        for (num, access) in &mut self.held {
            let surplus = access.without(wanted.get(num).copied().unwrap_or(Access::NONE));
            *access = access.without(surplus);
        }
        self.held.retain(|_, access| !access.is_none());
        if !refused.is_empty() {
            return Err(FilterError::Refused { refused });
        }
        Ok(if steps.is_empty() {
            Change::None
        } else {
            Change::Made
        })
    }

    /// Revokes grants that are not wanted, and grants nothing.
    pub(super) fn revoke_all_except(&mut self, wanted: &GrantSet) -> Result<Change, FilterError> {
        let kept = common(&self.held, wanted);
        self.ensure(&kept)
    }

    fn list_text(&self) -> Result<String, FilterError> {
        kernel_text::read(&self.list).map_err(|source| list_error(&self.path, source))
    }

    fn write(&self, (verdict, num, access): Transition) -> Result<(), FilterError> {
        // The file is opened by path, which may lead to a cgroup that was created later.
        if !self.cgroup.exists() {
            return Err(FilterError::Gone {
                cgroup: self.path.clone(),
            });
        }
        let kind = match num.kind {
            DevKind::Block => DeviceType::Block,
            DevKind::Char => DeviceType::Char,
        };
        let (major, minor, access_list) = (i64::from(num.major), i64::from(num.minor), permissions(access));
        let written = match verdict {
            Verdict::Allow => self.controller.allow_device(kind, major, minor, &access_list),
            Verdict::Deny => self.controller.deny_device(kind, major, minor, &access_list),
        };
        written.map_err(|error| {
            let cgroup = self.path.clone();
            let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
            // cgroups-rs boxes the kernel's error; the error number selects the hint.
            let source = match cause.and_then(io::Error::raw_os_error) {
                Some(errno) => io::Error::from_raw_os_error(errno),
                None => io::Error::other(error),
            };
            if is_gone(&source) {
                return FilterError::Gone { cgroup };
            }
            FilterError::Rule {
                cgroup,
                verdict,
                rule: DeviceRule::exactly(num, access),
                source,
            }
        })
    }
}

fn permissions(access: Access) -> Vec<DevicePermissions> {
    let all = [
        (Access::READ, DevicePermissions::Read),
        (Access::WRITE, DevicePermissions::Write),
        (Access::MKNOD, DevicePermissions::MkNod),
    ];
    all.into_iter()
        .filter(|(bit, _)| access.covers(*bit))
        .map(|(_, permission)| permission)
        .collect()
}

/// The rules of `devices.list`. A line of a kernel that has another form counts as no rule.
fn rules_in(list: &str) -> Vec<DeviceRule> {
    list.lines().filter_map(|line| line.parse().ok()).collect()
}

fn list_error(cgroup: &Path, source: io::Error) -> FilterError {
    let cgroup = cgroup.to_owned();
    match is_gone(&source) {
        true => FilterError::Gone { cgroup },
        false => FilterError::Rules { cgroup, source },
    }
}
