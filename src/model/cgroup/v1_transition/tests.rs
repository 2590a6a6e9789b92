//! Transitions, applied to a copy of the kernel's lists.

use proptest::prelude::*;

use super::*;
use crate::model::cgroup::device_rules::tests::{any_access, any_num, any_rule};
use crate::model::device::DevKind;

fn rules(text: &str) -> Vec<DeviceRule> {
    text.lines().map(|line| line.trim().parse().unwrap()).collect()
}

fn char(major: u32, minor: u32) -> DevNum {
    DevNum {
        kind: DevKind::Char,
        major,
        minor,
    }
}

fn access(text: &str) -> Access {
    text.parse().unwrap()
}

fn grants(list: &[(DevNum, &str)]) -> GrantSet {
    list.iter().map(|(num, text)| (*num, access(text))).collect()
}

#[test]
fn one_rule_must_have_all_of_the_access() {
    let list = rules("c *:* m\nc 1:3 r");
    assert!(covers(&list, char(1, 3), access("r")));
    assert!(covers(&list, char(1, 3), access("m")));
    assert!(!covers(&list, char(1, 3), access("rm")));
    assert!(!covers(
        &list,
        DevNum {
            kind: DevKind::Block,
            ..char(1, 3)
        },
        access("r")
    ));
    assert!(covers(&rules("a *:* rwm"), char(9, 9), Access::ALL));
}

#[test]
fn a_grant_is_written_once_and_revoked_whole() {
    let baseline = rules("c 1:3 rwm");
    let wanted = grants(&[(char(188, 0), "rw")]);
    let none = GrantSet::new();
    let first = v1_transition(&baseline, &baseline, &none, &wanted);
    assert_eq!(first, [(Verdict::Allow, char(188, 0), access("rw"))]);
    let held = v1_held(&none, &first);
    let current = rules("c 1:3 rwm\nc 188:0 rw");
    assert_eq!(v1_transition(&baseline, &current, &held, &wanted), []);
    let last = v1_transition(&baseline, &current, &held, &none);
    assert_eq!(last, [(Verdict::Deny, char(188, 0), access("rw"))]);
    assert_eq!(v1_held(&held, &last), none);
}

#[test]
fn access_that_the_engine_allowed_is_never_denied() {
    let baseline = rules("c 188:0 r\nc *:* m");
    let wanted = grants(&[(char(188, 0), "rw")]);
    let done = v1_transition(&baseline, &baseline, &GrantSet::new(), &wanted);
    assert_eq!(done, [(Verdict::Allow, char(188, 0), access("rw"))]);
    let held = v1_held(&GrantSet::new(), &done);
    let current = rules("c 188:0 rw\nc *:* m");
    let revoked = v1_transition(&baseline, &current, &held, &GrantSet::new());
    assert_eq!(revoked, [(Verdict::Deny, char(188, 0), access("w"))]);
}

#[test]
fn access_that_was_already_covered_is_not_denied_later() {
    let baseline = rules("b 8:* rwm");
    let disk = DevNum {
        kind: DevKind::Block,
        major: 8,
        minor: 0,
    };
    let wanted = grants(&[(disk, "rw")]);
    let done = v1_transition(&baseline, &baseline, &GrantSet::new(), &wanted);
    assert_eq!(done, []);
    assert_eq!(v1_held(&GrantSet::new(), &done), GrantSet::new());
}

#[test]
fn a_rule_that_was_removed_by_another_process_needs_no_denial() {
    let held = grants(&[(char(188, 0), "rw")]);
    assert_eq!(v1_transition(&[], &[], &held, &GrantSet::new()), []);
}

/// The kernel's list of exceptions where the default is to deny (security/device_cgroup.c).
#[derive(Clone)]
struct Kernel(Vec<DeviceRule>);

impl Kernel {
    /// dev_exception_add: adds the access to the exception with the same type and numbers;
    /// without one, adds a new exception.
    fn allow(&mut self, rule: DeviceRule) {
        let same = |it: &&mut DeviceRule| {
            DeviceRule {
                access: rule.access,
                ..**it
            } == rule
        };
        match self.0.iter_mut().find(same) {
            Some(it) => it.access |= rule.access,
            None => self.0.push(rule),
        }
    }

    /// dev_exception_rm: removes the access from the exception with the same type and numbers,
    /// and from no other.
    fn deny(&mut self, rule: DeviceRule) {
        for it in &mut self.0 {
            if (DeviceRule {
                access: rule.access,
                ..*it
            }) == rule
            {
                it.access = it.access.without(rule.access);
            }
        }
        self.0.retain(|it| !it.access.is_none());
    }

    fn write(&mut self, (verdict, num, access): Transition) {
        let rule = DeviceRule::exactly(num, access);
        match verdict {
            Verdict::Allow => self.allow(rule),
            Verdict::Deny => self.deny(rule),
        }
    }
}

fn any_grants() -> impl Strategy<Value = GrantSet> {
    proptest::collection::btree_map(any_num(), any_access(), 0..5)
}

fn every_use() -> impl Iterator<Item = (DevNum, Access)> {
    let kinds = [DevKind::Block, DevKind::Char];
    let nums = kinds
        .into_iter()
        .flat_map(|kind| (0..9).map(move |n| (kind, n / 3, n % 3)));
    nums.flat_map(|(kind, major, minor)| {
        (1..8).map(move |bits| (DevNum { kind, major, minor }, Access::from_bits_truncate(bits)))
    })
}

proptest! {
    #[test]
    fn after_each_transition_exactly_the_wanted_access_and_the_baseline_are_allowed(
        engine in proptest::collection::vec(any_rule(), 0..6),
        grants in proptest::collection::vec(any_grants(), 1..5),
    ) {
        let mut kernel = Kernel(Vec::new());
        engine.into_iter().for_each(|rule| kernel.allow(rule));
        let baseline = kernel.0.clone();
        let mut held = GrantSet::new();
        for wanted in grants {
            let steps = v1_transition(&baseline, &kernel.0, &held, &wanted);
            steps.iter().for_each(|step| kernel.write(*step));
            held = v1_held(&held, &steps);
            prop_assert_eq!(v1_transition(&baseline, &kernel.0, &held, &wanted), vec![]);
            for (num, access) in &wanted {
                prop_assert!(covers(&kernel.0, *num, *access));
            }
            for (num, access) in every_use() {
                let before = covers(&baseline, num, access);
                let now = covers(&kernel.0, num, access);
                let ours = wanted.get(&num).copied().unwrap_or(Access::NONE);
                let explained = before || (ours | exact_access(&baseline, num)).covers(access);
                prop_assert!(!before || now, "{num} {access}: access that the engine gave is lost");
                prop_assert!(!now || explained, "{num} {access} is allowed, but not wanted");
            }
        }
        let steps = v1_transition(&baseline, &kernel.0, &held, &GrantSet::new());
        steps.iter().for_each(|step| kernel.write(*step));
        for (num, access) in every_use() {
            prop_assert_eq!(covers(&baseline, num, access), covers(&kernel.0, num, access));
        }
    }
}
