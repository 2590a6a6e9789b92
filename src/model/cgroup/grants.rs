//! Which device numbers a container may access, and with which access.

use std::collections::BTreeMap;

use crate::model::device::{Access, DevNum};

/// The access that oci-hotplug grants, by device number. Does not contain what the engine gave.
pub type GrantSet = BTreeMap<DevNum, Access>;

/// The grants with all this access. A number that occurs several times has all of its access.
pub fn granting(all: impl Iterator<Item = (DevNum, Access)>) -> GrantSet {
    let mut grants = GrantSet::new();
    for (num, access) in all {
        *grants.entry(num).or_insert(Access::NONE) |= access;
    }
    grants
}

/// The access that is in both sets.
pub fn common(one: &GrantSet, other: &GrantSet) -> GrantSet {
    let both = one.iter().filter_map(|(num, access)| {
        let access = *access & *other.get(num)?;
        (!access.is_none()).then_some((*num, access))
    });
    both.collect()
}

/// Whether an idempotent step changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Change {
    None,
    Made,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::device::DevKind;

    #[test]
    fn the_common_part_of_two_sets_is_the_access_that_is_in_both() {
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
