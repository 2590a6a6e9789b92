//! Errors of the state directory.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::host::regular_file::is_not_regular;
use crate::host::state::trust::Untrusted;
use crate::model::quoting::shown;

/// How many characters of a path that a user chose appear in a message.
const MAX_SHOWN: usize = 200;

/// An operation on the state directory failed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A file or directory could not be read or written.
    #[error("cannot {action} {path}: {source} (the state directory must be writable for root; --state-dir names another)", path = path.display())]
    Io {
        /// What cannot be done, as a verb.
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// Something that is not a regular file is in the place of a file.
    #[error("cannot {action} {path}: {source} (remove it: oci-hotplug did not make it)", path = path.display())]
    NotRegular {
        /// What cannot be done, as a verb.
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// A file is not valid JSON of the expected form.
    #[error("cannot read {path}: {source} (written by another program? remove the directory after its container has ended)", path = path.display())]
    Malformed {
        path: PathBuf,
        source: serde_json::Error,
    },
    /// A line of a journal is damaged.
    #[error("cannot read {path}: line {line}: {source} (damaged, or written by another program? remove the directory after its container has ended)", path = path.display())]
    MalformedLine {
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        source: serde_json::Error,
    },
    /// A newer version of oci-hotplug wrote the file.
    #[error("cannot read {path}: it has version {version}, but this oci-hotplug supports versions up to {known} (install the newer oci-hotplug)", path = path.display())]
    TooNew {
        path: PathBuf,
        /// The version of the file.
        version: u32,
        /// The newest version that this program reads.
        known: u32,
    },
    /// Another running container has this id.
    #[error(
        "container id {id} is in use by another running container (process {pid}, bundle {}): stop that container, or start this one with another id; different engines, runtime roots and containerd namespaces must not use the same id",
        shown(&bundle.to_string_lossy(), MAX_SHOWN)
    )]
    IdInUse {
        id: String,
        /// The host's pid of the other container's init.
        pid: i32,
        /// The other container's bundle.
        bundle: PathBuf,
    },
    /// Users other than root could change the state directory.
    #[error("{0} (--state-dir)")]
    Untrusted(#[from] Untrusted),
    /// The lock was not released in time.
    #[error("cannot lock {path}: still locked by {holder} after {waited:?} (wait until that ends; kill -CONT resumes a stopped one)", path = path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The process that holds the lock, as far as known.
        holder: String,
        waited: Duration,
    },
}

impl RegistryError {
    /// The error of a file that could not be opened, read or written.
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        if is_not_regular(&source) {
            return Self::NotRegular { action, path, source };
        }
        Self::Io { action, path, source }
    }
}
