//! What each program adds to `runc create`, with a device that is present.

use super::interrupt::{Interrupted, check};
use super::settle;
use super::table::Table;
use super::variant::{Scene, Variant};
use crate::figures::{Figure, head, row};
use crate::framework::{Bundle, Disk};

const RUNS: usize = 30;

/// Prints the table.
pub fn measure(scene: &Scene<'_>, table: &mut Table) -> Result<(), Interrupted> {
    let disk = Disk::new(scene.machine);
    let node = disk.plug(1);
    settle();
    let mut figures = [(); 4].map(|()| Figure::default());
    // The first containers fill caches and do not count.
    for run in 0..=RUNS {
        for turn in 0..figures.len() {
            check()?;
            let index = (run + turn) % figures.len();
            let creation = match index {
                0 => Bundle::new(scene.machine).without_hooks().create().creation,
                1 => Bundle::new(scene.machine).idle_hook().create().creation,
                2 => scene.create(Variant::Default, &node).container.creation,
                _ => scene.create(Variant::Peer, &node).container.creation,
            };
            if run > 0 {
                figures[index].add(creation);
            }
        }
    }
    let [alone, idle, ours, peer] = &figures;
    let added = [ours, peer].map(|figure| figure.minus(alone));
    head("ratio to container-hotplug");
    row("runc create alone", "", alone, Some(peer));
    row("with a hook that is /bin/true", "", idle, Some(peer));
    row(
        "with oci-hotplug, device present",
        "≤ 1.2 × runc alone",
        ours,
        Some(peer),
    );
    row("with container-hotplug, same device", "", peer, Some(peer));
    row("added by oci-hotplug", "≤ 3.5", &added[0], Some(&added[1]));
    row("added by container-hotplug", "", &added[1], Some(&added[1]));
    println!(
        "\nwith oci-hotplug: {:.2} × runc alone",
        ours.median() / alone.median()
    );
    let name = format!(
        "`runc create`, device present (runc alone: {:.1} ms, with a hook that is /bin/true: {:.1} ms)",
        alone.median(),
        idle.median()
    );
    table.durations(&name, ours, peer);
    table.durations("added to `runc create` in the same round", &added[0], &added[1]);
    Ok(())
}
