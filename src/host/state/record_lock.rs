//! A container's directory and its lock: only the holder of the lock changes the files in it.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::host::state::atomic_file::{self, Durability};
use crate::host::state::error::RegistryError;
use crate::host::state::flock::{self, Lock};
use crate::host::state::journal::{self, Journaled};
use crate::host::state::record::{Record, RecordedInit, read_init, read_json};

/// The name of the file with a watcher's notes.
pub(super) const ATTACHED: &str = "attached.jsonl";

/// The content of a lock file: the watcher that holds the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatcherProcess {
    pub pid: i32,
    /// Clock ticks since boot, so that another process with a reused pid is not taken for the
    /// watcher.
    pub start_time: u64,
}

/// A container's directory, locked.
#[derive(Debug)]
pub struct RecordLock {
    dir: PathBuf,
    dir_fd: OwnedFd,
    lock: File,
}

impl RecordLock {
    /// Locks a container's directory; `None` if another process holds the lock.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when the directory is absent.
    pub(super) fn try_lock(dir: PathBuf) -> Result<Option<Self>, RegistryError> {
        let path = dir.join("lock");
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| RegistryError::io(action, &path, source)
        };
        loop {
            let dir_fd = open_dir(&dir).map_err(io("open", &dir))?;
            let lock = flock::open_or_create(&path).map_err(io("open", &path))?;
            if !flock::try_lock(&lock, Lock::Exclusive).map_err(io("lock", &path))? {
                return Ok(None);
            }
            // The directory may have been swept and created again before the lock succeeded. Then
            // this lock is on a file that no other process can find.
            if flock::is_same_file(&lock, &path) {
                return Ok(Some(Self { dir, dir_fd, lock }));
            }
        }
    }

    /// Takes over the lock on a container's directory; `lock` is the locked file.
    ///
    /// # Errors
    /// When the directory cannot be opened.
    pub(super) fn of_locked_file(dir: PathBuf, lock: File) -> Result<Self, RegistryError> {
        let dir_fd = open_dir(&dir).map_err(|source| RegistryError::Io {
            action: "open",
            path: dir.clone(),
            source,
        })?;
        Ok(Self { dir, dir_fd, lock })
    }

    /// Whether the path of the lock still leads to the locked file.
    pub fn is_in_place(&self) -> bool {
        flock::is_same_file(&self.lock, &self.dir.join("lock"))
    }

    /// The locked file, to be passed to the watcher: the file stays locked as long as any copy of
    /// the descriptor is open.
    pub fn file(&self) -> &File {
        &self.lock
    }

    /// The container's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The state directory that contains it.
    pub fn state_dir(&self) -> &Path {
        // <state-dir>/containers/<id>, see `Registry::container_dir`.
        self.dir.ancestors().nth(2).unwrap_or(Path::new("/"))
    }

    /// The container's directory as a descriptor, for names that would be too long as paths.
    pub fn dir_fd(&self) -> BorrowedFd<'_> {
        self.dir_fd.as_fd()
    }

    /// Writes into the lock file which watcher holds the lock.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_watcher(&self, watcher: WatcherProcess) -> Result<(), RegistryError> {
        let path = self.dir.join("lock");
        let text = serde_json::to_vec(&watcher).unwrap_or_default();
        self.lock
            .set_len(0)
            .and_then(|()| std::os::unix::fs::FileExt::write_all_at(&self.lock, &text, 0))
            .map_err(|source| RegistryError::Io {
                action: "write",
                path,
                source,
            })
    }

    /// The container's record.
    ///
    /// # Errors
    /// When it cannot be read, or is of a newer version.
    pub fn record(&self) -> Result<Option<Record>, RegistryError> {
        read_json(&self.dir.join("record.json"))
    }

    /// Like [`Registry::recorded_init`], under the lock.
    pub fn recorded_init(&self) -> Option<RecordedInit> {
        read_init(&self.dir.join("record.json"))
    }

    /// Writes the container's record.
    ///
    /// # Errors
    /// When it cannot be written; then the old one stays.
    pub fn write_record(&self, record: &Record) -> Result<(), RegistryError> {
        let content = || Ok(serde_json::to_vec(record)?);
        self.replace("record.json", content).map(|_| ())
    }

    /// The notes of an earlier watcher of this container.
    ///
    /// # Errors
    /// When they cannot be read, or are of a newer version.
    pub fn attached<T: Journaled>(&self) -> Result<Option<T>, RegistryError> {
        journal::read(&self.dir.join(ATTACHED))
    }

    /// Begins a new journal with this first line; returns the file, to append to it, and the length
    /// of the line in bytes.
    ///
    /// # Errors
    /// When it cannot be written; then the old one stays.
    pub(super) fn replace_attached(
        &self,
        first_line: impl FnOnce() -> serde_json::Result<Vec<u8>>,
    ) -> Result<(File, usize), RegistryError> {
        self.replace(ATTACHED, || first_line().map_err(io::Error::from))
    }

    /// Removes all files but the lock, so that another container with the same id starts without
    /// them.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn clear(&self) -> Result<(), RegistryError> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => {
                return Err(RegistryError::Io {
                    action: "list",
                    path: self.dir.clone(),
                    source,
                });
            }
        };
        for entry in entries.flatten().filter(|entry| entry.file_name() != "lock") {
            let path = entry.path();
            let removed = match entry.file_type() {
                // The udev database. A link in it is removed, not followed.
                Ok(kind) if kind.is_dir() => fs::remove_dir_all(&path),
                _ => fs::remove_file(&path),
            };
            ignore_absent(removed).map_err(|source| RegistryError::Io {
                action: "remove",
                path,
                source,
            })?;
        }
        Ok(())
    }

    /// Removes the container's directory and releases the lock. If another process has created the
    /// directory again in the meantime, it stays.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(self) -> Result<(), RegistryError> {
        if !self.is_in_place() && self.dir.join("lock").exists() {
            return Ok(());
        }
        self.clear()?;
        // The lock file goes last: as long as it exists, other processes see that the container has
        // a watcher. A process that enrolls the same id right now creates a new lock file, and then
        // the directory stays.
        let remove =
            ignore_absent(fs::remove_file(self.dir.join("lock"))).and_then(|()| {
                match ignore_absent(fs::remove_dir(&self.dir)) {
                    Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
                    other => other,
                }
            });
        remove.map_err(|source| RegistryError::Io {
            action: "remove",
            path: self.dir.clone(),
            source,
        })
    }

    /// Replaces a file; returns the new one, open for appending, and its length in bytes.
    fn replace(
        &self,
        name: &str,
        content: impl FnOnce() -> io::Result<Vec<u8>>,
    ) -> Result<(File, usize), RegistryError> {
        let path = self.dir.join(name);
        let write = || {
            // The file is found by its path, where another container with the same id may be by
            // now.
            if !self.is_in_place() {
                return Err(io::ErrorKind::NotFound.into());
            }
            let content = content()?;
            let file = atomic_file::begin(&path, &content, 0o600, Durability::Volatile)?;
            Ok((file, content.len()))
        };
        write().map_err(|source| RegistryError::Io {
            action: "write",
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
