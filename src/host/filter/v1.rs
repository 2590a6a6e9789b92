//! cgroup v1: devices.allow and devices.deny of the container's cgroup, through cgroups-rs.
//!
//! `model::cgroup::device_rules` decides which rules to write; this module writes them and reads
//! them back. Child cgroups that the container creates do not inherit what is allowed later: the
//! kernel propagates only denials.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use cgroups_rs::DeviceResource;
use cgroups_rs::devices::{DevicePermissions, DeviceType, DevicesController};

use super::cgroup::Cgroup;
use super::error::{FilterError, is_gone};
use super::memory::FilterMemory;
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
    baseline: Vec<DeviceRule>,
    held: GrantSet,
}

impl Devices {
    /// Opens the cgroup. What it allows now is the baseline, unless the memory has one.
    pub fn open(cgroup: Cgroup, memory: FilterMemory) -> Result<Self, FilterError> {
        let controller = DevicesController::new(cgroup.path.clone());
        let mut devices = Self {
            path: cgroup.path.clone(),
            cgroup,
            controller,
            baseline: Vec::new(),
            held: memory.held,
        };
        let current = devices.rules()?;
        devices.baseline = memory.baseline.unwrap_or(current);
        Ok(devices)
    }

    /// What the next watcher must know.
    pub fn memory(&self) -> FilterMemory {
        FilterMemory {
            held: self.held.clone(),
            baseline: Some(self.baseline.clone()),
            ..FilterMemory::default()
        }
    }

    /// Whether anything is denied here: a cgroup that allows everything by default has the single
    /// rule `a *:* rwm`.
    pub fn restricts(&self) -> Result<bool, FilterError> {
        Ok(!self
            .rules()?
            .iter()
            .any(|rule| rule.kind.is_none() && rule.access == Access::ALL))
    }

    /// Writes the rules that are missing, denies those that are too many, and reads back.
    pub fn ensure(&mut self, wanted: &GrantSet) -> Result<Change, FilterError> {
        let steps = v1_transition(&self.baseline, &self.rules()?, &self.held, wanted);
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
            for (verdict, num, access) in v1_transition(&self.baseline, &self.rules()?, &self.held, wanted) {
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
    pub fn revoke_all_except(&mut self, wanted: &GrantSet) -> Result<Change, FilterError> {
        let kept = common(&self.held, wanted);
        self.ensure(&kept)
    }

    fn rules(&self) -> Result<Vec<DeviceRule>, FilterError> {
        // The files are opened by path, which may lead to a cgroup that was created later.
        if !self.cgroup.exists() {
            return Err(FilterError::Gone {
                cgroup: self.path.clone(),
            });
        }
        match self.controller.allowed_devices() {
            Ok(list) => Ok(list.iter().map(rule).collect()),
            Err(source) => Err(
                match source
                    .source()
                    .and_then(|cause| cause.downcast_ref::<io::Error>())
                {
                    Some(cause) if is_gone(cause) => FilterError::Gone {
                        cgroup: self.path.clone(),
                    },
                    _ => FilterError::Rules {
                        cgroup: self.path.clone(),
                        source,
                    },
                },
            ),
        }
    }

    fn write(&self, (verdict, num, access): Transition) -> Result<(), FilterError> {
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

/// Converts a rule of cgroups-rs, which has -1 for `*`.
fn rule(resource: &DeviceResource) -> DeviceRule {
    let access = resource.access.iter().fold(Access::NONE, |access, permission| {
        access
            | match permission {
                DevicePermissions::Read => Access::READ,
                DevicePermissions::Write => Access::WRITE,
                DevicePermissions::MkNod => Access::MKNOD,
            }
    });
    DeviceRule {
        kind: match resource.devtype {
            DeviceType::All => None,
            DeviceType::Char => Some(DevKind::Char),
            DeviceType::Block => Some(DevKind::Block),
        },
        major: u32::try_from(resource.major).ok(),
        minor: u32::try_from(resource.minor).ok(),
        access,
    }
}
