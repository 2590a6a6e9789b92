//! poststop: ends the container's watcher and removes its record. Whatever was or was not done before.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::host::leftovers;
use crate::host::process::Process;
use crate::host::registry::{Registry, RegistryError};
use crate::model::oci::ContainerId;
use crate::usbip::worker::{self, GIVE_BACK, What};

/// How long the watcher may take to end by itself.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// How long the lock may take to be free once the watcher is dead.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Ends the watcher of a container, if there is one, and removes what is noted of the container, if anything is.
///
/// # Errors
/// When something is left that can't be removed.
pub fn run(id: &ContainerId, registry: &Registry) -> Result<(), RegistryError> {
    if !registry.container_dir(id).exists() {
        // Its watcher saw the end itself. Of a watcher that was killed meanwhile a remote device may be left.
        worker::release(registry.root(), What::Strays, GIVE_BACK);
        return Ok(());
    }
    registry.check()?;
    let started = Instant::now();
    // One may just be taking over from another: then that one has to be ended, too.
    while registry.is_watched(id) && started.elapsed() < END_PATIENCE * 2 {
        end_watcher(id, registry);
    }
    match registry.lock(id, LOCK_PATIENCE) {
        Ok(lock) => lock.remove()?,
        // The watcher saw the end itself, and has removed the record.
        Err(RegistryError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // Its watcher has given its remote devices back, unless it ended before the container did. Others may have been killed
    // without anybody to do this.
    worker::release(registry.root(), What::Strays, GIVE_BACK);
    leftovers::clear(registry)
}

/// Asks it to end, and sees to it that it does. Which process it is, the lock tells, with its start time: a
/// reused pid is left alone.
fn end_watcher(id: &ContainerId, registry: &Registry) {
    let started = Instant::now();
    let watcher = loop {
        match registry
            .watcher(id)
            .and_then(|said| Process::open(said.pid, said.start_time).ok())
        {
            Some(watcher) => break watcher,
            // It has just been started, or has just ended.
            None if registry.is_watched(id) && started.elapsed() < END_PATIENCE => {
                std::thread::sleep(Duration::from_millis(2));
            }
            None => return,
        }
    };
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        if let Err(error) = watcher.signal(signal) {
            tracing::warn!(container = %id, "{error}");
        }
        if watcher.wait(END_PATIENCE) {
            return;
        }
        tracing::warn!(container = %id, "the watcher did not end on {signal}");
    }
}
