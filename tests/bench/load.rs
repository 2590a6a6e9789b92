//! Many events, watchers and devices: what is lost, what is left over, and the cost.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::figures::cpu;
use crate::framework::eventually::within;
use crate::framework::{Bundle, Disk, Machine, RuncContainer, Udevd, Watcher, kernel};

/// After this time an event counts as lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// A device of the host that no container requests: writing to this file makes the kernel send a
/// `change` event (Documentation/ABI/testing/sysfs-uevent).
const UNRELATED: &str = "/sys/devices/virtual/mem/null/uevent";

/// Prints the tables.
pub fn measure(machine: &Machine) {
    println!("| figure | measured |");
    println!("|---|---|");
    cycles(machine, 10_000);
    idle_and_unrelated(machine, 500, 1000);
    shared_tree(machine, 200, 50);
}

fn row(figure: &str, measured: &str) {
    println!("| {figure} | {measured} |");
}

/// One device that is plugged in and unplugged repeatedly.
fn cycles(machine: &Machine, rounds: u32) {
    let disk = Disk::new(machine);
    let container =
        Bundle::requesting(machine, &format!("devnode:{};link=/dev/link", disk.partition(1))).start();
    let watcher = container.expect_watcher();
    let node = inside(&container, &disk.partition(1));
    let round = || {
        disk.plug(1);
        let came = within(PATIENCE, || node.exists().then_some(())).is_some();
        disk.unplug(1);
        came && within(PATIENCE, || (!node.exists()).then_some(())).is_some()
    };
    for _ in 0..20 {
        round();
    }
    let before = Holdings::of(&watcher, &container);
    let cpu = cpu(&watcher);
    let lost = (0..rounds).filter(|_| !round()).count();
    let spent = self::cpu(&watcher) - cpu;
    let settled = within(Duration::from_secs(5), || {
        Holdings::of(&watcher, &container)
            .is_no_more_than(&before)
            .then_some(())
    });
    row(
        &format!("{rounds} times plugged in and pulled out, not seen inside"),
        &lost.to_string(),
    );
    let left = match settled {
        Some(()) => "nothing".to_owned(),
        None => format!("{:?} instead of {before:?}", Holdings::of(&watcher, &container)),
    };
    row(
        "left over (descriptors, nodes, rules or programs, BPF objects)",
        &left,
    );
    row(
        "CPU of the watcher for each of the kernel's events",
        &micros(spent / (2 * rounds)),
    );
    row(
        "memory of the watcher (Rss) after it",
        &format!("{} KiB", watcher.memory("Rss")),
    );
}

/// What must be the same afterwards.
#[derive(Debug)]
struct Holdings {
    descriptors: usize,
    nodes: usize,
    rules: usize,
    programs: usize,
    maps: usize,
}

impl Holdings {
    /// Programs and maps are those of the whole kernel: other processes may have freed some.
    fn is_no_more_than(&self, before: &Self) -> bool {
        (self.descriptors, self.nodes, self.rules) == (before.descriptors, before.nodes, before.rules)
            && self.programs <= before.programs
            && self.maps <= before.maps
    }

    fn of(watcher: &Watcher, container: &RuncContainer<'_>) -> Self {
        let (programs, maps) = kernel::bpf_objects();
        Self {
            descriptors: watcher.descriptors().len(),
            nodes: fs::read_dir(inside(container, "/dev"))
                .expect("list /dev")
                .count(),
            rules: container.device_rules().split([',', '\n']).count(),
            programs,
            maps,
        }
    }
}

/// Many containers on a host with events of devices that they do not request.
fn idle_and_unrelated(machine: &Machine, count: u32, events: u32) {
    // With udevd each event arrives twice: from the kernel and from udevd.
    let _udevd = Udevd::start(machine);
    let containers: Vec<_> = (0..count)
        .map(|_| Bundle::requesting(machine, "usb:0403:6001").start())
        .collect();
    let watchers: Vec<_> = containers.iter().map(RuncContainer::expect_watcher).collect();
    let pss = || watchers.iter().map(|watcher| watcher.memory("Pss")).sum::<u64>();
    row(&format!("PSS of {count} idle watchers, in all"), &mib(pss()));

    let interval = Duration::from_secs(10);
    let (before, begin) = (cpu_of(&watchers), Instant::now());
    // Measures the watchers while there are no events.
    std::thread::sleep(interval);
    let spent = (cpu_of(&watchers) - before).as_secs_f64() / begin.elapsed().as_secs_f64();
    row(
        &format!("CPU of {count} idle watchers, in all"),
        &format!("{:.2} % of one", spent * 100.0),
    );

    let before = cpu_of(&watchers);
    for _ in 0..events {
        fs::write(UNRELATED, "change").expect("have the kernel tell of a change");
    }
    // When all watchers wait for the next event, they have read all of them, and none has grown.
    for watcher in &watchers {
        watcher.eventually_waits_for_events();
    }
    let spent = cpu_of(&watchers) - before;
    row(
        &format!("CPU of {count} watchers for {events} unrelated events, in all"),
        &format!(
            "{:.2} s, {} for each watcher and event",
            spent.as_secs_f64(),
            micros(spent / (count * events))
        ),
    );
    row(
        &format!("PSS of {count} watchers after them, in all"),
        &mib(pss()),
    );
}

/// A tree of devices that many containers request: the partitions of one disk, in place of a hub's
/// devices.
fn shared_tree(machine: &Machine, count: u32, devices: u8) {
    let disk = Disk::of_size(machine, i64::from(devices) + 2);
    let request = format!("devnode:{};only=property:DEVTYPE=partition", disk.node);
    let containers: Vec<_> = (0..count)
        .map(|_| Bundle::requesting(machine, &request).start())
        .collect();
    let watchers: Vec<_> = containers.iter().map(RuncContainer::expect_watcher).collect();
    let nodes = || {
        containers.iter().flat_map(|container| {
            (1..=devices).map(|partition| inside(container, &disk.partition(partition)))
        })
    };
    let total = count * u32::from(devices);
    let before = cpu_of(&watchers);
    let begin = Instant::now();
    (1..=devices).for_each(|partition| drop(disk.plug(partition)));
    let plugged = begin.elapsed();
    let lost = nodes()
        .filter(|node| within(PATIENCE, || node.exists().then_some(())).is_none())
        .count();
    let took = begin.elapsed();
    let name = format!("{devices} devices for {count} containers");
    row(&format!("{name}: not seen inside"), &lost.to_string());
    row(
        &format!("{name}: from the first plug to the last node"),
        &format!(
            "{:.2} s, of which the kernel took {:.2} s",
            took.as_secs_f64(),
            plugged.as_secs_f64()
        ),
    );
    let spent = cpu_of(&watchers) - before;
    row(
        &format!("{name}: CPU of all watchers"),
        &format!(
            "{:.2} s, {} for each node",
            spent.as_secs_f64(),
            micros(spent / total)
        ),
    );
    let pss = watchers.iter().map(|watcher| watcher.memory("Pss")).sum::<u64>();
    row(&format!("{name}: PSS of all watchers"), &mib(pss));
    let before = cpu_of(&watchers);
    let begin = Instant::now();
    (1..=devices).for_each(|partition| disk.unplug(partition));
    let left = nodes()
        .filter(|node| within(PATIENCE, || (!node.exists()).then_some(())).is_none())
        .count();
    let took = begin.elapsed();
    row(
        &format!("{name}: still there after all are pulled out"),
        &left.to_string(),
    );
    row(
        &format!("{name}: from the first unplug to the last node's end"),
        &format!("{:.2} s", took.as_secs_f64()),
    );
    let spent = cpu_of(&watchers) - before;
    row(
        &format!("{name}: CPU of all watchers for it"),
        &format!(
            "{:.2} s, {} for each node",
            spent.as_secs_f64(),
            micros(spent / total)
        ),
    );
}

/// The path on the host for a path of a container.
pub fn inside(container: &RuncContainer<'_>, path: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{}/root{path}", container.pid))
}

pub fn cpu_of(watchers: &[Watcher]) -> Duration {
    watchers.iter().map(cpu).sum()
}

pub fn micros(duration: Duration) -> String {
    format!("{:.1} µs", duration.as_secs_f64() * 1e6)
}

fn mib(kib: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "mebibytes")]
    let mib = kib as f64 / 1024.0;
    format!("{mib:.1} MiB")
}
