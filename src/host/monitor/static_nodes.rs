//! Nodes that requests name and that sysfs may not know: looked up in `/dev`, watched with
//! inotify(7).
//!
//! The paths come from untrusted requests ([`HostLinks`] has the rules by which they are followed).
//! Must not know requests nor other devices. Never opens a node.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::error::MonitorError;
use super::links::HostLinks;
use crate::model::device::event::DeviceEvent;
use crate::model::device::{DevNode, DevNum, Device, STATIC_NODE, STATIC_NODES, SysPath, UdevState};

/// How many wakes are handled between two polls, which come each second: a process that changes a
/// watched directory without pause must not keep the watcher busy.
const MAX_WAKES: u32 = 50;

/// The requested nodes, with the number that each had at the last poll.
#[derive(Default)]
pub(super) struct StaticNodes {
    /// Only if a node is requested: a host has 128 of these for each user, and a watcher for each
    /// container.
    inotify: Option<Inotify>,
    /// Whether the event loop does not know yet that there is a descriptor to wait on.
    is_news: bool,
    /// Wakes since the last look of the second's round.
    wakes: u32,
    known: BTreeMap<PathBuf, Option<DevNum>>,
    /// Another directory than `/dev`.
    #[cfg(test)]
    root: Option<PathBuf>,
}

impl StaticNodes {
    /// Adds nodes to look after.
    ///
    /// Errors: the host's limit of inotify instances (fs.inotify.max_user_instances). The nodes are
    /// followed anyway, by polls alone.
    pub(super) fn add(&mut self, paths: &BTreeSet<PathBuf>) -> Result<(), MonitorError> {
        for path in paths {
            self.known.entry(path.clone()).or_insert(None);
        }
        self.listen()
    }

    /// Whether no node is requested.
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Watches the directories of all nodes.
    fn listen(&mut self) -> Result<(), MonitorError> {
        if self.known.is_empty() {
            return Ok(());
        }
        if self.inotify.is_none() {
            let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
            let inotify = Inotify::init(flags).map_err(|errno| MonitorError::Inotify(errno.into()))?;
            self.inotify = Some(inotify);
            self.is_news = true;
        }
        let links = self.links();
        self.known.keys().for_each(|path| self.watch(&links, path));
        Ok(())
    }

    fn links(&self) -> HostLinks {
        #[cfg(test)]
        if let Some(root) = &self.root {
            return HostLinks::open_at(root);
        }
        HostLinks::open()
    }

    /// For epoll: readable when something happened beside one of the nodes.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    /// Whether the descriptor has come since this was last asked.
    pub(super) fn has_news(&mut self) -> bool {
        std::mem::take(&mut self.is_news)
    }

    /// Whether something happened beside a node since the last time; what, only a look at the nodes
    /// tells. After too many wakes nothing is watched until the second's next round.
    pub(super) fn woke(&mut self) -> bool {
        let Some(inotify) = &self.inotify else {
            return false;
        };
        let mut woke = false;
        // At most a few reads: events may come faster than they are read.
        for _ in 0..4 {
            if !inotify.read_events().is_ok_and(|events| !events.is_empty()) {
                break;
            }
            woke = true;
        }
        self.wakes += u32::from(woke);
        if self.wakes > MAX_WAKES {
            self.inotify = None;
        }
        woke
    }

    /// Those that are there now.
    pub(super) fn present(&self) -> impl Iterator<Item = Device> + '_ {
        let links = self.links();
        self.known
            .keys()
            .filter_map(move |path| Some(device(path, links.number(path)?)))
    }

    /// The poll of each second, after which wakes count from zero.
    pub(super) fn poll(&mut self) -> Vec<DeviceEvent> {
        self.wakes = 0;
        // Where they can't be watched, the looks find them.
        let _ = self.listen();
        self.look()
    }

    /// Looks at each node: what has come, changed its number, or gone since the last look.
    pub(super) fn look(&mut self) -> Vec<DeviceEvent> {
        if self.known.is_empty() {
            return Vec::new();
        }
        let mut events = Vec::new();
        let links = self.links();
        let paths: Vec<_> = self.known.keys().cloned().collect();
        for path in paths {
            // The directory may be new (again); watching it twice is watching it once
            // (inotify_add_watch(2)).
            self.watch(&links, &path);
            let now = links.number(&path);
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

    /// A directory that is not there (yet) is not watched: the look that comes each second finds
    /// the node.
    fn watch(&self, links: &HostLinks, path: &Path) {
        let (Some(inotify), Some(directory)) = (&self.inotify, links.directory_of(path)) else {
            return;
        };
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_ONLYDIR;
        // By descriptor: what is at the path by now may be another directory.
        let directory = format!("/proc/self/fd/{}", directory.as_raw_fd());
        let _ = inotify.add_watch(directory.as_str(), flags);
    }
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
    device.udev_state = UdevState::Processed;
    device
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::{Mode, SFlag};
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn nodes(root: Option<&Path>, paths: &[PathBuf]) -> StaticNodes {
        let mut nodes = StaticNodes {
            root: root.map(Path::to_owned),
            ..StaticNodes::default()
        };
        nodes.add(&paths.iter().cloned().collect()).unwrap();
        nodes
    }

    /// Linux 5.8: who may not make nodes may make this one.
    fn make(path: &Path) {
        let number = nix::sys::stat::makedev(0, 0);
        nix::sys::stat::mknod(path, SFlag::S_IFCHR, Mode::empty(), number).unwrap();
    }

    #[test]
    fn a_node_that_is_there_is_reported_once_with_its_number() {
        let mut nodes = nodes(None, &["/dev/null".into()]);
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
        assert_eq!(device.udev_state, UdevState::Processed);
        assert_eq!(nodes.look(), []);
    }

    #[test]
    fn a_link_to_a_node_comes_changes_and_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mine");
        make(&directory.path().join("real"));
        let mut nodes = nodes(Some(directory.path()), std::slice::from_ref(&path));
        assert_eq!(nodes.look(), []);
        assert!(!nodes.woke());

        symlink("real", &path).unwrap();
        assert!(nodes.woke());
        assert!(matches!(nodes.look().as_slice(), [DeviceEvent::Added(_)]));
        assert_eq!(nodes.present().count(), 1);

        // As if it had been a link to another one.
        let null = HostLinks::open().number(Path::new("/dev/null"));
        nodes.known.insert(path.clone(), null);
        let events = nodes.look();
        let [DeviceEvent::Changed(device)] = events.as_slice() else {
            panic!("{events:?}");
        };
        assert_eq!(device.node.as_ref().unwrap().num.to_string(), "c 0:0");

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
    fn a_file_that_is_not_a_node_is_not_reported() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("file"), "").unwrap();
        symlink("dangling", path("link")).unwrap();
        symlink("loop", path("loop")).unwrap();
        let paths = [
            path("file"),
            path("link"),
            path("loop"),
            path(""),
            "dev/null".into(),
        ];
        let mut nodes = nodes(Some(directory.path()), &paths);
        assert_eq!(nodes.look(), []);
    }

    #[test]
    fn a_directory_that_comes_later_is_watched_from_the_next_look_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("later/node");
        let mut nodes = nodes(Some(directory.path()), std::slice::from_ref(&path));
        fs::create_dir(path.parent().unwrap()).unwrap();
        assert_eq!(nodes.look(), []);
        make(&path);
        assert!(nodes.woke());
        assert!(matches!(nodes.look().as_slice(), [DeviceEvent::Added(_)]));
    }

    /// Case security 2.
    #[test]
    fn a_directory_that_changes_constantly_is_not_watched_all_the_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node");
        let mut nodes = nodes(Some(directory.path()), std::slice::from_ref(&path));
        let mut wakes = 0;
        for index in 0..1000 {
            fs::write(directory.path().join(format!("{index}")), "").unwrap();
            wakes += u32::from(nodes.woke());
        }
        assert_eq!((wakes, nodes.fd().is_none()), (MAX_WAKES + 1, true));
        make(&path);
        assert_eq!(nodes.poll().len(), 1, "the second's round finds it");
        assert!(nodes.fd().is_some() && nodes.has_news());
    }

    /// Case security 2.
    #[test]
    fn directories_of_others_are_not_watched() {
        let directory = tempfile::tempdir().unwrap();
        let open = directory.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).unwrap();
        symlink(&open, directory.path().join("way")).unwrap();
        let paths = [open.join("node"), directory.path().join("way/node")];
        let mut nodes = nodes(Some(directory.path()), &paths);
        make(&open.join("node"));
        assert!(!nodes.woke());
        assert_eq!(nodes.poll(), []);
    }
}
