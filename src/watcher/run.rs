//! The life of a watcher: take the lock, open the container, follow events, clean up.

use std::fs::File;
use std::time::Duration;

use super::detach::HandedOver;
use super::error::WatcherError;
use super::event_loop::{EventLoop, Wake, block_signals};
use super::handover::take_over;
use super::remotes::release_all_of;
use super::{Ending, Next, Settings, Watcher};
use crate::host::container::engine_namespace::enter_engine_namespace;
use crate::host::container::{Container, ContainerError};
use crate::host::process::start_time;
use crate::host::rootless::rootless;
use crate::host::state::control::{ControlResponse, ControlSocket};
use crate::host::state::leases::Leases;
use crate::host::state::leftovers;
use crate::host::state::notes::Notes;
use crate::host::state::record_lock::{RecordLock, WatcherProcess};
use crate::host::state::registry::Registry;
use crate::model::oci::ContainerId;

/// How long to wait for a lock that is not handed over.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// How a watcher gets its container.
pub enum Beginning {
    /// The hook hands over the lock of the record.
    HandedOver(HandedOver),
    /// The watcher replaces the current one, if there is one.
    TakeOver,
    /// The container has no watcher any more.
    Alone,
}

/// Watches one container until it ends, or until the watcher is requested to end. The hook gets its
/// response after [`Settings::ready_timeout`] at the latest.
///
/// # Errors
/// When the container is not enrolled, or when something cannot be opened that every device depends
/// on. The hook gets the error, too.
pub fn run(
    registry: &Registry,
    id: &ContainerId,
    beginning: Beginning,
    settings: Settings,
) -> Result<Ending, WatcherError> {
    let no_leases = || Leases::new(registry.root());
    let (lock, leases, ready) = match beginning {
        Beginning::HandedOver(given) => (
            registry.inherit_lock(id, given.lock)?,
            no_leases(),
            Some(given.ready),
        ),
        Beginning::TakeOver => {
            let (lock, leases) = take_over(registry, id)?;
            (lock, leases, None)
        }
        Beginning::Alone => (registry.lock(id, LOCK_TIMEOUT)?, no_leases(), None),
    };
    let mut ready_copy = ready.as_ref().and_then(|file| file.try_clone().ok());
    let outcome = watch(registry, id, lock, leases, ready, settings);
    let failure = match &outcome {
        Err(error) => Some(error.to_string()),
        Ok(Ending::ContainerGone) => Some("the container's process has ended".to_owned()),
        Ok(Ending::Requested | Ending::Refused) => None,
    };
    if let (Some(failure), Some(pipe)) = (failure, &mut ready_copy) {
        let text = serde_json::to_string(&ControlResponse::Failed(failure)).unwrap_or_default();
        // The hook may have given up by now; the log has the error in any case.
        let _ = std::io::Write::write_all(pipe, format!("{text}\n").as_bytes());
    }
    outcome
}

fn watch(
    registry: &Registry,
    id: &ContainerId,
    lock: RecordLock,
    leases: Leases,
    ready: Option<File>,
    settings: Settings,
) -> Result<Ending, WatcherError> {
    let pid = std::process::id() as i32;
    lock.write_watcher(WatcherProcess {
        pid,
        start_time: start_time(pid)?,
    })?;
    let signals = block_signals()?;
    let record = lock
        .record()?
        .ok_or_else(|| WatcherError::NotEnrolled(id.clone(), registry.root().to_owned()))?;
    if rootless().is_some_and(|rootless| !rootless.is_namespace_root) {
        enter_engine_namespace(record.container.pid)?;
    }
    let notes: Notes = lock.attached()?.unwrap_or_default();
    let opened = match record.init().may_be_of_this_boot() {
        true => Container::open(&record.container),
        // In that boot another process had this pid and start time.
        false => Err(ContainerError::Gone {
            id: record.container.id.clone(),
            pid: record.container.pid,
        }),
    };
    let container = match opened {
        Ok(container) => container,
        Err(ContainerError::Gone { .. }) => {
            clean_up(&record.container.id, lock)?;
            return Ok(Ending::ContainerGone);
        }
        Err(error) => return Err(error.into()),
    };
    let control = ControlSocket::bind(lock.dir_fd(), lock.dir())?;
    let mut watcher = Watcher::open(record, lock, container, notes, leases, settings)?;
    watcher.begin(ready);
    let mut events = EventLoop::open(signals, control, &watcher.sources())?;
    let ending = follow(&mut watcher, &mut events)?;
    if ending != Ending::Requested {
        watcher.close()?;
    }
    Ok(ending)
}

fn follow(watcher: &mut Watcher, events: &mut EventLoop) -> Result<Ending, WatcherError> {
    let mut next = watcher.on(Wake::default(), events)?;
    let mut is_first = true;
    loop {
        if let Next::End(ending) = next {
            return Ok(ending);
        }
        if std::mem::take(&mut is_first) {
            // No client is waiting at this point.
            watcher.tidy_up();
        }
        let wake = events.wait(watcher.next_deadline(), watcher.tick_interval())?;
        next = watcher.on(wake, events)?;
    }
}

/// Cleans up after a container that ended before its watcher was started.
fn clean_up(id: &str, lock: RecordLock) -> Result<(), WatcherError> {
    // This comes first: when a remote device is released, its number may become another device's.
    let is_revoked = leftovers::revoke(&lock);
    release_all_of(id, lock.state_dir());
    leftovers::remove_files(&lock);
    // Otherwise the next attempt needs the record.
    if is_revoked {
        lock.remove()?;
    }
    Ok(())
}
