//! Files that are locked with flock(2).
//!
//! Does not know what the files are for.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::ops::Deref;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use fs2::FileExt;

use crate::host::file_system::file_id;
use crate::host::regular_file;

/// The time between two attempts to get a lock: flock(2) itself has no timeout.
const INTERVAL: Duration = Duration::from_millis(1);

/// The kind of a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lock {
    /// Any number of processes can hold it at the same time.
    Shared,
    /// One process can hold it.
    Exclusive,
}

/// Opens a file for reading and writing; creates it if it is absent. Only root can read it.
///
/// # Errors
/// Those of [`regular_file::open`].
pub(crate) fn open_or_create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    regular_file::open(path, &mut options)
}

/// Like [`open_or_create`], but also creates the directory if it is absent. Only root can enter
/// that.
///
/// # Errors
/// Those of open(2) and mkdir(2).
pub(crate) fn open_or_create_in_dir(path: &Path) -> io::Result<File> {
    loop {
        match open_or_create(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create_dir(path.parent().unwrap_or(Path::new("/")))?;
            }
            opened => return opened,
        }
    }
}

/// Creates a directory and its parents unless they exist. Only root can enter it.
///
/// # Errors
/// Those of mkdir(2).
pub(crate) fn create_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Whether the path still leads to this open file: another process may have removed or replaced it.
pub(crate) fn is_same_file(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(named)) => file_id(&open) == file_id(&named),
        _ => false,
    }
}

/// Whether an open file still has a name: for files that are removed, but never renamed or
/// replaced, a cheaper [`is_same_file`].
pub(crate) fn is_linked(file: &File) -> bool {
    file.metadata().is_ok_and(|open| open.nlink() > 0)
}

/// Locks a file unless another process holds the lock; returns whether it is locked now. Never
/// waits.
///
/// # Errors
/// Those of flock(2), except that another process holds the lock.
pub(crate) fn try_lock(file: &File, lock: Lock) -> io::Result<bool> {
    let outcome = match lock {
        Lock::Shared => FileExt::try_lock_shared(file),
        Lock::Exclusive => FileExt::try_lock_exclusive(file),
    };
    match outcome {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == fs2::lock_contended_error().raw_os_error() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Locks a file; waits until the deadline for other processes to release it.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`] at the deadline; else those of flock(2).
pub(crate) fn lock(file: &File, lock: Lock, deadline: Instant) -> io::Result<()> {
    let attempt = || try_lock(file, lock).map(|is_locked| is_locked.then_some(()));
    attempt_until(deadline, attempt)?.ok_or(io::ErrorKind::TimedOut.into())
}

/// Opens and exclusively locks a file that a process may remove while it holds the lock. File and
/// directory are created if they are absent.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`] at the deadline; else those of open(2), mkdir(2) and flock(2).
pub(crate) fn open_locked(path: &Path, deadline: Instant) -> io::Result<Locked> {
    loop {
        let file = open_or_create_in_dir(path)?;
        lock(&file, Lock::Exclusive, deadline)?;
        let file = Locked(file);
        // The previous holder may have removed the file.
        if is_same_file(&file, path) {
            return Ok(file);
        }
    }
}

/// Like [`open_locked`] for a file that exists; `None` if another process holds its lock, or has
/// removed it. Never waits.
///
/// # Errors
/// Those of open(2) and flock(2).
pub(crate) fn try_open_locked(path: &Path) -> io::Result<Option<Locked>> {
    let file = regular_file::open_to_read(path)?;
    if !try_lock(&file, Lock::Exclusive)? {
        return Ok(None);
    }
    let file = Locked(file);
    Ok(is_same_file(&file, path).then_some(file))
}

/// An open file with a lock that ends when this is dropped.
///
/// A lock belongs to the open file description, so that a child that is being started has it too
/// until it calls exec (flock(2)). It is therefore released explicitly.
#[derive(Debug)]
pub(crate) struct Locked(File);

impl Deref for Locked {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        let _ = FileExt::unlock(&self.0);
    }
}

/// Repeats an attempt until it has a result, but at least once. `None` at the deadline.
///
/// # Errors
/// The first error of an attempt.
pub(crate) fn attempt_until<T, E>(
    deadline: Instant,
    mut attempt: impl FnMut() -> Result<Option<T>, E>,
) -> Result<Option<T>, E> {
    loop {
        let result = attempt()?;
        if result.is_some() || Instant::now() >= deadline {
            return Ok(result);
        }
        std::thread::sleep(INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_waited_for_until_the_deadline() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("locks/one");
        let deadline = || Instant::now() + Duration::from_millis(20);
        let first = open_locked(&path, deadline()).unwrap();
        let second = open_or_create(&path).unwrap();
        for kind in [Lock::Shared, Lock::Exclusive] {
            assert!(!try_lock(&second, kind).unwrap());
            let error = lock(&second, kind, deadline()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
        drop(first);
        lock(&second, Lock::Exclusive, Instant::now()).unwrap();
    }

    #[test]
    fn a_lock_file_that_its_previous_holder_removes_is_created_again() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("lock");
        let first = open_locked(&path, Instant::now()).unwrap();
        std::thread::scope(|scope| {
            let next = scope.spawn(|| open_locked(&path, Instant::now() + Duration::from_secs(60)).unwrap());
            std::thread::sleep(Duration::from_millis(5));
            fs::remove_file(&path).unwrap();
            drop(first);
            assert!(is_same_file(&next.join().unwrap(), &path));
        });
    }

    #[test]
    fn only_root_can_access_created_files_and_directories() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("state/locks/one");
        open_or_create_in_dir(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert_eq!(mode(&scratch.path().join("state")), 0o700);
        let error = open_or_create(&scratch.path().join("absent/one")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_lock_ends_although_a_child_process_has_a_copy_of_its_descriptor() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("lock");
        let first = open_locked(&path, Instant::now()).unwrap();
        let copy = first.try_clone().unwrap();
        assert!(try_open_locked(&path).unwrap().is_none());
        drop(first);
        let second = try_open_locked(&path).unwrap().unwrap();
        drop(copy);
        assert!(try_open_locked(&path).unwrap().is_none());
        drop(second);
        assert!(try_open_locked(&path).unwrap().is_some());
        fs::remove_file(&path).unwrap();
        assert_eq!(
            try_open_locked(&path).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    #[test]
    fn a_file_that_was_replaced_is_not_the_same() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("file");
        let file = open_or_create(&path).unwrap();
        assert!(is_same_file(&file, &path));
        fs::write(scratch.path().join("next"), "").unwrap();
        fs::rename(scratch.path().join("next"), &path).unwrap();
        assert!(!is_same_file(&file, &path));
        fs::remove_file(&path).unwrap();
        assert!(!is_same_file(&file, &path));
    }
}
