//! Whether a container of a rootless engine can have its devices.

use std::path::PathBuf;

use crate::host::state::trust::{self, Untrusted};
use crate::model::request::Request;
use crate::model::request::entry::Requests;
use crate::model::rootless::{self, Rootless, Unsupported};

/// A container of a rootless engine cannot have its devices.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootlessError {
    /// The hook was not started by a rootless engine.
    #[error(
        "this process belongs to user {uid} and is not root of a user namespace, so it cannot give devices to a container (use a rootless engine, which runs its hooks in its own user namespace, or run the engine as root)"
    )]
    NoNamespace { uid: u32 },
    /// The user has no runtime directory.
    #[error(
        "a rootless container needs the directory {}, where its state is (log in, or let root run `loginctl enable-linger`)", .0.display()
    )]
    NoRuntimeDir(PathBuf),
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
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
    Ok(trust::check(&runtime_dir)?)
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
