//! The device rules of cgroup v1, as the kernel writes and reads them (security/device_cgroup.c).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::device::{Access, AccessError, DevKind, DevNum};

/// One line of `devices.list`: what it allows. `None` means all kinds (`a`) or any number (`*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceRule {
    pub kind: Option<DevKind>,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub access: Access,
}

impl DeviceRule {
    /// The rule for exactly one device number.
    pub fn exactly(num: DevNum, access: Access) -> Self {
        Self {
            kind: Some(num.kind),
            major: Some(num.major),
            minor: Some(num.minor),
            access,
        }
    }

    /// Whether the rule is for this number alone.
    pub(super) fn is_exactly(&self, num: DevNum) -> bool {
        *self == Self::exactly(num, self.access)
    }

    pub(super) fn matches(&self, num: DevNum) -> bool {
        self.kind.is_none_or(|kind| kind == num.kind)
            && self.major.is_none_or(|major| major == num.major)
            && self.minor.is_none_or(|minor| minor == num.minor)
    }
}

impl fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            None => 'a',
            Some(DevKind::Block) => 'b',
            Some(DevKind::Char) => 'c',
        };
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        write!(
            f,
            "{kind} {}:{} {}",
            number(self.major),
            number(self.minor),
            self.access
        )
    }
}

/// A text that is not a device rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceRuleError {
    /// The text does not have the form of a line of devices.list.
    #[error("device rule {0:?}: must be \"KIND MAJOR:MINOR ACCESS\", such as \"c 1:3 rwm\" or \"b 8:* r\"")]
    Form(String),
    /// The kind is unknown.
    #[error("device rule {rule:?}: kind {kind:?} must be a, b or c")]
    Kind { rule: String, kind: String },
    /// A number is malformed.
    #[error("device rule {rule:?}: number {number:?} must be decimal, below 2^32, or \"*\"")]
    Number { rule: String, number: String },
    /// The access is malformed.
    #[error("device rule {rule:?}: {source}")]
    Access { rule: String, source: AccessError },
}

impl FromStr for DeviceRule {
    type Err = DeviceRuleError;

    /// Reads a line of `devices.list` (Documentation/admin-guide/cgroup-v1/devices.rst).
    fn from_str(text: &str) -> Result<Self, DeviceRuleError> {
        let rule = || text.to_owned();
        let mut words = text.split_ascii_whitespace();
        let (Some(kind), Some(numbers), Some(access), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(DeviceRuleError::Form(rule()));
        };
        let (major, minor) = numbers
            .split_once(':')
            .ok_or_else(|| DeviceRuleError::Form(rule()))?;
        let kind = match kind {
            "a" => None,
            "b" => Some(DevKind::Block),
            "c" => Some(DevKind::Char),
            _ => {
                return Err(DeviceRuleError::Kind {
                    rule: rule(),
                    kind: kind.to_owned(),
                });
            }
        };
        let number = |number: &str| match number {
            "*" => Ok(None),
            _ if number.starts_with('+') => Err(number.to_owned()),
            _ => number.parse().map(Some).map_err(|_| number.to_owned()),
        };
        let number = |text| number(text).map_err(|number| DeviceRuleError::Number { rule: rule(), number });
        let access = access
            .parse()
            .map_err(|source| DeviceRuleError::Access { rule: rule(), source })?;
        Ok(Self {
            kind,
            major: number(major)?,
            minor: number(minor)?,
            access,
        })
    }
}

impl Serialize for DeviceRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DeviceRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
pub(in crate::model::cgroup) mod tests;
