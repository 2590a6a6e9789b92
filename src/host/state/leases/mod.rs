//! Leases: which containers have a device, so that `exclusive` can be kept.
//!
//! ```text
//! <state-dir>/leases/<tail of the medium's path>-<hash of all of it>    ranges of bytes locked by the watcher: shared, or exclusive
//! ```
//! What is locked are the extents of a device (`model::device::same_data`), so that a disk and one
//! of its partitions keep each other out, also one that comes later, and two partitions do not. The
//! locks are those of open file descriptions (fcntl(2), F_OFD_SETLK): they last as long as a
//! watcher or its successor has the file, and a crash frees them. Nobody waits here: a device's
//! extents are all had or none is, and asked for again, so that there is no deadlock. Must not know
//! who may have what.

mod lease_file;
mod ranges;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use self::lease_file::{LeaseFile, lock_range, release};
pub use self::ranges::Hold;
use self::ranges::{Held, Lease, Segment, segments};
use crate::host::state::flock::{self, is_same_file};
use crate::model::device::SysPath;
use crate::model::device::same_data::{Extent, fnv};

/// How much of the medium's path the name of its lease shows, in bytes.
const TAIL: usize = 64;

/// A lease could not be asked for.
#[derive(Debug, thiserror::Error)]
#[error("{doing} the lease {path}: {source} (the state directory must be writable for root)", path = path.display())]
pub struct LeaseError {
    /// What was being done, as a gerund.
    pub doing: &'static str,
    /// The file.
    pub path: PathBuf,
    /// Why it failed.
    pub source: io::Error,
}

/// The leases that one container holds.
#[derive(Debug)]
pub struct Leases {
    dir: PathBuf,
    held: Held,
    files: BTreeMap<SysPath, LeaseFile>,
    /// Those of the watcher before that were not asked for yet.
    inherited: Vec<File>,
}

impl Leases {
    /// No lease yet, of those in this state directory.
    pub fn new(state_dir: &Path) -> Self {
        Self {
            dir: dir_of(state_dir),
            held: BTreeMap::new(),
            files: BTreeMap::new(),
            inherited: Vec::new(),
        }
    }

    /// The leases of the watcher before, which has handed over these files. They are held as they
    /// were, until it is known what is wanted: what [`Leases::take`] does not ask for goes with the
    /// first [`Leases::keep`].
    pub fn inherit(state_dir: &Path, files: Vec<File>) -> Self {
        let mut leases = Self::new(state_dir);
        leases.inherited = files;
        leases
    }

    /// The files whose locks are what is held, for the next watcher.
    pub fn files(&self) -> impl Iterator<Item = &File> {
        self.files.values().map(|file| &file.file)
    }

    /// They are another's now, who has the files: they stay as they are.
    pub fn forget(&mut self) {
        self.held.clear();
        self.files.clear();
    }

    /// How the device is held.
    pub fn held(&self, device: &SysPath) -> Option<Hold> {
        self.held.get(device).map(|lease| lease.hold)
    }

    /// Holds a device, whose bytes lie there, in this way at least, if nobody stands in the way.
    /// What is held afterwards: it may be less than was asked for, and is nothing when another has
    /// some of it alone. What is held exclusively stays so until it is let go.
    ///
    /// # Errors
    /// When a file can't be made or locked.
    pub fn take(
        &mut self,
        device: &SysPath,
        extents: &[Extent],
        hold: Hold,
    ) -> Result<Option<Hold>, LeaseError> {
        let before = self.held.get(device).cloned();
        let lies_there = |lease: &&Lease| lease.extents == extents;
        let same_place = before.as_ref().filter(lies_there).map(|lease| lease.hold);
        if let Some(held) = same_place.filter(|held| *held >= hold) {
            return Ok(Some(held));
        }
        if before.is_none() && self.take_beside(extents, hold)? {
            let extents = extents.to_vec();
            self.held.insert(device.clone(), Lease { extents, hold });
            return Ok(Some(hold));
        }
        let goal = Lease {
            extents: extents.to_vec(),
            hold: before.as_ref().map_or(hold, |before| before.hold.max(hold)),
        };
        let of_before = before.iter().flat_map(|lease| &lease.extents);
        let media: BTreeSet<SysPath> = extents
            .iter()
            .chain(of_before)
            .map(|extent| extent.medium.clone())
            .collect();
        self.held.insert(device.clone(), goal);
        let outcome = self.settle(&media);
        if let Ok(true) = outcome {
            return Ok(self.held(device));
        }
        // What was locked before is still: nothing is let go before all is had.
        match before {
            Some(before) => self.held.insert(device.clone(), before),
            None => self.held.remove(device),
        };
        self.settle(&media)?;
        outcome.map(|_| same_place)
    }

    /// Locks ranges of media of which others are locked already, where none of those is touched:
    /// the usual case of a disk with many partitions, which costs no look at the other ones.
    /// Whether that was the case and all of it could be locked; if not, nothing has changed.
    fn take_beside(&mut self, extents: &[Extent], hold: Hold) -> Result<bool, LeaseError> {
        let is_beside = |extent: &Extent| {
            let file = self.files.get(&extent.medium);
            file.is_some_and(|file| !file.may_have_more && file.is_free(extent.first, extent.last))
        };
        if extents.is_empty() || !extents.iter().all(is_beside) {
            return Ok(false);
        }
        for (index, extent) in extents.iter().enumerate() {
            let outcome = self.lock(extent, Some(hold));
            if !matches!(outcome, Ok(true)) {
                for locked in &extents[..index] {
                    self.lock(locked, None)?;
                }
                return outcome;
            }
        }
        Ok(true)
    }

    /// Locks a range of a medium whose file is open, or unlocks it. False when another stands in
    /// the way.
    fn lock(&mut self, extent: &Extent, hold: Option<Hold>) -> Result<bool, LeaseError> {
        let path = self.path_of(&extent.medium);
        let Some(file) = self.files.get_mut(&extent.medium) else {
            return Ok(false);
        };
        let locked =
            lock_range(&file.file, extent.first, extent.last, hold).map_err(|source| LeaseError {
                doing: "locking",
                path,
                source,
            })?;
        if locked {
            file.note(extent.first, extent.last, hold);
        }
        Ok(locked)
    }

    /// Lets go of all but these devices.
    pub fn keep(&mut self, is_kept: impl Fn(&SysPath) -> bool) {
        // Their files go with the next `sweep`.
        self.inherited.clear();
        self.held.retain(|device, _| is_kept(device));
        let media: Vec<SysPath> = self.files.keys().cloned().collect();
        for medium in media {
            let wanted = segments(&self.held, &medium);
            let path = self.path_of(&medium);
            let Some(file) = self.files.get_mut(&medium) else {
                continue;
            };
            if wanted.is_empty() {
                release(&file.file, &path);
                self.files.remove(&medium);
                continue;
            }
            file.give_up_more(&wanted);
            // Locks only become less here, which succeeds.
            let _ = file.settle(&wanted);
        }
    }

    /// Locks what is wanted of these media, and nothing more; whether all of it could be. Where it
    /// could not, nothing that was locked is lost.
    fn settle(&mut self, media: &BTreeSet<SysPath>) -> Result<bool, LeaseError> {
        let mut all = true;
        // First all that is to become more, then what is to become less.
        for becomes_less in [false, true] {
            for medium in media {
                let wanted = segments(&self.held, medium);
                let had = match becomes_less {
                    false => self.extend(medium, &wanted)?,
                    true => self.reduce(medium, &wanted)?,
                };
                all &= had;
                if !all {
                    return Ok(false);
                }
            }
        }
        Ok(all)
    }

    /// Locks more of a medium, until all that is wanted is locked.
    fn extend(&mut self, medium: &SysPath, wanted: &[Segment]) -> Result<bool, LeaseError> {
        if wanted.is_empty() {
            return Ok(true);
        }
        let path = self.path_of(medium);
        loop {
            let mut file = match self.files.remove(medium) {
                Some(file) => file,
                None => self.open(&path)?,
            };
            let outcome = file.extend(wanted);
            // Whoever let go last may have removed the file while we were about to lock it.
            let is_current = !file.locked.is_empty() && is_same_file(&file.file, &path);
            if is_current {
                self.files.insert(medium.clone(), file);
            } else if matches!(outcome, Ok(true)) {
                continue;
            }
            return outcome.map_err(|source| LeaseError {
                doing: "locking",
                path,
                source,
            });
        }
    }

    /// Unlocks what is locked of a medium and not wanted.
    fn reduce(&mut self, medium: &SysPath, wanted: &[Segment]) -> Result<bool, LeaseError> {
        let path = self.path_of(medium);
        let Some(file) = self.files.get_mut(medium) else {
            return Ok(true);
        };
        if wanted.is_empty() && !file.may_have_more {
            release(&file.file, &path);
            self.files.remove(medium);
            return Ok(true);
        }
        file.settle(wanted).map_err(|source| LeaseError {
            doing: "unlocking",
            path,
            source,
        })
    }

    fn path_of(&self, medium: &SysPath) -> PathBuf {
        self.dir.join(name_of(medium))
    }

    /// A medium's file: that of the watcher before, or one that is opened.
    fn open(&mut self, path: &Path) -> Result<LeaseFile, LeaseError> {
        let is_it = |file: &File| is_same_file(file, path);
        if let Some(index) = self.inherited.iter().position(is_it) {
            return Ok(LeaseFile {
                file: self.inherited.swap_remove(index),
                locked: Vec::new(),
                may_have_more: true,
            });
        }
        match flock::open_or_create_in_dir(path) {
            Ok(file) => Ok(LeaseFile {
                file,
                locked: Vec::new(),
                may_have_more: false,
            }),
            Err(source) => Err(LeaseError {
                doing: "opening",
                path: path.to_owned(),
                source,
            }),
        }
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        self.keep(|_| false);
    }
}

/// Removes the leases in this state directory that nobody holds: those of watchers that were
/// killed. Never waits.
pub fn sweep(state_dir: &Path) {
    for entry in fs::read_dir(dir_of(state_dir)).into_iter().flatten().flatten() {
        // A lock for writing needs a file that is open for writing.
        if let Ok(file) = OpenOptions::new().read(true).write(true).open(entry.path()) {
            release(&file, &entry.path());
        }
    }
}

fn dir_of(state_dir: &Path) -> PathBuf {
    state_dir.join("leases")
}

/// The name of a medium's lease: what a person recognises, and what tells it from all others.
fn name_of(device: &SysPath) -> String {
    let text = device.as_str();
    let plain = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b':' => char::from(byte),
        b'/' => '+',
        _ => '_',
    };
    let start = text.len().saturating_sub(TAIL);
    let tail: String = text.bytes().skip(start).map(plain).collect();
    format!(
        "{}-{:016x}{:016x}",
        tail.trim_start_matches(['.', '+']),
        fnv(text, 0),
        fnv(text, 1)
    )
}

#[cfg(test)]
mod tests;
