//! The result of the check for one part of the host.

use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Ok,
    /// Some containers may lack devices, and get a message about it.
    Warn,
    /// Hotplug does not work this way.
    Fail,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// The name of the check, one word.
    pub check: &'static str,
    pub verdict: Verdict,
    /// What the check found.
    pub found: String,
    /// How to fix it. `None` if the verdict is `Ok`, or if another check has the cause.
    pub hint: Option<String>,
    /// The check that failed and thereby made this one fail.
    pub caused_by: Option<&'static str>,
}

impl Finding {
    pub(super) fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self {
            check,
            verdict: Verdict::Ok,
            found: found.into(),
            hint: None,
            caused_by: None,
        }
    }

    pub(super) fn warn(check: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            check,
            verdict: Verdict::Warn,
            found: found.into(),
            hint: Some(hint.into()),
            caused_by: None,
        }
    }

    pub(super) fn fail(check: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Fail,
            ..Self::warn(check, found, hint)
        }
    }

    /// A failure that ends when the check `cause` succeeds.
    pub(super) fn caused_by(check: &'static str, found: impl Into<String>, cause: &'static str) -> Self {
        Self {
            verdict: Verdict::Fail,
            caused_by: Some(cause),
            ..Self::ok(check, found)
        }
    }
}
