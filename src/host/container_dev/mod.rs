//! Device nodes and links in one container's file system: creates, adopts and removes them, and
//! changes nothing else.
//!
//! All access is through descriptors that are opened at the start. Does not know which devices are
//! requested, and stores nothing: the caller says which nodes and links are ours (`ours`), and
//! stores [`ContainerDev::directories`].

mod error;
mod path;
mod place;
mod staging;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag};
use nix::sys::stat::{Mode, SFlag, makedev, mknodat};
use nix::unistd::{Gid, Uid, symlinkat};

pub use error::{ContainerDevError, StagingError};

use crate::host::container::{Container, IdMaps};
use crate::host::file_system::{Backing, Mounts, attributes, file_system_number, identity};
use crate::model::cgroup::grants::Change;
use crate::model::device::{DevKind, DevNum};
use crate::model::plan::attachment::{Attachments, Found, NodeCreator};
use path::{checked, leads_to, link_text};
use place::{
    ContainerMounts, Entry, FileSystemUser, Place, Walk, Walker, failed, finish_node, open_retrying,
};
use staging::{StagedNode, Staging};

/// How nodes get into a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// The container has its own `/dev`: nodes are created in it.
    Own,
    /// The container's `/dev` is the host's devtmpfs: the kernel creates and removes nodes.
    HostDev,
    /// The container has a user namespace, in whose file systems nodes cannot be opened: nodes are
    /// bind-mounted into it.
    UserNamespace,
}

/// The owner and mode of a node, with the ids of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeOwner {
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// The outcome of adding a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeOutcome {
    /// The node was created, or created again.
    Created,
    /// A node with this number existed that is not ours: it stays unchanged, and is not removed
    /// later.
    Adopted,
    /// Our node existed already.
    Unchanged,
    /// The path is in the host's devtmpfs.
    HostOwned,
}

/// The outcome of adding a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkOutcome {
    /// The link was created, or created again.
    Created,
    /// A link to the same target existed that is not ours.
    Adopted,
    /// Our link existed already.
    Unchanged,
    /// The path is in the host's devtmpfs.
    HostOwned,
}

/// The file system of one container, for the purpose of device nodes and links.
pub struct ContainerDev {
    root: OwnedFd,
    /// The device number of the file system with the root directory.
    root_file_system: (u32, u32),
    dev: OwnedFd,
    host_dev: (u32, u32),
    mounts: ContainerMounts,
    placement: Placement,
    /// Whether `/dev` is a directory of the root file system, or on a disk of the host: then it
    /// still exists after the container has ended.
    dev_outlives: bool,
    /// The id maps and the mount namespace of a container with a user namespace.
    foreign: Option<(IdMaps, OwnedFd)>,
    user: FileSystemUser,
    staging: Option<Staging>,
    staged: BTreeMap<PathBuf, StagedNode>,
    directories: BTreeSet<PathBuf>,
}

impl ContainerDev {
    /// Opens the container's root and `/dev`. `directories` are those that an earlier watcher
    /// created here.
    pub fn open(container: &Container, directories: BTreeSet<PathBuf>) -> Result<Self, ContainerDevError> {
        Self::open_again(container, directories, None)
    }

    /// Like [`Self::open`], for a container that an earlier watcher had opened; `root_before` is
    /// the value of [`Self::root_file_system`] at that time. A container can change its root
    /// (pivot_root(2), chroot(2)) to a file system whose server never answers; such a root is not
    /// entered.
    pub fn open_again(
        container: &Container,
        directories: BTreeSet<PathBuf>,
        root_before: Option<(u32, u32)>,
    ) -> Result<Self, ContainerDevError> {
        let dev_path = Path::new("/dev");
        let root = container.root()?;
        let mounts = container.mounts()?;
        let root_path = Path::new("/");
        let reading_root = |source: io::Error| failed("reading the mount of", root_path, source);
        let root_mount = Mounts::id_of(&root).map_err(reading_root)?;
        let root_file_system = file_system_number(&attributes(&root).map_err(reading_root)?);
        if root_before.is_some_and(|before| before != root_file_system)
            && mounts.backing(root_mount).map_err(reading_root)? == Backing::Unknown
        {
            return Err(ContainerDevError::InTheWay {
                path: root_path.to_owned(),
                found: Entry::Mount.to_string(),
            });
        }
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(
                ResolveFlag::RESOLVE_BENEATH
                    | ResolveFlag::RESOLVE_NO_SYMLINKS
                    | ResolveFlag::RESOLVE_NO_MAGICLINKS,
            );
        let dev = open_retrying(&root, Path::new("dev"), how)
            .map_err(|source| failed("opening the directory", dev_path, source))?;
        let reading = |source: io::Error| failed("reading the mount of", dev_path, source);
        let dev_mount = Mounts::id_of(&dev).map_err(reading)?;
        let backing = mounts.backing(dev_mount).map_err(reading)?;
        if dev_mount != root_mount && backing == Backing::Unknown {
            // The engine mounts no such file system on /dev, but a container can, before its
            // watcher starts again.
            return Err(ContainerDevError::InTheWay {
                path: dev_path.to_owned(),
                found: Entry::Mount.to_string(),
            });
        }
        let host_dev = File::open("/dev")
            .and_then(attributes)
            .map_err(|source| failed("reading the device number of the host's", dev_path, source))?;
        let host_dev = file_system_number(&host_dev);
        let own =
            attributes(&dev).map_err(|source| failed("reading the device number of", dev_path, source))?;
        let own = file_system_number(&own);
        let id_maps = container.id_maps()?;
        let user = id_maps.as_ref().map(|maps| host_ids(maps, 0, 0)).transpose()?;
        let placement = match &id_maps {
            _ if own == host_dev => Placement::HostDev,
            Some(_) => Placement::UserNamespace,
            None => Placement::Own,
        };
        let foreign = match id_maps {
            Some(maps) => Some((maps, container.mount_namespace()?)),
            None => None,
        };
        Ok(Self {
            root,
            root_file_system,
            dev,
            host_dev,
            mounts: Rc::new(mounts),
            placement,
            dev_outlives: dev_mount == root_mount || backing == Backing::Disk,
            foreign,
            user: user.map(|(uid, gid)| (Uid::from_raw(uid), Gid::from_raw(gid))),
            staging: None,
            staged: BTreeMap::new(),
            directories,
        })
    }

    /// Opens the root file system of a container that has ended, in order to remove things from it;
    /// `None` if it does not exist any more, or if `/dev` was a mount of the container.
    pub fn open_ended(rootfs: &Path, directories: BTreeSet<PathBuf>) -> io::Result<Option<Self>> {
        let directory = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let how = OpenHow::new()
            .flags(directory)
            .resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let host = File::open("/")?;
        let Ok(root) = open_retrying(&host, rootfs, how) else {
            return Ok(None);
        };
        if identity(&attributes(&root)?) == identity(&attributes(&host)?) {
            return Ok(None);
        }
        let how = OpenHow::new().flags(directory).resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_MAGICLINKS
                | ResolveFlag::RESOLVE_NO_XDEV,
        );
        let Ok(dev) = open_retrying(&root, Path::new("dev"), how) else {
            return Ok(None);
        };
        Ok(Some(Self {
            root_file_system: file_system_number(&attributes(&root)?),
            root,
            dev,
            host_dev: file_system_number(&attributes(File::open("/dev")?)?),
            mounts: Rc::new(Mounts::new(File::open("/proc/self")?.into())),
            placement: Placement::Own,
            dev_outlives: true,
            foreign: None,
            user: None,
            staging: None,
            staged: BTreeMap::new(),
            directories,
        }))
    }

    /// Removes our nodes and links from file systems that still exist after the container has
    /// ended, because they would be in the way at its next start. What cannot be removed is logged.
    pub fn remove_outliving(&mut self, attachments: &Attachments) {
        let outlives = |this: &Self, path: &Path| this.dev_outlives || !path.starts_with("/dev");
        for (path, attachment) in attachments.iter() {
            let links = attachment
                .links
                .iter()
                .filter(|(_, creator)| **creator == NodeCreator::Watcher);
            for (link, _) in links {
                if outlives(self, link) {
                    log_failure(self.remove_link(link, path));
                }
            }
            if attachment.node_creator == NodeCreator::Watcher && outlives(self, path) {
                log_failure(self.remove_node(path, attachment.node.num));
            }
        }
    }

    /// How nodes get into this container.
    pub fn placement(&self) -> Placement {
        self.placement
    }

    /// The device number of the file system with the container's root directory, for
    /// [`Self::open_again`].
    pub fn root_file_system(&self) -> (u32, u32) {
        self.root_file_system
    }

    /// The directories that we created and that still exist.
    pub fn directories(&self) -> &BTreeSet<PathBuf> {
        &self.directories
    }

    /// Creates a node at `path` (absolute, below /dev), with missing parent directories. `ours`
    /// says that a node at this path is ours according to the notes: only then is a node with
    /// another number, mode or owner replaced.
    ///
    /// The node appears complete: it is created under a temporary name, then renamed. On failure
    /// the error names the container's path and what is in the way, and nothing incomplete is left.
    pub fn add_node(
        &mut self,
        path: &Path,
        num: DevNum,
        owner: &NodeOwner,
        ours: bool,
    ) -> Result<NodeOutcome, ContainerDevError> {
        let path = checked(path, true)?;
        if self.placement == Placement::HostDev {
            return Ok(NodeOutcome::HostOwned);
        }
        let (uid, gid) = match &self.foreign {
            Some((maps, _)) => host_ids(maps, owner.uid, owner.gid)?,
            None => (owner.uid, owner.gid),
        };
        let wanted = Entry::Node {
            num,
            mode: owner.mode & 0o7777,
            uid,
            gid,
        };
        self.with_place(&path, NodeOutcome::HostOwned, |this, place| {
            let found = place.entry()?;
            match &found {
                Entry::Nothing => {}
                found if ours && *found == wanted => return Ok(NodeOutcome::Unchanged),
                Entry::Node { num: there, .. } if !ours && *there == num => return Ok(NodeOutcome::Adopted),
                Entry::Node { .. } if ours => {}
                // The container unmounted our node: the file that it was mounted on is left.
                Entry::File { size: 0, uid } if ours && this.is_target(*uid) => {}
                _ => return Err(place.taken(&found)),
            }
            let replace = found != Entry::Nothing;
            match this.placement {
                Placement::UserNamespace => this.mount_node(place, num, (owner.mode, uid, gid), replace)?,
                _ => make_node(place, num, (owner.mode, uid, gid), replace)?,
            }
            Ok(NodeOutcome::Created)
        })
    }

    /// Whether a node with this number is at `path`. In the host's devtmpfs everything counts as in
    /// place.
    pub fn find_node(&self, path: &Path, num: DevNum) -> Result<Found, ContainerDevError> {
        let path = checked(path, true)?;
        self.find(
            &path,
            |entry| matches!(entry, Entry::Node { num: there, .. } if *there == num),
        )
    }

    /// Whether a link to `target` is at `link`.
    pub fn find_link(&self, link: &Path, target: &Path) -> Result<Found, ContainerDevError> {
        let (link, target) = (checked(link, false)?, checked(target, false)?);
        self.find(
            &link,
            |entry| matches!(entry, Entry::Link(text) if leads_to(&link, text, &target)),
        )
    }

    fn find(&self, path: &Path, is_it: impl FnOnce(&Entry) -> bool) -> Result<Found, ContainerDevError> {
        if self.is_host_owned(path) {
            return Ok(Found::Same);
        }
        let entry = match self.walker(path).walk(path, None)? {
            Walk::Place(place) => place.entry()?,
            Walk::Missing => return Ok(Found::Vacant),
            Walk::HostOwned => return Ok(Found::Same),
        };
        Ok(match &entry {
            Entry::Nothing => Found::Vacant,
            entry if is_it(entry) => Found::Same,
            _ => Found::Other,
        })
    }

    /// Removes the node at `path` if it has this number; anything else at the path stays.
    /// Directories that we created for it are removed with it when they are empty.
    pub fn remove_node(&mut self, path: &Path, num: DevNum) -> Result<Change, ContainerDevError> {
        let path = checked(path, true)?;
        self.remove(&path, |this, entry| match entry {
            Entry::Node { num: there, .. } => *there == num,
            Entry::File { size: 0, uid } => this.staged.contains_key(&path) && this.is_target(*uid),
            _ => false,
        })
    }

    /// Creates a symbolic link at `link` to `target` (absolute, in the container), with missing
    /// parent directories. The link's text is relative below /dev, as udev's are, and absolute
    /// elsewhere. `ours` has the same meaning as for nodes.
    ///
    /// Outside /dev no mount is entered: volumes from the host stay unchanged.
    pub fn add_link(
        &mut self,
        link: &Path,
        target: &Path,
        ours: bool,
    ) -> Result<LinkOutcome, ContainerDevError> {
        let (link, target) = (checked(link, false)?, checked(target, false)?);
        let text = link_text(&link, &target);
        self.with_place(&link, LinkOutcome::HostOwned, |_, place| {
            let found = place.entry()?;
            match &found {
                Entry::Nothing => {}
                Entry::Link(there) if ours && *there == text => return Ok(LinkOutcome::Unchanged),
                Entry::Link(there) if !ours && leads_to(&link, there, &target) => {
                    return Ok(LinkOutcome::Adopted);
                }
                Entry::Link(_) if ours => {}
                _ => return Err(place.taken(&found)),
            }
            const DOING: &str = "creating the link";
            place.put(DOING, found != Entry::Nothing, |temporary| {
                temporary.make(DOING, |parent, name| symlinkat(text.as_path(), parent, name))
            })?;
            Ok(LinkOutcome::Created)
        })
    }

    /// Removes the link at `link` if it has exactly the text that [`Self::add_link`] gives it;
    /// anything else at the path stays.
    pub fn remove_link(&mut self, link: &Path, target: &Path) -> Result<Change, ContainerDevError> {
        let (link, target) = (checked(link, false)?, checked(target, false)?);
        let text = link_text(&link, &target);
        self.remove(&link, |_, entry| *entry == Entry::Link(text.clone()))
    }

    /// Runs `work` at a path, with missing parent directories created first. They are removed again
    /// if it fails.
    fn with_place<T>(
        &mut self,
        path: &Path,
        host_owned: T,
        act: impl FnOnce(&mut Self, &Place) -> Result<T, ContainerDevError>,
    ) -> Result<T, ContainerDevError> {
        if self.is_host_owned(path) {
            return Ok(host_owned);
        }
        let mut made = Vec::new();
        let result = match self.walker(path).walk(path, Some(&mut made)) {
            Ok(Walk::Place(place)) => {
                self.directories.extend(made);
                act(self, &place)
            }
            Ok(Walk::HostOwned) => {
                self.directories.extend(made);
                self.prune(path);
                return Ok(host_owned);
            }
            Ok(Walk::Missing) => Err(ContainerDevError::Path {
                path: path.to_owned(),
            }),
            Err(error) => {
                self.directories.extend(made);
                Err(error)
            }
        };
        if result.is_err() {
            self.prune(path);
        }
        result
    }

    /// Unlinks the file at a path if it is the expected one, then removes the directories that are
    /// empty because of it.
    fn remove(
        &mut self,
        path: &Path,
        is_ours: impl FnOnce(&Self, &Entry) -> bool,
    ) -> Result<Change, ContainerDevError> {
        if self.is_host_owned(path) {
            return Ok(Change::None);
        }
        let place = match self.walker(path).walk(path, None) {
            Ok(Walk::Place(place)) => place,
            // If the path cannot be reached now, then our file is not there any more.
            Ok(Walk::Missing | Walk::HostOwned) | Err(ContainerDevError::InTheWay { .. }) => {
                self.prune(path);
                return Ok(Change::None);
            }
            Err(error) => return Err(error),
        };
        let removed = is_ours(self, &place.entry()?) && place.unlink()?;
        if let (Some(node), Some(staging)) = (self.staged.remove(path), &self.staging) {
            staging.discard(&node);
        }
        self.prune(path);
        Ok(if removed { Change::Made } else { Change::None })
    }

    /// Removes the empty parent directories that we created, the deepest first. A directory that
    /// cannot be removed stays on the list; the next removal tries it again.
    fn prune(&mut self, path: &Path) {
        for directory in path.ancestors().skip(1) {
            if !self.directories.contains(directory) {
                return;
            }
            let gone = match self.walker(directory).walk(directory, None) {
                Ok(Walk::Place(place)) => place.remove_directory(),
                Ok(Walk::Missing) => true,
                Ok(Walk::HostOwned) | Err(_) => false,
            };
            if !gone {
                return;
            }
            self.directories.remove(directory);
        }
    }

    /// Mounts a node of the staging tmpfs at a path of the container.
    fn mount_node(
        &mut self,
        place: &Place,
        num: DevNum,
        (mode, uid, gid): (u32, u32, u32),
        replace: bool,
    ) -> Result<(), ContainerDevError> {
        let staging_failed = |source| ContainerDevError::Staging {
            path: place.path().to_owned(),
            source,
        };
        let Some((_, namespace)) = &self.foreign else {
            return make_node(place, num, (mode, uid, gid), replace);
        };
        let staging = match &mut self.staging {
            Some(staging) => staging,
            empty => empty.insert(Staging::new().map_err(staging_failed)?),
        };
        let node = staging.make_node(num, mode, uid, gid).map_err(staging_failed)?;
        let put = place.put("creating the node", replace, |temporary| {
            temporary.make("creating a file to mount the node on,", |parent, name| {
                mknodat(parent, name, SFlag::S_IFREG, Mode::empty(), 0)
            })?;
            staging
                .mount(&node, temporary, namespace.as_fd())
                .map_err(staging_failed)
        });
        match put {
            Ok(()) => {
                if let Some(old) = self.staged.insert(place.path().to_owned(), node) {
                    staging.discard(&old);
                }
                Ok(())
            }
            Err(error) => {
                staging.discard(&node);
                Err(error)
            }
        }
    }

    /// Whether an empty file with this owner can be one that a node of ours was mounted on.
    fn is_target(&self, uid: u32) -> bool {
        self.placement == Placement::UserNamespace && self.user.is_some_and(|(user, _)| user.as_raw() == uid)
    }

    fn is_host_owned(&self, path: &Path) -> bool {
        self.placement == Placement::HostDev && path.starts_with("/dev")
    }

    fn walker(&self, path: &Path) -> Walker<'_> {
        let (start, base) = if path.starts_with("/dev") {
            (&self.dev, "/dev")
        } else {
            (&self.root, "/")
        };
        Walker {
            start,
            base: Path::new(base),
            host_dev: self.host_dev,
            user: self.user,
            mounts: &self.mounts,
        }
    }
}

fn log_failure(removed: Result<Change, ContainerDevError>) {
    if let Err(error) = removed {
        tracing::warn!("{error}");
    }
}

/// Creates a node in the container's own file system.
fn make_node(
    place: &Place,
    num: DevNum,
    (mode, uid, gid): (u32, u32, u32),
    replace: bool,
) -> Result<(), ContainerDevError> {
    const DOING: &str = "creating the node";
    let kind = if num.kind == DevKind::Block {
        SFlag::S_IFBLK
    } else {
        SFlag::S_IFCHR
    };
    let device = makedev(num.major.into(), num.minor.into());
    place.put(DOING, replace, |temporary| {
        temporary.make(DOING, |parent, name| {
            mknodat(parent, name, kind, Mode::empty(), device)
        })?;
        let finished = temporary
            .open(OFlag::empty())
            .and_then(|fd| finish_node(&fd, num, mode, uid, gid));
        finished.map_err(|source| failed(DOING, place.path(), source))
    })
}

/// The host's ids for a user and a group of the container.
fn host_ids(maps: &IdMaps, uid: u32, gid: u32) -> Result<(u32, u32), ContainerDevError> {
    let unmapped = |kind, id| move || ContainerDevError::Unmapped { kind, id };
    Ok((
        maps.host_uid(uid).ok_or_else(unmapped("user", uid))?,
        maps.host_gid(gid).ok_or_else(unmapped("group", gid))?,
    ))
}
