use std::path::Path;

use super::*;
use crate::model::request::class::Definition;

fn annotations(pairs: &[(&str, &str)]) -> Annotations {
    pairs
        .iter()
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .collect()
}

fn entry(pairs: &[(&str, &str)]) -> Vec<String> {
    let read_requests = read(
        &annotations(pairs),
        &LowriscLifecycle::default(),
        &Classes::default(),
    )
    .unwrap();
    read_requests
        .entries
        .iter()
        .map(|entry| entry.request.selector.to_string())
        .collect()
}

#[test]
fn other_annotations_request_nothing() {
    let read_requests = read(
        &annotations(&[("other", "usb:0403")]),
        &LowriscLifecycle::default(),
        &Classes::default(),
    )
    .unwrap();
    assert!(read_requests.is_empty());
}

#[test]
fn requests_of_oci_hotplug_and_container_hotplug_are_combined() {
    let got = entry(&[
        (DEVICES, "usb:0403:6001, usb:1050"),
        (LOWRISC_DEVICES, "parent-of:usb:0bda"),
    ]);
    assert_eq!(got, ["usb:0403:6001", "usb:1050", "parent-of:usb:0bda"]);
}

#[test]
fn a_rule_for_links_requests_no_device() {
    let read = |pairs: &[(&str, &str)]| {
        read(
            &annotations(pairs),
            &LowriscLifecycle::default(),
            &Classes::default(),
        )
        .unwrap()
    };
    let rule = (SYMLINKS, "usb:0403:6001:0=/dev/ttyBOARD");
    assert!(read(&[rule]).is_empty());
    assert!(!read(&[rule, (DEVICES, "usb:0403")]).is_empty());
}

#[test]
fn whether_there_is_a_udev_database_is_an_annotation_that_requests_no_device() {
    let read = |value: &str| {
        let given = annotations(&[(UDEV, value)]);
        read(&given, &LowriscLifecycle::default(), &Classes::default())
    };
    let requests = read("never").unwrap();
    assert!(requests.is_empty());
    assert_eq!(requests.udev, Some(UdevMode::Never));
    let error = read("yes").unwrap_err();
    assert!(!error.is_refusal());
    assert_eq!(
        error.to_string(),
        "udev database \"yes\": must be \"auto\" or \"never\" (annotation io.oci-hotplug.udev)"
    );
}

#[test]
fn annotations_of_oci_hotplug_are_those_with_its_prefix_and_three_of_container_hotplug() {
    for key in [
        DEVICES,
        SYMLINKS,
        UDEV,
        "io.oci-hotplug.typo",
        LOWRISC_DEVICES,
        LOWRISC_DEVICE,
        LOWRISC_SYMLINKS,
    ] {
        assert!(is_ours(key), "{key}");
    }
    for key in ["other", "io.oci-hotplugx", "org.lowrisc.hotplug.x", ""] {
        assert!(!is_ours(key), "{key}");
    }
}

#[test]
fn exceeding_a_class_is_refused_and_a_class_in_an_invalid_file_is_an_error_of_the_configuration() {
    let definition = Definition {
        devices: vec!["usb:0403;access=r".to_owned()],
        ..Definition::default()
    };
    let file = Path::new("/etc/oci-hotplug/config.toml");
    let mut classes = Classes::parse(file, &[("lab".to_owned(), definition)].into()).unwrap();
    let error = |classes: &Classes, text: &str| {
        let given = annotations(&[(DEVICES, text)]);
        let of_all = read(&given, &LowriscLifecycle::default(), classes).unwrap_err();
        let of_list = read_list(Origin::Annotation, text, classes).unwrap_err();
        assert_eq!(of_all.is_refusal(), of_list.is_refusal());
        (of_list.is_refusal(), of_list.is_of_configuration())
    };
    assert_eq!(error(&classes, "class:lab;access=w"), (true, false));
    assert_eq!(error(&classes, "class:nope"), (false, false));
    assert_eq!(error(&classes, "usb:x"), (false, false));
    classes.set_aside(None, "line 7: expected a table".to_owned());
    assert_eq!(error(&classes, "class:lab"), (false, true));
}

#[test]
fn the_plural_of_container_hotplug_overrides_its_singular() {
    assert_eq!(entry(&[(LOWRISC_DEVICE, "usb:0403")]), ["usb:0403"]);
    assert_eq!(
        entry(&[(LOWRISC_DEVICE, "usb:0403"), (LOWRISC_DEVICES, "usb:1050")]),
        ["usb:1050"]
    );
}

#[test]
fn the_lifecycle_of_container_hotplugs_requests_is_configurable() {
    let lifecycle = LowriscLifecycle {
        required: true,
        on_removal: OnRemoval::Kill,
        has_host_mode: false,
    };
    let given = annotations(&[(LOWRISC_DEVICES, "usb:0403"), (DEVICES, "usb:1050")]);
    let read_requests = read(&given, &lifecycle, &Classes::default()).unwrap();
    let options: Vec<_> = read_requests
        .entries
        .iter()
        .map(|entry| entry.request.options.required)
        .collect();
    assert_eq!(options, [false, true]);
    assert_eq!(
        read_requests.entries[1].request.options.on_removal,
        OnRemoval::Kill
    );
}

#[test]
fn container_hotplugs_requests_have_its_mode_or_that_of_the_hosts_node() {
    for (has_host_mode, mode) in [(false, Some(0o644)), (true, None)] {
        let lifecycle = LowriscLifecycle {
            has_host_mode,
            ..LowriscLifecycle::default()
        };
        let given = annotations(&[(LOWRISC_DEVICES, "usb:0403"), (DEVICES, "usb:1050;mode=0600")]);
        let requests = read(&given, &lifecycle, &Classes::default()).unwrap();
        let modes: Vec<_> = requests
            .entries
            .iter()
            .map(|entry| entry.request.options.mode)
            .collect();
        assert_eq!(modes, [Some(0o600), mode]);
    }
}

#[test]
fn an_error_names_annotation_value_fault_and_hint() {
    let error = read(
        &annotations(&[(DEVICES, "usb:12345:6001")]),
        &LowriscLifecycle::default(),
        &Classes::default(),
    )
    .unwrap_err();
    let text = error.to_string();
    for part in [
        "device request \"usb:12345:6001\"",
        "vendor id must be 4 hex digits",
        "(annotation io.oci-hotplug.devices)",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

/// Case newcomer: typos in keys.
#[test]
fn an_unknown_key_with_the_prefix_is_an_error_that_suggests_a_key() {
    for (key, hint) in [
        ("io.oci-hotplug.device", "(did you mean io.oci-hotplug.devices?)"),
        (
            "io.oci-hotplug.symlink",
            "(did you mean io.oci-hotplug.symlinks?)",
        ),
        ("io.oci-hotplug.Devices", "(did you mean io.oci-hotplug.devices?)"),
        (
            "io.oci-hotplug.only",
            "(write io.oci-hotplug.devices, io.oci-hotplug.symlinks, io.oci-hotplug.udev)",
        ),
        (
            "io.oci-hotplug.",
            "(write io.oci-hotplug.devices, io.oci-hotplug.symlinks, io.oci-hotplug.udev)",
        ),
    ] {
        let given = annotations(&[(key, "usb:0403"), (DEVICES, "usb:0403")]);
        let error = read(&given, &LowriscLifecycle::default(), &Classes::default()).unwrap_err();
        let text = error.to_string();
        assert_eq!(text, format!("annotation \"{key}\": unknown annotation {hint}"));
        assert!(is_ours(key) && !error.is_refusal());
    }
    let odd = format!("io.oci-hotplug.{}\n", "x".repeat(1000));
    let error = read(
        &annotations(&[(&odd, "")]),
        &LowriscLifecycle::default(),
        &Classes::default(),
    );
    let text = error.unwrap_err().to_string();
    assert!(text.len() < 250 && !text.contains('\n'), "{text}");
    // container-hotplug ignores unknown keys.
    assert_eq!(
        entry(&[("org.lowrisc.hotplug.x", "usb:0403"), ("io.oci-hotplugx", "")]),
        [""; 0]
    );
}

#[test]
fn an_unknown_class_is_an_error_of_its_annotation() {
    let given = annotations(&[(DEVICES, "class:lab")]);
    let error = read(&given, &LowriscLifecycle::default(), &Classes::default()).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("\"class:lab\"") && text.ends_with("(annotation io.oci-hotplug.devices)"),
        "{text}"
    );
    // container-hotplug's grammar has no classes.
    let given = annotations(&[(LOWRISC_DEVICES, "class:lab")]);
    assert!(read(&given, &LowriscLifecycle::default(), &Classes::default()).is_err());
}
