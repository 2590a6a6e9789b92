//! Whether a host is ready for hotplug: turns facts into one finding per part, with a hint.
//!
//! `Fail` means that devices would be missing without any message, or that no engine could give a
//! container its devices. `Warn` means that only some containers are affected, and that they get a
//! message. Must not know how the facts were collected.

pub(crate) mod engine_config;
mod engines;
pub(crate) mod facts;
mod finding;
mod host;
pub(crate) mod version;

use facts::Facts;
pub(crate) use finding::{Finding, Verdict};

/// Judges the host first, then what is installed, then each installed engine.
pub(crate) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = host::judge(facts);
    findings.extend(engines::judge(facts));
    findings
}

#[cfg(test)]
mod tests;
