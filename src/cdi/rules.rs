//! The rules for one spec, as in the Go library that the engines use (pkg/cdi/spec.go:236-262,
//! pkg/cdi/device.go:80-83, pkg/cdi/container-edits.go, specs-go/version.go).
//!
//! Must not know other specs or the host.

use std::collections::BTreeSet;

use super::document::{Document, Edits, IntelRdt};
use super::fault::Fault;
use super::names::{self, Kind};
use crate::model::yaml::Node;

/// The versions of the specification (specs-go/version.go:27-62).
const VERSIONS: [&str; 10] = [
    "0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0",
];

/// The names of hooks (pkg/cdi/container-edits.go, validHookNames).
const HOOKS: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

/// All errors in a spec; `root`, the tree that it was decoded from, has their positions.
pub fn faults(document: &Document, root: &Node) -> Vec<Fault> {
    let mut findings = Findings::default();
    findings.kind(document);
    findings.version(document);
    findings.edits("containerEdits", &document.container_edits);
    findings.devices(document);
    findings
        .0
        .into_iter()
        .map(|(field, message)| Fault::at(root, &field, &message))
        .collect()
}

/// The lowest version that a spec may have, and the field that requires it
/// (specs-go/version.go:68-81).
pub fn required_version(document: &Document) -> (&'static str, String) {
    let mut needs: Vec<(&'static str, String)> = vec![("0.3.0", String::new())];
    for (field, edits) in all_edits(document) {
        needs.extend(edits_need(edits).map(|(version, part)| (version, format!("{field}.{part}"))));
    }
    let annotated = document
        .devices
        .iter()
        .zip(0..)
        .filter(|(device, _)| !device.annotations.is_empty());
    needs.extend(annotated.map(|(_, index)| ("0.6.0", format!("devices[{index}].annotations"))));
    if !document.annotations.is_empty() {
        needs.push(("0.6.0", "annotations".into()));
    }
    if document
        .kind
        .split_once('/')
        .is_some_and(|(_, class)| class.contains('.'))
    {
        needs.push(("0.6.0", "kind (a \".\" in the class)".into()));
    }
    let digit = |name: &str| name.starts_with(|first: char| !first.is_ascii_alphabetic());
    let digits = document
        .devices
        .iter()
        .zip(0..)
        .filter(|(device, _)| digit(&device.name));
    needs.extend(digits.map(|(_, index)| ("0.5.0", format!("devices[{index}].name (a digit first)"))));
    // Each part of a version is a single digit, so versions sort as texts. If several fields
    // require the version, the first is reported.
    needs
        .into_iter()
        .rev()
        .max_by_key(|(version, _)| *version)
        .unwrap_or_default()
}

fn all_edits(document: &Document) -> impl Iterator<Item = (String, &Edits)> {
    let devices = document.devices.iter().zip(0..).map(|(device, index)| {
        (
            format!("devices[{index}].containerEdits"),
            &device.container_edits,
        )
    });
    std::iter::once(("containerEdits".to_owned(), &document.container_edits)).chain(devices)
}

fn edits_need(edits: &Edits) -> impl Iterator<Item = (&'static str, String)> {
    let rdt = edits.intel_rdt.as_ref();
    let node = edits
        .device_nodes
        .iter()
        .position(|node| node.host_path.as_ref().is_some_and(|path| !path.is_empty()));
    let mount = edits
        .mounts
        .iter()
        .position(|mount| mount.kind.as_ref().is_some_and(|kind| !kind.is_empty()));
    let new_rdt = |rdt: &IntelRdt| rdt.schemata.is_some() || rdt.enable_monitoring.is_some();
    [
        (!edits.net_devices.is_empty()).then(|| ("1.1.0", "netDevices".to_owned())),
        rdt.filter(|rdt| new_rdt(rdt))
            .map(|_| ("1.1.0", "intelRdt (schemata, enableMonitoring)".to_owned())),
        rdt.map(|_| ("0.7.0", "intelRdt".to_owned())),
        (!edits.additional_gids.is_empty()).then(|| ("0.7.0", "additionalGids".to_owned())),
        node.map(|index| ("0.5.0", format!("deviceNodes[{index}].hostPath"))),
        mount.map(|index| ("0.4.0", format!("mounts[{index}].type"))),
    ]
    .into_iter()
    .flatten()
}

/// Field and message of each error.
#[derive(Default)]
struct Findings(Vec<(String, String)>);

impl Findings {
    fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push((field.into(), message.into()));
    }

    fn kind(&mut self, document: &Document) {
        if let Err(error) = document.kind.parse::<Kind>() {
            self.add("kind", error.to_string());
        }
    }

    fn version(&mut self, document: &Document) {
        let version = document.cdi_version.trim_start_matches('v');
        if !VERSIONS.contains(&version) {
            let known = VERSIONS[2..].join(", ");
            let message = format!(
                "{:?} is not a version of the specification; write one of {known}",
                document.cdi_version
            );
            return self.add("cdiVersion", message);
        }
        let (required, field) = required_version(document);
        if version < required {
            let why = if field.is_empty() {
                "the earliest that engines read".to_owned()
            } else {
                format!("because of {field}")
            };
            self.add(
                "cdiVersion",
                format!("{version} is too low: it must be at least {required}, {why}"),
            );
        }
        for (field, edits) in all_edits(document) {
            let old = edits
                .intel_rdt
                .as_ref()
                .is_some_and(|rdt| rdt.enable_cmt.is_some() || rdt.enable_mbm.is_some());
            if old && version >= "1.1.0" {
                self.add(
                    format!("{field}.intelRdt"),
                    "version 1.1.0 removed enableCMT and enableMBM: use enableMonitoring",
                );
            }
        }
    }

    fn devices(&mut self, document: &Document) {
        if document.devices.is_empty() {
            self.add("devices", "a spec must have at least one device");
        }
        let mut seen = BTreeSet::new();
        for (device, index) in document.devices.iter().zip(0..) {
            let field = format!("devices[{index}]");
            if let Err(error) = names::check_device(&device.name) {
                self.add(format!("{field}.name"), error.to_string());
            }
            if !seen.insert(&device.name) {
                self.add(
                    format!("{field}.name"),
                    format!(
                        "a second device {:?}: names are unique within a spec",
                        device.name
                    ),
                );
            }
            if device.container_edits.is_empty() {
                self.add(
                    format!("{field}.containerEdits"),
                    "must not be empty: a device must change something, such as env, deviceNodes or hooks",
                );
            }
            self.edits(&format!("{field}.containerEdits"), &device.container_edits);
        }
    }

    fn edits(&mut self, field: &str, edits: &Edits) {
        self.env(&format!("{field}.env"), &edits.env);
        for (node, index) in edits.device_nodes.iter().zip(0..) {
            let field = format!("{field}.deviceNodes[{index}]");
            self.not_empty(&format!("{field}.path"), &node.path);
            if !["", "b", "c", "u", "p"].contains(&node.kind.as_deref().unwrap_or_default()) {
                self.add(format!("{field}.type"), "must be b, c, u or p");
            }
            let permissions = node.permissions.as_deref().unwrap_or_default();
            if permissions != "none" && !permissions.chars().all(|letter| "rwm".contains(letter)) {
                self.add(
                    format!("{field}.permissions"),
                    "must be of the letters r, w and m, or none",
                );
            }
        }
        for (hook, index) in edits.hooks.iter().zip(0..) {
            let field = format!("{field}.hooks[{index}]");
            if !HOOKS.contains(&hook.hook_name.as_str()) {
                let known = HOOKS.join(", ");
                self.add(
                    format!("{field}.hookName"),
                    format!("{:?} is not a hook; write one of {known}", hook.hook_name),
                );
            }
            self.not_empty(&format!("{field}.path"), &hook.path);
            self.env(&format!("{field}.env"), &hook.env);
        }
        for (mount, index) in edits.mounts.iter().zip(0..) {
            self.not_empty(&format!("{field}.mounts[{index}].hostPath"), &mount.host_path);
            self.not_empty(
                &format!("{field}.mounts[{index}].containerPath"),
                &mount.container_path,
            );
        }
        if let Some(closid) = edits.intel_rdt.as_ref().and_then(|rdt| rdt.clos_id.as_deref()) {
            let fits = closid == "/"
                || closid.len() < 4096 && ![".", ".."].contains(&closid) && !closid.contains(['/', '\n']);
            if !fits {
                self.add(
                    format!("{field}.intelRdt.closID"),
                    "must be the name of a directory of resctrl, without a \"/\"",
                );
            }
        }
        self.net_devices(field, edits);
    }

    fn net_devices(&mut self, field: &str, edits: &Edits) {
        let (mut hosts, mut names) = (BTreeSet::new(), BTreeSet::new());
        for (device, index) in edits.net_devices.iter().zip(0..) {
            let field = format!("{field}.netDevices[{index}]");
            self.not_empty(&format!("{field}.hostInterfaceName"), &device.host_interface_name);
            self.not_empty(&format!("{field}.name"), &device.name);
            if !hosts.insert(&device.host_interface_name) {
                self.add(
                    format!("{field}.hostInterfaceName"),
                    "the interface is listed twice",
                );
            }
            if !names.insert(&device.name) {
                self.add(format!("{field}.name"), "the name is used twice");
            }
        }
    }

    fn env(&mut self, field: &str, env: &[String]) {
        for (variable, index) in env.iter().zip(0..) {
            if variable.find('=').is_none_or(|at| at == 0) {
                self.add(
                    format!("{field}[{index}]"),
                    format!("{variable:?} must be NAME=VALUE"),
                );
            }
        }
    }

    fn not_empty(&mut self, field: &str, value: &str) {
        if value.is_empty() {
            self.add(field, "must not be empty");
        }
    }
}

#[cfg(test)]
mod tests;
