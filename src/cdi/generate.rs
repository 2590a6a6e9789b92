//! Generates specs that add the hooks of oci-hotplug to a container, and writes their files.
//!
//! Each device has its own file, so that changing one device does not affect the others. Must not
//! know what a request means: callers have parsed it.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::directories::{Definition, SpecFile, Specs, shown};
use super::document::{Device, Document, Edits, Hook};
use super::names::{self, Kind, NameError};
use super::rules;
use crate::host::state::atomic_file::{Durability, replace};

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
const MAX_FILE_NAME: usize = 255;

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

/// How a file was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileChange {
    Created,
    /// Another spec of oci-hotplug was in the file.
    Updated,
    /// Another program had written the file.
    Replaced,
    Unchanged,
}

impl FileChange {
    /// The word for messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "wrote",
            Self::Updated => "updated",
            Self::Replaced => "replaced another program's",
            Self::Unchanged => "unchanged",
        }
    }
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
        /// The operation, as a gerund.
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

/// The name of a device's file: `VENDOR-CLASS_NAME.json`, as in the Go library (spec.go:300-322).
///
/// # Errors
/// If it would be too long.
pub fn file_name(kind: &Kind, name: &str) -> Result<String, GenerateError> {
    let file = format!("{}-{}_{name}.json", kind.vendor, kind.class);
    // The name of the temporary file is longer by this suffix.
    let length = file.len() + ".4194304.tmp".len() + 1;
    if length > MAX_FILE_NAME {
        return Err(GenerateError::LongFileName {
            name: name.to_owned(),
            length,
        });
    }
    Ok(file)
}

/// The path for the spec of a device in `dir`, if it can be written without a conflict with
/// `specs`, which engines read. Changes nothing. With `force`, a file of another program may be
/// replaced.
///
/// # Errors
/// If a file of another program has this path, or another file defines the device.
pub fn check(
    specs: &Specs,
    dir: &Path,
    kind: &Kind,
    name: &str,
    force: bool,
) -> Result<PathBuf, GenerateError> {
    let path = dir.join(file_name(kind, name)?);
    match check_existing(&path, kind, name) {
        Err(GenerateError::NotOurs { .. }) if force && path.is_file() => {}
        checked => checked?,
    }
    let qualified = format!("{kind}={name}");
    let here = resolved(&path);
    let mut others: Vec<&Path> = match specs.devices().remove(&qualified) {
        None => Vec::new(),
        Some(Definition::Conflict(paths)) => paths,
        Some(Definition::By { file, shadowed, .. }) => [&[file.path.as_path()], &shadowed[..]].concat(),
    };
    others.retain(|other| resolved(other) != here);
    let Some(other) = others.first() else {
        return Ok(path);
    };
    let same_directory = other
        .parent()
        .is_some_and(|parent| resolved(parent) == resolved(dir));
    Err(GenerateError::DefinedElsewhere {
        name: qualified,
        other: other.to_path_buf(),
        why: if same_directory {
            "engines ignore a device that two files of one directory define"
        } else {
            "engines use only one of the two directories"
        },
    })
}

fn resolved(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// Whether a spec contains only this device, like the files of oci-hotplug.
fn defines(document: &Document, kind: &Kind, name: &str) -> bool {
    document.kind == kind.to_string() && matches!(&document.devices[..], [device] if device.name == name)
}

/// The files that oci-hotplug wrote, each with the device that it defines.
pub fn files_of_ours(specs: &Specs) -> Vec<(&Path, String)> {
    let files = specs.files.iter().filter_map(|file| {
        let document = file.spec.as_ref().ok().filter(|document| is_ours(document))?;
        let (kind, [device]) = (document.kind.parse::<Kind>().ok()?, &document.devices[..]) else {
            return None;
        };
        let is_named = file.path.file_name()? == file_name(&kind, &device.name).ok()?.as_str();
        is_named.then(|| (file.path.as_path(), format!("{kind}={}", device.name)))
    });
    files.collect()
}

fn check_existing(path: &Path, kind: &Kind, name: &str) -> Result<(), GenerateError> {
    let not_ours = |what: String| {
        Err(GenerateError::NotOurs {
            path: path.to_owned(),
            what,
        })
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(io_error("read", path, source)),
        Ok(found) if !found.is_file() => return not_ours("it is not a regular file".into()),
        Ok(_) => {}
    }
    match SpecFile::read(path, 0).spec {
        Ok(document) if is_ours(&document) && defines(&document, kind, name) => Ok(()),
        Ok(document) => not_ours(format!("it is a spec of {}", document.kind)),
        Err(faults) => not_ours(faults.first().map(ToString::to_string).unwrap_or_default()),
    }
}

/// Writes a spec to a path that [`check`] returned. Replaces the file atomically, by renaming,
/// which engines watch for (cache.go:549). Creates the directory if necessary.
///
/// # Errors
/// If the directory or the file cannot be written.
pub fn write(path: &Path, document: &Document) -> Result<FileChange, GenerateError> {
    let text = text(document);
    let change = match fs::read(path) {
        Ok(before) if before == text.as_bytes() => return Ok(FileChange::Unchanged),
        Ok(_)
            if !SpecFile::read(path, 0)
                .spec
                .is_ok_and(|document| is_ours(&document)) =>
        {
            FileChange::Replaced
        }
        Ok(_) => FileChange::Updated,
        Err(_) => FileChange::Created,
    };
    let dir = path.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(dir)
        .map_err(|source| io_error("create the directory", dir, source))?;
    replace(path, text.as_bytes(), 0o644, Durability::Synced)
        .map_err(|source| io_error("write", path, source))?;
    Ok(change)
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> GenerateError {
    GenerateError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
