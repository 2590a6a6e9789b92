//! Devices whose events were skipped, because they could not concern anyone: they are read before
//! the list of devices is used again.

use std::collections::BTreeSet;

use crate::model::device::SysPath;

/// The maximum number of devices that are read one by one; if there are more, all are read.
const LIMIT: usize = 256;

/// The devices that an inventory does not have as they are now.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Skipped {
    #[default]
    None,
    /// These.
    Devices(BTreeSet<SysPath>),
    /// Too many to list.
    Unknown,
}

impl Skipped {
    /// Adds a device.
    pub(super) fn add(&mut self, syspath: SysPath) {
        match self {
            Self::None => *self = Self::Devices([syspath].into()),
            Self::Devices(devices) => {
                devices.insert(syspath);
                if devices.len() > LIMIT {
                    *self = Self::Unknown;
                }
            }
            Self::Unknown => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_device_is_listed_once_and_too_many_are_not_listed() {
        let mut skipped = Skipped::default();
        for _ in 0..2 {
            skipped.add(SysPath::new("/sys/devices/a"));
        }
        assert_eq!(skipped, Skipped::Devices([SysPath::new("/sys/devices/a")].into()));
        for number in 1..LIMIT {
            skipped.add(SysPath::new(format!("/sys/devices/{number}")));
        }
        assert!(matches!(skipped, Skipped::Devices(_)));
        skipped.add(SysPath::new("/sys/devices/b"));
        skipped.add(SysPath::new("/sys/devices/c"));
        assert_eq!(skipped, Skipped::Unknown);
    }
}
