//! One watcher after another on the same container, while that runs: both ends of the handing over.
//!
//! The first leaves its container as it is; its lock and leases go to the second as open files, so that at no moment they
//! are free. What happens on the host meanwhile, the second sees when it looks.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{Recipient, Watcher, WatcherError};
use crate::host::process::Process;
use crate::host::state::control::{self, ControlResponse};
use crate::host::state::leases::Leases;
use crate::host::state::registry::{RecordLock, Registry, RegistryError};
use crate::model::oci::ContainerId;

/// How long the one that is there may take to leave: longer than what it may be in the middle of.
const TIMEOUT: Duration = Duration::from_secs(15);

/// How long to pause before asking one again that is just starting or ending.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// The container's lock, and the leases that belong to it: from the watcher that is there, else what is free.
///
/// # Errors
/// When the container is not enrolled, or the one that is there does not leave.
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
        match control::ask_to_leave(&dir, left) {
            Ok(Some(mut files)) if !files.is_empty() => {
                let lock = RecordLock::inherit(registry, id, files.remove(0))?;
                return Ok((lock, Leases::inherit(registry.root(), files)));
            }
            // An older version does not know the question, but this.
            Ok(_) => {
                let said = registry.watcher(id);
                if let Some(old) = said.and_then(|said| Process::open(said.pid, said.start_time).ok()) {
                    let _ = old.signal(Signal::SIGTERM);
                }
            }
            Err(_) => {}
        }
        std::thread::sleep(RETRY_INTERVAL);
    }
}

impl Watcher {
    /// Hands everything over to who wants to be the watcher, if somebody does; whether we have no part in the container
    /// any more. While a start waits for us, or a signal is still to be sent, it must wait as well.
    pub(super) fn is_relieved(&mut self) -> bool {
        let starts = |waiter: &super::Waiter| matches!(waiter.recipient, Recipient::Starter(_));
        if self.kill_at.is_some() || self.waiters.iter().any(starts) {
            return false;
        }
        if self.successor.is_none() || self.attempts() {
            return false;
        }
        let Some(mut successor) = self.successor.take() else {
            return false;
        };
        self.note_end();
        // The next one makes its own attempts, and is not to find ours at work.
        self.end_attempts();
        let mut files = vec![self.inside.lock().file().as_fd()];
        files.extend(self.admission.lease_files().map(|file| file.as_fd()));
        let relieved = successor.hand_over(&ControlResponse::HandedOver, &files);
        if relieved {
            self.admission.forget_leases();
        } else {
            self.inside.count(|tally| tally.at_work = true);
        }
        relieved
    }
}
