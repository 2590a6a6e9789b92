//! The counters, roots and remote devices of a watcher, and the journal in which the next watcher
//! finds them with the rest of the notes.

use std::cell::Cell;
use std::collections::BTreeSet;

use super::error::EffectError;
use crate::host::state::journal_writer::JournalWriter;
use crate::host::state::notes::Notes;
use crate::host::state::record_lock::RecordLock;
use crate::host::state::versioned::STATE_VERSION;
use crate::model::counters::Counters;
use crate::model::device::SysPath;
use crate::model::plan::RootRemoved;
use crate::model::remote::address::RemoteDevice;
use crate::model::remote::binding::Binding;
use crate::model::request::entry::RequestEntry;
use crate::model::request::id::RequestId;

/// What is noted of a container beside the state of its file system and its access.
pub(super) struct NotesWriter {
    journal: JournalWriter<Notes>,
    roots: Vec<BTreeSet<SysPath>>,
    bound: Vec<(RemoteDevice, Binding)>,
    counters: Cell<Counters>,
    /// The counters as last written.
    written: Counters,
}

impl NotesWriter {
    /// Continues the notes of an earlier watcher.
    pub(super) fn new(notes: &Notes) -> Self {
        Self {
            journal: JournalWriter::default(),
            roots: notes.roots.clone(),
            bound: notes.bound.clone(),
            counters: Cell::new(notes.counters),
            written: notes.counters,
        }
    }

    pub(super) fn counters(&self) -> Counters {
        self.counters.get()
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut Counters)) {
        let mut counters = self.counters.get();
        change(&mut counters);
        self.counters.set(counters);
    }

    /// Whether the next watcher would miss something that was counted. Wakes alone are not worth a
    /// write.
    pub(super) fn has_counted(&self) -> bool {
        let counters = self.counters.get();
        let wakes = Counters {
            wakes: counters.wakes,
            busy_us: counters.busy_us,
            longest_us: counters.longest_us,
            ..self.written
        };
        counters != wakes
    }

    /// Stores the requests' roots for the next write. Returns whether they have changed. A removed
    /// root with a running grace period is stored as if it were present: the next watcher finds it
    /// gone, and starts the period again.
    pub(super) fn note_roots<'r>(
        &mut self,
        requests: impl Iterator<Item = (RequestId, &'r RequestEntry)> + Clone,
        gone: &[RootRemoved],
    ) -> bool {
        if !gone.is_empty() {
            let with_gone = |(request, entry): (RequestId, &RequestEntry)| {
                let gone = gone.iter().filter(|gone| gone.request == request);
                let mut roots = entry.roots.clone();
                roots.extend(gone.map(|gone| gone.root.clone()));
                roots
            };
            let roots: Vec<_> = requests.map(with_gone).collect();
            let are_new = roots != self.roots;
            self.roots = roots;
            return are_new;
        }
        let roots = requests.map(|(_, entry)| &entry.roots);
        let are_new = !roots.clone().eq(&self.roots);
        if are_new {
            self.roots = roots.cloned().collect();
        }
        are_new
    }

    /// Stores the attached remote devices for the next write. Returns whether they have changed.
    pub(super) fn note_bound(&mut self, bound: &[(RemoteDevice, Binding)]) -> bool {
        let are_new = bound != self.bound;
        if are_new {
            self.bound = bound.to_vec();
        }
        are_new
    }

    /// Writes what is stored here, and the other parts of `notes`.
    pub(super) fn write(&mut self, lock: &RecordLock, notes: Notes) -> Result<(), EffectError> {
        let notes = self.complete(notes);
        self.write_complete(lock, notes)
    }

    /// Like [`NotesWriter::write`], but writes nothing if only counters have changed: the next tick
    /// does that ([`NotesWriter::has_counted`]).
    pub(super) fn write_news(&mut self, lock: &RecordLock, notes: Notes) -> Result<(), EffectError> {
        let mut notes = self.complete(notes);
        if let Some(written) = self.journal.written() {
            notes.counters = written.counters;
            if notes == *written {
                return Ok(());
            }
            notes.counters = self.counters.get();
        }
        self.write_complete(lock, notes)
    }

    fn complete(&self, notes: Notes) -> Notes {
        Notes {
            version: STATE_VERSION,
            roots: self.roots.clone(),
            bound: self.bound.clone(),
            counters: self.counters.get(),
            ..notes
        }
    }

    fn write_complete(&mut self, lock: &RecordLock, notes: Notes) -> Result<(), EffectError> {
        let counters = notes.counters;
        self.journal.write(lock, notes)?;
        self.written = counters;
        Ok(())
    }

    /// Shortens the journal if it has become long.
    ///
    /// # Errors
    /// When it cannot be written; the long one stays.
    pub(super) fn compact(&mut self, lock: &RecordLock) -> Result<(), EffectError> {
        Ok(self.journal.compact(lock)?)
    }

    /// Begins a new journal with the next write: the old one was removed.
    pub(super) fn forget_journal(&mut self) {
        self.journal.forget();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::host::state::registry::Registry;

    #[test]
    fn new_counters_alone_are_written_with_the_next_news_or_by_the_tick() {
        let scratch = tempfile::tempdir().unwrap();
        let registry = Registry::new(scratch.path().join("state"));
        let id = "c1".parse().unwrap();
        let lock = registry.try_enroll(&id).unwrap().unwrap();
        let mut writer = NotesWriter::new(&Notes::default());
        let lines = || {
            fs::read_to_string(lock.dir().join("attached.jsonl"))
                .unwrap()
                .lines()
                .count()
        };
        let noted = || registry.attached::<Notes>(&id).unwrap().unwrap();
        writer.write_news(&lock, Notes::default()).unwrap();
        assert_eq!(lines(), 1);
        writer.count(|counters| counters.attached += 1);
        writer.write_news(&lock, Notes::default()).unwrap();
        assert_eq!((lines(), noted().counters.attached), (1, 0));
        assert!(writer.has_counted(), "the tick writes them");
        let news = || Notes {
            directories: [std::path::PathBuf::from("/dev/bus")].into(),
            ..Notes::default()
        };
        writer.write_news(&lock, news()).unwrap();
        assert_eq!((lines(), noted().counters.attached), (2, 1));
        assert!(!writer.has_counted());
        writer.count(|counters| counters.attached += 1);
        writer.write(&lock, news()).unwrap();
        assert_eq!((lines(), noted().counters.attached), (3, 2));
    }
}
