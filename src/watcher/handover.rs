//! Another watcher process takes this one's place while the container runs: both ends of the
//! handover.
//!
//! The old watcher leaves its container as it is. The new one gets lock and leases as open files,
//! so that they are never free in between, and finds out by itself what has happened on the host
//! meanwhile.

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

/// How long the old watcher may take to leave: longer than an attempt to attach a remote device
/// that it waits for.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The interval between two requests to a watcher that is starting or ending.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// Takes the container's lock and its leases from the watcher that has them, or when they are free.
///
/// # Errors
/// When the container is not enrolled, or its watcher does not leave.
pub(super) fn take_over(registry: &Registry, id: &ContainerId) -> Result<(RecordLock, Leases), WatcherError> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let lock = match registry.lock(id, Duration::ZERO) {
            Err(RegistryError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err(WatcherError::NotEnrolled(id.clone(), registry.root().to_owned()));
            }
            lock => lock,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if lock.is_ok() || left.is_zero() {
            return Ok((lock?, Leases::new(registry.root())));
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

/// How another process may take this watcher's place: on request, which comes from the systemd
/// unit's watcher as a rule.
pub(super) struct Handover {
    unit: SystemdUnit,
    /// The watcher that wants to take over.
    successor: Option<ControlClient>,
}

impl Handover {
    pub fn new(unit: SystemdUnit) -> Self {
        Self {
            unit,
            successor: None,
        }
    }

    /// Notes a watcher that wants to take over.
    pub fn request(&mut self, successor: ControlClient) {
        self.successor = Some(successor);
    }

    pub fn is_requested(&self) -> bool {
        self.successor.is_some()
    }

    /// Gives the successor lock and leases. Returns whether it has taken them; then this watcher
    /// has no part in the container any more.
    pub fn hand_over<'l>(&mut self, inside: &mut Inside, leases: impl Iterator<Item = &'l File>) -> bool {
        let Some(mut successor) = self.successor.take() else {
            return false;
        };
        inside.note_end();
        let mut files = vec![inside.lock().file().as_fd()];
        files.extend(leases.map(|file| file.as_fd()));
        let is_taken = successor.hand_over(&ControlResponse::HandedOver, &files);
        if !is_taken {
            inside.count(|counters| counters.at_work = true);
        }
        is_taken
    }

    /// Keeps systemd informed, or starts the unit. `is_idle` says that no client waits.
    pub fn maintain_unit(&mut self, inside: &Inside, has_problems: bool, is_idle: bool) {
        self.unit.maintain(inside, has_problems, is_idle);
    }
}
