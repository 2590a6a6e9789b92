//! The files of hooks.d against the rules of oci-hooks(5), version 1.0.0: engines that read them
//! drop a wrong one with a line in a log, or refuse every container.

use std::path::Path;

use regex_lite::Regex;
use serde_json::Value;

const FILES: [(&str, &str); 2] = [
    ("oci-hotplug-prestart", "createRuntime"),
    ("oci-hotplug-poststop", "poststop"),
];

fn read(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("hooks.d")
        .join(format!("{name}.json"));
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect()
}

/// What the engine does with `when.annotations`: each entry's key and value are unanchored regular
/// expressions, and every entry must match some annotation of the container.
fn applies(hook: &Value, annotation: (&str, &str)) -> bool {
    let wanted = hook["when"]["annotations"].as_object().expect("annotations");
    !wanted.is_empty()
        && wanted.iter().all(|(key, value)| {
            let [key, value] = [key, value.as_str().expect("a regular expression")]
                .map(|text| Regex::new(text).unwrap_or_else(|error| panic!("{text}: {error}")));
            key.is_match(annotation.0) && value.is_match(annotation.1)
        })
}

#[test]
fn there_is_one_file_for_each_of_our_hooks_and_no_other() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("hooks.d");
    let mut found: Vec<_> = std::fs::read_dir(directory)
        .expect("list hooks.d")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
        .collect();
    found.sort();
    let mut expected: Vec<_> = FILES.iter().map(|(name, _)| format!("{name}.json")).collect();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn only_keys_that_the_format_knows_are_used() {
    for (name, _) in FILES {
        let hook = read(name);
        assert_eq!(hook["version"], "1.0.0", "{name}");
        assert_eq!(keys(&hook), ["hook", "stages", "version", "when"], "{name}");
        for key in keys(&hook["hook"]) {
            assert!(["path", "args", "env", "timeout"].contains(&key), "{name}: {key}");
        }
        assert_eq!(keys(&hook["when"]), ["annotations"], "{name}");
    }
}

#[test]
fn each_hook_runs_its_own_executable_in_its_stage_within_a_limit() {
    for (name, stage) in FILES {
        let hook = read(name);
        assert_eq!(hook["hook"]["path"], format!("/usr/libexec/oci/hooks.d/{name}"));
        assert_eq!(
            hook["hook"]["args"][0], name,
            "args[0] is the name of the executable (execv(3))"
        );
        assert_eq!(hook["stages"], serde_json::json!([stage]));
        assert_eq!(hook["hook"]["timeout"], 10, "{name}");
    }
}

#[test]
fn both_hooks_apply_to_the_same_containers() {
    let [prestart, poststop] = FILES.map(|(name, _)| read(name));
    assert_eq!(prestart["when"], poststop["when"]);
}

#[test]
fn the_hooks_apply_to_containers_that_request_devices_and_to_no_others() {
    for (name, _) in FILES {
        let hook = read(name);
        for key in [
            "io.oci-hotplug.devices",
            "io.oci-hotplug.symlinks",
            "org.lowrisc.hotplug.device",
            "org.lowrisc.hotplug.devices",
            "org.lowrisc.hotplug.symlinks",
        ] {
            assert!(applies(&hook, (key, "usb:0403:6001")), "{name}: {key}");
            assert!(applies(&hook, (key, "")), "{name}: {key} with an empty value");
        }
        for key in [
            "io.oci-hotplug",
            "io.oci-hotplugXdevices",
            "my.io.oci-hotplug.devices",
            "org.lowrisc.hotplug.devicesX",
            "org.lowrisc.hotplug.other",
            "org.lowriscXhotplug.devices",
            "x.org.lowrisc.hotplug.devices",
            "io.podman.annotations.seccomp",
        ] {
            assert!(!applies(&hook, (key, "usb:0403:6001")), "{name}: {key}");
        }
    }
}
