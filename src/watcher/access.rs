//! The container's device access in the cgroup that its init is in, which can change while the
//! container runs.
//!
//! Does not know why access is granted, nor how a cgroup filters devices (`host::filter`).

use std::fs::File;

use crate::host::container::{CgroupPaths, Container};
use crate::host::filter::{self, CgroupFilter, Cgroups, DeviceFilter, FilterError, FilterMemory};
use crate::host::kernel_text;
use crate::host::state::cgroup_owners::Owner;
use crate::host::state::leftovers;
use crate::model::cgroup::grants::{Change, GrantSet};
use crate::model::device::DevNum;

/// The filter at the container's current cgroups.
pub(super) struct ContainerAccess {
    filter: CgroupFilter,
    owner: Owner,
    /// The cgroups of init as last read: the text of `/proc/PID/cgroup`.
    membership: String,
    /// That file, held open; `None` if nothing is filtered: a rootless engine cannot restrict
    /// device access in cgroups, so the filter has no cgroups and does nothing.
    membership_file: Option<File>,
    /// Why no access can be granted in the current cgroup of init.
    nowhere: Option<String>,
}

/// Where the container is now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the same cgroup as before, or the container is ending.
    Same,
    /// In another cgroup (the text is for messages): its grants in the old one were revoked, and
    /// nothing is granted in the new one yet.
    Moved(String),
    /// In a cgroup where no access can be granted, for this reason.
    Nowhere(String),
}

/// The reason why nothing is granted in the root cgroup.
const ROOT: &str = "the container's processes were moved to the root cgroup, whose device rules oci-hotplug never changes (move them to another cgroup)";

impl ContainerAccess {
    /// Opens the filter at the container's cgroups. `memory` is what an earlier watcher stored, if
    /// there was one. If the container has moved since then, the old grants are revoked, and the
    /// memory is cleared.
    ///
    /// # Errors
    /// When the cgroups cannot be opened, or another container owns them. A watcher with a
    /// predecessor gets a filter even then.
    pub(super) fn open(
        container: &Container,
        owner: Owner,
        memory: &mut FilterMemory,
        is_successor: bool,
    ) -> Result<Self, super::error::EffectError> {
        if container.is_rootless() {
            return Ok(Self::unfiltered(owner));
        }
        let membership_file = Some(container.membership_file()?);
        let membership = container.membership()?;
        let mut paths = container.cgroup_paths()?;
        let cgroups = memory.cgroups.clone();
        if cgroups.is_empty() {
            leftovers::clear_cgroups(&owner, &Cgroups::of(&paths)?);
        } else if cgroups.exist() && cgroups.cover(&paths) {
            paths = cgroups.paths();
        } else {
            filter::revoke(memory, &owner)?;
            *memory = FilterMemory::default();
        }
        let mut access = Self {
            filter: CgroupFilter::nowhere(cgroups.clone()),
            owner,
            membership,
            membership_file,
            nowhere: None,
        };
        match access.enter(&paths, memory.clone()) {
            Ok(()) => {}
            Err(problem @ Problem::Filter(FilterError::Owned { .. })) if is_successor => {
                memory.held.clear();
                access.nowhere = Some(problem.text());
            }
            Err(Problem::Filter(error)) => return Err(error.into()),
            Err(problem @ Problem::Root) => access.nowhere = Some(problem.text()),
        }
        Ok(access)
    }

    /// The access of a container whose engine is rootless. No cgroup filters its devices (loading a
    /// device program needs CAP_BPF and CAP_PERFMON of the host, bpf(2)): the owner and mode of the
    /// host's nodes decide.
    fn unfiltered(owner: Owner) -> Self {
        Self {
            filter: CgroupFilter::nowhere(Cgroups::default()),
            owner,
            membership: String::new(),
            membership_file: None,
            nowhere: None,
        }
    }

    /// Opens the filter of these cgroups. A container that never had a cgroup needs no filter. If
    /// it had one in the hierarchy that controls devices and has none there now, it is in the root
    /// cgroup.
    fn enter(&mut self, paths: &CgroupPaths, memory: FilterMemory) -> Result<(), Problem> {
        let before = self.filter.cgroups();
        let has_left = match before.v1 {
            Some(_) => paths.v1_devices.is_none(),
            None => !before.is_empty() && paths.v2.is_empty() && paths.v1_devices.is_none(),
        };
        if has_left {
            return Err(Problem::Root);
        }
        let filter = filter::open(paths, memory)?;
        self.filter = filter.owned_by(self.owner.clone())?;
        self.nowhere = None;
        Ok(())
    }

    /// Whether init is in the same cgroups as before. Costs one system call.
    pub(super) fn is_in_place(&self) -> bool {
        let is_still = |file| kernel_text::is_still(file, &self.membership);
        self.nowhere.is_none() && self.membership_file.as_ref().is_none_or(is_still)
    }

    /// Whether access is certainly still in force, so that neither [`Self::follow`] nor
    /// [`Self::ensure`] has anything to do. Costs two or three system calls.
    pub(super) fn is_unchanged(&self) -> bool {
        self.is_in_place() && self.filter.is_unchanged()
    }

    /// Checks where init is, and opens the filter there if it has moved. No event reports a move.
    pub(super) fn follow(&mut self, container: &Container) -> Place {
        let Some(file) = &self.membership_file else {
            return Place::Same;
        };
        // It cannot be read after init has ended.
        let Ok(membership) = kernel_text::read(file) else {
            return Place::Same;
        };
        if self.nowhere.is_none() && membership == self.membership && self.filter.cgroups().exist() {
            return Place::Same;
        }
        let paths = match container.cgroup_paths() {
            Ok(paths) => paths,
            Err(_) if !container.init().is_alive() => return Place::Same,
            Err(error) => return self.stay_out(error.to_string()),
        };
        if self.filter.cgroups().v1.is_some() && paths.v1_devices.is_none() && container.is_exiting() {
            return Place::Same;
        }
        if self.nowhere.is_none() {
            if self.filter.cgroups().exist() && self.filter.cgroups().cover(&paths) {
                self.membership = membership;
                return Place::Same;
            }
            if let Err(error) = self.filter.leave() {
                return Place::Nowhere(error.to_string());
            }
            // From now on another container may own the cgroup.
            self.filter = CgroupFilter::nowhere(self.filter.cgroups().clone());
        }
        match self.enter(&paths, FilterMemory::default()) {
            Ok(()) => {
                self.membership = membership;
                let mut cgroups = self.filter.cgroups().all();
                let path = cgroups
                    .next()
                    .map(|(_, cgroup)| cgroup.path.display().to_string());
                Place::Moved(path.unwrap_or_default())
            }
            // The container has ended or moved again in the meantime.
            Err(Problem::Filter(FilterError::Gone { .. })) if !container.init().is_alive() => Place::Same,
            Err(problem) => self.stay_out(problem.text()),
        }
    }

    fn stay_out(&mut self, reason: String) -> Place {
        if self.nowhere.is_none() {
            if let Err(error) = self.filter.leave() {
                return Place::Nowhere(error.to_string());
            }
            self.filter = CgroupFilter::nowhere(self.filter.cgroups().clone());
        }
        self.nowhere = Some(reason.clone());
        Place::Nowhere(reason)
    }

    /// Grants exactly this access, except for the numbers that it returns, each with the reason.
    pub(super) fn set(&mut self, grants: &GrantSet) -> Result<Vec<(DevNum, String)>, FilterError> {
        if let Some(reason) = &self.nowhere {
            return Ok(grants.keys().map(|num| (*num, reason.clone())).collect());
        }
        match self.filter.ensure(grants) {
            Ok(_) => Ok(Vec::new()),
            Err(FilterError::Refused { refused }) => Ok(refused),
            Err(error) => Err(error),
        }
    }

    /// Checks that access is still in force, and grants it again where an engine has replaced the
    /// filter.
    pub(super) fn ensure(&mut self, granted: &GrantSet) -> Result<Change, FilterError> {
        self.filter.ensure(granted)
    }

    /// What to store for the next watcher.
    pub(super) fn memory(&self) -> FilterMemory {
        self.filter.memory()
    }

    /// Makes the container the owner of its cgroups again: the state directory was removed.
    pub(super) fn forget_owned(&mut self) {
        self.filter.forget_owned();
    }

    /// Revokes everything after the container has ended, because its cgroup may still exist.
    /// Returns whether nothing is granted any more.
    pub(super) fn revoke(&self) -> bool {
        let outcome = filter::revoke(&self.filter.memory(), &self.owner);
        if let Err(error) = &outcome {
            tracing::warn!("cannot revoke the access of a container that has ended: {error}");
        }
        outcome.is_ok()
    }
}

/// Why there is no filter.
enum Problem {
    Root,
    Filter(FilterError),
}

impl Problem {
    fn text(&self) -> String {
        match self {
            Self::Root => ROOT.to_owned(),
            Self::Filter(error) => error.to_string(),
        }
    }
}

impl From<FilterError> for Problem {
    fn from(error: FilterError) -> Self {
        Self::Filter(error)
    }
}
