//! The life of a watcher: what it keeps of the hook, when it ends, what is left; poststop in every
//! order; and what happens to a container when its device is removed.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::framework::container::runc;
use crate::framework::eventually::{DEADLINE, wait_within, within};
use crate::framework::hook::oci_state;
use crate::framework::tool::output_of;
use crate::framework::{Bundle, Disk, Hook, Machine, RuncContainer, Watcher, eventually};

const NOTHING: Vec<PathBuf> = Vec::new();

#[apply(on_both_hierarchies)]
fn the_watchers_command_line_identifies_it(machine: &Machine) {
    let container = Bundle::requesting(machine, "devnode:/dev/oci-hotplug-nothing").start();
    let watcher = container.expect_watcher();
    assert!(
        watcher.command_line.contains("oci-hotplug-watcher"),
        "{watcher:?}"
    );
    assert!(watcher.command_line.contains(&container.id), "{watcher:?}");
    let name = fs::read_to_string(format!("/proc/{}/comm", watcher.pid)).expect("read a name");
    assert!(name.starts_with("oci-hotplug"), "{name}");
    assert_eq!(watcher.threads(), 1);
}

#[apply(on_both_hierarchies)]
fn the_watcher_inherits_nothing_from_the_hook(machine: &Machine) {
    let inherited = machine.scratch("inherited");
    fs::write(&inherited, "a descriptor that the caller forgot").expect("write a file");
    let bundle = Bundle::requesting(machine, "devnode:/dev/oci-hotplug-nothing")
        .hook_environment("OCI_HOTPLUG_TEST_SECRET=1");
    bundle.write();
    // The shell passes descriptor 9 through runc to the hook.
    let script = "exec 9<\"$0\"; exec runc \"$@\"";
    let mut command = Command::new("sh");
    command
        .args(["-c", script])
        .arg(&inherited)
        .arg("--root")
        .arg(machine.runc_root());
    command
        .arg("create")
        .arg("--bundle")
        .arg(bundle.directory())
        .arg(&bundle.id);
    let log = fs::File::create(machine.scratch("create.log")).expect("make a log");
    let status = command
        .current_dir(machine.scratch("bundles"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("share a log"))
        .stderr(log)
        .status()
        .expect("start runc");
    assert!(
        status.success(),
        "{}",
        fs::read_to_string(machine.scratch("create.log")).unwrap_or_default()
    );
    let watcher = Watcher::of(&bundle.id).expect("a watcher");
    let descriptors = watcher.descriptors();
    assert!(
        !descriptors.values().any(|path| path == &inherited),
        "{descriptors:?}"
    );
    let of_bundle = |path: &&PathBuf| path.starts_with(bundle.directory()) && path.is_file();
    assert_eq!(descriptors.values().find(of_bundle), None, "{descriptors:?}");
    for standard in 0..=2 {
        let path = descriptors.get(&standard).cloned().unwrap_or_default();
        assert!(
            !path.starts_with(machine.scratch("create.log")),
            "{descriptors:?}"
        );
        assert!(
            !path.to_string_lossy().starts_with("pipe:"),
            "descriptor {standard} is a pipe: {descriptors:?}"
        );
    }
    assert_eq!(
        watcher.session_and_group(),
        (watcher.pid, watcher.pid),
        "its own session and group"
    );
    assert_eq!(watcher.working_directory(), Path::new("/"));
    assert!(
        !watcher.environment().contains("OCI_HOTPLUG_TEST_SECRET"),
        "{}",
        watcher.environment()
    );
    let deleted = runc(machine, None)
        .args(["delete", "--force", &bundle.id])
        .output()
        .expect("start runc");
    assert!(deleted.status.success(), "{deleted:?}");
    assert!(!watcher.is_alive());
}

#[apply(on_both_hierarchies)]
fn a_pipe_with_the_output_of_create_ends_while_the_watcher_runs(machine: &Machine) {
    let bundle = Bundle::requesting(machine, "devnode:/dev/oci-hotplug-nothing");
    bundle.write();
    let mut command = runc(machine, None);
    command
        .arg("create")
        .arg("--bundle")
        .arg(bundle.directory())
        .arg(&bundle.id);
    let mut create = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start runc");
    let mut pipe = create.stdout.take().expect("a pipe was requested");
    assert!(
        wait_within(&mut create, DEADLINE).is_some_and(|status| status.success()),
        "runc create hung or failed"
    );
    let watcher = Watcher::of(&bundle.id).expect("a watcher");
    // The container's process has the pipe, too; it closes its copy when it is started.
    assert!(
        runc(machine, None)
            .args(["start", &bundle.id])
            .status()
            .expect("start runc")
            .success()
    );
    let reader = std::thread::spawn(move || pipe.read_to_end(&mut Vec::new()));
    let ended = within(DEADLINE, || reader.is_finished().then_some(()));
    let alive = watcher.is_alive();
    let _ = runc(machine, None)
        .args(["delete", "--force", &bundle.id])
        .output();
    assert_eq!(
        ended,
        Some(()),
        "a process still has the standard output of create"
    );
    assert!(alive);
}

#[apply(on_both_hierarchies)]
fn deleting_ends_the_watcher_and_leaves_nothing(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    for user_namespace in [false, true] {
        let bundle = Bundle::requesting(machine, &format!("devnode:{node}"));
        let container = bundle.with_user_namespace(user_namespace).start();
        let watcher = container.expect_watcher();
        container.reads(&node, &disk.content(1));
        assert!(container.delete().status.success());
        assert!(!watcher.is_alive());
        assert_eq!(machine.traces(), NOTHING);
        assert!(!container.cgroup().exists());
    }
    assert!(fs::exists(&node).expect("look for a node"));
}

#[apply(on_both_hierarchies)]
fn the_watcher_ends_when_the_container_ends(machine: &Machine) {
    let container = Bundle::requesting(machine, "devnode:/dev/oci-hotplug-nothing")
        .without_poststop()
        .start();
    let watcher = container.expect_watcher();
    container.kill("TERM");
    watcher.eventually_ends();
    eventually("nothing is left", || machine.traces() == NOTHING);
}

#[apply(on_both_hierarchies)]
fn the_watcher_ends_when_the_container_is_killed(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let container = Bundle::requesting(machine, &format!("devnode:{node}"))
        .without_poststop()
        .create();
    let watcher = container.expect_watcher();
    container.kill("KILL");
    watcher.eventually_ends();
    eventually("nothing is left", || machine.traces() == NOTHING);
}

/// Runs poststop by hand; asserts that it exits with 0.
fn poststop(machine: &Machine, id: &str, status: &str, pid: &Value, bundle: &Path) {
    let state = oci_state(id, status, pid, bundle.to_str().expect("scratch paths are text"));
    let output = Hook::poststop(machine).run(&[], &state);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[apply(on_both_hierarchies)]
fn poststop_works_in_every_order(machine: &Machine) {
    for pid in [Value::Null, json!(0)] {
        let container = Bundle::requesting(machine, "devnode:/dev/oci-hotplug-nothing")
            .without_poststop()
            .start();
        let watcher = container.expect_watcher();
        // Twice while the container still runs, and twice after it has ended.
        for _ in 0..2 {
            poststop(machine, &container.id, "stopped", &pid, &container.bundle);
            assert_eq!(container.expect_watcher(), watcher);
        }
        assert!(container.is_running(), "poststop ended the container itself");
        container.delete();
        for _ in 0..2 {
            poststop(machine, &container.id, "stopped", &pid, &container.bundle);
            assert!(!watcher.is_alive());
            assert_eq!(machine.traces(), NOTHING);
        }
    }
}

#[apply(on_both_hierarchies)]
fn poststop_works_for_a_container_that_was_never_started(machine: &Machine) {
    for pid in [Value::Null, json!(0), json!(4_194_000)] {
        poststop(machine, "never-started", "stopped", &pid, Path::new("/nowhere"));
    }
    assert_eq!(machine.traces(), NOTHING);
}

#[apply(on_both_hierarchies)]
fn poststop_does_not_signal_processes_of_others(machine: &Machine) {
    let container = Bundle::requesting(machine, "devnode:/dev/oci-hotplug-nothing")
        .without_poststop()
        .start();
    let other = Bundle::requesting(machine, "devnode:/dev/oci-hotplug-nothing").start();
    container.kill("KILL");
    container.expect_gone();
    // youki reports the old pid, which may belong to any process by now.
    let mut unrelated = Command::new("sleep").arg("3600").spawn().expect("start sleep");
    poststop(
        machine,
        &container.id,
        "stopped",
        &json!(unrelated.id()),
        &container.bundle,
    );
    let left_alone = unrelated.try_wait().expect("look at sleep").is_none();
    let _ = unrelated.kill();
    let _ = unrelated.wait();
    assert!(
        left_alone,
        "poststop ended a process that only has a number in common"
    );
    assert!(other.expect_watcher().is_alive());
    assert!(other.is_running());
}

impl RuncContainer<'_> {
    fn expect_gone(&self) {
        eventually("the container has ended", || !self.is_running());
        eventually("its watcher has ended", || self.watcher().is_none());
    }
}

#[apply(on_both_hierarchies)]
fn poststop_succeeds_with_invalid_input(machine: &Machine) {
    for state in ["", "{}", "[]", "{\"id\":\"../../etc\"}", "{\"id\":7}", "not JSON"] {
        let output = Hook::poststop(machine).run(&[], state);
        assert_eq!(output.status.code(), Some(0), "{state:?}: {output:?}");
    }
    assert_eq!(machine.traces(), NOTHING);
}

#[apply(on_both_hierarchies)]
fn a_killed_watcher_leaves_nothing_after_poststop(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    for user_namespace in [false, true] {
        let bundle = Bundle::requesting(machine, &format!("devnode:{node}"));
        let container = bundle.with_user_namespace(user_namespace).start();
        container.expect_watcher().kill();
        assert_eq!(
            container.read("/dev/zero", 1).status,
            0,
            "the engine's rules do not need the watcher"
        );
        assert!(container.delete().status.success());
        assert_eq!(machine.traces(), NOTHING);
    }
}

#[apply(on_both_hierarchies)]
fn the_next_hook_sweeps_leftovers_of_a_crash(machine: &Machine) {
    let container = Bundle::requesting(machine, "devnode:/dev/oci-hotplug-nothing")
        .without_poststop()
        .start();
    container.expect_watcher().kill();
    container.delete();
    assert_ne!(
        machine.traces(),
        NOTHING,
        "a killed watcher can't have removed its record"
    );
    let next = Bundle::requesting(machine, "devnode:/dev/oci-hotplug-nothing").start();
    let of_first = |path: &PathBuf| {
        path.components()
            .any(|part| part.as_os_str() == container.id.as_str())
    };
    // The hook's watcher does this when no client waits any more.
    eventually("the record of a container that is gone is gone, too", || {
        !machine.traces().iter().any(of_first)
    });
    next.delete();
    assert_eq!(machine.traces(), NOTHING);
}

#[apply(on_both_hierarchies)]
fn a_container_that_failed_to_start_leaves_nothing(machine: &Machine) {
    // The second hook refuses, so that runc removes the container again; runc may not run its
    // poststop hook.
    let bundle = Bundle::new(machine).without_poststop().hook_for_each(&[
        "devnode:/dev/oci-hotplug-nothing",
        "devnode:/dev/oci-hotplug-nothing;required",
    ]);
    let id = bundle.id.clone();
    assert!(bundle.try_create().is_err());
    eventually("no watcher is left", || Watcher::of(&id).is_none());
    eventually("nothing is left", || machine.traces() == NOTHING);
}

fn plugged_with<'m>(machine: &'m Machine, disk: &Disk, option: &str) -> RuncContainer<'m> {
    let node = disk.plug(1);
    let container = Bundle::requesting(machine, &format!("devnode:{node}{option}")).start();
    container.reads(&node, &disk.content(1));
    container
}

#[apply(on_both_hierarchies)]
fn on_removal_keep_does_nothing(machine: &Machine) {
    for option in ["", ";on-removal=keep"] {
        let disk = Disk::new(machine);
        let container = plugged_with(machine, &disk, option);
        disk.unplug(1);
        container.eventually_lacks(&disk.partition(1));
        assert!(container.is_running());
        assert_eq!(container.last_output(), "listening");
    }
}

#[apply(on_both_hierarchies)]
fn on_removal_stop_stops_the_container(machine: &Machine) {
    let disk = Disk::new(machine);
    let container = plugged_with(machine, &disk, ";on-removal=stop");
    disk.unplug(1);
    eventually("the container has stopped", || !container.is_running());
    assert_eq!(container.last_output(), "stopped");
    eventually("its watcher has ended", || container.watcher().is_none());
}

#[apply(on_both_hierarchies)]
fn on_removal_kill_kills_the_container(machine: &Machine) {
    let disk = Disk::new(machine);
    let container = plugged_with(machine, &disk, ";on-removal=kill");
    disk.unplug(1);
    eventually("the container has ended", || !container.is_running());
    assert_eq!(container.last_output(), "listening", "it was killed, not stopped");
}

#[apply(on_both_hierarchies)]
fn on_removal_signal_sends_the_signal(machine: &Machine) {
    let disk = Disk::new(machine);
    let container = plugged_with(machine, &disk, ";on-removal=signal:USR1");
    disk.unplug(1);
    eventually("the container received SIGUSR1", || {
        container.last_output() == "usr1"
    });
    container.eventually_lacks(&disk.partition(1));
    assert!(container.is_running());
    // The container waits for its device.
    disk.plug(1);
    container.eventually_reads(&disk.partition(1), &disk.content(1));
    assert!(within(Duration::ZERO, || container.watcher()).is_some());
}

/// Case README 26.
#[apply(on_both_hierarchies)]
fn on_removal_waits_for_the_grace_period_even_with_a_new_watcher(machine: &Machine) {
    let disk = Disk::new(machine);
    let container = plugged_with(machine, &disk, ";on-removal=stop;grace=60s");
    let pending = || {
        output_of(machine, &["inspect", &container.id]).contains("its device was removed; on-removal=stop in")
    };
    disk.unplug(1);
    container.eventually_lacks(&disk.partition(1));
    eventually("the action is shown", pending);
    output_of(machine, &["recover", "--restart-watchers"]);
    eventually("the next watcher knows of it", pending);
    disk.plug(1);
    container.eventually_reads(&disk.partition(1), &disk.content(1));
    eventually("nothing is pending", || !pending());
    assert!(container.is_running());
    let other = Disk::new(machine);
    let stopped = plugged_with(machine, &other, ";on-removal=stop;grace=1s");
    other.unplug(1);
    eventually("the container has stopped", || !stopped.is_running());
    assert_eq!(stopped.last_output(), "stopped");
}
