//! How many system calls a watcher makes for a device that comes and goes. The numbers grow when a
//! look-up is added that the kernel's answers make unnecessary; tests/bench/README.md has them.

use crate::framework::alone;
use crate::framework::tracer::Tracer;
use crate::framework::{Bundle, Disk, Hierarchy, Machine, Watcher};

/// The calls of a watcher, in a file that `strace` writes.
struct Calls {
    tracer: Tracer,
    file: std::path::PathBuf,
}

impl Calls {
    fn record(machine: &Machine, watcher: &Watcher) -> Self {
        let file = machine.scratch("calls");
        let tracer = Tracer::record(watcher.pid, &file);
        Self { tracer, file }
    }

    /// The wakes since then: the calls of each, without the one that waits for the next. Those of
    /// ticks are left out.
    fn wakes(self) -> Vec<Vec<String>> {
        self.tracer.detach();
        let text = std::fs::read_to_string(&self.file).expect("read what strace has written");
        // The watcher is waiting when strace attaches, which shows only the end of that.
        let mut wakes: Vec<Vec<String>> = vec![Vec::new()];
        let mut is_event = true;
        // A debug build checks each descriptor before it closes it.
        let is_call = |line: &&str| line.contains('(') && !line.contains("F_GETFD");
        for line in text.lines().filter(is_call) {
            if line.contains("epoll_") {
                is_event = line.contains(" = ") && !line.ends_with(" = 0");
                wakes.extend(is_event.then(Vec::new));
            } else if let Some(wake) = wakes.last_mut().filter(|_| is_event) {
                wake.push(line.to_owned());
            }
        }
        wakes
    }
}

/// The wake that makes a call, and the number of calls up to the first of it, itself included.
fn wake_with<'w>(wakes: &'w [Vec<String>], call: &str) -> (&'w [String], usize) {
    let is_it = |line: &String| line.contains(call);
    let mut found = wakes
        .iter()
        .filter_map(|wake| Some((&wake[..], wake.iter().position(is_it)? + 1)));
    let none = || panic!("no {call} in {wakes:#?}");
    found.next().unwrap_or_else(none)
}

#[apply(on_both_hierarchies)]
fn a_plug_and_an_unplug_take_few_system_calls(machine: &Machine) {
    // The watcher also receives the events of other tests' disks.
    alone();
    let disk = Disk::new(machine);
    let node = disk.partition(1);
    // A trusted request does not depend on mounts, which other tests change meanwhile.
    let request = format!("devnode:{node};ready=kernel");
    let container = Bundle::new(machine)
        .hook_arguments(&["--device", &request])
        .start();
    let watcher = container.expect_watcher();
    let plug = || {
        disk.plug(1);
        container.eventually_reads(&node, &disk.content(1));
        watcher.eventually_waits_for_events();
    };
    let unplug = || {
        disk.unplug(1);
        container.eventually_lacks(&node);
        watcher.eventually_waits_for_events();
    };
    // The first plug opens what stays open and extends the device programs, the second one finds
    // them extended.
    for _ in 0..2 {
        plug();
        unplug();
    }
    let calls = Calls::record(machine, &watcher);
    plug();
    let plugged = calls.wakes();
    let calls = Calls::record(machine, &watcher);
    unplug();
    let unplugged = calls.wakes();
    let (plug, until_node) = wake_with(&plugged, "mknodat(");
    let (unplug, until_revoked) = wake_with(
        &unplugged,
        match machine.hierarchy {
            Hierarchy::V1 => "devices.deny",
            Hierarchy::V2 => "bpf(BPF_MAP_DELETE_ELEM",
        },
    );
    let (of_plug, of_unplug) = (plug.len(), unplug.len());
    println!(
        "{:?}: {until_node} calls until the node, {of_plug} for the kernel's event; {until_revoked} until access is revoked, {of_unplug} for the kernel's event",
        machine.hierarchy
    );
    // On cgroup v1 access is granted through files, which are read back.
    let more = match machine.hierarchy {
        Hierarchy::V1 => 8,
        Hierarchy::V2 => 0,
    };
    assert!(until_node <= 18 + more, "{until_node}: {plug:#?}");
    assert!(of_plug <= 42 + more, "{of_plug}: {plug:#?}");
    assert!(until_revoked <= 4 + more, "{until_revoked}: {unplug:#?}");
    assert!(of_unplug <= 30 + more, "{of_unplug}: {unplug:#?}");
}
