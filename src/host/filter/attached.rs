//! One v2 cgroup and its device programs: each program is replaced by a copy that starts with our
//! prologue.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::error::{FilterError, is_gone};
use super::grant_map::{GrantMap, with_locked_memory};
use super::map_slot::MapSlot;
use crate::model::cgroup::filter_program::{self, Insn, decode, encode};
use crate::model::cgroup::grants::Change;
use crate::sys::bpf::{self, Attached, ProgInfo};

/// The name of our programs, by which a later watcher recognises them.
const PROGRAM_NAME: &str = "oci_hotplug";
/// How often a cgroup's programs are extended while an engine keeps replacing them.
const ROUNDS: u32 = 8;

/// One cgroup and what is known of its programs.
#[derive(Debug)]
pub(super) struct AttachedPrograms {
    pub(super) path: PathBuf,
    dir: OwnedFd,
    /// The programs that have our prologue with our map. The kernel does not reuse ids before the
    /// counter overflows.
    ours: BTreeSet<u32>,
    /// The programs that have no prologue and stay unchanged because there is nothing to grant.
    untouched: BTreeSet<u32>,
}

/// An attached program that has not been classified yet.
pub(super) struct Candidate {
    program: OwnedFd,
    pub(super) info: ProgInfo,
    /// `None` if the kernel hides them.
    pub(super) insns: Option<Vec<Insn>>,
}

impl Candidate {
    /// The instructions after our prologue; `None` if there is no prologue.
    fn behind_prologue(&self) -> Option<&[Insn]> {
        filter_program::strip(self.insns.as_deref()?)
    }
}

/// The outcome for one attached program.
enum Handled {
    /// It has our prologue with our map.
    Ours,
    /// It has no prologue, and there is nothing to grant.
    Untouched,
    /// Our copy has taken its place, possibly until another process replaced it again: check once
    /// more.
    Replaced,
    /// It is not attached any more: check once more.
    Vanished,
}

impl AttachedPrograms {
    pub(super) fn open(path: &Path) -> Result<Self, FilterError> {
        let directory = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY)
            .open(path);
        let cgroup = path.to_owned();
        match directory {
            Ok(dir) => Ok(Self {
                path: cgroup,
                dir: dir.into(),
                ours: BTreeSet::new(),
                untouched: BTreeSet::new(),
            }),
            Err(error) if is_gone(&error) => Err(FilterError::Gone { cgroup }),
            Err(source) => Err(FilterError::Open { cgroup, source }),
        }
    }

    pub(super) fn query(&self) -> Result<Attached, FilterError> {
        bpf::prog_query(self.dir.as_fd()).map_err(|source| self.query_error(source))
    }

    /// The programs in effect here: the cgroup's own, and those of the cgroups above.
    pub(super) fn effective(&self) -> Result<Vec<u32>, FilterError> {
        bpf::prog_query_effective(self.dir.as_fd()).map_err(|source| self.query_error(source))
    }

    fn query_error(&self, source: io::Error) -> FilterError {
        let cgroup = self.path.clone();
        if is_gone(&source) {
            FilterError::Gone { cgroup }
        } else {
            FilterError::Query { cgroup, source }
        }
    }

    /// Whether the program was found attached here and classified.
    pub(super) fn is_known(&self, id: u32) -> bool {
        self.ours.contains(&id) || self.untouched.contains(&id)
    }

    /// Whether all attached programs had our prologue when they were last extended.
    pub(super) fn are_all_extended(&self) -> bool {
        self.untouched.is_empty()
    }

    /// The map that an attached program of ours uses.
    pub(super) fn find_map(&self) -> Result<Option<GrantMap>, FilterError> {
        for id in self.query()?.ids {
            let Some(candidate) = self.inspect(id)? else {
                continue;
            };
            if candidate.info.name != PROGRAM_NAME || candidate.behind_prologue().is_none() {
                continue;
            }
            for map in &candidate.info.map_ids {
                let adopted = GrantMap::adopt(*map).map_err(|source| FilterError::Map {
                    cgroup: self.path.clone(),
                    action: "take over",
                    source,
                })?;
                if adopted.is_some() {
                    return Ok(adopted);
                }
            }
        }
        Ok(None)
    }

    /// Extends every attached program with our prologue and map, and verifies that they are
    /// attached.
    pub(super) fn extend_programs(&mut self, map: &mut MapSlot<'_>) -> Result<Change, FilterError> {
        let mut change = Change::None;
        let mut ids = Vec::new();
        for _ in 0..ROUNDS {
            let attached = self.query()?;
            let mut is_done = true;
            for id in &attached.ids {
                match self.handle(*id, attached.flags, map)? {
                    Handled::Ours => _ = self.ours.insert(*id),
                    Handled::Untouched => _ = self.untouched.insert(*id),
                    Handled::Replaced => (is_done, change) = (false, Change::Made),
                    Handled::Vanished => is_done = false,
                }
            }
            ids = attached.ids;
            if is_done {
                self.ours.retain(|id| ids.contains(id));
                self.untouched.retain(|id| ids.contains(id));
                return Ok(change);
            }
        }
        Err(FilterError::KeepsChanging {
            cgroup: self.path.clone(),
            ids,
            rounds: ROUNDS,
        })
    }

    fn handle(&self, id: u32, flags: u32, map: &mut MapSlot<'_>) -> Result<Handled, FilterError> {
        if self.ours.contains(&id) {
            return Ok(Handled::Ours);
        }
        if map.is_empty() && self.untouched.contains(&id) {
            return Ok(Handled::Untouched);
        }
        let Some(candidate) = self.inspect(id)? else {
            return Ok(Handled::Vanished);
        };
        match candidate.behind_prologue() {
            Some(_) if map.is_used_by(&candidate.info) => Ok(Handled::Ours),
            None if map.is_empty() => Ok(Handled::Untouched),
            // With another map the program would continue to grant what an earlier watcher granted,
            // so it is replaced even if there is nothing to grant.
            original => self.replace(&candidate, original, flags, map),
        }
    }

    /// Reads an attached program; `None` if it does not exist any more.
    pub(super) fn inspect(&self, id: u32) -> Result<Option<Candidate>, FilterError> {
        let failed = |source| FilterError::Inspect {
            cgroup: self.path.clone(),
            id,
            source,
        };
        let program = match bpf::prog_get_fd_by_id(id) {
            Ok(program) => program,
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let info = bpf::prog_info(program.as_fd()).map_err(failed)?;
        let insns = info.xlated.as_deref().and_then(decode);
        Ok(Some(Candidate { program, info, insns }))
    }

    /// Replaces the candidate by its original instructions with our prologue and map in front.
    fn replace(
        &self,
        candidate: &Candidate,
        behind_prologue: Option<&[Insn]>,
        flags: u32,
        map: &mut MapSlot<'_>,
    ) -> Result<Handled, FilterError> {
        let ours = self.load_extended(candidate, behind_prologue, map)?;
        let (dir, ours) = (self.dir.as_fd(), ours.as_fd());
        let attached = if flags & bpf::BPF_F_ALLOW_MULTI != 0 {
            bpf::prog_replace(dir, ours, candidate.program.as_fd())
        } else {
            // There is only one program then, and attaching with the same flags replaces it.
            bpf::prog_attach(dir, ours, flags)
        };
        match attached {
            Ok(()) => Ok(Handled::Replaced),
            // Another process replaced the program first: kernels return EINVAL if the list does
            // not have it any more.
            Err(error) if is_gone(&error) || error.kind() == io::ErrorKind::InvalidInput => {
                Ok(Handled::Vanished)
            }
            Err(source) => Err(FilterError::Attach {
                cgroup: self.path.clone(),
                id: candidate.info.id,
                name: display_name(&candidate.info),
                source,
            }),
        }
    }

    fn load_extended(
        &self,
        candidate: &Candidate,
        behind_prologue: Option<&[Insn]>,
        map: &mut MapSlot<'_>,
    ) -> Result<OwnedFd, FilterError> {
        let (id, name, cgroup) = (
            candidate.info.id,
            display_name(&candidate.info),
            self.path.clone(),
        );
        let Some(original) = behind_prologue.or(candidate.insns.as_deref()) else {
            return Err(FilterError::Hidden { cgroup, id, name });
        };
        let map = map.get()?.map().as_fd().as_raw_fd();
        let extended = match filter_program::splice(original, map) {
            Ok(extended) => encode(&extended),
            Err(source) => {
                return Err(FilterError::Splice {
                    cgroup,
                    id,
                    name,
                    source,
                });
            }
        };
        let loaded = with_locked_memory(|| bpf::prog_load(&extended, c"Apache-2.0 OR MIT", PROGRAM_NAME));
        loaded.map_err(|source| FilterError::Load {
            cgroup,
            id,
            name,
            source,
        })
    }
}

pub(super) fn display_name(info: &ProgInfo) -> String {
    if info.name.is_empty() {
        "unnamed".to_owned()
    } else {
        info.name.clone()
    }
}
