//! Restores the container's entry in the state directory if it was removed while the container
//! runs, for example by a program that cleans /run. The container stays listed and reachable, and
//! its devices are attached and detached as before.

use super::effects::ContainerEffects;
use super::error::WatcherError;
use crate::host::process::start_time;
use crate::host::state::control::ControlSocket;
use crate::host::state::record::Record;
use crate::host::state::record_lock::{RecordLock, WatcherProcess};
use crate::host::state::registry::Registry;
use crate::model::oci::ContainerId;

/// The state of the container's entry.
pub(super) enum Entry {
    /// The entry exists.
    InPlace,
    /// The entry was removed and has been restored: clients connect to this socket now.
    Restored(ControlSocket),
    /// The entry was removed, and the next watcher of this container has created it again.
    TakenBySuccessor,
    /// The entry was removed, and another container with the same id has created it: only this
    /// watcher can revoke what it has granted.
    TakenByOther,
}

/// Restores an entry that was removed. If that fails, also returns the reason for the log.
pub(super) fn restore(effects: &mut ContainerEffects, record: &Record) -> (Entry, Option<String>) {
    match new_entry(effects, record) {
        Ok(Some((lock, control))) => {
            tracing::warn!(container = %record.container.id, "{} was removed; restoring it", lock.dir().display());
            effects.set_lock(lock);
            (Entry::Restored(control), None)
        }
        Ok(None) => (taken(effects, record), None),
        Err(error) => (Entry::InPlace, Some(error.to_string())),
    }
}

/// Decides which process has created the entry.
fn taken(effects: &ContainerEffects, record: &Record) -> Entry {
    let registry = Registry::new(effects.lock().state_dir());
    let id: Option<ContainerId> = record.container.id.parse().ok();
    let Some(init) = id.and_then(|id| registry.recorded_init(&id)) else {
        // A hook is about to write the record: check again with the next tick.
        return Entry::InPlace;
    };
    if init.is_of(&record.container) {
        return Entry::TakenBySuccessor;
    }
    tracing::error!(
        container = %record.container.id,
        "the state directory was removed, and another container with this id (process {}) is recorded there now; detaching the devices of process {}",
        init.pid,
        record.container.pid
    );
    Entry::TakenByOther
}

/// Creates the entry; `None` if another process has it.
fn new_entry(
    effects: &ContainerEffects,
    record: &Record,
) -> Result<Option<(RecordLock, ControlSocket)>, WatcherError> {
    let registry = Registry::new(effects.lock().state_dir());
    let id: Option<ContainerId> = record.container.id.parse().ok();
    let Some(lock) = id.map(|id| registry.try_enroll(&id)).transpose()?.flatten() else {
        return Ok(None);
    };
    let pid = i32::try_from(std::process::id()).unwrap_or_default();
    lock.write_watcher(WatcherProcess {
        pid,
        start_time: start_time(pid)?,
    })?;
    lock.write_record(record)?;
    let control = ControlSocket::bind(lock.dir_fd(), lock.dir())?;
    Ok(Some((lock, control)))
}
