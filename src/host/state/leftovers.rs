//! What containers leave in the state directory when nobody was there to clear away: their watchers
//! and hooks were killed.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Deserialize;

use crate::host::container_dev::ContainerDev;
use crate::host::filter::{self, Cgroups, FilterMemory};
use crate::host::state::cgroup_owners::{self, Owner};
use crate::host::state::error::RegistryError;
use crate::host::state::leases;
use crate::host::state::record_lock::RecordLock;
use crate::host::state::registry::Registry;
use crate::model::plan::attachment::Attachments;

/// The part of a watcher's notes that outlives its container.
#[derive(Default, Deserialize)]
struct Notes {
    #[serde(default)]
    filter: FilterMemory,
    #[serde(default)]
    attachments: Attachments,
    #[serde(default)]
    directories: BTreeSet<PathBuf>,
}

/// Removes leases and claims that nobody holds, and the records of containers that are gone and
/// whose watchers are gone. Logs each record. Never waits.
///
/// `is_revoked` gets each such record before it is removed, and says whether nothing of its
/// container is granted any more; otherwise the record stays, for a program that can take it back:
/// [`revoke`], or `|lock| !is_in_force(lock)`.
///
/// # Errors
/// When the state directory can't be read; a single entry that can't be removed is passed over.
pub fn clear(registry: &Registry, is_revoked: impl Fn(&RecordLock) -> bool) -> Result<(), RegistryError> {
    leases::sweep(registry.root());
    let stays = |lock: &RecordLock| {
        let is_done = is_revoked(lock);
        if is_done {
            remove_files(lock);
        }
        !is_done
    };
    for id in registry.sweep(|record, lock| record.is_running() || stays(lock))? {
        tracing::info!(container = %id, "removed the record of a container that is gone");
    }
    cgroup_owners::sweep(registry.root());
    Ok(())
}

/// Whether a cgroup that outlives the container of this record still has its grants, as far as its
/// watcher's notes tell. Not to be asked while the container runs.
pub fn is_in_force(lock: &RecordLock) -> bool {
    notes(lock).filter.is_in_force()
}

/// Takes back what a container was granted that has ended, whose watcher was killed, and whose
/// cgroups the owner is about to use: on v1, they would be taken for rules of the engine.
pub fn clear_cgroups(owner: &Owner, cgroups: &Cgroups) {
    let registry = Registry::new(owner.state_dir());
    for (version, cgroup) in cgroups.all() {
        let predecessor = owner.predecessor(version, cgroup);
        let Some(id) = predecessor.and_then(|claim| claim.container.parse().ok()) else {
            continue;
        };
        let Ok(Some(lock)) = registry.try_lock(&id) else {
            continue;
        };
        let has_ended = lock.recorded_init().is_some_and(|init| init.running().is_none());
        if has_ended && revoke(&lock) && lock.remove().is_ok() {
            tracing::info!(container = %id, "removed the record of a container that is gone");
        }
    }
}

/// Takes back what the container of this record, which has ended, was granted; whether nothing is
/// left.
pub fn revoke(lock: &RecordLock) -> bool {
    let memory = notes(lock).filter;
    let Some(init) = lock.recorded_init() else {
        return true;
    };
    let id = lock.dir().file_name().unwrap_or_default().to_string_lossy();
    let outcome = filter::revoke(&memory, &Owner::of_record(lock.state_dir(), &id, &init));
    if let Err(error) = &outcome {
        tracing::warn!(container = %id, "revoking the access of a container that is gone: {error}");
    }
    outcome.is_ok()
}

/// Removes the nodes and links that the container of this record, which has ended, has left in its
/// root file system, where that is still there. Its watcher does this itself unless it was killed.
pub fn remove_files(lock: &RecordLock) {
    let notes = notes(lock);
    let Ok(Some(record)) = lock.record() else { return };
    if notes.attachments.is_empty() || record.is_running() {
        return;
    }
    match ContainerDev::open_ended(&record.container.rootfs, notes.directories) {
        Ok(Some(mut dev)) => dev.remove_outliving(&notes.attachments),
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(container = %record.container.id, "opening the root file system of a container that has ended: {error}");
        }
    }
}

/// Notes that cannot be read say nothing.
fn notes(lock: &RecordLock) -> Notes {
    lock.attached().ok().flatten().unwrap_or_default()
}
