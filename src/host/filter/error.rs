//! Why a filter is not as it should be.

use std::io;
use std::path::PathBuf;

use crate::host::state::cgroup_owners::{Claim, ClaimError};
use crate::model::cgroup::device_rules::{DeviceRule, Verdict};
use crate::model::cgroup::filter_program::SpliceError;
use crate::model::device::DevNum;
use crate::sys::bpf::LoadError;

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
        "listing the device programs of cgroup {cgroup}: {source}; it must be a cgroup v2 directory, and the caller needs CAP_NET_ADMIN"
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
        "device program {id} ({name}) of cgroup {cgroup}: the kernel hides its instructions; set the sysctls net.core.bpf_jit_harden to 1 or less and kernel.kptr_restrict to 1 or less, and start the container again"
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
    #[error("replacing device program {id} ({name}) of cgroup {cgroup} by ours: {source}")]
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
        "device programs {ids:?} of cgroup {cgroup}: changed in each of {rounds} attempts to extend them, or are held by a bpf link; find the other manager of this cgroup with `bpftool cgroup show`"
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
        "granting {num} in cgroup {cgroup}: the map of grants is full; a container can have {limit} hotplugged device numbers: request fewer devices"
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
    #[error("\"{rule}\" was written to {} of cgroup {cgroup} and has no effect; another program manages its rules", file(*verdict))]
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
pub(super) fn is_gone(error: &io::Error) -> bool {
    let gone = [nix::errno::Errno::ENOENT, nix::errno::Errno::ENODEV].map(|errno| errno as i32);
    error.raw_os_error().is_some_and(|errno| gone.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::device::{Access, DevKind};

    #[test]
    fn a_refusal_by_a_parent_cgroup_says_so() {
        let number = DevNum {
            kind: DevKind::Char,
            major: 188,
            minor: 0,
        };
        let error = FilterError::Rule {
            cgroup: "/sys/fs/cgroup/devices/box".into(),
            verdict: Verdict::Allow,
            rule: DeviceRule::exactly(number, Access::READ),
            source: io::Error::from_raw_os_error(libc::EPERM),
        };
        let expected = "writing \"c 188:0 r\" to devices.allow of cgroup /sys/fs/cgroup/devices/box: \
            Operation not permitted (os error 1); a parent cgroup denies this device: allow it there \
            (or in the slice or pod that the container is in)";
        assert_eq!(error.to_string(), expected);
    }
}
