//! A place: one name in a directory of the container that is held open. Walks to places, examines
//! them, and creates and removes files there.
//!
//! Does not know about devices, records or placements. A container may change any of its names at
//! any time, so no path with more than one component is ever resolved in it, and no symbolic link
//! is followed.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, RenameFlags, ResolveFlag, readlinkat, renameat2};
use nix::sys::stat::{Mode, SFlag, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::entry::{Entry, file_type, node_entry};
use super::error::{ContainerDevError, failed};
use super::file_system_user::{FileSystemUser, FileSystemUserGuard};
use super::open::{RESOLVE_PLAIN, how_to_open, open_retrying, set_mode};
use crate::host::file_system::{Backing, Mounts, attributes};
use crate::model::device::DevKind;

/// The temporary name of files before they are renamed. One name per directory is enough: only one
/// process works in a container, one step at a time, and it removes what a killed predecessor left.
pub(super) const TEMPORARY: &str = ".oci-hotplug-new";

/// A name in a directory of the container.
pub(super) struct Place {
    pub(super) parent: Rc<OwnedFd>,
    pub(super) name: OsString,
    /// The absolute path in the container, for messages.
    pub(super) path: PathBuf,
    pub(super) user: FileSystemUser,
    pub(super) mounts: ContainerMounts,
}

/// The mounts of the container, shared by all places in it.
pub(super) type ContainerMounts = Rc<Mounts>;

/// What a name leads to, found without contacting a file system that may never answer.
pub(super) enum Opened {
    /// A file in the directory's own file system.
    Own(OwnedFd),
    /// A mount of a file system in the kernel's memory: a tmpfs, such as our staging tmpfs, or
    /// devtmpfs.
    Mounted(OwnedFd),
    /// Any other mount.
    Foreign,
}

impl Place {
    /// The path in the container.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What is here now. If a mount covers the name, it is the mount.
    pub(super) fn entry(&self) -> Result<Entry, ContainerDevError> {
        let looking = |source| failed("examine", &self.path, source);
        let (fd, is_mount) = match self.open_entry() {
            Err(Errno::ENOENT) => return Ok(Entry::Nothing),
            Ok(Opened::Foreign) => return Ok(Entry::Mount),
            Ok(Opened::Own(fd)) => (fd, false),
            Ok(Opened::Mounted(fd)) => (fd, true),
            Err(source) => return Err(looking(source.into())),
        };
        let found = attributes(&fd).map_err(looking)?;
        Ok(match file_type(&found) {
            SFlag::S_IFBLK => node_entry(DevKind::Block, &found),
            SFlag::S_IFCHR => node_entry(DevKind::Char, &found),
            SFlag::S_IFLNK => {
                let target = readlinkat(&fd, "");
                Entry::Link(
                    target
                        .map_err(|source| failed("read the link", &self.path, source))?
                        .into(),
                )
            }
            SFlag::S_IFDIR => Entry::Directory,
            SFlag::S_IFIFO => Entry::Fifo,
            SFlag::S_IFSOCK => Entry::Socket,
            _ if is_mount => Entry::Mount,
            _ => Entry::File {
                size: found.stx_size,
                uid: found.stx_uid,
            },
        })
    }

    /// Opens what is here. If it is a mount, its type is looked up in the kernel's list of mounts
    /// before its file system is queried. An O_PATH open without O_DIRECTORY does not trigger an
    /// automount (follow_automount in fs/namei.c).
    pub(super) fn open_entry(&self) -> nix::Result<Opened> {
        match self.open(OFlag::empty()) {
            Err(Errno::EXDEV) => {}
            other => return other.map(Opened::Own),
        }
        let how = how_to_open(OFlag::empty());
        let covering = open_retrying(&self.parent, Path::new(&self.name), how)?;
        let backing = Mounts::id_of(&covering).and_then(|id| self.mounts.backing(id));
        Ok(match backing {
            Ok(Backing::Memory) => Opened::Mounted(covering),
            Ok(Backing::Disk | Backing::Unknown) | Err(_) => Opened::Foreign,
        })
    }

    /// Runs one call that creates something here with all its properties, unless there is something
    /// already; returns whether it was created. Nothing is replaced.
    pub(super) fn create(
        &self,
        action: &'static str,
        call: impl FnOnce(&OwnedFd, &OsStr) -> nix::Result<()>,
    ) -> Result<bool, ContainerDevError> {
        self.make(action, |parent, name| match call(parent, name) {
            Err(Errno::EEXIST) => Ok(false),
            other => other.map(|()| true),
        })
    }

    /// Creates a file here that appears with its final content, mode and owner: `make` creates it
    /// under a temporary name, then it is renamed. An existing file is replaced only with
    /// `replace`; a directory never is.
    pub(super) fn put(
        &self,
        action: &'static str,
        replace: bool,
        make: impl FnOnce(&Place) -> Result<(), ContainerDevError>,
    ) -> Result<(), ContainerDevError> {
        let temporary = self.temporary();
        if !temporary.clear() {
            let found = temporary.entry()?.to_string();
            return Err(ContainerDevError::Taken {
                path: self.path.with_file_name(TEMPORARY),
                found,
            });
        }
        let result = make(&temporary).and_then(|()| self.rename_here(action, replace));
        if result.is_err() {
            temporary.clear();
        }
        result
    }

    /// The temporary name in the same directory.
    pub(super) fn temporary(&self) -> Place {
        Place {
            parent: self.parent.clone(),
            name: TEMPORARY.into(),
            path: self.path.clone(),
            user: self.user,
            mounts: self.mounts.clone(),
        }
    }

    fn rename_here(&self, action: &'static str, replace: bool) -> Result<(), ContainerDevError> {
        let flags = if replace {
            RenameFlags::empty()
        } else {
            RenameFlags::RENAME_NOREPLACE
        };
        let renamed = {
            let _as_user = FileSystemUserGuard::new(self.user);
            renameat2(
                &self.parent,
                TEMPORARY,
                &self.parent,
                self.name.as_os_str(),
                flags,
            )
        };
        match renamed {
            Err(Errno::EEXIST | Errno::EISDIR | Errno::ENOTEMPTY) => Err(self.taken(&self.entry()?)),
            other => other.map_err(|source| failed(action, &self.path, source)),
        }
    }

    /// Removes what is left under the temporary name. Returns false if it is a directory with
    /// content, which no watcher creates. Other failures are ignored: then creating the file fails
    /// too and reports why.
    pub(super) fn clear(&self) -> bool {
        match unlinkat(&self.parent, self.name.as_os_str(), UnlinkatFlags::NoRemoveDir) {
            Err(Errno::EISDIR) => self.remove_directory(),
            _ => true,
        }
    }

    /// Runs one call that creates something here, as the container's root if the container has a
    /// user namespace.
    pub(super) fn make<T>(
        &self,
        action: &'static str,
        call: impl FnOnce(&OwnedFd, &OsStr) -> nix::Result<T>,
    ) -> Result<T, ContainerDevError> {
        let _as_user = FileSystemUserGuard::new(self.user);
        call(&self.parent, &self.name).map_err(|source| failed(action, &self.path, source))
    }

    /// Unlinks what is here. This also detaches what is mounted on it in other mount namespaces
    /// (since Linux 3.18). Returns false if nothing was here.
    pub(super) fn unlink(&self) -> Result<bool, ContainerDevError> {
        match unlinkat(&self.parent, self.name.as_os_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(source) => Err(failed("remove", &self.path, source)),
        }
    }

    /// Removes the directory here if it is empty. Returns whether it is gone.
    pub(super) fn remove_directory(&self) -> bool {
        let removed = unlinkat(&self.parent, self.name.as_os_str(), UnlinkatFlags::RemoveDir);
        matches!(removed, Ok(()) | Err(Errno::ENOENT))
    }

    /// An O_PATH descriptor of what is here. Neither follows links nor enters mounts.
    pub(super) fn open(&self, flags: OFlag) -> nix::Result<OwnedFd> {
        let how = how_to_open(flags);
        let resolve = RESOLVE_PLAIN | ResolveFlag::RESOLVE_NO_XDEV;
        open_retrying(&self.parent, Path::new(&self.name), how.resolve(resolve))
    }

    /// The same for a directory; ENOTDIR if it is something else. Does not use O_DIRECTORY, which
    /// would trigger an automount.
    pub(super) fn open_directory(&self) -> nix::Result<OwnedFd> {
        let fd = self.open(OFlag::empty())?;
        match attributes(&fd) {
            Ok(found) if file_type(&found) == SFlag::S_IFDIR => Ok(fd),
            Ok(_) => Err(Errno::ENOTDIR),
            Err(source) => Err(Errno::from_raw(source.raw_os_error().unwrap_or_default())),
        }
    }

    /// Creates a directory with mode 0755, independent of the umask. Returns false if another
    /// process created it first.
    pub(super) fn make_directory(&self) -> Result<bool, ContainerDevError> {
        const ACTION: &str = "create the directory";
        match self.make(ACTION, |parent, name| {
            match mkdirat(parent, name, Mode::from_bits_retain(0o755)) {
                Err(Errno::EEXIST) => Ok(false),
                other => other.map(|()| true),
            }
        })? {
            false => Ok(false),
            true => {
                let opened = self.open_directory();
                let made = opened
                    .and_then(|fd| set_mode(&fd, 0o755))
                    .map_err(|source| failed(ACTION, &self.path, source));
                if made.is_err() {
                    self.remove_directory();
                }
                made.map(|()| true)
            }
        }
    }

    /// The error for a walk that cannot pass this place.
    pub(super) fn blocked(&self, source: Errno) -> ContainerDevError {
        if source == Errno::EXDEV {
            return ContainerDevError::InTheWay {
                path: self.path.clone(),
                found: Entry::Mount.to_string(),
            };
        }
        match self.entry() {
            Ok(Entry::Nothing | Entry::Directory) | Err(_) => failed("open", &self.path, source),
            Ok(found) => ContainerDevError::InTheWay {
                path: self.path.clone(),
                found: found.to_string(),
            },
        }
    }

    /// The error for a place that is taken by a file that is not ours.
    pub(super) fn taken(&self, found: &Entry) -> ContainerDevError {
        ContainerDevError::Taken {
            path: self.path.clone(),
            found: found.to_string(),
        }
    }
}
