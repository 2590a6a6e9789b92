//! Starts that fail half-way, one at a time and many at once: hooks that are killed, inits that die
//! while the hook runs, and hooks of other programs that fail after ours. No start hangs, and
//! nothing is left.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::framework::container::runc;
use crate::framework::eventually::wait_within;
use crate::framework::hook::inspect_json;
use crate::framework::{Bundle, Disk, Machine, Place, Watcher, eventually};

const NOTHING: Vec<PathBuf> = Vec::new();

/// tests/run.sh sets OCI_HOTPLUG_LONG for the full number.
fn full_or(full: usize, less: usize) -> usize {
    if std::env::var_os("OCI_HOTPLUG_LONG").is_some() {
        full
    } else {
        less
    }
}

/// Starts a runc command whose output goes to a file, because many of them run at once.
fn runc_to(machine: &Machine, log: &File, arguments: &[&str]) -> Child {
    runc(machine, None)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("share a log"))
        .stderr(log.try_clone().expect("share a log"))
        .spawn()
        .expect("start runc")
}

/// One of many containers.
struct Member {
    id: String,
    bundle: PathBuf,
    log: File,
    hooks_die: bool,
}

impl Member {
    fn output(&self) -> String {
        fs::read_to_string(self.bundle.join("crowd.log")).unwrap_or_default()
    }

    fn create(&self, machine: &Machine) -> Child {
        let bundle = self.bundle.to_str().expect("scratch paths are text");
        runc_to(machine, &self.log, &["create", "--bundle", bundle, &self.id])
    }

    fn command(&self, machine: &Machine, verb: &[&str]) -> Child {
        let mut arguments = verb.to_vec();
        arguments.push(&self.id);
        runc_to(machine, &self.log, &arguments)
    }
}

/// Containers that are removed when this is dropped, whatever happened to the test.
struct Crowd<'m> {
    machine: &'m Machine,
    members: Vec<Member>,
}

impl Drop for Crowd<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let deletes = self
            .members
            .iter()
            .map(|member| member.command(self.machine, &["delete", "--force"]));
        for mut delete in deletes.collect::<Vec<_>>() {
            wait_within(&mut delete, Duration::from_secs(30));
        }
        for member in &self.members {
            Watcher::all_of(&member.id).iter().for_each(Watcher::kill);
        }
    }
}

/// Waits for all children; returns whether each succeeded.
fn all_end(what: &str, children: Vec<Child>) -> Vec<bool> {
    let end = Instant::now() + Duration::from_secs(60);
    let ends = children.into_iter().map(|mut child| {
        let left = end.saturating_duration_since(Instant::now());
        let status = wait_within(&mut child, left);
        status.unwrap_or_else(|| panic!("{what} is stuck")).success()
    });
    ends.collect()
}

#[apply(on_both_hierarchies)]
fn many_containers_start_at_once_and_some_hooks_are_killed(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let members: Vec<Member> = (0..full_or(64, 24))
        .map(|number| {
            // The hooks of one in ten containers are killed, each after a different time.
            let hooks_die = number % 10 == 7;
            let mut bundle = Bundle::requesting(machine, &format!("devnode:{node}"));
            if hooks_die {
                bundle = bundle.hooks_killed_after(Duration::from_millis(1 + 4 * (number as u64 / 10)));
            }
            bundle.write();
            let log = File::create(bundle.directory().join("crowd.log")).expect("make a log");
            Member {
                id: bundle.id.clone(),
                bundle: bundle.directory(),
                log,
                hooks_die,
            }
        })
        .collect();
    let crowd = Crowd { machine, members };
    let members = &crowd.members;
    let begin = Instant::now();
    let created = all_end(
        "a create",
        members.iter().map(|member| member.create(machine)).collect(),
    );
    println!("{} creates at once: {:?}", members.len(), begin.elapsed());
    for (member, created) in members.iter().zip(&created) {
        assert!(*created || member.hooks_die, "{}: {}", member.id, member.output());
    }
    assert!(created.contains(&false), "no hook was killed early enough");
    let living: Vec<&Member> = members
        .iter()
        .zip(&created)
        .filter(|(_, it)| **it)
        .map(|(it, _)| it)
        .collect();
    let started = all_end(
        "a start",
        living
            .iter()
            .map(|member| member.command(machine, &["start"]))
            .collect(),
    );
    assert!(started.iter().all(|started| *started));
    // Each running container has its watcher and its record, and nothing is left of the killed
    // hooks.
    for member in &living {
        assert_eq!(Watcher::all_of(&member.id).len(), 1, "watchers of {}", member.id);
        let shown = inspect_json(machine, &member.id);
        assert!(
            shown.contains("\"health\": \"ok\"") && shown.contains(&node),
            "{shown}"
        );
    }
    for member in members.iter().filter(|member| member.hooks_die) {
        if !living.iter().any(|living| living.id == member.id) {
            eventually("no watcher is left of a start that failed", || {
                Watcher::of(&member.id).is_none()
            });
        }
    }
    let begin = Instant::now();
    let deleted = all_end(
        "a delete",
        members
            .iter()
            .map(|member| member.command(machine, &["delete", "--force"]))
            .collect(),
    );
    for (member, deleted) in members.iter().zip(deleted) {
        assert!(deleted || member.hooks_die, "{}: {}", member.id, member.output());
    }
    println!("deletes at once: {:?}", begin.elapsed());
    for member in members {
        eventually("no watcher is left", || Watcher::of(&member.id).is_none());
    }
    // The next hook sweeps what a killed poststop left.
    Bundle::requesting(machine, "devnode:/dev/oci-hotplug-nothing")
        .start()
        .delete();
    assert_eq!(machine.traces(), NOTHING);
    let stuck = members
        .iter()
        .find(|member| machine.cgroup_of(&member.id).exists());
    assert!(stuck.is_none(), "a cgroup is left");
}

/// Shell commands that set `$pid` to the pid in the state on standard input.
const PID: &str = r#"pid=$(sed 's/.*"pid": *\([0-9]*\).*/\1/')"#;

#[apply(on_both_hierarchies)]
fn an_init_that_dies_during_the_hook_leaves_nothing(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let (mut refused, mut served) = (0, 0);
    for round in 0..full_or(60, 30) {
        // In the background: our hook starts at once, and takes about ten milliseconds.
        let delay = format!("0.{:03}", round * 60 / full_or(60, 30));
        let killer = format!("{PID}; (sleep {delay}; kill -9 $pid) </dev/null >/dev/null 2>&1 &");
        let bundle = Bundle::requesting(machine, &format!("devnode:{node}"))
            .without_poststop()
            .foreign_hook("createRuntime", Place::Before, &killer);
        let id = bundle.id.clone();
        let begin = Instant::now();
        // Kept to the end of the round, because dropping a container ends its watcher.
        let container = bundle.try_create();
        let took = begin.elapsed();
        assert!(took < Duration::from_millis(8_500), "a start took {took:?}");
        match &container {
            Ok(container) => {
                served += 1;
                container.delete();
            }
            Err(_) => {
                refused += 1;
                let _ = runc(machine, None).args(["delete", "--force", &id]).output();
            }
        }
        eventually("no watcher is left", || Watcher::of(&id).is_none());
        eventually("nothing is left", || machine.traces() == NOTHING);
    }
    println!("{refused} starts failed, {served} were over before the end");
    assert!(refused > 0, "no init died early enough");
}

#[apply(on_both_hierarchies)]
fn a_failing_hook_of_another_program_leaves_nothing(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    for stage in ["createRuntime", "createContainer", "startContainer"] {
        // Like crun, which does not run poststop after a create that has failed.
        let bundle = Bundle::requesting(machine, &format!("devnode:{node}"))
            .without_poststop()
            .foreign_hook(stage, Place::After, "exit 1");
        let id = bundle.id.clone();
        match bundle.try_create() {
            Ok(container) => {
                assert_eq!(stage, "startContainer");
                let start = container.command(&["start"], &[]).stdin(Stdio::null()).output();
                println!("runc start: {start:?}");
                eventually("no watcher is left", || Watcher::of(&id).is_none());
                eventually("nothing is left", || machine.traces() == NOTHING);
                container.delete();
            }
            Err(refusal) => {
                assert_ne!(stage, "startContainer", "{}", refusal.message);
                eventually("no watcher is left", || Watcher::of(&id).is_none());
                eventually("nothing is left", || machine.traces() == NOTHING);
            }
        }
        let _ = runc(machine, None).args(["delete", "--force", &id]).output();
        assert!(!machine.cgroup_of(&id).exists(), "{stage}: a cgroup is left");
    }
}

#[apply(on_both_hierarchies)]
fn a_killed_create_leaves_nothing(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    for round in 0..full_or(40, 15) {
        let bundle = Bundle::requesting(machine, &format!("devnode:{node}"));
        bundle.write();
        let limit = format!("0.{:03}", 5 + round * 100 / full_or(40, 15));
        let log = File::create(bundle.directory().join("create.log")).expect("make a log");
        // runc itself is killed, as by an engine whose user interrupts it. (timeout(1) kills its
        // process group.)
        let mut create = Command::new("timeout");
        create
            .args(["--foreground", "--signal=KILL", &limit, "runc", "--root"])
            .arg(machine.runc_root());
        create
            .args(["create", "--bundle"])
            .arg(bundle.directory())
            .arg(&bundle.id);
        let mut create = create
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("share a log"))
            .stderr(log)
            .spawn()
            .expect("start runc through timeout (coreutils)");
        assert!(
            wait_within(&mut create, Duration::from_secs(30)).is_some(),
            "a create is stuck"
        );
        eventually("what is left of the container is gone", || {
            // This succeeds even if there is no such container.
            let deleted = runc(machine, None)
                .args(["delete", "--force", &bundle.id])
                .output()
                .expect("start runc");
            deleted.status.success() && Watcher::of(&bundle.id).is_none()
        });
    }
    Bundle::requesting(machine, "devnode:/dev/oci-hotplug-nothing")
        .start()
        .delete();
    eventually("nothing is left", || machine.traces() == NOTHING);
}
