//! Writes a container's journal: changes as long as it is short, then a new file.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;

use crate::host::state::error::RegistryError;
use crate::host::state::journal::{Journaled, line_of};
use crate::host::state::record_lock::RecordLock;

/// How many bytes of changes a journal may have before [`JournalWriter::compact`] begins a new
/// file, unless the complete state is larger: then as many as that.
const COMPACT: usize = 16 << 10;

/// How many times that many bytes there may be before a write itself begins a new file. Usually the
/// changes between two calls of `compact` are fewer.
const BURST: usize = 16;

/// The writer of one container's journal. It begins a new file when it first writes.
#[derive(Debug)]
pub(crate) struct JournalWriter<T> {
    /// The file; `None` if the next write must begin a new one.
    file: Option<Open<T>>,
}

#[derive(Debug)]
struct Open<T> {
    file: File,
    /// The state as written.
    state: T,
    /// The size of the first line, in bytes.
    first: usize,
    /// The size of the changes after it, in bytes.
    changes: usize,
}

impl<T> Default for JournalWriter<T> {
    fn default() -> Self {
        Self { file: None }
    }
}

impl<T: Journaled> JournalWriter<T> {
    /// Writes what has changed since the last write.
    ///
    /// # Errors
    /// When it cannot be written; then readers see an earlier state. The next write writes the
    /// complete state.
    pub(crate) fn write(&mut self, lock: &RecordLock, state: T) -> Result<(), RegistryError> {
        if let Some(open) = self.file.as_mut().filter(|open| !open.is_longer_than(BURST)) {
            match state.change_since(&open.state) {
                None => return Ok(()),
                Some(change) if open.append(&change) => {
                    open.state = state;
                    return Ok(());
                }
                Some(_) => {}
            }
        }
        self.begin(lock, state)
    }

    /// The state as last written; `None` if the next write must begin a new file.
    pub(crate) fn written(&self) -> Option<&T> {
        self.file.as_ref().map(|open| &open.state)
    }

    /// Begins a new file if the journal has become long.
    ///
    /// # Errors
    /// When the new file cannot be written; the old one stays.
    pub(crate) fn compact(&mut self, lock: &RecordLock) -> Result<(), RegistryError> {
        match self.file.take() {
            Some(open) if open.is_longer_than(1) => self.begin(lock, open.state),
            file => {
                self.file = file;
                Ok(())
            }
        }
    }

    /// Writes the complete state next time, because the container's directory was created again.
    pub(crate) fn forget(&mut self) {
        self.file = None;
    }

    fn begin(&mut self, lock: &RecordLock, state: T) -> Result<(), RegistryError> {
        // After an incomplete write, nothing may follow in the old file.
        self.file = None;
        let (file, first) = lock.replace_attached(|| line_of(&state))?;
        self.file = Some(Open {
            file,
            state,
            first,
            changes: 0,
        });
        Ok(())
    }
}

impl<T: Journaled> Open<T> {
    /// Appends a change; returns whether that succeeded completely. Fails if the file was removed.
    fn append(&mut self, change: &T::Change) -> bool {
        let is_in_place = self.file.metadata().is_ok_and(|file| file.nlink() > 0);
        let Ok(line) = line_of(change) else { return false };
        self.changes += line.len();
        // One call, so that no reader finds a part of the line while the rest is being written.
        is_in_place && self.file.write(&line).is_ok_and(|written| written == line.len())
    }
}

impl<T> Open<T> {
    fn is_longer_than(&self, times: usize) -> bool {
        self.changes > times * COMPACT.max(self.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::state::notes::Notes;
    use crate::host::state::registry::Registry;
    use crate::host::state::versioned::STATE_VERSION;
    use crate::model::counters::Counters;
    use crate::model::oci::ContainerId;
    use std::fs;
    use std::path::PathBuf;

    struct Scratch {
        _dir: tempfile::TempDir,
        registry: Registry,
        id: ContainerId,
        lock: RecordLock,
    }

    impl Scratch {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let registry = Registry::new(dir.path().join("state"));
            let id: ContainerId = "c1".parse().unwrap();
            let lock = registry.try_enroll(&id).unwrap().unwrap();
            Self {
                _dir: dir,
                registry,
                id,
                lock,
            }
        }

        fn path(&self) -> PathBuf {
            self.lock.dir().join("attached.jsonl")
        }

        fn read(&self) -> Notes {
            self.registry.attached(&self.id).unwrap().unwrap()
        }

        fn lines(&self) -> usize {
            fs::read_to_string(self.path()).unwrap().lines().count()
        }
    }

    fn notes(attached: u64) -> Notes {
        Notes {
            version: STATE_VERSION,
            counters: Counters {
                attached,
                ..Counters::default()
            },
            ..Notes::default()
        }
    }

    #[test]
    fn a_writer_begins_a_file_and_appends_what_changes() {
        let scratch = Scratch::new();
        let mut writer = JournalWriter::default();
        for (attached, lines) in [(1, 1), (2, 2), (2, 2), (3, 3)] {
            writer.write(&scratch.lock, notes(attached)).unwrap();
            assert_eq!((scratch.read(), scratch.lines()), (notes(attached), lines));
        }
        // The next watcher knows nothing of this file but its content.
        JournalWriter::default().write(&scratch.lock, notes(4)).unwrap();
        assert_eq!((scratch.read(), scratch.lines()), (notes(4), 1));
    }

    #[test]
    fn a_long_journal_is_shortened_between_writes_or_at_last_by_a_write() {
        let scratch = Scratch::new();
        let mut writer = JournalWriter::default();
        let mut attached = 0;
        let mut write_until = |writer: &mut JournalWriter<Notes>, bytes: usize| {
            while fs::metadata(scratch.path()).map_or(0, |file| file.len()) <= bytes as u64 {
                attached += 1;
                writer.write(&scratch.lock, notes(attached)).unwrap();
            }
            attached
        };
        let last = write_until(&mut writer, 1000);
        writer.compact(&scratch.lock).unwrap();
        assert!(scratch.lines() > 1, "it is not long");
        let last = write_until(&mut writer, 2 * COMPACT).max(last);
        writer.compact(&scratch.lock).unwrap();
        assert_eq!((scratch.read(), scratch.lines()), (notes(last), 1));
        let last = write_until(&mut writer, BURST * COMPACT);
        let mut next = last;
        while scratch.lines() > 1 {
            next += 1;
            writer.write(&scratch.lock, notes(next)).unwrap();
            assert!(next < last + 10, "no write has shortened it");
        }
        assert_eq!(scratch.read(), notes(next));
    }

    #[test]
    fn what_an_incomplete_write_left_is_replaced_and_never_continued() {
        let scratch = Scratch::new();
        let mut writer = JournalWriter::default();
        writer.write(&scratch.lock, notes(1)).unwrap();
        // As if the disk had become full: the descriptor of the writer cannot be written to.
        writer.file.as_mut().unwrap().file = File::open(scratch.path()).unwrap();
        let mut torn = fs::read(scratch.path()).unwrap();
        torn.extend(b"{\"counters\":{\"att");
        fs::write(scratch.path(), torn).unwrap();
        assert_eq!(scratch.read(), notes(1));
        writer.write(&scratch.lock, notes(2)).unwrap();
        assert_eq!((scratch.read(), scratch.lines()), (notes(2), 1));
    }

    #[test]
    fn a_removed_file_is_created_again_and_a_removed_directory_is_an_error() {
        let scratch = Scratch::new();
        let mut writer = JournalWriter::default();
        writer.write(&scratch.lock, notes(1)).unwrap();
        fs::remove_file(scratch.path()).unwrap();
        writer.write(&scratch.lock, notes(2)).unwrap();
        assert_eq!((scratch.read(), scratch.lines()), (notes(2), 1));
        fs::remove_dir_all(scratch.lock.dir()).unwrap();
        let error = writer.write(&scratch.lock, notes(3)).unwrap_err();
        assert!(error.to_string().contains("attached.jsonl"), "{error}");
        assert!(!scratch.lock.dir().exists());
    }

    #[test]
    fn a_damaged_line_is_an_error_that_names_file_and_line() {
        let scratch = Scratch::new();
        let mut writer = JournalWriter::default();
        for attached in 1..4 {
            writer.write(&scratch.lock, notes(attached)).unwrap();
        }
        let text = fs::read_to_string(scratch.path()).unwrap();
        let mut lines: Vec<_> = text.lines().collect();
        lines[1] = &lines[1][..lines[1].len() - 1];
        fs::write(scratch.path(), lines.join("\n") + "\n").unwrap();
        let error = scratch.lock.attached::<Notes>().unwrap_err().to_string();
        assert!(error.contains("attached.jsonl: line 2: "), "{error}");
    }
}
