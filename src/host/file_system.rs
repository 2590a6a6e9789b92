//! File attributes and mounts, read without contacting a file system's server, which may never
//! answer: the file system may belong to a container, or to a network server that has died.
//!
//! Verified with a FUSE server that never answers (Linux 6.18): an O_PATH open resolves directories
//! that are in the dentry cache and does not query the server about the last component; fdinfo and
//! mountinfo come from memory; `AT_STATX_DONT_SYNC` returns the attributes that the kernel has
//! cached.

use std::fs::{File, Metadata};
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use nix::NixPath;
use nix::fcntl::OFlag;
use nix::libc::dev_t;
use nix::sys::stat::{SFlag, makedev};
use rustix::fs::{AtFlags, Mode, OFlags, Statx, StatxFlags, openat, statx};

use crate::model::device::{DevKind, DevNum};

/// File systems that live in the kernel's memory and respond at once, even when a container mounted
/// them.
const IN_MEMORY: [&str; 4] = ["tmpfs", "devtmpfs", "ramfs", "devpts"];

/// File systems on disks of the host. None of them can be mounted in a user namespace.
const ON_DISK: [&str; 7] = ["ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs"];

/// How much of a list of mounts is read, in bytes: ten thousand mounts with ordinary names. A
/// container can have a hundred thousand mounts (fs.mount-max), each with a path of 4 KiB, and
/// reading all of them for every name would block the watcher.
const MAX_MOUNTS: u64 = 2 << 20;

/// A device's kind, as mknod(2) takes it.
pub(crate) fn file_type_of(num: DevNum) -> SFlag {
    match num.kind {
        DevKind::Block => SFlag::S_IFBLK,
        DevKind::Char => SFlag::S_IFCHR,
    }
}

/// A device's number, as mknod(2) takes it and stat(2) returns it.
pub(crate) fn number_of(num: DevNum) -> dev_t {
    makedev(num.major.into(), num.minor.into())
}

/// The cached attributes of an open file (an O_PATH descriptor is enough): type, mode, owner, size,
/// numbers; since Linux 5.8 also the id of the mount by which it was opened.
pub(crate) fn attributes(fd: impl AsFd) -> io::Result<Statx> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    Ok(statx(
        fd,
        "",
        flags,
        StatxFlags::BASIC_STATS | StatxFlags::MNT_ID,
    )?)
}

/// Opens a directory as an O_PATH descriptor. Links in the path are followed, so it must not be one
/// that a container can change.
pub(crate) fn open_directory(path: &(impl NixPath + ?Sized)) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    nix::fcntl::open(path, flags, nix::sys::stat::Mode::empty())
}

/// The device number (major, minor) of the file system that a file is on.
pub(crate) fn file_system_number(attributes: &Statx) -> (u32, u32) {
    (attributes.stx_dev_major, attributes.stx_dev_minor)
}

/// Identifies a file: the device number of its file system, and its inode number.
pub(crate) fn identity(attributes: &Statx) -> ((u32, u32), u64) {
    (file_system_number(attributes), attributes.stx_ino)
}

/// The same for attributes that the standard library has read: two files are the same if these are
/// equal.
pub(crate) fn file_id(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Where a file system has its data, which tells whether it can block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// In the kernel's memory: never blocks.
    Memory,
    /// On a disk of the host: blocks no longer than that disk.
    Disk,
    /// Anything else, such as a server or another file system: may block for ever.
    Unknown,
}

/// A mount, as the list of mounts describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MountFacts {
    pub backing: Backing,
    pub is_sysfs: bool,
    /// Whether this mount, whatever its file system allows, is read-only.
    pub is_read_only: bool,
    /// Whether what is mounted on it appears in other mount namespaces, too.
    pub is_shared: bool,
}

/// The mounts that a process sees.
#[derive(Debug)]
pub struct Mounts(OwnedFd);

impl Mounts {
    /// `proc` is an open `/proc/PID`.
    pub fn new(proc: OwnedFd) -> Self {
        Self(proc)
    }

    /// The id of the mount that a descriptor points into (proc_pid_fdinfo(5), `mnt_id`). statx(2)
    /// has it too, but contacts the file system, which may refuse (FUSE in a user namespace) or
    /// wait for its server (9p). The id is needed before it is known which file system it is.
    pub fn id_of(fd: impl AsFd) -> io::Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd()))?;
        text.lines()
            .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Where the file system of a mount has its data. [`Backing::Unknown`] for a mount that the
    /// process does not see, and for one that comes after the first [`MAX_MOUNTS`] bytes of the
    /// list.
    ///
    /// The list is opened each time: a list shows the mounts below the root directory that the
    /// process had when it was opened, and pivot_root changes that root.
    pub fn backing(&self, id: u64) -> io::Result<Backing> {
        Ok(self.facts(id)?.map_or(Backing::Unknown, |facts| facts.backing))
    }

    /// What the list says of a mount; `None` in the same cases in which [`Self::backing`] is
    /// unknown because the mount is not found.
    pub fn facts(&self, id: u64) -> io::Result<Option<MountFacts>> {
        facts_in(self.list()?, id)
    }

    /// Whether a file system, by its device number, is mounted anywhere.
    pub fn has_file_system(&self, (major, minor): (u32, u32)) -> io::Result<bool> {
        let number = format!("{major}:{minor}");
        for line in self.list()?.split(b'\n') {
            let line = line?;
            if String::from_utf8_lossy(&line).split(' ').nth(2) == Some(number.as_str()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn list(&self) -> io::Result<impl BufRead + use<>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let list = File::from(openat(&self.0, "mountinfo", flags, Mode::empty())?);
        Ok(BufReader::new(list.take(MAX_MOUNTS)))
    }
}

/// Looks a mount up in a list of mounts (proc_pid_mountinfo(5)).
fn facts_in(list: impl BufRead, id: u64) -> io::Result<Option<MountFacts>> {
    for line in list.split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        if line.split(' ').next().and_then(|first| first.parse().ok()) == Some(id) {
            return Ok(Some(facts_of_line(&line)));
        }
    }
    Ok(None)
}

fn facts_of_line(line: &str) -> MountFacts {
    // The file system type is the first field after the separator. Before it come optional fields.
    let (head, tail) = line.split_once(" - ").unwrap_or((line, ""));
    let kind = tail.split(' ').next().unwrap_or_default();
    let mut fields = head.split(' ').skip(5);
    let options = fields.next().unwrap_or_default();
    MountFacts {
        backing: match kind {
            kind if IN_MEMORY.contains(&kind) => Backing::Memory,
            kind if ON_DISK.contains(&kind) => Backing::Disk,
            _ => Backing::Unknown,
        },
        is_sysfs: kind == "sysfs",
        is_read_only: options.split(',').any(|option| option == "ro"),
        is_shared: fields.any(|field| field.starts_with("shared:")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backing_of_a_mount_is_known() {
        let mounts = Mounts::new(File::open("/proc/self").unwrap().into());
        let backing = |path: &str| {
            let file = File::open(path).unwrap();
            let id = Mounts::id_of(&file).unwrap();
            mounts.backing(id).unwrap()
        };
        assert_eq!(backing("/proc"), Backing::Unknown);
        if identity(&attributes(File::open("/dev").unwrap()).unwrap()).0
            != identity(&attributes(File::open("/").unwrap()).unwrap()).0
        {
            assert_eq!(backing("/dev"), Backing::Memory);
        }
        assert_eq!(mounts.backing(u64::MAX).unwrap(), Backing::Unknown);
    }

    /// proc_pid_mountinfo(5).
    #[test]
    fn a_line_says_whether_a_mount_is_shared_and_read_only() {
        let facts = facts_of_line("36 35 98:0 / /sys ro,nosuid shared:7 master:1 - sysfs none rw,seclabel");
        let expected = MountFacts {
            backing: Backing::Unknown,
            is_sysfs: true,
            is_read_only: true,
            is_shared: true,
        };
        assert_eq!(facts, expected);
        let facts = facts_of_line("36 35 0:5 /ro /ro,shared:1 rw - tmpfs ro ro");
        let expected = MountFacts {
            backing: Backing::Memory,
            is_sysfs: false,
            is_read_only: false,
            is_shared: false,
        };
        assert_eq!(facts, expected);
    }

    /// Case security 1.
    #[test]
    fn a_mount_beyond_the_part_that_is_read_has_unknown_backing() {
        let one = |id: u64, kind: &str| format!("{id} 1 0:5 / /{} rw - {kind} none rw\n", "x".repeat(4000));
        let mut list: String = (0..1000).map(|id| one(id, "fuse")).collect();
        list += &one(5000, "tmpfs");
        let backing = |id, limit| {
            let facts = facts_in(list.as_bytes().take(limit), id).unwrap();
            facts.map_or(Backing::Unknown, |facts| facts.backing)
        };
        assert_eq!(backing(5000, u64::MAX), Backing::Memory);
        assert_eq!(backing(5000, MAX_MOUNTS), Backing::Unknown);
        // The last line is cut off, because reading stops at the limit.
        assert_eq!(backing(0, 100), Backing::Unknown);
        assert!(list.len() as u64 > MAX_MOUNTS);
    }
}
