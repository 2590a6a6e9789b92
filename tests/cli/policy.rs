//! allow, class and reload: what they write, and that suggested commands work.

use std::process::{Command, Output};

use oci_hotplug::model::device::inventory::Inventory;
use oci_hotplug::model::device::{DevKind, DevNode, DevNum, Device, SysPath, UdevState};
use oci_hotplug::model::policy::{ContainerTraits, Denial, HostUse, Policy, PolicyContext, Verdict};
use oci_hotplug::model::request::annotations::read_list;
use oci_hotplug::model::request::class::Classes;
use oci_hotplug::model::request::entry::Origin;

use super::scene::{Configured, err, json, out, record, tool};

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
        let hint = message.strip_suffix(')').expect("a hint in parentheses");
        let mut request = request;
        if let Some(command) = command(&message) {
            let output = paste(command);
            assert!(output.status.success(), "{command}: {}", err(&output));
            assert_eq!(configured.drop_ins().len(), 1, "{command}");
            if let Some((_, class)) = hint.rsplit_once("and request ") {
                request = class.to_owned();
            }
        } else {
            let (_, option) = hint.rsplit_once("request ").expect("a hint");
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

/// Two rules for one selector, with different access, are two files.
#[test]
fn allow_remove_prints_one_document_for_all_files_of_a_selector() {
    let configured = Configured::new("");
    for access in ["r", "rw"] {
        let added = configured.tool(&["allow", "usb:1050", "--access", access]);
        assert!(added.status.success(), "{}", err(&added));
    }
    let removed = configured.tool(&["allow", "--remove", "usb:1050", "--json"]);
    let document = json(&removed);
    let files = document["files"].as_array().expect("a list of files");
    let mut access: Vec<_> = files.iter().filter_map(|file| file["access"].as_str()).collect();
    access.sort_unstable();
    assert_eq!(access, ["r", "rw"], "{document}");
    assert_eq!(document["result"], "removed");
    assert_eq!(configured.drop_ins(), []);
}

#[test]
fn allow_remove_keeps_a_file_with_further_rules() {
    let configured = Configured::new("");
    let added = configured.tool(&["allow", "usb:1050", "--json"]);
    let file = json(&added)["file"].as_str().expect("a path").to_owned();
    let written = std::fs::read_to_string(&file).expect("the file");
    let changed = format!("{written}[[policy.allow]]\ndevices = [\"usb:0403\"]\n");
    std::fs::write(&file, &changed).expect("add a rule");
    let refused = configured.tool(&["allow", "--remove", "usb:1050"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        err(&refused).contains("has further rules (remove it there)"),
        "{}",
        err(&refused)
    );
    assert_eq!(std::fs::read_to_string(&file).expect("the file"), changed);
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
                warning.starts_with("oci-hotplug: warning: cannot read the configuration ")
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
