//! Containers that have records in a state directory, and own cgroups. The module that includes
//! this file imports the types of the library: its own tests know them by other paths.

use std::fs;
use std::process::{Child, Command};

use super::{ContainerFacts, Owner, ProcessUser, start_time};

/// A state directory with records of containers, and a process for the init of each, which ends
/// when this is dropped.
pub(super) struct Owners {
    pub(super) state: tempfile::TempDir,
    inits: Vec<Child>,
}

impl Owners {
    pub(super) fn new() -> Self {
        Self {
            state: tempfile::tempdir().unwrap(),
            inits: Vec::new(),
        }
    }

    /// Records a running container, and returns it as an owner of cgroups.
    pub(super) fn container(&mut self, id: &str) -> Owner {
        let init = Command::new("sleep").arg("3600").spawn().unwrap();
        let pid = i32::try_from(init.id()).unwrap();
        self.inits.push(init);
        let facts = ContainerFacts {
            id: id.to_owned(),
            pid,
            start_time: start_time(pid).unwrap(),
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            cgroups_path: None,
            user: ProcessUser::default(),
            read_only_sys: false,
        };
        let dir = self.state.path().join("containers").join(id);
        fs::create_dir_all(&dir).unwrap();
        let record = serde_json::json!({ "version": 1, "container": facts });
        fs::write(dir.join("record.json"), record.to_string()).unwrap();
        Owner::new(self.state.path(), &facts)
    }

    /// Ends the init of a container, which are numbered in the order of their calls of
    /// [`Self::container`].
    pub(super) fn end(&mut self, index: usize) {
        self.inits[index].kill().unwrap();
        self.inits[index].wait().unwrap();
    }
}

impl Drop for Owners {
    fn drop(&mut self) {
        for init in &mut self.inits {
            let _ = init.kill();
            let _ = init.wait();
        }
    }
}
