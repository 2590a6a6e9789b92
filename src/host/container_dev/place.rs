//! A place: one name in a directory of the container that is held open. Walks to places, examines
//! them, and creates and removes files there.
//!
//! Does not know about devices, records or placements. A container may change any of its names at
//! any time, so no path with more than one component is ever resolved in it, and no symbolic link
//! is followed.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{
    AT_FDCWD, AtFlags, OFlag, OpenHow, RenameFlags, ResolveFlag, openat2, readlinkat, renameat2,
};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, setfsgid, setfsuid, unlinkat};
use rustix::fs::Statx;

use super::error::ContainerDevError;
use crate::host::file_system::{Backing, Mounts, attributes, file_system_number};
use crate::model::device::{DevKind, DevNum};

/// The temporary name of files before they are renamed. One name per directory is enough: only one
/// process works in a container, one step at a time, and it removes what a killed predecessor left.
pub(super) const TEMPORARY: &str = ".oci-hotplug-new";

/// How often openat2 is tried while renames elsewhere make it fail (openat2(2), EAGAIN).
const ATTEMPTS: u32 = 64;

/// The user that creates files in the container: root of its user namespace, if it has one.
///
/// A file system that was mounted in a user namespace rejects files whose owner is not mapped there
/// (EOVERFLOW).
pub(super) type FileSystemUser = Option<(Uid, Gid)>;

/// Sets the file system user and group of the thread until it is dropped (setfsuid(2)).
pub(super) struct FileSystemUserGuard(FileSystemUser);

impl FileSystemUserGuard {
    pub(super) fn new(user: FileSystemUser) -> Self {
        // The group comes first: without fsuid 0 it could not be changed any more.
        Self(user.map(|(uid, gid)| {
            let previous = setfsgid(gid);
            (setfsuid(uid), previous)
        }))
    }
}

impl Drop for FileSystemUserGuard {
    fn drop(&mut self) {
        if let Some((uid, gid)) = self.0 {
            setfsuid(uid);
            setfsgid(gid);
        }
    }
}

/// What is at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    Nothing,
    Node {
        num: DevNum,
        mode: u32,
        uid: u32,
        gid: u32,
    },
    Link(PathBuf),
    Directory,
    Fifo,
    Socket,
    File {
        size: u64,
        uid: u32,
    },
    /// A mount whose file system may never answer, so it is not examined.
    Mount,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Node { num, .. } => write!(f, "the device node {num}"),
            // The container chose the text of the link.
            Self::Link(target) => write!(f, "a symbolic link to {target:?}"),
            Self::Directory => f.write_str("a directory"),
            Self::Fifo => f.write_str("a FIFO"),
            Self::Socket => f.write_str("a socket"),
            Self::File { .. } => f.write_str("a file"),
            Self::Mount => f.write_str("a mount of another file system"),
        }
    }
}

/// The result of a walk.
pub(super) enum Walk {
    /// The parent directory exists.
    Place(Place),
    /// A parent directory is missing.
    Missing,
    /// The path leads into the host's devtmpfs, where nothing is created.
    HostOwned,
}

/// A name in a directory of the container.
pub(super) struct Place {
    parent: OwnedFd,
    name: OsString,
    /// The absolute path in the container, for messages.
    path: PathBuf,
    user: FileSystemUser,
    mounts: ContainerMounts,
}

/// The mounts of the container, shared by all places in it.
pub(super) type ContainerMounts = Rc<Mounts>;

/// What a name leads to, found without contacting a file system that may never answer.
enum Opened {
    /// A file in the directory's own file system.
    Own(OwnedFd),
    /// A mount of a file system in the kernel's memory: a tmpfs, such as our staging tmpfs, or
    /// devtmpfs.
    Mounted(OwnedFd),
    /// Any other mount.
    Foreign,
}

/// The parameters of a walk.
pub(super) struct Walker<'a> {
    /// The directory where the walk starts.
    pub start: &'a OwnedFd,
    /// The path of `start` in the container: `/` or `/dev`.
    pub base: &'a Path,
    /// The device number of the host's devtmpfs.
    pub host_dev: (u32, u32),
    /// The owner of directories that are created.
    pub user: FileSystemUser,
    pub mounts: &'a ContainerMounts,
}

impl Walker<'_> {
    /// Walks to the parent directory of `path` (absolute, below the base). If `made` is given,
    /// missing directories are created and added to it.
    pub(super) fn walk(
        &self,
        path: &Path,
        mut made: Option<&mut Vec<PathBuf>>,
    ) -> Result<Walk, ContainerDevError> {
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(ContainerDevError::Path {
                path: path.to_owned(),
            });
        };
        let steps = above
            .strip_prefix(self.base)
            .map_err(|_| ContainerDevError::Path {
                path: path.to_owned(),
            })?;
        let parent = self
            .start
            .try_clone()
            .map_err(|source| failed("opening", path, source))?;
        let mut here = Place {
            parent,
            name: OsString::new(),
            path: self.base.to_owned(),
            user: self.user,
            mounts: self.mounts.clone(),
        };
        for step in steps.components() {
            let Component::Normal(step) = step else {
                return Err(ContainerDevError::Path {
                    path: path.to_owned(),
                });
            };
            here.path.push(step);
            here.name = step.to_owned();
            let parent = match here.open_directory() {
                Err(Errno::ENOENT) => match &mut made {
                    None => return Ok(Walk::Missing),
                    Some(made) => {
                        let made_here = here.make_directory()?;
                        made.extend(made_here.then(|| here.path.clone()));
                        here.open_directory()
                    }
                },
                other => other,
            };
            here.parent = match parent {
                Ok(parent) => parent,
                Err(Errno::EXDEV) if self.is_host_dev(&here) => return Ok(Walk::HostOwned),
                Err(source) => return Err(here.blocked(source)),
            };
        }
        Ok(Walk::Place(Place {
            name: name.to_owned(),
            path: path.to_owned(),
            ..here
        }))
    }

    /// Whether the mount at this place is the host's devtmpfs or a part of it, for example with `-v
    /// /dev/bus/usb:/dev/bus/usb`.
    fn is_host_dev(&self, place: &Place) -> bool {
        let Ok(Opened::Mounted(mount)) = place.look() else {
            return false;
        };
        attributes(&mount).is_ok_and(|found| file_system_number(&found) == self.host_dev)
    }
}

impl Place {
    /// The path in the container.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What is here now. If a mount covers the name, it is the mount.
    pub(super) fn entry(&self) -> Result<Entry, ContainerDevError> {
        let looking = |source| failed("examining", &self.path, source);
        let fd = match self.look() {
            Err(Errno::ENOENT) => return Ok(Entry::Nothing),
            Ok(Opened::Foreign) => return Ok(Entry::Mount),
            Ok(Opened::Own(fd) | Opened::Mounted(fd)) => fd,
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
                        .map_err(|source| failed("reading the link", &self.path, source))?
                        .into(),
                )
            }
            SFlag::S_IFDIR => Entry::Directory,
            SFlag::S_IFIFO => Entry::Fifo,
            SFlag::S_IFSOCK => Entry::Socket,
            _ => Entry::File {
                size: found.stx_size,
                uid: found.stx_uid,
            },
        })
    }

    /// Opens what is here. If it is a mount, its type is looked up in the kernel's list of mounts
    /// before its file system is queried. An O_PATH open without O_DIRECTORY does not trigger an
    /// automount (follow_automount in fs/namei.c).
    fn look(&self) -> nix::Result<Opened> {
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

    /// Creates a file here that appears with its final content, mode and owner: `make` creates it
    /// under a temporary name, then it is renamed. An existing file is replaced only with
    /// `replace`; a directory never is.
    pub(super) fn put(
        &self,
        doing: &'static str,
        replace: bool,
        make: impl FnOnce(&Place) -> Result<(), ContainerDevError>,
    ) -> Result<(), ContainerDevError> {
        let temporary = Place {
            parent: self
                .parent
                .try_clone()
                .map_err(|source| failed(doing, &self.path, source))?,
            name: TEMPORARY.into(),
            path: self.path.clone(),
            user: self.user,
            mounts: self.mounts.clone(),
        };
        if !temporary.clear() {
            let found = temporary.entry()?.to_string();
            return Err(ContainerDevError::Taken {
                path: self.path.with_file_name(TEMPORARY),
                found,
            });
        }
        let result = make(&temporary).and_then(|()| self.rename_here(doing, replace));
        if result.is_err() {
            temporary.clear();
        }
        result
    }

    fn rename_here(&self, doing: &'static str, replace: bool) -> Result<(), ContainerDevError> {
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
            other => other.map_err(|source| failed(doing, &self.path, source)),
        }
    }

    /// Removes what is left under the temporary name. Returns false if it is a directory with
    /// content, which no watcher creates. Other failures are ignored: then creating the file fails
    /// too and reports why.
    fn clear(&self) -> bool {
        match unlinkat(&self.parent, self.name.as_os_str(), UnlinkatFlags::NoRemoveDir) {
            Err(Errno::EISDIR) => self.remove_directory(),
            _ => true,
        }
    }

    /// Runs one call that creates something here, as the container's root if the container has a
    /// user namespace.
    pub(super) fn make<T>(
        &self,
        doing: &'static str,
        call: impl FnOnce(&OwnedFd, &OsStr) -> nix::Result<T>,
    ) -> Result<T, ContainerDevError> {
        let _as_user = FileSystemUserGuard::new(self.user);
        call(&self.parent, &self.name).map_err(|source| failed(doing, &self.path, source))
    }

    /// Unlinks what is here. This also detaches what is mounted on it in other mount namespaces
    /// (since Linux 3.18). Returns false if nothing was here.
    pub(super) fn unlink(&self) -> Result<bool, ContainerDevError> {
        match unlinkat(&self.parent, self.name.as_os_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(source) => Err(failed("removing", &self.path, source)),
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
    fn open_directory(&self) -> nix::Result<OwnedFd> {
        let fd = self.open(OFlag::empty())?;
        match attributes(&fd) {
            Ok(found) if file_type(&found) == SFlag::S_IFDIR => Ok(fd),
            Ok(_) => Err(Errno::ENOTDIR),
            Err(source) => Err(Errno::from_raw(source.raw_os_error().unwrap_or_default())),
        }
    }

    /// Creates a directory with mode 0755, independent of the umask. Returns false if another
    /// process created it first.
    fn make_directory(&self) -> Result<bool, ContainerDevError> {
        const DOING: &str = "creating the directory";
        match self.make(DOING, |parent, name| {
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
                    .map_err(|source| failed(DOING, &self.path, source));
                if made.is_err() {
                    self.remove_directory();
                }
                made.map(|()| true)
            }
        }
    }

    /// The error for a walk that cannot pass this place.
    fn blocked(&self, source: Errno) -> ContainerDevError {
        if source == Errno::EXDEV {
            return ContainerDevError::InTheWay {
                path: self.path.clone(),
                found: Entry::Mount.to_string(),
            };
        }
        match self.entry() {
            Ok(Entry::Nothing | Entry::Directory) | Err(_) => failed("opening", &self.path, source),
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

/// Follows no link and does not leave the directory.
const RESOLVE_PLAIN: ResolveFlag = ResolveFlag::RESOLVE_BENEATH
    .union(ResolveFlag::RESOLVE_NO_SYMLINKS)
    .union(ResolveFlag::RESOLVE_NO_MAGICLINKS);

fn how_to_open(flags: OFlag) -> OpenHow {
    OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | flags)
        .resolve(RESOLVE_PLAIN)
}

/// openat2 with retries: a rename elsewhere makes it fail. The number of attempts is limited,
/// because a container could rename on purpose.
pub(super) fn open_retrying(at: impl AsFd, path: &Path, how: OpenHow) -> nix::Result<OwnedFd> {
    for _ in 0..ATTEMPTS {
        match openat2(at.as_fd(), path, how) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            other => return other,
        }
    }
    Err(Errno::EAGAIN)
}

/// Sets owner and mode of a node that was just created. Its type and number are compared first
/// (ESTALE if they differ), because the container may have replaced the file in the meantime.
pub(super) fn finish_node(fd: &OwnedFd, num: DevNum, mode: u32, uid: u32, gid: u32) -> nix::Result<()> {
    let found =
        attributes(fd).map_err(|source| Errno::from_raw(source.raw_os_error().unwrap_or_default()))?;
    let kind = if num.kind == DevKind::Block {
        SFlag::S_IFBLK
    } else {
        SFlag::S_IFCHR
    };
    let device = (found.stx_rdev_major, found.stx_rdev_minor);
    if file_type(&found) != kind || device != (num.major, num.minor) {
        return Err(Errno::ESTALE);
    }
    fchownat(
        fd,
        "",
        Some(Uid::from_raw(uid)),
        Some(Gid::from_raw(gid)),
        AtFlags::AT_EMPTY_PATH,
    )?;
    set_mode(fd, mode)
}

/// chmod of an O_PATH descriptor. fchmod(2) refuses those, so this goes through its link in our own
/// /proc.
fn set_mode(fd: &OwnedFd, mode: u32) -> nix::Result<()> {
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    fchmodat(
        AT_FDCWD,
        link.as_str(),
        Mode::from_bits_truncate(mode),
        FchmodatFlags::FollowSymlink,
    )
}

pub(super) fn file_type(attributes: &Statx) -> SFlag {
    SFlag::from_bits_truncate(u32::from(attributes.stx_mode) & SFlag::S_IFMT.bits())
}

fn node_entry(kind: DevKind, found: &Statx) -> Entry {
    let num = DevNum {
        kind,
        major: found.stx_rdev_major,
        minor: found.stx_rdev_minor,
    };
    Entry::Node {
        num,
        mode: u32::from(found.stx_mode) & 0o7777,
        uid: found.stx_uid,
        gid: found.stx_gid,
    }
}

/// The error of a failed step; a read-only file system has its own.
pub(super) fn failed(doing: &'static str, path: &Path, source: impl Into<io::Error>) -> ContainerDevError {
    let source = source.into();
    match source.kind() {
        io::ErrorKind::ReadOnlyFilesystem => ContainerDevError::ReadOnly {
            doing,
            path: path.to_owned(),
        },
        _ => ContainerDevError::Io {
            doing,
            path: path.to_owned(),
            source,
        },
    }
}
