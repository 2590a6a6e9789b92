//! The result of the check for one part of the host.

use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// Some containers may lack devices, and get a message about it.
    Warn,
    /// Hotplug does not work this way.
    Fail,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The name of the check, one word.
    pub check: &'static str,
    pub verdict: Verdict,
    /// What the check has seen.
    pub seen: String,
    /// How to fix it; always present unless the verdict is `Ok`.
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
