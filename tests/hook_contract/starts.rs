//! Which containers start, and what is reported of those that do not.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use super::{CREATE_STATES, OPERATOR, PRESTART, Scene, finish, words};

#[test]
fn a_container_without_requests_starts_with_every_state_of_a_runtime() {
    for name in CREATE_STATES {
        let scene = Scene::new(r#"{"org.example.a":"b"}"#);
        let output = scene.run(PRESTART, &[], &scene.state(name));
        assert_eq!(output.status.code(), Some(0), "{name}: {}", words(&output));
        assert_eq!((output.stdout.len(), output.stderr.len()), (0, 0), "{name}");
        assert!(!scene.state_dir().exists(), "{name}");
    }
}

/// Case README 21: also a rootless engine starts it, where the configuration belongs to nobody it
/// knows.
#[test]
fn a_broken_configuration_does_not_keep_a_container_from_starting_that_requests_nothing() {
    let scene = Scene::new(r#"{"org.example.a":"b"}"#);
    fs::write(scene.path("config.toml"), "prestart-timeout = \"soon\"\n").expect("spoil the configuration");
    for name in CREATE_STATES {
        let output = scene.run(PRESTART, &[], &scene.state(name));
        assert_eq!(output.status.code(), Some(0), "{name}: {}", words(&output));
        assert!(!scene.state_dir().exists(), "{name}");
    }
}

/// crun 1.21 says so for a container with a user namespace and an engine's device
/// (tests/vm/podman.rs).
/// Case README 19.
#[test]
fn the_hook_accepts_every_config_json_that_runc_starts() {
    for rest in [
        r#""process":{"user":null}"#,
        r#""linux":{"resources":{"devices":[{"access":"rwm"}]},"namespaces":null,"cgroupsPath":null}"#,
        r#""process":{"user":{"uid":null}},"PROCESS":{"user":{"gid":1}},"hooks":{"x":1e400}"#,
    ] {
        let scene = Scene::new("{}");
        let config = format!(r#"{{"root":{{"path":"rootfs"}},"annotations":null,{rest}}}"#);
        fs::write(scene.bundle().join("config.json"), config).expect("a config.json");
        let output = scene.run(PRESTART, &[], &scene.state("docker-create-runtime.json"));
        assert_eq!(output.status.code(), Some(0), "{rest}: {}", words(&output));
    }
}

#[test]
fn the_bundle_is_read_from_the_runtimes_command_line_if_the_state_has_the_root() {
    let scene = Scene::new(r#"{"io.oci-hotplug.devices":"usb:nonsense"}"#);
    let state = r#"{"ociVersion":"1.0","id":"c1","pid":2147483646,"bundle":"/","status":"created"}"#;
    let hook = scene.command(PRESTART, &[]);
    let as_runtime = |id: &str| {
        let mut words: Vec<_> = hook.get_args().map(|word| word.to_str().expect("text")).collect();
        words.insert(0, PRESTART);
        let mut runtime = Command::new("/bin/sh");
        runtime
            .env_clear()
            // It stays the hook's parent.
            .args([
                "-c",
                &format!("'{}'; exit $?", words.join("' '")),
                "create",
                "--bundle",
            ])
            .arg(scene.bundle())
            .arg(id);
        finish(runtime, state)
    };
    let output = as_runtime("c1");
    assert_eq!(output.status.code(), Some(2), "{}", words(&output));
    assert!(words(&output).contains("usb:nonsense"), "{}", words(&output));
    let output = as_runtime("c2");
    assert_eq!(output.status.code(), Some(1), "{}", words(&output));
    assert!(
        words(&output).contains("cannot read /config.json"),
        "{}",
        words(&output)
    );
}

#[test]
fn an_annotation_that_only_the_bundle_has_is_read_with_every_runtimes_state() {
    for name in CREATE_STATES {
        let scene = Scene::new(r#"{"io.oci-hotplug.devices":"usb:12345:6001"}"#);
        let output = scene.run(PRESTART, &[], &scene.state(name));
        assert_eq!(output.status.code(), Some(2), "{name}: {}", words(&output));
    }
}

#[test]
fn a_malformed_request_is_reported_with_annotation_value_fault_and_hint() {
    let scene = Scene::new(r#"{"io.oci-hotplug.devices":"usb:12345:6001"}"#);
    let output = scene.run(PRESTART, &[], &scene.state("docker-create-runtime.json"));
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        words(&output),
        "oci-hotplug-prestart: container c1: device request \"usb:12345:6001\": vendor id must be 4 hex digits, such \
         as 0403 (annotation io.oci-hotplug.devices)\n"
    );
    assert!(scene.has_no_trace());
    // The same in the log, because crun sends a hook's standard error to nowhere.
    let log = scene.state_dir().join("oci-hotplug.log");
    if Path::new("/run/systemd/journal/socket").exists() {
        // The record is in the journal of this host (tests/privileged/events.rs reads one).
        assert!(!log.exists(), "there are two logs");
    } else {
        let log = fs::read_to_string(log).expect("a log");
        assert!(log.contains("usb:12345:6001"), "{log}");
    }
}

/// Case newcomer: typos in keys.
#[test]
fn a_typo_in_an_annotations_key_refuses_the_container_with_the_right_key() {
    let scene = Scene::new(r#"{"io.oci-hotplug.device":"usb:0403:6001"}"#);
    for name in CREATE_STATES {
        let output = scene.run(PRESTART, &[], &scene.state(name));
        assert_eq!(output.status.code(), Some(2), "{name}: {}", words(&output));
        assert!(
            words(&output).contains("did you mean io.oci-hotplug.devices?"),
            "{name}: {}",
            words(&output)
        );
        assert!(scene.has_no_trace(), "{name}");
    }
}

#[test]
fn malformed_arguments_and_container_hotplugs_annotations_are_reported() {
    let scene = Scene::new("{}");
    let state = scene.state("runc-create-runtime.json");
    let output = scene.run(PRESTART, &["--device", "ubs:0403"], &state);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        words(&output).contains("(argument --device of the hook)"),
        "{}",
        words(&output)
    );
    let output = scene.run(PRESTART, &["--symlink", "usb:0403=/dev/x"], &state);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        words(&output).contains("(argument --symlink of the hook)"),
        "{}",
        words(&output)
    );
    let scene = Scene::new(r#"{"org.lowrisc.hotplug.devices":"usb:0403, usb:1050"}"#);
    let output = scene.run(PRESTART, &[], &scene.state("runc-create-runtime.json"));
    assert_eq!(output.status.code(), Some(2));
    assert!(
        words(&output).contains("(annotation org.lowrisc.hotplug.devices)"),
        "{}",
        words(&output)
    );
}

#[test]
fn an_incomplete_state_is_refused_and_leaves_nothing() {
    let scene = Scene::new(r#"{"io.oci-hotplug.devices":"usb:0403"}"#);
    for (state, part) in [
        (String::new(), "standard input"),
        ("[]".into(), "standard input"),
        ("{}".into(), "`id` is not a string"),
        (
            r#"{"id":"../../etc","pid":1}"#.into(),
            "container id \"../../etc\"",
        ),
        (scene.state("runc-poststop.json"), "has no pid"),
        (
            scene.state("runc-create-runtime.json"),
            "process 2147483646 does not exist any more",
        ),
    ] {
        let output = scene.run(PRESTART, &[], &state);
        assert_eq!(output.status.code(), Some(1), "{state}: {}", words(&output));
        assert!(words(&output).contains(part), "{state}: {}", words(&output));
        assert!(scene.has_no_trace(), "{state}");
    }
}

#[test]
fn a_bundle_that_cannot_be_read_is_reported() {
    let scene = Scene::new("{}");
    let state = scene.state("runc-create-runtime.json");
    fs::write(scene.bundle().join("config.json"), "{").expect("spoil the config.json");
    let output = scene.run(PRESTART, &["--device", "usb:0403"], &state);
    assert_eq!(output.status.code(), Some(1));
    assert!(words(&output).contains("config.json"), "{}", words(&output));
    fs::remove_file(scene.bundle().join("config.json")).expect("remove the config.json");
    let output = scene.run(PRESTART, &["--device", "usb:0403"], &state);
    assert!(
        words(&output).contains("config.json: No such file"),
        "{}",
        words(&output)
    );
}

#[test]
fn an_unusable_configuration_refuses_containers_with_requests() {
    let scene = Scene::new("{}");
    fs::write(scene.path("config.toml"), "prestart-timeout = \"soon\"\n").expect("spoil the configuration");
    let output = scene.run(
        PRESTART,
        &["--device", "usb:0403"],
        &scene.state("runc-create-runtime.json"),
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(
        words(&output).contains("config.toml") && words(&output).contains("line 1"),
        "{}",
        words(&output)
    );
    // A container that requests nothing is none of its business.
    let output = scene.run(PRESTART, &[], &scene.state("runc-create-runtime.json"));
    assert_eq!((output.status.code(), words(&output)), (Some(0), String::new()));
}

/// Case newcomer: one broken drop-in.
#[test]
fn a_broken_drop_in_refuses_untrusted_requests_with_file_line_and_fix() {
    let scene = Scene::new(r#"{"io.oci-hotplug.devices":"usb:0403"}"#);
    fs::create_dir(scene.path("config.d")).expect("config.d");
    let drop_in = scene.path("config.d").join("allow.toml");
    fs::write(&drop_in, "# pasted\n[[policy.allow]] devices = [\"usb:0627\"]\n").expect("a drop-in");
    let state = scene.state("runc-create-runtime.json");
    let output = scene.run(PRESTART, &[], &state);
    assert_eq!(output.status.code(), Some(3));
    let said = words(&output);
    let expected = format!(
        "device request \"usb:0403\": denied by the policy (unknown rules): cannot read the configuration {}: line 2, column 18: ",
        drop_in.display()
    );
    assert!(said.contains(&expected), "{said}");
    assert!(
        said.trim_end()
            .ends_with(" (fix or remove that file (`oci-hotplug check` tests it))"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
    // What root requests goes on, until the container's process turns out to be gone.
    let scene = Scene::new("{}");
    fs::create_dir(scene.path("config.d")).expect("config.d");
    fs::write(scene.path("config.d/allow.toml"), "rubbish").expect("a drop-in");
    let output = scene.run(
        PRESTART,
        &["--device", "usb:0403"],
        &scene.state("runc-create-runtime.json"),
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(!words(&output).contains("allow.toml"), "{}", words(&output));
}

/// Case README 21.
#[test]
fn a_hook_without_privileges_in_a_user_namespace_reports_it() {
    let scene = Scene::new(r#"{"io.oci-hotplug.devices":"usb:0403:6001"}"#);
    let state = scene.state("crun-create-runtime.json");
    let mut hook = scene.command(PRESTART, &[]);
    if nix::unistd::geteuid().is_root() {
        use std::os::unix::fs::PermissionsExt;
        use std::os::unix::process::CommandExt;
        let everyone = fs::Permissions::from_mode(0o755);
        fs::set_permissions(scene.scratch.path(), everyone).expect("let others read the scene");
        hook.uid(65534).gid(65534);
    }
    let output = finish(hook, &state);
    assert_eq!(output.status.code(), Some(1), "{}", words(&output));
    for part in [
        "belongs to user 65534 and is not root of a user namespace",
        "use a rootless engine",
    ] {
        assert!(words(&output).contains(part), "{}", words(&output));
    }
}

/// What the operator's tool says of a scene.
fn tool(scene: &Scene, arguments: &[&str]) -> Output {
    let output = scene.command(OPERATOR, arguments).output();
    output.expect("run oci-hotplug")
}

/// Case newcomer: podman with crun shows only the exit code.
#[test]
fn a_refused_start_is_shown_by_list_and_explain_with_the_engines_name_and_the_reason() {
    let scene = Scene::new(
        r#"{"io.oci-hotplug.devices":"usb:04:6001","io.kubernetes.cri.sandbox-namespace":"lab","io.kubernetes.cri.sandbox-name":"pod","io.kubernetes.cri.container-name":"app"}"#,
    );
    let output = scene.run(PRESTART, &[], &scene.state("docker-create-runtime.json"));
    assert_eq!(output.status.code(), Some(2), "{}", words(&output));
    let list = tool(&scene, &["list"]);
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    let line = list
        .lines()
        .find(|line| line.contains("Container lab/pod/app was not started, "));
    let line = line.unwrap_or_else(|| panic!("{list}"));
    assert!(line.contains("vendor id must be 4 hex digits"), "{line}");
    let explained = tool(&scene, &["explain", "lab/pod/app", "/dev/null"]);
    assert_eq!(explained.status.code(), Some(1));
    assert!(
        words(&explained).contains("container lab/pod/app was not started, "),
        "{}",
        words(&explained)
    );
    // However often it is started.
    for _ in 0..3 {
        scene.run(PRESTART, &[], &scene.state("docker-create-runtime.json"));
    }
    let list = tool(&scene, &["list"]);
    let text = String::from_utf8_lossy(&list.stdout).into_owned();
    assert_eq!(text.matches("was not started").count(), 1, "{text}");
    // A container with the same name starts: the refused one does not matter any more.
    let annotations = r#"{"io.kubernetes.cri.sandbox-namespace":"lab","io.kubernetes.cri.sandbox-name":"pod","io.kubernetes.cri.container-name":"app"}"#;
    let namesake = Scene::new(annotations);
    let output = scene.run(
        PRESTART,
        &[],
        &namesake.state("crun-create-runtime.json").replace("c1", "c2"),
    );
    assert_eq!(output.status.code(), Some(0), "{}", words(&output));
    let list = tool(&scene, &["list"]);
    let text = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(!text.contains("was not started"), "{text}");
}
