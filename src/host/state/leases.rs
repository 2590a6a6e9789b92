//! Leases: which containers have a device, so that `exclusive` can be kept.
//!
//! ```text
//! <state-dir>/leases/<tail of the medium's path>-<hash of all of it>    ranges of bytes locked by the watcher: shared, or exclusive
//! ```
//! What is locked are the extents of a device (`model::device::same_data`), so that a disk and one of its partitions keep each other
//! out, also one that comes later, and two partitions do not. The locks are those of open file descriptions (fcntl(2),
//! F_OFD_SETLK): they last as long as a watcher or its successor has the file, and a crash frees them. Nobody waits here: a
//! device's extents are all had or none is, and asked for again, so that there is no deadlock. Must not know who may have
//! what.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::host::state::flock::{self, is_same_file};
use crate::model::device::SysPath;
use crate::model::device::same_data::{Extent, fnv};

/// How much of the medium's path the name of its lease shows, in bytes.
const TAIL: usize = 64;

/// How a container wants a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hold {
    /// Beside others.
    Shared,
    /// Alone.
    Exclusive,
}

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

/// How a device is held, and where its bytes lie.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lease {
    extents: Vec<Extent>,
    hold: Hold,
}

/// The devices of one container, by their places in sysfs.
type Held = BTreeMap<SysPath, Lease>;

/// The first and the last byte of a range, and how it is locked.
type Segment = (u64, u64, Hold);

/// The leases that one container holds.
#[derive(Debug)]
pub struct Leases {
    dir: PathBuf,
    held: Held,
    files: BTreeMap<SysPath, LeaseFile>,
    /// Those of the watcher before that were not asked for yet.
    inherited: Vec<File>,
}

/// The file of one medium.
#[derive(Debug)]
struct LeaseFile {
    file: File,
    /// What is locked, in order and without overlaps.
    locked: Vec<Segment>,
    /// Whether there may be more: the watcher before did not say what it had locked.
    may_have_more: bool,
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

    /// The leases of the watcher before, which has handed over these files. They are held as they were, until it is
    /// known what is wanted: what [`Leases::take`] does not ask for goes with the first [`Leases::keep`].
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

    /// Holds a device, whose bytes lie there, in this way at least, if nobody stands in the way. What is held afterwards:
    /// it may be less than was asked for, and is nothing when another has some of it alone. What is held exclusively stays
    /// so until it is let go.
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

    /// Locks ranges of media of which others are locked already, where none of those is touched: the usual case of a disk
    /// with many partitions, which costs no look at the other ones. Whether that was the case and all of it could be locked;
    /// if not, nothing has changed.
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

    /// Locks a range of a medium whose file is open, or unlocks it. False when another stands in the way.
    fn lock(&mut self, extent: &Extent, hold: Option<Hold>) -> Result<bool, LeaseError> {
        let path = self.path_of(&extent.medium);
        let Some(file) = self.files.get_mut(&extent.medium) else {
            return Ok(false);
        };
        let locked = set(&file.file, extent.first, extent.last, hold).map_err(|source| LeaseError {
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
                let_go(&file.file, &path);
                self.files.remove(&medium);
                continue;
            }
            file.give_up_more(&wanted);
            // Locks only become less here, which succeeds.
            let _ = file.settle(&wanted);
        }
    }

    /// Locks what is wanted of these media, and nothing more; whether all of it could be. Where it could not, nothing that
    /// was locked is lost.
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
            let_go(&file.file, &path);
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

impl LeaseFile {
    /// Locks more, until all of this is locked; whether it could be.
    fn extend(&mut self, wanted: &[Segment]) -> io::Result<bool> {
        for (first, last, now, goal) in changes(&self.locked, wanted) {
            let Some(goal) = goal.filter(|_| goal > now) else {
                continue;
            };
            // Of the watcher before, more may be locked than is asked for so far: that is not to be lost in between.
            let best = if self.may_have_more { Hold::Exclusive } else { goal };
            if set(&self.file, first, last, Some(best))? {
                self.note(first, last, Some(best));
            } else if best > goal && set(&self.file, first, last, Some(goal))? {
                self.note(first, last, Some(goal));
            } else {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Locks exactly this; whether it could be. What is to become less always can.
    fn settle(&mut self, wanted: &[Segment]) -> io::Result<bool> {
        if !self.extend(wanted)? {
            return Ok(false);
        }
        if self.may_have_more {
            return Ok(true);
        }
        for (first, last, now, goal) in changes(&self.locked, wanted) {
            if goal < now {
                set(&self.file, first, last, goal)?;
                self.note(first, last, goal);
            }
        }
        Ok(true)
    }

    /// Unlocks what the watcher before had locked beside this.
    fn give_up_more(&mut self, wanted: &[Segment]) {
        if !std::mem::take(&mut self.may_have_more) {
            return;
        }
        let mut next = 0;
        for (first, last, _) in wanted {
            if next < *first {
                let _ = set(&self.file, next, first - 1, None);
            }
            next = last + 1;
        }
        let _ = set(&self.file, next, LAST, None);
    }

    /// Whether nothing is locked of this range.
    fn is_free(&self, first: u64, last: u64) -> bool {
        let overlaps = |(from, to, _): &Segment| *from <= last && first <= *to;
        !self.locked.iter().any(overlaps)
    }

    fn note(&mut self, first: u64, last: u64, hold: Option<Hold>) {
        let mut locked = Vec::new();
        for (from, to, held) in self.locked.drain(..) {
            if from < first {
                locked.push((from, to.min(first - 1), held));
            }
            if to > last {
                locked.push((from.max(last + 1), to, held));
            }
        }
        locked.extend(hold.map(|hold| (first, last, hold)));
        locked.sort_by_key(|(first, ..)| *first);
        self.locked = locked;
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        self.keep(|_| false);
    }
}

/// The last byte that can be locked.
const LAST: u64 = i64::MAX as u64 - 1;

/// What is to be locked of a medium for these devices: each byte as the device that wants it most, in order.
fn segments(held: &Held, medium: &SysPath) -> Vec<Segment> {
    // Where a claim begins and where it has ended. A medium has many parts, and each plan asks: one pass over them.
    let mut ends: Vec<(u64, Hold, bool)> = Vec::new();
    for lease in held.values() {
        for extent in lease.extents.iter().filter(|extent| extent.medium == *medium) {
            ends.push((extent.first, lease.hold, true));
            ends.push((extent.last + 1, lease.hold, false));
        }
    }
    ends.sort_unstable();
    let (mut shared, mut exclusive) = (0_usize, 0_usize);
    let mut wanted: Vec<Segment> = Vec::new();
    for (index, (at, hold, begins)) in ends.iter().enumerate() {
        let count = match hold {
            Hold::Shared => &mut shared,
            Hold::Exclusive => &mut exclusive,
        };
        *count = if *begins {
            *count + 1
        } else {
            count.wrapping_sub(1)
        };
        let Some((next, ..)) = ends.get(index + 1).filter(|(next, ..)| next > at) else {
            continue;
        };
        let hold = match (shared, exclusive) {
            (0, 0) => continue,
            (_, 0) => Hold::Shared,
            _ => Hold::Exclusive,
        };
        match wanted.last_mut() {
            Some((_, end, before)) if *before == hold && *end + 1 == *at => *end = next - 1,
            _ => wanted.push((*at, next - 1, hold)),
        }
    }
    wanted
}

/// The ranges within which neither of the two changes, with how each has them. Both are in order and without overlaps.
fn changes(now: &[Segment], goal: &[Segment]) -> Vec<(u64, u64, Option<Hold>, Option<Hold>)> {
    let mut ends: Vec<u64> = now
        .iter()
        .chain(goal)
        .flat_map(|(first, last, _)| [*first, last + 1])
        .collect();
    ends.sort_unstable();
    ends.dedup();
    let (mut now, mut goal) = (now.iter().peekable(), goal.iter().peekable());
    let mut changes = Vec::with_capacity(ends.len());
    for range in ends.windows(2) {
        let (first, last) = (range[0], range[1] - 1);
        let hold_in = |segments: &mut std::iter::Peekable<std::slice::Iter<'_, Segment>>| {
            while segments.next_if(|(_, end, _)| *end < first).is_some() {}
            let here = segments.peek().filter(|(begin, ..)| *begin <= first);
            here.map(|(_, _, hold)| *hold)
        };
        changes.push((first, last, hold_in(&mut now), hold_in(&mut goal)));
    }
    changes
}

/// Locks a range in this way, or unlocks it; false when another stands in the way. Never waits.
fn set(file: &File, first: u64, last: u64, hold: Option<Hold>) -> io::Result<bool> {
    let kind = match hold {
        Some(Hold::Shared) => libc::F_RDLCK,
        Some(Hold::Exclusive) => libc::F_WRLCK,
        None => libc::F_UNLCK,
    };
    let offset = |number: u64| libc::off_t::try_from(number).map_err(|_| Errno::EOVERFLOW);
    let lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: offset(first)?,
        l_len: offset(last - first + 1)?,
        l_pid: 0,
    };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&lock)) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Removes the leases in this state directory that nobody holds: those of watchers that were killed. Never waits.
pub fn sweep(state_dir: &Path) {
    for entry in fs::read_dir(dir_of(state_dir)).into_iter().flatten().flatten() {
        // A lock for writing needs a file that is open for writing.
        if let Ok(file) = OpenOptions::new().read(true).write(true).open(entry.path()) {
            let_go(&file, &entry.path());
        }
    }
}

/// Whoever held it last removes the file: only it gets all of it exclusively. What is locked here is free afterwards.
fn let_go(file: &File, path: &Path) {
    if matches!(set(file, 0, LAST, Some(Hold::Exclusive)), Ok(true)) && is_same_file(file, path) {
        let _ = fs::remove_file(path);
    }
    let _ = set(file, 0, LAST, None);
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn device(name: &str) -> SysPath {
        SysPath::new(format!("/sys/devices/{name}"))
    }

    impl Leases {
        /// Takes a device that has nothing in common with any other.
        fn get(&mut self, device: &SysPath, hold: Hold) -> Result<Option<Hold>, LeaseError> {
            self.take(device, &[Extent::whole(device.clone())], hold)
        }
    }

    fn files_of(dir: &Path) -> usize {
        fs::read_dir(dir.join("leases")).map_or(0, Iterator::count)
    }

    #[test]
    fn one_has_it_alone_or_many_have_it_together() {
        let dir = tempfile::tempdir().unwrap();
        let [mut one, mut other] = [(), ()].map(|()| Leases::new(dir.path()));
        let tty = device("tty");
        assert_eq!(one.get(&tty, Hold::Exclusive).unwrap(), Some(Hold::Exclusive));
        assert_eq!(other.get(&tty, Hold::Shared).unwrap(), None);
        assert_eq!(other.get(&tty, Hold::Exclusive).unwrap(), None);
        assert_eq!(
            other.get(&device("tty2"), Hold::Exclusive).unwrap(),
            Some(Hold::Exclusive)
        );
        one.keep(|_| false);
        assert_eq!(other.get(&tty, Hold::Shared).unwrap(), Some(Hold::Shared));
        assert_eq!(one.get(&tty, Hold::Shared).unwrap(), Some(Hold::Shared));
        assert_eq!(
            one.get(&tty, Hold::Exclusive).unwrap(),
            Some(Hold::Shared),
            "it keeps what it had"
        );
        assert_eq!(one.held(&tty), Some(Hold::Shared));
        other.keep(|_| false);
        assert_eq!(one.get(&tty, Hold::Exclusive).unwrap(), Some(Hold::Exclusive));
        assert_eq!(one.get(&tty, Hold::Shared).unwrap(), Some(Hold::Exclusive));
    }

    #[test]
    fn nothing_is_left_when_all_have_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let [mut one, mut other] = [(), ()].map(|()| Leases::new(dir.path()));
        for leases in [&mut one, &mut other] {
            leases.get(&device("a"), Hold::Shared).unwrap();
        }
        one.get(&device("b"), Hold::Exclusive).unwrap();
        assert_eq!(files_of(dir.path()), 2);
        drop(one);
        assert_eq!(files_of(dir.path()), 1);
        drop(other);
        assert_eq!(files_of(dir.path()), 0);
    }

    #[test]
    fn what_is_handed_over_is_never_free() {
        let dir = tempfile::tempdir().unwrap();
        let [mut first, mut other] = [(), ()].map(|()| Leases::new(dir.path()));
        first.get(&device("a"), Hold::Exclusive).unwrap();
        first.get(&device("b"), Hold::Shared).unwrap();
        let files = first.files().map(|file| file.try_clone().unwrap()).collect();
        let mut second = Leases::inherit(dir.path(), files);
        first.forget();
        drop(first);
        assert_eq!(files_of(dir.path()), 2);
        assert_eq!(other.get(&device("a"), Hold::Shared).unwrap(), None);
        assert_eq!(other.get(&device("b"), Hold::Exclusive).unwrap(), None);
        assert_eq!(
            second.get(&device("a"), Hold::Exclusive).unwrap(),
            Some(Hold::Exclusive)
        );
        // What is not wanted any more is free, and what is stays.
        second.keep(|_| true);
        assert_eq!(other.get(&device("a"), Hold::Shared).unwrap(), None);
        assert_eq!(
            other.get(&device("b"), Hold::Exclusive).unwrap(),
            Some(Hold::Exclusive)
        );
        drop(second);
        drop(other);
        assert_eq!(files_of(dir.path()), 0);
    }

    #[test]
    fn a_crash_frees_it_and_its_file_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let mut dead = Leases::new(dir.path());
        dead.get(&device("a"), Hold::Exclusive).unwrap();
        sweep(dir.path());
        assert_eq!(files_of(dir.path()), 1, "what is held stays");
        // As the kernel does it when a process dies: the descriptor goes, the file stays.
        dead.forget();
        assert_eq!(files_of(dir.path()), 1);
        let mut next = Leases::new(dir.path());
        assert_eq!(
            next.get(&device("a"), Hold::Exclusive).unwrap(),
            Some(Hold::Exclusive)
        );
        next.forget();
        sweep(dir.path());
        assert_eq!(files_of(dir.path()), 0);
    }

    fn whole(name: &str) -> Extent {
        Extent::whole(device(name))
    }

    fn part(name: &str, part: &str) -> Extent {
        whole(name).part(part)
    }

    /// Case security 8.
    #[test]
    fn a_whole_and_its_part_keep_each_other_out_and_two_parts_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let [mut one, mut other] = [(), ()].map(|()| Leases::new(dir.path()));
        let (disk, first, second) = (device("sda"), device("sda1"), device("sda2"));
        let (of_disk, of_first, of_second) = (whole("sda"), part("sda", "sda1"), part("sda", "sda2"));
        let get = |leases: &mut Leases, device: &SysPath, extent: &Extent, hold| {
            leases.take(device, std::slice::from_ref(extent), hold).unwrap()
        };
        assert_eq!(
            get(&mut one, &first, &of_first, Hold::Exclusive),
            Some(Hold::Exclusive)
        );
        assert_eq!(get(&mut other, &disk, &of_disk, Hold::Shared), None);
        assert_eq!(get(&mut other, &disk, &of_disk, Hold::Exclusive), None);
        assert_eq!(
            get(&mut other, &second, &of_second, Hold::Exclusive),
            Some(Hold::Exclusive)
        );
        assert_eq!(
            get(&mut one, &disk, &of_disk, Hold::Shared),
            None,
            "the other part is taken"
        );
        assert_eq!(
            one.held(&first),
            Some(Hold::Exclusive),
            "what it had it has still"
        );
        other.keep(|_| false);
        assert_eq!(get(&mut one, &disk, &of_disk, Hold::Shared), Some(Hold::Shared));
        // A part that comes later is in the whole.
        let later = part("sda", "sda3");
        assert_eq!(get(&mut other, &device("sda3"), &later, Hold::Exclusive), None);
        assert_eq!(
            get(&mut other, &device("sda3"), &later, Hold::Shared),
            Some(Hold::Shared)
        );
        assert_eq!(
            get(&mut other, &first, &of_first, Hold::Shared),
            None,
            "the part is still exclusive"
        );
        // Giving the whole up does not give up its part, and the other way round.
        one.keep(|kept| *kept == first);
        assert_eq!(get(&mut other, &first, &of_first, Hold::Shared), None);
        assert_eq!(
            get(&mut other, &second, &of_second, Hold::Exclusive),
            Some(Hold::Exclusive)
        );
        drop(one);
        assert_eq!(
            get(&mut other, &first, &of_first, Hold::Shared),
            Some(Hold::Shared)
        );
        drop(other);
        assert_eq!(files_of(dir.path()), 0);
    }

    /// Case security 8.
    #[test]
    fn a_device_on_several_media_is_had_with_all_of_them_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let [mut one, mut other] = [(), ()].map(|()| Leases::new(dir.path()));
        let mirror = [whole("md0"), part("sda", "md0"), part("sdb", "md0")];
        other
            .take(&device("sdb"), &[whole("sdb")], Hold::Exclusive)
            .unwrap();
        assert_eq!(one.take(&device("md0"), &mirror, Hold::Shared).unwrap(), None);
        // Nothing is left of the attempt.
        assert_eq!(
            other
                .take(&device("sda"), &[whole("sda")], Hold::Exclusive)
                .unwrap(),
            Some(Hold::Exclusive)
        );
        other.keep(|_| false);
        assert_eq!(
            one.take(&device("md0"), &mirror, Hold::Exclusive).unwrap(),
            Some(Hold::Exclusive)
        );
        assert_eq!(
            other.take(&device("sda"), &[whole("sda")], Hold::Shared).unwrap(),
            None
        );
        // A device that comes to lie elsewhere is held there, and no more where it lay.
        assert_eq!(
            one.take(&device("md0"), &mirror[..2], Hold::Shared).unwrap(),
            Some(Hold::Exclusive)
        );
        assert_eq!(
            other
                .take(&device("sdb"), &[whole("sdb")], Hold::Exclusive)
                .unwrap(),
            Some(Hold::Exclusive)
        );
        assert_eq!(
            one.take(&device("md0"), &mirror, Hold::Shared).unwrap(),
            None,
            "and is not had where it can't be"
        );
        drop(one);
        drop(other);
        assert_eq!(files_of(dir.path()), 0);
    }

    /// Case security 8: the successor holds the same ranges.
    #[test]
    fn a_whole_and_a_part_that_are_handed_over_are_never_free() {
        let dir = tempfile::tempdir().unwrap();
        let [mut first, mut other] = [(), ()].map(|()| Leases::new(dir.path()));
        first
            .take(&device("sda1"), &[part("sda", "sda1")], Hold::Exclusive)
            .unwrap();
        first.take(&device("sda"), &[whole("sda")], Hold::Shared).unwrap();
        first
            .take(&device("sdb"), &[whole("sdb")], Hold::Exclusive)
            .unwrap();
        let files = first.files().map(|file| file.try_clone().unwrap()).collect();
        let mut second = Leases::inherit(dir.path(), files);
        first.forget();
        drop(first);
        let is_kept_out = |other: &mut Leases| {
            assert_eq!(
                other
                    .take(&device("sda1"), &[part("sda", "sda1")], Hold::Shared)
                    .unwrap(),
                None
            );
            assert_eq!(
                other
                    .take(&device("sda"), &[whole("sda")], Hold::Exclusive)
                    .unwrap(),
                None
            );
        };
        is_kept_out(&mut other);
        assert_eq!(
            other.take(&device("sdb"), &[whole("sdb")], Hold::Shared).unwrap(),
            None
        );
        second
            .take(&device("sda"), &[whole("sda")], Hold::Shared)
            .unwrap();
        is_kept_out(&mut other);
        second
            .take(&device("sda1"), &[part("sda", "sda1")], Hold::Exclusive)
            .unwrap();
        is_kept_out(&mut other);
        second.keep(|_| true);
        is_kept_out(&mut other);
        // What the successor does not ask for, and what was more than it asks for, is free.
        assert_eq!(
            other
                .take(&device("sda2"), &[part("sda", "sda2")], Hold::Shared)
                .unwrap(),
            Some(Hold::Shared)
        );
        assert_eq!(
            other
                .take(&device("sdb"), &[whole("sdb")], Hold::Exclusive)
                .unwrap(),
            Some(Hold::Exclusive)
        );
        drop(second);
        drop(other);
        sweep(dir.path());
        assert_eq!(files_of(dir.path()), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever three containers take and let go: no byte is one's alone and another's, and in the end nothing is left.
        #[test]
        fn nobody_has_what_another_has_alone(steps in prop::collection::vec((0..3usize, 0..6usize, any::<bool>(), 0..4u8), 1..40)) {
            let dir = tempfile::tempdir().unwrap();
            let mut all = [(), (), ()].map(|()| Leases::new(dir.path()));
            let devices: [(&str, Vec<Extent>); 6] = [
                ("sda", vec![whole("sda")]),
                ("sda1", vec![part("sda", "sda1")]),
                ("sda2", vec![part("sda", "sda2")]),
                ("dm-0", vec![part("sda", "sda1").part("dm-0"), part("sdb", "dm-0")]),
                ("sdb", vec![whole("sdb")]),
                ("loop0", vec![part("sda", "sda2"), whole("loop0")]),
            ];
            for (whose, which, alone, what) in steps {
                let (name, extents) = &devices[which];
                let hold = if alone { Hold::Exclusive } else { Hold::Shared };
                if what == 0 {
                    all[whose].keep(|kept| *kept != device(name));
                } else {
                    let had = all[whose].take(&device(name), extents, hold).unwrap();
                    prop_assert_eq!(had, all[whose].held(&device(name)));
                    // It is kept out only by another.
                    let stands_in_the_way = |other: &Leases| other.held.values().any(|lease| {
                        (lease.hold == Hold::Exclusive || alone)
                            && lease.extents.iter().any(|one| extents.iter().any(|other| one.overlaps(other)))
                    });
                    let is_free = (0..3).filter(|other| *other != whose).all(|other| !stands_in_the_way(&all[other]));
                    prop_assert_eq!(had.is_some_and(|had| had >= hold), is_free || had == Some(Hold::Exclusive));
                }
                for (index, one) in all.iter().enumerate() {
                    for lease in one.held.values().filter(|lease| lease.hold == Hold::Exclusive) {
                        let others = all.iter().enumerate().filter(|(other, _)| *other != index);
                        let mut others = others.flat_map(|(_, other)| other.held.values());
                        let is_shared = others.any(|other| {
                            lease.extents.iter().any(|one| other.extents.iter().any(|other| one.overlaps(other)))
                        });
                        prop_assert!(!is_shared);
                    }
                }
            }
            drop(all);
            prop_assert_eq!(files_of(dir.path()), 0);
        }
    }

    proptest! {
        #[test]
        fn a_name_is_one_plain_component(path in "/sys/devices/.{1,300}") {
            let name = name_of(&SysPath::new(path));
            prop_assert!(name.len() <= 255 && !name.contains('/') && !name.starts_with('.') && name.is_ascii());
        }

        #[test]
        fn two_devices_have_two_names(one in "[a-z/]{1,20}", other in "[a-z/+]{1,20}") {
            prop_assume!(device(&one) != device(&other));
            prop_assert_ne!(name_of(&device(&one)), name_of(&device(&other)));
        }
    }
}
