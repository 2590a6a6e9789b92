//! The files of a container's udev database, in the container's directory of the state directory.
//!
//! The container sees them through a read-only mount (`container_dev`), but a container with
//! CAP_SYS_ADMIN can make the mount writable. So no path in them is followed: every file is reached
//! from directories that are held open, by one name, and never through a link.
//!
//! Does not know which devices the database should have.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::host::container_dev::DirectoryIdentity;
use crate::host::file_system::{attributes, identity};
use crate::host::state::atomic_file;
use crate::model::udev_database::{
    DatabaseId, Entries, Entry, EntryFacts, MAX_HOST_ENTRY, entry_for_container,
};

/// The directory in the container's directory.
const DIRECTORY: &str = "udev";

/// The host's entries.
const HOST_DATA: &str = "/run/udev/data";

/// The usual size of an entry, in bytes.
const USUAL_HOST_ENTRY: usize = 4096;

/// The name of an entry before it is renamed, in the container's directory, which the container
/// does not see.
const TEMPORARY: &str = "udev-entry.tmp";

const DIRECTORY_MODE: Mode = Mode::from_bits_truncate(0o755);
const FILE_MODE: Mode = Mode::from_bits_truncate(0o644);

/// The database cannot be created or changed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {name} of the container's udev database: {source}")]
pub struct UdevDatabaseError {
    action: &'static str,
    /// The file, relative to the database.
    name: String,
    source: io::Error,
}

/// The database of one container. Only the container's watcher changes it.
#[derive(Debug)]
pub(crate) struct UdevDatabase {
    /// The container's directory.
    container: OwnedFd,
    directory: OwnedFd,
    identity: DirectoryIdentity,
    data: OwnedFd,
    tags: OwnedFd,
    entries: Entries,
    /// The tags of each entry that has some.
    tagged: BTreeMap<DatabaseId, BTreeSet<String>>,
}

impl UdevDatabase {
    /// Opens the database that an earlier watcher has created; `None` if there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn open(container: BorrowedFd<'_>) -> Result<Option<Self>, UdevDatabaseError> {
        match open_directory(container, DIRECTORY) {
            Err(Errno::ENOENT) => Ok(None),
            _ => Self::create(container).map(Some),
        }
    }

    /// Opens the database, and creates what is missing of it.
    ///
    /// # Errors
    /// When it cannot be created or read.
    pub(crate) fn create(container: BorrowedFd<'_>) -> Result<Self, UdevDatabaseError> {
        let directory = make_directory(container, DIRECTORY)?;
        let data = make_directory(directory.as_fd(), "data")?;
        let tags = make_directory(directory.as_fd(), "tags")?;
        // Its existence makes libudev's monitor listen to udevd (systemd, sd-device-monitor.c).
        create_file(directory.as_fd(), "control").map_err(failed("create", "control"))?;
        let container = container.try_clone_to_owned();
        let found = attributes(&directory).map_err(failed_io("examine", DIRECTORY))?;
        let mut database = Self {
            container: container.map_err(failed_io("open", DIRECTORY))?,
            identity: identity(&found),
            directory,
            data,
            tags,
            entries: Entries::new(),
            tagged: BTreeMap::new(),
        };
        database.read_existing()?;
        Ok(database)
    }

    /// The directory, to be mounted in the container.
    pub(crate) fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    /// Identifies [`Self::directory`].
    pub(crate) fn identity(&self) -> DirectoryIdentity {
        self.identity
    }

    /// The entries as they were last written.
    pub(crate) fn entries(&self) -> &Entries {
        &self.entries
    }

    /// Writes the entry of a device, from the host's entry as it is now. Afterwards the entry is
    /// absent if the host has none and the facts do not require one.
    ///
    /// # Errors
    /// When it cannot be written; then the old one stays.
    pub(crate) fn write(&mut self, id: &DatabaseId, facts: &EntryFacts) -> Result<(), UdevDatabaseError> {
        let name = id.to_string();
        let host = read_host_entry(&name);
        match entry_for_container(host.as_deref(), facts, microseconds_since_boot()) {
            Some(entry) => self.write_files(id, &name, entry)?,
            None => self.remove_files(id, &name)?,
        }
        self.entries.insert(id.clone(), Some(facts.clone()));
        Ok(())
    }

    /// Removes the entry of a device.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub(crate) fn remove(&mut self, id: &DatabaseId) -> Result<(), UdevDatabaseError> {
        self.remove_files(id, &id.to_string())?;
        self.entries.remove(id);
        Ok(())
    }

    /// The data comes before the tags, so that every device of a tag has data.
    fn write_files(&mut self, id: &DatabaseId, name: &str, entry: Entry) -> Result<(), UdevDatabaseError> {
        let (writer, target) = ((self.container.as_fd(), TEMPORARY), (self.data.as_fd(), name));
        atomic_file::replace_in(writer, target, &entry.text, FILE_MODE.bits())
            .map_err(failed_io("write", name))?;
        let before = self.tagged.remove(id).unwrap_or_default();
        for tag in before.difference(&entry.tags) {
            self.remove_tag(tag, name)?;
        }
        for tag in entry.tags.difference(&before) {
            let directory = make_directory(self.tags.as_fd(), tag)?;
            create_file(directory.as_fd(), name).map_err(failed("tag", name))?;
        }
        if !entry.tags.is_empty() {
            self.tagged.insert(id.clone(), entry.tags);
        }
        Ok(())
    }

    fn remove_files(&mut self, id: &DatabaseId, name: &str) -> Result<(), UdevDatabaseError> {
        for tag in self.tagged.get(id).into_iter().flatten() {
            self.remove_tag(tag, name)?;
        }
        self.tagged.remove(id);
        unlink(&self.data, name).map_err(failed("remove", name))
    }

    fn remove_tag(&self, tag: &str, name: &str) -> Result<(), UdevDatabaseError> {
        match open_directory(self.tags.as_fd(), tag) {
            Ok(directory) => unlink(&directory, name).map_err(failed("remove", name))?,
            Err(Errno::ENOENT) => return Ok(()),
            Err(source) => return Err(failed("remove", name)(source)),
        }
        // The last device with the tag: the directory goes, too. Otherwise it is not empty.
        let _ = unlinkat(&self.tags, tag, UnlinkatFlags::RemoveDir);
        Ok(())
    }

    /// Lists what an earlier watcher has written; the content is unknown.
    fn read_existing(&mut self) -> Result<(), UdevDatabaseError> {
        let ids = names(&self.data).map_err(failed("list", "data"))?;
        self.entries = ids
            .iter()
            .filter_map(|name| Some((DatabaseId::parse(name)?, None)))
            .collect();
        for tag in names(&self.tags).map_err(failed("list", "tags"))? {
            let directory = open_directory(self.tags.as_fd(), &tag).map_err(failed("list", &tag))?;
            for name in names(&directory).map_err(failed("list", &tag))? {
                let Some(id) = DatabaseId::parse(&name) else {
                    continue;
                };
                self.entries.entry(id.clone()).or_default();
                self.tagged.entry(id).or_default().insert(tag.clone());
            }
        }
        Ok(())
    }
}

/// The host's entry of a device; `None` if udevd has none. udevd replaces entries as a whole.
fn read_host_entry(name: &str) -> Option<Vec<u8>> {
    // Usually one call reads it, and one finds its end.
    let mut text = Vec::with_capacity(USUAL_HOST_ENTRY);
    let file = File::open(Path::new(HOST_DATA).join(name)).ok()?;
    let limit = MAX_HOST_ENTRY as u64 + 1;
    file.take(limit).read_to_end(&mut text).ok()?;
    Some(text)
}

/// The clock of USEC_INITIALIZED (sd_device_get_usec_initialized(3)).
fn microseconds_since_boot() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC);
    now.map_or(1, |now| {
        (now.tv_sec() as u64) * 1_000_000 + (now.tv_nsec() as u64) / 1000
    })
}

fn make_directory(parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, UdevDatabaseError> {
    match mkdirat(parent, name, DIRECTORY_MODE) {
        Ok(()) | Err(Errno::EEXIST) => open_directory(parent, name).map_err(failed("open", name)),
        Err(source) => Err(failed("create", name)(source)),
    }
}

fn open_directory(parent: BorrowedFd<'_>, name: &str) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

fn create_file(parent: BorrowedFd<'_>, name: &str) -> nix::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match openat(parent, name, flags, FILE_MODE) {
        Ok(_) | Err(Errno::EEXIST) => Ok(()),
        Err(source) => Err(source),
    }
}

fn unlink(parent: &OwnedFd, name: &str) -> nix::Result<()> {
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(source) => Err(source),
    }
}

/// The names in a directory; those that are not UTF-8 are not ours.
fn names(directory: &OwnedFd) -> nix::Result<Vec<String>> {
    let mut directory = Dir::openat(directory, ".", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut names = Vec::new();
    for entry in directory.iter() {
        match entry?.file_name().to_str() {
            Ok("." | "..") | Err(_) => {}
            Ok(name) => names.push(name.to_owned()),
        }
    }
    Ok(names)
}

fn failed(action: &'static str, name: &str) -> impl FnOnce(Errno) -> UdevDatabaseError {
    let failed = failed_io(action, name);
    move |source| failed(source.into())
}

fn failed_io(action: &'static str, name: &str) -> impl FnOnce(io::Error) -> UdevDatabaseError {
    let name = name.to_owned();
    move |source| UdevDatabaseError { action, name, source }
}

#[cfg(test)]
mod tests;
