//! The lease file of one medium, and the ranges of it that are locked (fcntl(2), F_OFD_SETLK).

use std::fs::{self, File};
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::ranges::{Hold, Segment, changes};
use crate::host::state::flock::is_linked;

/// The last byte that can be locked.
const LAST: u64 = i64::MAX as u64 - 1;

/// The lease file of one medium.
#[derive(Debug)]
pub(super) struct LeaseFile {
    pub(super) file: File,
    /// The locked ranges, in order and without overlaps.
    pub(super) locked: Vec<Segment>,
    /// Whether more may be locked than `locked` says: the previous watcher does not report what it
    /// had locked.
    pub(super) may_have_more: bool,
}

impl LeaseFile {
    /// Locks ranges in addition, until all of `wanted` is locked; returns whether that succeeded.
    pub(super) fn extend(&mut self, wanted: &[Segment]) -> io::Result<bool> {
        for (first, last, now, goal) in changes(&self.locked, wanted) {
            let Some(goal) = goal.filter(|_| goal > now) else {
                continue;
            };
            // The previous watcher may have locked more than is requested so far; do not release
            // that in between.
            let best = if self.may_have_more { Hold::Exclusive } else { goal };
            if lock_range(&self.file, first, last, Some(best))? {
                self.note(first, last, Some(best));
            } else if best > goal && lock_range(&self.file, first, last, Some(goal))? {
                self.note(first, last, Some(goal));
            } else {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Locks exactly `wanted`; returns whether that succeeded. Releasing always succeeds.
    pub(super) fn lock_exactly(&mut self, wanted: &[Segment]) -> io::Result<bool> {
        if !self.extend(wanted)? {
            return Ok(false);
        }
        if self.may_have_more {
            return Ok(true);
        }
        for (first, last, now, goal) in changes(&self.locked, wanted) {
            if goal < now {
                lock_range(&self.file, first, last, goal)?;
                self.note(first, last, goal);
            }
        }
        Ok(true)
    }

    /// Releases what the previous watcher had locked outside of `wanted`.
    pub(super) fn release_others(&mut self, wanted: &[Segment]) {
        if !std::mem::take(&mut self.may_have_more) {
            return;
        }
        let mut next = 0;
        for (first, last, _) in wanted {
            if next < *first {
                let _ = lock_range(&self.file, next, first - 1, None);
            }
            next = last + 1;
        }
        let _ = lock_range(&self.file, next, LAST, None);
    }

    /// Whether no byte of this range is locked.
    pub(super) fn is_free(&self, first: u64, last: u64) -> bool {
        let overlaps = |(from, to, _): &Segment| *from <= last && first <= *to;
        !self.locked.iter().any(overlaps)
    }

    pub(super) fn note(&mut self, first: u64, last: u64, hold: Option<Hold>) {
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

/// Locks a range, or releases it (`None`); returns false if another container's lock conflicts.
/// Never waits.
pub(super) fn lock_range(file: &File, first: u64, last: u64, hold: Option<Hold>) -> io::Result<bool> {
    let kind = match hold {
        Some(Hold::Shared) => libc::F_RDLCK,
        Some(Hold::Exclusive) => libc::F_WRLCK,
        None => libc::F_UNLCK,
    };
    let lock = lock_of(kind, first, last)?;
    match fcntl(file, FcntlArg::F_OFD_SETLK(&lock)) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether another container has locked a part of a range.
pub(super) fn is_locked_by_other(file: &File, first: u64, last: u64) -> io::Result<bool> {
    // Nothing but a lock of another open file prevents an exclusive one.
    let mut lock = lock_of(libc::F_WRLCK, first, last)?;
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}

fn lock_of(kind: libc::c_int, first: u64, last: u64) -> io::Result<libc::flock> {
    let offset = |number: u64| libc::off_t::try_from(number).map_err(|_| Errno::EOVERFLOW);
    Ok(libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: offset(first)?,
        l_len: offset(last - first + 1)?,
        l_pid: 0,
    })
}

/// Releases all ranges, for a file that is closed now. The last holder removes the file: only it
/// can lock all of it exclusively.
pub(super) fn release(file: &File, path: &Path) {
    let is_last = matches!(lock_range(file, 0, LAST, Some(Hold::Exclusive)), Ok(true));
    if is_last && is_linked(file) && fs::remove_file(path).is_ok() {
        // The next container creates another file.
        return;
    }
    let _ = lock_range(file, 0, LAST, None);
}
