//! The memory of one process and of each of twenty, and the processor time of each: while nothing
//! happens, for events of devices that no container requests, and for devices that come and go.

use std::time::{Duration, Instant};

use super::interrupt::{Interrupted, check, pause};
use super::settle;
use super::table::Table;
use super::variant::{Running, Scene, Variant};
use crate::figures::{Figure, cpu};
use crate::framework::{Disk, eventually};
use crate::load::inside;
use crate::watchers::{EVENTS, PAIRS, pairs, partitions};

const COUNT: u32 = 20;
const RUNS: usize = 3;
const CYCLES: u32 = 50;

/// How long the processes do nothing for the measurement of idle time.
const IDLE: Duration = Duration::from_secs(10);

/// How long a process may take for what follows a start or a plug.
const SETTLING: Duration = Duration::from_secs(3);

/// The time between two plugs, so that each wakes the processes.
const PAUSE: Duration = Duration::from_millis(20);

/// One variant's measurements, one of each run. The processor time is that of one process, except
/// `idle`, which is that of all, in percent of one processor.
#[derive(Default)]
struct Measured {
    threads: Figure,
    one: Figure,
    each: Figure,
    written: Figure,
    growth: Figure,
    idle: Figure,
    pair: Figure,
    partition: Figure,
    cycle: Figure,
}

/// Chooses one of a variant's figures.
type Choose = fn(&Measured) -> &Figure;

/// Prints the table.
pub fn measure(scene: &Scene<'_>, table: &mut Table) -> Result<(), Interrupted> {
    let (mut ours, mut peer) = (Measured::default(), Measured::default());
    for run_number in 0..RUNS {
        let mut variants = [(Variant::Default, &mut ours), (Variant::Peer, &mut peer)];
        if run_number % 2 == 1 {
            variants.reverse();
        }
        for (variant, measured) in variants {
            run(scene, variant, measured)?;
        }
    }
    table.head();
    let rows: [(&str, &str, Choose); 9] = [
        ("threads of one process", "", |m| &m.threads),
        ("memory (PSS) of one process, one device", "KiB", |m| &m.one),
        ("memory (PSS) of each of 20", "KiB", |m| &m.each),
        ("memory that each of 20 has written to", "KiB", |m| &m.written),
        ("growth of that after plugs and all events", "KiB", |m| &m.growth),
        ("CPU of 20 idle processes, one device", "% of one CPU", |m| {
            &m.idle
        }),
        (
            "CPU for one pair of network interfaces (veth), each of 20",
            "µs",
            |m| &m.pair,
        ),
        (
            "CPU for one partition event of another disk, each of 20",
            "µs",
            |m| &m.partition,
        ),
        (
            "CPU of one plug and unplug, each of 20 with the same disk",
            "µs",
            |m| &m.cycle,
        ),
    ];
    for (name, unit, figure) in rows {
        table.values(name, unit, figure(&ours), figure(&peer));
    }
    Ok(())
}

fn run(scene: &Scene<'_>, variant: Variant, measured: &mut Measured) -> Result<(), Interrupted> {
    let (disk, other) = (Disk::new(scene.machine), Disk::new(scene.machine));
    settle();
    let mut all = vec![scene.start(variant, &disk.node)];
    plug(&disk, &all);
    pause(SETTLING)?;
    measured.threads.add_value(count(all[0].daemon.threads() as u64));
    measured.one.add_value(count(all[0].daemon.memory("Pss")));
    for _ in 1..COUNT {
        check()?;
        all.push(scene.start(variant, &disk.node));
    }
    pause(SETTLING)?;
    measured.each.add_value(mean(&all, "Pss"));
    let written = mean(&all, "Pss_Anon");
    measured.written.add_value(written);
    let (before, begin) = (cpu_of_all(&all), Instant::now());
    pause(IDLE)?;
    let spent = (cpu_of_all(&all) - before).as_secs_f64() / begin.elapsed().as_secs_f64();
    measured.idle.add_value(spent * 100.0);
    unplug(&disk, &all);
    measured.pair.add_value(spent_for(&all, PAIRS, || {
        pairs();
        Ok(())
    })?);
    measured.partition.add_value(spent_for(&all, EVENTS, || {
        partitions(&other);
        Ok(())
    })?);
    measured.cycle.add_value(spent_for(&all, CYCLES, || {
        for _ in 0..CYCLES {
            plug(&disk, &all);
            pause(PAUSE)?;
            unplug(&disk, &all);
            pause(PAUSE)?;
        }
        Ok(())
    })?);
    measured
        .growth
        .add_value((mean(&all, "Pss_Anon") - written).max(0.0));
    Ok(())
}

fn plug(disk: &Disk, all: &[Running<'_>]) {
    disk.plug(1);
    nodes(disk, all, true);
}

fn unplug(disk: &Disk, all: &[Running<'_>]) {
    disk.unplug(1);
    nodes(disk, all, false);
}

/// Waits until all containers have the partition's node, or none.
#[track_caller]
fn nodes(disk: &Disk, all: &[Running<'_>], exist: bool) {
    let node = disk.partition(1);
    eventually(&format!("all containers have {node}: {exist}"), || {
        all.iter()
            .all(|running| inside(&running.container, &node).exists() == exist)
    });
}

/// The processor time of each process, in µs, for one of `events` that `cause` causes.
fn spent_for(
    all: &[Running<'_>],
    events: u32,
    cause: impl FnOnce() -> Result<(), Interrupted>,
) -> Result<f64, Interrupted> {
    let before = cpu_of_all(all);
    cause()?;
    settle();
    rest(all)?;
    let spent = (cpu_of_all(all) - before) / (events * COUNT);
    Ok(spent.as_secs_f64() * 1e6)
}

/// Waits until the processes have handled everything: they use almost no processor time.
fn rest(all: &[Running<'_>]) -> Result<(), Interrupted> {
    let mut last = cpu_of_all(all);
    loop {
        pause(Duration::from_millis(200))?;
        let spent = cpu_of_all(all) - last;
        if spent < Duration::from_micros(100) * COUNT {
            return Ok(());
        }
        last += spent;
    }
}

fn cpu_of_all(all: &[Running<'_>]) -> Duration {
    all.iter().map(|running| cpu(&running.daemon)).sum()
}

fn mean(all: &[Running<'_>], line: &str) -> f64 {
    let sum: u64 = all.iter().map(|running| running.daemon.memory(line)).sum();
    count(sum) / count(all.len() as u64)
}

#[allow(clippy::cast_precision_loss, reason = "small numbers")]
fn count(value: u64) -> f64 {
    value as f64
}
