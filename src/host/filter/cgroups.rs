//! The cgroups that a filter covers, identified so that other cgroups with the same paths are not
//! mistaken for them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::cgroup::{Cgroup, Version};
use super::error::{FilterError, is_gone};
use crate::host::container::CgroupPaths;

/// The cgroups of one container, at the directories of [`CgroupPaths`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroups {
    /// In the v1 hierarchy with the devices controller.
    #[serde(default)]
    pub v1: Option<Cgroup>,
    /// In the v2 hierarchy, the leaf first.
    #[serde(default)]
    pub v2: Vec<Cgroup>,
}

impl Cgroups {
    /// The cgroups at these paths.
    ///
    /// # Errors
    /// [`FilterError::Gone`] when one does not exist.
    pub fn of(paths: &CgroupPaths) -> Result<Self, FilterError> {
        let open = |path: &PathBuf| {
            Cgroup::at(path).map_err(|source| match is_gone(&source) {
                true => FilterError::Gone { cgroup: path.clone() },
                false => FilterError::Open {
                    cgroup: path.clone(),
                    source,
                },
            })
        };
        Ok(Self {
            v1: paths.v1_devices.as_ref().map(open).transpose()?,
            v2: paths.v2.iter().map(open).collect::<Result<_, _>>()?,
        })
    }

    /// Their directories.
    pub fn paths(&self) -> CgroupPaths {
        CgroupPaths {
            v1_devices: self.v1.as_ref().map(|cgroup| cgroup.path.clone()),
            v2: self.v2.iter().map(|cgroup| cgroup.path.clone()).collect(),
        }
    }

    /// Each cgroup with its hierarchy.
    pub fn all(&self) -> impl Iterator<Item = (Version, &Cgroup)> {
        let v1 = self.v1.iter().map(|cgroup| (Version::V1, cgroup));
        v1.chain(self.v2.iter().map(|cgroup| (Version::V2, cgroup)))
    }

    /// Whether all of them still exist.
    pub fn exist(&self) -> bool {
        self.all().all(|(_, cgroup)| cgroup.exists())
    }

    /// Whether there are none, because the container is in the root cgroup.
    pub fn is_empty(&self) -> bool {
        self.v1.is_none() && self.v2.is_empty()
    }

    /// Whether the filter covers a container at `paths`: its leaf is one of the cgroups or below
    /// one. Grants apply below a cgroup, too (on v1 only to cgroups that are created after the
    /// grant).
    pub fn cover(&self, paths: &CgroupPaths) -> bool {
        let v1 = match (&self.v1, &paths.v1_devices) {
            (Some(cgroup), Some(path)) => path.starts_with(&cgroup.path),
            (None, None) => true,
            _ => false,
        };
        let v2 = match paths.v2.first() {
            Some(leaf) => self.v2.iter().any(|cgroup| leaf.starts_with(&cgroup.path)),
            None => self.v2.is_empty(),
        };
        v1 && v2
    }

    pub(super) fn has(&self, version: Version, cgroup: &Cgroup) -> bool {
        self.all().any(|known| known == (version, cgroup))
    }

    pub(super) fn add(&mut self, version: Version, cgroup: Cgroup) {
        match version {
            Version::V1 => self.v1 = Some(cgroup),
            Version::V2 => self.v2.push(cgroup),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroup(path: &str) -> Cgroup {
        Cgroup {
            path: path.into(),
            inode: 1,
        }
    }

    fn v2(paths: &[&str]) -> Cgroups {
        Cgroups {
            v1: None,
            v2: paths.iter().map(|path| cgroup(path)).collect(),
        }
    }

    fn at(path: &str) -> CgroupPaths {
        CgroupPaths {
            v1_devices: None,
            v2: vec![path.into()],
        }
    }

    /// Case security 9.
    #[test]
    fn a_filter_covers_child_cgroups_but_not_siblings() {
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
        assert!(!crun.cover(&CgroupPaths::default()), "the root cgroup");
        assert!(Cgroups::default().cover(&CgroupPaths::default()));
        let v1 = Cgroups {
            v1: Some(cgroup("/cg/devices/a")),
            v2: Vec::new(),
        };
        let devices = |path: &str| CgroupPaths {
            v1_devices: Some(path.into()),
            v2: Vec::new(),
        };
        assert!(v1.cover(&devices("/cg/devices/a/b")));
        assert!(!v1.cover(&devices("/cg/devices/b")));
        assert!(!v1.cover(&at("/cg/devices/a")));
    }
}
