//! Decides whether the container has a udev database, creates its files, and keeps it mounted.

use std::time::{Duration, Instant};

use super::error::EffectError;
use crate::host::backoff::Backoff;
use crate::host::container::Container;
use crate::host::container_dev::{AtRunUdev, ContainerDev, ContainerDevError, DirectoryIdentity};
use crate::host::state::record_lock::RecordLock;
use crate::host::udev_database::{UdevDatabase, UdevDatabaseError};
use crate::model::udev_database::{DatabaseId, DatabaseState, Entries, EntryFacts, UdevMode};

/// The first and the maximum interval between two attempts to place it.
const FIRST_INTERVAL: Duration = Duration::from_secs(2);
const MAX_INTERVAL: Duration = Duration::from_secs(60);

/// The udev database of the container.
pub(super) struct ContainerDatabase {
    state: DatabaseState,
    /// The files; `None` if the container never had a database.
    files: Option<UdevDatabase>,
    /// Earlier files, which were removed from the state directory: the container may still have
    /// them mounted.
    replaced: Option<DirectoryIdentity>,
    /// When to look again; `None`: at once.
    due: Option<Instant>,
    backoff: Backoff,
    /// Whether it was found mounted by this watcher.
    was_found: bool,
}

impl ContainerDatabase {
    /// Opens the files of an earlier watcher, if there are any. Nothing is mounted yet.
    pub(super) fn open(mode: UdevMode, lock: &RecordLock) -> Self {
        let (files, state) = match mode {
            UdevMode::Never => (None, DatabaseState::Never),
            UdevMode::Auto => match UdevDatabase::open(lock.dir_fd()) {
                Ok(files) => (files, DatabaseState::Placed),
                Err(error) => (None, failure(&error.into())),
            },
        };
        Self {
            state,
            files,
            replaced: None,
            due: None,
            backoff: Backoff::new(FIRST_INTERVAL),
            was_found: false,
        }
    }

    pub(super) fn state(&self) -> &DatabaseState {
        &self.state
    }

    /// The entries; `None` if the container has no database.
    pub(super) fn entries(&self) -> Option<&Entries> {
        self.files.as_ref().map(UdevDatabase::entries)
    }

    /// Whether [`Self::ensure`] must run before a plan, because what it finds decides whether the
    /// container has entries. Otherwise it may run after the nodes, which programs wait for.
    pub(super) fn is_undecided(&self) -> bool {
        !self.was_found
    }

    /// Ends the pause before the next attempt.
    pub(super) fn end_pause(&mut self) {
        self.backoff.reset();
        self.due = None;
    }

    /// Mounts the database if it is due and not mounted. Logs a state that is new.
    pub(super) fn ensure(&mut self, dev: &mut ContainerDev, container: &Container, lock: &RecordLock) {
        let is_due = self.due.is_none_or(|due| due <= Instant::now());
        if self.state == DatabaseState::Never || !is_due {
            return;
        }
        let state = self
            .place(dev, container, lock)
            .unwrap_or_else(|error| failure(&error));
        self.was_found = state == DatabaseState::Placed;
        if self.was_found {
            self.end_pause();
        } else {
            self.due = Some(Instant::now() + self.backoff.failed(MAX_INTERVAL));
        }
        if state != self.state {
            let id = &container.facts().id;
            match &state {
                DatabaseState::Failed { .. } => tracing::warn!(container = %id, "udev database: {state}"),
                _ => tracing::info!(container = %id, "udev database: {state}"),
            }
        }
        self.state = state;
    }

    fn place(
        &mut self,
        dev: &mut ContainerDev,
        container: &Container,
        lock: &RecordLock,
    ) -> Result<DatabaseState, EffectError> {
        let identity = self.files.as_ref().map(UdevDatabase::identity);
        match dev.find_database(identity, self.replaced)? {
            AtRunUdev::Database => return Ok(DatabaseState::Placed),
            AtRunUdev::Mount => return Ok(DatabaseState::Mounted),
            AtRunUdev::Files => return Ok(DatabaseState::Image),
            AtRunUdev::Nothing => {}
        }
        if self.files.is_none() && !container.facts().read_only_sys && dev.has_writable_sys()? {
            return Ok(DatabaseState::WritableSys);
        }
        let Some(namespace) = container.own_mount_namespace()? else {
            return Ok(DatabaseState::Failed {
                reason: "the container shares the host's mount namespace".to_owned(),
            });
        };
        let files = match &self.files {
            Some(files) => files,
            None => self.files.insert(UdevDatabase::create(lock.dir_fd())?),
        };
        dev.mount_database(files.directory(), self.replaced, &namespace)?;
        Ok(DatabaseState::Placed)
    }

    /// The container's directory in the state directory was removed and created again: the files
    /// are created again, too.
    pub(super) fn restart(&mut self) {
        self.was_found = false;
        let old = self.files.take();
        self.replaced = old.map(|files| files.identity()).or(self.replaced);
    }

    pub(super) fn write(&mut self, id: &DatabaseId, facts: &EntryFacts) -> Result<(), UdevDatabaseError> {
        match &mut self.files {
            Some(files) => files.write(id, facts),
            None => Ok(()),
        }
    }

    pub(super) fn remove(&mut self, id: &DatabaseId) -> Result<(), UdevDatabaseError> {
        match &mut self.files {
            Some(files) => files.remove(id),
            None => Ok(()),
        }
    }
}

fn failure(error: &EffectError) -> DatabaseState {
    let reason = match error {
        EffectError::Dev(ContainerDevError::ReadOnly { path, .. }) => format!(
            "{} in the container is missing, and its file system is read-only (mount a tmpfs on /run)",
            path.display()
        ),
        EffectError::Dev(
            ContainerDevError::InTheWay { path, found } | ContainerDevError::Taken { path, found },
        ) => format!(
            "{} in the container is {found} (replace it by a directory, then run `oci-hotplug reload`)",
            path.display()
        ),
        error => error.to_string(),
    };
    DatabaseState::Failed { reason }
}
