//! Which device numbers a container may use, and how.

use std::collections::BTreeMap;

use super::device::{Access, DevNum};

/// The access that oci-hotplug gives, by device number. What the engine gave is not in it.
pub type GrantSet = BTreeMap<DevNum, Access>;

/// Whether an idempotent step found something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Change {
    /// It was so already.
    None,
    /// It was made so.
    Made,
}
