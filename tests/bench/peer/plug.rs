//! How soon a partition opens inside after it was plugged in, and how soon it is refused and its
//! node gone after it was unplugged. One container at a time, so that no other process handles the
//! same events; the variants take turns in blocks.

use std::time::Duration;

use super::interrupt::{Interrupted, check, pause};
use super::settle;
use super::table::Table;
use super::variant::{Running, Scene, Variant};
use crate::figures::{Figure, cpu, head, row};
use crate::framework::Disk;
use crate::framework::disk::number_of;
use crate::probe::{Probe, now};
use crate::uevents::{Speaker, Uevents};

const BLOCKS: usize = 8;
const ROUNDS: u32 = 10;

const VARIANTS: [Variant; 3] = [Variant::Kernel, Variant::Default, Variant::Peer];

/// How long a process may take for what follows a plug.
const SETTLING: Duration = Duration::from_millis(200);

/// One variant's measurements.
#[derive(Default)]
struct Measured {
    udevd: Figure,
    opens_since_call: Figure,
    opens_since_kernel: Figure,
    opens_since_udevd: Figure,
    refused: Figure,
    gone: Figure,
    /// The processor time of one plug and unplug: one mean for each block, in ms.
    cpu: Figure,
}

/// Chooses one of a variant's figures.
type Choose = fn(&Measured) -> &Figure;

/// Prints the tables.
pub fn measure(scene: &Scene<'_>, table: &mut Table) -> Result<(), Interrupted> {
    let disk = Disk::new(scene.machine);
    settle();
    let mut all = [(); 3].map(|()| Measured::default());
    for block in 0..BLOCKS {
        for turn in 0..VARIANTS.len() {
            let index = (block + turn) % VARIANTS.len();
            rounds(scene, VARIANTS[index], &disk, &mut all[index])?;
        }
    }
    print(&all);
    let [kernel, default, peer] = &all;
    let rows: [(&str, Choose, &Measured); 7] = [
        (
            "plug until the device opens, `ready=kernel`",
            |m| &m.opens_since_call,
            kernel,
        ),
        (
            "plug until the device opens, default (waits for udevd)",
            |m| &m.opens_since_call,
            default,
        ),
        (
            "udevd's event until the device opens, default",
            |m| &m.opens_since_udevd,
            default,
        ),
        (
            "unplug until access is refused, `ready=kernel`",
            |m| &m.refused,
            kernel,
        ),
        ("unplug until access is refused, default", |m| &m.refused, default),
        (
            "unplug until the node is gone, `ready=kernel`",
            |m| &m.gone,
            kernel,
        ),
        ("unplug until the node is gone, default", |m| &m.gone, default),
    ];
    for (name, figure, ours) in rows {
        table.durations(name, figure(ours), figure(peer));
    }
    println!();
    table.head();
    for (mode, ours) in [("`ready=kernel`", kernel), ("default", default)] {
        table.values(
            &format!("CPU of one plug and unplug, one container, {mode}"),
            "ms",
            &ours.cpu,
            &peer.cpu,
        );
    }
    Ok(())
}

fn print(all: &[Measured; 3]) {
    head("ratio to container-hotplug");
    let figures: [(&str, Choose); 6] = [
        ("kernel's event → udevd's event (udevd alone)", |m| &m.udevd),
        ("plug called → opens", |m| &m.opens_since_call),
        ("kernel's event → opens", |m| &m.opens_since_kernel),
        ("udevd's event → opens", |m| &m.opens_since_udevd),
        ("unplug returned → refused", |m| &m.refused),
        ("unplug returned → node gone", |m| &m.gone),
    ];
    for (name, figure) in figures {
        for (variant, measured) in VARIANTS.iter().zip(all) {
            // With ready=kernel it opens before udevd's event.
            if *variant == Variant::Kernel && name.starts_with("udevd") {
                continue;
            }
            let goal = match (variant, name) {
                (Variant::Kernel, "kernel's event → opens") => "≤ 0.2",
                (Variant::Default, "udevd's event → opens") => "≤ 0.2; p95 ≤ 0.4",
                _ => "",
            };
            row(
                &format!("{name}, {}", variant.name()),
                goal,
                figure(measured),
                Some(figure(&all[2])),
            );
        }
    }
}

/// One block. Its first round fills caches and does not count.
fn rounds(
    scene: &Scene<'_>,
    variant: Variant,
    disk: &Disk,
    measured: &mut Measured,
) -> Result<(), Interrupted> {
    let running = scene.start(variant, &disk.node);
    let mut probe = Probe::enter(&running.container);
    let uevents = Uevents::listen();
    round(&running, disk, &mut probe, &uevents, &mut Measured::default());
    pause(SETTLING)?;
    let before = cpu(&running.daemon);
    for _ in 0..ROUNDS {
        check()?;
        round(&running, disk, &mut probe, &uevents, measured);
    }
    pause(SETTLING)?;
    measured.cpu.add((cpu(&running.daemon) - before) / ROUNDS);
    Ok(())
}

fn round(running: &Running<'_>, disk: &Disk, probe: &mut Probe, uevents: &Uevents, measured: &mut Measured) {
    let container = &running.container;
    let (node, name) = (disk.partition(1), disk.name(1));
    probe.try_to_open(&node);
    let called = now();
    disk.plug(1);
    let opened = probe.when();
    let kernel = uevents.when(Speaker::Kernel, "add", &name);
    let udevd = uevents.when(Speaker::Udevd, "add", &name);
    measured.udevd.add_between(kernel, udevd);
    measured.opens_since_call.add_between(called, opened);
    measured.opens_since_kernel.add_between(kernel, opened);
    measured.opens_since_udevd.add_between(udevd, opened);
    settle();
    // The container's own node stays when the device is removed: the device cgroup refuses it.
    container.inside("rm -f /nodes/own");
    let own = container.make_node("own", 'b', number_of(&node));
    probe.wait_for_end(&own, &node);
    disk.unplug_at_once(1);
    let returned = now();
    let (refused, gone) = probe.when_both();
    measured.refused.add_between(returned, refused);
    measured.gone.add_between(returned, gone);
    uevents.when(Speaker::Udevd, "remove", &name);
    settle();
}
