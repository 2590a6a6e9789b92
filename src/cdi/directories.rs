//! The directories from which engines read specs, and the file that defines each device.
//!
//! As in the Go library, every `.json` and `.yaml` file directly in a directory is read
//! (spec-dirs.go:74-95), later directories have precedence, a device that two files of one
//! directory define is ignored (cache.go:172-213), and an invalid file does not affect the others
//! (cache.go:188-192). Must not know what a spec is for.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::document::{Device, Document, Edits};
use super::fault::Fault;
use super::names::QualifiedName;
use super::rules;
use crate::host::regular_file;
use crate::model::yaml;

/// The default directories of engines; the later one has precedence (spec-dirs.go:26-33).
pub(crate) const DEFAULT_DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// The longest spec that is read, in bytes.
const MAX_SPEC: u64 = 16 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpecFile {
    pub path: PathBuf,
    /// The index of its directory: a higher one has precedence.
    pub priority: usize,
    /// The spec, or all faults in it.
    pub spec: Result<Document, Vec<Fault>>,
}

/// All files of all directories.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Specs {
    /// The directories, each once.
    pub directories: Vec<PathBuf>,
    /// The files, in the order in which they are read.
    pub files: Vec<SpecFile>,
    /// Directories that exist and cannot be read.
    pub unreadable: Vec<(PathBuf, String)>,
}

/// The files that define a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Definition<'s> {
    /// Exactly one file in the directory with the highest precedence.
    By {
        file: &'s SpecFile,
        spec: &'s Document,
        device: &'s Device,
        /// Files in directories with lower precedence that define it, too.
        shadowed: Vec<&'s Path>,
    },
    /// Several files in one directory: engines ignore the device, even if a later directory defines
    /// it.
    Conflict(Vec<&'s Path>),
}

/// The name of a device that cannot be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {reason}")]
pub(crate) struct Unresolved {
    pub name: String,
    /// The reason, with a hint.
    pub reason: String,
}

impl SpecFile {
    /// Reads and checks one file.
    pub(crate) fn read(path: &Path, priority: usize) -> Self {
        let spec = match regular_file::read_text_at_most(path, MAX_SPEC) {
            Err(error) => Err(vec![Fault {
                field: String::new(),
                line: None,
                column: None,
                message: error.to_string(),
            }]),
            Ok(text) => check(&text),
        };
        Self {
            path: path.to_owned(),
            priority,
            spec,
        }
    }
}

fn check(text: &str) -> Result<Document, Vec<Fault>> {
    let root = yaml::parse(text).map_err(|error| vec![error.into()])?;
    let document = Document::decode(&root).map_err(|fault| vec![fault])?;
    let faults = rules::faults(&document, &root);
    if faults.is_empty() {
        Ok(document)
    } else {
        Err(faults)
    }
}

/// Whether engines read files with this name.
pub(crate) fn is_spec_name(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "json" || extension == "yaml")
}

impl Specs {
    /// Reads all specs in these directories. A missing directory has no specs.
    pub(crate) fn scan(directories: &[PathBuf]) -> Self {
        let mut specs = Self::default();
        for directory in directories {
            if !specs.directories.iter().any(|known| is_same(known, directory)) {
                specs.directories.push(directory.clone());
            }
        }
        for (directory, priority) in specs.directories.iter().zip(0..) {
            match list(directory) {
                Ok(paths) => specs
                    .files
                    .extend(paths.iter().map(|path| SpecFile::read(path, priority))),
                Err(error) => specs.unreadable.push((directory.clone(), error.to_string())),
            }
        }
        specs
    }

    pub(crate) fn devices(&self) -> BTreeMap<String, Definition<'_>> {
        let mut devices: BTreeMap<String, Definition<'_>> = BTreeMap::new();
        for file in &self.files {
            let Ok(spec) = &file.spec else { continue };
            for device in &spec.devices {
                let name = format!("{}={}", spec.kind, device.name);
                let defined = match devices.remove(&name) {
                    None => Definition::By {
                        file,
                        spec,
                        device,
                        shadowed: Vec::new(),
                    },
                    Some(before) => before.with(file, spec, device),
                };
                devices.insert(name, defined);
            }
        }
        devices
    }

    /// The edits for a container with these devices: the edits of each spec once, before those of
    /// its devices (cache.go:241-279).
    ///
    /// # Errors
    /// All names that cannot be resolved; engines then add no device at all.
    pub(crate) fn resolve(&self, names: &[String]) -> Result<Edits, Vec<Unresolved>> {
        let devices = self.devices();
        let (mut edits, mut unresolved, mut taken) = (Edits::default(), Vec::new(), Vec::new());
        for name in names {
            match devices.get(name) {
                Some(Definition::By {
                    file, spec, device, ..
                }) => {
                    if !taken.contains(&&file.path) {
                        taken.push(&file.path);
                        edits.append(&spec.container_edits);
                    }
                    edits.append(&device.container_edits);
                }
                other => unresolved.push(Unresolved {
                    name: name.clone(),
                    reason: self.why_not(name, other),
                }),
            }
        }
        if unresolved.is_empty() {
            Ok(edits)
        } else {
            Err(unresolved)
        }
    }

    fn why_not(&self, name: &str, definition: Option<&Definition<'_>>) -> String {
        if let Some(Definition::Conflict(paths)) = definition {
            return format!(
                "{} define it in one directory, and engines then ignore it: remove it from all files but one",
                shown(paths)
            );
        }
        if let Err(error) = name.parse::<QualifiedName>() {
            return error.to_string();
        }
        let broken: Vec<&Path> = self
            .files
            .iter()
            .filter(|file| file.spec.is_err())
            .map(|file| file.path.as_path())
            .collect();
        let directories: Vec<&Path> = self.directories.iter().map(PathBuf::as_path).collect();
        let hint = if broken.is_empty() {
            String::new()
        } else {
            format!(" (it may be in {}, which cannot be used)", shown(&broken))
        };
        format!("no spec in {} defines it{hint}", shown(&directories))
    }
}

impl<'s> Definition<'s> {
    /// The definition after reading a further file that also defines the device.
    fn with(self, file: &'s SpecFile, spec: &'s Document, device: &'s Device) -> Self {
        match self {
            // In the Go library, a conflict remains even if a later directory defines the device.
            Self::Conflict(mut paths) => {
                paths.push(&file.path);
                Self::Conflict(paths)
            }
            Self::By {
                file: before,
                mut shadowed,
                ..
            } if before.priority < file.priority => {
                shadowed.push(&before.path);
                Self::By {
                    file,
                    spec,
                    device,
                    shadowed,
                }
            }
            Self::By { file: before, .. } => Self::Conflict(vec![&before.path, &file.path]),
        }
    }
}

/// Paths as a phrase for a message.
pub(crate) fn shown(paths: &[&Path]) -> String {
    let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    match paths.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} and {last}", others.join(", ")),
        _ => paths.concat(),
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    let resolved = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    resolved(one) == resolved(other)
}

/// The specs directly in a directory, sorted by name, in the order of the Go library.
fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry?;
        if is_spec_name(&entry.path()) && !entry.file_type()?.is_dir() {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests;
