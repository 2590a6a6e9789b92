//! Removes what containers leave in the state directory if their watchers and hooks were killed.

use crate::host::container_dev::ContainerDev;
use crate::host::filter::{self, Cgroups};
use crate::host::state::cgroup_owners::{self, Owner};
use crate::host::state::error::RegistryError;
use crate::host::state::leases;
use crate::host::state::notes::Notes;
use crate::host::state::record_lock::RecordLock;
use crate::host::state::registry::Registry;

/// Removes leases and owner files without a holder, and the records of containers that have ended
/// and have no watcher. Logs each record. Never waits.
///
/// `is_revoked` is called for each such record before it is removed; it returns whether nothing is
/// granted to its container any more. Otherwise the record stays, for a program that can revoke the
/// access. Pass [`revoke`], or `|lock| !is_in_force(lock)`.
///
/// # Errors
/// When the state directory cannot be read. A single entry that cannot be removed is skipped.
pub(crate) fn clear(
    registry: &Registry,
    is_revoked: impl Fn(&RecordLock) -> bool,
) -> Result<(), RegistryError> {
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

/// Whether a cgroup that still exists may have grants of the container of this record, according to
/// its watcher's notes. Only for a container that has ended.
pub(crate) fn is_in_force(lock: &RecordLock) -> bool {
    notes(lock).filter.is_in_force()
}

/// Revokes the access of earlier owners of these cgroups that have ended and whose watchers were
/// killed. On cgroup v1 their grants would otherwise be mistaken for rules of the engine.
pub(crate) fn clear_cgroups(owner: &Owner, cgroups: &Cgroups) {
    let registry = Registry::new(owner.state_dir());
    for (version, cgroup) in cgroups.all() {
        let predecessor = owner.predecessor(version, cgroup);
        let Some(id) = predecessor.and_then(|owner| owner.container.parse().ok()) else {
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

/// Revokes the access of the container of this record, which has ended; returns whether nothing is
/// granted any more.
pub(crate) fn revoke(lock: &RecordLock) -> bool {
    let memory = notes(lock).filter;
    let Some(init) = lock.recorded_init() else {
        return true;
    };
    let id = lock.dir().file_name().unwrap_or_default().to_string_lossy();
    let outcome = filter::revoke(&memory, &Owner::of_record(lock.state_dir(), &id, &init));
    if let Err(error) = &outcome {
        tracing::warn!(container = %id, "cannot revoke the access of a container that is gone: {error}");
    }
    outcome.is_ok()
}

/// Removes the nodes and links of the container of this record, which has ended, from its root file
/// system, if that still exists. Only needed if the watcher was killed.
pub(crate) fn remove_files(lock: &RecordLock) {
    let notes = notes(lock);
    let Ok(Some(record)) = lock.record() else { return };
    if (notes.attachments.is_empty() && notes.directories.is_empty()) || record.is_running() {
        return;
    }
    match ContainerDev::open_ended(&record.container.rootfs, notes.directories) {
        Ok(Some(mut dev)) => dev.remove_outliving(&notes.attachments),
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(container = %record.container.id, "cannot open the root file system of a container that has ended: {error}");
        }
    }
}

/// The notes; empty if they cannot be read.
fn notes(lock: &RecordLock) -> Notes {
    lock.attached().ok().flatten().unwrap_or_default()
}
