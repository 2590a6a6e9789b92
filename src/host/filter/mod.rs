//! The device filter of one container: what its cgroups let it open, made to cover the grants and nothing more.
//!
//! The engine's own rules stay as they are. What to grant is decided elsewhere (`model::plan`); here it is only
//! made so, read back, and made so again after an engine has rewritten its filter. Must not know nodes or devices.

mod above;
mod grant_map;
mod places;
mod v1;
mod v2;

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use places::Places;

use crate::host::state::cgroup_owners::{Claim, ClaimError, Owner, Version};
use crate::model::cgroup::device_rules::{DeviceRule, Verdict};
use crate::model::cgroup::filter_program::SpliceError;
use crate::model::cgroup::grants::{Change, GrantSet};
use crate::model::device::{Access, DevNum};
use crate::sys::bpf::LoadError;

/// The container's own cgroups, as directories of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroups {
    /// Its cgroup of the v1 devices hierarchy, where that is mounted.
    pub v1_devices: Option<PathBuf>,
    /// Its cgroups of the v2 hierarchy, the leaf first, up to the container's own top cgroup. Never an ancestor
    /// that other containers share.
    pub v2: Vec<PathBuf>,
}

/// What a watcher that takes over must know of what its predecessor did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterMemory {
    /// What we have allowed and not taken back.
    #[serde(with = "pairs")]
    pub held: GrantSet,
    /// What the v1 cgroup allowed before us.
    pub baseline: Option<Vec<DeviceRule>>,
    /// The cgroups that all this is about.
    #[serde(default)]
    pub places: Places,
}

impl FilterMemory {
    /// What to store *before* `ensure(grants)` is called, so that a watcher that dies in it leaves nothing allowed
    /// that its successor does not take back.
    pub fn ahead_of(&self, grants: &GrantSet) -> FilterMemory {
        let mut memory = self.clone();
        for (num, access) in grants {
            *memory.held.entry(*num).or_insert(Access::NONE) |= *access;
        }
        memory
    }

    /// Whether a cgroup still has some of these grants.
    pub fn is_in_force(&self) -> bool {
        !self.held.is_empty() && self.places.all().any(|(_, place)| place.exists())
    }
}

/// A grant set as a list of pairs: JSON's keys are texts, device numbers are none.
mod pairs {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::{Access, DevNum, GrantSet};

    pub fn serialize<S: Serializer>(grants: &GrantSet, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(grants)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<GrantSet, D::Error> {
        Ok(Vec::<(DevNum, Access)>::deserialize(deserializer)?
            .into_iter()
            .collect())
    }
}

/// Something that makes a container's device access cover the grants.
pub trait DeviceFilter {
    /// Makes the filter allow exactly `grants` beside what the engine allows, and says whether it had to do anything.
    ///
    /// Idempotent, and cheap when nothing has changed; to be asked again at least each second, since nothing tells
    /// when an engine rewrites its filter. All cgroups are tried; the first error is returned. After
    /// [`FilterError::Refused`] all grants are in force but those that it names.
    fn ensure(&mut self, grants: &GrantSet) -> Result<Change, FilterError>;
}

/// The filter on the cgroups of one container.
#[derive(Debug)]
pub struct CgroupFilter {
    v1: Option<v1::Devices>,
    v2: v2::Programs,
    places: Places,
    owner: Option<Owner>,
    /// The places that are known to be ours.
    claimed: Places,
}

/// Opens the filter of these cgroups. Changes nothing.
///
/// `memory` is what [`CgroupFilter::memory`] returned last, or the default for a container that is new to us: then
/// what the v1 cgroup allows now is taken for what the engine allowed. So it is when the memory is about another cgroup. The
/// grants of cgroup v2 are found again in the kernel, through the programs attached there.
pub fn open(cgroups: &Cgroups, memory: FilterMemory) -> Result<CgroupFilter, FilterError> {
    let places = Places::of(cgroups)?;
    let v2 = v2::Programs::open(&cgroups.v2)?;
    let memory = match &memory.places.v1 {
        Some(place) if Some(place) != places.v1.as_ref() => FilterMemory::default(),
        _ => memory,
    };
    let v1 = match &places.v1 {
        Some(place) => Some(v1::Devices::open(place.clone(), memory)?),
        None => None,
    };
    Ok(CgroupFilter {
        v1,
        v2,
        places,
        owner: None,
        claimed: Places::default(),
    })
}

/// Takes back what `memory` says that a container which has ended was granted: where its cgroup outlives it, other processes
/// there would keep the access. Then gives the cgroups up. One that another running container owns is left alone.
pub fn revoke(memory: &FilterMemory, owner: &Owner) -> Result<(), FilterError> {
    let mut outcome = Ok(());
    for (version, place) in memory.places.all() {
        if !place.exists() {
            owner.release(version, place);
            continue;
        }
        let revoked = owner.last_work(version, place, || {
            match version {
                Version::V1 => v1::Devices::open(place.clone(), memory.clone())?.ensure(&GrantSet::new()),
                Version::V2 => {
                    let mut programs = v2::Programs::open(std::slice::from_ref(&place.path))?;
                    // The path may lead to a cgroup that was made a moment ago, with grants of its own.
                    match place.exists() {
                        true => programs.ensure(&GrantSet::new()),
                        false => Ok(Change::None),
                    }
                }
            }
            .map(|_| ())
        });
        outcome = outcome.and(match revoked {
            Ok(None | Some(Ok(()) | Err(FilterError::Gone { .. }))) => Ok(()),
            Ok(Some(Err(error))) => Err(error),
            Err(error) => Err(error.into()),
        });
    }
    outcome
}

impl CgroupFilter {
    /// Makes `owner` the owner of the cgroups, so that no other container's grants are written there. A cgroup that restricts
    /// nothing needs no owner, until it does: any number of containers may be in it.
    pub fn owned_by(mut self, owner: Owner) -> Result<Self, FilterError> {
        self.owner = Some(owner);
        match self.claim() {
            Ok(()) => Ok(self),
            Err(error) => {
                self.release();
                Err(error)
            }
        }
    }

    /// A filter of no cgroup, which remembers where the container was last.
    pub fn nowhere(places: Places) -> Self {
        Self {
            v1: None,
            v2: v2::Programs::none(),
            places,
            owner: None,
            claimed: Places::default(),
        }
    }

    /// The cgroups.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// Takes back all grants and gives the cgroups up. Those that are gone have nothing more to take back.
    pub fn leave(&mut self) -> Result<(), FilterError> {
        match self.ensure(&GrantSet::new()) {
            Ok(_) | Err(FilterError::Gone { .. }) => {}
            // Another container has the cgroup by now, and nothing of ours is left in it.
            Err(FilterError::Owned { .. }) if self.memory().held.is_empty() => {}
            Err(error) => return Err(error),
        }
        self.release();
        Ok(())
    }

    /// What to store for the next watcher, after each `ensure`.
    pub fn memory(&self) -> FilterMemory {
        let memory = match &self.v1 {
            Some(v1) => v1.memory(),
            None => FilterMemory {
                held: self.v2.held(),
                ..FilterMemory::default()
            },
        };
        FilterMemory {
            places: self.places.clone(),
            ..memory
        }
    }

    /// Forgets which cgroups are ours: the state directory was removed.
    pub fn renew_claims(&mut self) {
        self.claimed = Places::default();
    }

    fn claim(&mut self) -> Result<(), FilterError> {
        let Some(owner) = &self.owner else {
            return Ok(());
        };
        for (version, place) in self.places.all() {
            let restricts = || match (version, &self.v1) {
                (Version::V1, Some(v1)) => v1.restricts(),
                (Version::V1, None) => Ok(false),
                (Version::V2, _) => self.v2.restricts(&place.path),
            };
            if self.claimed.has(version, place) || !restricts()? {
                continue;
            }
            if let Some(other) = owner.claim(version, place)? {
                return Err(FilterError::Owned {
                    cgroup: place.path.clone(),
                    owner: other,
                });
            }
            self.claimed.add(version, place.clone());
        }
        Ok(())
    }

    fn release(&mut self) {
        if let Some(owner) = &self.owner {
            for (version, place) in self.claimed.all() {
                owner.release(version, place);
            }
        }
        self.claimed = Places::default();
    }
}

impl DeviceFilter for CgroupFilter {
    fn ensure(&mut self, grants: &GrantSet) -> Result<Change, FilterError> {
        if let Err(error) = self.claim() {
            // What is to be taken back never waits for an owner.
            let _ = self.v2.take_back_all_but(grants);
            let _ = self.v1.as_mut().map(|v1| v1.take_back_all_but(grants));
            return Err(error);
        }
        let v2 = self.v2.ensure(grants);
        let v1 = self.v1.as_mut().map_or(Ok(Change::None), |v1| v1.ensure(grants));
        match (v2?, v1?) {
            (Change::None, Change::None) => Ok(Change::None),
            _ => Ok(Change::Made),
        }
    }
}

/// Why a filter is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// Somebody who is not ours to overrule refuses some of the grants.
    #[error("{}", first_of(refused))]
    Refused {
        /// Which, and who, for people; at least one.
        refused: Vec<(DevNum, String)>,
    },
    /// Another running container has its device access there.
    #[error(
        "cgroup {cgroup} is also the cgroup of container {} (process {}), whose device access is managed there; two containers with device requests cannot share a cgroup (start this one in a cgroup of its own: linux.cgroupsPath in config.json, --cgroup-parent of the engine)",
        owner.container,
        owner.pid
    )]
    Owned {
        /// Its directory.
        cgroup: PathBuf,
        /// The container.
        owner: Claim,
    },
    /// The owner of a cgroup cannot be noted.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The cgroup was removed: the container has ended, or moved.
    #[error("cgroup {cgroup}: is gone; the container has ended or was moved to another cgroup")]
    Gone {
        /// Its directory.
        cgroup: PathBuf,
    },
    /// The cgroup's directory cannot be opened.
    #[error("opening cgroup {cgroup}: {source}")]
    Open {
        /// Its directory.
        cgroup: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The programs of a cgroup cannot be listed.
    #[error(
        "asking for the device programs of cgroup {cgroup}: {source}; it must be a cgroup v2 directory, and the caller needs CAP_NET_ADMIN"
    )]
    Query {
        /// Its directory.
        cgroup: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// An attached program cannot be read.
    #[error("reading device program {id} of cgroup {cgroup}: {source}; the caller needs CAP_SYS_ADMIN")]
    Inspect {
        /// The cgroup's directory.
        cgroup: PathBuf,
        /// The program's id.
        id: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel does not show the instructions of an attached program.
    #[error(
        "device program {id} ({name}) of cgroup {cgroup}: the kernel keeps its instructions back; set the sysctls net.core.bpf_jit_harden to 1 or less and kernel.kptr_restrict to 1 or less, and start the container again"
    )]
    Hidden {
        /// The cgroup's directory.
        cgroup: PathBuf,
        /// The program's id.
        id: u32,
        /// The program's name.
        name: String,
    },
    /// An attached program is of a form that nothing can be put in front of.
    #[error(
        "device program {id} ({name}) of cgroup {cgroup} cannot be extended by our grants: {source}; whoever attached it must grant the devices itself"
    )]
    Splice {
        /// The cgroup's directory.
        cgroup: PathBuf,
        /// The program's id.
        id: u32,
        /// The program's name.
        name: String,
        /// Which instruction is in the way.
        source: SpliceError,
    },
    /// The kernel refuses the extended program.
    #[error("loading device program {id} ({name}) of cgroup {cgroup} with our grants in front: {source}")]
    Load {
        /// The cgroup's directory.
        cgroup: PathBuf,
        /// The original's id.
        id: u32,
        /// The original's name.
        name: String,
        /// What the kernel and its verifier said.
        source: LoadError,
    },
    /// The extended program cannot take the original's place.
    #[error("putting our program in the place of device program {id} ({name}) of cgroup {cgroup}: {source}")]
    Attach {
        /// The cgroup's directory.
        cgroup: PathBuf,
        /// The original's id.
        id: u32,
        /// The original's name.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Someone replaced the programs again and again while we did.
    #[error(
        "device programs {ids:?} of cgroup {cgroup}: changed in each of {rounds} attempts to extend them, or are held by a bpf link; look with `bpftool cgroup show` who else manages this cgroup"
    )]
    Restless {
        /// The cgroup's directory.
        cgroup: PathBuf,
        /// The programs attached last.
        ids: Vec<u32>,
        /// How often it was tried.
        rounds: u32,
    },
    /// The map of grants cannot be made, read or written.
    #[error("{doing} the map of grants of cgroup {cgroup}: {source}")]
    Map {
        /// The container's leaf cgroup.
        cgroup: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// More grants than the map takes.
    #[error(
        "granting {num} in cgroup {cgroup}: the map of grants is full; a container can have {limit} hotplugged device numbers: ask for fewer devices"
    )]
    Full {
        /// The container's leaf cgroup.
        cgroup: PathBuf,
        /// What did not go in.
        num: DevNum,
        /// How many go in.
        limit: u32,
    },
    /// The rules of a v1 cgroup cannot be read.
    #[error("reading devices.list of cgroup {cgroup}: {source}")]
    Rules {
        /// Its directory.
        cgroup: PathBuf,
        /// What cgroups-rs said.
        source: cgroups_rs::error::Error,
    },
    /// The kernel refuses a rule of a v1 cgroup.
    #[error("writing \"{rule}\" to {} of cgroup {cgroup}: {source}{}", file(*verdict), hint(source))]
    Rule {
        /// Its directory.
        cgroup: PathBuf,
        /// Which file.
        verdict: Verdict,
        /// The rule.
        rule: DeviceRule,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel took a rule of a v1 cgroup, and it is not in devices.list.
    #[error("\"{rule}\" was written to {} of cgroup {cgroup} and has no effect; someone else manages its rules", file(*verdict))]
    Ineffective {
        /// Its directory.
        cgroup: PathBuf,
        /// Which file.
        verdict: Verdict,
        /// The rule.
        rule: DeviceRule,
    },
}

fn first_of(refused: &[(DevNum, String)]) -> &str {
    refused.first().map_or("", |(_, reason)| reason)
}

fn file(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "devices.allow",
        Verdict::Deny => "devices.deny",
    }
}

fn hint(error: &io::Error) -> &'static str {
    // security/device_cgroup.c parent_has_perm: a cgroup cannot have more than its parent.
    if error.kind() == io::ErrorKind::PermissionDenied {
        "; a parent cgroup denies this device: allow it there (or in the slice or pod that the container is in)"
    } else {
        ""
    }
}

/// Whether the kernel's answer means that the cgroup itself is no longer there.
fn is_gone(error: &io::Error) -> bool {
    let gone = [nix::errno::Errno::ENOENT, nix::errno::Errno::ENODEV].map(|errno| errno as i32);
    error.raw_os_error().is_some_and(|errno| gone.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::device::DevKind;

    fn char(minor: u32) -> DevNum {
        DevNum {
            kind: DevKind::Char,
            major: 188,
            minor,
        }
    }

    #[test]
    fn memory_is_json_and_survives_it() {
        let memory = FilterMemory {
            held: [(char(0), Access::READ), (char(1), Access::ALL)].into(),
            baseline: Some(vec!["c 1:3 rwm".parse().unwrap()]),
            places: Places::default(),
        };
        let json = serde_json::to_string(&memory).unwrap();
        assert_eq!(serde_json::from_str::<FilterMemory>(&json).unwrap(), memory);
        assert!(json.contains(r#""baseline":["c 1:3 rwm"]"#), "{json}");
    }

    #[test]
    fn memory_ahead_of_grants_has_what_is_held_and_what_comes() {
        let memory = FilterMemory {
            held: [(char(0), Access::READ)].into(),
            ..FilterMemory::default()
        };
        let ahead = memory.ahead_of(&[(char(0), Access::WRITE), (char(1), Access::ALL)].into());
        let both = Access::READ | Access::WRITE;
        assert_eq!(ahead.held, [(char(0), both), (char(1), Access::ALL)].into());
    }

    #[test]
    fn a_refusal_by_a_parent_cgroup_says_so() {
        let error = FilterError::Rule {
            cgroup: "/sys/fs/cgroup/devices/box".into(),
            verdict: Verdict::Allow,
            rule: DeviceRule::exactly(char(0), Access::READ),
            source: io::Error::from_raw_os_error(libc::EPERM),
        };
        let expected = "writing \"c 188:0 r\" to devices.allow of cgroup /sys/fs/cgroup/devices/box: \
            Operation not permitted (os error 1); a parent cgroup denies this device: allow it there \
            (or in the slice or pod that the container is in)";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_filter_without_cgroups_has_nothing_to_do() {
        let mut filter = open(&Cgroups::default(), FilterMemory::default()).unwrap();
        assert_eq!(
            filter.ensure(&[(char(0), Access::ALL)].into()).unwrap(),
            Change::None
        );
    }

    #[test]
    fn a_cgroup_that_is_not_there_is_gone() {
        let missing = PathBuf::from("/sys/fs/cgroup/no/such/cgroup");
        for cgroups in [
            Cgroups {
                v1_devices: Some(missing.clone()),
                v2: vec![],
            },
            Cgroups {
                v1_devices: None,
                v2: vec![missing.clone()],
            },
        ] {
            let error = open(&cgroups, FilterMemory::default()).unwrap_err();
            assert!(
                matches!(&error, FilterError::Gone { cgroup } if *cgroup == missing),
                "{error}"
            );
        }
    }
}
