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

use crate::host::state::error::RegistryError;
use crate::host::state::flock::{self, Lock};
use crate::host::state::journal::{self, Journaled};
use crate::host::state::record::{Record, RecordedInit, read_init, read_json};
use crate::host::state::record_lock::{ATTACHED, RecordLock, WatcherProcess};
use crate::host::state::trust;
use crate::model::oci::ContainerId;

/// The default state directory.
pub const DEFAULT_STATE_DIR: &str = "/run/oci-hotplug";

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
        let text = fs::read(self.container_dir(id).join("lock")).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Whether a watcher holds the container's lock now.
    pub fn is_watched(&self, id: &ContainerId) -> bool {
        let Ok(file) = File::open(self.container_dir(id).join("lock")) else {
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
mod tests {
    use super::*;
    use crate::host::container::ContainerFacts;
    use crate::host::state::journal_writer::JournalWriter;
    use crate::host::state::notes::Notes;
    use crate::host::state::versioned::STATE_VERSION;
    use crate::model::oci::ProcessUser;
    use crate::model::policy::ContainerTraits;
    use crate::model::request::entry::RequestEntry;
    use std::os::unix::fs::MetadataExt;

    fn id(text: &str) -> ContainerId {
        text.parse().unwrap()
    }

    fn record(name: &str) -> Record {
        Record {
            version: STATE_VERSION,
            container: ContainerFacts {
                id: name.into(),
                pid: 1,
                start_time: 2,
                bundle: "/b".into(),
                rootfs: "/b/rootfs".into(),
                cgroups_path: None,
                user: ProcessUser { uid: 0, gid: 0 },
            },
            requests: vec![RequestEntry::new(
                crate::model::request::entry::Origin::Annotation,
                "usb:0403:6001;access=r".parse().unwrap(),
            )],
            symlinks: Vec::new(),
            traits: ContainerTraits::default(),
            config: None,
            udev: crate::model::udev_database::UdevMode::Auto,
            boot: String::new(),
            enrolled: 3,
        }
    }

    fn notes(directory: &str) -> Notes {
        Notes {
            version: STATE_VERSION,
            directories: [directory.into()].into(),
            ..Notes::default()
        }
    }

    #[test]
    fn a_record_is_read_back_and_only_root_can_read_it() {
        let scratch = tempfile::tempdir().unwrap();
        let registry = Registry::new(scratch.path().join("state"));
        let lock = registry.try_enroll(&id("c1")).unwrap().unwrap();
        lock.write_record(&record("c1")).unwrap();
        assert_eq!(registry.record(&id("c1")).unwrap(), Some(record("c1")));
        let mode = |path: PathBuf| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(lock.dir().to_owned()), 0o700);
        assert_eq!(mode(lock.dir().join("record.json")), 0o600);
        assert_eq!(mode(registry.root().to_owned()), 0o700);
    }

    #[test]
    fn the_lock_is_exclusive_and_dropping_releases_it() {
        let scratch = tempfile::tempdir().unwrap();
        let registry = Registry::new(scratch.path());
        let lock = registry.try_enroll(&id("c1")).unwrap().unwrap();
        assert!(registry.is_watched(&id("c1")));
        assert!(registry.try_enroll(&id("c1")).unwrap().is_none());
        let error = registry.lock(&id("c1"), Duration::ZERO).unwrap_err();
        assert!(matches!(error, RegistryError::Locked { .. }), "{error}");
        drop(lock);
        assert!(!registry.is_watched(&id("c1")));
        assert!(registry.try_enroll(&id("c1")).unwrap().is_some());
    }

    #[test]
    fn a_sweep_removes_only_entries_without_watcher_that_do_not_stay() {
        let scratch = tempfile::tempdir().unwrap();
        let registry = Registry::new(scratch.path());
        for name in ["dead", "alive", "watched"] {
            let lock = registry.try_enroll(&id(name)).unwrap().unwrap();
            lock.write_record(&record(name)).unwrap();
        }
        drop(registry.try_enroll(&id("never-recorded")).unwrap());
        let _watcher = registry.try_lock(&id("watched")).unwrap().unwrap();
        let swept = registry
            .sweep(|record, _| record.container.id == "alive")
            .unwrap();
        assert_eq!(swept, [id("dead"), id("never-recorded")]);
        assert_eq!(registry.ids().unwrap(), [id("alive"), id("watched")]);
    }

    #[test]
    fn a_record_of_a_newer_version_is_an_error_with_a_hint() {
        let scratch = tempfile::tempdir().unwrap();
        let registry = Registry::new(scratch.path());
        let lock = registry.try_enroll(&id("c1")).unwrap().unwrap();
        fs::write(
            lock.dir().join("record.json"),
            r#"{"version":99,"something":"new"}"#,
        )
        .unwrap();
        let error = lock.record().unwrap_err().to_string();
        assert!(
            error.contains("version 99") && error.contains("install the newer oci-hotplug"),
            "{error}"
        );
    }

    #[test]
    fn a_torn_record_is_an_error_that_names_the_file() {
        let scratch = tempfile::tempdir().unwrap();
        let registry = Registry::new(scratch.path());
        let lock = registry.try_enroll(&id("c1")).unwrap().unwrap();
        fs::write(lock.dir().join("record.json"), r#"{"version":1,"cont"#).unwrap();
        assert!(lock.record().unwrap_err().to_string().contains("record.json"));
    }

    #[test]
    fn an_absent_state_directory_has_no_containers() {
        let scratch = tempfile::tempdir().unwrap();
        let registry = Registry::new(scratch.path().join("nowhere"));
        assert!(registry.ids().unwrap().is_empty());
        assert!(registry.record(&id("c1")).unwrap().is_none());
        assert!(!registry.root().exists());
    }

    #[test]
    fn a_lock_of_a_removed_directory_does_not_block_a_new_one() {
        let scratch = tempfile::tempdir().unwrap();
        let registry = Registry::new(scratch.path());
        let old = registry.try_enroll(&id("c1")).unwrap().unwrap();
        fs::remove_dir_all(old.dir()).unwrap();
        let new = registry.try_enroll(&id("c1")).unwrap();
        assert!(new.is_some());
    }

    /// Case security 6.
    #[test]
    fn the_holder_of_a_removed_entry_cannot_change_the_new_entry() {
        let scratch = tempfile::tempdir().unwrap();
        let registry = Registry::new(scratch.path());
        let old = registry.try_enroll(&id("c1")).unwrap().unwrap();
        old.write_record(&record("old")).unwrap();
        let mut journal = JournalWriter::default();
        journal.write(&old, notes("old")).unwrap();
        fs::remove_dir_all(old.dir()).unwrap();
        let new = registry.try_enroll(&id("c1")).unwrap().unwrap();
        new.write_record(&record("new")).unwrap();
        JournalWriter::default().write(&new, notes("new")).unwrap();
        let files = || {
            let entries = fs::read_dir(new.dir())
                .unwrap()
                .map(|entry| entry.unwrap().path());
            let mut files: Vec<_> = entries.map(|path| (fs::read(&path).unwrap(), path)).collect();
            files.sort();
            files
        };
        let before = files();
        for error in [
            journal.write(&old, notes("changed")),
            old.write_record(&record("old")),
        ]
        .map(Result::unwrap_err)
        {
            assert!(matches!(error, RegistryError::Io { .. }), "{error}");
        }
        old.remove().unwrap();
        assert_eq!(files(), before);
    }
}
