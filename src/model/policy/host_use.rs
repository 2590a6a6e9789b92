//! Which block devices the host itself uses. Must not know how that is found out
//! (`host::host_use`).

use std::collections::BTreeMap;

use crate::model::device::{DevKind, DevNum};

/// How the host uses a block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// What the device is, behind its name: `is mounted at "/media/stick"`.
    pub text: String,
    /// What ends that: `unmount it`.
    pub hint: Option<&'static str>,
}

impl Use {
    /// A use, and how to end it, if that is possible.
    pub fn new(text: impl Into<String>, hint: Option<&'static str>) -> Self {
        Self {
            text: text.into(),
            hint,
        }
    }
}

/// The block devices that hold something of the host's: a mounted file system, swap, a part of
/// another device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostUse {
    uses: BTreeMap<(u32, u32), Use>,
    /// Set when it can't be known: then everything counts as used.
    unknown: bool,
}

impl HostUse {
    /// The host uses exactly these (major, minor).
    pub fn of(numbers: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let uses = numbers
            .into_iter()
            .map(|number| (number, Use::new("is in use", None)));
        Self::used(uses)
    }

    /// The host uses exactly these (major, minor), in these ways; of several ways of one the first
    /// counts.
    pub fn used(uses: impl IntoIterator<Item = ((u32, u32), Use)>) -> Self {
        let mut known = BTreeMap::new();
        for (number, its) in uses {
            known.entry(number).or_insert(its);
        }
        Self {
            uses: known,
            unknown: false,
        }
    }

    /// It can't be known what the host uses: then rather everything.
    pub fn unknown() -> Self {
        Self {
            uses: BTreeMap::new(),
            unknown: true,
        }
    }

    /// How the host uses this device itself; `None` when it does not, and for a character device.
    pub fn use_of(&self, num: DevNum) -> Option<Use> {
        if num.kind != DevKind::Block {
            return None;
        }
        match self.uses.get(&(num.major, num.minor)) {
            Some(known) => Some(known.clone()),
            None if self.unknown => Some(Use::new(
                "may be in use: the disks that the host uses are unknown",
                None,
            )),
            None => None,
        }
    }
}
