//! cgroup v2: the device programs attached to the container's own cgroups, each with our prologue
//! in front.
//!
//! A program is replaced by a copy with a prologue (`model::cgroup::filter_program`) that looks up
//! the map of grants. All attached programs must allow an access, so every one of them is extended;
//! an additional program of ours could only deny. Ancestors outside the container are not changed.

use std::path::{Path, PathBuf};

use super::ancestors::Ancestors;
use super::attached::AttachedPrograms;
use super::error::FilterError;
use super::grant_map::GrantMap;
use super::map_slot::{MapSlot, write};
use crate::model::cgroup::grants::{Change, GrantSet};
use crate::model::device::Access;

/// The programs of all the container's own cgroups, and the one map that they use.
#[derive(Debug)]
pub(super) struct Programs {
    cgroups: Vec<AttachedPrograms>,
    /// Created when the first program is extended: the programs of a container without grants stay
    /// unchanged.
    grants: Option<GrantMap>,
    ancestors: Ancestors,
    /// The programs in effect when all of them were last known to be in order: extended with the
    /// map, or an ancestor's. The kernel does not reuse ids before the counter overflows, so while
    /// the list is the same, no program has to be looked at.
    in_order: Option<Vec<u32>>,
}

impl Programs {
    /// Opens the cgroups; finds the map if programs of ours are attached there.
    pub(super) fn open(paths: &[PathBuf]) -> Result<Self, FilterError> {
        let cgroups = paths
            .iter()
            .map(|path| AttachedPrograms::open(path))
            .collect::<Result<Vec<_>, _>>()?;
        let mut grants = None;
        for cgroup in &cgroups {
            grants = cgroup.find_map()?;
            if grants.is_some() {
                break;
            }
        }
        Ok(Self {
            cgroups,
            grants,
            ancestors: Ancestors::default(),
            in_order: None,
        })
    }

    /// The programs of no cgroup.
    pub(super) fn none() -> Self {
        Self {
            cgroups: Vec::new(),
            grants: None,
            ancestors: Ancestors::default(),
            in_order: None,
        }
    }

    /// Whether a device program is in effect in this cgroup.
    pub(super) fn restricts(&self, path: &Path) -> Result<bool, FilterError> {
        match self.cgroups.iter().find(|cgroup| cgroup.path == path) {
            Some(cgroup) => Ok(!cgroup.query()?.ids.is_empty()),
            None => Ok(false),
        }
    }

    /// Revokes grants that are not wanted, and grants nothing.
    pub(super) fn revoke_all_except(&mut self, wanted: &GrantSet) -> Result<Change, FilterError> {
        let (Some(leaf), Some(grants)) = (self.cgroups.first(), &mut self.grants) else {
            return Ok(Change::None);
        };
        let mut kept = grants.granted().clone();
        for (num, access) in &mut kept {
            let surplus = access.without(wanted.get(num).copied().unwrap_or(Access::NONE));
            *access = access.without(surplus);
        }
        write(grants, &kept, &leaf.path)
    }

    /// Whether the programs in effect are certainly the same as when [`Self::ensure`] last found
    /// them in order. Costs one system call.
    pub(super) fn is_unchanged(&self) -> bool {
        let Some(leaf) = self.cgroups.first() else {
            return true;
        };
        let in_order = self.in_order.as_ref();
        in_order.is_some_and(|ids| leaf.effective().is_ok_and(|effective| effective == *ids))
    }

    /// What the map grants.
    pub(super) fn held(&self) -> GrantSet {
        self.grants
            .as_ref()
            .map(|grants| grants.granted().clone())
            .unwrap_or_default()
    }

    /// Makes the map grant exactly `wanted`, then extends every program with it, and reports what
    /// the programs of ancestors deny.
    pub(super) fn ensure(&mut self, wanted: &GrantSet) -> Result<Change, FilterError> {
        let Some(leaf) = self.cgroups.first().map(|cgroup| cgroup.path.clone()) else {
            return Ok(Change::None);
        };
        let mut outcome = Ok(Change::None);
        if let Some(grants) = &mut self.grants {
            add(&mut outcome, write(grants, wanted, &leaf));
        }
        if self.in_order.is_none() && !has_access(wanted) {
            add(&mut outcome, self.extend_programs(wanted, &leaf));
            return outcome;
        }
        let mut effective = self.cgroups[0].effective()?;
        if self.in_order.as_ref() != Some(&effective) {
            let extended = self.extend_programs(wanted, &leaf);
            let is_settled = matches!(extended, Ok(Change::None));
            add(&mut outcome, extended);
            let before = std::mem::replace(&mut effective, self.cgroups[0].effective()?);
            // If the list has changed in the meantime, it may have a program that is not extended.
            let is_in_order = is_settled
                && before == effective
                && self.cgroups.iter().all(AttachedPrograms::are_all_extended);
            self.in_order = is_in_order.then(|| effective.clone());
        }
        if outcome.is_ok() && has_access(wanted) {
            let refused = self.ancestors.refusals(&self.cgroups, &effective, wanted)?;
            if !refused.is_empty() {
                return Err(FilterError::Refused { refused });
            }
        }
        outcome
    }

    fn extend_programs(&mut self, wanted: &GrantSet, leaf: &Path) -> Result<Change, FilterError> {
        let mut outcome = Ok(Change::None);
        let mut map = MapSlot::new(&mut self.grants, wanted, leaf);
        for cgroup in &mut self.cgroups {
            add(&mut outcome, cgroup.extend_programs(&mut map));
        }
        add(&mut outcome, map.filled);
        outcome
    }
}

/// Whether there is something to grant: otherwise programs need not be extended.
fn has_access(wanted: &GrantSet) -> bool {
    wanted.values().any(|access| !access.is_none())
}

/// Combines two outcomes: the first error counts, then any change.
fn add(sum: &mut Result<Change, FilterError>, part: Result<Change, FilterError>) {
    if !matches!((&*sum, &part), (Err(_), _) | (_, Ok(Change::None))) {
        *sum = part;
    }
}
