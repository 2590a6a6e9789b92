//! Errors with a special exit code, and how an error ends the program.

use std::io::ErrorKind;

use crate::cdi::generate::GenerateError;
use crate::cdi::names::NameError;
use crate::exit;
use crate::model::quoting::{visible, visible_lines};
use crate::model::request::annotations::RequestListError;

/// A command line that is incomplete or malformed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Usage(pub(super) String);

/// A request that the policy denies.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Denied(pub(super) String);

/// Prints the error; the exit code for it.
pub(super) fn report(error: &anyhow::Error) -> u8 {
    // The reader has closed its end of the pipe (`oci-hotplug list | head`).
    if is_broken_pipe(error) {
        return exit::DONE;
    }
    eprintln!("oci-hotplug: {}", visible_lines(&exit::told(error.as_ref())));
    let is_malformed = error.is::<RequestListError>()
        || error.is::<Usage>()
        || error.is::<NameError>()
        || matches!(error.downcast_ref(), Some(GenerateError::Name(_)));
    match is_malformed {
        true => exit::USAGE,
        false if error.is::<Denied>() => exit::DENIED,
        false => exit::FAILED,
    }
}

/// Prints a warning.
pub(super) fn warn(fault: &str) {
    eprintln!("oci-hotplug: warning: {}", visible(fault));
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}
