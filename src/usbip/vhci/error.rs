//! What went wrong with the controllers.

use std::io;
use std::path::{Path, PathBuf};

/// A file of the controllers cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum VhciError {
    /// The module is not loaded.
    #[error(
        "this kernel has no virtual USB host controller ({} is missing): load its module with `modprobe vhci-hcd`, and \
         at each boot with a line \"vhci-hcd\" in /etc/modules-load.d/usbip.conf",
        path.display()
    )]
    Missing {
        /// The missing file.
        path: PathBuf,
    },
    /// This process may not do it.
    #[error("cannot {action} {}: {source} (run this as root)", path.display())]
    Denied {
        /// What cannot be done, as a verb.
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// Any other error.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What cannot be done, as a verb.
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// A line of `status` has an unknown form.
    #[error("{}: \"{line}\" is not a port of a virtual USB host controller: is this a newer kernel than this program knows?", path.display())]
    Status { path: PathBuf, line: String },
}

pub(super) fn failed(action: &'static str, path: &Path, source: io::Error) -> VhciError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::PermissionDenied => VhciError::Denied { action, path, source },
        _ => VhciError::File { action, path, source },
    }
}
