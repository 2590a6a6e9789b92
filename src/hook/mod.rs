//! The hooks that the runtime runs: `prestart` before the container's first process, `poststop`
//! after its last.

mod bundle;
pub mod command;
pub(crate) mod poststop;
pub(crate) mod prestart;

use std::io::{self, Read};

use crate::model::oci::{HookState, HookStateError};

/// The maximum length of the state: 1 MiB of annotations fit.
const MAX_STATE: u64 = 4 << 20;

/// Reads the container's state from a hook's standard input.
///
/// # Errors
/// When it cannot be read, is longer than 4 MiB, or is not a state.
pub fn read_state(input: impl Read) -> Result<HookState, ReadStateError> {
    let mut text = Vec::new();
    input.take(MAX_STATE + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_STATE {
        return Err(ReadStateError::TooLong);
    }
    Ok(HookState::parse(&text)?)
}

/// The container's state cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadStateError {
    #[error("cannot read the container's state from standard input: {0}")]
    Io(#[from] io::Error),
    /// The state is longer than any that a runtime writes.
    #[error("cannot read the container's state from standard input: it is longer than {MAX_STATE} bytes")]
    TooLong,
    /// The text is not a state.
    #[error(transparent)]
    State(#[from] HookStateError),
}
