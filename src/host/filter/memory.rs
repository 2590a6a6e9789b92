//! What a watcher stores about its filter for the next watcher.

use serde::{Deserialize, Serialize};

use super::cgroups::Cgroups;
use crate::model::cgroup::device_rules::DeviceRule;
use crate::model::cgroup::grants::GrantSet;
use crate::model::device::Access;

/// What the next watcher must know about the filter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterMemory {
    /// What was granted and not revoked.
    #[serde(with = "pairs")]
    pub held: GrantSet,
    /// What the v1 cgroup allowed before the first grant.
    pub baseline: Option<Vec<DeviceRule>>,
    /// The cgroups with the filter.
    #[serde(default)]
    pub cgroups: Cgroups,
}

impl FilterMemory {
    /// What to store before `ensure(grants)` is called: if the watcher crashes during that call,
    /// the next watcher revokes everything that may have been granted.
    pub fn ahead_of(&self, grants: &GrantSet) -> FilterMemory {
        let mut memory = self.clone();
        for (num, access) in grants {
            *memory.held.entry(*num).or_insert(Access::NONE) |= *access;
        }
        memory
    }

    /// Whether everything but the granted access is the same.
    pub fn is_at_the_place_of(&self, other: &FilterMemory) -> bool {
        (&self.baseline, &self.cgroups) == (&other.baseline, &other.cgroups)
    }

    /// Whether a cgroup that still exists has some of these grants.
    pub fn is_in_force(&self) -> bool {
        !self.held.is_empty() && self.cgroups.all().any(|(_, cgroup)| cgroup.exists())
    }
}

/// Serialises a grant set as a list of pairs, because keys of JSON objects are strings and device
/// numbers are not.
mod pairs {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::{Access, GrantSet};
    use crate::model::device::DevNum;

    pub(super) fn serialize<S: Serializer>(grants: &GrantSet, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(grants)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<GrantSet, D::Error> {
        Ok(Vec::<(DevNum, Access)>::deserialize(deserializer)?
            .into_iter()
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::filter::tests::char;

    #[test]
    fn memory_survives_json() {
        let memory = FilterMemory {
            held: [(char(0), Access::READ), (char(1), Access::ALL)].into(),
            baseline: Some(vec!["c 1:3 rwm".parse().unwrap()]),
            cgroups: Cgroups::default(),
        };
        let json = serde_json::to_string(&memory).unwrap();
        assert_eq!(serde_json::from_str::<FilterMemory>(&json).unwrap(), memory);
        assert!(json.contains(r#""baseline":["c 1:3 rwm"]"#), "{json}");
    }

    #[test]
    fn memory_written_ahead_has_held_and_new_grants() {
        let memory = FilterMemory {
            held: [(char(0), Access::READ)].into(),
            ..FilterMemory::default()
        };
        let ahead = memory.ahead_of(&[(char(0), Access::WRITE), (char(1), Access::ALL)].into());
        let both = Access::READ | Access::WRITE;
        assert_eq!(ahead.held, [(char(0), both), (char(1), Access::ALL)].into());
    }
}
