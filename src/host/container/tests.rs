use super::*;
use crate::host::process::start_time;
use crate::model::oci::ProcessUser;
use nix::sys::signal::Signal;
use std::process::{Child, Command, Stdio};

/// A process that ends with the test.
struct Sleeper(Child);

impl Sleeper {
    fn start() -> Self {
        Self(
            Command::new("cat")
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .unwrap(),
        )
    }

    fn facts(&self) -> ContainerFacts {
        let pid = self.0.id() as i32;
        ContainerFacts {
            id: "c1".into(),
            pid,
            start_time: start_time(pid).unwrap(),
            bundle: "/".into(),
            rootfs: "/".into(),
            cgroups_path: None,
            user: ProcessUser::default(),
            read_only_sys: false,
        }
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_reused_pid_is_detected_by_the_start_time() {
    let sleeper = Sleeper::start();
    let mut facts = sleeper.facts();
    assert!(Container::open(&facts).unwrap().init().is_alive());
    facts.start_time += 1;
    assert!(matches!(
        Container::open(&facts),
        Err(ContainerError::Gone { .. })
    ));
}

#[test]
fn invalid_pids_are_reported_as_gone() {
    let mut facts = Sleeper::start().facts();
    for pid in [0, -1, i32::MIN] {
        facts.pid = pid;
        assert!(
            matches!(Container::open(&facts), Err(ContainerError::Gone { .. })),
            "{pid}"
        );
    }
}

#[test]
fn the_end_of_init_is_noticed_before_it_is_reaped() {
    let mut sleeper = Sleeper::start();
    let container = Container::open(&sleeper.facts()).unwrap();
    assert!(!container.is_exiting());
    container.init().signal(Signal::SIGKILL).unwrap();
    assert!(
        container.init().wait(std::time::Duration::from_secs(5)),
        "the pidfd becomes readable"
    );
    assert!(container.is_exiting());
    sleeper.0.wait().unwrap();
    assert!(matches!(
        container.mount_namespace(),
        Err(ContainerError::Gone { .. })
    ));
}

#[test]
fn a_process_in_our_namespaces_has_neither_id_maps_nor_a_network_namespace() {
    let sleeper = Sleeper::start();
    let container = Container::open(&sleeper.facts()).unwrap();
    assert_eq!(container.id_maps().unwrap(), None);
    assert!(container.network_namespace().unwrap().is_none());
    let root = File::from(container.root().unwrap()).metadata().unwrap();
    assert_eq!(file_id(&root), file_id(&fs::metadata("/").unwrap()));
}
