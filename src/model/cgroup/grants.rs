//! Which device numbers a container may use, and how.

use std::collections::BTreeMap;

use crate::model::device::{Access, DevNum};

/// The access that oci-hotplug gives, by device number. What the engine gave is not in it.
pub type GrantSet = BTreeMap<DevNum, Access>;

/// The access that both sets give.
pub fn common(one: &GrantSet, other: &GrantSet) -> GrantSet {
    let both = one.iter().filter_map(|(num, access)| {
        let access = *access & *other.get(num)?;
        (!access.is_none()).then_some((*num, access))
    });
    both.collect()
}

/// Whether an idempotent step found something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Change {
    /// It was so already.
    None,
    /// It was made so.
    Made,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::device::DevKind;

    #[test]
    fn what_two_sets_have_in_common_is_the_access_that_both_give() {
        let number = |minor| DevNum {
            kind: DevKind::Char,
            major: 188,
            minor,
        };
        let one: GrantSet = [
            (number(0), Access::READ | Access::WRITE),
            (number(1), Access::READ),
            (number(2), Access::ALL),
        ]
        .into();
        let other: GrantSet = [
            (number(0), Access::WRITE | Access::MKNOD),
            (number(1), Access::WRITE),
            (number(3), Access::ALL),
        ]
        .into();
        assert_eq!(common(&one, &other), [(number(0), Access::WRITE)].into());
        assert_eq!(common(&other, &one), common(&one, &other));
    }
}
