//! The one container's filter, /dev, listeners and notes, as a transaction wants them.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::access::{ContainerAccess, Place};
use super::transaction::Effects;
use crate::host::announcer::{Announcer, AnnouncerError};
use crate::host::container::{Container, ContainerError};
use crate::host::container_dev::{ContainerDev, ContainerDevError, LinkOutcome, NodeOutcome, NodeOwner};
use crate::host::filter::{FilterError, FilterMemory};
use crate::host::state::cgroup_owners::Owner;
use crate::host::state::registry::{RecordLock, RegistryError, STATE_VERSION};
use crate::model::cgroup::grants::{Change, GrantSet};
use crate::model::counters::Counters;
use crate::model::device::{DevNum, Device, SysPath};
use crate::model::plan::RootRemoved;
use crate::model::plan::attachment::{Attachments, Found, NodeCreator, NodeSpec};
use crate::model::remote::{Bound, RemoteDevice};
use crate::model::request::entry::RequestEntry;
use crate::model::request::id::RequestId;
use crate::model::uevent::{UeventAction, UeventForm};

/// What attached.json holds: all that a watcher must know of the work of the one before it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Memory {
    /// The file's version.
    pub version: u32,
    /// What is inside, or was about to be.
    pub attachments: Attachments,
    /// The device filter's own memory.
    pub filter: FilterMemory,
    /// Directories below /dev that were made for nodes and links.
    #[serde(default)]
    pub directories: BTreeSet<PathBuf>,
    /// The file system that the container's root directory was on, when that was opened first.
    #[serde(default)]
    pub root_file_system: Option<(u32, u32)>,
    /// The roots of each request, in the order of the record.
    #[serde(default)]
    pub roots: Vec<BTreeSet<SysPath>>,
    /// What has been counted.
    #[serde(default)]
    pub tally: Counters,
    /// The devices of other hosts that are attached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bound: Vec<(RemoteDevice, Bound)>,
}

/// What can go wrong inside.
#[derive(Debug, thiserror::Error)]
pub enum EffectError {
    /// The container itself.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// The device cgroup.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// Nodes and links.
    #[error(transparent)]
    Dev(#[from] ContainerDevError),
    /// Uevents.
    #[error(transparent)]
    Announcer(#[from] AnnouncerError),
    /// The notes.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// One container, to be changed.
pub struct Inside {
    access: ContainerAccess,
    dev: ContainerDev,
    announcer: Announcer,
    lock: RecordLock,
    roots: Vec<BTreeSet<SysPath>>,
    bound: Vec<(RemoteDevice, Bound)>,
    /// What an earlier watcher made: whatever is at these paths now is ours to put right.
    made_before: BTreeSet<PathBuf>,
    /// What has been counted; the journal has it, too.
    tally: Cell<Counters>,
    /// What the journal has of it.
    noted: Counters,
}

impl Inside {
    /// Opens all that is needed of a container, with what an earlier watcher noted, and leaves only `due` of the access
    /// that it gave; returns what of it is in force. That comes first: a container can delay all that follows. Where
    /// that fails no access is left, as nobody would be there to revoke it.
    ///
    /// # Errors
    /// When its cgroup, /dev or network namespace can't be reached, or its cgroup belongs to another container.
    pub fn open(
        container: &Container,
        lock: RecordLock,
        memory: &mut Memory,
        due: GrantSet,
    ) -> Result<(Self, GrantSet), EffectError> {
        let owner = Owner::new(lock.state_dir(), container.facts());
        // Notes have had a version since there are notes: none were read.
        let is_successor = memory.version > 0 || !memory.attachments.is_empty();
        let mut access = ContainerAccess::open(container, owner, &mut memory.filter, is_successor)?;
        let mut granted = memory.filter.held.clone();
        // A container that has moved holds nothing: what is due is granted by the first plan.
        if !granted.is_empty() && due != granted {
            granted = due;
            match access.ensure(&granted) {
                Ok(_) => {}
                Err(FilterError::Refused { refused }) => refused.iter().for_each(|(num, _)| {
                    granted.remove(num);
                }),
                // It is tried again each second.
                Err(error) => {
                    tracing::error!(container = %container.facts().id, "{error}");
                    granted = memory.filter.held.clone();
                }
            }
        }
        let dev = ContainerDev::open_again(container, memory.directories.clone(), memory.root_file_system);
        let rest = dev
            .map_err(EffectError::from)
            .and_then(|dev| Ok((dev, Announcer::open(container)?)));
        let (dev, announcer) = match rest {
            Ok(opened) => opened,
            Err(error) => {
                if !granted.is_empty() {
                    let _ = access.ensure(&GrantSet::new())?;
                }
                return Err(error);
            }
        };
        let inside = Self {
            access,
            dev,
            announcer,
            lock,
            roots: memory.roots.clone(),
            bound: memory.bound.clone(),
            made_before: made_by_us(&memory.attachments),
            tally: Cell::new(memory.tally),
            noted: memory.tally,
        };
        Ok((inside, granted))
    }

    /// The container's entry in the registry.
    pub fn lock(&self) -> &RecordLock {
        &self.lock
    }

    /// From now on this is the container's entry.
    pub fn set_lock(&mut self, lock: RecordLock) {
        self.lock = lock;
        self.access.renew_claims();
    }

    /// Removes what outlives the container, which has ended.
    pub fn remove_outliving(&mut self, attachments: &Attachments) {
        self.dev.remove_outliving(attachments);
    }

    /// The container's entry, when nothing is to be changed inside any more.
    pub fn into_lock(self) -> RecordLock {
        self.lock
    }

    /// What has been counted so far.
    pub fn tally(&self) -> Counters {
        self.tally.get()
    }

    /// Counts.
    pub fn count(&self, more: impl FnOnce(&mut Counters)) {
        let mut tally = self.tally.get();
        more(&mut tally);
        self.tally.set(tally);
    }

    /// Whether something was counted that whoever comes after us would not know. Wakes alone are not worth writing for.
    pub fn has_counted(&self) -> bool {
        let tally = self.tally.get();
        let wakes = Counters {
            wakes: tally.wakes,
            busy_us: tally.busy_us,
            longest_us: tally.longest_us,
            ..self.noted
        };
        tally != wakes
    }

    /// Notes the requests' roots, for the next journal; whether they are others than before. A root that is gone and whose
    /// grace period runs is noted as if it were there: the next watcher finds it gone, and begins the period again.
    pub fn note_roots<'r>(
        &mut self,
        requests: impl Iterator<Item = (RequestId, &'r RequestEntry)> + Clone,
        gone: &[RootRemoved],
    ) -> bool {
        if !gone.is_empty() {
            let with_gone = |(request, entry): (RequestId, &RequestEntry)| {
                let gone = gone.iter().filter(|gone| gone.request == request);
                let mut roots = entry.roots.clone();
                roots.extend(gone.map(|gone| gone.root.clone()));
                roots
            };
            let roots: Vec<_> = requests.map(with_gone).collect();
            let are_new = roots != self.roots;
            self.roots = roots;
            return are_new;
        }
        let roots = requests.map(|(_, entry)| &entry.roots);
        let are_new = !roots.clone().eq(&self.roots);
        if are_new {
            self.roots = roots.cloned().collect();
        }
        are_new
    }

    /// Notes the devices of other hosts that are attached, for the next journal; whether they are others than before.
    pub fn note_bound(&mut self, bound: &[(RemoteDevice, Bound)]) -> bool {
        let are_new = bound != self.bound;
        if are_new {
            self.bound = bound.to_vec();
        }
        are_new
    }

    /// Requests whether the access is still in force, and gives it back where an engine has replaced its filter.
    ///
    /// # Errors
    /// When it is not, and can't be given back.
    pub fn ensure(&mut self, granted: &GrantSet) -> Result<Change, FilterError> {
        self.access.ensure(granted)
    }

    /// Looks whether the container was moved to another cgroup, see [`ContainerAccess::follow`].
    pub(super) fn follow(&mut self, container: &Container) -> Place {
        self.access.follow(container)
    }

    /// Takes all access back once the container has ended. Whether nothing is left.
    pub fn revoke(&self) -> bool {
        self.access.revoke()
    }
}

fn made_by_us(attachments: &Attachments) -> BTreeSet<PathBuf> {
    let mut paths = BTreeSet::new();
    for (path, attachment) in attachments.iter() {
        if attachment.node_creator == NodeCreator::Watcher {
            paths.insert(path.clone());
        }
        let links = attachment
            .links
            .iter()
            .filter(|(_, creator)| **creator == NodeCreator::Watcher);
        paths.extend(links.map(|(link, _)| link.clone()));
    }
    paths
}

impl Effects for Inside {
    type Error = EffectError;

    fn find_node(&mut self, path: &Path, node: &NodeSpec) -> Result<Found, EffectError> {
        Ok(self.dev.find_node(path, node.num)?)
    }

    fn find_link(&mut self, link: &Path, target: &Path) -> Result<Found, EffectError> {
        Ok(self.dev.find_link(link, target)?)
    }

    fn add_node(&mut self, path: &Path, node: &NodeSpec) -> Result<NodeCreator, EffectError> {
        let ours = self.made_before.remove(path);
        let owner = NodeOwner {
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
        };
        Ok(match self.dev.add_node(path, node.num, &owner, ours)? {
            NodeOutcome::Created | NodeOutcome::Unchanged => NodeCreator::Watcher,
            NodeOutcome::Adopted | NodeOutcome::HostOwned => NodeCreator::Other,
        })
    }

    fn remove_node(&mut self, path: &Path, node: &NodeSpec) -> Result<(), EffectError> {
        self.made_before.remove(path);
        let _ = self.dev.remove_node(path, node.num)?;
        Ok(())
    }

    fn add_link(&mut self, link: &Path, target: &Path) -> Result<NodeCreator, EffectError> {
        let ours = self.made_before.remove(link);
        Ok(match self.dev.add_link(link, target, ours)? {
            LinkOutcome::Created | LinkOutcome::Unchanged => NodeCreator::Watcher,
            LinkOutcome::Adopted | LinkOutcome::HostOwned => NodeCreator::Other,
        })
    }

    fn remove_link(&mut self, link: &Path, target: &Path) -> Result<(), EffectError> {
        self.made_before.remove(link);
        let _ = self.dev.remove_link(link, target)?;
        Ok(())
    }

    fn set_grants(&mut self, grants: &GrantSet) -> Result<Vec<(DevNum, String)>, EffectError> {
        Ok(self.access.set(grants)?)
    }

    fn announce(
        &mut self,
        form: UeventForm,
        action: UeventAction,
        device: &Device,
        path: &Path,
    ) -> Result<(), EffectError> {
        let _ = self.announcer.announce(form, action, device, Some(path))?;
        Ok(())
    }

    fn journal(&mut self, attachments: &Attachments) -> Result<(), EffectError> {
        let tally = self.tally.get();
        self.lock.write_attached(&Memory {
            version: STATE_VERSION,
            attachments: attachments.clone(),
            filter: self.access.memory().ahead_of(&attachments.grants()),
            directories: self.dev.directories().clone(),
            root_file_system: Some(self.dev.root_file_system()),
            roots: self.roots.clone(),
            bound: self.bound.clone(),
            tally,
        })?;
        self.noted = tally;
        Ok(())
    }
}
