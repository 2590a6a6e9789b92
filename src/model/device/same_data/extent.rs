//! Ranges of the bytes of a medium.

use crate::model::device::SysPath;

/// How many bits of a range's length one level of parts uses, and how many levels there are. Names
/// that differ only in the number at their end get different ranges, as those of the partitions of
/// a disk. Of two other names the chance to get the same range is one in a million; such parts then
/// exclude each other.
pub(super) const LEVEL_BITS: u32 = 20;
const LEVELS: u32 = 3;

/// A range of the bytes of a medium. The numbers are not offsets; they only show which ranges
/// overlap.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Extent {
    /// What the range belongs to: a USB device, a SCSI or NVMe unit, a disk, the file of a loop
    /// device, or the device itself.
    pub medium: SysPath,
    /// The first number of the range.
    pub first: u64,
    /// The last number of the range.
    pub last: u64,
}

impl Extent {
    /// All of a medium.
    pub(crate) fn whole(medium: SysPath) -> Self {
        let last = (1 << (LEVEL_BITS * LEVELS)) - 1;
        Self {
            medium,
            first: 0,
            last,
        }
    }

    /// The range of the part with this name. Below the last level, a part has the range of the
    /// whole.
    pub(crate) fn part(self, name: &str) -> Self {
        let length = (self.last - self.first + 1) >> LEVEL_BITS;
        if length == 0 {
            return self;
        }
        let first = self.first + index(name) * length;
        Self {
            first,
            last: first + length - 1,
            ..self
        }
    }

    pub(crate) fn overlaps(&self, other: &Extent) -> bool {
        self.medium == other.medium && self.first <= other.last && other.first <= self.last
    }

    pub(super) fn covers(&self, other: &Extent) -> bool {
        self.medium == other.medium && self.first <= other.first && other.last <= self.last
    }
}

/// Which of the ranges of the whole the part with this name has.
fn index(name: &str) -> u64 {
    let prefix = name.trim_end_matches(|digit: char| digit.is_ascii_digit());
    let (prefix, number) = match name[prefix.len()..].parse::<u64>() {
        Ok(number) => (prefix, number),
        Err(_) => (name, 0),
    };
    let ranges = 1 << LEVEL_BITS;
    ((mixed(fnv(prefix, 0)) >> (64 - LEVEL_BITS)) + number % ranges) % ranges
}

/// Whether two devices have bytes in common.
pub(crate) fn overlap(one: &[Extent], other: &[Extent]) -> bool {
    one.iter()
        .any(|one| other.iter().any(|other| one.overlaps(other)))
}

/// FNV-1a, 64 bits. It is the same in every build, which the standard library's hasher does not
/// guarantee. `seed` selects one of several hash functions. The kernel names devices, so nobody can
/// choose names that collide.
pub(crate) fn fnv(text: &str, seed: u8) -> u64 {
    [seed]
        .iter()
        .chain(text.as_bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

/// A hash whose high bits depend on all of `hash` (FNV's high bits hardly depend on the last byte
/// of a name): a shortened form of MurmurHash3's 64 bit finalizer.
fn mixed(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_number_in_a_name_has_a_range() {
        let ranges = 1 << LEVEL_BITS;
        let beside = |name: &str| (index(name) + 1) % ranges;
        let greatest = format!("sda{}", u64::MAX);
        assert_eq!(
            beside(&greatest),
            index("sda0"),
            "2^64 is a multiple of the number of ranges"
        );
        assert_eq!(beside("sda7"), index("sda8"));
    }
}
