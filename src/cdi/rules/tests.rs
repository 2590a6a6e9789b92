use super::*;
use crate::model::yaml;

fn told(text: &str) -> Vec<String> {
    let root = yaml::parse(text).unwrap();
    let document = Document::decode(&root).unwrap();
    faults(&document, &root).iter().map(ToString::to_string).collect()
}

fn spec(version: &str, kind: &str, device: &str) -> String {
    format!("cdiVersion: {version}\nkind: {kind}\ndevices:\n- {device}\n")
}

#[test]
fn a_valid_spec_has_no_fault() {
    assert_eq!(
        told(&spec(
            "0.5.0",
            "a.b/c",
            "{name: 0x, containerEdits: {env: [A=1]}}"
        )),
        [""; 0]
    );
    assert_eq!(
        told(&spec(
            "v0.3.0",
            "a.b/c",
            "{name: x, containerEdits: {env: [A=1]}}"
        )),
        [""; 0]
    );
}

#[test]
fn every_rule_has_its_fault() {
    for (version, kind, device, part) in [
        (
            "0.9.0",
            "a/b",
            "{name: x, containerEdits: {env: [A=1]}}",
            "line 1, column 13: cdiVersion: \"0.9.0\" is not a version",
        ),
        (
            "0.2.0",
            "a/b",
            "{name: x, containerEdits: {env: [A=1]}}",
            "must be at least 0.3.0, the earliest",
        ),
        (
            "0.4.0",
            "a/b",
            "{name: 0x, containerEdits: {env: [A=1]}}",
            "at least 0.5.0, because of devices[0].name",
        ),
        (
            "0.5.0",
            "a/b.c",
            "{name: x, containerEdits: {env: [A=1]}}",
            "at least 0.6.0, because of kind",
        ),
        (
            "0.5.0",
            "a/b",
            "{name: x, annotations: {a: b}, containerEdits: {env: [A=1]}}",
            "because of devices[0].annotations",
        ),
        (
            "0.6.0",
            "a/b",
            "{name: x, containerEdits: {additionalGids: [5]}}",
            "at least 0.7.0, because of devices[0].containerEdits.additionalGids",
        ),
        (
            "0.3.0",
            "a/b",
            "{name: x, containerEdits: {mounts: [{hostPath: /a, containerPath: /b, type: bind}]}}",
            "mounts[0].type",
        ),
        (
            "0.4.0",
            "a/b",
            "{name: x, containerEdits: {deviceNodes: [{path: /a, hostPath: /b}]}}",
            "deviceNodes[0].hostPath",
        ),
        (
            "1.0.0",
            "a/b",
            "{name: x, containerEdits: {netDevices: [{hostInterfaceName: a, name: b}]}}",
            "at least 1.1.0",
        ),
        (
            "1.0.0",
            "a/b",
            "{name: x, containerEdits: {intelRdt: {schemata: [a]}}}",
            "at least 1.1.0",
        ),
        (
            "1.1.0",
            "a/b",
            "{name: x, containerEdits: {intelRdt: {enableCMT: true}}}",
            "enableMonitoring",
        ),
        (
            "0.5.0",
            "a",
            "{name: x, containerEdits: {env: [A=1]}}",
            "line 2, column 7: kind:",
        ),
        (
            "0.5.0",
            "a/b",
            "{name: x y, containerEdits: {env: [A=1]}}",
            "line 4, column 10: devices[0].name:",
        ),
        (
            "0.5.0",
            "a/b",
            "{name: x}",
            "devices[0].containerEdits: must not be empty",
        ),
        (
            "0.5.0",
            "a/b",
            "{name: x, containerEdits: {env: [A]}}",
            "env[0]: \"A\" must be NAME=VALUE",
        ),
        (
            "0.5.0",
            "a/b",
            "{name: x, containerEdits: {deviceNodes: [{path: ''}]}}",
            "deviceNodes[0].path: must not be empty",
        ),
        (
            "0.5.0",
            "a/b",
            "{name: x, containerEdits: {deviceNodes: [{path: /a, type: d}]}}",
            "type: must be b, c, u or p",
        ),
        (
            "0.5.0",
            "a/b",
            "{name: x, containerEdits: {deviceNodes: [{path: /a, permissions: rx}]}}",
            "permissions: must be of",
        ),
        (
            "0.5.0",
            "a/b",
            "{name: x, containerEdits: {hooks: [{hookName: start, path: /a}]}}",
            "hooks[0].hookName: \"start\" is not a hook",
        ),
        (
            "0.5.0",
            "a/b",
            "{name: x, containerEdits: {hooks: [{hookName: poststop, path: ''}]}}",
            "hooks[0].path: must not be empty",
        ),
        (
            "0.5.0",
            "a/b",
            "{name: x, containerEdits: {mounts: [{hostPath: '', containerPath: /b}]}}",
            "hostPath: must not be empty",
        ),
        (
            "0.7.0",
            "a/b",
            "{name: x, containerEdits: {intelRdt: {closID: a/b}}}",
            "closID",
        ),
    ] {
        let text = spec(version, kind, device);
        let told = told(&text);
        assert!(told.iter().any(|fault| fault.contains(part)), "{part}: {told:?}");
    }
}

#[test]
fn duplicate_device_names_and_a_spec_without_devices_are_faults() {
    let text = "cdiVersion: 0.5.0\nkind: a/b\ndevices:\n- {name: x, containerEdits: {env: [A=1]}}\n- {name: x, containerEdits: {env: [A=1]}}\n";
    assert_eq!(
        told(text),
        ["line 5, column 10: devices[1].name: a second device \"x\": names are unique within a spec"]
    );
    assert!(told("cdiVersion: 0.5.0\nkind: a/b\ndevices: []\n")[0].contains("at least one"));
}

#[test]
fn all_faults_are_reported_at_once() {
    assert_eq!(
        told("cdiVersion: 0.5.0\nkind: a\ndevices:\n- {name: '', containerEdits: {}}\n").len(),
        3
    );
}
