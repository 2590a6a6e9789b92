//! Leases: which containers hold a device, so that `exclusive` can be enforced.
//!
//! ```text
//! <state-dir>/leases/<tail of the medium's path>-<hash of all of it>
//!                         ranges of bytes locked by the watcher: shared, or exclusive
//! ```
//! The extents of a device (`model::device::same_data`) are locked, so that a disk and any of its
//! partitions exclude each other, even one that is created later, and two partitions do not. The
//! locks belong to open file descriptions (fcntl(2), F_OFD_SETLK): they last as long as a watcher
//! or its successor has the file open, and a crash releases them. Nothing waits here: either all
//! extents of a device are locked or none, and the caller tries again later, so there is no
//! deadlock. Does not know which container may hold what.

mod lease_file;
mod ranges;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use self::lease_file::{LeaseFile, is_locked_by_other, lock_range, release};
pub(crate) use self::ranges::Hold;
use self::ranges::{Held, Lease, Segment, segments};
use crate::host::regular_file;
use crate::host::state::flock::{self, is_linked, is_same_file};
use crate::model::device::SysPath;
use crate::model::device::same_data::{Extent, fnv};

/// How many bytes of the medium's path the name of its lease file shows.
const TAIL: usize = 64;

/// A lease file could not be opened or locked.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} the lease {path}: {source} (the state directory must be writable for root)", path = path.display())]
pub struct LeaseError {
    /// What cannot be done, as a verb.
    pub action: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

/// The leases that one container holds.
#[derive(Debug)]
pub(crate) struct Leases {
    dir: PathBuf,
    held: Held,
    files: BTreeMap<SysPath, LeaseFile>,
    /// Files of the previous watcher that [`Leases::take`] has not used yet.
    inherited: Vec<File>,
}

impl Leases {
    /// The leases of a container that holds none yet.
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self {
            dir: dir_of(state_dir),
            held: BTreeMap::new(),
            files: BTreeMap::new(),
            inherited: Vec::new(),
        }
    }

    /// The leases of the previous watcher, which has handed over these files. They stay locked
    /// until the new watcher knows which devices it needs: the first [`Leases::keep`] releases what
    /// [`Leases::take`] has not taken.
    pub(crate) fn inherit(state_dir: &Path, files: Vec<File>) -> Self {
        let mut leases = Self::new(state_dir);
        leases.inherited = files;
        leases
    }

    /// The locked files, for the next watcher.
    pub(crate) fn files(&self) -> impl Iterator<Item = &File> {
        self.files.values().map(|file| &file.file)
    }

    /// Leaves the locks to the next watcher, which has the files.
    pub(crate) fn forget(&mut self) {
        self.held.clear();
        self.files.clear();
    }

    /// How the device is held.
    pub(crate) fn held(&self, device: &SysPath) -> Option<Hold> {
        self.held.get(device).map(|lease| lease.hold)
    }

    /// Whether another container holds a part of the device, too. Where that is unknown, it counts
    /// as shared.
    pub(crate) fn is_shared(&self, device: &SysPath) -> bool {
        let is_free = |extent: &Extent| {
            let file = self.files.get(&extent.medium);
            file.is_some_and(|file| {
                matches!(
                    is_locked_by_other(&file.file, extent.first, extent.last),
                    Ok(false)
                )
            })
        };
        !self
            .held
            .get(device)
            .is_some_and(|lease| lease.extents.iter().all(is_free))
    }

    /// Holds the device with these extents at least as `hold` says, unless another container's hold
    /// conflicts. Returns how it is held afterwards: that may be less than `hold`, and it is `None`
    /// if another container holds a part of it exclusively. An exclusive hold stays exclusive until
    /// it is released.
    ///
    /// # Errors
    /// When a file cannot be created or locked.
    pub(crate) fn take(
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
        let outcome = self.lock_exactly(&media);
        if let Ok(true) = outcome {
            return Ok(self.held(device));
        }
        // What was locked before is still locked: nothing is released until everything new is
        // locked.
        match before {
            Some(before) => self.held.insert(device.clone(), before),
            None => self.held.remove(device),
        };
        self.lock_exactly(&media)?;
        outcome.map(|_| same_place)
    }

    /// The fast path for ranges that overlap none that this container has locked: the usual case
    /// for a disk with many partitions, of which the others need not be considered. Returns whether
    /// this is the case and everything could be locked; if not, nothing has changed.
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

    /// Locks or releases a range of a medium whose file is open. Returns false if another
    /// container's lock conflicts.
    fn lock(&mut self, extent: &Extent, hold: Option<Hold>) -> Result<bool, LeaseError> {
        let path = self.path_of(&extent.medium);
        let Some(file) = self.files.get_mut(&extent.medium) else {
            return Ok(false);
        };
        let locked =
            lock_range(&file.file, extent.first, extent.last, hold).map_err(|source| LeaseError {
                action: "lock",
                path,
                source,
            })?;
        if locked {
            file.note(extent.first, extent.last, hold);
        }
        Ok(locked)
    }

    /// Releases all devices but those for which `is_kept` returns true.
    pub(crate) fn keep(&mut self, is_kept: impl Fn(&SysPath) -> bool) {
        // Their files are removed by the next `sweep`.
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
            file.release_others(&wanted);
            // This only releases, which succeeds.
            let _ = file.lock_exactly(&wanted);
        }
    }

    /// Locks exactly what is wanted of these media; returns whether that succeeded. If not, nothing
    /// that was locked is released.
    fn lock_exactly(&mut self, media: &BTreeSet<SysPath>) -> Result<bool, LeaseError> {
        let mut all = true;
        // First lock everything that is new, then release what is no longer wanted.
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
            // The last holder may have removed the file just before it was locked here.
            let is_current = !file.locked.is_empty() && is_linked(&file.file);
            if is_current {
                self.files.insert(medium.clone(), file);
            } else if matches!(outcome, Ok(true)) {
                continue;
            }
            return outcome.map_err(|source| LeaseError {
                action: "lock",
                path,
                source,
            });
        }
    }

    /// Releases what is locked of a medium and not wanted.
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
        file.lock_exactly(wanted).map_err(|source| LeaseError {
            action: "unlock",
            path,
            source,
        })
    }

    fn path_of(&self, medium: &SysPath) -> PathBuf {
        self.dir.join(name_of(medium))
    }

    /// A medium's file: the one of the previous watcher if there is one, else it is opened.
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
                action: "open",
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

/// Removes the lease files without a holder: those of watchers that were killed. Never waits.
pub(crate) fn sweep(state_dir: &Path) {
    for entry in fs::read_dir(dir_of(state_dir)).into_iter().flatten().flatten() {
        // A write lock needs a descriptor that is open for writing.
        let path = entry.path();
        if let Ok(file) = regular_file::open(&path, OpenOptions::new().read(true).write(true)) {
            release(&file, &path);
        }
    }
}

fn dir_of(state_dir: &Path) -> PathBuf {
    state_dir.join("leases")
}

/// The file name of a medium's lease: a tail that people recognise, and a hash that makes it
/// unique.
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
