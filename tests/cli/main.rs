//! The operator's tool from outside, where no container is needed. (With containers:
//! tests/privileged.)

mod completion;
mod golden;
#[path = "../support/json_schema.rs"]
mod json_schema;
mod schema;

use std::process::{Command, Output};

use oci_hotplug::host::config::Config;
use oci_hotplug::host::container::ContainerFacts;
use oci_hotplug::host::state::control::{ControlResponse, Problem, Status};
use oci_hotplug::model::device::inventory::Inventory;
use oci_hotplug::model::device::{Access, DevKind, DevNode, DevNum, Device, SysPath, UdevState};
use oci_hotplug::model::plan::attachment::{Attachment, Attachments, NodeCreator, NodeSpec};
use oci_hotplug::model::policy::{ContainerTraits, Denial, HostUse, Policy, PolicyContext, Verdict};
use oci_hotplug::model::request::annotations::read_list;
use oci_hotplug::model::request::class::Classes;
use oci_hotplug::model::request::entry::{Origin, RequestEntry};

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

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_empty_list_says_so_and_how_to_fill_it() {
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
            r#"{{"version":1,"container":{{"id":"{id}","pid":1,"start_time":1,"bundle":"/b","rootfs":"/b/rootfs","cgroups_path":null,"user":{{"uid":1000,"gid":100}}}},"requests":[{{"origin":"annotation","request":"usb:0403:6001;access=r"}}],"symlinks":[],"enrolled":0}}"#
        );
        std::fs::write(dir.join("record.json"), record).expect("a record");
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
        r#"{{"version":1,"container":{{"id":"{id}","pid":1,"start_time":1,"bundle":"{}","rootfs":"/rootfs","cgroups_path":null,"user":{{"uid":0,"gid":0}}}},"requests":[{{"origin":"annotation","request":"usb:0403:6001"}}],"symlinks":[],"enrolled":0}}"#,
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
        "list", "inspect", "match", "tree", "allow", "class", "reload", "explain", "attach", "detach",
        "events", "recover", "check", "metrics", "usbip", "demo",
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
    assert_eq!(
        json(&tool(&["recover", "--json"]))["containers"],
        serde_json::json!([])
    );
}

/// A record as version `version` of a container whose process has never been.
fn record(scratch: &std::path::Path, id: &str, version: u32) -> std::path::PathBuf {
    let dir = scratch.join("containers").join(id);
    std::fs::create_dir_all(&dir).expect("a record's directory");
    let record = format!(
        r#"{{"version":{version},"container":{{"id":"{id}","pid":1,"start_time":1,"bundle":"/b","rootfs":"/b/rootfs","cgroups_path":null,"user":{{"uid":0,"gid":0}}}},"requests":[],"symlinks":[],"enrolled":0}}"#
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
        r#"{{"version":1,"container":{{"id":"old","pid":{pid},"start_time":{started},"bundle":"/b","rootfs":"/b/rootfs","cgroups_path":null,"user":{{"uid":0,"gid":0}}}},"requests":[],"symlinks":[],"enrolled":0,"boot":"00000000-0000-0000-0000-000000000000"}}"#
    );
    std::fs::write(dir.join("record.json"), record).expect("a record");
    let output = tool_with(scratch.path(), &["recover"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(
        out(&output).ends_with("old        the container has ended: its record was removed\n"),
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
    assert_eq!(
        lines[1],
        "gone       the container has ended: its record was removed"
    );
    assert_eq!(
        lines[2],
        "half       the container has ended: its record was removed"
    );
    let path = newer.join("record.json");
    assert_eq!(
        lines[3],
        format!(
            "newer      FAILED: reading {}: it has version 99, but this oci-hotplug supports versions up to 1 (install the newer oci-hotplug)",
            path.display()
        )
    );
    assert!(
        lines[4].starts_with(&format!(
            "torn       FAILED: reading {}/record.json: EOF",
            torn.display()
        )) && lines[4]
            .ends_with("(written by another program? remove the directory after its container has ended)"),
        "{said}"
    );
    assert!(!gone.exists() && !half.exists() && newer.exists() && torn.exists());
    assert!(!scratch.path().join("leases/stray").exists());

    let again: serde_json::Value =
        serde_json::from_str(&out(&tool_with(scratch.path(), &["recover", "--json"]))).expect("JSON");
    assert_eq!(again["containers"][0]["id"], "newer");
    assert_eq!(again["containers"][0]["done"], "failed");
    assert!(
        again["containers"][1]["reason"]
            .as_str()
            .expect("a reason")
            .contains("reading")
    );
}

/// A configuration with its drop-ins in a scratch directory, and the tool that uses it.
struct Configured {
    scratch: tempfile::TempDir,
}

impl Configured {
    fn new(text: &str) -> Self {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        std::fs::write(scratch.path().join("config.toml"), text).expect("write a configuration");
        Self { scratch }
    }

    fn path(&self) -> std::path::PathBuf {
        self.scratch.path().join("config.toml")
    }

    fn state_dir(&self) -> std::path::PathBuf {
        self.scratch.path().join("state dir")
    }

    fn load(&self) -> Config {
        Config::load(Some(&self.path()), Some(&self.state_dir())).expect("the configuration can be used")
    }

    fn policy(&self) -> Policy {
        self.load().policy().expect("the policy can be used")
    }

    fn tool(&self, words: &[&str]) -> Output {
        let config = self.path();
        let mut all = vec!["--config", config.to_str().expect("scratch paths are text")];
        all.extend(words);
        tool_with(&self.state_dir(), &all)
    }

    /// What is in config.d, each file with its text.
    fn drop_ins(&self) -> Vec<(String, String)> {
        let entries = std::fs::read_dir(self.scratch.path().join("config.d"));
        let mut files: Vec<(String, String)> = entries
            .into_iter()
            .flatten()
            .map(|entry| {
                let entry = entry.expect("an entry");
                let text = std::fs::read_to_string(entry.path()).expect("read a drop-in");
                (entry.file_name().to_string_lossy().into_owned(), text)
            })
            .collect();
        files.sort();
        files
    }
}

/// The command that a message suggests. The words in it may have backticks, too.
fn command(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("`oci-hotplug ")?;
    let start = message.len() - rest.len() - "oci-hotplug ".len();
    let end = message.rfind('`')?;
    Some(&message[start..end])
}

/// Pastes a command into a shell that finds the tool.
fn paste(command: &str) -> Output {
    let tool = std::path::Path::new(env!("CARGO_BIN_EXE_oci-hotplug"));
    let dir = tool.parent().expect("the tool is in a directory").display();
    let path = std::env::var("PATH").unwrap_or_default();
    Command::new("sh")
        .args(["-c", command])
        .env("PATH", format!("{dir}:{path}"))
        .output()
        .expect("start a shell")
}

/// A device of the kernel's that is on no USB.
fn disk() -> Device {
    let mut disk = Device::new(SysPath::new("/sys/devices/virtual/block/zram7"));
    disk.subsystem = Some("block".into());
    disk.udev_state = UdevState::Processed;
    disk.node = Some(DevNode {
        path: "/dev/zram7".into(),
        num: DevNum {
            kind: DevKind::Block,
            major: 252,
            minor: 7,
        },
    });
    disk
}

/// Why an annotation with this request is refused: before any device is looked at, else for the
/// disk if it selects that.
fn denial(policy: &Policy, request: &str, classes: &Classes, selects_disk: bool) -> Option<Denial> {
    let asks = read_list(Origin::Annotation, request, classes).expect("a request");
    let inventory = Inventory::new([disk()]);
    let (traits, host_use) = (ContainerTraits::default(), HostUse::default());
    let context = PolicyContext {
        traits: &traits,
        inventory: &inventory,
        host_use: &host_use,
    };
    asks.entries.iter().find_map(|asked| {
        if let Err(denial) = policy.authorise(&traits, asked) {
            return Some(denial);
        }
        match policy.judge(asked, &disk(), &context) {
            Verdict::Denied(denial) if selects_disk => Some(denial),
            _ => None,
        }
    })
}

/// Case newcomer: the suggested fix breaks everything.
#[test]
fn the_hint_of_every_refusal_works_when_it_is_pasted() {
    let classes_only = "[policy]\nclasses-only = true\n";
    let nothing = "[policy]\ndefault = \"nothing\"\n";
    let partly = "[[policy.allow]]\ndevices = [\"subsystem:block\"]\naccess = \"r\"\n";
    let mut cases: Vec<(&str, String)> = Vec::new();
    let requests: [(&str, &str); 13] = [
        ("", "subsystem:block"),
        ("", "subsystem:block;access=rw"),
        ("", "parent-of:subsystem:block;link=/dev/it's"),
        ("", "usbip:lab:3241/0403:6001:FT001"),
        ("", r"devnode:/dev/zram7"),
        (nothing, "usb:0627:0001"),
        (nothing, r"usb:0627:0001:A\,B $HOME `id`;access=r"),
        (nothing, r#"devnode:/dev/it's "here" \\ \;rm -r /x"#),
        (nothing, "subsystem:tty&!driver:ftdi_sio"),
        (nothing, "parent-of:usb:0627:0001"),
        (classes_only, "usb:0627:0001;mode=0666;access=r"),
        (classes_only, "regex:/dev/(tty|é).*"),
        (partly, "subsystem:block;access=rw"),
    ];
    cases.extend(requests.map(|(config, request)| (config, request.to_owned())));
    // Each line of what is protected, by a node that it is known by.
    for node in [
        "mem",
        "kmsg",
        "tty1",
        "input/mice",
        "kvm",
        "vfio/vfio",
        "loop-control",
        "fuse",
        "uinput",
        "rtc0",
        "watchdog",
        "tpm0",
        "usbmon1",
    ] {
        cases.push(("", format!("devnode:/dev/{node}")));
    }
    for (config, request) in cases {
        let configured = Configured::new(config);
        let selects_disk = request.contains("subsystem:block") || request.contains("/dev/zram7");
        let refused = denial(&configured.policy(), &request, &Classes::default(), selects_disk);
        let refused = refused.unwrap_or_else(|| panic!("{request} is not refused"));
        let message = refused.to_string();
        let mut request = request;
        if let Some(command) = command(&message) {
            let output = paste(command);
            assert!(output.status.success(), "{command}: {}", err(&output));
            assert_eq!(configured.drop_ins().len(), 1, "{command}");
            if let Some((_, class)) = message.rsplit_once("and request ") {
                request = class.to_owned();
            }
        } else {
            let (_, option) = message.rsplit_once("request ").expect("a hint");
            request = format!("{}{option}", request.split(';').next().unwrap_or_default());
        }
        let config = configured.load();
        let classes = config.classes().expect("the classes can be used");
        let still = denial(&configured.policy(), &request, &classes, selects_disk);
        assert_eq!(still, None, "{message}");
    }
}

/// Case newcomer: the suggested fix breaks everything.
#[test]
fn allow_writes_one_valid_file_and_the_same_rule_twice_changes_nothing() {
    let configured = Configured::new("[[policy.allow]]\ndevices = [\"usb:1050\"]\n");
    let rehearsed = configured.tool(&["allow", "usb:0627:0001", "--dry-run"]);
    assert!(
        out(&rehearsed).contains("[[policy.allow]]\ndevices = [\"usb:0627:0001\"]\n"),
        "{rehearsed:?}"
    );
    assert_eq!(configured.drop_ins(), []);
    let rule = [
        "allow",
        "usb:0627:0001",
        "/dev/ttyUSB0",
        "--access",
        "rw",
        "--reason",
        "the \"lab's\"\nboard",
    ];
    let output = configured.tool(&rule);
    assert!(output.status.success(), "{}", err(&output));
    let files = configured.drop_ins();
    let [(name, text)] = &files[..] else {
        panic!("{files:?}")
    };
    assert!(
        name.starts_with("allow-devnode-dev-ttyUSB0-usb-0627-0001-"),
        "{name}"
    );
    assert!(
        text.ends_with(
            "[[policy.allow]]\ndevices = [\"usb:0627:0001\", \"devnode:/dev/ttyUSB0\"]\naccess = \"rw\"\n\
             reason = \"the \\\"lab's\\\"\\u000Aboard\"\n"
        ),
        "{text}"
    );
    let mode = std::fs::metadata(configured.scratch.path().join("config.d").join(name)).expect("the file");
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777,
        0o644
    );
    // A rule for this, or for more of it, is there already.
    for words in [
        &rule[..],
        &["allow", "usb:0627:0001", "--access", "r"],
        &["allow", "usb:1050"],
    ] {
        let said = out(&configured.tool(words));
        assert!(said.ends_with("unchanged, a rule already allows it\n"), "{said}");
    }
    assert_eq!(configured.drop_ins(), files);
    let listed = out(&configured.tool(&["allow", "--list"]));
    assert!(
        listed.contains("usb:0627:0001 devnode:/dev/ttyUSB0  rw"),
        "{listed}"
    );
    let (_, remove) = text.split_once("To remove it: ").expect("how to remove it");
    let words = remove
        .lines()
        .next()
        .expect("a line")
        .replacen("oci-hotplug", "", 1);
    let state = configured.state_dir();
    let config = configured.path();
    let command = format!(
        "oci-hotplug --config '{}' --state-dir '{}' {words}",
        config.display(),
        state.display()
    );
    let removed = paste(&command);
    assert!(removed.status.success(), "{}", err(&removed));
    assert_eq!(configured.drop_ins(), []);
    let nothing = configured.tool(&["allow", "--remove", "usb:0627:0001"]);
    assert_eq!(nothing.status.code(), Some(1), "{nothing:?}");
}

#[test]
fn allow_writes_nothing_that_would_break_the_configuration_or_have_no_effect() {
    for (config, words, code, said) in [
        ("", ["allow", "usb:12345"], 2, "vendor id must be 4 hex digits"),
        (
            "",
            ["allow", "usb:0403;access=rw"],
            2,
            "a rule has no options, only --access",
        ),
        (
            "",
            ["allow", "parent-of:usb:0403"],
            1,
            "rules do not support parent-of:",
        ),
        (
            "",
            ["allow", "devnode:/dev/mem"],
            1,
            "class add devnode-dev-mem 'devnode:/dev/mem'",
        ),
        (
            "[policy]\nclasses-only = true\n",
            ["allow", "usb:0403"],
            1,
            "class add usb-0403 'usb:0403'",
        ),
        ("\nx = 1\n", ["allow", "usb:0403"], 1, "config.toml"),
    ] {
        let configured = Configured::new(config);
        let output = configured.tool(&words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
        assert!(
            err(&output).contains(said),
            "{said:?} is not in: {}",
            err(&output)
        );
        assert_eq!(configured.drop_ins(), [], "{words:?}");
    }
}

#[test]
fn a_class_is_defined_listed_and_removed_and_one_of_another_file_stays() {
    let configured = Configured::new("[class.lab]\ndevices = [\"usb:0403\"]\n");
    let add = [
        "class",
        "add",
        "pro.bes",
        "usb:1366;access=rw",
        "/dev/ttyACM0",
        "--symlink",
        "usb:1366:0101:0=/dev/probe",
    ];
    assert!(out(&configured.tool(&add)).starts_with("class pro.bes: written "));
    assert!(out(&configured.tool(&add)).starts_with("class pro.bes: unchanged "));
    assert_eq!(
        out(&configured.tool(&["class", "list"])),
        "CLASS    REQUESTS\nlab      usb:0403\npro.bes  usb:1366;access=rw, devnode:/dev/ttyACM0\n"
    );
    let taken = configured.tool(&["class", "add", "lab", "usb:0404"]);
    assert_eq!(
        err(&taken),
        "oci-hotplug: cannot define class lab: the configuration already defines it as usb:0403 (choose another name, or change it there)\n"
    );
    assert!(out(&configured.tool(&["class", "add", "lab", "usb:0403"])).starts_with("class lab: unchanged"));
    for (words, code) in [
        (["class", "add", "-x", "usb:0403"], 2),
        (["class", "add", "x", "usb:12345"], 2),
    ] {
        assert_eq!(configured.tool(&words).status.code(), Some(code), "{words:?}");
    }
    assert_eq!(
        configured.tool(&["class", "remove", "lab"]).status.code(),
        Some(1)
    );
    assert!(configured.tool(&["class", "remove", "pro.bes"]).status.success());
    assert_eq!(configured.drop_ins(), []);
}

#[test]
fn with_no_container_there_is_nothing_to_reload() {
    let output = tool(&["reload"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(out(&output), "No container has a watcher: nothing to reload.\n");
    assert_eq!(
        json(&tool(&["reload", "--json"]))["containers"],
        serde_json::json!([])
    );
}

/// Case newcomer: one broken drop-in.
#[test]
fn with_a_broken_configuration_containers_are_shown_and_nothing_is_allowed() {
    let configured = Configured::new("");
    let drop_in = configured.scratch.path().join("config.d/bad.toml");
    std::fs::create_dir(configured.scratch.path().join("config.d")).expect("config.d");
    for (path, text) in [
        (drop_in.clone(), "[[policy.allow]] devices = []"),
        (configured.path(), "\nrubbish"),
    ] {
        std::fs::write(&path, text).expect("spoil a file");
        record(&configured.state_dir(), "alpha", 1);
        for words in [
            &["list"][..],
            &["inspect", "alpha"],
            &["events"],
            &["metrics"],
            &["reload"],
        ] {
            let output = configured.tool(words);
            assert_eq!(output.status.code(), Some(0), "{words:?}: {}", err(&output));
            let warning = err(&output);
            assert!(
                warning.starts_with("oci-hotplug: warning: reading the configuration ")
                    && warning.contains(path.to_str().expect("text"))
                    && warning.lines().count() == 1,
                "{words:?}: {warning}"
            );
        }
        assert!(out(&configured.tool(&["list"])).contains("alpha"));
        let check = configured.tool(&["check"]);
        assert!(
            out(&check)
                .lines()
                .any(|line| line.starts_with("fail") && line.contains(path.to_str().expect("text"))),
            "{check:?}"
        );
        let allow = configured.tool(&["allow", "usb:0403"]);
        assert_eq!(allow.status.code(), Some(1), "{allow:?}");
        assert!(err(&allow).contains(path.to_str().expect("text")), "{allow:?}");
        let files = configured.drop_ins();
        assert!(files.iter().all(|(name, _)| name == "bad.toml"), "{files:?}");
        let _ = std::fs::remove_file(&drop_in);
    }
    // Where the state is depends on the file that cannot be read.
    std::fs::write(configured.path(), "state-dir = /x").expect("spoil a file");
    let output = Command::new(env!("CARGO_BIN_EXE_oci-hotplug"))
        .env_remove("OCI_HOTPLUG_STATE_DIR")
        .args(["list", "--config"])
        .arg(configured.path())
        .output()
        .expect("start oci-hotplug");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        err(&output).contains("--state-dir names the state directory"),
        "{output:?}"
    );
}

/// Foreign text that forges a line of a log and of a table, moves the cursor, and turns the
/// direction of writing.
const HOSTILE: &str =
    "x\n2026-11-21T14:13:38.939211Z oci-hotplug-watcher[1]  INFO forged\u{1b}[2J\r\u{9b}\u{202e}\u{200b}";

/// Answers every question of the tool as the watcher of a container whose files have hostile names.
fn hostile_watcher(dir: &std::path::Path) {
    watcher(dir, HOSTILE);
}

/// The same, of a container whose files have this in their names.
fn watcher(dir: &std::path::Path, name: &str) {
    use std::io::{BufRead, BufReader, Write};
    let mut node = Attachment {
        device: Device::new(SysPath::new("/sys/devices/virtual/mem/null")),
        access: Access::READ,
        node: NodeSpec {
            num: DevNum {
                kind: DevKind::Char,
                major: 1,
                minor: 3,
            },
            mode: 0o600,
            uid: 0,
            gid: 0,
        },
        node_creator: NodeCreator::Watcher,
        links: Default::default(),
        announced: None,
        since: 0,
    };
    node.links
        .insert(format!("/dev/{name}-link").into(), NodeCreator::Watcher);
    let mut attached = Attachments::default();
    attached.insert(format!("/dev/{name}").into(), node);
    let request = "devnode:/dev/null".parse().expect("a request");
    let mut asked = RequestEntry::new(Origin::Annotation, request);
    asked.cdi = Some(name.into());
    asked
        .roots
        .extend([SysPath::new("/sys/devices/virtual/mem/null")]);
    let status = Status {
        watcher: std::process::id() as i32,
        container: ContainerFacts {
            id: "alpha".into(),
            pid: 1,
            start_time: 1,
            bundle: format!("/b/{name}").into(),
            rootfs: "/b/rootfs".into(),
            cgroups_path: None,
            user: Default::default(),
        },
        requests: vec![asked],
        attached,
        problems: vec![Problem {
            path: format!("/dev/{name}-problem").into(),
            device: None,
            waiting: false,
            reason: name.into(),
        }],
        counters: Default::default(),
    };
    let answer = serde_json::to_string(&ControlResponse::Status(Box::new(status))).expect("JSON");
    let listener = std::os::unix::net::UnixListener::bind(dir.join("control.sock")).expect("a socket");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut question = String::new();
            let _ = BufReader::new(&stream).read_line(&mut question);
            let _ = stream.write_all(format!("{answer}\n").as_bytes());
        }
    });
}

/// Case security 5.
#[test]
fn foreign_text_forges_no_line_and_moves_no_cursor_whatever_verb_shows_it() {
    let configured = Configured::new("");
    let dir = record(&configured.state_dir(), "alpha", 1);
    let path = dir.join("record.json");
    let text = std::fs::read_to_string(&path).expect("the record");
    let hostile = serde_json::to_string(HOSTILE).expect("JSON");
    std::fs::write(&path, text.replace("\"/b\"", &hostile)).expect("write the record");
    hostile_watcher(&dir);
    let event = format!(
        "2026-11-21T14:13:38.939211Z oci-hotplug-watcher[77]  WARN {} container=\"alpha\" event=\"refused\" device=\"\" node={HOSTILE:?}\n",
        HOSTILE.replace('\n', " ")
    );
    std::fs::write(configured.state_dir().join("oci-hotplug.log"), event).expect("write the log");
    let cdi = configured.scratch.path().join("cdi");
    std::fs::create_dir(&cdi).expect("a directory for CDI specs");
    let spec = format!(
        r#"{{"cdiVersion":"0.6.0","kind":"v.com/c","devices":[{{"name":"d","containerEdits":{{"env":[{}]}}}}]}}"#,
        serde_json::to_string(&format!("A={HOSTILE}")).expect("JSON")
    );
    std::fs::write(cdi.join("v.json"), spec).expect("write a CDI spec");
    let cdi = cdi.to_str().expect("scratch paths are text").to_owned();
    let hostile_word = format!("devnode:/dev/{HOSTILE}");
    for (words, exact) in [
        (vec!["list"], true),
        (vec!["inspect", "alpha"], true),
        (vec!["explain", "alpha", "/dev/null"], true),
        (vec!["tree", "--all"], true),
        (vec!["events"], true),
        (vec!["metrics"], false),
        (vec!["reload"], false),
        (vec!["recover"], false),
        (vec!["detach", "alpha", "usb:0403"], false),
        (vec!["match", &hostile_word], false),
        (vec!["attach", "alpha", &hostile_word], false),
        (vec!["inspect", HOSTILE], false),
        (vec!["cdi", "resolve", "v.com/c=d", "--cdi-dir", &cdi], false),
        (vec!["cdi", "list", "--cdi-dir", &cdi], false),
        (vec!["cdi", "validate", "--cdi-dir", &cdi], false),
        (vec!["allow", &hostile_word, "--dry-run"], false),
        (vec!["class", "add", HOSTILE, "usb:0403"], false),
    ] {
        let output = configured.tool(&words);
        let said = format!("{}{}", out(&output), err(&output));
        assert!(!said.is_empty(), "{words:?}");
        let moves =
            |letter: char| letter != '\n' && (letter.is_control() || "\u{202e}\u{200b}".contains(letter));
        assert!(!said.contains(moves), "{words:?}: {said:?}");
        assert!(
            !said.lines().any(|line| line.starts_with("2026-11-21T14:13:38.9")),
            "{words:?}: {said}"
        );
        if exact {
            let json: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
            let exact = out(&configured.tool(&json));
            let values = serde_json::Deserializer::from_str(&exact).into_iter::<serde_json::Value>();
            let texts: String = values.map(|value| all_texts(&value.expect("JSON"))).collect();
            let whole = texts.contains(HOSTILE) || texts.contains(&HOSTILE.replace('\n', " "));
            assert!(whole, "{words:?}: {exact}");
        }
    }
}

/// All texts in a JSON value.
fn all_texts(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => format!("{text} "),
        serde_json::Value::Array(values) => values.iter().map(all_texts).collect(),
        serde_json::Value::Object(fields) => fields.values().map(all_texts).collect(),
        _ => String::new(),
    }
}

/// Case README 27. Every network namespace has this interface.
#[test]
fn a_device_without_a_node_is_told_by_match_with_what_to_do() {
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
