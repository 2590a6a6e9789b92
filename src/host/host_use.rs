//! Which block devices the host itself uses: mounts of this process and of the host's init, swap,
//! and holders in sysfs.
//!
//! Does not know what follows from it (`model::policy`). Opens no device node; of the paths that it
//! reads it only gets the numbers, with statx(2).

use std::fs::{self, File};
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::SFlag;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use rustix::fs::RawDir;

use crate::host::file_system::attributes;
use crate::model::device::{DevKind, Device, major_minor};
use crate::model::policy::{HostUse, Use};

/// The size up to which a list is read with one call that returns it and one that finds its end.
const USUAL_BYTES: usize = 16 << 10;

/// The directory with a directory for each mounted btrfs.
const BTRFS: &str = "/sys/fs/btrfs";

/// Device numbers (major, minor) with their use. If a device has several uses, the first one found
/// comes first.
type Uses = Vec<((u32, u32), Use)>;

/// A file with the host's use of its disks cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read which disks the host uses, {path}: {source} (until it can be read, untrusted requests get no disks)", path = path.display())]
pub(crate) struct HostUseError {
    pub path: PathBuf,
    pub source: io::Error,
}

/// Reads which of these block devices the host uses now. See [`HostUseReader::read`].
///
/// # Errors
/// When the use is unknown.
pub(crate) fn read(devices: &[&Device]) -> Result<HostUse, HostUseError> {
    HostUseReader::default().read(devices)
}

/// Reads which block devices the host uses. The lists of mounts and of swap are read again only
/// after they have changed: a host with many containers has thousands of mounts.
#[derive(Debug, Default)]
pub(crate) struct HostUseReader(Option<Lists>);

/// The lists as last read.
#[derive(Debug)]
struct Lists {
    /// The files, which stay open: poll(2) reports POLLPRI for them once after each change
    /// (proc_pid_mounts(5); swaps_poll, mm/swapfile.c).
    files: Vec<File>,
    /// Whether all of them are the kernel's: another file system in place of procfs, such as lxcfs,
    /// may report no changes.
    report_changes: bool,
    used: Uses,
}

impl HostUseReader {
    /// Reads which of these block devices the host uses now.
    ///
    /// A device is in use if it is mounted in our mount namespace or in that of the host's init
    /// (proc_pid_mountinfo(5)), if it belongs to a mounted btrfs, if it is swap (proc_swaps(5)), or
    /// if another device is built on it: the kernel lists device mapper, md and bcache devices in
    /// the `holders` of the devices below them (Documentation/ABI/stable/sysfs-block). Loop devices
    /// are not among the holders: the policy finds them by their backing files
    /// (`model::device::same_data`).
    ///
    /// # Errors
    /// When one of these cannot be read. Then the use is unknown, and [`HostUse::unknown`] is the
    /// safe value.
    pub(crate) fn read(&mut self, devices: &[&Device]) -> Result<HostUse, HostUseError> {
        let lists = match self.0.take().filter(Lists::are_unchanged) {
            Some(lists) => lists,
            None => Lists::read()?,
        };
        let mut used = lists.used.clone();
        self.0 = Some(lists);
        // A device that is added to a mounted btrfs changes none of the lists.
        btrfs(&mut used);
        for device in devices {
            if let Some(node) = device
                .node
                .as_ref()
                .filter(|node| node.num.kind == DevKind::Block)
            {
                if let Some(holder) = holder_of(device) {
                    let text = format!("is a part of {holder}");
                    used.push(((node.num.major, node.num.minor), Use::new(text, None)));
                }
            }
        }
        Ok(HostUse::used(used))
    }

    /// Whether the lists are known.
    pub(crate) fn was_read(&self) -> bool {
        self.0.is_some()
    }

    /// Whether mounts or swap may have changed since they were read; `false` if they were not read.
    /// Costs one system call.
    pub(crate) fn may_differ(&mut self) -> bool {
        let was_read = self.0.is_some();
        // A change is reported only once: these lists must not be used any more.
        self.0 = self.0.take().filter(Lists::are_unchanged);
        was_read && self.0.is_none()
    }
}

impl Lists {
    fn read() -> Result<Self, HostUseError> {
        let (mut files, mut used) = (Vec::new(), Uses::new());
        let (file, text) = read_text(Path::new("/proc/self/mountinfo"))?;
        mounted(&text, &mut used);
        files.push(file);
        // A hook that a service with its own mount namespace runs does not see all mounts of the
        // host. If there is no /proc/1, there is no other namespace to read.
        if let Ok((file, text)) = read_text(Path::new("/proc/1/mountinfo")) {
            mounted(&text, &mut used);
            files.push(file);
        }
        match read_text(Path::new("/proc/swaps")) {
            Ok((file, text)) => {
                swaps(&text, &mut used);
                files.push(file);
            }
            // A kernel without swap (CONFIG_SWAP) has no such file.
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let is_proc = |file: &File| fstatfs(file).is_ok_and(|of| of.filesystem_type() == PROC_SUPER_MAGIC);
        Ok(Self {
            report_changes: files.iter().all(is_proc),
            files,
            used,
        })
    }

    fn are_unchanged(&self) -> bool {
        if !self.report_changes {
            return false;
        }
        let mut changes: Vec<PollFd<'_>> = self
            .files
            .iter()
            .map(|file| PollFd::new(file.as_fd(), PollFlags::POLLPRI))
            .collect();
        matches!(poll(&mut changes, PollTimeout::ZERO), Ok(0))
    }
}

/// Returns the file with its content. What changes after it was opened is reported by poll(2).
fn read_text(path: &Path) -> Result<(File, String), HostUseError> {
    // Mount points may contain bytes that are not UTF-8.
    let mut bytes = Vec::with_capacity(USUAL_BYTES);
    let file = File::open(path).and_then(|mut file| {
        file.read_to_end(&mut bytes)?;
        Ok(file)
    });
    let file = file.map_err(|source| HostUseError {
        path: path.to_owned(),
        source,
    })?;
    Ok((file, String::from_utf8_lossy(&bytes).into_owned()))
}

/// The third field is the device number. A file system on several devices, such as btrfs, has an
/// anonymous number there (major 0); its device is the second field after the `-`.
fn mounted(mountinfo: &str, used: &mut Uses) {
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        // A mount point may contain any characters. If a desktop mounts removable drives, the owner
        // of a drive chooses them.
        let point = unescaped(left.split(' ').nth(4).unwrap_or_default());
        let its = Use::new(format!("is mounted at {point:?}"), Some("unmount it"));
        if let Some(number) = left.split(' ').nth(2).and_then(major_minor) {
            if number.0 != 0 {
                used.push((number, its));
                continue;
            }
        }
        let source = right.split(' ').nth(1).unwrap_or_default();
        // bcachefs names all its devices: /dev/sda:/dev/sdb.
        for path in source.split(':').filter(|path| path.starts_with("/dev/")) {
            used.extend(number_of_node(&unescaped(path)).map(|number| (number, its.clone())));
        }
    }
}

/// Each mounted btrfs lists its devices (fs/btrfs/sysfs.c).
fn btrfs(used: &mut Uses) {
    // A directory of sysfs has a link more for each directory in it (fs/kernfs/dir.c): `features`
    // is always there.
    if fs::metadata(BTRFS).is_ok_and(|directory| directory.nlink() <= 3) {
        return;
    }
    for file_system in fs::read_dir(BTRFS).into_iter().flatten().flatten() {
        let devices = fs::read_dir(file_system.path().join("devices"));
        for device in devices.into_iter().flatten().flatten() {
            let text = fs::read_to_string(device.path().join("dev")).unwrap_or_default();
            let its = Use::new("is a device of a mounted btrfs", Some("unmount it"));
            used.extend(major_minor(text.trim()).map(|number| (number, its)));
        }
    }
}

fn swaps(text: &str, used: &mut Uses) {
    for line in text.lines().skip(1) {
        let path = line.split_whitespace().next().unwrap_or_default();
        // A swap file is on a mounted file system, which is found anyway.
        let its = Use::new("is swap", Some("run swapoff"));
        used.extend(number_of_node(&unescaped(path)).map(|number| (number, its)));
    }
}

/// The name of a device that is built on this one.
fn holder_of(device: &Device) -> Option<String> {
    first_name_in(&device.syspath.as_path().join("holders"))
}

/// The first name in a directory of sysfs. Costs one call to read it, if it has few names.
fn first_name_in(directory: &Path) -> Option<String> {
    let directory = File::open(directory).ok()?;
    let mut buffer = [MaybeUninit::uninit(); 1024];
    let mut entries = RawDir::new(&directory, &mut buffer);
    let mut skipped = 0;
    // sysfs fills the buffer (kernfs_fop_readdir, fs/kernfs/dir.c), which has room for the longest
    // name after the two that every directory has: then there is no third name.
    while skipped < 2 || !entries.is_buffer_empty() {
        let entry = entries.next()?.ok()?;
        match entry.file_name().to_bytes() {
            b"." | b".." => skipped += 1,
            name => return Some(String::from_utf8_lossy(name).into_owned()),
        }
    }
    None
}

/// The number of a block device, from its node in `/dev`. Other paths are not accessed: the user
/// who mounts a file system chooses its source text, and the server of a network file system may
/// have died.
fn number_of_node(path: &str) -> Option<(u32, u32)> {
    let below = Path::new(path).strip_prefix("/dev").ok()?;
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(
        ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS | ResolveFlag::RESOLVE_NO_XDEV,
    );
    let found = attributes(openat2(File::open("/dev").ok()?, below, how).ok()?).ok()?;
    let is_block = u32::from(found.stx_mode) & SFlag::S_IFMT.bits() == SFlag::S_IFBLK.bits();
    is_block.then_some((found.stx_rdev_major, found.stx_rdev_minor))
}

/// Decodes space, tab, newline and backslash, which mountinfo writes as three octal digits after a
/// backslash (proc_pid_mountinfo(5)).
fn unescaped(text: &str) -> String {
    let known = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    known
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::device::DevNum;
    use nix::sys::stat::{major, minor};

    #[test]
    fn mounts_are_identified_by_device_number_or_else_by_source() {
        let mut used = Uses::new();
        mounted(
            "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n\
             37 35 0:21 / /proc rw - proc proc rw\n\
             38 35 0:33 / /data rw shared:2 - btrfs /dev/null rw\n\
             39 35 253:4 / /srv\\040x rw - xfs /dev/mapper/a rw\n\
             broken\n",
            &mut used,
        );
        // /dev/null is not a block device, so the third line has no result.
        let texts: Vec<_> = used
            .iter()
            .map(|(number, its)| (*number, its.text.as_str()))
            .collect();
        assert_eq!(
            texts,
            [
                ((98, 0), "is mounted at \"/mnt2\""),
                ((253, 4), "is mounted at \"/srv x\"")
            ]
        );
    }

    #[test]
    fn a_swap_file_is_not_a_device() {
        let mut used = Uses::new();
        swaps(
            "Filename\tType\tSize\tUsed\tPriority\n/etc/passwd file 1 0 -2\n",
            &mut used,
        );
        assert!(used.is_empty());
    }

    #[test]
    fn the_first_name_in_a_directory_is_found() {
        let scratch = tempfile::tempdir().unwrap();
        assert_eq!(first_name_in(&scratch.path().join("absent")), None);
        assert_eq!(first_name_in(scratch.path()), None);
        let long = "x".repeat(255);
        fs::write(scratch.path().join(&long), "").unwrap();
        assert_eq!(first_name_in(scratch.path()), Some(long));
        // As the kernel lists it.
        let buses = first_name_in(Path::new("/sys/bus")).unwrap();
        assert!(Path::new("/sys/bus").join(buses).exists());
        let of_null = first_name_in(Path::new("/sys/devices/virtual/mem/null/power"));
        assert!(of_null.is_some());
    }

    #[test]
    fn octal_escapes_are_decoded() {
        assert_eq!(unescaped("/dev/a\\040b\\134"), "/dev/a b\\");
    }

    #[test]
    fn lists_that_were_not_read_cannot_differ() {
        let mut reader = HostUseReader::default();
        assert!(!reader.may_differ());
        // Other programs of the host mount file systems at any time.
        assert!((0..100).any(|_| {
            reader.read(&[]).unwrap();
            !reader.may_differ()
        }));
    }

    #[test]
    fn lists_whose_changes_are_not_reported_may_always_differ() {
        let foreign = Lists {
            files: Vec::new(),
            report_changes: false,
            used: Uses::new(),
        };
        let mut reader = HostUseReader(Some(foreign));
        assert!(reader.may_differ());
        assert!(!reader.may_differ(), "they are read again before the next call");
    }

    #[test]
    fn the_disk_of_the_hosts_root_is_in_use() {
        let root = fs::metadata("/").unwrap().dev();
        let number = (
            u32::try_from(major(root)).unwrap(),
            u32::try_from(minor(root)).unwrap(),
        );
        let host_use = read(&[]).unwrap();
        let num = DevNum {
            kind: DevKind::Block,
            major: number.0,
            minor: number.1,
        };
        assert_eq!(host_use.use_of(num).is_some(), number.0 != 0);
    }
}
