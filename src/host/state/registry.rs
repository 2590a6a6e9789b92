//! The state directory: which containers have a watcher, and what each watcher has made.
//!
//! ```text
//! /run/oci-hotplug/                 0700
//!   containers/<id>/record.json     what was asked and of whom; versioned, temp + rename, 0600
//!                   attached.json   what the watcher made, written ahead of each plan
//!                   lock            flock held by the watcher for life: free = no watcher. Content: its pid
//!                   control.sock    how others talk to the watcher (`control`)
//!   leases/                         which containers have a device (`leases`)
//!   cgroups/                        which container's device access a cgroup has (`cgroup_owners`)
//!   oci-hotplug.log                 the log of a host without journal
//!   refused-starts.json             containers that a hook refused (`refused_starts`)
//! ```
//! Must not know what the records mean, nor how a watcher works.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::host::container::ContainerFacts;
use crate::host::process::{Process, boot_id};
use crate::host::state::atomic_file::{Durability, replace};
use crate::host::state::flock::{self, Lock};
use crate::host::state::trust::{self, Untrusted};
use crate::model::oci::ContainerId;
use crate::model::policy::Circumstances;
use crate::model::quoting::shown;
use crate::model::request::entry::RequestEntry;
use crate::model::request::symlink::SymlinkRule;

/// Where the state lives when nothing else is said.
pub const DEFAULT_STATE_DIR: &str = "/run/oci-hotplug";

/// The version of record.json and attached.json that this program writes; it reads all up to this one.
pub const STATE_VERSION: u32 = 1;

/// How many characters of a path that others chose appear in a message.
const MAX_SHOWN: usize = 200;

/// A container that has, had, or is about to have a watcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`STATE_VERSION`] of whoever wrote it.
    pub version: u32,
    /// The container.
    pub container: ContainerFacts,
    /// What was asked for.
    pub requests: Vec<RequestEntry>,
    /// Rules for further links.
    pub symlinks: Vec<SymlinkRule>,
    /// When the first hook enrolled it: seconds since 1970.
    pub enrolled: u64,
    /// What the conditions of the policy's rules look at.
    #[serde(default)]
    pub circumstances: Circumstances,
    /// The configuration that was named to the hook, absolute: a watcher that comes later reads the same.
    #[serde(default)]
    pub config: Option<PathBuf>,
    /// The boot in which it was enrolled (`process::boot_id`): a state directory may outlive that, and pids and start
    /// times come again.
    #[serde(default)]
    pub boot: String,
}

impl Record {
    /// Whether the container's init still runs: the same process, in the same boot.
    pub fn is_running(&self) -> bool {
        self.init().running().is_some()
    }

    /// The init process that the container is identified by.
    pub fn init(&self) -> RecordedInit {
        RecordedInit {
            pid: self.container.pid,
            start_time: self.container.start_time,
            bundle: self.container.bundle.clone(),
            boot: self.boot.clone(),
        }
    }

    /// Whether it is of this container, and not of an earlier one of the same id.
    pub fn is_of(&self, container: &ContainerFacts) -> bool {
        (self.container.pid, self.container.start_time) == (container.pid, container.start_time)
    }

    /// With what a further hook of the same container asks for: what is new goes behind, so that the order stays.
    #[must_use]
    pub fn joined_by(mut self, further: &Record) -> Self {
        for entry in &further.requests {
            if !self.requests.contains(entry) {
                self.requests.push(entry.clone());
            }
        }
        for rule in &further.symlinks {
            if !self.symlinks.contains(rule) {
                self.symlinks.push(rule.clone());
            }
        }
        self
    }
}

/// What identifies the container that a record describes. An id alone does not: two runtime roots, containerd namespaces
/// or engines can use one id at the same time, and a restarted container has the id of its predecessor.
///
/// Also read from records of newer versions, so that no program removes the record of a running container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedInit {
    /// The host's pid of init.
    pub pid: i32,
    /// Clock ticks since boot, see [`crate::host::process::start_time`].
    pub start_time: u64,
    /// The bundle's directory; empty when the record has none.
    pub bundle: PathBuf,
    /// The boot of the record; empty when unknown.
    pub boot: String,
}

impl RecordedInit {
    /// The process, if it still runs. A zombie does not.
    pub fn running(&self) -> Option<Process> {
        let now = boot_id();
        if !self.boot.is_empty() && !now.is_empty() && self.boot != now {
            return None;
        }
        Process::open(self.pid, self.start_time).ok()
    }

    /// Whether it is the init of this container.
    pub fn is_of(&self, container: &ContainerFacts) -> bool {
        (self.pid, self.start_time) == (container.pid, container.start_time)
    }
}

/// What can go wrong with the state directory.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A file or directory could not be handled.
    #[error("{doing} {path}: {source} (the state directory must be writable for root; --state-dir names another)", path = path.display())]
    Io {
        /// What was being done, as a gerund.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A file of ours does not hold what it should.
    #[error("reading {path}: {source} (written by another program? remove the directory once its container is gone)", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A newer oci-hotplug wrote it.
    #[error("reading {path}: it has version {version}, and this oci-hotplug knows versions up to {STATE_VERSION} (install the newer one)", path = path.display())]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// Another running container has this id.
    #[error(
        "container id {id} is in use by another running container (process {pid}, bundle {}): stop that container, or start this one with another id; different engines, runtime roots and containerd namespaces must not use the same id",
        shown(&bundle.to_string_lossy(), MAX_SHOWN)
    )]
    IdInUse {
        /// The id.
        id: String,
        /// The host's pid of the other container's init.
        pid: i32,
        /// The other container's bundle.
        bundle: PathBuf,
    },
    /// Others than root have a say in the state directory.
    #[error("{0} (--state-dir)")]
    Untrusted(#[from] Untrusted),
    /// A lock was not let go in time.
    #[error("waiting for {path}: still locked by {holder} after {waited:?}", path = path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Who holds it, as far as known.
        holder: String,
        /// How long was waited.
        waited: Duration,
    },
}

/// What a lock's content says of the watcher that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatcherProcess {
    /// Its process id.
    pub pid: i32,
    /// When it started: clock ticks since boot, so that a reused pid is not taken for it.
    pub start_time: u64,
}

/// The state directory.
#[derive(Debug, Clone)]
pub struct Registry {
    root: PathBuf,
}

/// One container's directory, and the right to change what is in it.
#[derive(Debug)]
pub struct RecordLock {
    dir: PathBuf,
    dir_fd: OwnedFd,
    lock: File,
}

impl Registry {
    /// A registry in `root`, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The state directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Sees to it that nobody but root (or whoever this is) has a say in the state directory. What takes a lock asks
    /// by itself; to be asked before anything else is read there that is acted upon.
    ///
    /// # Errors
    /// When somebody has.
    pub fn check(&self) -> Result<(), RegistryError> {
        Ok(trust::check(&self.root)?)
    }

    /// The directory of one container.
    pub fn container_dir(&self, id: &ContainerId) -> PathBuf {
        self.root.join("containers").join(id.as_str())
    }

    /// Makes the container's directory if need be and takes its lock, if it is free; `None` when a watcher has it.
    ///
    /// # Errors
    /// When the state directory can't be made or written.
    pub fn try_enroll(&self, id: &ContainerId) -> Result<Option<RecordLock>, RegistryError> {
        self.check()?;
        let dir = self.container_dir(id);
        loop {
            flock::create_dir(&dir).map_err(|source| RegistryError::Io {
                doing: "making",
                path: dir.clone(),
                source,
            })?;
            match self.try_lock(id) {
                // Somebody swept the directory between our two steps.
                Err(RegistryError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => continue,
                other => return other,
            }
        }
    }

    /// Takes the lock of a container that is enrolled; `None` when a watcher has it.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when the container is not enrolled.
    pub fn try_lock(&self, id: &ContainerId) -> Result<Option<RecordLock>, RegistryError> {
        self.check()?;
        let dir = self.container_dir(id);
        let path = dir.join("lock");
        let io = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| RegistryError::Io { doing, path, source }
        };
        loop {
            let dir_fd = open_dir(&dir).map_err(io("opening", &dir))?;
            let lock = flock::open_or_create(&path).map_err(io("opening", &path))?;
            if !flock::try_lock(&lock, Lock::Exclusive).map_err(io("locking", &path))? {
                return Ok(None);
            }
            // The directory may have been swept, and made anew, while we were about to lock: then what we
            // hold is the lock of a file that nobody else can find.
            if flock::is_same_file(&lock, &path) {
                return Ok(Some(RecordLock { dir, dir_fd, lock }));
            }
        }
    }

    /// As [`Registry::try_lock`], waiting up to `patience` for the lock.
    ///
    /// # Errors
    /// [`RegistryError::Locked`] when the time is over.
    pub fn lock(&self, id: &ContainerId, patience: Duration) -> Result<RecordLock, RegistryError> {
        if let Some(lock) = flock::attempt_until(Instant::now() + patience, || self.try_lock(id))? {
            return Ok(lock);
        }
        let holder = match self.watcher(id) {
            Some(watcher) => format!("process {}", watcher.pid),
            None => "a process that has not said who it is".into(),
        };
        Err(RegistryError::Locked {
            path: self.container_dir(id).join("lock"),
            holder,
            waited: patience,
        })
    }

    /// Which process says that it is the container's watcher. It may have died since: see `lock`.
    pub fn watcher(&self, id: &ContainerId) -> Option<WatcherProcess> {
        let text = fs::read(self.container_dir(id).join("lock")).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Whether a watcher holds the container's lock now.
    pub fn is_watched(&self, id: &ContainerId) -> bool {
        let Ok(file) = File::open(self.container_dir(id).join("lock")) else {
            return false;
        };
        // A shared lock does not get in the way of other lookers, and is gone with the descriptor.
        !matches!(flock::try_lock(&file, Lock::Shared), Ok(true))
    }

    /// The record of a container; `None` when it is not enrolled.
    ///
    /// # Errors
    /// When it can't be read, or is of a newer version.
    pub fn record(&self, id: &ContainerId) -> Result<Option<Record>, RegistryError> {
        read_json(&self.container_dir(id).join("record.json"))
    }

    /// The init in the container's record; `None` when there is no record, or it holds no such thing.
    pub fn recorded_init(&self, id: &ContainerId) -> Option<RecordedInit> {
        read_init(&self.container_dir(id).join("record.json"))
    }

    /// What a container's watcher has noted of its work; `None` when it has noted nothing.
    ///
    /// # Errors
    /// When it can't be read, or is of a newer version.
    pub fn attached<T: DeserializeOwned>(&self, id: &ContainerId) -> Result<Option<T>, RegistryError> {
        read_json(&self.container_dir(id).join("attached.json"))
    }

    /// The ids of all enrolled containers, in order. An absent state directory has none.
    ///
    /// # Errors
    /// When the directory is there and can't be read.
    pub fn ids(&self) -> Result<Vec<ContainerId>, RegistryError> {
        let path = self.root.join("containers");
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => {
                return Err(RegistryError::Io {
                    doing: "listing",
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

    /// Removes what is left of containers that have ended (unless the record `stays`) and whose watcher is gone. A record
    /// that cannot be read stays. Returns the ids that were swept. Never waits.
    ///
    /// # Errors
    /// When the state directory can't be read; a single entry that can't be removed is passed over.
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
                // Enrolled and never recorded: its hook died while it held this lock, which is ours now.
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

impl RecordLock {
    /// Takes over the lock from the process that started this one: `lock` is its locked file.
    ///
    /// # Errors
    /// When the directory can't be opened.
    pub fn inherit(registry: &Registry, id: &ContainerId, lock: File) -> Result<Self, RegistryError> {
        let dir = registry.container_dir(id);
        let dir_fd = open_dir(&dir).map_err(|source| RegistryError::Io {
            doing: "opening",
            path: dir.clone(),
            source,
        })?;
        Ok(Self { dir, dir_fd, lock })
    }

    /// Whether the locked file is still the one that others find.
    pub fn is_in_place(&self) -> bool {
        flock::is_same_file(&self.lock, &self.dir.join("lock"))
    }

    /// The locked file, to be handed to the watcher: the lock lasts as long as any copy of it is open.
    pub fn file(&self) -> &File {
        &self.lock
    }

    /// The container's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The state directory that it lies in.
    pub fn state_dir(&self) -> &Path {
        // <state-dir>/containers/<id>, as `Registry::container_dir` has it.
        self.dir.ancestors().nth(2).unwrap_or(Path::new("/"))
    }

    /// The container's directory as a descriptor, for names that would be too long as paths.
    pub fn dir_fd(&self) -> BorrowedFd<'_> {
        self.dir_fd.as_fd()
    }

    /// Says in the lock who holds it.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn sign(&self, watcher: WatcherProcess) -> Result<(), RegistryError> {
        let path = self.dir.join("lock");
        let text = serde_json::to_vec(&watcher).unwrap_or_default();
        self.lock
            .set_len(0)
            .and_then(|()| std::os::unix::fs::FileExt::write_all_at(&self.lock, &text, 0))
            .map_err(|source| RegistryError::Io {
                doing: "writing",
                path,
                source,
            })
    }

    /// The container's record.
    ///
    /// # Errors
    /// When it can't be read, or is of a newer version.
    pub fn record(&self) -> Result<Option<Record>, RegistryError> {
        read_json(&self.dir.join("record.json"))
    }

    /// As [`Registry::recorded_init`], under the lock.
    pub fn recorded_init(&self) -> Option<RecordedInit> {
        read_init(&self.dir.join("record.json"))
    }

    /// Writes the container's record.
    ///
    /// # Errors
    /// When it can't be written; the old one then stays.
    pub fn write_record(&self, record: &Record) -> Result<(), RegistryError> {
        self.write_json("record.json", record)
    }

    /// What an earlier watcher of this container made.
    ///
    /// # Errors
    /// When it can't be read, or is of a newer version.
    pub fn attached<T: DeserializeOwned>(&self) -> Result<Option<T>, RegistryError> {
        read_json(&self.dir.join("attached.json"))
    }

    /// Notes what the watcher makes.
    ///
    /// # Errors
    /// When it can't be written; the old one then stays.
    pub fn write_attached(&self, attached: &impl Serialize) -> Result<(), RegistryError> {
        self.write_json("attached.json", attached)
    }

    /// Removes all that was noted, so that another container of the same id starts with nothing.
    ///
    /// # Errors
    /// When a file can't be removed.
    pub fn clear(&self) -> Result<(), RegistryError> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => {
                return Err(RegistryError::Io {
                    doing: "listing",
                    path: self.dir.clone(),
                    source,
                });
            }
        };
        for entry in entries.flatten().filter(|entry| entry.file_name() != "lock") {
            let path = entry.path();
            ignore_absent(fs::remove_file(&path)).map_err(|source| RegistryError::Io {
                doing: "removing",
                path,
                source,
            })?;
        }
        Ok(())
    }

    /// Removes the container's directory, and lets the lock go. One that somebody else has made anew meanwhile is theirs.
    ///
    /// # Errors
    /// When it can't be removed.
    pub fn remove(self) -> Result<(), RegistryError> {
        if !self.is_in_place() && self.dir.join("lock").exists() {
            return Ok(());
        }
        self.clear()?;
        // The lock's file goes last: until then nobody else thinks the container free. Whoever enrolls the
        // same id right now makes a new one, and then the directory is theirs and stays.
        let remove =
            ignore_absent(fs::remove_file(self.dir.join("lock"))).and_then(|()| {
                match ignore_absent(fs::remove_dir(&self.dir)) {
                    Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
                    other => other,
                }
            });
        remove.map_err(|source| RegistryError::Io {
            doing: "removing",
            path: self.dir.clone(),
            source,
        })
    }

    fn write_json(&self, name: &str, value: &impl Serialize) -> Result<(), RegistryError> {
        let path = self.dir.join(name);
        let write = || {
            // The names are found by path: there may be another container of the same id by now.
            if !self.is_in_place() {
                return Err(io::ErrorKind::NotFound.into());
            }
            replace(&path, &serde_json::to_vec(value)?, 0o600, Durability::Volatile)
        };
        write().map_err(|source| RegistryError::Io {
            doing: "writing",
            path: path.clone(),
            source,
        })
    }
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    use nix::fcntl::{OFlag, open};
    Ok(open(
        path,
        OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW,
        nix::sys::stat::Mode::empty(),
    )?)
}

fn ignore_absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn read_init(path: &Path) -> Option<RecordedInit> {
    #[derive(Deserialize)]
    struct Facts {
        pid: i32,
        start_time: u64,
        #[serde(default)]
        bundle: PathBuf,
    }
    #[derive(Deserialize)]
    struct Partial {
        container: Facts,
        #[serde(default)]
        boot: String,
    }
    let Partial { container, boot } = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    Some(RecordedInit {
        pid: container.pid,
        start_time: container.start_time,
        bundle: container.bundle,
        boot,
    })
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, RegistryError> {
    let mut text = Vec::new();
    match File::open(path).and_then(|mut file| file.read_to_end(&mut text)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(RegistryError::Io {
                doing: "reading",
                path: path.to_owned(),
                source,
            });
        }
    }
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let malformed = |source| RegistryError::Malformed {
        path: path.to_owned(),
        source,
    };
    let Versioned { version } = serde_json::from_slice(&text).map_err(malformed)?;
    if version > STATE_VERSION {
        return Err(RegistryError::TooNew {
            path: path.to_owned(),
            version,
        });
    }
    serde_json::from_slice(&text).map(Some).map_err(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::oci::ProcessUser;
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
            circumstances: Circumstances::default(),
            config: None,
            boot: String::new(),
            enrolled: 3,
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_only_root_may_read_it() {
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
    fn the_lock_is_held_once_and_free_again_when_dropped() {
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
    fn sweeping_takes_the_dead_and_leaves_the_living() {
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
    fn a_record_of_a_newer_version_is_refused_politely() {
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
            error.contains("version 99") && error.contains("install the newer one"),
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
    fn a_lock_whose_directory_was_swept_is_not_taken_for_the_new_ones() {
        let scratch = tempfile::tempdir().unwrap();
        let registry = Registry::new(scratch.path());
        let old = registry.try_enroll(&id("c1")).unwrap().unwrap();
        fs::remove_dir_all(old.dir()).unwrap();
        let new = registry.try_enroll(&id("c1")).unwrap();
        assert!(new.is_some());
    }

    /// Case security 6.
    #[test]
    fn whoever_has_lost_the_entry_changes_nothing_of_the_next_one() {
        let scratch = tempfile::tempdir().unwrap();
        let registry = Registry::new(scratch.path());
        let old = registry.try_enroll(&id("c1")).unwrap().unwrap();
        old.write_record(&record("old")).unwrap();
        fs::remove_dir_all(old.dir()).unwrap();
        let new = registry.try_enroll(&id("c1")).unwrap().unwrap();
        new.write_record(&record("new")).unwrap();
        new.write_attached(&1).unwrap();
        let files = || {
            let entries = fs::read_dir(new.dir())
                .unwrap()
                .map(|entry| entry.unwrap().path());
            let mut files: Vec<_> = entries.map(|path| (fs::read(&path).unwrap(), path)).collect();
            files.sort();
            files
        };
        let before = files();
        for error in [old.write_attached(&2), old.write_record(&record("old"))].map(Result::unwrap_err) {
            assert!(matches!(error, RegistryError::Io { .. }), "{error}");
        }
        old.remove().unwrap();
        assert_eq!(files(), before);
    }
}
