//! The benchmark: what the hooks add to `runc create`, how soon a device opens inside, and what a
//! watcher uses. `tests/run.sh --bench` runs it. It prints the tables of README.md here and asserts
//! nothing, because other work on the machine changes the figures. The figures of one table come
//! from one run in which the variants take turns, so that their ratios are comparable.

#[allow(
    dead_code,
    unused_imports,
    reason = "the stories of tests/privileged use what the benchmark does not"
)]
#[path = "../privileged/framework/mod.rs"]
mod framework;

mod creation;
mod database;
mod figures;
mod latency;
mod load;
mod peer;
mod probe;
mod size;
mod uevents;
mod watchers;

use framework::Hierarchy;

/// Prints one table.
type Measure = fn(&framework::Machine);

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|word| word == probe::FLAG) {
        probe::serve(&arguments[1], &arguments[2]);
        return;
    }
    if peer::directory().is_some() {
        Hierarchy::V2.run_test(peer::measure);
        return;
    }
    // cargo bench adds `--bench`; every other argument selects sections by name.
    let chosen: Vec<_> = arguments.iter().filter(|word| !word.starts_with('-')).collect();
    let sections: [(&str, Measure); 6] = [
        ("creation", creation::measure),
        ("latency", latency::measure),
        ("size", size::measure),
        ("watchers", watchers::measure),
        ("database", database::measure),
        ("load", load::measure),
    ];
    assert!(
        !chosen.iter().any(|word| *word == "peer"),
        "this section needs a checkout of container-hotplug: tests/bench/peer.sh CHECKOUT"
    );
    for (name, measure) in sections {
        if chosen.is_empty() || chosen.iter().any(|word| name.contains(word.as_str())) {
            for hierarchy in [Hierarchy::V1, Hierarchy::V2] {
                println!("\n### {name}, cgroup {hierarchy:?}\n");
                hierarchy.run_test(measure);
            }
        }
    }
}
