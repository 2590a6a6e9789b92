//! The host's own device nodes, bind-mounted into the containers of rootless engines.
//!
//! Root of a user namespace can neither create device nodes (mknod(2)) nor open those of a file
//! system that was mounted there (SB_I_NODEV, fs/super.c). It can mount a file of the host
//! elsewhere: then the owner, mode and access control list of the host's node decide who opens it,
//! and every change on the host has effect inside at once. When the device is unplugged, the kernel
//! takes all permissions from the node (drivers/base/devtmpfs.c, handle_remove).

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, mknodat};
use rustix::fs::{CWD, StatVfsMountFlags, Statx, fstatvfs};
use rustix::mount::{OpenTreeFlags, open_tree};

use super::dev::ContainerDev;
use super::entry::{Entry, file_type};
use super::error::{ContainerDevError, MountError, step};
use super::outcome::NodeOutcome;
use super::place::{Opened, Place};
use super::staging::attach_tree;
use crate::host::container::namespaces::{Namespace, OwnNamespace};
use crate::host::file_system::{attributes, identity};
use crate::model::device::{DevKind, DevNum};
use crate::model::plan::attachment::PathState;
use crate::sys::mount;

/// The host's node of a device, as a mount that is not attached anywhere yet.
struct HostNode {
    tree: OwnedFd,
    found: Statx,
}

impl HostNode {
    /// Clones the mount of the node with this number.
    fn open(num: DevNum) -> Result<Self, MountError> {
        let path = host_path(num).map_err(step("find the host's node"))?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
        let tree = open_tree(CWD, &path, flags).map_err(step("clone the mount of the host's node"))?;
        let found = attributes(&tree).map_err(step("examine the host's node"))?;
        // Another device may have taken the name in the meantime.
        if !is_node(&found, num) {
            return Err(step("examine the host's node")(Errno::ESTALE));
        }
        let attributes = fstatvfs(&tree).map_err(step("examine the mount of the host's node"))?;
        if attributes
            .f_flag
            .contains(StatVfsMountFlags::from_bits_retain(NODEV))
        {
            return Err(step(
                "use the host's node, because its file system is mounted with nodev",
            )(Errno::EACCES));
        }
        let isolated = mount::isolate(tree.as_fd());
        isolated.map_err(step("isolate the mount of the node"))?;
        Ok(Self { tree, found })
    }

    /// Mounts it on a file of the container.
    fn mount(&self, target: &Place, container: impl AsFd) -> Result<(), MountError> {
        let own = OwnNamespace::open(Namespace::Mount).map_err(step("open our own mount namespace"))?;
        let target = target
            .open(OFlag::empty())
            .map_err(step("open the mount point"))?;
        own.run_and_return(|| attach_tree(&self.tree, &target, container))
    }

    /// Whether this node is at a place: the same file, and not just the same number. The node of a
    /// device that was unplugged stays mounted, without permissions, until it is removed.
    fn is_at(&self, place: &Place) -> bool {
        match place.open_entry() {
            Ok(Opened::Own(fd) | Opened::Mounted(fd)) => {
                attributes(fd).is_ok_and(|found| identity(&found) == identity(&self.found))
            }
            Ok(Opened::Foreign) | Err(_) => false,
        }
    }
}

/// MS_NODEV as statvfs(3) reports it (ST_NODEV, bits/statvfs.h).
const NODEV: u64 = 4;

/// The path of a device's node in the host's devtmpfs, by its name in sysfs.
fn host_path(num: DevNum) -> io::Result<PathBuf> {
    let class = match num.kind {
        DevKind::Block => "block",
        DevKind::Char => "char",
    };
    let uevent = fs::read_to_string(format!("/sys/dev/{class}/{}:{}/uevent", num.major, num.minor))?;
    let name = uevent.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    let name = name.ok_or(io::ErrorKind::NotFound)?;
    Ok(Path::new("/dev").join(name))
}

fn is_node(found: &Statx, num: DevNum) -> bool {
    let kind = match num.kind {
        DevKind::Block => SFlag::S_IFBLK,
        DevKind::Char => SFlag::S_IFCHR,
    };
    file_type(found) == kind && (found.stx_rdev_major, found.stx_rdev_minor) == (num.major, num.minor)
}

/// Whether a mount of the host's node is here whose device was unplugged. podman mounts all nodes
/// that are there at the start into a privileged container, and leaves them.
pub(super) fn is_dead(place: &Place) -> bool {
    match place.open_entry() {
        Ok(Opened::Mounted(fd)) => attributes(fd).is_ok_and(|found| found.stx_nlink == 0),
        Ok(Opened::Own(_) | Opened::Foreign) | Err(_) => false,
    }
}

impl ContainerDev {
    /// [`Self::add_node`] for a rootless engine: owner and mode are those of the host's node.
    pub(super) fn add_host_node(
        &mut self,
        path: &Path,
        num: DevNum,
        ours: bool,
    ) -> Result<NodeOutcome, ContainerDevError> {
        let failed = |source| ContainerDevError::Staging {
            path: path.to_owned(),
            source,
        };
        self.with_place(path, NodeOutcome::HostOwned, |this, place| {
            let Some(namespace) = &this.mount_namespace else {
                return Ok(NodeOutcome::HostOwned);
            };
            let node = HostNode::open(num).map_err(failed)?;
            let found = place.entry()?;
            match &found {
                Entry::Nothing => {}
                Entry::Node { .. } if node.is_at(place) && ours => return Ok(NodeOutcome::Unchanged),
                Entry::Node { .. } if node.is_at(place) => return Ok(NodeOutcome::Adopted),
                Entry::Node { .. } if ours || is_dead(place) => {}
                Entry::File { size: 0, uid } if ours && this.is_target(*uid) => {}
                _ => return Err(place.taken(&found)),
            }
            place.put("create the node", found != Entry::Nothing, |temporary| {
                temporary.make("create the mount point", |parent, name| {
                    mknodat(parent, name, SFlag::S_IFREG, Mode::empty(), 0)
                })?;
                node.mount(temporary, namespace).map_err(failed)
            })?;
            Ok(NodeOutcome::Created)
        })
    }

    /// [`Self::find_node`] for a rootless engine. The node of a device that was unplugged counts
    /// until another device has its number; then it can be replaced.
    pub(super) fn find_host_node(&self, path: &Path, num: DevNum) -> Result<PathState, ContainerDevError> {
        let node = HostNode::open(num).ok();
        let mut is_replaceable = false;
        let found = self.find_place(path, |place, entry| {
            if !matches!(entry, Entry::Node { .. }) {
                return false;
            }
            match &node {
                None => is_dead(place),
                Some(node) if node.is_at(place) => true,
                Some(_) => {
                    is_replaceable = is_dead(place);
                    false
                }
            }
        })?;
        Ok(match found {
            PathState::Other if is_replaceable => PathState::Vacant,
            found => found,
        })
    }

    /// Makes sure that a node which a rootless container gives up cannot be opened any more: a
    /// process that holds an O_PATH descriptor of it could still open the device after the mount is
    /// gone. Does nothing to other files. A failure does not prevent the removal.
    pub(super) fn lock_out(&self, place: &Place) {
        let (super::outcome::Placement::HostNodes, Some(namespace)) = (self.placement, &self.mount_namespace)
        else {
            return;
        };
        let Ok(Opened::Mounted(covering)) = place.open_entry() else {
            return;
        };
        let forbid = || -> io::Result<()> {
            let own = OwnNamespace::open(Namespace::Mount)?;
            own.run_and_return(|| {
                Namespace::Mount.enter(namespace)?;
                mount::forbid_devices(covering.as_fd())
            })
        };
        if let Err(error) = forbid() {
            tracing::warn!(
                "{}: cannot prevent that the node is opened through descriptors that are held: {error}",
                place.path().display()
            );
        }
    }
}
