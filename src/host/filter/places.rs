//! The cgroups that a filter covers, identified so that a path that is used again is not taken for the same cgroup.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::cgroup::{CgroupPlace, Version};
use super::error::{FilterError, is_gone};
use crate::host::container::Cgroups;

/// The places of one container's cgroups, as [`Cgroups`] has their directories.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// In the v1 hierarchy with the devices controller.
    #[serde(default)]
    pub v1: Option<CgroupPlace>,
    /// In the v2 hierarchy, the leaf first.
    #[serde(default)]
    pub v2: Vec<CgroupPlace>,
}

impl Places {
    /// Where these cgroups are.
    ///
    /// # Errors
    /// [`FilterError::Gone`] when one is not there.
    pub fn of(cgroups: &Cgroups) -> Result<Self, FilterError> {
        let place = |path: &PathBuf| {
            CgroupPlace::at(path).map_err(|source| match is_gone(&source) {
                true => FilterError::Gone { cgroup: path.clone() },
                false => FilterError::Open {
                    cgroup: path.clone(),
                    source,
                },
            })
        };
        Ok(Self {
            v1: cgroups.v1_devices.as_ref().map(place).transpose()?,
            v2: cgroups.v2.iter().map(place).collect::<Result<_, _>>()?,
        })
    }

    /// Their directories.
    pub fn cgroups(&self) -> Cgroups {
        Cgroups {
            v1_devices: self.v1.as_ref().map(|place| place.path.clone()),
            v2: self.v2.iter().map(|place| place.path.clone()).collect(),
        }
    }

    /// Each with its hierarchy.
    pub fn all(&self) -> impl Iterator<Item = (Version, &CgroupPlace)> {
        let v1 = self.v1.iter().map(|place| (Version::V1, place));
        v1.chain(self.v2.iter().map(|place| (Version::V2, place)))
    }

    /// Whether all are where they were.
    pub fn exist(&self) -> bool {
        self.all().all(|(_, place)| place.exists())
    }

    /// Whether there is none: the container is in the root cgroup.
    pub fn is_empty(&self) -> bool {
        self.v1.is_none() && self.v2.is_empty()
    }

    /// Whether a container in `cgroups` is covered: its leaf is one of the places, or below one. What is granted above holds
    /// below, too (on v1: for cgroups that are made after the grant).
    pub fn cover(&self, cgroups: &Cgroups) -> bool {
        let v1 = match (&self.v1, &cgroups.v1_devices) {
            (Some(place), Some(path)) => path.starts_with(&place.path),
            (None, None) => true,
            _ => false,
        };
        let v2 = match cgroups.v2.first() {
            Some(leaf) => self.v2.iter().any(|place| leaf.starts_with(&place.path)),
            None => self.v2.is_empty(),
        };
        v1 && v2
    }

    pub(super) fn has(&self, version: Version, place: &CgroupPlace) -> bool {
        self.all().any(|known| known == (version, place))
    }

    pub(super) fn add(&mut self, version: Version, place: CgroupPlace) {
        match version {
            Version::V1 => self.v1 = Some(place),
            Version::V2 => self.v2.push(place),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str) -> CgroupPlace {
        CgroupPlace {
            path: path.into(),
            inode: 1,
        }
    }

    fn v2(paths: &[&str]) -> Places {
        Places {
            v1: None,
            v2: paths.iter().map(|path| place(path)).collect(),
        }
    }

    fn at(path: &str) -> Cgroups {
        Cgroups {
            v1_devices: None,
            v2: vec![path.into()],
        }
    }

    /// Case security 9.
    #[test]
    fn a_systemd_inside_that_moves_its_init_below_stays_covered_and_a_sibling_is_not() {
        let crun = v2(&["/cg/scope/container", "/cg/scope"]);
        for covered in [
            "/cg/scope/container",
            "/cg/scope/container/init.scope",
            "/cg/scope/payload",
        ] {
            assert!(crun.cover(&at(covered)), "{covered}");
        }
        for moved in ["/cg/scope2", "/cg", "/cg/other/container"] {
            assert!(!crun.cover(&at(moved)), "{moved}");
        }
        assert!(!crun.cover(&Cgroups::default()), "the root cgroup");
        assert!(Places::default().cover(&Cgroups::default()));
        let v1 = Places {
            v1: Some(place("/cg/devices/a")),
            v2: Vec::new(),
        };
        let devices = |path: &str| Cgroups {
            v1_devices: Some(path.into()),
            v2: Vec::new(),
        };
        assert!(v1.cover(&devices("/cg/devices/a/b")));
        assert!(!v1.cover(&devices("/cg/devices/b")));
        assert!(!v1.cover(&at("/cg/devices/a")));
    }
}
