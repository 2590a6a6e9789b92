//! Whether a container of a rootless engine can have its devices.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use crate::host::state::trust::{self, Untrusted};
use crate::model::request::Request;
use crate::model::request::entry::Requests;
use crate::model::rootless::{self, Rootless, Unsupported};
use crate::sys::namespaces;

/// A container of a rootless engine cannot have its devices.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootlessError {
    /// The hook was not started by a rootless engine.
    #[error(
        "this process belongs to user {uid} and is not root of a user namespace, so it cannot give devices to a container (use rootless podman, which runs its hooks in its own user namespace, or run the engine as root)"
    )]
    NoNamespace { uid: u32 },
    /// The user has no runtime directory.
    #[error(
        "a rootless container needs the directory {}, where its state is (log in, or let root run `loginctl enable-linger`)", .0.display()
    )]
    NoRuntimeDir(PathBuf),
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    /// The kernel sends uevents only to network namespaces of the initial user namespace.
    #[error(
        "this engine runs its hooks in a separate network namespace, which receives no uevents (rootless Docker and nerdctl do so: use rootless podman, or run the engine as root)"
    )]
    NoUevents,
    #[error("device request {request:?}: {what}")]
    Unsupported { request: String, what: Unsupported },
}

/// Checks that a container of a rootless engine can have what it requests.
///
/// # Errors
/// The first reason why it cannot, with a hint.
pub(crate) fn check(rootless: Rootless, requests: &Requests) -> Result<(), RootlessError> {
    if !rootless.is_namespace_root {
        return Err(RootlessError::NoNamespace { uid: rootless.uid });
    }
    let entries = requests.entries.iter();
    entries.map(|entry| &entry.request).try_for_each(check_request)?;
    let runtime_dir = rootless.runtime_dir();
    if !runtime_dir.exists() {
        return Err(RootlessError::NoRuntimeDir(runtime_dir));
    }
    trust::check(&runtime_dir)?;
    if lacks_uevents() {
        return Err(RootlessError::NoUevents);
    }
    Ok(())
}

/// Checks one request of a container of a rootless engine.
///
/// # Errors
/// [`RootlessError::Unsupported`].
pub(crate) fn check_request(request: &Request) -> Result<(), RootlessError> {
    match rootless::unsupported(request) {
        Some(what) => Err(RootlessError::Unsupported {
            request: request.to_string(),
            what,
        }),
        None => Ok(()),
    }
}

/// Whether this process's network namespace belongs to its own user namespace (or one below): the
/// host's belongs to the initial one, which is above.
fn lacks_uevents() -> bool {
    let owner = fs::File::open("/proc/self/ns/net").and_then(|network| namespaces::owner_of(network.as_fd()));
    match owner {
        Ok(_) => true,
        Err(error) => error.kind() != io::ErrorKind::PermissionDenied,
    }
}
