//! Engines that write the device rules again and again, programs that cannot be extended, and
//! ancestor cgroups that deny. In the end access is right, or `oci-hotplug inspect` and the log
//! show the reason; and a denied device does not affect the others.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;

use nix::libc;

use crate::framework::disk::number_of;
use crate::framework::hook::inspect_json;
use crate::framework::kernel::{Insn, attach_device_program, device_programs, load_device_program};
use crate::framework::{Bundle, Disk, Hierarchy, Machine, RuncContainer, eventually, kernel};

#[path = "../support/engine_program.rs"]
mod engine_program;
use engine_program::{EngineRule, engine_program, program_that_calls_a_helper};

/// An engine that writes a container's rules again.
struct Engine<'m> {
    hierarchy: Hierarchy,
    cgroup: PathBuf,
    plain: RuncContainer<'m>,
}

impl<'m> Engine<'m> {
    fn of(machine: &'m Machine, container: &RuncContainer<'_>) -> Self {
        Self {
            hierarchy: machine.hierarchy,
            cgroup: container.cgroup(),
            plain: Bundle::new(machine).without_hooks().start(),
        }
    }

    /// v1: denies these devices. v2: replaces the current programs by one without our prologue;
    /// another process that does the same may be faster.
    fn write_rules(hierarchy: Hierarchy, cgroup: &Path, plain: u32, numbers: &[(u32, u32)]) {
        match hierarchy {
            Hierarchy::V1 => {
                for (major, minor) in numbers {
                    let rule = format!("b {major}:{minor} rwm");
                    fs::write(cgroup.join("devices.deny"), rule).expect("deny a device");
                }
            }
            Hierarchy::V2 => {
                for old in device_programs(cgroup).expect("query the device programs") {
                    match kernel::replace_device_program(cgroup, old, plain) {
                        Ok(()) => {}
                        // The old program is detached already, or the new one is attached already
                        // (kernel/bpf/cgroup.c).
                        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => {}
                        Err(error) => panic!("replace a device program: {error}"),
                    }
                }
            }
        }
    }

    /// The program that runc attaches to a container without us; 0 on cgroup v1.
    fn plain_program(&self) -> u32 {
        match self.hierarchy {
            Hierarchy::V1 => 0,
            Hierarchy::V2 => device_programs(&self.plain.cgroup()).expect("query the device programs")[0],
        }
    }

    fn write(&self, times: usize, numbers: &[(u32, u32)]) {
        let plain = self.plain_program();
        for _ in 0..times {
            Self::write_rules(self.hierarchy, &self.cgroup, plain, numbers);
        }
    }
}

#[apply(on_both_hierarchies)]
fn an_engine_rewrites_its_rules_a_hundred_times_during_hotplug(machine: &Machine) {
    let disk = Disk::new(machine);
    let container = Bundle::requesting(machine, &format!("glob:{}p*", disk.node))
        .capability("CAP_MKNOD")
        .start();
    let engine = Engine::of(machine, &container);
    let stays = disk.plug(1);
    container.eventually_reads(&stays, &disk.content(1));
    for round in 0..100 {
        engine.write(1, &[number_of(&stays)]);
        // A device is added and removed in every tenth round; the engine's rules are noticed in
        // between or by the next plan.
        if round % 10 == 0 {
            let node = disk.plug(2);
            container.eventually_reads(&node, &disk.content(2));
            let own = container.make_node(&format!("own-{round}"), 'b', number_of(&node));
            engine.write(1, &[number_of(&stays)]);
            disk.unplug(2);
            container.eventually_lacks(&node);
            container.eventually_refuses(&own);
        }
    }
    container.eventually_reads(&stays, &disk.content(1));
    assert_eq!(container.read("/dev/zero", 1).status, 0);
    disk.unplug(1);
    container.eventually_lacks(&stays);
}

#[apply(on_both_hierarchies)]
fn two_engines_rewrite_the_rules_at_the_same_time(machine: &Machine) {
    let disk = Disk::new(machine);
    let container = Bundle::requesting(machine, &format!("glob:{}p*", disk.node)).start();
    let engine = Engine::of(machine, &container);
    let nodes = [disk.plug(1), disk.plug(2)];
    let numbers = nodes.clone().map(|node| number_of(&node));
    let (hierarchy, cgroup, plain) = (machine.hierarchy, container.cgroup(), engine.plain_program());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..200 {
                    Engine::write_rules(hierarchy, &cgroup, plain, &numbers);
                }
            });
        }
        disk.plug(3);
        disk.unplug(2);
    });
    container.eventually_reads(&nodes[0], &disk.content(1));
    container.eventually_reads(&disk.partition(3), &disk.content(3));
    container.eventually_lacks(&nodes[1]);
    eventually("nothing is wrong any more", || {
        inspect_json(machine, &container.id).contains("\"health\": \"ok\"")
    });
}

#[apply(on_both_hierarchies)]
fn runc_updates_run_at_the_same_time(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let container = Bundle::requesting(machine, &format!("devnode:{node}")).start();
    container.reads(&node, &disk.content(1));
    for _ in 0..5 {
        let updates = [(); 2].map(|()| {
            container
                .command(&["update", "--blkio-weight", "0"], &[])
                .stdin(std::process::Stdio::null())
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped())
                .spawn()
                .expect("start runc")
        });
        let outputs = updates.map(|update| update.wait_with_output().expect("wait for runc update"));
        // runc itself may fail because the other process was faster.
        assert!(
            outputs.iter().any(|output| output.status.success()),
            "{outputs:?}"
        );
        container.eventually_reads(&node, &disk.content(1));
    }
}

fn load(program: &[Insn]) -> OwnedFd {
    let bytes: Vec<u8> = program.iter().flat_map(Insn::bytes).collect();
    load_device_program(&bytes).expect("load a program")
}

/// cgroup v1 has no programs.
#[apply(on_cgroup_v2)]
fn a_program_that_cannot_be_extended_is_reported_until_it_is_replaced(machine: &Machine) {
    let disk = Disk::new(machine);
    let container = Bundle::requesting(machine, &format!("glob:{}p*", disk.node)).start();
    let engine = Engine::of(machine, &container);
    let node = disk.plug(1);
    container.eventually_reads(&node, &disk.content(1));
    let foreign = load(&program_that_calls_a_helper());
    let [old] = device_programs(&container.cgroup()).expect("query the device programs")[..] else {
        panic!("one program");
    };
    kernel::put_device_program(&container.cgroup(), old, std::os::fd::AsFd::as_fd(&foreign))
        .expect("replace a program");
    let words = [
        "cannot extend device program",
        "calls a kernel helper",
        "let the program that attached it grant",
    ];
    eventually("inspect shows the program", || {
        let shown = inspect_json(machine, &container.id);
        words.iter().all(|word| shown.contains(word)) && shown.contains("\"health\": \"problems\"")
    });
    let log = machine.log();
    assert!(words.iter().all(|word| log.contains(word)), "{log}");
    assert_eq!(
        log.matches("cannot extend device program").count(),
        1,
        "logged once:\n{log}"
    );
    // A device that is added now waits; a device that is removed is gone.
    let late = disk.plug(2);
    disk.unplug(1);
    container.eventually_lacks(&node);
    assert!(!container.has(&late));
    engine.write(1, &[]);
    container.eventually_reads(&late, &disk.content(2));
    eventually("nothing is wrong any more", || {
        inspect_json(machine, &container.id).contains("\"health\": \"ok\"")
    });
}

/// A cgroup above the container's, which the test creates and removes.
struct Above {
    name: String,
    directory: PathBuf,
    hierarchy: Hierarchy,
}

impl Above {
    fn new(machine: &Machine) -> Self {
        let name = format!("above-{}", machine.fresh_id());
        let directory = machine.cgroup_of(&name);
        fs::create_dir_all(&directory).expect("make a cgroup");
        let hierarchy = machine.hierarchy;
        Self {
            name,
            directory,
            hierarchy,
        }
    }

    /// Denies this block device to all processes below, whatever their own cgroups allow. (Creating
    /// nodes is still allowed: runc insists on allowing that for all devices.)
    fn deny(&self, (major, minor): (u32, u32)) {
        match self.hierarchy {
            Hierarchy::V1 => {
                fs::write(
                    self.directory.join("devices.deny"),
                    format!("b {major}:{minor} rw"),
                )
                .expect("deny a device");
            }
            Hierarchy::V2 => {
                let all = EngineRule {
                    kind: None,
                    major: None,
                    minor: None,
                    access: 7,
                    allow: true,
                };
                let one = EngineRule {
                    kind: Some(1),
                    major: Some(major),
                    minor: Some(minor),
                    access: 6,
                    allow: false,
                };
                let program = load(&engine_program(&[all, one]));
                attach_device_program(&self.directory, std::os::fd::AsFd::as_fd(&program))
                    .expect("attach a program");
            }
        }
    }
}

impl Drop for Above {
    fn drop(&mut self) {
        let parent = self.directory.parent().expect("a cgroup of the tests");
        let _ = fs::remove_dir(&self.directory);
        // runc creates the parent cgroups in every hierarchy of v1.
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let tests = hierarchy
                .path()
                .join(parent.file_name().expect("a cgroup has a name"));
            let _ = fs::remove_dir(tests.join(&self.name));
        }
    }
}

#[apply(on_both_hierarchies)]
fn a_denial_by_an_ancestor_cgroup_is_reported_and_other_devices_work(machine: &Machine) {
    let disk = Disk::new(machine);
    let above = Above::new(machine);
    let denied = disk.plug(1);
    above.deny(number_of(&denied));
    let container = Bundle::requesting(machine, &format!("glob:{}p*", disk.node))
        .below_cgroup(&above.name)
        .start();
    let shown = |problem: &str| {
        let words = [problem, denied.as_str(), above.name.as_str(), "denies"];
        let shown = inspect_json(machine, &container.id);
        words.iter().all(|word| shown.contains(word))
    };
    eventually("inspect shows what denies the device", || shown("problems"));
    assert!(machine.log().contains("denies"), "{}", machine.log());
    assert!(!container.has(&denied), "what can't be used is not put there");
    // Other devices are not affected, even those that are added later.
    for partition in [2, 3] {
        let node = disk.plug(partition);
        container.eventually_reads(&node, &disk.content(partition));
        container.eventually_reads(&disk.partition(2), &disk.content(2));
    }
    eventually("inspect still shows what denies the device", || shown("problems"));
    // Without the device there is no problem.
    disk.unplug(1);
    eventually("nothing is wrong any more", || {
        inspect_json(machine, &container.id).contains("\"health\": \"ok\"")
    });
    container.reads(&disk.partition(3), &disk.content(3));
    disk.unplug(3);
    container.eventually_lacks(&disk.partition(3));
    container.delete();
}

#[apply(on_both_hierarchies)]
fn a_later_denial_by_an_ancestor_cgroup_is_reported(machine: &Machine) {
    let disk = Disk::new(machine);
    let above = Above::new(machine);
    let container = Bundle::requesting(machine, &format!("glob:{}p*", disk.node))
        .below_cgroup(&above.name)
        .start();
    let (one, other) = (disk.plug(1), disk.plug(2));
    container.eventually_reads(&one, &disk.content(1));
    container.eventually_reads(&other, &disk.content(2));
    above.deny(number_of(&one));
    eventually("inspect shows what denies the device", || {
        let shown = inspect_json(machine, &container.id);
        [above.name.as_str(), "denies", "problems"]
            .iter()
            .all(|word| shown.contains(word))
    });
    assert!(container.is_refused(&one));
    container.reads(&other, &disk.content(2));
    let third = disk.plug(3);
    container.eventually_reads(&third, &disk.content(3));
    container.delete();
}
