//! Errors of the device filter.

use std::io;
use std::path::PathBuf;

use crate::host::state::cgroup_owners::{CgroupOwner, OwnerError};
use crate::model::cgroup::device_rules::DeviceRule;
use crate::model::cgroup::filter_program::SpliceError;
use crate::model::cgroup::v1_transition::Verdict;
use crate::model::device::DevNum;
use crate::model::oci::engine::short_id;
use crate::sys::bpf::LoadError;

/// The device filter is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// Something that we must not override denies some of the grants.
    #[error("{}", first_of(refused))]
    Refused {
        /// The denied device numbers with the reasons; at least one.
        refused: Vec<(DevNum, String)>,
    },
    /// Another running container owns the cgroup.
    #[error(
        "cgroup {cgroup} is also the cgroup of container {} (process {}), whose device access is managed there; two containers with device requests cannot share a cgroup (start this one in another cgroup: linux.cgroupsPath in config.json, --cgroup-parent of the engine)",
        short_id(&owner.container),
        owner.pid
    )]
    Owned { cgroup: PathBuf, owner: CgroupOwner },
    /// The owner of a cgroup cannot be recorded.
    #[error(transparent)]
    OwnerFile(#[from] OwnerError),
    /// The cgroup does not exist any more: the container has ended or was moved.
    #[error(
        "cgroup {cgroup} does not exist any more: the container has ended or was moved to another cgroup"
    )]
    Gone { cgroup: PathBuf },
    /// The cgroup's directory cannot be opened.
    #[error("cannot open cgroup {cgroup}: {source}")]
    Open { cgroup: PathBuf, source: io::Error },
    /// The programs of a cgroup cannot be listed.
    #[error(
        "cannot list the device programs of cgroup {cgroup}: {source} (it must be a cgroup v2 directory, and the caller needs CAP_NET_ADMIN)"
    )]
    Query { cgroup: PathBuf, source: io::Error },
    /// An attached program cannot be read.
    #[error("cannot read device program {id} of cgroup {cgroup}: {source} (the caller needs CAP_SYS_ADMIN)")]
    Inspect {
        cgroup: PathBuf,
        id: u32,
        source: io::Error,
    },
    /// The kernel hides the instructions of an attached program.
    #[error(
        "cannot extend device program {id} ({name}) of cgroup {cgroup} by our grants: the kernel hides its instructions (set the sysctls net.core.bpf_jit_harden and kernel.kptr_restrict to 1 or less, and start the container again)"
    )]
    Hidden { cgroup: PathBuf, id: u32, name: String },
    /// The instructions of an attached program do not allow a prologue.
    #[error(
        "cannot extend device program {id} ({name}) of cgroup {cgroup} by our grants: {source} (let the program that attached it grant the devices itself)"
    )]
    Splice {
        cgroup: PathBuf,
        id: u32,
        name: String,
        /// The instruction that prevents it.
        source: SpliceError,
    },
    /// The kernel rejects the extended program.
    #[error("cannot load device program {id} ({name}) of cgroup {cgroup} with our grants in front: {source}")]
    Load {
        cgroup: PathBuf,
        /// The original's id.
        id: u32,
        /// The original's name.
        name: String,
        /// The error and the verifier's log.
        source: LoadError,
    },
    /// The extended program cannot replace the original.
    #[error("cannot replace device program {id} ({name}) of cgroup {cgroup} with ours: {source}")]
    Attach {
        cgroup: PathBuf,
        /// The original's id.
        id: u32,
        /// The original's name.
        name: String,
        source: io::Error,
    },
    /// Another process kept replacing the programs while they were extended.
    #[error(
        "cannot extend device programs {ids:?} of cgroup {cgroup} by our grants: they changed in each of {rounds} attempts, or are held by a bpf link (find the other manager of this cgroup with `bpftool cgroup show`)"
    )]
    KeepsChanging {
        cgroup: PathBuf,
        /// The programs that were attached last.
        ids: Vec<u32>,
        /// The number of attempts.
        rounds: u32,
    },
    /// The map of grants cannot be created, read or written.
    #[error("cannot {action} the map of grants of cgroup {cgroup}: {source}")]
    Map {
        /// The container's leaf cgroup.
        cgroup: PathBuf,
        /// What cannot be done, as a verb.
        action: &'static str,
        source: io::Error,
    },
    /// The map of grants is full.
    #[error(
        "cannot grant {num} in cgroup {cgroup}: the map of grants is full: a container can have {limit} hotplugged device numbers (request fewer devices)"
    )]
    Full {
        /// The container's leaf cgroup.
        cgroup: PathBuf,
        /// The device that is not granted.
        num: DevNum,
        /// The capacity of the map.
        limit: u32,
    },
    /// The rules of a v1 cgroup cannot be read.
    #[error("cannot read devices.list of cgroup {cgroup}: {source}")]
    Rules { cgroup: PathBuf, source: io::Error },
    /// The kernel rejects a rule of a v1 cgroup.
    #[error("cannot write \"{rule}\" to {} of cgroup {cgroup}: {source}{}", file(*verdict), hint(source))]
    Rule {
        cgroup: PathBuf,
        /// The file: devices.allow or devices.deny.
        verdict: Verdict,
        rule: DeviceRule,
        source: io::Error,
    },
    /// The kernel accepted a rule of a v1 cgroup, but devices.list does not have it.
    #[error("\"{rule}\" was written to {} of cgroup {cgroup} and has no effect; another program manages its rules", file(*verdict))]
    Ineffective {
        cgroup: PathBuf,
        /// The file: devices.allow or devices.deny.
        verdict: Verdict,
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
    // security/device_cgroup.c parent_has_perm: a cgroup cannot allow more than its parent.
    if error.kind() == io::ErrorKind::PermissionDenied {
        "; a parent cgroup denies this device: allow it there (or in the slice or pod that the container is in)"
    } else {
        ""
    }
}

/// Whether the error means that the cgroup does not exist any more.
pub(super) fn is_gone(error: &io::Error) -> bool {
    let gone = [nix::errno::Errno::ENOENT, nix::errno::Errno::ENODEV].map(|errno| errno as i32);
    error.raw_os_error().is_some_and(|errno| gone.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::device::{Access, DevKind};

    #[test]
    fn a_denial_by_a_parent_cgroup_has_a_hint() {
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
        let expected = "cannot write \"c 188:0 r\" to devices.allow of cgroup /sys/fs/cgroup/devices/box: \
            Operation not permitted (os error 1); a parent cgroup denies this device: allow it there \
            (or in the slice or pod that the container is in)";
        assert_eq!(error.to_string(), expected);
    }
}
