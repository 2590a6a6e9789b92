//! A journal (not systemd's): a state, and the changes to it since then, as one JSON value per
//! line.
//!
//! ```text
//! {"version":1,…}\n    the complete state: the file begins with it from the moment it has its name
//! {…}\n                a change, appended by one write(2); further changes follow
//! ```
//! The last line counts only with its line feed: a full disk or a killed process can cut it. Any
//! other line that cannot be read makes the journal unreadable, because the changes after it have
//! lost their meaning. Only the process that created the file appends to it; a new writer begins a
//! new file ([`super::journal_writer`]). Readers need no lock: a file only grows, and its successor
//! gets the name by rename(2).
//!
//! Does not know what the state means.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::host::state::error::RegistryError;
use crate::host::state::versioned::{self, STATE_VERSION, VersionError};

/// A state that a journal can store. Its JSON has a field `version`, see [`STATE_VERSION`].
pub trait Journaled: Serialize + DeserializeOwned {
    /// A difference between two states.
    type Change: Serialize + DeserializeOwned;

    /// What makes this state of `before`; `None` if nothing differs.
    fn change_since(&self, before: &Self) -> Option<Self::Change>;

    /// Changes this state.
    fn apply(&mut self, change: Self::Change);
}

/// Why the text of a journal cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A line is not what a journal has there, or the first line has no end.
    #[error("line {line}: {source}")]
    Line {
        /// Counted from 1.
        line: usize,
        source: serde_json::Error,
    },
    /// A newer version of oci-hotplug wrote it.
    #[error("version {version}")]
    TooNew { version: u32 },
}

/// One line of a journal: a complete state, or a change.
///
/// # Errors
/// When the value cannot be written as JSON.
pub fn line_of(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    // JSON escapes line feeds in texts, and this form has no others.
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

/// The state after all complete lines.
///
/// # Errors
/// When a complete line cannot be read, or the first line is not complete.
pub fn parse<T: Journaled>(text: &[u8]) -> Result<T, JournalError> {
    let mut lines = text.split_inclusive(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let mut state: T = parse_first(first)?;
    let complete = lines.filter(|line| line.ends_with(b"\n"));
    for (index, line) in complete.enumerate() {
        let change = serde_json::from_slice(line);
        state.apply(change.map_err(|source| JournalError::Line {
            line: index + 2,
            source,
        })?);
    }
    Ok(state)
}

fn parse_first<T: DeserializeOwned>(line: &[u8]) -> Result<T, JournalError> {
    versioned::from_json(line).map_err(|error| match error {
        VersionError::Malformed(source) => JournalError::Line { line: 1, source },
        VersionError::TooNew { version } => JournalError::TooNew { version },
    })
}

/// Reads a journal; `None` if it is absent.
///
/// # Errors
/// When it cannot be read, or is of a newer version.
pub(super) fn read<T: Journaled>(path: &Path) -> Result<Option<T>, RegistryError> {
    let Some(text) = versioned::content_of(path)? else {
        return Ok(None);
    };
    let path = path.to_owned();
    parse(&text).map(Some).map_err(|error| match error {
        JournalError::Line { line, source } => RegistryError::MalformedLine { path, line, source },
        JournalError::TooNew { version } => RegistryError::TooNew {
            path,
            version,
            known: STATE_VERSION,
        },
    })
}

#[cfg(test)]
mod tests;
