//! Handover: a new watcher process replaces this one while the container runs. Both ends.
//!
//! The old watcher changes nothing in its container. The new one gets lock and leases as open
//! files, so that they stay locked throughout, and reads from the host what has happened in the
//! meantime.

use std::fs::File;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::error::WatcherError;
use super::inside::Inside;
use super::systemd_unit::SystemdUnit;
use crate::host::process::Process;
use crate::host::state::control::{self, ControlClient, ControlResponse};
use crate::host::state::error::RegistryError;
use crate::host::state::leases::Leases;
use crate::host::state::record_lock::RecordLock;
use crate::host::state::registry::Registry;
use crate::model::oci::ContainerId;

/// How long the old watcher may take to hand over: longer than the attempt to attach a remote
/// device that it may wait for.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The pause before another request to a watcher that is starting or ending.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// Takes over the container's lock and leases from its watcher, or takes them when they are free.
///
/// # Errors
/// When the container is not enrolled, its lock cannot be opened, or its watcher does not hand over
/// in time.
pub(super) fn take_over(registry: &Registry, id: &ContainerId) -> Result<(RecordLock, Leases), WatcherError> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match registry.lock(id, Duration::ZERO) {
            Err(RegistryError::Locked { .. }) if !left.is_zero() => {}
            Err(RegistryError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err(WatcherError::NotEnrolled(id.clone(), registry.root().to_owned()));
            }
            lock => return Ok((lock?, Leases::new(registry.root()))),
        }
        let dir = registry.container_dir(id);
        match control::request_handover(&dir, left) {
            Ok(Some(mut files)) if !files.is_empty() => {
                let lock = registry.inherit_lock(id, files.remove(0))?;
                return Ok((lock, Leases::inherit(registry.root(), files)));
            }
            // An older version does not know this request.
            Ok(_) => {
                let watcher = registry.watcher(id);
                if let Some(old) = watcher.and_then(|old| Process::open(old.pid, old.start_time).ok()) {
                    let _ = old.signal(Signal::SIGTERM);
                }
            }
            Err(_) => {}
        }
        std::thread::sleep(RETRY_INTERVAL);
    }
}

/// The handover to another watcher on request. The request usually comes from the watcher that the
/// systemd unit has started.
pub(super) struct Handover {
    unit: SystemdUnit,
    /// The watcher that requests the handover.
    successor: Option<ControlClient>,
}

impl Handover {
    pub(super) fn new(unit: SystemdUnit) -> Self {
        Self {
            unit,
            successor: None,
        }
    }

    /// Stores a request for a handover.
    pub(super) fn request(&mut self, successor: ControlClient) {
        self.successor = Some(successor);
    }

    pub(super) fn is_requested(&self) -> bool {
        self.successor.is_some()
    }

    /// Sends lock and leases to the new watcher. Returns whether it has received them; then this
    /// watcher must not touch the container any more.
    pub(super) fn hand_over<'l>(
        &mut self,
        inside: &mut Inside,
        leases: impl Iterator<Item = &'l File>,
    ) -> bool {
        let Some(mut successor) = self.successor.take() else {
            return false;
        };
        inside.note_end();
        let mut files = vec![inside.lock().file().as_fd()];
        files.extend(leases.map(|file| file.as_fd()));
        let is_taken = successor.hand_over(&ControlResponse::HandedOver, &files);
        if !is_taken {
            inside.count(|counters| counters.running = true);
        }
        is_taken
    }

    /// Whether a handover or the start of the unit is still to be done.
    pub(super) fn awaits_check(&self) -> bool {
        self.is_requested() || matches!(self.unit, SystemdUnit::Starting(_))
    }

    /// Notifies systemd, or starts the unit. `is_idle` says that no client waits.
    pub(super) fn maintain_unit(&mut self, inside: &Inside, has_problems: bool, is_idle: bool) {
        self.unit.maintain(inside, has_problems, is_idle);
    }
}
