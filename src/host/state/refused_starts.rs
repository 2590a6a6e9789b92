//! Containers whose start a hook refused, for the operator: with crun, an engine shows only the
//! exit code of a hook. The entries of a container are dropped when it starts.
//!
//! A hook replaces `refused-starts.json` in the state directory, under a separate lock. Users who
//! can start containers control the content and how often it is written, so there are few entries,
//! and short ones.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::host::regular_file;
use crate::host::state::atomic_file::{Durability, replace};
use crate::host::state::flock;
use crate::host::state::trust;
use crate::model::oci::engine::{is_meant, printable, short_id};
use crate::model::quoting::shown;

const FILE: &str = "refused-starts.json";
const LOCK: &str = "refused-starts.lock";

/// The maximum number of entries, of entries for one container, and of characters of a reason.
const MAX_ENTRIES: usize = 32;
const MAX_OF_CONTAINER: usize = 3;
const MAX_REASON: usize = 1000;

/// The maximum size of the file that is read, in bytes: all entries with every character escaped.
const MAX_FILE: u64 = 1 << 20;

/// How long a hook waits for another one that writes.
const LOCK_TIMEOUT: Duration = Duration::from_millis(200);

/// A container that was not started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RefusedStart {
    /// In seconds since 1970.
    pub time: u64,
    pub id: String,
    /// The engine's name for the container.
    pub name: Option<String>,
    /// One line.
    pub reason: String,
}

impl RefusedStart {
    /// The name; without a name the id, of which an engine's 64 digits are shortened to twelve.
    pub(crate) fn display_name(&self) -> &str {
        match &self.name {
            Some(name) => name,
            None => short_id(&self.id),
        }
    }

    /// Whether a word of the command line means this container ([`is_meant`]).
    pub(crate) fn matches(&self, word: &str) -> bool {
        is_meant(&self.id, self.name.as_deref(), word)
    }

    /// Whether this is the container with this id, or one with its name.
    fn is_of(&self, id: &str, name: Option<&str>) -> bool {
        self.id == id || (name.is_some() && self.name.as_deref() == name)
    }

    fn is_same_container(&self, other: &Self) -> bool {
        self.is_of(&other.id, other.name.as_deref())
    }
}

/// Adds an entry; drops the oldest ones if there are too many.
///
/// # Errors
/// When users other than root could change the state directory, when it cannot be written, or when
/// another hook does not release the lock in time.
pub(crate) fn note(state_dir: &Path, refused: RefusedStart) -> io::Result<()> {
    let _lock = lock(state_dir)?;
    let refused = RefusedStart {
        name: refused.name.map(|name| printable(&name)),
        reason: shown(&refused.reason, MAX_REASON),
        ..refused
    };
    write(state_dir, &with(read(state_dir), refused))
}

/// Drops the entries of a container that has started. `name` returns the engine's name for it, and
/// is called only if there are entries: it reads files of the engine.
///
/// # Errors
/// As [`note`].
pub(crate) fn forget(state_dir: &Path, id: &str, name: impl FnOnce() -> Option<String>) -> io::Result<()> {
    if read(state_dir).is_empty() {
        return Ok(());
    }
    let name = name().map(|name| printable(&name));
    let _lock = lock(state_dir)?;
    let mut entries = read(state_dir);
    let before = entries.len();
    entries.retain(|entry| !entry.is_of(id, name.as_deref()));
    match entries.len() {
        0 => fs::remove_file(path(state_dir)),
        left if left < before => write(state_dir, &entries),
        _ => Ok(()),
    }
}

/// The lock that is held while the entries are changed.
fn lock(state_dir: &Path) -> io::Result<flock::Locked> {
    trust::check(state_dir).map_err(io::Error::other)?;
    flock::open_locked(&state_dir.join(LOCK), Instant::now() + LOCK_TIMEOUT)
}

fn write(state_dir: &Path, entries: &[RefusedStart]) -> io::Result<()> {
    let text = serde_json::to_vec(entries)?;
    replace(&path(state_dir), &text, 0o600, Durability::Synced)
}

fn with(mut entries: Vec<RefusedStart>, refused: RefusedStart) -> Vec<RefusedStart> {
    // An equal entry is replaced, because only its time is new.
    entries.retain(|entry| !(entry.is_same_container(&refused) && entry.reason == refused.reason));
    while entries
        .iter()
        .filter(|entry| entry.is_same_container(&refused))
        .count()
        >= MAX_OF_CONTAINER
    {
        let oldest = entries.iter().position(|entry| entry.is_same_container(&refused));
        oldest.map(|at| entries.remove(at));
    }
    entries.push(refused);
    let surplus = entries.len().saturating_sub(MAX_ENTRIES);
    entries.drain(..surplus);
    entries
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

/// All entries, the oldest first; empty if the file is absent or invalid.
pub(crate) fn read(state_dir: &Path) -> Vec<RefusedStart> {
    let read = || -> io::Result<Vec<RefusedStart>> {
        let mut text = Vec::new();
        regular_file::open_to_read(&path(state_dir))?
            .take(MAX_FILE)
            .read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(id: &str, name: Option<&str>, reason: &str) -> RefusedStart {
        RefusedStart {
            time: 7,
            id: id.into(),
            name: name.map(String::from),
            reason: reason.into(),
        }
    }

    #[test]
    fn entries_are_read_back_with_control_characters_escaped() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("state");
        assert_eq!(read(&dir), []);
        let id = "0".repeat(64);
        note(
            &dir,
            entry(&id, Some("la\u{1b}b"), &format!("bad\nline {}", "x".repeat(5000))),
        )
        .unwrap();
        let [noted] = &read(&dir)[..] else { panic!() };
        assert_eq!(noted.name.as_deref(), Some("lab"));
        assert!(noted.reason.starts_with("bad\\nline x") && noted.reason.chars().count() <= MAX_REASON + 1);
        assert!(noted.matches("lab") && noted.matches("000") && !noted.matches("la") && !noted.matches(""));
        fs::write(path(&dir), "{").unwrap();
        assert_eq!(read(&dir), []);
        note(&dir, entry("c1", None, "again")).unwrap();
        assert_eq!(read(&dir)[0].display_name(), "c1");
        assert!(entry("c1", Some("default/board/main"), "no").matches("board"));
    }

    #[test]
    fn a_repeated_refusal_replaces_the_previous_entry() {
        let mut second = entry("c2", Some("lab"), "no");
        second.time = 9;
        let entries = with(
            vec![entry("c1", Some("lab"), "no"), entry("c3", None, "no")],
            second.clone(),
        );
        assert_eq!(entries, [entry("c3", None, "no"), second]);
    }

    #[test]
    fn a_start_drops_the_entries_of_its_id_and_of_its_name() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("state");
        let reads_no_name = || panic!("without entries no name is read");
        forget(&dir, "c1", reads_no_name).unwrap();
        for (id, name) in [("c1", Some("lab")), ("c2", Some("desk")), ("c3", None)] {
            note(&dir, entry(id, name, "no")).unwrap();
        }
        let left = || read(&dir).into_iter().map(|entry| entry.id).collect::<Vec<_>>();
        forget(&dir, "c9", || None).unwrap();
        assert_eq!(left(), ["c1", "c2", "c3"]);
        forget(&dir, "c9", || Some("la\u{1b}b".into())).unwrap();
        assert_eq!(left(), ["c2", "c3"]);
        forget(&dir, "c3", || Some("other".into())).unwrap();
        assert_eq!(left(), ["c2"]);
        forget(&dir, "c2", || None).unwrap();
        assert!(left().is_empty() && !path(&dir).exists());
        forget(&dir, "c1", reads_no_name).unwrap();
    }

    proptest! {
        #[test]
        fn the_file_stays_small_after_many_refused_starts(
            starts in prop::collection::vec((0..60u8, 0..5u8), 0..200),
        ) {
            let mut entries = Vec::new();
            for (id, reason) in &starts {
                entries = with(entries, entry(&id.to_string(), None, &reason.to_string()));
            }
            prop_assert!(entries.len() <= MAX_ENTRIES);
            for (id, _) in &starts {
                let id = id.to_string();
                prop_assert!(entries.iter().filter(|entry| entry.id == id).count() <= MAX_OF_CONTAINER);
            }
            if let Some((id, reason)) = starts.last() {
                let last = entries.last().unwrap();
                prop_assert_eq!((&last.id, &last.reason), (&id.to_string(), &reason.to_string()));
            }
        }
    }
}
