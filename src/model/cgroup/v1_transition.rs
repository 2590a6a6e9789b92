//! Which device rules to write to a v1 cgroup, so that a container gets its grants and keeps the
//! access that the engine gave it.
//!
//! Decisions only: `host::filter::v1` reads and writes the files.

use crate::model::cgroup::device_rules::DeviceRule;
use crate::model::cgroup::grants::GrantSet;
use crate::model::device::{Access, DevNum};

/// Whether the rules let a process use the device with this access.
///
/// A single rule must allow all of it: the kernel does not combine the access of a wildcard rule
/// and an exact rule (security/device_cgroup.c `match_exception`).
pub(crate) fn covers(rules: &[DeviceRule], num: DevNum, access: Access) -> bool {
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
pub(crate) type Transition = (Verdict, DevNum, Access);

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
pub(crate) fn v1_transition(
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
pub(crate) fn v1_held(held: &GrantSet, done: &[Transition]) -> GrantSet {
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
mod tests;
