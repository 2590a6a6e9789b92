//! Device nodes for containers with a user namespace: created on a tmpfs where the kernel allows
//! opening them, then mounted into the container.
//!
//! A file system that was mounted in a user namespace never opens device nodes (SB_I_NODEV,
//! fs/super.c), so the nodes are on a tmpfs of ours. It is the only mount in a mount namespace that
//! no process is in: it hides nothing of the host, keeps no mount of the host busy, and needs no
//! directory on the host.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, mknodat};
use nix::unistd::{UnlinkatFlags, fchdir, pivot_root, unlinkat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::error::{MountError, step};
use super::open::finish_node;
use super::place::Place;
use crate::host::container::namespaces::{Namespace, OwnNamespace};
use crate::host::file_system::{file_type_of, number_of};
use crate::model::device::DevNum;

/// A private mount namespace with a tmpfs in it. Both are freed with the last descriptor and the
/// last mounted node.
pub(super) struct Staging {
    own: OwnNamespace,
    namespace: OwnedFd,
    tmpfs: OwnedFd,
    made: u64,
}

/// A node in the staging tmpfs: its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StagedNode(String);

impl Staging {
    /// Creates the namespace and the tmpfs. The calling thread stops sharing its root and working
    /// directory with other threads, as setns(2) requires; in a process with one thread that has no
    /// effect.
    pub(super) fn new() -> Result<Self, MountError> {
        let own = OwnNamespace::open(Namespace::Mount).map_err(step("open the host's mount namespace"))?;
        let tmpfs = new_tmpfs()?;
        unshare(CloneFlags::CLONE_NEWNS).map_err(step("create a private mount namespace"))?;
        let namespace = own.run_and_return(|| set_up_namespace(&tmpfs))?;
        Ok(Self {
            own,
            namespace,
            tmpfs,
            made: 0,
        })
    }

    /// Creates a node with this mode and owner (ids of the host) in the tmpfs.
    pub(super) fn make_node(
        &mut self,
        num: DevNum,
        mode: u32,
        uid: u32,
        gid: u32,
    ) -> Result<StagedNode, MountError> {
        self.made += 1;
        let staged = StagedNode(self.made.to_string());
        let name = staged.0.as_str();
        mknodat(
            &self.tmpfs,
            name,
            file_type_of(num),
            Mode::empty(),
            number_of(num),
        )
        .map_err(step("create the node"))?;
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let finished = nix::fcntl::openat(&self.tmpfs, name, flags, Mode::empty())
            .and_then(|fd| finish_node(&fd, num, mode, uid, gid));
        if let Err(source) = finished {
            self.discard(&staged);
            return Err(step("set owner and mode of the node")(source));
        }
        Ok(staged)
    }

    /// Mounts a node at a place of the container.
    pub(super) fn mount(
        &self,
        node: &StagedNode,
        target: &Place,
        container: impl AsFd,
    ) -> Result<(), MountError> {
        let target = target
            .open(OFlag::empty())
            .map_err(step("open the mount point"))?;
        let mount_node = || {
            // A mount can be cloned only from within its namespace.
            Namespace::Mount
                .enter(&self.namespace)
                .map_err(step("enter our mount namespace"))?;
            let flags = OpenTreeFlags::OPEN_TREE_CLONE
                | OpenTreeFlags::OPEN_TREE_CLOEXEC
                | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
            let tree =
                open_tree(&self.tmpfs, node.0.as_str(), flags).map_err(step("clone the node's mount"))?;
            attach_tree(&tree, &target, container)
        };
        self.own.run_and_return(mount_node)
    }

    /// Removes a node that is no longer mounted from the tmpfs. A node that cannot be removed is
    /// freed with the tmpfs.
    pub(super) fn discard(&self, node: &StagedNode) {
        let _ = unlinkat(&self.tmpfs, node.0.as_str(), UnlinkatFlags::NoRemoveDir);
    }
}

/// Mounts a detached mount on a file of the container. The calling thread is in the container's
/// mount namespace afterwards: a mount can be attached only to the current one.
pub(super) fn attach_tree(tree: &OwnedFd, target: &OwnedFd, container: impl AsFd) -> Result<(), MountError> {
    Namespace::Mount
        .enter(container)
        .map_err(step("enter the container's mount namespace"))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", target, "", flags).map_err(step("mount the node"))
}

/// A tmpfs that is not mounted anywhere yet. It is not `nodev`, because the nodes on it must be
/// opened.
fn new_tmpfs() -> Result<OwnedFd, MountError> {
    let action = "create a tmpfs for device nodes";
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(step(action))?;
    for (key, value) in [
        ("source", "oci-hotplug"),
        ("mode", "0700"),
        ("size", "64k"),
        ("nr_inodes", "65536"),
    ] {
        fsconfig_set_string(&context, key, value).map_err(step(action))?;
    }
    fsconfig_create(&context).map_err(step(action))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(step(action))
}

/// Makes the tmpfs the only mount of the thread's mount namespace, and returns that namespace.
fn set_up_namespace(tmpfs: &OwnedFd) -> Result<OwnedFd, MountError> {
    let action = "prepare our mount namespace";
    let namespace = Namespace::Mount.open_own().map_err(step(action))?;
    let none: Option<&Path> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).map_err(step(action))?;
    move_mount(
        tmpfs,
        "",
        rustix::fs::CWD,
        "/",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .map_err(step(action))?;
    fchdir(tmpfs).map_err(step(action))?;
    // As in the NOTES of pivot_root(2): the old root is mounted over the new one, then detached
    // with everything below it.
    match pivot_root(".", ".") {
        Ok(()) => umount2(".", MntFlags::MNT_DETACH).map_err(step(action))?,
        // A host that runs from its initramfs cannot pivot. There the copies of its mounts stay, as
        // slaves.
        Err(Errno::EINVAL) => {}
        Err(source) => return Err(step(action)(source)),
    }
    Ok(namespace)
}
