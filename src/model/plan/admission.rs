//! Which candidates may be attached: the decisions as data. The policy's part is made here; leases are I/O and are taken by
//! the watcher (`watcher::admission`).

use crate::model::device::SysPath;
use crate::model::plan::candidates::{Candidate, Candidates};
use crate::model::policy::{Denial, Policy, Situation, Verdict};

/// Whether a candidate may be attached now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may.
    Admitted,
    /// It depends on udev facts of this device, which udevd has not processed yet.
    Pending(SysPath),
    /// The policy denies it.
    Denied(Denial),
    /// Another container holds the lease; the text says how.
    Waiting(String),
}

/// One decision for each candidate, in the same order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admissions(Vec<Decision>);

impl Admissions {
    /// Admits every candidate that udevd need not process first.
    pub fn all(candidates: &Candidates<'_>) -> Self {
        Self(candidates.iter().map(if_admitted).collect())
    }

    /// What the policy says of each candidate.
    pub fn by_policy(candidates: &Candidates<'_>, policy: &Policy, situation: &Situation<'_>) -> Self {
        let decisions = candidates
            .iter()
            .map(|candidate| by_policy(candidate, policy, situation));
        Self(decisions.collect())
    }

    /// Each candidate with its decision.
    pub fn of<'c, 'd, 'i>(
        &'d self,
        candidates: &'c Candidates<'i>,
    ) -> impl Iterator<Item = (&'c Candidate<'i>, &'d Decision)> {
        candidates.iter().zip(&self.0)
    }

    /// The candidates that are admitted so far, each with its decision: to be changed where there is no lease.
    pub fn admitted_mut<'c, 'd, 'i>(
        &'d mut self,
        candidates: &'c Candidates<'i>,
    ) -> impl Iterator<Item = (&'c Candidate<'i>, &'d mut Decision)> {
        let all = candidates.iter().zip(&mut self.0);
        all.filter(|(_, decision)| **decision == Decision::Admitted)
    }
}

fn by_policy(candidate: &Candidate<'_>, policy: &Policy, situation: &Situation<'_>) -> Decision {
    if let Some(device) = &candidate.undecided {
        return Decision::Pending(device.clone());
    }
    match policy.judge(candidate.entry, candidate.device, situation) {
        Verdict::Denied(denial) => Decision::Denied(denial),
        Verdict::Undecided(device) => Decision::Pending(device),
        Verdict::Allowed(_) => if_admitted(candidate),
    }
}

/// The decision about a candidate that policy and leases admit.
fn if_admitted(candidate: &Candidate<'_>) -> Decision {
    match &candidate.undecided {
        Some(device) => Decision::Pending(device.clone()),
        None if candidate.entry.request.awaits_udev(candidate.device) => {
            Decision::Pending(candidate.device.syspath.clone())
        }
        None => Decision::Admitted,
    }
}
