//! What the udev database of a container adds: two containers request the same partitions, one of
//! them without a database.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::figures::{Figure, head, row};
use crate::framework::disk::number_of;
use crate::framework::{Bundle, Disk, Machine, RuncContainer, Udevd, eventually};
use crate::load::{cpu_of, inside, micros};
use crate::probe::Probe;
use crate::uevents::{Speaker, Uevents};

/// How often the partition is plugged in and unplugged.
const ROUNDS: u32 = 100;

/// Prints the tables.
pub fn measure(machine: &Machine) {
    let _udevd = Udevd::start(machine);
    time_to_node(machine);
    println!("\n| figure | goal | without | with | added | ratio |");
    println!("|---|---|---|---|---|---|");
    let disk = Disk::new(machine);
    let containers = ["never", "auto"].map(|mode| {
        let bundle = Bundle::requesting(machine, &format!("glob:{}p*", disk.node));
        bundle.annotation("io.oci-hotplug.udev", mode).start()
    });
    plug_and_unplug(&disk, &containers);
    let watchers = [0, 1].map(|index: usize| [containers[index].expect_watcher()]);
    let mut spent = [Duration::ZERO; 2];
    for _ in 0..ROUNDS {
        let before = [0, 1].map(|index: usize| cpu_of(&watchers[index]));
        plug_and_unplug(&disk, &containers);
        for index in [0, 1] {
            spent[index] += cpu_of(&watchers[index]) - before[index];
        }
    }
    let [without, with] = spent.map(|spent| spent / ROUNDS);
    println!(
        "| CPU of a watcher for one plug and unplug | ≤ +200 µs | {} | {} | {} | {:.2} |",
        micros(without),
        micros(with),
        micros(with.saturating_sub(without)),
        with.as_secs_f64() / without.as_secs_f64()
    );
    disk.plug(1);
    wait_for_plug(&disk, &containers);
    let pss = [0, 1].map(|index: usize| watchers[index][0].memory("Pss"));
    #[allow(clippy::cast_precision_loss, reason = "kibibytes")]
    let ratio = pss[1] as f64 / pss[0] as f64;
    println!(
        "| PSS of a watcher with one attachment | ≤ +50 KiB | {} KiB | {} KiB | {} KiB | {ratio:.2} |",
        pss[0],
        pss[1],
        pss[1].saturating_sub(pss[0])
    );
}

/// The time from the kernel's event to the node, in turns without and with a database.
fn time_to_node(machine: &Machine) {
    let mut figures = [Figure::default(), Figure::default()];
    // The kernel wakes the watcher of the container that was started first a little earlier.
    for first in [0, 1] {
        add_times_to_node(machine, first, &mut figures);
    }
    let [without, with] = &figures;
    head("ratio to without");
    let name = "kernel's event → opens, ready=kernel";
    row(&format!("{name}, without a database"), "", without, Some(without));
    row(&format!("{name}, with one"), "no growth", with, Some(without));
}

/// Half of the rounds. `first` is the index of the container that is started first. Each container
/// has a disk to itself, so that one watcher works at a time.
fn add_times_to_node(machine: &Machine, first: usize, figures: &mut [Figure; 2]) {
    let uevents = Uevents::listen();
    let turns = [first, 1 - first].map(|index: usize| {
        let disk = Disk::new(machine);
        let request = format!("devnode:{};ready=kernel", disk.partition(1));
        let bundle = Bundle::requesting(machine, &request);
        let container = bundle
            .annotation("io.oci-hotplug.udev", ["never", "auto"][index])
            .start();
        (index, disk, container)
    });
    let mut probes = [0, 1].map(|turn: usize| Probe::enter(&turns[turn].2));
    for _ in 0..ROUNDS / 2 {
        for ((index, disk, container), probe) in turns.iter().zip(&mut probes) {
            let node = disk.partition(1);
            probe.try_to_open(&node);
            disk.plug(1);
            let opened = probe.when();
            let event = uevents.when(Speaker::Kernel, "add", &disk.name(1));
            figures[*index].add_between(event, opened);
            settle();
            disk.unplug(1);
            settle();
            container.eventually_lacks(&node);
        }
    }
}

fn plug_and_unplug(disk: &Disk, containers: &[RuncContainer<'_>; 2]) {
    disk.plug(1);
    wait_for_plug(disk, containers);
    disk.unplug(1);
    settle();
    eventually("the nodes are gone", || {
        let node = disk.partition(1);
        containers.iter().all(|container| !exists(container, &node))
    });
}

/// Waits until both watchers have handled udevd's event, too.
fn wait_for_plug(disk: &Disk, containers: &[RuncContainer<'_>; 2]) {
    settle();
    let node = disk.partition(1);
    let (major, minor) = number_of(&node);
    eventually("node and entry are there", || {
        let is_there = containers.iter().all(|container| exists(container, &node));
        is_there && exists(&containers[1], &format!("/run/udev/data/b{major}:{minor}"))
    });
}

fn exists(container: &RuncContainer<'_>, path: &str) -> bool {
    fs::symlink_metadata(inside(container, path)).is_ok()
}

fn settle() {
    let status = Command::new("udevadm").args(["settle", "--timeout=60"]).status();
    assert!(status.expect("start udevadm").success(), "udevd does not settle");
}
