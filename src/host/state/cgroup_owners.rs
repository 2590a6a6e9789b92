//! Which container's watcher manages the device access of a cgroup. There is at most one, because
//! each watcher makes the access exactly what its own container has.
//!
//! ```text
//! <state-dir>/cgroups/<v1|v2>-<inode>    the owner: container id, init's pid and start time
//! ```
//! A cgroup is identified by the inode number of its directory: the kernel never gives two cgroups
//! the same one (kernfs, 64 bits), even if a path is used again. An owner is valid while its record
//! names the same init and that init runs. The file is locked only while it is read and written.
//! Does not know how access is changed.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::host::container::ContainerFacts;
use crate::host::filter::cgroup::{Cgroup, Version};
use crate::host::regular_file;
use crate::host::state::flock;
use crate::host::state::record::RecordedInit;
use crate::host::state::registry::Registry;

/// How long another process may hold the lock of an owner file; normally it takes microseconds.
const LOCK_TIMEOUT: Duration = Duration::from_millis(500);

/// A container that owns a cgroup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupOwner {
    pub container: String,
    /// The host's pid of the container's init.
    pub pid: i32,
    /// Clock ticks since boot, see [`crate::host::process::start_time`].
    pub start_time: u64,
}

/// The owner of a cgroup cannot be recorded.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source} (the state directory must be writable for root)", path.display())]
pub struct OwnerError {
    /// What cannot be done, as a verb.
    action: &'static str,
    /// The owner file.
    path: PathBuf,
    source: io::Error,
}

/// One container as the owner of cgroups.
#[derive(Debug, Clone)]
pub struct Owner {
    state_dir: PathBuf,
    container: CgroupOwner,
}

impl Owner {
    /// The container, which has its record in this state directory.
    pub fn new(state_dir: &Path, container: &ContainerFacts) -> Self {
        Self {
            state_dir: state_dir.to_owned(),
            container: CgroupOwner {
                container: container.id.clone(),
                pid: container.pid,
                start_time: container.start_time,
            },
        }
    }

    /// The container that a record describes.
    pub fn of_record(state_dir: &Path, id: &str, init: &RecordedInit) -> Self {
        Self {
            state_dir: state_dir.to_owned(),
            container: CgroupOwner {
                container: id.to_owned(),
                pid: init.pid,
                start_time: init.start_time,
            },
        }
    }

    /// A container that is recorded as the owner of the cgroup and has ended: its grants may still
    /// be in force.
    pub fn predecessor(&self, version: Version, cgroup: &Cgroup) -> Option<CgroupOwner> {
        let file = regular_file::open_to_read(&file_of(&self.state_dir, version, cgroup)).ok()?;
        read(&file).filter(|owner| *owner != self.container && !is_valid(&self.state_dir, owner))
    }

    /// The state directory with the records.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Makes the container the owner of the cgroup. If another running container owns it, nothing
    /// changes and that container is returned.
    ///
    /// # Errors
    /// When the owner file cannot be created, locked or written.
    pub fn acquire(&self, version: Version, cgroup: &Cgroup) -> Result<Option<CgroupOwner>, OwnerError> {
        let path = file_of(&self.state_dir, version, cgroup);
        let failed = |action| {
            let path = path.clone();
            move |source| OwnerError { action, path, source }
        };
        let file = flock::open_locked(&path, Instant::now() + LOCK_TIMEOUT).map_err(failed("lock"))?;
        match read(&file) {
            Some(owner) if owner == self.container => return Ok(None),
            Some(owner) if is_valid(&self.state_dir, &owner) => return Ok(Some(owner)),
            _ => {}
        }
        let text = serde_json::to_vec(&self.container).unwrap_or_default();
        file.set_len(0)
            .and_then(|()| file.write_all_at(&text, 0))
            .map_err(failed("write"))?;
        Ok(None)
    }

    /// Runs `work` while no other process can become the owner of the cgroup, then removes the
    /// owner file. If another running container owns the cgroup, returns `None` and does nothing.
    /// For a container that has ended, which is therefore not a valid owner any more.
    ///
    /// # Errors
    /// When the owner file cannot be created or locked.
    pub fn release_after<T>(
        &self,
        version: Version,
        cgroup: &Cgroup,
        work: impl FnOnce() -> T,
    ) -> Result<Option<T>, OwnerError> {
        let path = file_of(&self.state_dir, version, cgroup);
        let file = flock::open_locked(&path, Instant::now() + LOCK_TIMEOUT).map_err(|source| OwnerError {
            action: "lock",
            path: path.clone(),
            source,
        })?;
        match read(&file) {
            Some(owner) if owner != self.container && is_valid(&self.state_dir, &owner) => return Ok(None),
            _ => {}
        }
        let result = work();
        // A file that stays is swept later: without its container it is not valid.
        let _ = fs::remove_file(path);
        Ok(Some(result))
    }

    /// Removes the owner file if the container owns the cgroup.
    pub fn release(&self, version: Version, cgroup: &Cgroup) {
        let path = file_of(&self.state_dir, version, cgroup);
        remove_if(&path, |owner| owner.as_ref() == Some(&self.container));
    }
}

/// Removes the owner files of containers that have ended. Never waits.
pub fn sweep(state_dir: &Path) {
    for entry in fs::read_dir(dir_of(state_dir)).into_iter().flatten().flatten() {
        remove_if(&entry.path(), |owner| {
            owner.is_none_or(|owner| !is_valid(state_dir, &owner))
        });
    }
}

fn dir_of(state_dir: &Path) -> PathBuf {
    state_dir.join("cgroups")
}

fn file_of(state_dir: &Path, version: Version, cgroup: &Cgroup) -> PathBuf {
    let version = match version {
        Version::V1 => "v1",
        Version::V2 => "v2",
    };
    dir_of(state_dir).join(format!("{version}-{}", cgroup.inode))
}

/// Whether the owner is a running container with a record in this state directory.
fn is_valid(state_dir: &Path, owner: &CgroupOwner) -> bool {
    let Ok(id) = owner.container.parse() else {
        return false;
    };
    Registry::new(state_dir).recorded_init(&id).is_some_and(|init| {
        (init.pid, init.start_time) == (owner.pid, owner.start_time) && init.running().is_some()
    })
}

/// The owner in the file; `None` if the file is new, or if its writer was killed.
fn read(mut file: &File) -> Option<CgroupOwner> {
    let mut text = Vec::new();
    file.read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Removes an owner file, unless another process has it locked to change it.
fn remove_if(path: &Path, is_unwanted: impl Fn(Option<CgroupOwner>) -> bool) {
    let Ok(Some(file)) = flock::try_open_locked(path) else {
        return;
    };
    if is_unwanted(read(&file)) {
        // A file that stays is swept later: without its container it is not valid.
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests;
