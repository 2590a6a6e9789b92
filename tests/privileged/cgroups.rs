//! Which cgroup a container's devices are granted in, while it moves and after it has ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use serde_json::Value;

use crate::framework::container::text;
use crate::framework::disk::number_of;
use crate::framework::hook::{inspect_json, oci_state};
use crate::framework::{Bundle, Disk, Hierarchy, Hook, Machine, RuncContainer, alone, eventually, kernel};

const NOTHING: Vec<PathBuf> = Vec::new();

/// A cgroup that no runtime created, with the device rules that an engine gives a container without
/// devices of ours. It is removed with the test.
struct OwnCgroup {
    path: PathBuf,
}

impl OwnCgroup {
    fn new(machine: &Machine, name: &str) -> Self {
        let path = machine.cgroup_of(name);
        fs::create_dir(&path).expect("make a cgroup");
        Self { path }
    }

    fn with_rules_of(machine: &Machine, name: &str, container: &RuncContainer<'_>) -> Self {
        let cgroup = Self::new(machine, name);
        match machine.hierarchy {
            Hierarchy::V1 => {
                let rules = container.device_rules();
                let write = |file: &str, rule: &str| fs::write(cgroup.path.join(file), rule);
                write("devices.deny", "a").expect("deny all devices");
                for rule in rules.lines() {
                    write("devices.allow", rule).expect("allow a device");
                }
            }
            Hierarchy::V2 => {
                for id in kernel::device_programs(&container.cgroup()).expect("list programs") {
                    let program = kernel::program_by_id(id).expect("open a program");
                    kernel::attach_device_program(&cgroup.path, std::os::fd::AsFd::as_fd(&program))
                        .expect("attach a program");
                }
            }
        }
        cgroup
    }

    /// Moves all processes of another cgroup into this one.
    fn take_all_of(&self, from: &Path) {
        move_all(from, &self.path);
    }
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}

fn move_all(from: &Path, to: &Path) {
    let processes = fs::read_to_string(from.join("cgroup.procs")).expect("list a cgroup's processes");
    for pid in processes.lines() {
        fs::write(to.join("cgroup.procs"), pid).expect("move a process");
    }
}

/// Whether a process of the host that joins the cgroup cannot open the device.
fn is_refused_in(cgroup: &Path, node: &str) -> bool {
    let script = format!(
        "echo $$ >{}/cgroup.procs && exec head -c 1 {node}",
        cgroup.display()
    );
    let output = Command::new("sh")
        .args(["-c", &script])
        .output()
        .expect("start a shell");
    !output.status.success() && text(&output).contains("Operation not permitted")
}

/// No event reports a move, and a watcher that has granted nothing does not look for one each
/// second: the first grant must not go to the cgroup that the container has left.
#[apply(on_both_hierarchies)]
fn a_container_that_moves_before_its_first_device_gets_access_where_it_is(machine: &Machine) {
    // The devices of other tests would wake the watcher.
    alone();
    let disk = Disk::new(machine);
    let container = Bundle::requesting(machine, &format!("glob:{}p*", disk.node)).start();
    let left = container.cgroup();
    let other = OwnCgroup::with_rules_of(machine, &format!("{}-other", container.id), &container);
    container.expect_watcher().eventually_rests();
    // The shell that reads inside is moved along.
    assert!(!container.has(&disk.partition(1)));
    other.take_all_of(&left);
    let node = disk.plug(1);
    container.eventually_reads(&node, &disk.content(1));
    assert!(is_refused_in(&left, &node), "the cgroup that it left has access");
    disk.unplug(1);
    container.eventually_lacks(&node);
    move_all(&other.path, &left);
}

/// Case security 7.
#[apply(on_both_hierarchies)]
fn the_second_of_two_containers_in_one_cgroup_is_refused(machine: &Machine) {
    let disk = Disk::new(machine);
    let [first_node, second_node] = [1, 2].map(|partition| disk.plug(partition));
    let cgroup = format!("{}-shared", machine.fresh_id());
    let request = |node: &str| Bundle::requesting(machine, &format!("devnode:{node}")).in_cgroup(&cgroup);
    let first = request(&first_node).capability("CAP_MKNOD").start();
    first.reads(&first_node, &disk.content(1));
    let reason = format!(
        "is also the cgroup of container {} (process {}), whose device access is managed there",
        first.id, first.pid
    );
    match request(&second_node).try_create() {
        Ok(second) => panic!("{} was created in the cgroup of {}", second.id, first.id),
        Err(refusal) => assert!(refusal.message.contains(&reason), "{}", refusal.message),
    }
    first.eventually_reads(&first_node, &disk.content(1));
    let others = first.make_node("others", 'b', number_of(&second_node));
    assert!(first.is_refused(&others), "it has the second's device");

    // The second container may run there without requests, and cannot get any later.
    let second = Bundle::new(machine).in_cgroup(&cgroup).start();
    let (state_dir, root) = (machine.state_dir(), machine.runc_root());
    let attached = Hook::operator().run(
        &[
            "--state-dir",
            state_dir.to_str().expect("scratch paths are text"),
            "--config",
            machine.config().to_str().expect("scratch paths are text"),
            "attach",
            "--runtime-root",
            root.to_str().expect("scratch paths are text"),
            &second.id,
            &format!("devnode:{second_node}"),
        ],
        "",
    );
    assert!(!attached.status.success());
    assert!(text(&attached).contains(&reason), "{}", text(&attached));
    assert!(
        text(&attached).contains("nothing was attached"),
        "{}",
        text(&attached)
    );
    eventually("the watcher that was refused has ended", || {
        second.watcher().is_none()
    });
    first.eventually_reads(&first_node, &disk.content(1));
    assert!(first.is_refused(&others));

    // It cannot get them while the first container's watcher is dead, either; when the first
    // container has ended, the cgroup is free.
    first.expect_watcher().kill();
    assert!(request(&second_node).try_create().is_err());
    second.delete();
    first.kill("KILL");
    eventually("the first has ended", || !first.is_running());
    let third = request(&second_node).start();
    third.reads(&second_node, &disk.content(2));
    third.delete();
    first.delete();
    assert_eq!(machine.traces(), NOTHING);
}

/// Case security 9.
#[apply(on_both_hierarchies)]
fn access_follows_a_container_into_another_cgroup(machine: &Machine) {
    let disk = Disk::new(machine);
    let nodes = [1, 2, 3].map(|partition| disk.partition(partition));
    let requests = nodes.clone().map(|node| format!("devnode:{node}")).join(",");
    let bundle = Bundle::requesting(machine, &requests).capability("CAP_MKNOD");
    let name = bundle.id.clone();
    let (container, places);
    {
        let created = bundle.start();
        places =
            [1, 2, 3].map(|number| OwnCgroup::with_rules_of(machine, &format!("{name}-{number}"), &created));
        container = created;
    }
    let watcher = container.expect_watcher();
    disk.plug(1);
    container.eventually_reads(&nodes[0], &disk.content(1));
    let first = container.make_node("first", 'b', number_of(&nodes[0]));

    places[0].take_all_of(&container.cgroup());
    container.eventually_reads(&nodes[0], &disk.content(1));
    disk.plug(2);
    container.eventually_reads(&nodes[1], &disk.content(2));
    assert!(
        is_refused_in(&container.cgroup(), &nodes[0]),
        "the old cgroup has the device"
    );
    disk.unplug(1);
    container.eventually_lacks(&nodes[0]);
    container.eventually_refuses(&first);
    assert_eq!(
        container.read("/dev/zero", 1).status,
        0,
        "the engine's rules are there"
    );

    // The old cgroup is removed at once.
    places[1].take_all_of(&places[0].path);
    fs::remove_dir(&places[0].path).expect("remove a cgroup");
    container.eventually_reads(&nodes[1], &disk.content(2));
    assert_eq!(container.expect_watcher(), watcher);
    let log = machine.log();
    for place in &places[..2] {
        let line = format!("the container was moved to cgroup {}", place.path.display());
        assert_eq!(log.matches(&line).count(), usize::from(!log.is_empty()), "{log}");
    }

    // The container is moved while it has no watcher.
    watcher.kill();
    places[2].take_all_of(&places[1].path);
    let state_dir = machine.state_dir();
    let state_dir = state_dir.to_str().expect("scratch paths are text");
    let recovered = Hook::operator().run(&["--state-dir", state_dir, "recover"], "");
    assert!(recovered.status.success(), "{}", text(&recovered));
    container.eventually_reads(&nodes[1], &disk.content(2));
    assert!(
        is_refused_in(&places[1].path, &nodes[1]),
        "the old cgroup has the device"
    );
    disk.plug(3);
    container.eventually_reads(&nodes[2], &disk.content(3));
    let third = container.make_node("third", 'b', number_of(&nodes[2]));
    disk.unplug(3);
    container.eventually_lacks(&nodes[2]);
    container.eventually_refuses(&third);
    container.delete();
    eventually("nothing is left", || machine.traces() == NOTHING);
}

/// Case security 9.
#[apply(on_both_hierarchies)]
fn the_root_cgroup_is_not_changed_and_the_reason_is_shown(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let bundle = Bundle::requesting(machine, &format!("devnode:{node}"));
    let name = bundle.id.clone();
    let container = bundle.start();
    let place = OwnCgroup::new(machine, &format!("{name}-back"));
    let root = machine.cgroup_of("");
    let root = root.parent().expect("the tests' cgroup is below the root");
    let rules = |cgroup: &Path| match machine.hierarchy {
        Hierarchy::V1 => fs::read_to_string(cgroup.join("devices.list")).expect("read rules"),
        Hierarchy::V2 => format!("{:?}", kernel::device_programs(cgroup).expect("list programs")),
    };
    let before = rules(root);
    move_all(&container.cgroup(), root);
    eventually("the reason is shown", || {
        inspect_json(machine, &name)
            .contains("moved to the root cgroup, whose device rules oci-hotplug never changes")
    });
    assert_eq!(rules(root), before);
    assert!(
        is_refused_in(&container.cgroup(), &node),
        "the old cgroup has the device"
    );
    assert_eq!(
        container.expect_watcher().pid,
        container.watcher().expect("a watcher").pid
    );
    fs::write(place.path.join("cgroup.procs"), container.pid.to_string()).expect("move a process");
    eventually("the reason is gone", || {
        !inspect_json(machine, &name).contains("root cgroup")
    });
    // The shell in the container is still in the root cgroup.
    let processes = fs::read_to_string(root.join("cgroup.procs")).expect("list processes");
    assert!(!processes.lines().any(|pid| pid == container.pid.to_string()));
    assert_eq!(rules(root), before);
    container.delete();
    eventually("nothing is left", || machine.traces() == NOTHING);
}

/// A process of the host in a cgroup, which therefore still exists after its container has ended.
struct Squatter(Child);

impl Squatter {
    fn new(cgroup: &Path) -> Self {
        let child = Command::new("sleep").arg("3600").spawn().expect("start sleep");
        let squatter = Self(child);
        fs::write(cgroup.join("cgroup.procs"), squatter.0.id().to_string()).expect("move a process");
        squatter
    }
}

impl Drop for Squatter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The ways in which a container can end while its cgroup still exists.
#[derive(Debug, PartialEq)]
enum End {
    WithItsWatcher,
    AfterItsWatcherAndWithPoststop,
    AfterItsWatcherAndNobodyCleansUp,
}

/// Case security 6. A program that ends a watcher, or finds that it has died, revokes what it had
/// granted.
#[apply(on_both_hierarchies)]
fn a_cgroup_that_exists_after_its_container_has_no_access_left(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    for end in [
        End::WithItsWatcher,
        End::AfterItsWatcherAndWithPoststop,
        End::AfterItsWatcherAndNobodyCleansUp,
    ] {
        let cgroup = format!("{}-lasting", machine.fresh_id());
        let container = Bundle::requesting(machine, &format!("devnode:{node}"))
            .in_cgroup(&cgroup)
            .start();
        let path = container.cgroup();
        let lasting = OwnCgroup { path: path.clone() };
        let squatter = Squatter::new(&path);
        container.reads(&node, &disk.content(1));
        assert!(!is_refused_in(&path, &node));
        if end != End::WithItsWatcher {
            container.expect_watcher().kill();
        }
        container.kill("KILL");
        eventually("the container has ended", || !container.is_running());
        let next = if end == End::AfterItsWatcherAndNobodyCleansUp {
            let next = Bundle::requesting(machine, "devnode:/dev/oci-hotplug-nothing")
                .in_cgroup(&cgroup)
                .start();
            Some(next)
        } else {
            container.delete();
            // runc fails if it cannot remove the cgroup; other runtimes run their hooks.
            let bundle = container.bundle.to_str().expect("scratch paths are text");
            let state = oci_state(&container.id, "stopped", &Value::Null, bundle);
            let output = Hook::poststop(machine).run(&[], &state);
            assert!(output.status.success(), "{}", text(&output));
            assert_eq!(machine.traces(), NOTHING);
            None
        };
        assert!(path.exists(), "the cgroup outlives the container");
        assert!(is_refused_in(&path, &node), "{end:?}");
        if let Some(next) = next {
            next.kill("KILL");
            eventually("the container has ended", || !next.is_running());
            next.delete();
            container.delete();
            eventually("nothing is left", || machine.traces() == NOTHING);
        }
        drop(squatter);
        eventually("the cgroup is empty", || {
            fs::read_to_string(path.join("cgroup.procs")).is_ok_and(|text| text.is_empty())
        });
        drop(lasting);
    }
}
