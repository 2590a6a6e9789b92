//! Generates specs that add the hooks of oci-hotplug to a container.
//!
//! Must not know what a request means: callers have parsed it.

use std::io;
use std::path::{Path, PathBuf};

use super::directories::shown;
use super::document::{Device, Document, Edits, Hook};
use super::names::{self, Kind, NameError};
use super::rules;

/// The default vendor and class of generated devices.
pub const DEFAULT_KIND: &str = "oci-hotplug.dev/device";

/// The device that only adds the hooks, for containers with requests in annotations.
pub const ANNOTATED: &str = "annotated";

/// A version that the oldest libraries in use support (kubernetes.md 2.2); hooks have existed since
/// an earlier one.
const VERSION: &str = "0.5.0";

/// In seconds, as in hooks.d.
const HOOK_TIMEOUT: i64 = 10;

/// The longest name of a file, NAME_MAX of limits.h.
pub(super) const MAX_FILE_NAME: usize = 255;

const PRESTART: &str = "oci-hotplug-prestart";
const POSTSTOP: &str = "oci-hotplug-poststop";

/// A device to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDevice {
    /// The part after the `=` of the qualified name.
    pub name: String,
    /// Arguments `--device` of the prestart hook.
    pub devices: Vec<String>,
    /// Arguments `--symlink` of the prestart hook.
    pub symlinks: Vec<String>,
}

/// Why no file was written.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(
        "cannot write device {name:?}: the name of its file would have {length} characters, and {MAX_FILE_NAME} are allowed: choose a shorter one"
    )]
    LongFileName { name: String, length: usize },
    #[error("cannot find the hooks {PRESTART} and {POSTSTOP} in any of {} (install them, or name their directory with --hook-dir)", shown(&dirs.iter().map(PathBuf::as_path).collect::<Vec<_>>()))]
    NoHooks {
        /// The directories that were searched.
        dirs: Vec<PathBuf>,
    },
    /// Runtimes need an absolute path.
    #[error("hook directory {}: it must be an absolute path, because the runtime starts the hooks by it", .0.display())]
    HookDir(PathBuf),
    /// Another file defines the device, too.
    #[error("cannot write {name}: {other} also defines it: {why} (remove it there, or choose another name)", other = other.display())]
    DefinedElsewhere {
        /// The qualified name.
        name: String,
        /// The other file.
        other: PathBuf,
        /// What engines would do with the two definitions.
        why: &'static str,
    },
    /// The file exists and was not written by oci-hotplug.
    #[error("cannot write {path}: the file exists, and oci-hotplug did not write it: {what} (choose another name, or replace it with --force)", path = path.display())]
    NotOurs {
        path: PathBuf,
        /// A description of the file.
        what: String,
    },
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What cannot be done, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        source: io::Error,
    },
}

/// The directory of the hooks: the first of these that contains both.
///
/// # Errors
/// If no directory contains both.
pub fn find_hooks(dirs: &[PathBuf]) -> Result<PathBuf, GenerateError> {
    let has_both = |dir: &&PathBuf| [PRESTART, POSTSTOP].iter().all(|hook| dir.join(hook).is_file());
    let found = dirs.iter().find(has_both).cloned();
    found.ok_or_else(|| GenerateError::NoHooks { dirs: dirs.to_vec() })
}

/// The spec of these devices. Each has the two hooks and nothing else, so the host's devices may be
/// absent.
///
/// # Errors
/// If CDI does not allow a name, or runtimes cannot use the directory.
pub fn document(kind: &Kind, hook_dir: &Path, devices: &[NewDevice]) -> Result<Document, GenerateError> {
    let hook_dir_text = hook_dir.to_str().filter(|_| hook_dir.is_absolute());
    let hook_dir = hook_dir_text.ok_or_else(|| GenerateError::HookDir(hook_dir.to_owned()))?;
    kind.check_engines()?;
    for new in devices {
        names::check_device(&new.name)?;
    }
    let mut document = Document {
        cdi_version: VERSION.to_owned(),
        kind: kind.to_string(),
        devices: devices.iter().map(|new| device(hook_dir, new)).collect(),
        ..Document::default()
    };
    let (required, _) = rules::required_version(&document);
    document.cdi_version = required.max(VERSION).to_owned();
    Ok(document)
}

fn device(hook_dir: &str, new: &NewDevice) -> Device {
    let mut args = vec![PRESTART.to_owned()];
    let options = [("--device", &new.devices), ("--symlink", &new.symlinks)];
    for (option, values) in options {
        args.extend(values.iter().flat_map(|value| [option.to_owned(), value.clone()]));
    }
    let hook = |name: &str, stage: &str, args| Hook {
        hook_name: stage.to_owned(),
        path: format!("{}/{name}", hook_dir.trim_end_matches('/')),
        args,
        env: Vec::new(),
        timeout: Some(HOOK_TIMEOUT),
    };
    Device {
        name: new.name.clone(),
        container_edits: Edits {
            hooks: vec![
                hook(PRESTART, "createRuntime", args),
                hook(POSTSTOP, "poststop", vec![POSTSTOP.to_owned()]),
            ],
            ..Edits::default()
        },
        ..Device::default()
    }
}

/// Whether oci-hotplug wrote it: each device has the two hooks and nothing else. (A mark in an
/// annotation would need a newer version of the specification, which older engines reject.)
pub fn is_ours(document: &Document) -> bool {
    document.annotations.is_empty()
        && document.container_edits.is_empty()
        && !document.devices.is_empty()
        && document.devices.iter().all(is_our_device)
}

/// Whether a device has the two hooks and nothing else.
pub fn is_our_device(device: &Device) -> bool {
    let edits = &device.container_edits;
    let only_hooks = Edits {
        hooks: edits.hooks.clone(),
        ..Edits::default()
    };
    let is_hook = |hook: &Hook, stage: &str, name: &str| {
        hook.hook_name == stage
            && Path::new(&hook.path).file_name().is_some_and(|file| file == name)
            && hook.args.first().is_some_and(|first| first == name)
    };
    device.annotations.is_empty()
        && *edits == only_hooks
        && matches!(&edits.hooks[..], [start, stop]
            if is_hook(start, "createRuntime", PRESTART) && is_hook(stop, "poststop", POSTSTOP))
}

/// The requests of a generated device: arguments of its prestart hook.
pub fn requests(device: &Device) -> Vec<&str> {
    arguments(device, "--device")
}

/// The symlink rules of a generated device.
pub fn symlinks(device: &Device) -> Vec<&str> {
    arguments(device, "--symlink")
}

fn arguments<'d>(device: &'d Device, option: &str) -> Vec<&'d str> {
    let args = device
        .container_edits
        .hooks
        .first()
        .map_or(&[][..], |hook| &hook.args);
    let pairs = args.windows(2).filter(|pair| pair[0] == option);
    pairs.map(|pair| pair[1].as_str()).collect()
}

/// The text of a spec's file.
pub fn text(document: &Document) -> String {
    // Serializing strings and numbers cannot fail.
    let mut text = serde_json::to_string_pretty(document).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests;
