//! Errors of changes in a container's file system. Paths in messages are those that the container
//! sees.

use std::io;
use std::path::{Path, PathBuf};

use crate::host::container::ContainerError;

/// A node or link in a container could not be created, found or removed.
#[derive(Debug, thiserror::Error)]
pub enum ContainerDevError {
    /// The container itself could not be examined.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// The path is not valid for a node or link.
    #[error(
        "path {path:?} in the container: must be absolute and without \"..\"; a node's must be below /dev, a link's must not be /dev itself"
    )]
    Path { path: PathBuf },
    /// A parent of the path is not a directory, or is a mount that is not entered.
    #[error("{} in the container is {found}, which oci-hotplug does not enter; remove it or choose another path", path.display())]
    InTheWay {
        /// The parent.
        path: PathBuf,
        /// What it is.
        found: String,
    },
    /// The path is taken by a file that is not ours.
    #[error("{} in the container is {found}, which oci-hotplug does not replace; remove it or choose another path", path.display())]
    Taken {
        path: PathBuf,
        /// What is there.
        found: String,
    },
    /// The file system is read-only.
    #[error("cannot {action} {} in the container: its file system is read-only; choose a path below a writable /dev", path.display())]
    ReadOnly { action: &'static str, path: PathBuf },
    /// The container's user namespace does not map this id.
    #[error("{kind} id {id} is not mapped in the container's user namespace: choose one that is")]
    Unmapped {
        /// `user` or `group`.
        kind: &'static str,
        /// The id in the container.
        id: u32,
    },
    /// A node for a container with a user namespace could not be created and mounted.
    #[error("{}: {source}", path.display())]
    Staging {
        /// The node's path.
        path: PathBuf,
        source: MountError,
    },
    /// A system call failed.
    #[error("cannot {action} {} in the container: {source}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

/// A step of creating or removing a mount failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}: {source}")]
pub struct MountError {
    action: &'static str,
    source: io::Error,
}

/// The error of a failed step of creating or removing a mount.
pub(super) fn step<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> MountError {
    move |source| MountError {
        action,
        source: source.into(),
    }
}

/// The error of a failed step; a read-only file system has its own.
pub(super) fn failed(action: &'static str, path: &Path, source: impl Into<io::Error>) -> ContainerDevError {
    let source = source.into();
    match source.kind() {
        io::ErrorKind::ReadOnlyFilesystem => ContainerDevError::ReadOnly {
            action,
            path: path.to_owned(),
        },
        _ => ContainerDevError::Io {
            action,
            path: path.to_owned(),
            source,
        },
    }
}
