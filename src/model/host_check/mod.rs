//! Whether a host is ready for hotplug: what was seen there in, a verdict for each part out, with
//! the hint.
//!
//! `Fail` is what loses devices without a word, or keeps a container from its devices whatever
//! engine it has; `Warn` is what only some containers would notice, and tells them. Must not know
//! how anything was looked at.

pub mod engine_config;
mod engines;
pub mod facts;
mod finding;
mod host;
pub mod version;

use facts::Facts;
pub use finding::{Finding, Verdict};

/// Judges everything, the host first, then what is installed, then each engine that is there.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = host::judge(facts);
    findings.extend(engines::judge(facts));
    findings
}

#[cfg(test)]
mod tests;
