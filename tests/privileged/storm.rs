//! After many rounds of plugging and unplugging nothing is left over: no node, grant, program,
//! descriptor or memory.

use std::path::PathBuf;

use crate::framework::disk::number_of;
use crate::framework::{Bundle, Disk, Machine, RuncContainer, Terminal, Watcher, alone, eventually, kernel};

/// The number of rounds: tests/run.sh sets OCI_HOTPLUG_LONG for the full number.
fn rounds() -> usize {
    if std::env::var_os("OCI_HOTPLUG_LONG").is_some() {
        400
    } else {
        200
    }
}

/// What a watcher and its container have: descriptors, nodes below /dev, mounts, and rules or
/// programs of the cgroup.
#[derive(Debug, PartialEq, Eq)]
struct Holdings {
    descriptors: usize,
    nodes: String,
    mounts: usize,
    rules: usize,
}

fn holdings(container: &RuncContainer<'_>, watcher: &Watcher) -> Holdings {
    Holdings {
        descriptors: watcher.descriptors().len(),
        nodes: container.inside("ls -ln /dev | grep '^[bcl]'").output,
        mounts: container
            .inside("cat /proc/self/mountinfo")
            .output
            .lines()
            .count(),
        rules: container.device_rules().split([',', '\n']).count(),
    }
}

#[apply(on_both_hierarchies)]
fn many_rounds_of_hotplug_leave_nothing(machine: &Machine) {
    rounds_leave_nothing(machine, false);
}

#[apply(on_both_hierarchies)]
fn many_rounds_of_hotplug_in_a_user_namespace_leave_nothing(machine: &Machine) {
    rounds_leave_nothing(machine, true);
}

fn rounds_leave_nothing(machine: &Machine, user_namespace: bool) {
    // The programs and maps of the whole kernel are counted.
    alone();
    let disk = Disk::new(machine);
    let node = disk.partition(1);
    let request = format!("devnode:{node};link=/dev/data/link");
    let bundle = Bundle::requesting(machine, &request).capability("CAP_MKNOD");
    let container = bundle.with_user_namespace(user_namespace).start();
    let watcher = container.expect_watcher();
    let round = || {
        disk.plug(1);
        container.eventually_reads(&node, &disk.content(1));
        disk.unplug(1);
        container.eventually_lacks(&node);
    };
    // The first rounds fill buffers and the allocator's arenas, which are kept on purpose.
    (0..20).for_each(|_| round());
    watcher.eventually_waits_for_events();
    let before = holdings(&container, &watcher);
    // Not "Rss": that also counts pages of the executable, which are mapped at their first use.
    let memory = watcher.memory("Anonymous");
    let objects = kernel::bpf_objects();
    (0..rounds()).for_each(|_| round());
    eventually("the watcher and the container hold what they held", || {
        holdings(&container, &watcher) == before
    });
    let grown = watcher.memory("Anonymous").saturating_sub(memory);
    assert!(
        grown <= 256,
        "the watcher has grown by {grown} KiB in {} rounds",
        rounds()
    );
    // The kernel frees programs a little after their last user.
    eventually(
        &format!("the kernel holds no more than {objects:?} programs and maps"),
        || {
            let now = kernel::bpf_objects();
            now.0 <= objects.0 && now.1 <= objects.1
        },
    );
    assert_eq!(container.expect_watcher(), watcher);
    container.delete();
    assert_eq!(machine.traces(), Vec::<PathBuf>::new());
}

#[apply(on_both_hierarchies)]
fn rapid_hotplug_has_the_right_result(machine: &Machine) {
    let disk = Disk::new(machine);
    let terminal = Terminal::new();
    let request = format!("glob:{}p*,devnode:{}", disk.node, terminal.node());
    let container = Bundle::requesting(machine, &request)
        .capability("CAP_MKNOD")
        .start();
    let mut numbers = Vec::new();
    for round in 0..rounds() {
        let partition = u8::try_from(round % 15 + 1).expect("a small number");
        let number = number_of(&disk.plug(partition));
        if !numbers.contains(&number) {
            numbers.push(number);
        }
        terminal.plug();
        disk.unplug(partition);
        terminal.unplug();
    }
    disk.plug(7);
    terminal.plug();
    container.eventually_reads(&disk.partition(7), &disk.content(7));
    container.eventually_reads(&terminal.node(), &terminal.content());
    let still = number_of(&disk.partition(7));
    for partition in (1..=15).filter(|partition| *partition != 7) {
        container.eventually_lacks(&disk.partition(partition));
    }
    for number in numbers.into_iter().filter(|number| *number != still).take(8) {
        let name = format!("own-{}", number.1);
        let own = container.make_node(&name, 'b', number);
        container.eventually_refuses(&own);
    }
}
