//! Device nodes.

use std::os::fd::AsFd;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, mknodat};
use nix::unistd::Gid;

use super::dev::{ContainerDev, host_ids};
use super::entry::Entry;
use super::error::{ContainerDevError, failed};
use super::file_system_user::{FileSystemGroupGuard, NoUmask};
use super::host_node::is_dead;
use super::open::finish_node;
use super::outcome::{NodeOutcome, NodeOwner, Placement};
use super::path::checked;
use super::place::Place;
use super::staging::Staging;
use crate::host::file_system::{file_type_of, number_of};
use crate::model::cgroup::grants::Change;
use crate::model::device::DevNum;
use crate::model::plan::attachment::PathState;

impl ContainerDev {
    /// Creates a node at `path` (absolute, below /dev), with missing parent directories. `ours`
    /// says that a node at this path is ours according to the notes: only then is a node with
    /// another number, mode or owner replaced.
    ///
    /// The node appears complete: it is created with its mode and owner by one call, or under a
    /// temporary name and then renamed. On failure the error names the container's path and what is
    /// in the way, and nothing incomplete is left.
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
        if self.placement == Placement::HostNodes {
            return self.add_host_node(&path, num, ours);
        }
        let (uid, gid) = match &self.id_maps {
            Some(maps) => host_ids(maps, owner.uid, owner.gid)?,
            None => (owner.uid, owner.gid),
        };
        let wanted = Entry::Node {
            num,
            mode: owner.mode & 0o7777,
            uid,
            gid,
        };
        self.with_place(&path, NodeOutcome::HostOwned, |this, place| {
            let at_once = !ours && this.placement == Placement::Own;
            if at_once && make_complete_node(place, num, (owner.mode, uid, gid))? {
                return Ok(NodeOutcome::Created);
            }
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
    pub fn find_node(&self, path: &Path, num: DevNum) -> Result<PathState, ContainerDevError> {
        let path = checked(path, true)?;
        if self.placement == Placement::HostNodes {
            return self.find_host_node(&path, num);
        }
        self.find(
            &path,
            |entry| matches!(entry, Entry::Node { num: there, .. } if *there == num),
        )
    }

    /// Removes the node at `path` if it has this number; anything else at the path stays.
    /// Directories that we created for it are removed with it when they are empty.
    pub fn remove_node(&mut self, path: &Path, num: DevNum) -> Result<Change, ContainerDevError> {
        let path = checked(path, true)?;
        self.remove(&path, |this, _, entry| match entry {
            Entry::Node { num: there, .. } => *there == num,
            Entry::File { size: 0, uid } => this.has_mounted(&path) && this.is_target(*uid),
            _ => false,
        })
    }

    /// Mounts a node of ours again, if the container has unmounted it (which root of its user
    /// namespace can, with CAP_SYS_ADMIN), or if it is the dead node of a device that now has the
    /// same number again. Leaves everything else at the path.
    pub fn put_back(
        &mut self,
        path: &Path,
        num: DevNum,
        owner: &NodeOwner,
    ) -> Result<Change, ContainerDevError> {
        if self.mount_namespace.is_none() {
            return Ok(Change::None);
        }
        let is_lost = |place: &Place, entry: &Entry| self.is_lost(place, entry);
        let is_lost = self.find_place(&checked(path, true)?, is_lost)? == PathState::Same;
        if is_lost && self.add_node(path, num, owner, true)? == NodeOutcome::Created {
            return Ok(Change::Made);
        }
        Ok(Change::None)
    }

    /// Removes what an earlier watcher has left of a node that is not at `path`: in a rootless
    /// container the node of a device that was unplugged, whatever number it has, or the file that
    /// it was mounted on; in every container an unfinished node, and directories that we created
    /// for it and that are empty. Leaves everything else at the path.
    pub fn remove_remains(&mut self, path: &Path) -> Result<Change, ContainerDevError> {
        let path = checked(path, true)?;
        self.clear_temporary(&path);
        self.remove(&path, |this, place, entry| {
            // A node in the container's own file system is one only by its number.
            this.placement == Placement::HostNodes && this.is_lost(place, entry)
        })
    }

    /// Whether the node that was mounted at a place is not there any more, or is dead.
    fn is_lost(&self, place: &Place, entry: &Entry) -> bool {
        match entry {
            Entry::File { size: 0, uid } => self.is_target(*uid),
            Entry::Node { .. } => is_dead(place),
            _ => false,
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
        let Some(namespace) = &self.mount_namespace else {
            return make_node(place, num, (mode, uid, gid), replace);
        };
        let staging = match &mut self.staging {
            Some(staging) => staging,
            empty => empty.insert(Staging::new().map_err(staging_failed)?),
        };
        let node = staging.make_node(num, mode, uid, gid).map_err(staging_failed)?;
        let put = place.put("create the node", replace, |temporary| {
            temporary.make("create the mount point", |parent, name| {
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
    pub(super) fn is_target(&self, uid: u32) -> bool {
        let owner = self.user.map_or(0, |(user, _)| user.as_raw());
        self.mount_namespace.is_some() && owner == uid
    }

    /// Whether a node that the notes list at this path was mounted there. Nodes of the host are
    /// mounted wherever the notes list one.
    fn has_mounted(&self, path: &Path) -> bool {
        self.placement == Placement::HostNodes || self.staged.contains_key(path)
    }
}

/// The action of this file, for errors.
const ACTION: &str = "create the node";

/// Creates a node in the container's own file system by one call, unless something is at the place.
/// Returns whether it was created.
///
/// mknod(2) gives the node to the file system user and group of the thread, and a process whose
/// file system user is not root may not call it (capabilities(7), CAP_MKNOD): a node of another
/// user is not created here.
fn make_complete_node(
    place: &Place,
    num: DevNum,
    (mode, uid, gid): (u32, u32, u32),
) -> Result<bool, ContainerDevError> {
    if uid != 0 {
        return Ok(false);
    }
    let _as_group = FileSystemGroupGuard::new(Gid::from_raw(gid));
    let _without_mask = NoUmask::new();
    place.create(ACTION, |parent, name| {
        let mode = Mode::from_bits_truncate(mode & 0o7777);
        mknodat(parent, name, file_type_of(num), mode, number_of(num))
    })
}

/// Creates a node in the container's own file system under a temporary name, and renames it.
fn make_node(
    place: &Place,
    num: DevNum,
    (mode, uid, gid): (u32, u32, u32),
    replace: bool,
) -> Result<(), ContainerDevError> {
    place.put(ACTION, replace, |temporary| {
        temporary.make(ACTION, |parent, name| {
            mknodat(parent, name, file_type_of(num), Mode::empty(), number_of(num))
        })?;
        let finished = temporary
            .open(OFlag::empty())
            .and_then(|fd| finish_node(&fd, num, mode, uid, gid));
        finished.map_err(|source| failed(ACTION, place.path(), source))
    })
}
