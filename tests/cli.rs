//! The operator's tool from outside, where no container is needed. (With containers: tests/privileged.)

use std::process::{Command, Output};

fn tool(arguments: &[&str]) -> Output {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    tool_with(scratch.path(), arguments)
}

fn tool_with(state_dir: &std::path::Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_oci-hotplug"))
        .env_remove("OCI_HOTPLUG_CONFIG")
        .arg("--state-dir")
        .arg(state_dir)
        .args(arguments)
        .output()
        .expect("start oci-hotplug")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_empty_list_says_so_and_how_to_fill_it() {
    let output = tool(&["list"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(
        out(&output),
        "No container has a watcher. A container asks for devices by the annotation io.oci-hotplug.devices.\n"
    );
    assert_eq!(out(&tool(&["list", "--json"])), "[]\n");
}

#[test]
fn an_unknown_container_is_an_error_that_tells_where_to_look() {
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
        let dir = scratch.path().join("containers").join(id);
        std::fs::create_dir_all(&dir).expect("a record's directory");
        let record = format!(
            r#"{{"version":1,"container":{{"id":"{id}","pid":1,"start_time":1,"bundle":"/b","rootfs":"/b/rootfs","cgroups_path":null,"user":{{"uid":1000,"gid":100}}}},"asked":[{{"origin":"annotation","request":"usb:0403:6001;access=r"}}],"symlinks":[],"enrolled":0}}"#
        );
        std::fs::write(dir.join("record.json"), record).expect("a record");
    }
    let list = out(&tool_with(scratch.path(), &["list"]));
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(lines.len(), 4, "{list}");
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
    assert_eq!(json["record"]["asked"][0]["request"], "usb:0403:6001;access=r");

    let several = tool_with(scratch.path(), &["inspect", "alpha"]);
    assert_eq!(
        err(&several),
        "oci-hotplug: \"alpha\" begins the ids of several containers: alpha1, alpha2 (give more of it)\n"
    );
}

/// A state directory with a container of podman's, and podman's store that has its name.
fn with_a_container_of_podman(scratch: &std::path::Path) -> std::path::PathBuf {
    let id = "0a1b2c3d4e5f".repeat(6)[..64].to_owned();
    let store = scratch.join("overlay-containers");
    std::fs::create_dir_all(&store).expect("podman's store");
    std::fs::write(
        store.join("containers.json"),
        format!(r#"[{{"id":"{id}","names":["robot"]}}]"#),
    )
    .expect("podman's index");
    let bundle = store.join(&id).join("userdata");
    let dir = scratch.join("state/containers").join(&id);
    std::fs::create_dir_all(&dir).expect("a record's directory");
    let record = format!(
        r#"{{"version":1,"container":{{"id":"{id}","pid":1,"start_time":1,"bundle":"{}","rootfs":"/rootfs","cgroups_path":null,"user":{{"uid":0,"gid":0}}}},"asked":[{{"origin":"annotation","request":"usb:0403:6001"}}],"symlinks":[],"enrolled":0}}"#,
        bundle.display()
    );
    std::fs::write(dir.join("record.json"), record).expect("a record");
    scratch.join("state")
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
        (&json[0]["name"], &json[0]["engine"]),
        (&"robot".into(), &"podman".into())
    );
    let inspect = out(&tool_with(&state, &["inspect", "robot"]));
    assert!(
        inspect.contains("\nName       robot\nEngine     podman\n"),
        "{inspect}"
    );
}

#[test]
fn the_tree_has_the_kernel_s_own_devices_only_when_all_is_asked_for() {
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
    // Nothing but text where the output is no terminal.
    assert!(!all.contains('\u{1b}'), "{all}");
    let json: serde_json::Value = serde_json::from_str(&out(&tool(&["tree", "--json"]))).expect("JSON");
    assert!(
        json.as_array()
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
fn match_says_when_nothing_is_there() {
    let output = tool(&["match", "usb:ffff:ffff"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(out(&output), "usb:ffff:ffff: no such device is present now\n");
}

#[test]
fn a_malformed_request_is_told_with_code_2() {
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
        "list", "inspect", "match", "tree", "explain", "attach", "detach", "events", "recover", "check",
        "metrics", "usbip", "demo",
    ] {
        assert!(
            help.lines().any(|line| line.trim_start().starts_with(verb)),
            "{verb} in:\n{help}"
        );
    }
}

#[test]
fn with_no_container_there_is_nothing_to_recover() {
    let output = tool(&["recover"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(out(&output), "No container is known here: nothing to recover.\n");
    assert_eq!(out(&tool(&["recover", "--json"])), "[]\n");
}

/// A record as version `version` of a container whose process has never been.
fn record(scratch: &std::path::Path, id: &str, version: u32) -> std::path::PathBuf {
    let dir = scratch.join("containers").join(id);
    std::fs::create_dir_all(&dir).expect("a record's directory");
    let record = format!(
        r#"{{"version":{version},"container":{{"id":"{id}","pid":1,"start_time":1,"bundle":"/b","rootfs":"/b/rootfs","cgroups_path":null,"user":{{"uid":0,"gid":0}}}},"asked":[],"symlinks":[],"enrolled":0}}"#
    );
    std::fs::write(dir.join("record.json"), record).expect("a record");
    dir
}

/// A process that is gone with it.
struct Sleeper(std::process::Child);

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn recover_sweeps_what_the_last_boot_left_though_its_pid_and_start_time_are_a_process_of_now() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let sleeper = Sleeper(Command::new("sleep").arg("600").spawn().expect("start sleep"));
    let pid = sleeper.0.id();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("its stat");
    let started = stat
        .rsplit(')')
        .next()
        .and_then(|fields| fields.split(' ').nth(20));
    let started = started.expect("its start time (proc_pid_stat(5), field 22)");
    let dir = scratch.path().join("containers/old");
    std::fs::create_dir_all(&dir).expect("a record's directory");
    let record = format!(
        r#"{{"version":1,"container":{{"id":"old","pid":{pid},"start_time":{started},"bundle":"/b","rootfs":"/b/rootfs","cgroups_path":null,"user":{{"uid":0,"gid":0}}}},"asked":[],"symlinks":[],"enrolled":0,"boot":"00000000-0000-0000-0000-000000000000"}}"#
    );
    std::fs::write(dir.join("record.json"), record).expect("a record");
    let output = tool_with(scratch.path(), &["recover"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(
        out(&output).ends_with("old        it is gone: its record is removed\n"),
        "{}",
        out(&output)
    );
    assert!(!dir.exists());
}

#[test]
fn recover_sweeps_what_is_gone_and_tells_of_each_record_that_it_cannot_read() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let gone = record(scratch.path(), "gone", 0);
    let newer = record(scratch.path(), "newer", 99);
    let torn = record(scratch.path(), "torn", 1);
    std::fs::write(torn.join("record.json"), "{\"version\":1,\"conta").expect("a torn record");
    let half = scratch.path().join("containers/half");
    std::fs::create_dir_all(&half).expect("a directory without record");
    std::fs::create_dir_all(scratch.path().join("leases")).expect("leases");
    std::fs::write(scratch.path().join("leases/stray"), "").expect("a lease that nobody holds");

    let output = tool_with(scratch.path(), &["recover"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        err(&output),
        "oci-hotplug: 2 of 4 containers could not be recovered\n"
    );
    let said = out(&output);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 5, "{said}");
    assert_eq!(lines[0], "CONTAINER  DONE");
    assert_eq!(lines[1], "gone       it is gone: its record is removed");
    assert_eq!(lines[2], "half       it is gone: its record is removed");
    let path = newer.join("record.json");
    assert_eq!(
        lines[3],
        format!(
            "newer      FAILED: reading {}: it has version 99, and this oci-hotplug knows versions up to 1 (install the newer one)",
            path.display()
        )
    );
    assert!(
        lines[4].starts_with(&format!(
            "torn       FAILED: reading {}/record.json: EOF",
            torn.display()
        )) && lines[4]
            .ends_with("(written by another program? remove the directory once its container is gone)"),
        "{said}"
    );
    assert!(!gone.exists() && !half.exists() && newer.exists() && torn.exists());
    assert!(!scratch.path().join("leases/stray").exists());

    let again: serde_json::Value =
        serde_json::from_str(&out(&tool_with(scratch.path(), &["recover", "--json"]))).expect("JSON");
    assert_eq!(again[0]["id"], "newer");
    assert_eq!(again[0]["done"], "failed");
    assert!(again[1]["reason"].as_str().expect("a reason").contains("reading"));
}
