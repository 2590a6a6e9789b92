//! The files of generated specs: where they are, whether they may be written, and how.
//!
//! Each device has its own file, so that changing one device does not affect the others.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::directories::{Definition, SpecFile, Specs};
use super::document::Document;
use super::generate::{GenerateError, MAX_FILE_NAME, is_ours, text};
use super::names::Kind;
use crate::host::state::atomic_file::{Durability, replace};

/// How a file was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileChange {
    Created,
    /// Another spec of oci-hotplug was in the file.
    Updated,
    /// Another program had written the file.
    Replaced,
    Unchanged,
}

impl FileChange {
    /// The word for messages.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Created => "wrote",
            Self::Updated => "updated",
            Self::Replaced => "replaced another program's",
            Self::Unchanged => "unchanged",
        }
    }
}

/// The name of a device's file: `VENDOR-CLASS_NAME.json`, as in the Go library (spec.go:300-322).
///
/// # Errors
/// If it would be too long.
pub(crate) fn file_name(kind: &Kind, name: &str) -> Result<String, GenerateError> {
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
pub(crate) fn check(
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
pub(crate) fn files_of_ours(specs: &Specs) -> Vec<(&Path, String)> {
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
pub(crate) fn write(path: &Path, document: &Document) -> Result<FileChange, GenerateError> {
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
