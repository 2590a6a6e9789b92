//! Which candidates may be attached: the decisions as data. The policy's part is made here; leases
//! are I/O and are taken by the watcher (`watcher::admission`).

use crate::model::device::SysPath;
use crate::model::plan::candidates::{Candidate, Candidates};
use crate::model::policy::{Denial, Policy, PolicyContext, Verdict};

/// Whether a candidate may be attached now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
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
    pub fn by_policy(candidates: &Candidates<'_>, policy: &Policy, context: &PolicyContext<'_>) -> Self {
        let decisions = candidates
            .iter()
            .map(|candidate| by_policy(candidate, policy, context));
        Self(decisions.collect())
    }

    /// Each candidate with its decision.
    pub fn of<'c, 'd, 'i>(
        &'d self,
        candidates: &'c Candidates<'i>,
    ) -> impl Iterator<Item = (&'c Candidate<'i>, &'d Decision)> {
        candidates.iter().zip(&self.0)
    }

    /// The candidates that are admitted so far, each with its decision: to be changed where there
    /// is no lease.
    pub fn admitted_mut<'c, 'd, 'i>(
        &'d mut self,
        candidates: &'c Candidates<'i>,
    ) -> impl Iterator<Item = (&'c Candidate<'i>, &'d mut Decision)> {
        let all = candidates.iter().zip(&mut self.0);
        all.filter(|(_, decision)| **decision == Decision::Admitted)
    }
}

fn by_policy(candidate: &Candidate<'_>, policy: &Policy, context: &PolicyContext<'_>) -> Decision {
    if let Some(device) = &candidate.undecided {
        return Decision::Pending(device.clone());
    }
    match policy.judge(candidate.entry, candidate.device, context) {
        Verdict::Denied(denial) => Decision::Denied(denial),
        Verdict::Undecided(device) => Decision::Pending(device),
        Verdict::Allowed(_) => if_admitted(candidate),
    }
}

/// The decision about a candidate that policy and leases admit.
fn if_admitted(candidate: &Candidate<'_>) -> Decision {
    match candidate.awaited() {
        Some(device) => Decision::Pending(device.clone()),
        None => Decision::Admitted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::device::inventory::Inventory;
    use crate::model::device::{UdevState, recorded};
    use crate::model::oci::ProcessUser;
    use crate::model::plan::Planner;
    use crate::model::policy::{ContainerTraits, Fallback, HostUse};
    use crate::model::request::entry::{Origin, RequestEntry};

    /// The decisions about a device in this udev state: by the policy, and if everything is
    /// admitted.
    fn decisions(request: &str, udev_state: UdevState, fallback: Fallback) -> [Vec<Decision>; 2] {
        let mut device = recorded::virtual_device("lab", "lab1", "/dev/lab1", 240, 1);
        device.udev_state = udev_state;
        let inventory = Inventory::new([device]);
        let entry = RequestEntry::new(Origin::Annotation, request.parse().unwrap());
        let mut planner = Planner::new(vec![entry], Vec::new(), ProcessUser::default());
        planner.find_roots(&inventory);
        let candidates = planner.candidates(&inventory);
        let policy = Policy {
            fallback,
            ..Policy::default()
        };
        let context = PolicyContext {
            traits: &ContainerTraits::default(),
            inventory: &inventory,
            host_use: &HostUse::default(),
        };
        let by_policy = Admissions::by_policy(&candidates, &policy, &context);
        [by_policy, Admissions::all(&candidates)].map(|admissions| admissions.0)
    }

    #[test]
    fn a_candidate_is_pending_if_udev_decides_and_else_the_policy_decides() {
        let device = recorded::virtual_device("lab", "lab1", "/dev/lab1", 240, 1).syspath;
        let pending = vec![Decision::Pending(device)];
        let admitted = vec![Decision::Admitted];
        for (request, udev_state, expected) in [
            ("subsystem:lab", UdevState::Pending, &admitted),
            ("subsystem:lab;ready=udev", UdevState::Pending, &pending),
            ("subsystem:lab;ready=udev", UdevState::Processed, &admitted),
            ("subsystem:lab;only=tag:lab", UdevState::Pending, &pending),
            ("subsystem:lab;only=tag:lab", UdevState::Processed, &Vec::new()),
        ] {
            let [by_policy, all] = decisions(request, udev_state, Fallback::Anything);
            assert_eq!(
                (&by_policy, &all),
                (expected, expected),
                "{request} {udev_state:?}"
            );
        }
        let [by_policy, all] = decisions("subsystem:lab;ready=udev", UdevState::Pending, Fallback::Nothing);
        assert!(matches!(by_policy[..], [Decision::Denied(_)]), "{by_policy:?}");
        assert_eq!(all, pending);
        // A candidate that depends on udev is pending, not denied.
        let [by_policy, _] = decisions(
            "subsystem:lab;only=tag:lab",
            UdevState::Pending,
            Fallback::Nothing,
        );
        assert_eq!(by_policy, pending);
    }

    #[test]
    fn only_admitted_candidates_are_left_for_leases() {
        let mut device = recorded::virtual_device("lab", "lab1", "/dev/lab1", 240, 1);
        let mut late = recorded::virtual_device("lab", "lab2", "/dev/lab2", 240, 2);
        (device.udev_state, late.udev_state) = (UdevState::Processed, UdevState::Pending);
        let inventory = Inventory::new([device.clone(), late.clone()]);
        let entry = RequestEntry::new(Origin::Annotation, "subsystem:lab;ready=udev".parse().unwrap());
        let mut planner = Planner::new(vec![entry], Vec::new(), ProcessUser::default());
        planner.find_roots(&inventory);
        let candidates = planner.candidates(&inventory);
        let mut admissions = Admissions::all(&candidates);
        for (candidate, decision) in admissions.admitted_mut(&candidates) {
            assert_eq!(candidate.device.syspath, device.syspath);
            *decision = Decision::Waiting("held by another container".into());
        }
        let waiting = Decision::Waiting("held by another container".into());
        let pending = Decision::Pending(late.syspath.clone());
        let all: Vec<&Decision> = admissions.of(&candidates).map(|(_, decision)| decision).collect();
        assert_eq!(all, [&waiting, &pending]);
        let elsewhere = SysPath::new("/sys/devices/virtual/lab/other");
        let devices = [late.syspath, elsewhere.clone()];
        let unselected: Vec<&SysPath> = candidates.unselected(&devices).collect();
        assert_eq!(unselected, [&elsewhere]);
    }
}
