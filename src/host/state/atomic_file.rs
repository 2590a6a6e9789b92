//! Writes files that other processes read at any time: a reader gets the old content or the new
//! one, never a part.
//!
//! Does not know what the files contain.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Whether a file must survive a power failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
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
pub fn replace(path: &Path, content: &[u8], mode: u32, durability: Durability) -> io::Result<()> {
    begin(path, content, mode, durability).map(drop)
}

/// Like [`replace`], but returns the new file, open for appending.
///
/// # Errors
/// Those of [`replace`].
pub fn begin(path: &Path, content: &[u8], mode: u32, durability: Durability) -> io::Result<File> {
    publish(path, content, mode, durability, |temporary| {
        fs::rename(temporary, path)
    })
}

/// Creates a file unless there is one; returns whether it was created.
///
/// # Errors
/// Those of open(2), write(2) and link(2). Then nothing is left of the new file.
pub fn create(path: &Path, content: &[u8], mode: u32, durability: Durability) -> io::Result<bool> {
    let created = publish(path, content, mode, durability, |temporary| {
        fs::hard_link(temporary, path)?;
        fs::remove_file(temporary)
    });
    match created {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes the file under a temporary name in the same directory; `rename` then gives it its real
/// name.
fn publish(
    path: &Path,
    content: &[u8],
    mode: u32,
    durability: Durability,
    rename: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<File> {
    let temporary = temporary_name(path);
    // A killed process with the same pid may have left one.
    let _ = fs::remove_file(&temporary);
    let write = || {
        let mut file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)?;
        file.write_all(content)?;
        if durability == Durability::Synced {
            file.sync_all()?;
        }
        rename(&temporary)?;
        Ok(file)
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}

/// The name is hidden and has the extension `.tmp`, so that programs that read the whole directory
/// ignore the file.
fn temporary_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.tmp", std::process::id()))
}

#[cfg(test)]
mod tests {
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
    fn a_file_is_created_once() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("file");
        assert!(create(&path, b"one", 0o600, Durability::Volatile).unwrap());
        assert!(!create(&path, b"two", 0o600, Durability::Volatile).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    }
}
