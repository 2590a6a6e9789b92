//! The manifest: which files and directories an installation has made.
//!
//! ```text
//! dir PATH           a directory that was made
//! FINGERPRINT PATH   a file, with the fingerprint of its content
//! kept PATH          a configuration that the administrator has changed
//! ```
//! Lines are added while files are placed, so that also an installation that failed can be removed.
//! The last one for a path counts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::files::Layout;
use super::place::Root;
use crate::host::state::atomic_file::{Durability, replace};

/// The fingerprint of a configuration that was changed: that of no file.
const KEPT: &str = "kept";

/// The content of a manifest.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub directories: BTreeSet<PathBuf>,
    /// Each file with its fingerprint.
    pub files: BTreeMap<PathBuf, String>,
}

impl Notes {
    /// Reads a manifest; `None` when there is none.
    pub(super) fn read(path: &Path) -> Result<Option<Self>> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let mut notes = Self::default();
        for (mark, path) in text.lines().filter_map(|line| line.split_once(' ')) {
            match mark {
                "dir" => drop(notes.directories.insert(path.into())),
                mark => drop(notes.files.insert(path.into(), mark.to_owned())),
            }
        }
        Ok(Some(notes))
    }

    fn text(&self) -> String {
        let directories = self.directories.iter().map(|path| ("dir", path));
        let files = self.files.iter().map(|(path, mark)| (mark.as_str(), path));
        let lines = directories.chain(files);
        lines
            .map(|(mark, path)| format!("{mark} {}\n", path.display()))
            .collect()
    }
}

/// Where the manifest of an installation is, as its host has it.
pub(super) fn path_of(layout: &Layout) -> PathBuf {
    layout.data.join("installed")
}

/// The manifest of an installation that runs.
#[derive(Debug)]
pub(super) struct Manifest {
    path: PathBuf,
    file: File,
    before: Option<Notes>,
    now: Notes,
}

impl Manifest {
    /// Opens the manifest, or makes it.
    pub(super) fn open(layout: &Layout, root: &Root) -> Result<Self> {
        let path = root.at(&path_of(layout));
        let before = Notes::read(&path)?;
        let made = missing_directories(root, &path_of(layout));
        let write = || {
            make_directories(root, &made)?;
            let mut options = OpenOptions::new();
            options.append(true).create(true).mode(0o644).open(&path)
        };
        let file = write()
            .with_context(|| format!("cannot write {} ({})", path.display(), root.permission_hint()))?;
        let mut manifest = Self {
            path,
            file,
            before,
            now: Notes::default(),
        };
        manifest.note_directories(made)?;
        Ok(manifest)
    }

    /// Whether an earlier installation was made.
    pub(super) fn is_update(&self) -> bool {
        self.before.is_some()
    }

    /// Whether a file has the content that it was installed with.
    pub(super) fn is_as_installed(&self, path: &Path, content: &[u8]) -> bool {
        let before = self.before.as_ref().and_then(|before| before.files.get(path));
        before.is_some_and(|mark| *mark == fingerprint(content))
    }

    /// Makes the directories above a file.
    pub(super) fn make_directories(&mut self, root: &Root, path: &Path) -> Result<()> {
        let missing = missing_directories(root, path);
        make_directories(root, &missing).with_context(|| {
            format!(
                "cannot create the directory of {} ({})",
                path.display(),
                root.permission_hint()
            )
        })?;
        self.note_directories(missing)
    }

    /// Notes a file.
    pub(super) fn note(&mut self, path: &Path, content: &[u8]) -> Result<()> {
        self.note_mark(path, fingerprint(content))
    }

    /// Notes a configuration that stays as the administrator has changed it.
    pub(super) fn note_kept(&mut self, path: &Path) -> Result<()> {
        self.note_mark(path, KEPT.to_owned())
    }

    fn note_mark(&mut self, path: &Path, mark: String) -> Result<()> {
        writeln!(self.file, "{mark} {}", path.display())?;
        self.now.files.insert(path.to_owned(), mark);
        Ok(())
    }

    fn note_directories(&mut self, directories: Vec<PathBuf>) -> Result<()> {
        for directory in directories {
            writeln!(self.file, "dir {}", directory.display())?;
            self.now.directories.insert(directory);
        }
        Ok(())
    }

    /// Writes what is installed now. Returns the files of the earlier installation that this one
    /// does not have.
    pub(super) fn finish(mut self) -> Result<Vec<PathBuf>> {
        let before = self.before.take().unwrap_or_default();
        self.now.directories.extend(before.directories);
        let is_gone = |path: &&PathBuf| !self.now.files.contains_key(*path);
        let gone = before.files.keys().filter(is_gone).cloned().collect();
        replace(
            &self.path,
            self.now.text().as_bytes(),
            0o644,
            Durability::Volatile,
        )
        .with_context(|| format!("cannot write {}", self.path.display()))?;
        Ok(gone)
    }
}

/// The directories above a path that do not exist, the highest first.
fn missing_directories(root: &Root, path: &Path) -> Vec<PathBuf> {
    let above = path.ancestors().skip(1);
    let mut missing: Vec<PathBuf> = above
        .take_while(|dir| !root.at(dir).is_dir())
        .map(Path::to_owned)
        .collect();
    missing.reverse();
    missing
}

fn make_directories(root: &Root, directories: &[PathBuf]) -> io::Result<()> {
    for directory in directories {
        DirBuilder::new().mode(0o755).create(root.at(directory))?;
    }
    Ok(())
}

/// 16 hex digits that distinguish contents (FNV-1a, 64 bits); not a protection against forgery.
pub(super) fn fingerprint(content: &[u8]) -> String {
    let hash = content.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}
