//! Device programs of cgroups above the container's own: they are not ours to touch, and all of
//! them must allow.
//!
//! What they refuse is told, so that nobody looks for the fault in the container. Must not know
//! what is granted why.

use std::path::Path;

use super::attached::{AttachedPrograms, Candidate, display_name};
use super::error::{FilterError, is_gone};
use crate::model::cgroup::filter_program::{Insn, verdict};
use crate::model::cgroup::grants::GrantSet;
use crate::model::device::DevNum;
use crate::sys::bpf;

/// What is known of the programs above.
#[derive(Debug, Default)]
pub(super) struct Ancestors {
    programs: Vec<Program>,
}

#[derive(Debug)]
struct Program {
    id: u32,
    name: String,
    /// Empty where the kernel keeps them back: then nothing is known of it.
    insns: Vec<Insn>,
}

impl Ancestors {
    /// Those of `wanted` that a program above refuses, each with who does. `own` are the
    /// container's own cgroups, settled, the leaf first. Costs one question to the kernel while
    /// nothing changes.
    pub fn refusals(
        &mut self,
        own: &[AttachedPrograms],
        wanted: &GrantSet,
    ) -> Result<Vec<(DevNum, String)>, FilterError> {
        let (Some(leaf), Some(top)) = (own.first(), own.last()) else {
            return Ok(Vec::new());
        };
        let mut ids = leaf.effective()?;
        ids.retain(|id| !own.iter().any(|cgroup| cgroup.has_settled(*id)));
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
            // One that is found nowhere has gone meanwhile, or lies above all that we can see.
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
    // The first that is no cgroup ends the search.
    top.ancestors()
        .skip(1)
        .map_while(|path| attached(path).ok().map(|it_is| (path, it_is)))
        .find_map(|(path, it_is)| it_is.then_some(path))
}
