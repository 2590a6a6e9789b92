//! What can go wrong in a container's file system. The paths in messages are those that the
//! container sees.

use std::io;
use std::path::PathBuf;

use crate::host::container::ContainerError;

/// What can go wrong in a container's file system. Paths are the container's.
#[derive(Debug, thiserror::Error)]
pub enum ContainerDevError {
    /// The container itself could not be read.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// Not a path that a node or link can have.
    #[error(
        "path {path:?} in the container: must be absolute and without \"..\"; a node's must be below /dev, a link's must not be /dev itself"
    )]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// A parent is not a directory of the container's.
    #[error("{} in the container is {found}: it is not followed; remove it or choose another path", path.display())]
    InTheWay {
        /// The parent.
        path: PathBuf,
        /// What it is.
        found: String,
    },
    /// The place is taken by something that is not ours.
    #[error("{} in the container is {found}, which oci-hotplug does not replace; remove it or choose another path", path.display())]
    Taken {
        /// The place.
        path: PathBuf,
        /// What is there.
        found: String,
    },
    /// The file system takes nothing.
    #[error("{doing} {} in the container: its file system is read-only; choose a path below a writable /dev", path.display())]
    ReadOnly {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// An id that the container's user namespace does not have.
    #[error("{kind} id {id} is not mapped in the container's user namespace: choose one that is")]
    Unmapped {
        /// `user` or `group`.
        kind: &'static str,
        /// The container's id.
        id: u32,
    },
    /// A node could not be made in the user namespace's way.
    #[error("{}: {source}", path.display())]
    Staging {
        /// The node.
        path: PathBuf,
        /// Why.
        source: StagingError,
    },
    /// A system call failed.
    #[error("{doing} {} in the container: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl ContainerDevError {
    /// Whether the process is lost in another mount namespace and must end at once.
    pub fn is_fatal(&self) -> bool {
        matches!(
            self,
            Self::Staging {
                source: StagingError::Stranded { .. },
                ..
            }
        )
    }
}

/// What can go wrong with nodes that are mounted.
#[derive(Debug, thiserror::Error)]
pub enum StagingError {
    /// A step failed; the process is where it was.
    #[error("{doing}: {source}")]
    Step {
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The process could not come back to its own mount namespace: it must touch nothing more, and
    /// end.
    #[error(
        "coming back to the host's mount namespace: {source}; every path now leads elsewhere, so end this process"
    )]
    Stranded {
        /// Why not.
        source: io::Error,
    },
}
