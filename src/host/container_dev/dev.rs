//! One container's file system: opens it, and knows where its parts are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag};
use nix::unistd::{Gid, Uid};

use super::entry::Entry;
use super::error::{ContainerDevError, failed};
use super::file_system_user::FileSystemUser;
use super::open::{RESOLVE_PLAIN, open_retrying};
use super::outcome::Placement;
use super::place::ContainerMounts;
use super::staging::{StagedNode, Staging};
use super::walk::Walker;
use crate::host::container::Container;
use crate::host::file_system::{Backing, Mounts, attributes, file_system_number, identity};
use crate::model::id_maps::IdMaps;

/// Identifies a directory: file system and inode.
pub type DirectoryIdentity = ((u32, u32), u64);

/// Identifies a directory and the mount by which it was reached, while that is held open.
pub(super) type MountIdentity = (DirectoryIdentity, u64);

const ROOT: &str = "/";
const DEV: &str = "/dev";

/// The file system of one container, for the purpose of device nodes and links.
pub struct ContainerDev {
    pub(super) root: Rc<OwnedFd>,
    /// The device number of the file system with the root directory.
    pub(super) root_file_system: (u32, u32),
    pub(super) dev: Rc<OwnedFd>,
    pub(super) host_dev: (u32, u32),
    pub(super) mounts: ContainerMounts,
    pub(super) placement: Placement,
    /// Whether `/dev` is a directory of the root file system, or on a disk of the host: then it
    /// still exists after the container has ended.
    pub(super) dev_outlives: bool,
    /// The id maps of a container with a user namespace other than ours.
    pub(super) id_maps: Option<IdMaps>,
    /// The mount namespace of a container into which nodes are mounted.
    pub(super) mount_namespace: Option<OwnedFd>,
    pub(super) user: FileSystemUser,
    pub(super) staging: Option<Staging>,
    pub(super) staged: BTreeMap<PathBuf, StagedNode>,
    pub(super) directories: BTreeSet<PathBuf>,
    /// `/run`, once it was checked that it cannot block (`run_udev`).
    pub(super) run: Option<(OwnedFd, MountIdentity)>,
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
        let (root, mounts) = (container.root()?, container.mounts()?);
        let root_mount = Mounts::id_of(&root).map_err(reading_mount_of(ROOT))?;
        let root_file_system = check_root(&root, root_mount, &mounts, root_before)?;
        let dev = open_retrying(&root, Path::new("dev"), directory(RESOLVE_PLAIN))
            .map_err(|source| failed("open the directory", Path::new(DEV), source))?;
        let dev_outlives = check_dev(&dev, root_mount, &mounts)?;
        let host_dev = number_of_host_dev()
            .map_err(|source| failed("read the device number of the host's", Path::new(DEV), source))?;
        let own =
            attributes(&dev).map_err(|source| failed("read the device number of", Path::new(DEV), source))?;
        let own = file_system_number(&own);
        let id_maps = container.id_maps()?;
        let user = id_maps.as_ref().map(|maps| host_ids(maps, 0, 0)).transpose()?;
        let placement = match &id_maps {
            _ if own == host_dev => Placement::HostDev,
            _ if container.is_rootless() => Placement::HostNodes,
            Some(_) => Placement::UserNamespace,
            None => Placement::Own,
        };
        let mount_namespace = match placement {
            Placement::UserNamespace | Placement::HostNodes => Some(container.mount_namespace()?),
            Placement::Own | Placement::HostDev => None,
        };
        Ok(Self {
            root: Rc::new(root),
            root_file_system,
            dev: Rc::new(dev),
            host_dev,
            mounts: Rc::new(mounts),
            placement,
            dev_outlives,
            id_maps,
            mount_namespace,
            user: user.map(|(uid, gid)| (Uid::from_raw(uid), Gid::from_raw(gid))),
            staging: None,
            staged: BTreeMap::new(),
            directories,
            run: None,
        })
    }

    /// Opens the root file system of a container that has ended, in order to remove things from it;
    /// `None` if it does not exist any more, or if `/dev` was a mount of the container.
    pub fn open_ended(rootfs: &Path, directories: BTreeSet<PathBuf>) -> io::Result<Option<Self>> {
        let host = File::open(ROOT)?;
        let Ok(root) = open_retrying(&host, rootfs, directory(ResolveFlag::RESOLVE_NO_MAGICLINKS)) else {
            return Ok(None);
        };
        if identity(&attributes(&root)?) == identity(&attributes(&host)?) {
            return Ok(None);
        }
        let how = directory(RESOLVE_PLAIN | ResolveFlag::RESOLVE_NO_XDEV);
        let Ok(dev) = open_retrying(&root, Path::new("dev"), how) else {
            return Ok(None);
        };
        Ok(Some(Self {
            root_file_system: file_system_number(&attributes(&root)?),
            root: Rc::new(root),
            dev: Rc::new(dev),
            host_dev: number_of_host_dev()?,
            mounts: Rc::new(Mounts::new(File::open("/proc/self")?.into())),
            placement: Placement::Own,
            dev_outlives: true,
            id_maps: None,
            mount_namespace: None,
            user: None,
            staging: None,
            staged: BTreeMap::new(),
            directories,
            run: None,
        }))
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

    pub(super) fn is_host_owned(&self, path: &Path) -> bool {
        self.placement == Placement::HostDev && path.starts_with(DEV)
    }

    pub(super) fn walker(&self, path: &Path) -> Walker<'_> {
        let (start, base) = if path.starts_with(DEV) {
            (&self.dev, DEV)
        } else {
            (&self.root, ROOT)
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

/// How to open a directory.
fn directory(resolve: ResolveFlag) -> OpenHow {
    OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(resolve)
}

/// The device number of the file system with the container's root directory.
///
/// # Errors
/// When that is not `before`, and its server may never answer.
fn check_root(
    root: &OwnedFd,
    mount: u64,
    mounts: &Mounts,
    before: Option<(u32, u32)>,
) -> Result<(u32, u32), ContainerDevError> {
    let reading = reading_mount_of(ROOT);
    let number = file_system_number(&attributes(root).map_err(reading)?);
    let has_changed = before.is_some_and(|before| before != number);
    if has_changed && mounts.backing(mount).map_err(reading)? == Backing::Unknown {
        return Err(mount_in_the_way(ROOT));
    }
    Ok(number)
}

/// Whether the container's `/dev` still exists after the container has ended.
///
/// # Errors
/// When a file system is mounted there whose server may never answer. The engine mounts none, but a
/// container can, before its watcher starts again.
fn check_dev(dev: &OwnedFd, root_mount: u64, mounts: &Mounts) -> Result<bool, ContainerDevError> {
    let reading = reading_mount_of(DEV);
    let mount = Mounts::id_of(dev).map_err(reading)?;
    let backing = mounts.backing(mount).map_err(reading)?;
    if mount != root_mount && backing == Backing::Unknown {
        return Err(mount_in_the_way(DEV));
    }
    Ok(mount == root_mount || backing == Backing::Disk)
}

fn reading_mount_of(path: &'static str) -> impl Fn(io::Error) -> ContainerDevError + Copy {
    move |source| failed("read the mount of", Path::new(path), source)
}

fn mount_in_the_way(path: &str) -> ContainerDevError {
    ContainerDevError::InTheWay {
        path: path.into(),
        found: Entry::Mount.to_string(),
    }
}

/// The device number of the file system with the host's `/dev`.
fn number_of_host_dev() -> io::Result<(u32, u32)> {
    Ok(file_system_number(&attributes(File::open(DEV)?)?))
}

/// The host's ids for a user and a group of the container.
pub(super) fn host_ids(maps: &IdMaps, uid: u32, gid: u32) -> Result<(u32, u32), ContainerDevError> {
    let unmapped = |kind, id| move || ContainerDevError::Unmapped { kind, id };
    Ok((
        maps.host_uid(uid).ok_or_else(unmapped("user", uid))?,
        maps.host_gid(gid).ok_or_else(unmapped("group", gid))?,
    ))
}
