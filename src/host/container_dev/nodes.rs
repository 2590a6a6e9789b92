//! Device nodes.

use std::os::fd::AsFd;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, makedev, mknodat};

use super::dev::{ContainerDev, host_ids};
use super::entry::Entry;
use super::error::{ContainerDevError, failed};
use super::open::finish_node;
use super::outcome::{NodeOutcome, NodeOwner, Placement};
use super::path::checked;
use super::place::Place;
use super::staging::Staging;
use crate::model::cgroup::grants::Change;
use crate::model::device::{DevKind, DevNum};
use crate::model::plan::attachment::PathState;

impl ContainerDev {
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
    pub fn find_node(&self, path: &Path, num: DevNum) -> Result<PathState, ContainerDevError> {
        let path = checked(path, true)?;
        self.find(
            &path,
            |entry| matches!(entry, Entry::Node { num: there, .. } if *there == num),
        )
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
        let put = place.put("create the node", replace, |temporary| {
            temporary.make("create a file to mount the node on,", |parent, name| {
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
}

/// Creates a node in the container's own file system.
fn make_node(
    place: &Place,
    num: DevNum,
    (mode, uid, gid): (u32, u32, u32),
    replace: bool,
) -> Result<(), ContainerDevError> {
    const ACTION: &str = "create the node";
    let kind = if num.kind == DevKind::Block {
        SFlag::S_IFBLK
    } else {
        SFlag::S_IFCHR
    };
    let device = makedev(num.major.into(), num.minor.into());
    place.put(ACTION, replace, |temporary| {
        temporary.make(ACTION, |parent, name| {
            mknodat(parent, name, kind, Mode::empty(), device)
        })?;
        let finished = temporary
            .open(OFlag::empty())
            .and_then(|fd| finish_node(&fd, num, mode, uid, gid));
        finished.map_err(|source| failed(ACTION, place.path(), source))
    })
}
