//! Findings about the containers that run.

use super::facts::{Containers, Facts};
use super::finding::Finding;
use super::text::{counted, listed};

const CHECK: &str = "containers";

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let containers = &facts.containers;
    let mut findings = without_watcher(containers);
    findings.extend(without_devices(containers));
    findings.extend(to_recover(containers));
    if findings.is_empty() {
        findings.push(Finding::ok(
            CHECK,
            format!("{} a watcher", counted(containers.watched, "has", "have")),
        ));
    }
    findings
}

fn without_watcher(containers: &Containers) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !containers.unwatched.is_empty() {
        findings.push(Finding::fail(
            CHECK,
            format!("running without a watcher: {}", listed(&containers.unwatched)),
            "oci-hotplug recover",
        ));
    }
    for (name, how) in &containers.unhooked {
        findings.push(Finding::warn(
            CHECK,
            format!("container {name} has an annotation of oci-hotplug but no watcher: its engine did not run the hooks"),
            format!("{how}, or attach devices to the running container with `oci-hotplug attach`"),
        ));
    }
    findings
}

/// Containers that were not started, and nodes that nobody in a container may open.
fn without_devices(containers: &Containers) -> Vec<Finding> {
    let mut findings = Vec::new();
    for refused in &containers.refused {
        findings.push(Finding::warn(
            CHECK,
            refused.as_str(),
            "`oci-hotplug events` shows all of them",
        ));
    }
    for closed in &containers.closed {
        let (container, path) = (&closed.container, closed.path.display());
        findings.push(Finding::warn(
            CHECK,
            format!("container {container}, {path}: {}", closed.fault),
            format!("`oci-hotplug explain {container} {path}` shows it for one device"),
        ));
    }
    findings
}

/// What `oci-hotplug recover` corrects.
fn to_recover(containers: &Containers) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !containers.unreadable.is_empty() {
        findings.push(Finding::warn(
            CHECK,
            listed(&containers.unreadable),
            "run oci-hotplug recover for the reasons",
        ));
    }
    if !containers.gone.is_empty() {
        findings.push(Finding::warn(
            CHECK,
            format!(
                "records of containers that are gone: {}",
                listed(&containers.gone)
            ),
            "run oci-hotplug recover; the next start of a container removes them, too",
        ));
    }
    if containers.outdated > 0 {
        findings.push(Finding::warn(
            CHECK,
            format!(
                "{} running from a replaced executable",
                counted(containers.outdated, "watcher runs", "watchers run")
            ),
            "oci-hotplug recover --restart-watchers",
        ));
    }
    findings
}
