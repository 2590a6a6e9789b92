//! Where links of the host point now: udev's links, links made by hand in `/dev`, and those of
//! `/sys/class` and `/sys/bus`.
//!
//! Also the numbers of nodes that requests name by path. Must not know requests. Reads links and
//! never opens their targets. Paths come from untrusted requests, so links in `/dev` are followed
//! only in directories that only root can write: `/dev/shm` and `/dev/fd/12` lead to files of other
//! users.

use std::cell::RefCell;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{self, OFlag, OpenHow, ResolveFlag, openat2, readlink, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};

use super::link_directories::UsedDirectories;
use crate::host::file_system::{self, attributes};
use crate::model::device::{DevKind, DevNum, LinkTargets};

/// The longest chain of links, as the kernel's MAXSYMLINKS (linux/namei.h).
const MAX_LINKS: usize = 40;

/// Attempts when a concurrent rename disturbs the look-up (openat2(2), EAGAIN).
const ATTEMPTS: usize = 8;

/// S_IWGRP and S_IWOTH.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// An open `/dev`, to resolve links. Who may write to it is known from the moment of opening.
pub(super) struct HostLinks {
    root: PathBuf,
    /// The directory and its facts; `None` if it does not exist.
    dev: Option<(Rc<OwnedFd>, FileStat)>,
    /// The directories that were used, if they are recorded.
    used: Option<RefCell<UsedDirectories>>,
}

impl HostLinks {
    /// Opens the host's `/dev` as it is mounted now.
    pub(super) fn open() -> Self {
        Self::open_at("/dev")
    }

    pub(super) fn open_at(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        let dev = file_system::open_directory(&root).ok().and_then(|fd| {
            let facts = fstat(&fd).ok()?;
            Some((Rc::new(fd), facts))
        });
        Self {
            root,
            dev,
            used: None,
        }
    }

    /// Records the directories that are used from now on.
    pub(super) fn recording(self) -> Self {
        Self {
            used: Some(RefCell::new(UsedDirectories::begin(self.root.clone()))),
            ..self
        }
    }

    /// The directories that decided where the paths led. Ends the recording.
    pub(super) fn take_used(&mut self) -> UsedDirectories {
        self.used.take().map(RefCell::into_inner).unwrap_or_default()
    }

    /// Resolves each path. A path that is not a link leads to itself.
    pub(super) fn follow<'a>(&self, paths: impl IntoIterator<Item = &'a PathBuf>) -> LinkTargets {
        paths
            .into_iter()
            .map(|path| (path.clone(), self.target(path)))
            .collect()
    }

    /// Resolves one path. `None`: it leads nowhere, or through a directory that is not trusted.
    pub(super) fn target(&self, path: &Path) -> Option<PathBuf> {
        let (end, exists) = self.end(path)?;
        exists.then_some(end)
    }

    /// The path at the end of all links, and whether a file is there: a link can lead to a node
    /// that does not exist yet.
    pub(super) fn end(&self, path: &Path) -> Option<(PathBuf, bool)> {
        if path.starts_with("/sys") {
            return Some((in_sysfs(path)?, true));
        }
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            let below = path.strip_prefix(&self.root).ok()?;
            let directory = self.directory(below.parent()?)?;
            match readlinkat(&directory, below.file_name()?) {
                Ok(text) => path = joined(path.parent()?, Path::new(&text)),
                // The file exists and is not a link (readlink(2)).
                Err(Errno::EINVAL) => return Some((path, true)),
                Err(Errno::ENOENT) => return Some((path, false)),
                Err(_) => return None,
            }
        }
        None
    }

    /// The device number of the node at a path, or of the node that the link there leads to, by the
    /// same rules. `None`: no node is there, or the path leads through a directory that is not
    /// trusted.
    pub(super) fn number(&self, path: &Path) -> Option<DevNum> {
        let target = self.target(path)?;
        let below = target.strip_prefix(&self.root).ok()?;
        let directory = self.directory(below.parent()?)?;
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let node = fcntl::openat(&directory, below.file_name()?, flags, Mode::empty()).ok()?;
        let found = attributes(&node).ok()?;
        let kind = match SFlag::from_bits_truncate(u32::from(found.stx_mode) & SFlag::S_IFMT.bits()) {
            SFlag::S_IFBLK => DevKind::Block,
            SFlag::S_IFCHR => DevKind::Char,
            _ => return None,
        };
        Some(DevNum {
            kind,
            major: found.stx_rdev_major,
            minor: found.stx_rdev_minor,
        })
    }

    /// Opens the directory that a path is in, to be watched. `None` if it is not trusted.
    pub(super) fn directory_of(&self, path: &Path) -> Option<Rc<OwnedFd>> {
        self.directory(path.strip_prefix(&self.root).ok()?.parent()?)
    }

    /// Opens a directory of the same file system as `/dev`, without following links. `None` if
    /// anyone but the owner of `/dev` can write to it.
    fn directory(&self, below: &Path) -> Option<Rc<OwnedFd>> {
        let (dev, facts_of_dev) = self.dev.as_ref()?;
        let (directory, facts) = if below.as_os_str().is_empty() {
            (dev.clone(), *facts_of_dev)
        } else if let Some(directory) = open_directory(dev, below) {
            let facts = fstat(&directory).ok()?;
            (Rc::new(directory), facts)
        } else {
            // It may come: then a directory above it changes.
            let above = below.parent().filter(|_| self.used.is_some());
            above.map(|above| self.directory(above));
            return None;
        };
        let is_trusted = facts.st_uid == facts_of_dev.st_uid && facts.st_mode & WRITABLE_BY_OTHERS == 0;
        if let Some(used) = self.used.as_ref().filter(|_| is_trusted) {
            used.borrow_mut().add(self.root.join(below), &facts);
        }
        is_trusted.then_some(directory)
    }
}

fn open_directory(dev: impl AsFd, below: &Path) -> Option<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    open_below(dev, below, flags, ResolveFlag::RESOLVE_NO_SYMLINKS)
}

/// Resolves a path of sysfs without leaving sysfs: the path may contain `..`.
fn in_sysfs(path: &Path) -> Option<PathBuf> {
    let root = Path::new("/sys");
    let sysfs = File::open(root).ok()?;
    let below = path.strip_prefix(root).ok()?;
    let found = open_below(&sysfs, below, OFlag::O_PATH, ResolveFlag::empty())?;
    let found = readlink(format!("/proc/self/fd/{}", found.as_raw_fd()).as_str()).ok()?;
    Some(PathBuf::from(found))
}

fn open_below(directory: impl AsFd, path: &Path, flags: OFlag, resolve: ResolveFlag) -> Option<OwnedFd> {
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(
        ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_MAGICLINKS
            | ResolveFlag::RESOLVE_NO_XDEV
            | resolve,
    );
    for _ in 0..ATTEMPTS {
        match openat2(&directory, path, how) {
            Err(Errno::EAGAIN) => {}
            found => return found.ok(),
        }
    }
    None
}

/// A link's text as a path. No component of `directory` is a link, so `..` can be resolved as text.
fn joined(directory: &Path, text: &Path) -> PathBuf {
    let mut path = directory.to_owned();
    for component in text.components() {
        match component {
            Component::ParentDir => {
                path.pop();
            }
            Component::CurDir => {}
            other => path.push(other),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// A /dev with two nodes. They are files: the code under test does not look at their type.
    struct Dev(tempfile::TempDir);

    impl Dev {
        fn new() -> Self {
            let dev = Self(tempfile::tempdir().unwrap());
            fs::create_dir_all(dev.path("serial/by-id")).unwrap();
            fs::write(dev.path("ttyUSB0"), "").unwrap();
            fs::write(dev.path("ttyUSB1"), "").unwrap();
            dev
        }

        fn path(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        fn link(&self, path: &str, text: impl AsRef<Path>) {
            symlink(text, self.path(path)).unwrap();
        }

        fn target(&self, path: &str) -> Option<PathBuf> {
            HostLinks::open_at(self.0.path()).target(&self.path(path))
        }
    }

    #[test]
    fn links_of_udev_by_hand_and_to_other_links_are_followed() {
        let dev = Dev::new();
        dev.link("serial/by-id/usb-X", "../../ttyUSB0");
        dev.link("stick", "serial/by-id/usb-X");
        dev.link("absolute", dev.path("ttyUSB1"));
        for (path, leads_to) in [
            ("serial/by-id/usb-X", "ttyUSB0"),
            ("stick", "ttyUSB0"),
            ("absolute", "ttyUSB1"),
            ("ttyUSB1", "ttyUSB1"),
        ] {
            assert_eq!(dev.target(path), Some(dev.path(leads_to)), "{path}");
        }
    }

    #[test]
    fn a_link_leads_where_it_leads_now() {
        let dev = Dev::new();
        dev.link("stick", "ttyUSB0");
        assert_eq!(dev.target("stick"), Some(dev.path("ttyUSB0")));
        dev.link("new", "ttyUSB1");
        fs::rename(dev.path("new"), dev.path("stick")).unwrap();
        assert_eq!(dev.target("stick"), Some(dev.path("ttyUSB1")));
        fs::remove_file(dev.path("ttyUSB1")).unwrap();
        assert_eq!(dev.target("stick"), None, "a dangling link leads nowhere");
        fs::remove_file(dev.path("stick")).unwrap();
        assert_eq!(dev.target("stick"), None);
    }

    #[test]
    fn links_that_other_users_can_write_or_that_leave_dev_are_not_followed() {
        let dev = Dev::new();
        let outside = tempfile::tempdir().unwrap();
        symlink(dev.path("ttyUSB0"), outside.path().join("back")).unwrap();
        fs::create_dir(dev.path("open")).unwrap();
        fs::set_permissions(dev.path("open"), fs::Permissions::from_mode(0o1777)).unwrap();
        dev.link("open/stick", "../ttyUSB0");
        dev.link("through-open", "open/stick");
        dev.link("out", outside.path().join("back"));
        dev.link("directory", "serial/by-id");
        dev.link("serial/by-id/usb-X", "../../ttyUSB0");
        dev.link("fd", "/proc/self/fd");
        dev.link("a", "b");
        dev.link("b", "a");
        for path in [
            "open/stick",
            "through-open",
            "out",
            "directory/usb-X",
            "fd/0",
            "a",
            "absent/x",
            "ttyUSB0/x",
        ] {
            assert_eq!(dev.target(path), None, "{path}");
        }
    }

    /// Case security 2.
    #[test]
    fn a_node_has_a_number_only_where_only_root_can_put_it() {
        let dev = Dev::new();
        let make = |path: &str| {
            // Linux 5.8: who may not make nodes may make this one.
            let number = nix::sys::stat::makedev(0, 0);
            nix::sys::stat::mknod(&dev.path(path), SFlag::S_IFCHR, Mode::empty(), number).unwrap();
        };
        fs::create_dir(dev.path("open")).unwrap();
        fs::set_permissions(dev.path("open"), fs::Permissions::from_mode(0o1777)).unwrap();
        make("node");
        make("open/node");
        dev.link("link", "node");
        dev.link("to-open", "open/node");
        dev.link("open/link", "../node");
        let open = fs::File::open(dev.path("open")).unwrap();
        let fd = format!("/dev/fd/{}/node", open.as_raw_fd());
        let links = HostLinks::open_at(dev.0.path());
        let number = |path: &str| links.number(&dev.path(path)).map(|number| number.to_string());
        assert_eq!(number("node").as_deref(), Some("c 0:0"));
        assert_eq!(number("link").as_deref(), Some("c 0:0"));
        for path in ["open/node", "to-open", "open/link", "ttyUSB0", "serial", "absent"] {
            assert_eq!(number(path), None, "{path}");
        }
        let host = HostLinks::open();
        let proc = format!("/proc/self/fd/{}/node", open.as_raw_fd());
        for path in [
            fd.as_str(),
            proc.as_str(),
            "/dev/stdin",
            "/dev/shm/x",
            "/etc/passwd",
        ] {
            assert_eq!(host.number(Path::new(path)), None, "{path}");
            assert!(
                path == "/dev/stdin" || host.directory_of(Path::new(path)).is_none(),
                "{path}"
            );
        }
        assert_eq!(host.number(Path::new("/dev/null")).unwrap().to_string(), "c 1:3");
    }

    #[test]
    fn paths_of_sysfs_are_followed_and_never_leave_it() {
        let links = HostLinks::open();
        let null = PathBuf::from("/sys/devices/virtual/mem/null");
        let targets = links.follow(&[
            "/sys/class/mem/null".into(),
            "/sys/class/mem/null/../zero".into(),
            "/sys/../etc/passwd".into(),
            "/sys/no such thing".into(),
        ]);
        let expected: LinkTargets = BTreeMap::from([
            ("/sys/class/mem/null".into(), Some(null.clone())),
            (
                "/sys/class/mem/null/../zero".into(),
                Some("/sys/devices/virtual/mem/zero".into()),
            ),
            ("/sys/../etc/passwd".into(), None),
            ("/sys/no such thing".into(), None),
        ]);
        assert_eq!(targets, expected);
        assert_eq!(links.target(&null), Some(null));
    }

    #[test]
    fn without_a_dev_no_link_leads_anywhere() {
        assert_eq!(
            HostLinks::open_at("/no such directory").target(Path::new("/no such directory/x")),
            None
        );
    }
}
