//! What a container may do with a device: read, write, create its node.

use std::fmt;
use std::ops::{BitAnd, BitOr, BitOrAssign};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What a process may do with a device, as the device cgroup defines it: read, write, create a
/// node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Access(u8);

impl Access {
    pub const NONE: Access = Access(0);
    /// `mknod(2)` with the device's number. The bit is the kernel's BPF_DEVCG_ACC_MKNOD
    /// (linux/bpf.h).
    pub const MKNOD: Access = Access(1);
    /// Opening for reading, BPF_DEVCG_ACC_READ.
    pub const READ: Access = Access(2);
    /// Opening for writing, BPF_DEVCG_ACC_WRITE.
    pub const WRITE: Access = Access(4);
    /// Everything, `rwm`.
    pub const ALL: Access = Access(7);

    /// The bits as the kernel numbers them (linux/bpf.h, BPF_DEVCG_ACC_*).
    pub fn bits(self) -> u32 {
        u32::from(self.0)
    }

    /// The access with these bits of the kernel; unknown bits are dropped.
    pub fn from_bits_truncate(bits: u32) -> Self {
        Self((bits & 7) as u8)
    }

    /// Whether `self` includes all of `other`.
    pub fn covers(self, other: Access) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether `self` and `other` have a bit in common.
    pub fn meets(self, other: Access) -> bool {
        self.0 & other.0 != 0
    }

    /// The access that is in `self` and not in `other`.
    pub fn without(self, other: Access) -> Access {
        Access(self.0 & !other.0)
    }

    pub fn is_none(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for Access {
    type Output = Access;
    fn bitor(self, other: Access) -> Access {
        Access(self.0 | other.0)
    }
}

impl BitAnd for Access {
    type Output = Access;
    fn bitand(self, other: Access) -> Access {
        Access(self.0 & other.0)
    }
}

impl BitOrAssign for Access {
    fn bitor_assign(&mut self, other: Access) {
        self.0 |= other.0;
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, letter) in [(Self::READ, "r"), (Self::WRITE, "w"), (Self::MKNOD, "m")] {
            if self.covers(bit) {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

/// A text that is not an access.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("access {0:?}: must be one to three of the letters r, w and m, each at most once")]
pub struct AccessError(String);

impl FromStr for Access {
    type Err = AccessError;

    /// Parses one to three of `r`, `w`, `m` in any order, each at most once.
    fn from_str(text: &str) -> Result<Self, AccessError> {
        let mut access = Access::NONE;
        for letter in text.chars() {
            let bit = match letter {
                'r' => Self::READ,
                'w' => Self::WRITE,
                'm' => Self::MKNOD,
                _ => return Err(AccessError(text.to_owned())),
            };
            if access.covers(bit) {
                return Err(AccessError(text.to_owned()));
            }
            access |= bit;
        }
        if access.is_none() {
            return Err(AccessError(text.to_owned()));
        }
        Ok(access)
    }
}

impl Serialize for Access {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Access {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(Access::NONE);
        }
        text.parse().map_err(serde::de::Error::custom)
    }
}
