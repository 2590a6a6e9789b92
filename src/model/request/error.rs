//! Errors in lists of requests, with hints.

use super::{ClassFault, OptionError};
use crate::model::request::selector::SelectorError;

/// The longest list, in bytes.
pub const MAX_TEXT: usize = 64 * 1024;

/// The most requests in a list.
pub const MAX_REQUESTS: usize = 256;

/// A text that is not a list of requests.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// There is no request at all.
    #[error("device requests: no request: name a device, such as usb:0403:6001, or remove the value")]
    Empty,
    /// There is an extra comma.
    #[error("device request {position} of {count} is empty: remove the extra \",\"")]
    EmptyElement {
        /// Counted from 1.
        position: usize,
        /// The number of elements, including empty ones.
        count: usize,
    },
    /// The list is longer than [`MAX_TEXT`].
    #[error("device requests: {length} bytes are too many: at most {MAX_TEXT} are read")]
    TooLong {
        /// In bytes.
        length: usize,
    },
    /// The list has more than [`MAX_REQUESTS`] requests.
    #[error("device requests: {count} are too many: at most {MAX_REQUESTS} are read")]
    TooMany { count: usize },
    /// Evaluating the selectors would take too much time and memory of the host.
    #[error(
        "device requests: evaluating their selectors costs {cost} units, and {limit} are allowed: write fewer or shorter globs and regular expressions, or define a class for them in the configuration"
    )]
    TooCostly {
        /// The cost of the requests parsed so far.
        cost: usize,
        /// The highest cost allowed.
        limit: usize,
    },
    /// One request is invalid.
    #[error("device request \"{text}\": {fault}")]
    Malformed {
        /// The request, shortened and escaped.
        text: String,
        /// The error with its hint.
        fault: RequestFault,
    },
}

/// The error in one request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestFault {
    /// The part before the first `;`.
    #[error(transparent)]
    Selector(#[from] SelectorError),
    /// A part after the first `;`.
    #[error(transparent)]
    Option(#[from] OptionError),
    #[error(transparent)]
    Class(#[from] ClassFault),
    /// Several requests where one is expected.
    #[error("one request is expected, but there are {count}: write \"\\,\" where a comma is part of a value")]
    List { count: usize },
}

impl RequestError {
    /// # Errors
    /// [`RequestError::TooCostly`] if the cost exceeds its limit.
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
    fn a_cost_equal_to_its_limit_is_allowed() {
        assert_eq!(RequestError::check_cost(7, 7), Ok(()));
        assert_eq!(
            RequestError::check_cost(8, 7),
            Err(RequestError::TooCostly { cost: 8, limit: 7 })
        );
    }
}
