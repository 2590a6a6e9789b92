//! Nodes that requests name and that sysfs may not know: looked at with lstat(2), watched with inotify(7).
//!
//! Must not know requests nor other devices. Never opens a node.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::stat::{major, minor};

use super::MonitorError;
use crate::model::device::{DevKind, DevNode, DevNum, Device, STATIC_NODE, STATIC_NODES, Seen, SysPath};
use crate::model::event::DeviceEvent;

/// The nodes that are asked for, with the number that each had when it was last looked at.
#[derive(Default)]
pub(super) struct StaticNodes {
    /// Only where a node is asked for: a host has 128 of these for each user, and a watcher for each container.
    inotify: Option<Inotify>,
    /// Whether nobody has been told yet that there is a descriptor to wait on.
    is_news: bool,
    known: BTreeMap<PathBuf, Option<DevNum>>,
}

impl StaticNodes {
    /// Adds nodes to look after. Paths that are not absolute are left out: relative to what would they be?
    ///
    /// Errors: the host's limit of inotify instances (fs.inotify.max_user_instances). The nodes are looked after all
    /// the same, by looks alone.
    pub fn add(&mut self, paths: &BTreeSet<PathBuf>) -> Result<(), MonitorError> {
        for path in paths.iter().filter(|path| path.is_absolute()) {
            self.known.entry(path.clone()).or_insert(None);
        }
        if self.inotify.is_none() && !self.known.is_empty() {
            let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
            let inotify = Inotify::init(flags).map_err(|errno| MonitorError::Inotify(errno.into()))?;
            self.inotify = Some(inotify);
            self.is_news = true;
        }
        self.known.keys().for_each(|path| self.watch(path));
        Ok(())
    }

    /// For epoll: readable when something happened beside one of the nodes.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    /// Whether the descriptor has come since this was last asked.
    pub fn has_news(&mut self) -> bool {
        std::mem::take(&mut self.is_news)
    }

    /// Whether something happened beside a node since the last time; what, only a look at the nodes tells.
    pub fn woke(&self) -> bool {
        let Some(inotify) = &self.inotify else {
            return false;
        };
        let mut woke = false;
        while inotify.read_events().is_ok_and(|events| !events.is_empty()) {
            woke = true;
        }
        woke
    }

    /// Those that are there now.
    pub fn present(&self) -> impl Iterator<Item = Device> + '_ {
        self.known
            .keys()
            .filter_map(|path| Some(device(path, number_of(path)?)))
    }

    /// Looks at each node: what has come, changed its number, or gone since the last look.
    pub fn look(&mut self) -> Vec<DeviceEvent> {
        let mut events = Vec::new();
        let paths: Vec<_> = self.known.keys().cloned().collect();
        for path in paths {
            // The directory may be new (again); watching it twice is watching it once (inotify_add_watch(2)).
            self.watch(&path);
            let now = number_of(&path);
            let before = self.known.insert(path.clone(), now).flatten();
            match (before, now) {
                (None, Some(number)) => events.push(DeviceEvent::Added(device(&path, number))),
                (Some(old), Some(number)) if old != number => {
                    events.push(DeviceEvent::Changed(device(&path, number)));
                }
                (Some(_), None) => events.push(DeviceEvent::Removed {
                    syspath: syspath(&path),
                    seqnum: 0,
                }),
                _ => {}
            }
        }
        events
    }

    /// A directory that is not there (yet) is not watched: the look that comes each second finds the node.
    fn watch(&self, path: &Path) {
        let (Some(inotify), Some(directory)) = (&self.inotify, path.parent()) else {
            return;
        };
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_ONLYDIR;
        let _ = inotify.add_watch(directory, flags);
    }
}

/// The number of the node at this path, or at the end of the link that is there. `None`: no node is there.
fn number_of(path: &Path) -> Option<DevNum> {
    let number = || -> io::Result<Option<DevNum>> {
        let mut metadata = fs::symlink_metadata(path)?;
        if metadata.is_symlink() {
            metadata = fs::symlink_metadata(fs::canonicalize(path)?)?;
        }
        let kind = match metadata.file_type() {
            found if found.is_block_device() => DevKind::Block,
            found if found.is_char_device() => DevKind::Char,
            _ => return Ok(None),
        };
        // dev_t has 32 bits on Linux: each part fits.
        let part = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Ok(Some(DevNum {
            kind,
            major: part(major(metadata.rdev())),
            minor: part(minor(metadata.rdev())),
        }))
    };
    number().ok().flatten()
}

fn syspath(path: &Path) -> SysPath {
    SysPath::new(format!("{STATIC_NODES}{}", path.to_string_lossy()))
}

fn device(path: &Path, num: DevNum) -> Device {
    let mut device = Device::new(syspath(path));
    device.subsystem = Some(STATIC_NODE.to_owned());
    device.node = Some(DevNode {
        path: path.to_owned(),
        num,
    });
    // Nobody will say more of it.
    device.seen = Seen::Udev;
    device
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn nodes(paths: &[PathBuf]) -> StaticNodes {
        let mut nodes = StaticNodes::default();
        nodes.add(&paths.iter().cloned().collect()).unwrap();
        nodes
    }

    #[test]
    fn a_node_that_is_there_is_reported_once_with_its_number() {
        let mut nodes = nodes(&["/dev/null".into()]);
        let events = nodes.look();
        let [DeviceEvent::Added(device)] = events.as_slice() else {
            panic!("{events:?}");
        };
        assert_eq!(device.syspath.as_str(), "/sys/devices/oci-hotplug-node/dev/null");
        assert_eq!(device.subsystem.as_deref(), Some("oci-hotplug-node"));
        let node = device.node.as_ref().unwrap();
        assert_eq!(
            (node.path.to_str(), node.num.to_string().as_str()),
            (Some("/dev/null"), "c 1:3")
        );
        assert_eq!(device.seen, Seen::Udev);
        assert_eq!(nodes.look(), []);
    }

    #[test]
    fn a_link_to_a_node_comes_changes_and_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mine");
        let mut nodes = nodes(std::slice::from_ref(&path));
        assert_eq!(nodes.look(), []);
        assert!(!nodes.woke());

        symlink("/dev/null", &path).unwrap();
        assert!(nodes.woke());
        assert!(matches!(nodes.look().as_slice(), [DeviceEvent::Added(_)]));
        assert_eq!(nodes.present().count(), 1);

        fs::remove_file(&path).unwrap();
        symlink("/dev/zero", &path).unwrap();
        let events = nodes.look();
        let [DeviceEvent::Changed(device)] = events.as_slice() else {
            panic!("{events:?}");
        };
        assert_eq!(device.node.as_ref().unwrap().num.to_string(), "c 1:5");
        assert!(nodes.woke());

        fs::remove_file(&path).unwrap();
        assert!(nodes.woke());
        let gone = DeviceEvent::Removed {
            syspath: syspath(&path),
            seqnum: 0,
        };
        assert_eq!(nodes.look(), [gone]);
        assert_eq!(nodes.present().count(), 0);
    }

    #[test]
    fn what_is_no_node_is_not_reported() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("file"), "").unwrap();
        symlink("dangling", path("link")).unwrap();
        symlink("loop", path("loop")).unwrap();
        let mut nodes = nodes(&[
            path("file"),
            path("link"),
            path("loop"),
            path(""),
            "dev/null".into(),
        ]);
        assert_eq!(nodes.look(), []);
    }

    #[test]
    fn a_directory_that_comes_later_is_watched_from_the_next_look_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("later/node");
        let mut nodes = nodes(std::slice::from_ref(&path));
        fs::create_dir(path.parent().unwrap()).unwrap();
        assert_eq!(nodes.look(), []);
        symlink("/dev/null", &path).unwrap();
        assert!(nodes.woke());
        assert!(matches!(nodes.look().as_slice(), [DeviceEvent::Added(_)]));
    }
}
