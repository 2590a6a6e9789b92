//! list, inspect, tree, match, and the help.

use std::process::Command;

use super::record::write_record;
use super::scene::{err, json, out, tool, tool_with, with_a_container_of_podman};

#[test]
fn an_empty_list_explains_why_no_container_has_a_watcher() {
    let output = tool(&["list"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    // Containers of others that run here may be named below.
    let said = out(&output);
    let first = said.lines().next().unwrap_or_default();
    assert_eq!(
        first,
        "No container has a watcher: either none requests devices by the annotation io.oci-hotplug.devices, or its engine did not run our hooks (`oci-hotplug check`; Docker needs --device oci-hotplug.dev/device=annotated)."
    );
    assert_eq!(
        json(&tool(&["list", "--json"]))["containers"],
        serde_json::json!([])
    );
}

#[test]
fn an_unknown_container_is_an_error_that_names_the_verb_to_look_with() {
    let output = tool(&["inspect", "nobody"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        err(&output),
        "oci-hotplug: no container \"nobody\" is known here (`oci-hotplug list` shows those that are)\n"
    );
}

#[test]
fn a_record_without_watcher_is_shown_as_such_and_found_by_its_beginning() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    for id in ["alpha1", "alpha2", "beta"] {
        write_record(scratch.path(), id, |record| {
            record["container"]["user"] = serde_json::json!({ "uid": 1000, "gid": 100 });
            record["requests"] =
                serde_json::json!([{ "origin": "annotation", "request": "usb:0403:6001;access=r" }]);
        });
    }
    let list = out(&tool_with(scratch.path(), &["list"]));
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(lines.len(), 8, "{list}");
    assert_eq!(
        lines[5],
        "alpha1: the container is starting or has ended, or its watcher crashed (`oci-hotplug recover` starts it again)"
    );
    assert!(lines[0].starts_with("CONTAINER  NAME  ENGINE  SINCE"), "{list}");
    assert!(
        lines[1].starts_with("alpha1     -     -") && lines[1].contains("no watcher"),
        "{list}"
    );
    assert!(lines[1].ends_with("usb:0403:6001;access=r"), "{list}");

    let inspect = tool_with(scratch.path(), &["inspect", "be"]);
    assert!(
        out(&inspect).starts_with("Container  beta\nHealth     no watcher\n"),
        "{}",
        out(&inspect)
    );
    let json: serde_json::Value =
        serde_json::from_str(&out(&tool_with(scratch.path(), &["inspect", "beta", "--json"]))).expect("JSON");
    assert_eq!(json["record"]["requests"][0]["request"], "usb:0403:6001;access=r");

    let several = tool_with(scratch.path(), &["inspect", "alpha"]);
    assert_eq!(
        err(&several),
        "oci-hotplug: the ids of several containers begin with \"alpha\": alpha1, alpha2 (give more characters)\n"
    );
}

#[test]
fn a_container_has_the_name_and_the_short_id_that_its_engine_shows() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let state = with_a_container_of_podman(scratch.path());
    let list = out(&tool_with(&state, &["list"]));
    assert!(
        list.lines()
            .any(|line| line.starts_with("0a1b2c3d4e5f  robot  podman  ")),
        "{list}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&out(&tool_with(&state, &["list", "--json"]))).expect("JSON");
    assert_eq!(
        (&json["containers"][0]["name"], &json["containers"][0]["engine"]),
        (&"robot".into(), &"podman".into())
    );
    let inspect = out(&tool_with(&state, &["inspect", "robot"]));
    assert!(
        inspect.contains("\nName       robot\nEngine     podman\n"),
        "{inspect}"
    );
}

#[test]
fn the_tree_has_the_kernel_s_own_devices_only_with_all() {
    let few = out(&tool(&["tree"]));
    assert!(few.starts_with("DEVICE"), "{few}");
    assert!(
        few.contains("more nodes (--all)") && !few.contains("/dev/null"),
        "{few}"
    );
    let all = out(&tool(&["tree", "--all"]));
    assert!(
        all.lines()
            .any(|line| line.contains("─ null") && line.ends_with("/dev/null")),
        "{all}"
    );
    // Nothing but text where the output is not a terminal.
    assert!(!all.contains('\u{1b}'), "{all}");
    let json: serde_json::Value = serde_json::from_str(&out(&tool(&["tree", "--json"]))).expect("JSON");
    assert!(
        json["buses"]
            .as_array()
            .expect("buses")
            .iter()
            .any(|bus| bus["name"] == "virtual" && bus["hidden"].as_u64() > Some(1)),
        "{json}"
    );
}

#[test]
fn match_shows_the_nodes_that_a_container_would_get() {
    let output = tool(&["match", "devnode:/dev/null"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(
        out(&output),
        "devnode:/dev/null: selects /sys/devices/virtual/mem/null\n\n\
         NODE       NUMBER  DEVICE\n\
         /dev/null  c 1:3   /sys/devices/virtual/mem/null\n"
    );
    let json: serde_json::Value =
        serde_json::from_str(&out(&tool(&["match", "--json", "devnode:/dev/null"]))).expect("JSON");
    assert_eq!(json["nodes"][0]["number"], "c 1:3");
}

#[test]
fn match_says_when_no_device_is_present() {
    let output = tool(&["match", "usb:ffff:ffff"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(out(&output), "usb:ffff:ffff: no such device is present now\n");
}

#[test]
fn a_malformed_request_is_reported_with_code_2() {
    let output = tool(&["match", "usb:12345"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        err(&output),
        "oci-hotplug: device request \"usb:12345\": vendor id must be 4 hex digits, such as 0403\n"
    );
}

#[test]
fn help_names_every_verb() {
    let help = out(&tool(&["--help"]));
    for verb in [
        "list", "inspect", "match", "tree", "allow", "class", "reload", "explain", "attach", "detach",
        "events", "recover", "check", "metrics", "usbip", "demo",
    ] {
        assert!(
            help.lines().any(|line| line.trim_start().starts_with(verb)),
            "{verb} in:\n{help}"
        );
    }
}

/// Case README 27. Every network namespace has this interface.
#[test]
fn match_explains_what_to_do_for_a_device_without_a_node() {
    let output = tool(&["match", "syspath:/sys/devices/virtual/net/lo"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let said = out(&output);
    assert!(
        said.contains("lo is a network interface and has no device node: share the host's network (--network host), or move it"),
        "{said}"
    );
}

/// Case newcomer: match refuses /dev/ttyUSB0.
#[test]
fn a_path_below_dev_is_a_request_for_it() {
    assert_eq!(
        out(&tool(&["match", "/dev/null"])),
        out(&tool(&["match", "devnode:/dev/null"]))
    );
}

/// Case newcomer: try.sh --help starts a build; attach --help has a stray line break.
#[test]
fn help_is_shown_and_does_nothing_else() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/try.sh");
    let output = Command::new("bash")
        .args([script, "--help"])
        .env("PATH", "/usr/bin:/bin")
        .output()
        .expect("start try.sh");
    assert!(
        output.status.success() && out(&output).starts_with("usage: "),
        "{output:?}"
    );
    let help = out(&tool(&["attach", "--help"]));
    assert!(
        help.contains("until it stops or restarts") && !help.contains("rest of its life"),
        "{help}"
    );
    assert!(
        help.contains("Usage: oci-hotplug attach [OPTIONS] <ID | --pid PID> REQUEST...\n\nArguments:"),
        "{help}"
    );
}
