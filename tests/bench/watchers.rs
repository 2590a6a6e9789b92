//! What one watcher among twenty takes: while nothing happens, for events of devices that no
//! container requests, and for devices that come and go.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::framework::eventually::within;
use crate::framework::{Bundle, Disk, Machine, RuncContainer, Udevd, Watcher};
use crate::load::{cpu_of, inside, micros};

const COUNT: u32 = 20;

/// How many events [`partitions`] causes.
pub const EVENTS: u32 = 1000;

/// How many pairs of network interfaces [`pairs`] creates and removes.
pub const PAIRS: u32 = 250;

const CYCLES: u32 = 50;

/// How long the watchers do nothing for the measurement of idle time.
const IDLE: Duration = Duration::from_secs(30);

/// How long a watcher may take for what follows a start or a plug.
const SETTLING: Duration = Duration::from_secs(3);

/// How long anything may take before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// The time between two plugs, so that each wakes the watchers.
const PAUSE: Duration = Duration::from_millis(20);

/// Prints the table.
pub fn measure(machine: &Machine) {
    println!("| figure | goal | measured |");
    println!("|---|---|---|");
    let disk = Disk::new(machine);
    let other = Disk::new(machine);
    // Each event is sent twice then: by the kernel, and by udevd.
    let _udevd = Udevd::start(machine);
    let request = format!("devnode:{}", disk.partition(1));
    let start = || Bundle::requesting(machine, &request).start();
    let mut containers = vec![start()];
    // From here on the watcher does nothing that its start has left.
    std::thread::sleep(SETTLING);
    row(
        "PSS of one watcher that waits for a device",
        "≤ 1.2 MiB",
        &format!("{} KiB", containers[0].expect_watcher().memory("Pss")),
    );
    containers.extend((1..COUNT).map(|_| start()));
    let watchers: Vec<_> = containers.iter().map(RuncContainer::expect_watcher).collect();
    std::thread::sleep(SETTLING);
    let begin = memory(&watchers);
    row(
        &format!("PSS of each of {COUNT}"),
        "≤ 450 KiB",
        &format!("{} KiB", begin.pss),
    );
    idle(&watchers, "that wait for a device");
    disk.plug(1);
    containers
        .iter()
        .for_each(|container| container.eventually_reads(&disk.partition(1), &disk.content(1)));
    idle(&watchers, "with an attached disk");
    disk.unplug(1);
    irrelevant(
        &watchers,
        "partition event of a device that no container requests",
        "≤ 15 µs",
        EVENTS,
        || partitions(&other),
    );
    irrelevant(&watchers, "veth pair", "≤ 4 µs", PAIRS, pairs);
    let grown = memory(&watchers);
    row(
        "growth of each after them, without pages of code",
        "0",
        &format!("{} KiB", grown.own.saturating_sub(begin.own)),
    );
    cycles(&disk, &containers, &watchers);
    drop(containers);
    usb(machine, &other);
}

/// Watchers whose request cannot select a virtual block device: the kernel drops its events before
/// they wake the watchers.
fn usb(machine: &Machine, disk: &Disk) {
    let start = || Bundle::requesting(machine, "usb:0403:6001").start();
    let containers: Vec<_> = (0..COUNT).map(|_| start()).collect();
    let watchers: Vec<_> = containers.iter().map(RuncContainer::expect_watcher).collect();
    idle(&watchers, "that wait for a USB device");
    let before: u64 = watchers.iter().map(Watcher::wakes).sum();
    irrelevant(
        &watchers,
        "partition event, if all requests are for USB devices",
        "0",
        EVENTS,
        || partitions(disk),
    );
    let wakes = watchers.iter().map(Watcher::wakes).sum::<u64>() - before;
    row(
        "wakes of a watcher meanwhile (one in ten seconds without any event)",
        "",
        &format!("{:.1}", wakes as f64 / f64::from(COUNT)),
    );
}

fn row(figure: &str, goal: &str, measured: &str) {
    println!("| {figure} | {goal} | {measured} |");
}

/// Means of the watchers, in KiB.
struct Memory {
    pss: u64,
    /// What was written, which no other process shares.
    own: u64,
}

fn memory(watchers: &[Watcher]) -> Memory {
    let mean = |line: &str| {
        let all = watchers.iter().map(|watcher| watcher.memory(line)).sum::<u64>();
        all / watchers.len() as u64
    };
    Memory {
        pss: mean("Pss"),
        own: mean("Pss_Anon"),
    }
}

fn idle(watchers: &[Watcher], state: &str) {
    std::thread::sleep(SETTLING);
    let (before, begin) = (cpu_of(watchers), Instant::now());
    // The measurement is of what happens while nothing happens.
    std::thread::sleep(IDLE);
    let spent = (cpu_of(watchers) - before).as_secs_f64() / begin.elapsed().as_secs_f64();
    row(
        &format!("CPU of {COUNT} idle watchers {state}, in all"),
        "≤ 0.05 %",
        &format!("{:.3} % of one", spent * 100.0),
    );
}

/// Events of devices that no container requests.
fn irrelevant(watchers: &[Watcher], name: &str, goal: &str, count: u32, cause: impl FnOnce()) {
    let (before, begin) = (cpu_of(watchers), Instant::now());
    cause();
    // All have received all when they wait for the next, and udevd has sent its last.
    let settled = Command::new("udevadm").args(["settle", "--timeout=60"]).status();
    assert!(settled.expect("start udevadm").success(), "udevd is not done");
    for watcher in watchers {
        watcher.eventually_waits_for_events();
    }
    let spent = (cpu_of(watchers) - before) / COUNT;
    row(
        &format!("CPU of a watcher for one {name}"),
        goal,
        &format!(
            "{} ({} of them in {:.1} s)",
            micros(spent / count),
            count,
            begin.elapsed().as_secs_f64()
        ),
    );
}

/// Plugs in and unplugs a partition.
pub fn partitions(disk: &Disk) {
    for _ in 0..EVENTS / 2 {
        disk.plug(1);
        disk.unplug(1);
    }
}

/// Creates and removes pairs of network interfaces, as the start of a container with a bridged
/// network does.
pub fn pairs() {
    let mut ip = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("start ip (package iproute2)");
    let mut input = ip.stdin.take().expect("the input of ip");
    for number in 0..PAIRS {
        let name = format!("bench{number}");
        let commands = format!("link add {name} type veth peer name {name}x\nlink del {name}\n");
        input.write_all(commands.as_bytes()).expect("write to ip");
    }
    drop(input);
    assert!(ip.wait().expect("reap ip").success(), "ip has failed");
}

/// A device that all containers request.
fn cycles(disk: &Disk, containers: &[RuncContainer<'_>], watchers: &[Watcher]) {
    let node = disk.partition(1);
    let is_everywhere = |is_wanted: bool| {
        let all = |()| {
            containers
                .iter()
                .all(|container| inside(container, &node).exists() == is_wanted)
        };
        within(PATIENCE, || all(()).then_some(())).is_some()
    };
    let before = cpu_of(watchers);
    let mut lost = 0;
    for _ in 0..CYCLES {
        disk.plug(1);
        lost += u32::from(!is_everywhere(true));
        std::thread::sleep(PAUSE);
        disk.unplug(1);
        lost += u32::from(!is_everywhere(false));
        std::thread::sleep(PAUSE);
    }
    let spent = (cpu_of(watchers) - before) / COUNT;
    row(
        "CPU of a watcher for one plug and unplug of its device",
        "≤ 450 µs",
        &format!("{} ({lost} of {CYCLES} lost)", micros(spent / CYCLES)),
    );
}
