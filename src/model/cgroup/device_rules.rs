//! The device rules of cgroup v1, and which rules to write so that a container gets its grants and
//! keeps the access that the engine gave it.
//!
//! Decisions only: `host::filter::v1` reads and writes the files. security/device_cgroup.c is the
//! kernel's implementation.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::cgroup::grants::GrantSet;
use crate::model::device::{Access, AccessError, DevKind, DevNum};

/// One line of `devices.list`: what it allows. `None` means all kinds (`a`) or any number (`*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceRule {
    pub kind: Option<DevKind>,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub access: Access,
}

impl DeviceRule {
    /// The rule for exactly one device number.
    pub fn exactly(num: DevNum, access: Access) -> Self {
        Self {
            kind: Some(num.kind),
            major: Some(num.major),
            minor: Some(num.minor),
            access,
        }
    }

    /// Whether the rule is for this number alone.
    fn is_exactly(&self, num: DevNum) -> bool {
        *self == Self::exactly(num, self.access)
    }

    fn matches(&self, num: DevNum) -> bool {
        self.kind.is_none_or(|kind| kind == num.kind)
            && self.major.is_none_or(|major| major == num.major)
            && self.minor.is_none_or(|minor| minor == num.minor)
    }
}

impl fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            None => 'a',
            Some(DevKind::Block) => 'b',
            Some(DevKind::Char) => 'c',
        };
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        write!(
            f,
            "{kind} {}:{} {}",
            number(self.major),
            number(self.minor),
            self.access
        )
    }
}

/// A text that is not a device rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceRuleError {
    /// The text does not have the form of a line of devices.list.
    #[error("device rule {0:?}: must be \"KIND MAJOR:MINOR ACCESS\", such as \"c 1:3 rwm\" or \"b 8:* r\"")]
    Form(String),
    /// The kind is unknown.
    #[error("device rule {rule:?}: kind {kind:?} must be a, b or c")]
    Kind { rule: String, kind: String },
    /// A number is malformed.
    #[error("device rule {rule:?}: number {number:?} must be decimal, below 2^32, or \"*\"")]
    Number { rule: String, number: String },
    /// The access is malformed.
    #[error("device rule {rule:?}: {source}")]
    Access { rule: String, source: AccessError },
}

impl FromStr for DeviceRule {
    type Err = DeviceRuleError;

    /// Reads a line of `devices.list` (Documentation/admin-guide/cgroup-v1/devices.rst).
    fn from_str(text: &str) -> Result<Self, DeviceRuleError> {
        let rule = || text.to_owned();
        let mut words = text.split_ascii_whitespace();
        let (Some(kind), Some(numbers), Some(access), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(DeviceRuleError::Form(rule()));
        };
        let (major, minor) = numbers
            .split_once(':')
            .ok_or_else(|| DeviceRuleError::Form(rule()))?;
        let kind = match kind {
            "a" => None,
            "b" => Some(DevKind::Block),
            "c" => Some(DevKind::Char),
            _ => {
                return Err(DeviceRuleError::Kind {
                    rule: rule(),
                    kind: kind.to_owned(),
                });
            }
        };
        let number = |number: &str| match number {
            "*" => Ok(None),
            _ if number.starts_with('+') => Err(number.to_owned()),
            _ => number.parse().map(Some).map_err(|_| number.to_owned()),
        };
        let number = |text| number(text).map_err(|number| DeviceRuleError::Number { rule: rule(), number });
        let access = access
            .parse()
            .map_err(|source| DeviceRuleError::Access { rule: rule(), source })?;
        Ok(Self {
            kind,
            major: number(major)?,
            minor: number(minor)?,
            access,
        })
    }
}

impl Serialize for DeviceRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DeviceRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Whether the rules let a process use the device with this access.
///
/// A single rule must allow all of it: the kernel does not combine the access of a wildcard rule
/// and an exact rule (security/device_cgroup.c `match_exception`).
pub fn covers(rules: &[DeviceRule], num: DevNum, access: Access) -> bool {
    rules
        .iter()
        .any(|rule| rule.matches(num) && rule.access.covers(access))
}

/// The access that the rules for exactly this number allow.
fn exact_access(rules: &[DeviceRule], num: DevNum) -> Access {
    rules
        .iter()
        .filter(|rule| rule.is_exactly(num))
        .fold(Access::NONE, |access, rule| access | rule.access)
}

/// Which file of the cgroup a rule is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// `devices.allow`
    Allow,
    /// `devices.deny`
    Deny,
}

/// One rule to write.
pub type Transition = (Verdict, DevNum, Access);

/// The rules to write, in this order, so that `wanted` is allowed and the rest of `held` is not.
///
/// `baseline` is what the engine allowed before the first grant, `current` what the kernel allows
/// now, `held` what oci-hotplug has allowed so far ([`v1_held`]).
/// * To allow: each wanted access that `current` does not cover. It is written whole, because a
///   single rule must allow all of it.
/// * To deny: the held bits that are no longer wanted, unless the baseline has a rule for exactly
///   that number with these bits. Only exact rules change: denying `c 1:3` removes the bits from
///   the rule `c 1:3` and from no wildcard (`dev_exception_rm`), so access that a wildcard of the
///   engine allows remains.
/// * Where everything is allowed by default (`a *:* rwm`), nothing is written: devices.list does
///   not show what is denied there.
pub fn v1_transition(
    baseline: &[DeviceRule],
    current: &[DeviceRule],
    held: &GrantSet,
    wanted: &GrantSet,
) -> Vec<Transition> {
    let allow = wanted
        .iter()
        .filter(|(num, access)| !access.is_none() && !covers(current, **num, **access))
        .map(|(num, access)| (Verdict::Allow, *num, *access));
    let deny = held.iter().filter_map(|(num, held)| {
        let kept = wanted.get(num).copied().unwrap_or(Access::NONE) | exact_access(baseline, *num);
        let there = exact_access(current, *num);
        let surplus = held.without(kept);
        let surplus = surplus.without(surplus.without(there));
        (!surplus.is_none()).then_some((Verdict::Deny, *num, surplus))
    });
    allow.chain(deny).collect()
}

/// What oci-hotplug holds after `done` was written: what it has allowed, now or earlier, and has
/// not denied since.
///
/// Access that was covered by other rules is not held, and must not be denied later.
pub fn v1_held(held: &GrantSet, done: &[Transition]) -> GrantSet {
    let mut held = held.clone();
    for (verdict, num, access) in done {
        let ours = held.entry(*num).or_insert(Access::NONE);
        *ours = match verdict {
            Verdict::Allow => *ours | *access,
            Verdict::Deny => ours.without(*access),
        };
    }
    held.retain(|_, access| !access.is_none());
    held
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
    fn lines_of_devices_list_are_parsed_and_written_unchanged() {
        for line in [
            "c 1:3 rwm",
            "b 8:* r",
            "a *:* rwm",
            "c *:* m",
            "c 136:4294967295 rw",
        ] {
            assert_eq!(line.parse::<DeviceRule>().unwrap().to_string(), line);
        }
    }

    #[test]
    fn a_malformed_rule_is_refused_with_its_reason() {
        let message = |text: &str| text.parse::<DeviceRule>().unwrap_err().to_string();
        let form = "must be \"KIND MAJOR:MINOR ACCESS\", such as \"c 1:3 rwm\" or \"b 8:* r\"";
        assert_eq!(message(""), format!("device rule \"\": {form}"));
        assert_eq!(message("c 1 rwm"), format!("device rule \"c 1 rwm\": {form}"));
        assert_eq!(message("c 1:3 r w"), format!("device rule \"c 1:3 r w\": {form}"));
        assert_eq!(
            message("d 1:3 r"),
            "device rule \"d 1:3 r\": kind \"d\" must be a, b or c"
        );
        let number = "must be decimal, below 2^32, or \"*\"";
        assert_eq!(
            message("c x:3 r"),
            format!("device rule \"c x:3 r\": number \"x\" {number}")
        );
        assert_eq!(
            message("c 1:+3 r"),
            format!("device rule \"c 1:+3 r\": number \"+3\" {number}")
        );
        assert!(message("c 1:3 x").starts_with("device rule \"c 1:3 x\": access \"x\""));
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

    #[test]
    fn the_json_of_a_rule_is_its_text() {
        let rule: DeviceRule = serde_json::from_str("\"c 1:* rw\"").unwrap();
        assert_eq!(serde_json::to_string(&rule).unwrap(), "\"c 1:* rw\"");
        assert!(serde_json::from_str::<DeviceRule>("\"c 1\"").is_err());
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

    fn any_access() -> impl Strategy<Value = Access> {
        (1_u32..8).prop_map(Access::from_bits_truncate)
    }

    fn any_num() -> impl Strategy<Value = DevNum> {
        (
            prop_oneof![Just(DevKind::Block), Just(DevKind::Char)],
            0_u32..3,
            0_u32..3,
        )
            .prop_map(|(kind, major, minor)| DevNum { kind, major, minor })
    }

    fn any_rule() -> impl Strategy<Value = DeviceRule> {
        (any_num(), any_access(), any::<bool>(), any::<bool>()).prop_map(|(num, access, major, minor)| {
            let rule = DeviceRule::exactly(num, access);
            DeviceRule {
                major: rule.major.filter(|_| major),
                minor: rule.minor.filter(|_| minor),
                ..rule
            }
        })
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

        #[test]
        fn a_rule_survives_formatting_and_parsing(rule in any_rule()) {
            prop_assert_eq!(rule.to_string().parse::<DeviceRule>().unwrap(), rule);
        }
    }
}
