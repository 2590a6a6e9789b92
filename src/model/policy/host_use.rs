//! Which block devices the host itself uses. Must not know how that is found out (`host::host_use`).

use std::collections::BTreeSet;

use crate::model::device::{DevKind, DevNum};

/// The block devices that hold something of the host's: a mounted file system, swap, a part of another device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostUse {
    numbers: BTreeSet<(u32, u32)>,
    /// Set when it can't be known: then everything counts as used.
    unknown: bool,
}

impl HostUse {
    /// The host uses exactly these (major, minor).
    pub fn of(numbers: impl IntoIterator<Item = (u32, u32)>) -> Self {
        Self {
            numbers: numbers.into_iter().collect(),
            unknown: false,
        }
    }

    /// It can't be known what the host uses: then rather everything.
    pub fn unknown() -> Self {
        Self {
            numbers: BTreeSet::new(),
            unknown: true,
        }
    }

    /// Whether the host uses this device itself; never so for a character device.
    pub fn uses(&self, num: DevNum) -> bool {
        num.kind == DevKind::Block && (self.unknown || self.numbers.contains(&(num.major, num.minor)))
    }
}
