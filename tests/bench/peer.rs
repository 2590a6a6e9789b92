//! The comparison with lowRISC's container-hotplug, on cgroup v2, which is all that it supports.
//! tests/bench/peer.sh builds it and starts this section. All variants run in turns in one run, and
//! nothing is asserted about the figures.

mod creation;
mod interrupt;
mod plug;
mod storm;
mod table;
mod twenty;
mod variant;

use std::path::PathBuf;
use std::process::Command;

use crate::framework::{Machine, Udevd};
use interrupt::Interrupted;
use table::Table;
use variant::Scene;

/// The variable with the directory that peer.sh prepares: the peer's executable,
/// `container-hotplug` (`stripped` is the same without symbols). Its log socket and the last table
/// are created there.
const DIRECTORY: &str = "OCI_HOTPLUG_PEER";

/// The directory of a run that compares.
pub fn directory() -> Option<PathBuf> {
    std::env::var_os(DIRECTORY).map(PathBuf::from)
}

/// Prints the tables. Ends early, without a failure, when the script was interrupted.
pub fn measure(machine: &Machine) {
    let directory = directory().expect("tests/bench/peer.sh sets the directory");
    interrupt::watch();
    let _udevd = Udevd::start(machine);
    let scene = Scene::new(machine, &directory);
    let mut table = Table::default();
    match sections(&scene, &mut table) {
        Ok(()) => table.write(&directory.join("table")),
        Err(Interrupted) => eprintln!("interrupted: the comparison is not complete"),
    }
}

type Measure = fn(&Scene<'_>, &mut Table) -> Result<(), Interrupted>;

/// All sections, or those that the arguments name.
fn sections(scene: &Scene<'_>, table: &mut Table) -> Result<(), Interrupted> {
    let chosen: Vec<_> = std::env::args().skip(1).collect();
    let sections: [(&str, Measure); 5] = [
        ("creation", creation::measure),
        ("plug and unplug, one container", plug::measure),
        ("twenty containers", twenty::measure),
        ("storm, one container", storm::measure),
        ("sizes", |scene, table| scene.sizes(table)),
    ];
    for (name, measure) in sections {
        if chosen.is_empty() || chosen.iter().any(|word| name.contains(word.as_str())) {
            println!("\n### {name}\n");
            measure(scene, table)?;
        }
    }
    Ok(())
}

/// Waits until udevd has processed everything.
fn settle() {
    let status = Command::new("udevadm").args(["settle", "--timeout=60"]).status();
    assert!(status.expect("start udevadm").success(), "udevd does not settle");
}
