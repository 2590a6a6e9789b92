//! What can go wrong with the records of the state directory.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::host::state::trust::Untrusted;
use crate::model::quoting::shown;

/// How many characters of a path that others chose appear in a message.
const MAX_SHOWN: usize = 200;

/// What can go wrong with the state directory.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A file or directory could not be handled.
    #[error("{doing} {path}: {source} (the state directory must be writable for root; --state-dir names another)", path = path.display())]
    Io {
        /// What was being done, as a gerund.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A file of ours does not hold what it should.
    #[error("reading {path}: {source} (written by another program? remove the directory once its container is gone)", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A newer oci-hotplug wrote it.
    #[error("reading {path}: it has version {version}, and this oci-hotplug knows versions up to {known} (install the newer one)", path = path.display())]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its version.
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
        /// The id.
        id: String,
        /// The host's pid of the other container's init.
        pid: i32,
        /// The other container's bundle.
        bundle: PathBuf,
    },
    /// Others than root have a say in the state directory.
    #[error("{0} (--state-dir)")]
    Untrusted(#[from] Untrusted),
    /// A lock was not let go in time.
    #[error("waiting for {path}: still locked by {holder} after {waited:?}", path = path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Who holds it, as far as known.
        holder: String,
        /// How long was waited.
        waited: Duration,
    },
}
