//! What a watcher uses while there are no events, and how large the executables are.

use std::fs;

use crate::framework::{Bundle, Disk, Machine};

/// The executables: name, path and goal.
pub const EXECUTABLES: [(&str, &str, &str); 5] = [
    (
        "oci-hotplug-prestart",
        env!("CARGO_BIN_EXE_oci-hotplug-prestart"),
        "≤ 1.5 MiB",
    ),
    (
        "oci-hotplug-watcher",
        env!("CARGO_BIN_EXE_oci-hotplug-watcher"),
        "≤ 1.5 MiB",
    ),
    (
        "oci-hotplug-poststop",
        env!("CARGO_BIN_EXE_oci-hotplug-poststop"),
        "≤ 1.5 MiB",
    ),
    ("oci-hotplug-usbip", env!("CARGO_BIN_EXE_oci-hotplug-usbip"), ""),
    ("oci-hotplug", env!("CARGO_BIN_EXE_oci-hotplug"), ""),
];

/// Prints the table.
pub fn measure(machine: &Machine) {
    println!("| figure | goal | measured |");
    println!("|---|---|---|");
    let disk = Disk::new(machine);
    let start = || {
        let container = Bundle::requesting(machine, &format!("glob:{}p*", disk.node)).start();
        (1..=5).for_each(|partition| {
            container.eventually_reads(&disk.partition(partition), &disk.content(partition))
        });
        container
    };
    for partition in 1..=5 {
        disk.plug(partition);
    }
    let one = start();
    let watcher = one.expect_watcher();
    let mib = |kib: u64| format!("{}.{:02} MiB", kib / 1024, kib % 1024 * 100 / 1024);
    println!(
        "| PSS of one watcher, idle with 5 attachments | ≤ 1.5 MiB | {} |",
        mib(watcher.memory("Pss"))
    );
    println!(
        "| its private dirty memory | | {} |",
        mib(watcher.memory("Private_Dirty"))
    );
    println!("| its threads | 1 | {} |", watcher.threads());
    println!("| its descriptors | | {} |", watcher.descriptors().len());
    let _other = start();
    println!("| PSS of each when two run | | {} |", mib(watcher.memory("Pss")));
    for (name, path, goal) in EXECUTABLES {
        let bytes = fs::metadata(path).expect("look at an executable").len();
        println!("| size of {name} | {goal} | {} |", mib(bytes / 1024));
    }
}
