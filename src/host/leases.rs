//! Leases: which containers have a device, so that `exclusive` can be kept.
//!
//! ```text
//! <state-dir>/leases/<tail of the syspath>-<hash of all of it>    flock held by the watcher: shared, or exclusive
//! ```
//! A lock lasts as long as its watcher: a crash frees it. Nobody waits here: a lease is had or not, and asked for again.
//! Must not know who may have what.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use fs2::FileExt;

use crate::model::device::SysPath;

/// How much of the device's path the name of its lease shows, in bytes.
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

/// The leases that one container holds.
#[derive(Debug)]
pub struct Leases {
    dir: PathBuf,
    held: BTreeMap<SysPath, (File, Hold)>,
    /// Those of the watcher before that were not asked for yet.
    inherited: Vec<File>,
}

impl Leases {
    /// No lease yet, of those in this state directory.
    pub fn new(state_dir: &Path) -> Self {
        Self {
            dir: dir_of(state_dir),
            held: BTreeMap::new(),
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
        self.held.values().map(|(file, _)| file)
    }

    /// They are another's now, who has the files: they stay as they are.
    pub fn forget(&mut self) {
        self.held.clear();
    }

    /// How the device is held.
    pub fn held(&self, device: &SysPath) -> Option<Hold> {
        self.held.get(device).map(|(_, hold)| *hold)
    }

    /// Holds a device in this way at least, if nobody stands in the way. What is held afterwards: it may be less
    /// than was asked for, and is nothing when another has it alone. What is held exclusively stays so until it is
    /// let go.
    ///
    /// # Errors
    /// When the file can't be made or locked.
    pub fn take(&mut self, device: &SysPath, hold: Hold) -> Result<Option<Hold>, LeaseError> {
        if let Some(held) = self.held(device).filter(|held| *held >= hold) {
            return Ok(Some(held));
        }
        let file = match self.held.remove(device) {
            Some((file, before)) => {
                if self.lock(device, &file, hold)? {
                    self.held.insert(device.clone(), (file, hold));
                    return Ok(Some(hold));
                }
                // flock(2): a conversion that fails has lost the lock that was there.
                if !self.lock(device, &file, before)? {
                    return Ok(None);
                }
                self.held.insert(device.clone(), (file, before));
                return Ok(Some(before));
            }
            None => match self.take_inherited(device) {
                Some(file) if self.lock(device, &file, hold)? => Some(file),
                _ => self.open(device, hold)?,
            },
        };
        let Some(file) = file else { return Ok(None) };
        self.held.insert(device.clone(), (file, hold));
        Ok(Some(hold))
    }

    fn take_inherited(&mut self, device: &SysPath) -> Option<File> {
        let path = self.dir.join(name_of(device));
        let is_it = |file: &File| is_same_file(file, &path);
        let index = self.inherited.iter().position(is_it)?;
        Some(self.inherited.swap_remove(index))
    }

    /// Lets go of all but these devices.
    pub fn keep(&mut self, is_kept: impl Fn(&SysPath) -> bool) {
        // Their files go with the next `sweep`.
        self.inherited.clear();
        let dir = &self.dir;
        self.held.retain(|device, (file, _)| {
            let kept = is_kept(device);
            if !kept {
                let_go(file, &dir.join(name_of(device)));
            }
            kept
        });
    }

    /// The file, locked; `None` when another stands in the way.
    fn open(&self, device: &SysPath, hold: Hold) -> Result<Option<File>, LeaseError> {
        let path = self.dir.join(name_of(device));
        let failed = |doing, source| LeaseError {
            doing,
            path: path.clone(),
            source,
        };
        loop {
            let opened = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path);
            let file = match opened {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    DirBuilder::new()
                        .recursive(true)
                        .mode(0o700)
                        .create(&self.dir)
                        .map_err(|source| failed("making", source))?;
                    continue;
                }
                Err(source) => return Err(failed("opening", source)),
            };
            if !self.lock(device, &file, hold)? {
                return Ok(None);
            }
            // Whoever let go last may have removed the file while we were about to lock it.
            if is_same_file(&file, &path) {
                return Ok(Some(file));
            }
        }
    }

    fn lock(&self, device: &SysPath, file: &File, hold: Hold) -> Result<bool, LeaseError> {
        let outcome = match hold {
            Hold::Shared => FileExt::try_lock_shared(file),
            Hold::Exclusive => FileExt::try_lock_exclusive(file),
        };
        match outcome {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == fs2::lock_contended_error().raw_os_error() => Ok(false),
            Err(source) => Err(LeaseError {
                doing: "locking",
                path: self.dir.join(name_of(device)),
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

/// Removes the leases in this state directory that nobody holds: those of watchers that were killed. Never waits.
pub fn sweep(state_dir: &Path) {
    for entry in fs::read_dir(dir_of(state_dir)).into_iter().flatten().flatten() {
        if let Ok(file) = File::open(entry.path()) {
            let_go(&file, &entry.path());
        }
    }
}

/// Who held it last removes the file: only he gets it exclusively.
fn let_go(file: &File, path: &Path) {
    if FileExt::try_lock_exclusive(file).is_ok() && is_same_file(file, path) {
        let _ = fs::remove_file(path);
    }
}

fn dir_of(state_dir: &Path) -> PathBuf {
    state_dir.join("leases")
}

fn is_same_file(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

/// The name of a device's lease: what a person recognises, and what tells it from all others.
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

/// FNV-1a, 64 bits: the same on every build, which the standard library's hasher does not promise. Two of them, with
/// different beginnings. Names of devices are the kernel's: nobody chooses them to collide.
fn fnv(text: &str, seed: u8) -> u64 {
    [seed]
        .iter()
        .chain(text.as_bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn device(name: &str) -> SysPath {
        SysPath::new(format!("/sys/devices/{name}"))
    }

    fn files_of(dir: &Path) -> usize {
        fs::read_dir(dir.join("leases")).map_or(0, Iterator::count)
    }

    #[test]
    fn one_has_it_alone_or_many_have_it_together() {
        let dir = tempfile::tempdir().unwrap();
        let [mut one, mut other] = [(), ()].map(|()| Leases::new(dir.path()));
        let tty = device("tty");
        assert_eq!(one.take(&tty, Hold::Exclusive).unwrap(), Some(Hold::Exclusive));
        assert_eq!(other.take(&tty, Hold::Shared).unwrap(), None);
        assert_eq!(other.take(&tty, Hold::Exclusive).unwrap(), None);
        assert_eq!(
            other.take(&device("tty2"), Hold::Exclusive).unwrap(),
            Some(Hold::Exclusive)
        );
        one.keep(|_| false);
        assert_eq!(other.take(&tty, Hold::Shared).unwrap(), Some(Hold::Shared));
        assert_eq!(one.take(&tty, Hold::Shared).unwrap(), Some(Hold::Shared));
        assert_eq!(
            one.take(&tty, Hold::Exclusive).unwrap(),
            Some(Hold::Shared),
            "it keeps what it had"
        );
        assert_eq!(one.held(&tty), Some(Hold::Shared));
        other.keep(|_| false);
        assert_eq!(one.take(&tty, Hold::Exclusive).unwrap(), Some(Hold::Exclusive));
        assert_eq!(one.take(&tty, Hold::Shared).unwrap(), Some(Hold::Exclusive));
    }

    #[test]
    fn nothing_is_left_when_all_have_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let [mut one, mut other] = [(), ()].map(|()| Leases::new(dir.path()));
        for leases in [&mut one, &mut other] {
            leases.take(&device("a"), Hold::Shared).unwrap();
        }
        one.take(&device("b"), Hold::Exclusive).unwrap();
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
        first.take(&device("a"), Hold::Exclusive).unwrap();
        first.take(&device("b"), Hold::Shared).unwrap();
        let files = first.files().map(|file| file.try_clone().unwrap()).collect();
        let mut second = Leases::inherit(dir.path(), files);
        first.forget();
        drop(first);
        assert_eq!(files_of(dir.path()), 2);
        assert_eq!(other.take(&device("a"), Hold::Shared).unwrap(), None);
        assert_eq!(other.take(&device("b"), Hold::Exclusive).unwrap(), None);
        assert_eq!(
            second.take(&device("a"), Hold::Exclusive).unwrap(),
            Some(Hold::Exclusive)
        );
        // What is not wanted any more is free, and what is stays.
        second.keep(|_| true);
        assert_eq!(other.take(&device("a"), Hold::Shared).unwrap(), None);
        assert_eq!(
            other.take(&device("b"), Hold::Exclusive).unwrap(),
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
        dead.take(&device("a"), Hold::Exclusive).unwrap();
        sweep(dir.path());
        assert_eq!(files_of(dir.path()), 1, "what is held stays");
        // As the kernel does it when a process dies: the descriptor goes, the file stays.
        dead.held.clear();
        assert_eq!(files_of(dir.path()), 1);
        let mut next = Leases::new(dir.path());
        assert_eq!(
            next.take(&device("a"), Hold::Exclusive).unwrap(),
            Some(Hold::Exclusive)
        );
        next.held.clear();
        sweep(dir.path());
        assert_eq!(files_of(dir.path()), 0);
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
