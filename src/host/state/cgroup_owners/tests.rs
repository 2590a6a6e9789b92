use super::*;
use crate::host::process::start_time;
use crate::model::oci::ProcessUser;
use std::process::{Child, Command};

/// A state directory with records of containers, and a process for the init of each.
struct Scene {
    state: tempfile::TempDir,
    processes: Vec<Child>,
}

impl Scene {
    fn new() -> Self {
        Self {
            state: tempfile::tempdir().unwrap(),
            processes: Vec::new(),
        }
    }

    fn container(&mut self, id: &str) -> Owner {
        let process = Command::new("sleep").arg("3600").spawn().unwrap();
        let pid = process.id() as i32;
        self.processes.push(process);
        let facts = ContainerFacts {
            id: id.into(),
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
        fs::write(
            dir.join("record.json"),
            serde_json::json!({ "version": 1, "container": facts }).to_string(),
        )
        .unwrap();
        Owner::new(self.state.path(), &facts)
    }

    fn end(&mut self, index: usize) {
        self.processes[index].kill().unwrap();
        self.processes[index].wait().unwrap();
    }

    fn owner_files(&self) -> usize {
        fs::read_dir(dir_of(self.state.path())).map_or(0, Iterator::count)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn cgroup(inode: u64) -> Cgroup {
    Cgroup {
        path: "/sys/fs/cgroup/a".into(),
        inode,
    }
}

/// Case security 7.
#[test]
fn a_cgroup_has_one_owner_and_inodes_are_distinguished_by_hierarchy() {
    let mut scene = Scene::new();
    let [first, second] = ["first", "second"].map(|id| scene.container(id));
    assert_eq!(first.acquire(Version::V2, &cgroup(7)).unwrap(), None);
    assert_eq!(first.acquire(Version::V2, &cgroup(7)).unwrap(), None, "again");
    let owner = second.acquire(Version::V2, &cgroup(7)).unwrap().unwrap();
    assert_eq!(
        (owner.container.as_str(), owner.pid),
        ("first", first.container.pid)
    );
    assert_eq!(second.acquire(Version::V1, &cgroup(7)).unwrap(), None);
    assert_eq!(second.acquire(Version::V2, &cgroup(8)).unwrap(), None);
    second.release(Version::V2, &cgroup(7));
    assert!(second.acquire(Version::V2, &cgroup(7)).unwrap().is_some());
    first.release(Version::V2, &cgroup(7));
    assert_eq!(second.acquire(Version::V2, &cgroup(7)).unwrap(), None);
}

/// Case security 7.
#[test]
fn a_container_that_has_ended_or_lost_its_record_owns_nothing() {
    let mut scene = Scene::new();
    let [ended, removed, running] = ["ended", "removed", "running"].map(|id| scene.container(id));
    for (inode, owner) in [(1, &ended), (2, &removed), (3, &running)] {
        assert_eq!(owner.acquire(Version::V2, &cgroup(inode)).unwrap(), None);
    }
    fs::write(dir_of(scene.state.path()).join("v2-4"), "{\"conta").unwrap();
    scene.end(0);
    fs::remove_dir_all(scene.state.path().join("containers/removed")).unwrap();
    let next = scene.container("next");
    for inode in [1, 2, 4] {
        assert_eq!(
            next.acquire(Version::V2, &cgroup(inode)).unwrap(),
            None,
            "{inode}"
        );
    }
    assert!(next.acquire(Version::V2, &cgroup(3)).unwrap().is_some());
    scene.end(3);
    // Child processes of other tests have copies of the descriptors, and with them of the
    // locks, until they call exec.
    let swept_down_to = |scene: &Scene, count| {
        (0..1000).any(|_| {
            sweep(scene.state.path());
            std::thread::sleep(Duration::from_millis(1));
            scene.owner_files() == count
        })
    };
    assert!(swept_down_to(&scene, 1), "what ended containers owned is removed");
    sweep(scene.state.path());
    assert_eq!(scene.owner_files(), 1, "what a running container owns stays");
    scene.end(2);
    assert!(swept_down_to(&scene, 0));
}

/// Case security 7.
#[test]
fn only_one_of_many_simultaneous_callers_becomes_the_owner() {
    let mut scene = Scene::new();
    let owners: Vec<Owner> = (0..8)
        .map(|index| scene.container(&format!("c{index}")))
        .collect();
    for inode in 0..20 {
        let owned = std::thread::scope(|scope| {
            let attempts: Vec<_> = owners
                .iter()
                .map(|owner| scope.spawn(move || owner.acquire(Version::V1, &cgroup(inode)).unwrap()))
                .collect();
            attempts
                .into_iter()
                .map(|attempt| attempt.join().unwrap())
                .filter(Option::is_none)
                .count()
        });
        assert_eq!(owned, 1);
    }
}
