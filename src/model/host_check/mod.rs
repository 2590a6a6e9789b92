//! Whether a host is ready for hotplug: what was seen there in, a verdict for each part out, with the hint.
//!
//! `Fail` is what loses devices without a word, or keeps a container from its devices whatever engine it has; `Warn`
//! is what only some containers would notice, and tells them. Must not know how anything was looked at.

pub mod engine_config;
mod engines;
pub mod facts;
mod host;
pub mod version;

use serde::Serialize;

use facts::Facts;

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
    fn ok(check: &'static str, seen: impl Into<String>) -> Self {
        Self {
            check,
            verdict: Verdict::Ok,
            seen: seen.into(),
            hint: None,
        }
    }

    fn warn(check: &'static str, seen: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            check,
            verdict: Verdict::Warn,
            seen: seen.into(),
            hint: Some(hint.into()),
        }
    }

    fn fail(check: &'static str, seen: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Fail,
            ..Self::warn(check, seen, hint)
        }
    }
}

/// Judges everything, the host first, then what is installed, then each engine that is there.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = host::judge(facts);
    findings.extend(engines::judge(facts));
    findings
}

#[cfg(test)]
mod tests;
