//! What a hook adds to `runc create`: without hooks, with a hook that does nothing, and with ours
//! and a present device.

use crate::figures::{Figure, head, row};
use crate::framework::{Bundle, Disk, Machine};

const RUNS: usize = 21;

/// Prints the table.
pub fn measure(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let (mut alone, mut idle, mut ours) = (Figure::default(), Figure::default(), Figure::default());
    // The first containers fill caches and do not count.
    for run in 0..=RUNS {
        let variants = [
            (Bundle::new(machine).without_hooks(), &mut alone),
            (Bundle::new(machine).idle_hook(), &mut idle),
            (Bundle::requesting(machine, &format!("devnode:{node}")), &mut ours),
        ];
        for (bundle, figure) in variants {
            let container = bundle.create();
            if run > 0 {
                figure.add(container.creation);
            }
        }
    }
    head("ratio to runc alone");
    row("runc create alone", "", &alone, Some(&alone));
    row("with a hook that is /bin/true", "", &idle, Some(&alone));
    row(
        "with our hooks, device present",
        "≤ +3.5 and ≤ 1.2 ×",
        &ours,
        Some(&alone),
    );
    println!("\nadded by our hooks: {:.2} ms", ours.median() - alone.median());
}
