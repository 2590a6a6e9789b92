//! A state directory that is removed while its container runs (by a cleaner of /run, by mistake) is made again: the
//! container goes on being listed, asked and cleaned up, and its devices go on coming and going.

use super::Watcher;
use super::event_loop::WatcherError;
use super::transaction::Effects;
use crate::host::process::start_time;
use crate::host::state::control::ControlSocket;
use crate::host::state::registry::{RecordLock, Registry, WatcherProcess};
use crate::model::oci::ContainerId;

/// What became of the container's entry.
pub(super) enum Entry {
    /// It is as it was.
    InPlace,
    /// It was gone, and is there again: others talk to us through this socket now.
    Restored(ControlSocket),
    /// It was gone, and another watcher has it by now.
    Taken,
}

impl Watcher {
    /// Looks whether the container's entry is still there, and makes it again if it is not. To be asked each second.
    pub(super) fn restore(&mut self) -> Entry {
        if self.inside.lock().is_in_place() {
            return Entry::InPlace;
        }
        let id = &self.record.container.id;
        match self.make_entry() {
            Ok(Some((lock, control))) => {
                tracing::warn!(container = %id, "{} was removed; it is made again", lock.dir().display());
                self.inside.set_lock(lock);
                self.restore_problem = None;
                // Locks on files that nobody finds keep nobody out: the next plan asks for each lease anew.
                self.admission.renew_leases(self.inside.lock().state_dir());
                if let Err(error) = self.inside.journal(&self.attachments) {
                    self.note_access_problem(Some(error.to_string()));
                }
                Entry::Restored(control)
            }
            Ok(None) => self.give_way(),
            Err(error) => {
                let problem = Some(error.to_string());
                if self.restore_problem != problem {
                    tracing::error!(container = %id, "{error}");
                }
                self.restore_problem = problem;
                Entry::InPlace
            }
        }
    }

    /// Somebody else has the entry by now: the next watcher of this container, or that of another container with the same id.
    /// In the second case nobody would revoke what this one has.
    fn give_way(&mut self) -> Entry {
        let registry = Registry::new(self.inside.lock().state_dir());
        let id: Option<ContainerId> = self.record.container.id.parse().ok();
        let Some(init) = id.and_then(|id| registry.recorded_init(&id)) else {
            // A hook is about to write the record: the next look tells.
            return Entry::InPlace;
        };
        if !init.is_of(&self.record.container) {
            tracing::error!(
                container = %self.record.container.id,
                "the state directory was removed, and another container with this id (process {}) has its place there; the devices of process {} are taken away",
                init.pid,
                self.record.container.pid
            );
            self.remove_all();
        }
        Entry::Taken
    }

    fn make_entry(&self) -> Result<Option<(RecordLock, ControlSocket)>, WatcherError> {
        let before = self.inside.lock();
        let registry = Registry::new(before.state_dir());
        let id: Option<ContainerId> = self.record.container.id.parse().ok();
        let Some(lock) = id.map(|id| registry.try_enroll(&id)).transpose()?.flatten() else {
            return Ok(None);
        };
        let pid = i32::try_from(std::process::id()).unwrap_or_default();
        lock.sign(WatcherProcess {
            pid,
            start_time: start_time(pid)?,
        })?;
        lock.write_record(&self.record)?;
        let control = ControlSocket::bind(lock.dir_fd(), lock.dir())?;
        Ok(Some((lock, control)))
    }
}
