//! poststop: ends the watcher of a container that has stopped, and removes its record.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::host::process::Process;
use crate::host::state::error::RegistryError;
use crate::host::state::leftovers;
use crate::host::state::record::RecordedInit;
use crate::host::state::registry::Registry;
use crate::model::oci::{ContainerId, HookState};
use crate::model::quoting::shown;
use crate::usbip::task::Release;
use crate::usbip::worker::{self, RELEASE_TIMEOUT};
use crate::watcher::launch::revoke_leftovers;

/// How many characters of a path that a user chose appear in a message.
const MAX_SHOWN: usize = 200;

/// How long the watcher may take to end after the container.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the lock may take to be free after the watcher has ended.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// How long init may take to end after the runtime reports that the container has stopped: crun's
/// `delete --force` does not wait for the processes that it kills.
const INIT_TIMEOUT: Duration = Duration::from_secs(2);

/// Ends the watcher of a container that has stopped, and removes its record, if either exists.
///
/// A record whose init still runs describes another container with the same id (of another runtime
/// root, containerd namespace or engine), or the next run of this one. It stays unchanged, and so
/// does its watcher, which ends with its own container.
///
/// # Errors
/// When something is left that cannot be removed.
pub(crate) fn run(state: &HookState, registry: &Registry) -> Result<(), RegistryError> {
    let id = &state.id;
    if !registry.container_dir(id).exists() {
        // The watcher has cleaned up itself. Other watchers that were killed may have left remote
        // devices.
        worker::release(registry.root(), Release::EndedContainers, RELEASE_TIMEOUT);
        return Ok(());
    }
    registry.check()?;
    if let Some(init) = registry.recorded_init(id) {
        if keeps_running(state, &init) {
            report_kept(state, &init);
            return Ok(());
        }
    }
    let started = Instant::now();
    // A second watcher may be taking over from the first one: then both must end.
    while registry.is_watched(id) && started.elapsed() < END_TIMEOUT * 2 {
        if !end_watcher(id, registry) {
            // The next container with this id has started.
            return Ok(());
        }
    }
    match registry.lock(id, LOCK_TIMEOUT) {
        Ok(lock) if lock.recorded_init().is_some_and(|init| init.running().is_some()) => return Ok(()),
        // The watcher was killed, and the cgroup still exists: the record stays for the next
        // watcher or hook.
        Ok(lock) if leftovers::is_in_force(&lock) => {
            drop(lock);
            if !revoke_leftovers(registry, id) {
                tracing::warn!(container = %id, "poststop: the access of the container could not be revoked yet; its record stays until it is (`oci-hotplug recover` tries again)");
            }
        }
        Ok(lock) => {
            leftovers::remove_files(&lock);
            lock.remove()?;
        }
        // The watcher has removed the record itself.
        Err(RegistryError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // The watcher has released its remote devices, unless it ended before the container. Other
    // watchers may have been killed.
    worker::release(registry.root(), Release::EndedContainers, RELEASE_TIMEOUT);
    leftovers::clear(registry, |lock| !leftovers::is_in_force(lock))
}

/// Whether the recorded init runs, and does not end soon. Waits only if the state may be that of
/// this init: another pid or bundle belongs to another container.
fn keeps_running(state: &HookState, init: &RecordedInit) -> bool {
    let Some(process) = init.running() else {
        return false;
    };
    !process.wait(match may_be_of(state, init) {
        true => INIT_TIMEOUT,
        false => Duration::ZERO,
    })
}

/// Whether the state may be that of this init. At this stage, some runtimes omit the pid, and
/// others report 0 or the old one.
fn may_be_of(state: &HookState, init: &RecordedInit) -> bool {
    state.pid.is_none_or(|pid| pid == init.pid)
        && state.bundle.as_ref().is_none_or(|bundle| *bundle == init.bundle)
}

fn report_kept(state: &HookState, init: &RecordedInit) {
    tracing::warn!(
        container = %state.id,
        "poststop: a container with this id still runs (process {}, bundle {}); its watcher and record stay",
        init.pid,
        shown(&init.bundle.to_string_lossy(), MAX_SHOWN)
    );
}

/// Ends the watcher of a container that has stopped: SIGTERM, then SIGKILL. Does nothing, and
/// returns `false`, if the record is that of a running container by now.
///
/// The lock file has the start time of the process, so that a process with a reused pid is not
/// signalled. The process is looked up before the record is read, because a hook writes the record
/// before it starts the watcher.
fn end_watcher(id: &ContainerId, registry: &Registry) -> bool {
    let started = Instant::now();
    loop {
        let watcher = registry
            .watcher(id)
            .and_then(|watcher| Process::open(watcher.pid, watcher.start_time).ok());
        if registry
            .recorded_init(id)
            .is_some_and(|init| init.running().is_some())
        {
            return false;
        }
        match watcher {
            Some(watcher) => {
                stop(id, &watcher);
                return true;
            }
            // The watcher has just been started, or has just ended.
            None if registry.is_watched(id) && started.elapsed() < END_TIMEOUT => {
                std::thread::sleep(Duration::from_millis(2));
            }
            None => return true,
        }
    }
}

fn stop(id: &ContainerId, watcher: &Process) {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        if let Err(error) = watcher.signal(signal) {
            tracing::warn!(container = %id, "{error}");
        }
        if watcher.wait(END_TIMEOUT) {
            return;
        }
        tracing::warn!(container = %id, "the watcher did not end on {signal}");
    }
}
