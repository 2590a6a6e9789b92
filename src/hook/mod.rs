//! What the runtime runs: `prestart` before the container's first process, `poststop` after its
//! last.

mod bundle;
pub mod command;
pub mod poststop;
pub mod prestart;

use std::io::{self, Read};

use crate::model::oci::{HookState, HookStateError};

/// The longest state that is read: 1 MiB of annotations and some.
const MAX_STATE: u64 = 4 << 20;

/// Reads the container's state from a hook's standard input.
///
/// # Errors
/// When it can't be read, is longer than 4 MiB, or is no state.
pub fn read_state(input: impl Read) -> Result<HookState, ReadStateError> {
    let mut text = Vec::new();
    input.take(MAX_STATE + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_STATE {
        return Err(ReadStateError::TooLong);
    }
    Ok(HookState::parse(&text)?)
}

/// Why there is no state.
#[derive(Debug, thiserror::Error)]
pub enum ReadStateError {
    /// The pipe.
    #[error("reading the container's state from standard input: {0}")]
    Io(#[from] io::Error),
    /// More than any runtime writes.
    #[error("reading the container's state from standard input: it is longer than {MAX_STATE} bytes")]
    TooLong,
    /// The text.
    #[error(transparent)]
    State(#[from] HookStateError),
}
