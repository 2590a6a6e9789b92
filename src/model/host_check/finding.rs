//! The verdict on one part of the host.

use serde::Serialize;

/// How good it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Some containers may lack something, and will be told.
    Warn,
    /// It does not work so.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, in one word.
    pub check: &'static str,
    /// How good it is.
    pub verdict: Verdict,
    /// What was seen.
    pub seen: String,
    /// What to do; always there unless the verdict is `Ok`.
    pub hint: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: &'static str, seen: impl Into<String>) -> Self {
        Self {
            check,
            verdict: Verdict::Ok,
            seen: seen.into(),
            hint: None,
        }
    }

    pub(super) fn warn(check: &'static str, seen: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            check,
            verdict: Verdict::Warn,
            seen: seen.into(),
            hint: Some(hint.into()),
        }
    }

    pub(super) fn fail(check: &'static str, seen: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Fail,
            ..Self::warn(check, seen, hint)
        }
    }
}
