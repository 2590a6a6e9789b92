//! A thousand plugs and unplugs without pause, and what is right afterwards: every device that is
//! plugged in then opens, and nothing is left when it was unplugged.

use std::time::Instant;

use super::interrupt::{Interrupted, check};
use super::settle;
use super::table::Table;
use super::variant::{Scene, Variant};
use crate::figures::{Figure, cpu};
use crate::framework::Disk;
use crate::framework::disk::number_of;
use crate::framework::eventually::{DEADLINE, within};

const RUNS: usize = 3;
const CYCLES: u32 = 1000;
const DEVICES: u8 = 8;

/// One variant's measurements, one of each run.
#[derive(Default)]
struct Measured {
    lost: Figure,
    left: Figure,
    cpu: Figure,
}

/// Chooses one of a variant's figures.
type Choose = fn(&Measured) -> &Figure;

/// Prints the table.
pub fn measure(scene: &Scene<'_>, table: &mut Table) -> Result<(), Interrupted> {
    let mut all = [(); 3].map(|()| Measured::default());
    let variants = [Variant::Kernel, Variant::Default, Variant::Peer];
    let mut times = Figure::default();
    for run_number in 0..RUNS {
        for turn in 0..variants.len() {
            let index = (run_number + turn) % variants.len();
            run(scene, variants[index], &mut all[index], &mut times)?;
        }
    }
    let [kernel, default, peer] = &all;
    table.head();
    let rows: [(&str, &str, Choose); 3] = [
        (
            "1000 cycles in a storm, lost devices of 8 that come then",
            "",
            |m| &m.lost,
        ),
        ("nodes, grants and descriptors left after it", "", |m| &m.left),
        ("CPU of the storm", "ms", |m| &m.cpu),
    ];
    for (mode, ours) in [("`ready=kernel`", kernel), ("default", default)] {
        for (name, unit, figure) in rows {
            table.values(&format!("{name}, {mode}"), unit, figure(ours), figure(peer));
        }
    }
    let (min, max) = times.range();
    println!(
        "
A storm took {min:.2} to {max:.2} s."
    );
    Ok(())
}

fn run(
    scene: &Scene<'_>,
    variant: Variant,
    measured: &mut Measured,
    times: &mut Figure,
) -> Result<(), Interrupted> {
    let disk = Disk::new(scene.machine);
    settle();
    let running = scene.start(variant, &disk.node);
    let container = &running.container;
    let descriptors = running.daemon.descriptors().len();
    let (before, begin) = (cpu(&running.daemon), Instant::now());
    for _ in 0..CYCLES {
        check()?;
        disk.plug(1);
        disk.unplug_at_once(1);
    }
    times.add_value(begin.elapsed().as_secs_f64());
    for partition in 1..=DEVICES {
        disk.plug(partition);
    }
    let opens = |node: &str| container.read(node, 4).status == 0;
    let lost = (1..=DEVICES)
        .map(|partition| disk.partition(partition))
        .filter(|node| within(DEADLINE, || opens(node).then_some(())).is_none())
        .count();
    let spent = cpu(&running.daemon) - before;
    let own: Vec<_> = (1..=DEVICES)
        .map(|partition| {
            let number = number_of(&disk.partition(partition));
            container.make_node(&format!("own{partition}"), 'b', number)
        })
        .collect();
    for partition in 1..=DEVICES {
        disk.unplug(partition);
    }
    let nodes = (1..=DEVICES)
        .map(|partition| disk.partition(partition))
        .filter(|node| within(DEADLINE, || (!container.has(node)).then_some(())).is_none());
    let grants = own
        .iter()
        .filter(|own| within(DEADLINE, || container.is_refused(own).then_some(())).is_none());
    let left = nodes.count() + grants.count();
    settle();
    let more = || running.daemon.descriptors().len().saturating_sub(descriptors);
    let left = left + within(DEADLINE, || (more() == 0).then_some(0)).unwrap_or_else(more);
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    for (figure, value) in [
        (&mut measured.lost, lost as f64),
        (&mut measured.left, left as f64),
        (&mut measured.cpu, spent.as_secs_f64() * 1e3),
    ] {
        figure.add_value(value);
    }
    Ok(())
}
