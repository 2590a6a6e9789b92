//! The device filter of one container: makes its cgroups allow the grants beside the engine's own
//! rules, and nothing more.
//!
//! The engine's own rules stay unchanged. `model::plan` decides what to grant; this module puts it
//! into force, verifies it, and restores it after an engine has rewritten its filter. Does not know
//! nodes or devices.

mod ancestors;
mod attached;
pub(crate) mod cgroup;
mod cgroups;
mod error;
mod grant_map;
mod map_slot;
mod memory;
mod v1;
mod v2;

use self::cgroup::Version;
pub use self::cgroups::Cgroups;
pub use self::error::FilterError;
pub use self::memory::FilterMemory;
use crate::host::container::CgroupPaths;
use crate::host::state::cgroup_owners::Owner;
use crate::model::cgroup::grants::{Change, GrantSet};

/// Makes a container's device access cover the grants.
pub trait DeviceFilter {
    /// Makes the filter allow exactly `grants` beside what the engine allows; returns whether it
    /// had to change anything.
    ///
    /// Idempotent. Call it when [`CgroupFilter::is_unchanged`] is false, because there is no event
    /// when an engine rewrites its filter. All cgroups are processed; the first error
    /// is returned. With [`FilterError::Refused`], all grants are in force except those that it
    /// names.
    fn ensure(&mut self, grants: &GrantSet) -> Result<Change, FilterError>;
}

/// The filter on the cgroups of one container.
#[derive(Debug)]
pub struct CgroupFilter {
    v1: Option<v1::Devices>,
    v2: v2::Programs,
    cgroups: Cgroups,
    owner: Option<Owner>,
    /// The cgroups that the owner is known to own.
    owned: Cgroups,
}

/// Opens the filter of the cgroups at these paths. Changes nothing.
///
/// `memory` is the last value of [`CgroupFilter::memory`], or the default for a new container. For
/// a new container, or if the memory is about another cgroup, everything that the v1 cgroup allows
/// now counts as allowed by the engine. On cgroup v2 the grants are found in the kernel, in the map
/// of the attached programs.
pub fn open(paths: &CgroupPaths, memory: FilterMemory) -> Result<CgroupFilter, FilterError> {
    let cgroups = Cgroups::of(paths)?;
    let v2 = v2::Programs::open(&paths.v2)?;
    let memory = match &memory.cgroups.v1 {
        Some(cgroup) if Some(cgroup) != cgroups.v1.as_ref() => FilterMemory::default(),
        _ => memory,
    };
    let v1 = match &cgroups.v1 {
        Some(cgroup) => Some(v1::Devices::open(cgroup.clone(), memory)?),
        None => None,
    };
    Ok(CgroupFilter {
        v1,
        v2,
        cgroups,
        owner: None,
        owned: Cgroups::default(),
    })
}

/// Revokes what `memory` says was granted to a container that has ended, because other processes in
/// a cgroup that still exists would keep the access. Then gives up the cgroups. A cgroup that
/// another running container owns stays unchanged.
pub fn revoke(memory: &FilterMemory, owner: &Owner) -> Result<(), FilterError> {
    let mut outcome = Ok(());
    for (version, cgroup) in memory.cgroups.all() {
        if !cgroup.exists() {
            owner.release(version, cgroup);
            continue;
        }
        let revoked = owner.release_after(version, cgroup, || {
            match version {
                Version::V1 => v1::Devices::open(cgroup.clone(), memory.clone())?.ensure(&GrantSet::new()),
                Version::V2 => {
                    let mut programs = v2::Programs::open(std::slice::from_ref(&cgroup.path))?;
                    // The path may lead to another cgroup that was created since, with its own
                    // grants.
                    match cgroup.exists() {
                        true => programs.ensure(&GrantSet::new()),
                        false => Ok(Change::None),
                    }
                }
            }
            .map(|_| ())
        });
        outcome = outcome.and(match revoked {
            Ok(None | Some(Ok(()) | Err(FilterError::Gone { .. }))) => Ok(()),
            Ok(Some(Err(error))) => Err(error),
            Err(error) => Err(error.into()),
        });
    }
    outcome
}

impl CgroupFilter {
    /// Makes `owner` the owner of the cgroups, so that another container's grants cannot be written
    /// there. A cgroup without a filter does not need an owner until it has one: any number of
    /// containers may be in it.
    pub fn owned_by(mut self, owner: Owner) -> Result<Self, FilterError> {
        self.owner = Some(owner);
        match self.acquire() {
            Ok(()) => Ok(self),
            Err(error) => {
                self.release();
                Err(error)
            }
        }
    }

    /// A filter without cgroups, which remembers the last cgroups of the container.
    pub fn nowhere(cgroups: Cgroups) -> Self {
        Self {
            v1: None,
            v2: v2::Programs::none(),
            cgroups,
            owner: None,
            owned: Cgroups::default(),
        }
    }

    pub fn cgroups(&self) -> &Cgroups {
        &self.cgroups
    }

    /// Whether no engine has rewritten its filter since `ensure` last found nothing to change, and
    /// all cgroups still exist. Costs one system call for each hierarchy.
    pub fn is_unchanged(&self) -> bool {
        self.v1.as_ref().is_none_or(v1::Devices::is_unchanged) && self.v2.is_unchanged()
    }

    /// Revokes all grants and gives up the cgroups. Cgroups that do not exist any more need
    /// nothing.
    pub fn leave(&mut self) -> Result<(), FilterError> {
        match self.ensure(&GrantSet::new()) {
            Ok(_) | Err(FilterError::Gone { .. }) => {}
            // Another container owns the cgroup by now, and no grant of ours is left in it.
            Err(FilterError::Owned { .. }) if self.memory().held.is_empty() => {}
            Err(error) => return Err(error),
        }
        self.release();
        Ok(())
    }

    /// What to store for the next watcher, after each `ensure`.
    pub fn memory(&self) -> FilterMemory {
        let memory = match &self.v1 {
            Some(v1) => v1.memory(),
            None => FilterMemory {
                held: self.v2.held(),
                ..FilterMemory::default()
            },
        };
        FilterMemory {
            cgroups: self.cgroups.clone(),
            ..memory
        }
    }

    /// Forgets which cgroups are owned, because the state directory was removed.
    pub fn forget_owned(&mut self) {
        self.owned = Cgroups::default();
    }

    fn acquire(&mut self) -> Result<(), FilterError> {
        let Some(owner) = &self.owner else {
            return Ok(());
        };
        for (version, cgroup) in self.cgroups.all() {
            let restricts = || match (version, &self.v1) {
                (Version::V1, Some(v1)) => v1.restricts(),
                (Version::V1, None) => Ok(false),
                (Version::V2, _) => self.v2.restricts(&cgroup.path),
            };
            if self.owned.has(version, cgroup) || !restricts()? {
                continue;
            }
            if let Some(other) = owner.acquire(version, cgroup)? {
                return Err(FilterError::Owned {
                    cgroup: cgroup.path.clone(),
                    owner: other,
                });
            }
            self.owned.add(version, cgroup.clone());
        }
        Ok(())
    }

    fn release(&mut self) {
        if let Some(owner) = &self.owner {
            for (version, cgroup) in self.owned.all() {
                owner.release(version, cgroup);
            }
        }
        self.owned = Cgroups::default();
    }
}

impl DeviceFilter for CgroupFilter {
    fn ensure(&mut self, grants: &GrantSet) -> Result<Change, FilterError> {
        if let Err(error) = self.acquire() {
            // Revoking never waits for an owner.
            let _ = self.v2.revoke_all_except(grants);
            let _ = self.v1.as_mut().map(|v1| v1.revoke_all_except(grants));
            return Err(error);
        }
        let v2 = self.v2.ensure(grants);
        let v1 = self.v1.as_mut().map_or(Ok(Change::None), |v1| v1.ensure(grants));
        match (v2?, v1?) {
            (Change::None, Change::None) => Ok(Change::None),
            _ => Ok(Change::Made),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::device::{Access, DevKind, DevNum};
    use std::path::PathBuf;

    pub(super) fn char(minor: u32) -> DevNum {
        DevNum {
            kind: DevKind::Char,
            major: 188,
            minor,
        }
    }

    #[test]
    fn a_filter_without_cgroups_has_nothing_to_do() {
        let mut filter = open(&CgroupPaths::default(), FilterMemory::default()).unwrap();
        assert_eq!(
            filter.ensure(&[(char(0), Access::ALL)].into()).unwrap(),
            Change::None
        );
    }

    #[test]
    fn a_missing_cgroup_is_reported_as_gone() {
        let missing = PathBuf::from("/sys/fs/cgroup/no/such/cgroup");
        for cgroups in [
            CgroupPaths {
                v1_devices: Some(missing.clone()),
                v2: vec![],
            },
            CgroupPaths {
                v1_devices: None,
                v2: vec![missing.clone()],
            },
        ] {
            let error = open(&cgroups, FilterMemory::default()).unwrap_err();
            assert!(
                matches!(&error, FilterError::Gone { cgroup } if *cgroup == missing),
                "{error}"
            );
        }
    }
}
