//! Writes files that other processes read at any time: a reader gets the old content or the new
//! one, never a part.
//!
//! Does not know what the files contain.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Whether a file must survive a power failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// The file is written to the disk before it gets its name, which takes milliseconds.
    Synced,
    /// The file is useless after a reboot.
    Volatile,
}

/// Replaces the file at `path`, or creates it, with this mode (less the umask). The directory must
/// exist.
///
/// # Errors
/// Those of open(2), write(2) and rename(2). Then nothing is left of the new file.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32, durability: Durability) -> io::Result<()> {
    begin(path, content, mode, durability).map(drop)
}

/// Like [`replace`], but returns the new file, open for appending.
///
/// # Errors
/// Those of [`replace`].
pub(crate) fn begin(path: &Path, content: &[u8], mode: u32, durability: Durability) -> io::Result<File> {
    let temporary = temporary_name(path);
    publish(AT_FDCWD, &temporary, content, mode, durability, || {
        fs::rename(&temporary, path)
    })
}

/// Creates a file unless there is one; returns whether it was created.
///
/// # Errors
/// Those of open(2), write(2) and link(2). Then nothing is left of the new file.
pub(crate) fn create(path: &Path, content: &[u8], mode: u32, durability: Durability) -> io::Result<bool> {
    let temporary = temporary_name(path);
    let created = publish(AT_FDCWD, &temporary, content, mode, durability, || {
        fs::hard_link(&temporary, path)?;
        fs::remove_file(&temporary)
    });
    match created {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Replaces the file `name` in the directory `target`, or creates it, for directories that are held
/// open because others may change what their paths lead to. The file is first written under the
/// name `temporary` in the directory `writer`, which is on the same file system. No link is
/// followed. The file is [`Durability::Volatile`].
///
/// # Errors
/// Those of [`replace`].
pub(crate) fn replace_in(
    (writer, temporary): (BorrowedFd<'_>, &str),
    (target, name): (BorrowedFd<'_>, &str),
    content: &[u8],
    mode: u32,
) -> io::Result<()> {
    let rename = || Ok(renameat(writer, temporary, target, name)?);
    let temporary = Path::new(temporary);
    publish(writer, temporary, content, mode, Durability::Volatile, rename).map(drop)
}

/// Writes the file under a temporary name, relative to a directory; `rename` then gives it its real
/// name.
fn publish(
    directory: BorrowedFd<'_>,
    temporary: &Path,
    content: &[u8],
    mode: u32,
    durability: Durability,
    rename: impl FnOnce() -> io::Result<()>,
) -> io::Result<File> {
    let write = |mut file: File| {
        file.write_all(content)?;
        if durability == Durability::Synced {
            file.sync_all()?;
        }
        rename()?;
        Ok(file)
    };
    create_new(directory, temporary, mode)
        .and_then(write)
        .inspect_err(|_| {
            let _ = unlinkat(directory, temporary, UnlinkatFlags::NoRemoveDir);
        })
}

/// Creates a file for appending. A killed process with the same pid may have left one: then that is
/// removed.
fn create_new(directory: BorrowedFd<'_>, name: &Path, mode: u32) -> io::Result<File> {
    let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let create = || openat(directory, name, flags, Mode::from_bits_truncate(mode));
    let created = create().or_else(|errno| {
        if errno != Errno::EEXIST {
            return Err(errno);
        }
        unlinkat(directory, name, UnlinkatFlags::NoRemoveDir)?;
        create()
    });
    Ok(File::from(created?))
}

/// The name is hidden and has the extension `.tmp`, so that programs that read the whole directory
/// ignore the file.
fn temporary_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.tmp", std::process::id()))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_file_is_replaced_and_nothing_else_is_left() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("file");
        for content in ["one", "two"] {
            replace(&path, content.as_bytes(), 0o600, Durability::Volatile).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
        fs::create_dir(scratch.path().join("directory")).unwrap();
        let directory = scratch.path().join("directory");
        replace(&directory, b"", 0o600, Durability::Synced).unwrap_err();
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 2);
    }

    #[test]
    fn the_temporary_file_of_a_killed_process_is_removed_and_not_followed() {
        let scratch = tempfile::tempdir().unwrap();
        let (path, outside) = (scratch.path().join("file"), scratch.path().join("outside"));
        fs::write(&outside, "outside").unwrap();
        std::os::unix::fs::symlink(&outside, temporary_name(&path)).unwrap();
        replace(&path, b"new", 0o600, Durability::Volatile).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::read_to_string(&outside).unwrap(), "outside");
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_file_in_an_open_directory_is_replaced_wherever_its_path_leads_now() {
        let scratch = tempfile::tempdir().unwrap();
        let target = scratch.path().join("target");
        fs::create_dir(&target).unwrap();
        let (writer, opened) = (File::open(scratch.path()).unwrap(), File::open(&target).unwrap());
        let moved = scratch.path().join("moved");
        fs::rename(&target, &moved).unwrap();
        for content in ["one", "two"] {
            replace_in(
                (writer.as_fd(), "new.tmp"),
                (opened.as_fd(), "file"),
                content.as_bytes(),
                0o644,
            )
            .unwrap();
            assert_eq!(fs::read_to_string(moved.join("file")).unwrap(), content);
        }
        fs::create_dir(moved.join("directory")).unwrap();
        replace_in(
            (writer.as_fd(), "new.tmp"),
            (opened.as_fd(), "directory"),
            b"",
            0o644,
        )
        .unwrap_err();
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_is_created_once() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("file");
        assert!(create(&path, b"one", 0o600, Durability::Volatile).unwrap());
        assert!(!create(&path, b"two", 0o600, Durability::Volatile).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    }
}
