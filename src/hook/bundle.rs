//! The bundle of the container that a hook was started for, and its config.json.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::host::regular_file;
use crate::model::oci::{BundleConfig, BundleConfigError, HookState, bundle_argument};
use crate::model::quoting::shown;

/// The maximum length of config.json, in bytes.
const MAX_CONFIG: u64 = 16 << 20;

/// The maximum length of a path, in bytes (PATH_MAX without the NUL, limits.h).
const MAX_PATH: usize = 4095;

/// The bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BundleError {
    /// The state has no bundle.
    #[error("the container's state has no bundle (this hook belongs to stage createRuntime or prestart)")]
    Missing,
    /// The file cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The file is malformed.
    #[error(transparent)]
    Config(#[from] BundleConfigError),
    /// The path of the bundle or of the root file system is not one that a runtime creates.
    #[error(
        "the container's {what} \"{shown}\": a path must have at most {MAX_PATH} bytes and no control characters"
    )]
    Path {
        what: &'static str,
        /// The start of the path, with escaped control characters.
        shown: String,
    },
}

/// Reads the config.json of the container's bundle.
///
/// # Errors
/// When the state has no bundle, or the file cannot be read or is malformed.
pub(super) fn read(state: &HookState) -> Result<BundleConfig, BundleError> {
    let bundle = state.bundle.as_deref().ok_or(BundleError::Missing)?;
    check_path("bundle", bundle)?;
    let path = bundle.join("config.json");
    let json =
        regular_file::read_at_most(&path, MAX_CONFIG).map_err(|source| BundleError::Read { path, source })?;
    let config = BundleConfig::parse(bundle, &json)?;
    check_path("root file system", &config.rootfs)?;
    Ok(config)
}

/// The state with a usable bundle: if the bundle of the state has no config.json, the bundle from
/// crun's command line. crun 1.21 writes its own working directory into the state, and that is the
/// root directory once crun has mounted an engine's device into a user namespace (setns(2) into a
/// mount namespace moves it there).
pub(super) fn with_usable_bundle(state: &HookState) -> Cow<'_, HookState> {
    let has_config = |bundle: &Path| bundle != Path::new("/") && bundle.join("config.json").exists();
    if state.bundle.as_deref().is_some_and(has_config) {
        return Cow::Borrowed(state);
    }
    let argument = || bundle_argument(&parent_command_line()?, &state.id);
    match argument().filter(|bundle| has_config(bundle)) {
        Some(bundle) => Cow::Owned(HookState {
            bundle: Some(bundle),
            ..state.clone()
        }),
        None => Cow::Borrowed(state),
    }
}

/// The command line of the runtime that started this hook. It is as trustworthy as the state, which
/// the runtime wrote, if the runtime runs as the same user.
fn parent_command_line() -> Option<Vec<u8>> {
    let runtime = format!("/proc/{}", nix::unistd::getppid());
    let owner = fs::metadata(&runtime).ok()?.uid();
    (owner == nix::unistd::geteuid().as_raw()).then_some(())?;
    fs::read(format!("{runtime}/cmdline")).ok()
}

/// Messages show these paths unchanged, so they must not contain control characters.
fn check_path(what: &'static str, path: &Path) -> Result<(), BundleError> {
    let text = path.to_string_lossy();
    if text.len() <= MAX_PATH && !text.chars().any(char::is_control) {
        return Ok(());
    }
    Err(BundleError::Path {
        what,
        shown: shown(&text, 80),
    })
}
