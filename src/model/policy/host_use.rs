//! Which block devices the host itself uses. Must not know how they are found (`host::host_use`).

use std::collections::BTreeMap;

use crate::model::device::{DevKind, DevNum};

/// How the host uses a block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// The use, as a phrase after the name of the device: `is mounted at "/media/stick"`.
    pub text: String,
    /// How to end the use: `unmount it`.
    pub hint: Option<&'static str>,
}

impl Use {
    /// A use with a hint how to end it, if that is possible.
    pub fn new(text: impl Into<String>, hint: Option<&'static str>) -> Self {
        Self {
            text: text.into(),
            hint,
        }
    }
}

/// The block devices in use by the host: with a mounted file system, as swap, or as a part of
/// another device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostUse {
    uses: BTreeMap<(u32, u32), Use>,
    /// Whether the use could not be found out: then every device counts as used.
    unknown: bool,
}

impl HostUse {
    /// The host uses exactly these (major, minor) numbers.
    pub fn of(numbers: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let uses = numbers
            .into_iter()
            .map(|number| (number, Use::new("is in use", None)));
        Self::used(uses)
    }

    /// The host uses exactly these (major, minor) numbers in these ways. If a number has several
    /// uses, the first counts.
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

    /// It is unknown what the host uses: every device counts as used.
    pub fn unknown() -> Self {
        Self {
            uses: BTreeMap::new(),
            unknown: true,
        }
    }

    /// How the host uses this device itself; `None` if it does not, and for character devices.
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
