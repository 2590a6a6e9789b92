//! What is wrong with requests, and how to fix it.

use super::{ClassFault, OptionError};
use crate::model::request::selector::SelectorError;

/// The most bytes a list may have.
pub const MAX_TEXT: usize = 64 * 1024;

/// The most requests a list may have.
pub const MAX_REQUESTS: usize = 256;

/// A text that is no list of requests.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No request at all.
    #[error("device requests: no request: name a device, such as usb:0403:6001, or remove the value")]
    Empty,
    /// A comma too many.
    #[error("device request {position} of {count} is empty: remove the extra \",\"")]
    EmptyElement {
        /// Counted from 1.
        position: usize,
        /// How many there are, with the empty ones.
        count: usize,
    },
    /// More than [`MAX_TEXT`].
    #[error("device requests: {length} bytes are too many: at most {MAX_TEXT} are read")]
    TooLong {
        /// In bytes.
        length: usize,
    },
    /// More than [`MAX_REQUESTS`].
    #[error("device requests: {count} are too many: at most {MAX_REQUESTS} are read")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// Their selectors would take too much of the host's time and memory.
    #[error(
        "device requests: evaluating their selectors costs {cost} units, and {limit} are allowed: write fewer or shorter globs and regular expressions, or define a class for them in the configuration"
    )]
    TooCostly {
        /// What they cost, as far as they were read.
        cost: usize,
        /// What they may cost.
        limit: usize,
    },
    /// One of them is at fault.
    #[error("device request \"{text}\": {fault}")]
    Malformed {
        /// The request, shortened and made visible.
        text: String,
        /// What is wrong with it, and the hint.
        fault: RequestFault,
    },
}

/// What is wrong with one request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestFault {
    /// What stands before the first `;`.
    #[error(transparent)]
    Selector(#[from] SelectorError),
    /// What stands behind it.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// The name of a class.
    #[error(transparent)]
    Class(#[from] ClassFault),
    /// Several where one is expected.
    #[error("one request is expected, but there are {count}: write \"\\,\" where a comma is part of a value")]
    List {
        /// How many there are.
        count: usize,
    },
}

impl RequestError {
    /// # Errors
    /// [`RequestError::TooCostly`], when a cost is above its limit.
    pub(super) fn check_cost(cost: usize, limit: usize) -> Result<(), Self> {
        if cost > limit {
            return Err(Self::TooCostly { cost, limit });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_as_high_as_its_limit_is_within_it() {
        assert_eq!(RequestError::check_cost(7, 7), Ok(()));
        assert_eq!(
            RequestError::check_cost(8, 7),
            Err(RequestError::TooCostly { cost: 8, limit: 7 })
        );
    }
}
