//! An engine on cgroup v2: its device program, and how it replaces it.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_hotplug::host::container::CgroupPaths;
use oci_hotplug::model::cgroup::filter_program::{Insn, encode};
use oci_hotplug::sys::bpf::{self, BPF_F_ALLOW_MULTI};

use super::engine_program::{EngineRule, engine_program};
use super::{Lab, Prober, within_a_moment};

/// An engine that manages the device program of one cgroup, as runc does.
pub struct Engine {
    pub dir: OwnedFd,
}

impl Engine {
    pub fn of(cgroup: &Path) -> Self {
        Self {
            dir: fs::File::open(cgroup).unwrap().into(),
        }
    }

    pub fn load(program: &[Insn]) -> OwnedFd {
        bpf::prog_load(&encode(program), c"Apache", "engine").unwrap()
    }

    /// What runc allows every container, cut down: the null device, and making any node.
    pub fn defaults() -> Vec<Insn> {
        let any = EngineRule {
            kind: None,
            major: None,
            minor: None,
            access: 1,
            allow: true,
        };
        engine_program(&[any, EngineRule::char(1, 3, 7)])
    }

    pub fn attach(&self, program: &[Insn]) {
        bpf::prog_attach(self.dir.as_fd(), Self::load(program).as_fd(), BPF_F_ALLOW_MULTI).unwrap();
    }

    /// Replaces the program that is there by a new one, as `runc update` does.
    pub fn rewrite(&self, program: &[Insn]) {
        let ours = Self::load(program);
        let replaced = within_a_moment(|| {
            let id = self.ids()[0];
            bpf::prog_get_fd_by_id(id)
                .and_then(|old| bpf::prog_replace(self.dir.as_fd(), ours.as_fd(), old.as_fd()))
                .is_ok()
        });
        assert!(replaced, "the engine's program never got in");
    }

    pub fn ids(&self) -> Vec<u32> {
        bpf::prog_query(self.dir.as_fd()).unwrap().ids
    }

    pub fn infos(&self) -> Vec<bpf::ProgInfo> {
        let info = |id: &u32| bpf::prog_info(bpf::prog_get_fd_by_id(*id).unwrap().as_fd()).unwrap();
        self.ids().iter().map(info).collect()
    }

    /// The one map that the one program here looks into.
    pub fn map_id(&self) -> u32 {
        let infos = self.infos();
        assert_eq!(
            (infos.len(), infos[0].name.as_str()),
            (1, "oci_hotplug"),
            "{infos:?}"
        );
        assert_eq!(infos[0].map_ids.len(), 1);
        infos[0].map_ids[0]
    }
}

pub fn own(v2: &[&Path]) -> CgroupPaths {
    CgroupPaths {
        v1_devices: None,
        v2: v2.iter().map(|path| path.to_path_buf()).collect(),
    }
}

/// A lab with one cgroup, an engine with its program on it, and a process in it.
pub fn v2_lab() -> (Lab, PathBuf, Engine, Prober) {
    let mut lab = Lab::new("cgroup2");
    let cgroup = lab.cgroup("");
    let engine = Engine::of(&cgroup);
    engine.attach(&Engine::defaults());
    let prober = lab.prober(&cgroup);
    (lab, cgroup, engine, prober)
}
