//! How our programs end: their exit codes, and the line that tells why.

use std::error::Error;

/// Done, or none of our business.
pub const DONE: u8 = 0;
/// It failed.
pub const FAILED: u8 = 1;
/// Wrong usage, or a malformed request.
pub const USAGE: u8 = 2;
/// Denied by the policy.
pub const DENIED: u8 = 3;

/// An error with its causes, in one line. An error whose own words have those of its cause (as ours
/// do, with the hint behind them) is not told twice, as `{:#}` of anyhow's would.
pub fn told(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut said = text.clone();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !said.contains(&words) {
            text = format!("{text}: {words}");
            said = words;
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Fault {
        #[error("cannot open /x: {source} (make it)")]
        Whole { source: std::io::Error },
        #[error("cannot start")]
        Part { source: Box<Fault> },
    }

    fn fault() -> Fault {
        Fault::Whole {
            source: std::io::Error::other("no such thing"),
        }
    }

    #[test]
    fn each_cause_is_printed_once() {
        assert_eq!(told(&fault()), "cannot open /x: no such thing (make it)");
        let part = Fault::Part {
            source: Box::new(fault()),
        };
        assert_eq!(
            told(&part),
            "cannot start: cannot open /x: no such thing (make it)"
        );
        let context = anyhow::Error::from(part).context("cannot ask");
        assert_eq!(
            told(context.as_ref()),
            "cannot ask: cannot start: cannot open /x: no such thing (make it)"
        );
    }
}
