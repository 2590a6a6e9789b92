//! Whether a host is ready for hotplug: turns facts into one finding per part, with a hint.
//!
//! `Fail` means that devices would be missing without any message, or that no engine could give a
//! container its devices. `Warn` means that only some containers are affected, and that they get a
//! message. Must not know how the facts were collected.

mod containers;
pub(crate) mod engine_config;
mod engines;
pub(crate) mod facts;
mod finding;
mod installed;
mod system;
mod text;
pub(crate) mod version;

use facts::Facts;
pub(crate) use finding::{Finding, Verdict};

/// Judges the host first, then what is installed, then the containers, then each installed engine.
pub(crate) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = system::judge(facts);
    findings.extend(installed::judge(facts));
    findings.extend(containers::judge(facts));
    findings.extend(engines::judge(facts));
    findings
}

#[cfg(test)]
mod tests;
