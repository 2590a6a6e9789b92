//! The log file of a host without a journal, in the state directory. All watchers and hooks append
//! to it, and any of them may rotate it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::host::file_system::file_id;
use crate::host::regular_file;
use crate::host::state::trust;

/// The name of the log file.
pub(crate) const LOG_FILE: &str = "oci-hotplug.log";

/// The size at which the log file is rotated, in bytes. One older file stays.
const MAX: u64 = 1 << 20;

/// The log file, which stays open between two records.
pub(super) struct LogFile {
    state_dir: PathBuf,
    path: PathBuf,
    open: Mutex<Option<Open>>,
}

struct Open {
    file: File,
    file_id: (u64, u64),
}

/// Writes one record.
pub(super) struct LogWriter(pub(super) Arc<LogFile>);

impl LogFile {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self {
            state_dir: state_dir.to_owned(),
            path: state_dir.join(LOG_FILE),
            open: Mutex::new(None),
        }
    }

    /// Appends a record. The file is opened again when its path leads to another file, because it
    /// was removed or rotated, and after an error.
    fn append(&self, record: &[u8]) -> io::Result<()> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let current = open.take().filter(|open| self.is_current(open));
        let Open { mut file, file_id } = match current {
            Some(open) => open,
            None => self.reopen()?,
        };
        file.write_all(record)?;
        *open = Some(Open { file, file_id });
        Ok(())
    }

    fn is_current(&self, open: &Open) -> bool {
        let named = fs::symlink_metadata(&self.path);
        named.is_ok_and(|named| file_id(&named) == open.file_id && named.len() <= MAX)
    }

    fn reopen(&self) -> io::Result<Open> {
        trust::check(&self.state_dir).map_err(io::Error::other)?;
        if fs::metadata(&self.path).is_ok_and(|metadata| metadata.len() > MAX) {
            fs::rename(&self.path, self.state_dir.join(format!("{LOG_FILE}.old")))?;
        }
        let file = match self.open_file() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&self.state_dir)?;
                self.open_file()?
            }
            opened => opened?,
        };
        let file_id = file_id(&file.metadata()?);
        Ok(Open { file, file_id })
    }

    fn open_file(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        regular_file::open(&self.path, options.append(true).create(true).mode(0o600))
    }
}

impl Write for LogWriter {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        self.0.append(record).map(|()| record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_file_is_created_again_and_a_long_one_is_rotated() {
        let scratch = tempfile::tempdir().unwrap();
        let state_dir = scratch.path().join("state");
        let path = state_dir.join(LOG_FILE);
        let [first, second] = [(); 2].map(|()| LogFile::new(&state_dir));
        let content = || fs::read_to_string(&path).unwrap();
        first.append(b"one\n").unwrap();
        second.append(b"two\n").unwrap();
        first.append(b"three\n").unwrap();
        assert_eq!(content(), "one\ntwo\nthree\n");
        fs::remove_dir_all(&state_dir).unwrap();
        first.append(b"four\n").unwrap();
        second.append(b"five\n").unwrap();
        assert_eq!(content(), "four\nfive\n");
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(MAX + 1)
            .unwrap();
        second.append(b"six\n").unwrap();
        first.append(b"seven\n").unwrap();
        assert_eq!(content(), "six\nseven\n");
        let old = fs::metadata(state_dir.join(format!("{LOG_FILE}.old"))).unwrap();
        assert_eq!(old.len(), MAX + 1);
    }

    #[test]
    fn after_an_error_the_next_record_is_written() {
        let scratch = tempfile::tempdir().unwrap();
        let log = LogFile::new(scratch.path());
        let path = scratch.path().join(LOG_FILE);
        log.append(b"one\n").unwrap();
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        log.append(b"two\n").unwrap_err();
        fs::remove_dir(&path).unwrap();
        log.append(b"three\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
    }
}
