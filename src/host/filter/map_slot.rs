//! The map of grants that all programs of a container share; created when the first program needs
//! it.

use std::io;
use std::path::Path;

use super::error::FilterError;
use super::grant_map::{GrantMap, MAX_GRANTS, WriteError};
use crate::model::cgroup::grants::{Change, GrantSet};
use crate::sys::bpf::ProgInfo;

/// The map, created and filled on first use.
pub(super) struct MapSlot<'a> {
    grants: &'a mut Option<GrantMap>,
    wanted: &'a GrantSet,
    leaf: &'a Path,
    /// The result of filling a new map. A grant that does not fit does not prevent the others.
    pub(super) filled: Result<Change, FilterError>,
}

impl<'a> MapSlot<'a> {
    /// A slot for the map in `grants`, which is to grant `wanted`; `leaf` is the container's leaf
    /// cgroup.
    pub(super) fn new(grants: &'a mut Option<GrantMap>, wanted: &'a GrantSet, leaf: &'a Path) -> Self {
        Self {
            grants,
            wanted,
            leaf,
            filled: Ok(Change::None),
        }
    }

    /// The map.
    pub(super) fn get(&mut self) -> Result<&GrantMap, FilterError> {
        let grants = match self.grants.take() {
            Some(grants) => grants,
            None => {
                let failed = |source| FilterError::Map {
                    cgroup: self.leaf.to_owned(),
                    action: "create",
                    source,
                };
                let mut grants = GrantMap::create().map_err(failed)?;
                // The map is filled before a program uses it, so that the grants take effect all at
                // once.
                self.filled = write(&mut grants, self.wanted, self.leaf);
                grants
            }
        };
        Ok(self.grants.insert(grants))
    }

    /// Whether there is nothing to grant.
    pub(super) fn is_empty(&self) -> bool {
        self.wanted.values().all(|access| access.is_none())
    }

    /// Whether a program uses this map and no other.
    pub(super) fn is_used_by(&self, info: &ProgInfo) -> bool {
        self.grants
            .as_ref()
            .is_some_and(|grants| info.map_ids == [grants.map().id()])
    }
}

/// Makes the map grant exactly `wanted`.
pub(super) fn write(map: &mut GrantMap, wanted: &GrantSet, leaf: &Path) -> Result<Change, FilterError> {
    match map.set(wanted) {
        Ok(true) => Ok(Change::Made),
        Ok(false) => Ok(Change::None),
        Err(error) => Err(write_error(leaf, error)),
    }
}

fn write_error(leaf: &Path, WriteError { num, source }: WriteError) -> FilterError {
    // A full map returns E2BIG (kernel/bpf/hashtab.c).
    if source.kind() == io::ErrorKind::ArgumentListTooLong {
        FilterError::Full {
            cgroup: leaf.to_owned(),
            num,
            limit: MAX_GRANTS,
        }
    } else {
        FilterError::Map {
            cgroup: leaf.to_owned(),
            action: "write",
            source,
        }
    }
}
