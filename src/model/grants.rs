//! Which device numbers a container may use, and how.

use std::collections::BTreeMap;

use super::device::{Access, DevNum};

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
