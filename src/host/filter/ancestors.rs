//! Device programs of cgroups above the container's own. They are not changed, but all of them must
//! allow an access too.
//!
//! What they deny is reported, so that the operator does not search for the cause in the container.

use std::path::Path;

use super::attached::{AttachedPrograms, Candidate, display_name};
use super::error::{FilterError, is_gone};
use crate::model::cgroup::filter_program::{Insn, verdict};
use crate::model::cgroup::grants::GrantSet;
use crate::model::device::DevNum;
use crate::sys::bpf;

/// The programs of the ancestors that are known.
#[derive(Debug, Default)]
pub(super) struct Ancestors {
    programs: Vec<Program>,
}

#[derive(Debug)]
struct Program {
    id: u32,
    name: String,
    /// Empty if the kernel hides the instructions: then nothing is known of the program.
    insns: Vec<Insn>,
}

impl Ancestors {
    /// The grants of `wanted` that a program of an ancestor denies, each with the program and its
    /// cgroup. `own` are the container's own cgroups after `extend_programs`, the leaf first;
    /// `effective` are the programs in effect in the leaf after that. While these do not change,
    /// this needs no system call.
    pub(super) fn refusals(
        &mut self,
        own: &[AttachedPrograms],
        effective: &[u32],
        wanted: &GrantSet,
    ) -> Result<Vec<(DevNum, String)>, FilterError> {
        let (Some(leaf), Some(top)) = (own.first(), own.last()) else {
            return Ok(Vec::new());
        };
        let is_own = |id: &&u32| own.iter().any(|cgroup| cgroup.is_known(**id));
        let ids: Vec<u32> = effective.iter().filter(|id| !is_own(id)).copied().collect();
        self.programs.retain(|program| ids.contains(&program.id));
        for id in ids {
            if self.programs.iter().any(|program| program.id == id) {
                continue;
            }
            if let Some(Candidate { info, insns, .. }) = leaf.inspect(id)? {
                self.programs.push(Program {
                    id,
                    name: display_name(&info),
                    insns: insns.unwrap_or_default(),
                });
            }
        }
        let mut refusals = Vec::new();
        for (num, access) in wanted {
            let refuses = |program: &&Program| verdict::refuses(&program.insns, *num, *access);
            let Some(program) = self.programs.iter().find(refuses) else {
                continue;
            };
            // A program that is not found was detached in the meantime, or belongs to a cgroup that
            // is not visible here.
            if let Some(cgroup) = holder(&top.path, program.id) {
                refusals.push((
                    *num,
                    format!(
                        "cgroup {}, which the container is in, denies {num} (access {access}) by its device program \
                         {} ({}): allow the device there (in a systemd unit: DeviceAllow=)",
                        cgroup.display(),
                        program.id,
                        program.name
                    ),
                ));
            }
        }
        Ok(refusals)
    }
}

/// The cgroup above `top` that the program is attached to.
fn holder(top: &Path, id: u32) -> Option<&Path> {
    let attached = |path: &Path| -> std::io::Result<bool> {
        let directory = std::fs::File::open(path)?;
        match bpf::prog_query(std::os::fd::AsFd::as_fd(&directory)) {
            Ok(attached) => Ok(attached.ids.contains(&id)),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(error),
        }
    };
    // The first directory that is not a cgroup ends the search.
    top.ancestors()
        .skip(1)
        .map_while(|path| attached(path).ok().map(|it_is| (path, it_is)))
        .find_map(|(path, it_is)| it_is.then_some(path))
}
