//! What hangs on a container's init: cgroups, namespaces, ids.

use std::path::PathBuf;

use oci_hotplug::host::container::ContainerError;

use crate::fixture::{Inside, Kind, MAPPED_ROOT};
use crate::skipped::skipped;

/// A cgroup made for a test; removed with it, after its processes.
struct Cgroup(PathBuf);

impl Cgroup {
    fn make(parent: &str, name: &str) -> Option<Self> {
        let directory = PathBuf::from(parent).join(name);
        PathBuf::from(parent).join("cgroup.procs").exists().then(|| {
            std::fs::create_dir(&directory).unwrap();
            Self(directory)
        })
    }

    fn take(&self, pid: i32) {
        std::fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let parent = self.0.parent().unwrap().join("cgroup.procs");
        for pid in std::fs::read_to_string(self.0.join("cgroup.procs"))
            .unwrap_or_default()
            .lines()
        {
            let _ = std::fs::write(&parent, pid);
        }
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn the_containers_cgroups_are_found_in_every_hierarchy_and_the_roots_never() {
    let mut inside = Inside::start(Kind::default());
    let name = format!("oci-hotplug-test-{}", std::process::id());
    inside.facts.cgroups_path = Some(format!("/{name}"));
    let before = inside.container().cgroup_paths().unwrap();
    assert!(!before.v2.contains(&"/sys/fs/cgroup".into()));

    let v1 = Cgroup::make("/sys/fs/cgroup/devices", &name);
    let v2 = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .iter()
        .filter(|point| PathBuf::from(point).join("cgroup.controllers").exists())
        .find_map(|point| Cgroup::make(point, &name));
    assert!(v1.is_some() || v2.is_some(), "no cgroup hierarchy to test with");
    for (version, cgroup) in [("v1", &v1), ("v2", &v2)] {
        match cgroup {
            Some(cgroup) => cgroup.take(inside.facts.pid),
            None => skipped(&format!("no hierarchy of cgroup {version} is mounted")),
        }
    }
    let found = inside.container().cgroup_paths().unwrap();
    assert_eq!(found.v1_devices, v1.as_ref().map(|cgroup| cgroup.0.clone()));
    assert_eq!(
        found.v2,
        v2.as_ref()
            .map(|cgroup| cgroup.0.clone())
            .into_iter()
            .collect::<Vec<_>>()
    );
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_user_namespaces_ids_are_the_hosts_mapped_ones() {
    let inside = Inside::start(Kind {
        user: true,
        ..Kind::default()
    });
    let maps = inside.container().id_maps().unwrap().expect("it has its own");
    assert_eq!(maps.host_uid(0), Some(MAPPED_ROOT));
    assert_eq!(maps.host_gid(65_535), Some(MAPPED_ROOT + 65_535));
    assert_eq!(maps.host_gid(65_536), None);
    assert!(
        Inside::start(Kind::default())
            .container()
            .id_maps()
            .unwrap()
            .is_none()
    );
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_container_that_ended_is_gone_for_every_question() {
    let mut inside = Inside::start(Kind::default());
    let container = inside.container();
    assert!(container.init().is_alive());
    container
        .init()
        .signal(nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    crate::fixture::wait_until("its end", || !container.init().is_alive());
    // A zombie still has files in /proc.
    inside.reap();
    for result in [
        container.cgroup_paths().map(drop),
        container.id_maps().map(drop),
        container.root().map(drop),
        container.mount_namespace().map(drop),
    ] {
        assert!(matches!(result, Err(ContainerError::Gone { .. })), "{result:?}");
    }
    inside.facts.start_time += 1;
    let opened = oci_hotplug::host::container::Container::open(&inside.facts);
    assert!(matches!(opened, Err(ContainerError::Gone { .. })));
}
