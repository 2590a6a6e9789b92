//! `oci-hotplug check` on the running kernel, with containers. (With a recorded host:
//! tests/check.rs.)

use serde_json::Value;

use crate::framework::{Bundle, Hierarchy, Hook, Machine, eventually};

const NO_DEVICE: &str = "devnode:/dev/oci-hotplug-nothing";

/// The result of one check, and the exit code.
fn shown(machine: &Machine, check: &str) -> (String, String, Option<i32>) {
    let state_dir = machine.state_dir();
    let state_dir = state_dir.to_str().expect("scratch paths are text");
    let output = Hook::operator().run(&["check", "--json", "--state-dir", state_dir], "");
    let all: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let findings = all["findings"].as_array().expect("findings");
    let finding = findings
        .iter()
        .find(|finding| finding["check"] == check)
        .unwrap_or_else(|| panic!("{check} in {all:#}"));
    let text = |key: &str| finding[key].as_str().expect("text").to_owned();
    (text("verdict"), text("found"), output.status.code())
}

#[apply(on_both_hierarchies)]
fn check_passes_on_the_kernel_of_these_tests(machine: &Machine) {
    for check in ["user", "kernel", "cgroup", "bpf", "programs", "runc"] {
        let (verdict, seen, _) = shown(machine, check);
        assert_eq!(verdict, "ok", "{check}: {seen}");
    }
    let (_, seen, _) = shown(machine, "cgroup");
    match machine.hierarchy {
        Hierarchy::V1 => assert!(
            seen.contains("v1's devices controller") || seen.starts_with("v1, "),
            "{seen}"
        ),
        Hierarchy::V2 => assert_eq!(seen, "v2 at /sys/fs/cgroup"),
    }
}

#[apply(on_both_hierarchies)]
fn check_reports_a_container_without_a_watcher_and_its_leftovers(machine: &Machine) {
    let container = Bundle::requesting(machine, NO_DEVICE).without_poststop().start();
    assert_eq!(shown(machine, "containers").1, "1 has a watcher");

    container.expect_watcher().kill();
    let (verdict, seen, code) = shown(machine, "containers");
    assert_eq!(
        (verdict.as_str(), seen),
        ("fail", format!("running without a watcher: {}", container.id))
    );
    assert_eq!(code, Some(1));

    container.delete();
    let gone = format!("records of containers that are gone: {}", container.id);
    eventually("the check says that the container is gone", || {
        shown(machine, "containers").1 == gone
    });
    assert_eq!(shown(machine, "containers").0, "warn");

    // The next hook sweeps, and then the check finds nothing.
    Bundle::requesting(machine, NO_DEVICE).start().delete();
    assert_eq!(shown(machine, "containers").1, "0 have a watcher");
}
