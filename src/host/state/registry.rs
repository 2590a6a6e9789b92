//! The state directory: which containers have a watcher, and what each watcher has created.
//!
//! ```text
//! /run/oci-hotplug/                 0700
//!   containers/<id>/record.json     the container and its requests; versioned, temp + rename, 0600
//!                   attached.jsonl  what the watcher has created, written before each plan is
//!                                   applied: a journal (`journal`) of the watcher's notes
//!                                   (`notes`); 0600
//!                   lock            flock held by the watcher while it runs: free = no watcher.
//!                                   Content: its pid
//!                   control.sock    control requests to the watcher (`control`)
//!                   udev/           the container's udev database, which it can read
//!                                   (`udev_database`)
//!   leases/                         which containers have a device (`leases`)
//!   cgroups/                        which container owns the device access of a cgroup
//!                                   (`cgroup_owners`)
//!   usbip/                          devices of other hosts (`usbip::records`)
//!   oci-hotplug.log                 the log of a host without journal
//!   refused-starts.json             containers that a hook refused to start (`refused_starts`)
//! ```
//! Does not know what the records mean, nor how a watcher works.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::host::regular_file;
use crate::host::state::error::RegistryError;
use crate::host::state::flock::{self, Lock};
use crate::host::state::journal::{self, Journaled};
use crate::host::state::record::{Record, RecordedInit, read_init, read_json};
use crate::host::state::record_lock::{ATTACHED, RecordLock, WatcherProcess};
use crate::host::state::trust;
use crate::model::oci::ContainerId;

/// The default state directory.
pub(crate) const DEFAULT_STATE_DIR: &str = "/run/oci-hotplug";

/// The state directory.
#[derive(Debug, Clone)]
pub struct Registry {
    root: PathBuf,
}

impl Registry {
    /// A registry in `root`, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Checks that only root (and the user of this process) can change the state directory.
    /// Functions that take a lock call this themselves; call it before acting on anything else that
    /// is read from the directory.
    ///
    /// # Errors
    /// When another user can change it.
    pub fn check(&self) -> Result<(), RegistryError> {
        Ok(trust::check(&self.root)?)
    }

    /// The directory of one container.
    pub fn container_dir(&self, id: &ContainerId) -> PathBuf {
        self.root.join("containers").join(id.as_str())
    }

    /// Creates the container's directory if it is absent, and takes its lock; `None` if a watcher
    /// holds it.
    ///
    /// # Errors
    /// When the state directory cannot be created or written.
    pub fn try_enroll(&self, id: &ContainerId) -> Result<Option<RecordLock>, RegistryError> {
        self.check()?;
        let dir = self.container_dir(id);
        loop {
            flock::create_dir(&dir).map_err(|source| RegistryError::Io {
                action: "create",
                path: dir.clone(),
                source,
            })?;
            match self.try_lock(id) {
                // Another process swept the directory between the two steps.
                Err(RegistryError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => continue,
                other => return other,
            }
        }
    }

    /// Takes the lock of an enrolled container; `None` if a watcher holds it.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when the container is not enrolled.
    pub fn try_lock(&self, id: &ContainerId) -> Result<Option<RecordLock>, RegistryError> {
        self.check()?;
        RecordLock::try_lock(self.container_dir(id))
    }

    /// Takes over the lock from the process that started this one; `lock` is the locked file.
    ///
    /// # Errors
    /// When the container's directory cannot be opened.
    pub fn inherit_lock(&self, id: &ContainerId, lock: File) -> Result<RecordLock, RegistryError> {
        RecordLock::of_locked_file(self.container_dir(id), lock)
    }

    /// Like [`Registry::try_lock`], but waits up to `timeout` for the lock.
    ///
    /// # Errors
    /// [`RegistryError::Locked`] when the time is over.
    pub fn lock(&self, id: &ContainerId, timeout: Duration) -> Result<RecordLock, RegistryError> {
        if let Some(lock) = flock::attempt_until(Instant::now() + timeout, || self.try_lock(id))? {
            return Ok(lock);
        }
        let holder = match self.watcher(id) {
            Some(watcher) => format!("process {}", watcher.pid),
            None => "an unknown process".into(),
        };
        Err(RegistryError::Locked {
            path: self.container_dir(id).join("lock"),
            holder,
            waited: timeout,
        })
    }

    /// The container's watcher according to its lock file. The watcher may have ended: see `lock`.
    pub fn watcher(&self, id: &ContainerId) -> Option<WatcherProcess> {
        let text = regular_file::read(&self.container_dir(id).join("lock")).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Whether a watcher holds the container's lock now.
    pub fn is_watched(&self, id: &ContainerId) -> bool {
        let Ok(file) = regular_file::open_to_read(&self.container_dir(id).join("lock")) else {
            return false;
        };
        // A shared lock does not conflict with other callers of this function, and ends with the
        // descriptor.
        !matches!(flock::try_lock(&file, Lock::Shared), Ok(true))
    }

    /// The record of a container; `None` if it is not enrolled.
    ///
    /// # Errors
    /// When it cannot be read, or is of a newer version.
    pub fn record(&self, id: &ContainerId) -> Result<Option<Record>, RegistryError> {
        read_json(&self.container_dir(id).join("record.json"))
    }

    /// The init in the container's record; `None` if there is no record, or if it has no init.
    pub fn recorded_init(&self, id: &ContainerId) -> Option<RecordedInit> {
        read_init(&self.container_dir(id).join("record.json"))
    }

    /// The notes of a container's watcher; `None` if it has not written any.
    ///
    /// # Errors
    /// When they cannot be read, or are of a newer version.
    pub fn attached<T: Journaled>(&self, id: &ContainerId) -> Result<Option<T>, RegistryError> {
        journal::read(&self.container_dir(id).join(ATTACHED))
    }

    /// The ids of all enrolled containers, sorted. An absent state directory has none.
    ///
    /// # Errors
    /// When the directory exists and cannot be read.
    pub fn ids(&self) -> Result<Vec<ContainerId>, RegistryError> {
        let path = self.root.join("containers");
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => {
                return Err(RegistryError::Io {
                    action: "list",
                    path,
                    source,
                });
            }
        };
        let mut ids: Vec<ContainerId> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        ids.sort();
        Ok(ids)
    }

    /// Removes the directories of containers without a watcher, unless `stays` returns true for the
    /// record or the record cannot be read. Returns the ids that were removed. Never waits.
    ///
    /// # Errors
    /// When the state directory cannot be read. A single entry that cannot be removed is skipped.
    pub fn sweep(
        &self,
        stays: impl Fn(&Record, &RecordLock) -> bool,
    ) -> Result<Vec<ContainerId>, RegistryError> {
        let mut swept = Vec::new();
        for id in self.ids()? {
            let Ok(Some(lock)) = self.try_lock(&id) else {
                continue;
            };
            let leftover = match lock.record() {
                Ok(Some(record)) => !stays(&record, &lock),
                // The hook died between enrolling and recording: it held the lock that we hold now.
                Ok(None) => true,
                Err(_) => false,
            };
            if leftover && lock.remove().is_ok() {
                swept.push(id);
            }
        }
        Ok(swept)
    }
}

#[cfg(test)]
mod tests;
