//! The two hooks as a runtime meets them: state on standard input, exit code, message, and no trace
//! where nothing was asked; and the watcher as systemd meets it. No privilege is needed: nothing
//! here comes as far as a container.

#[path = "support/record.rs"]
mod record;

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use fs2::FileExt;

use record::write_record;

const PRESTART: &str = env!("CARGO_BIN_EXE_oci-hotplug-prestart");
const POSTSTOP: &str = env!("CARGO_BIN_EXE_oci-hotplug-poststop");
const WATCHER: &str = env!("CARGO_BIN_EXE_oci-hotplug-watcher");
const OPERATOR: &str = env!("CARGO_BIN_EXE_oci-hotplug");

/// A bundle and a state directory that does not exist yet.
struct Scene {
    scratch: tempfile::TempDir,
}

impl Scene {
    fn new(annotations: &str) -> Self {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let scene = Self { scratch };
        fs::create_dir_all(scene.bundle().join("rootfs")).expect("a bundle");
        let config = format!(
            r#"{{"ociVersion":"1.0.2","root":{{"path":"rootfs"}},"process":{{"cwd":"/","args":["sh"],"user":{{"uid":0,"gid":0}}}},"annotations":{annotations}}}"#
        );
        fs::write(scene.bundle().join("config.json"), config).expect("a config.json");
        fs::write(scene.path("config.toml"), "").expect("an empty configuration");
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn bundle(&self) -> PathBuf {
        self.path("bundle")
    }

    fn state_dir(&self) -> PathBuf {
        self.path("state")
    }

    /// A recorded state, with this bundle and a pid that no process has.
    fn state(&self, name: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/state")
            .join(name);
        fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
            .replace("@PID@", "2147483646")
            .replace("@BUNDLE@", &self.bundle().display().to_string())
    }

    fn command(&self, hook: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(hook);
        // As youki starts hooks: no environment at all.
        command.env_clear().current_dir(self.bundle()).args(arguments);
        command
            .arg("--state-dir")
            .arg(self.state_dir())
            .arg("--config")
            .arg(self.path("config.toml"));
        command
    }

    fn run(&self, hook: &str, arguments: &[&str], state: &str) -> Output {
        finish(self.command(hook, arguments), state)
    }

    /// As [`Scene::run`], where a shell carries out `setup` before it becomes the hook.
    fn run_after(&self, setup: &str, hook: &str, state: &str) -> Output {
        let hook = self.command(hook, &[]);
        let mut command = Command::new("/bin/sh");
        command
            .env_clear()
            .args(["-c", &format!("set -e\n{setup}\nexec \"$0\" \"$@\"")])
            .arg(hook.get_program())
            .args(hook.get_args());
        finish(command, state)
    }

    /// No container has left anything. (The log of a host without journal may be there.)
    fn has_no_trace(&self) -> bool {
        !self.state_dir().join("containers").exists()
            || fs::read_dir(self.state_dir().join("containers"))
                .expect("list")
                .next()
                .is_none()
    }
}

/// Starts a hook with `state` on its standard input, and waits for it.
fn finish(mut hook: Command, state: &str) -> Output {
    let mut child = hook
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start the hook");
    // It may refuse before it has read all.
    let _ = child
        .stdin
        .take()
        .expect("its standard input")
        .write_all(state.as_bytes());
    child.wait_with_output().expect("wait for the hook")
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const CREATE_STATES: [&str; 5] = [
    "runc-create-runtime.json",
    "crun-create-runtime.json",
    "docker-create-runtime.json",
    "youki-create-runtime.json",
    "youki-0.5-create-runtime.json",
];

const STOP_STATES: [&str; 5] = [
    "runc-poststop.json",
    "crun-poststop.json",
    "docker-poststop.json",
    "youki-poststop.json",
    "podman-poststop.json",
];

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

#[test]
fn poststop_succeeds_with_every_input_and_leaves_nothing() {
    let scene = Scene::new(r#"{"io.oci-hotplug.devices":"usb:0403"}"#);
    for name in STOP_STATES {
        for _ in 0..2 {
            let output = scene.run(POSTSTOP, &[], &scene.state(name));
            assert_eq!(output.status.code(), Some(0), "{name}: {}", words(&output));
            assert_eq!(words(&output), "", "{name}");
            assert!(!scene.state_dir().exists(), "{name}");
        }
    }
    for rubbish in ["", "{", r#"{"id":"../x"}"#] {
        let output = scene.run(POSTSTOP, &[], rubbish);
        assert_eq!(output.status.code(), Some(0), "{rubbish:?}");
        assert!(
            words(&output).starts_with("oci-hotplug-poststop: "),
            "{rubbish:?}: {}",
            words(&output)
        );
    }
}

/// A refusal is short, without control characters, and takes no more than 64 MiB and two seconds of
/// a CPU, whatever is refused. (How long it takes by the clock is a matter of what else the machine
/// does.)
#[track_caller]
fn is_refused_in_bounds(scene: &Scene, state: &str, code: i32, part: &str) {
    let output = scene.run_after("ulimit -d 65536; ulimit -t 2", PRESTART, state);
    let words = words(&output);
    let start: String = words.chars().take(2000).collect();
    assert_eq!(output.status.code(), Some(code), "{start:?}");
    assert!(words.contains(part), "{start:?}");
    assert!(words.len() < 600, "{} bytes: {start:?}", words.len());
    assert!(!words.trim_end().contains(char::is_control), "{start:?}");
    assert!(scene.has_no_trace());
}

/// Texts with which somebody might want to get further than a request goes.
fn malicious() -> [String; 7] {
    [
        "../../../../etc/passwd".to_owned(),
        "a\u{1b}[2J\u{7}\nERROR all is lost".to_owned(),
        "\u{9b}31m\u{2028}\u{202e}".to_owned(),
        "a\0b".to_owned(),
        "x".repeat(1 << 20),
        "/".repeat(1 << 20),
        "a,".repeat(10_000),
    ]
}

/// Case security 3.
#[test]
fn costly_patterns_are_refused_quickly_and_in_little_memory() {
    // Each is another one: the same request counts once.
    let many = |request: &str, count: usize| {
        let requests: Vec<String> = (0..count).map(|index| format!("{request}{index}")).collect();
        requests.join(",")
    };
    let groups = format!("regex:({}){{0\\,8}}#", "()".repeat(110));
    for value in [
        many(r"regex:([^/]?){0\,900}#", 40),
        many(&groups, 40),
        format!("usb:0403{}", r";only=regex:a{0\,900}".repeat(2500)),
        format!("usb:0403{}", r"&regex:a{0\,900}".repeat(2500)),
        many(&format!("usb:0403{}", r";only=regex:a{0\,4000}".repeat(16)), 150),
        format!(
            "usb:0403{}",
            format!(";or=usb:0403{}", r"&regex:a{0\,4000}".repeat(31)).repeat(16)
        ),
        many("subsystem:tty&!tag:a&!tag:b&!tag:c&!tag:d", 256),
        many(&format!("glob:{}", "*0".repeat(120)), 100),
    ] {
        let annotations = serde_json::json!({ "io.oci-hotplug.devices": value }).to_string();
        let scene = Scene::new(&annotations);
        let state = scene.state("docker-create-runtime.json");
        is_refused_in_bounds(&scene, &state, 2, "(annotation io.oci-hotplug.devices)");
    }
}

#[test]
fn malicious_annotations_are_refused_quickly_with_short_messages_in_little_memory() {
    let mut values = vec![
        vec!["usb:0403:6001"; 10_000].join(","),
        vec!["usb:0403:6001;link=/dev/x"; 10_000].join(","),
        format!("regex:{}", "(a{200}){200}".repeat(200)),
        format!("glob:{}", "*".repeat(4000)),
        format!("{}usb:0403", "parent-of:".repeat(6000)),
    ];
    for text in malicious() {
        values.extend([
            text.clone(),
            format!("devnode:/dev/{text}/"),
            format!("usb:0403;path=/dev/{text}/"),
            format!("usb:0403;link=/{text}/"),
            format!("class:{text}"),
        ]);
    }
    for value in &values {
        let annotations = serde_json::json!({ "io.oci-hotplug.devices": value }).to_string();
        let scene = Scene::new(&annotations);
        let state = scene.state("docker-create-runtime.json");
        is_refused_in_bounds(&scene, &state, 2, "(annotation io.oci-hotplug.devices)");
    }
    for text in malicious() {
        let annotations =
            serde_json::json!({ "io.oci-hotplug.symlinks": format!("usb:0403:6001:0=/{text}/") }).to_string();
        let scene = Scene::new(&annotations);
        let state = scene.state("docker-create-runtime.json");
        is_refused_in_bounds(&scene, &state, 2, "(annotation io.oci-hotplug.symlinks)");
    }
}

#[test]
fn a_path_cannot_forge_a_line_of_the_log() {
    for value in [
        // A line break without the backslash begins the next request.
        "usb:0403;path=/dev/a\\\nERROR all is lost",
        "usb:0403;link=/run/a\u{1b}[2J",
        "devnode:/dev/a\rb",
        "driver:a\u{9b}31mb",
    ] {
        let scene = Scene::new(&serde_json::json!({ "io.oci-hotplug.devices": value }).to_string());
        let state = scene.state("docker-create-runtime.json");
        is_refused_in_bounds(&scene, &state, 2, "control characters");
    }
}

#[test]
fn malicious_ids_bundles_and_states_are_refused_quickly_with_short_messages_in_little_memory() {
    let scene = Scene::new(r#"{"io.oci-hotplug.devices":"usb:0403"}"#);
    let state =
        |id: &str, bundle: &str| serde_json::json!({ "id": id, "pid": 1, "bundle": bundle }).to_string();
    let bundle = scene.bundle().display().to_string();
    for text in malicious() {
        is_refused_in_bounds(&scene, &state(&text, &bundle), 1, "container id");
        is_refused_in_bounds(&scene, &state("c1", &format!("/nowhere/{text}")), 1, "c1");
        let config = serde_json::json!({ "root": { "path": format!("/nowhere/{text}") }, "annotations": { "io.oci-hotplug.devices": "usb:0403" } });
        fs::write(scene.bundle().join("config.json"), config.to_string()).expect("write a config.json");
        is_refused_in_bounds(
            &scene,
            &state("c1", &bundle).replace("\"pid\":1", "\"pid\":2147483646"),
            1,
            "c1",
        );
        let config = serde_json::json!({ "root": { "path": "rootfs" }, "annotations": text });
        fs::write(scene.bundle().join("config.json"), config.to_string()).expect("write a config.json");
        is_refused_in_bounds(&scene, &state("c1", &bundle), 1, "config.json");
        is_refused_in_bounds(&scene, &serde_json::json!(text).to_string(), 1, "standard input");
    }
    // Much in little: nesting, and as many small members as fit.
    let members = (0..300_000)
        .map(|number| format!("\"{number}\":0,"))
        .collect::<String>();
    is_refused_in_bounds(&scene, &"[".repeat(1 << 20), 1, "standard input");
    is_refused_in_bounds(&scene, &"{\"a\":".repeat(1 << 18), 1, "standard input");
    is_refused_in_bounds(
        &scene,
        &format!("{{{members}\"pid\":1}}"),
        1,
        "`id` is not a string",
    );
    is_refused_in_bounds(&scene, &" ".repeat(5 << 20), 1, "longer than");
}

#[test]
fn full_or_broken_standard_streams_do_not_change_the_exit_code() {
    let scene = Scene::new(r#"{"io.oci-hotplug.devices":"usb:nonsense"}"#);
    let state = scene.state("docker-create-runtime.json");
    let full = scene.path("full");
    nix::unistd::mkfifo(&full, nix::sys::stat::Mode::S_IRWXU).expect("make a pipe");
    let mut pipe = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(&full)
        .expect("open a pipe");
    while pipe.write(&[0; 4096]).is_ok() {}
    for outputs in [
        "exec >/dev/full 2>/dev/full".to_owned(),
        "exec >&- 2>&-".to_owned(),
        format!("exec >{0} 2>{0}", full.display()),
    ] {
        let begin = Instant::now();
        let output = scene.run_after(&outputs, PRESTART, &state);
        assert_eq!(output.status.code(), Some(2), "{outputs}: {output:?}");
        for rubbish in ["", "{\"id\":\"../x\"}"] {
            let output = scene.run_after(&outputs, POSTSTOP, rubbish);
            assert_eq!(output.status.code(), Some(0), "{outputs}: {output:?}");
        }
        // Engines kill a hook after 10 s (hooks.d), and these are three.
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "{outputs}: {:?}",
            begin.elapsed()
        );
    }
}

#[test]
fn hooks_and_watcher_work_with_closed_standard_streams() {
    // The shell closes what the runtime may have closed.
    let scene = Scene::new(r#"{"io.oci-hotplug.devices":"usb:nonsense"}"#);
    let state = scene.path("state.json");
    fs::write(&state, scene.state("docker-create-runtime.json")).expect("write the state");
    let script = format!(
        "exec <{state} >&- 2>&-; {PRESTART} --state-dir {dir} --config {config}; echo $? >{code}",
        state = state.display(),
        dir = scene.state_dir().display(),
        config = scene.path("config.toml").display(),
        code = scene.path("code").display(),
    );
    let status = Command::new("/bin/sh")
        .args(["-c", &script])
        .status()
        .expect("a shell");
    assert!(status.success());
    assert_eq!(
        fs::read_to_string(scene.path("code")).expect("the code").trim(),
        "2"
    );
}

#[test]
fn wrong_usage_exits_with_2_and_help_and_version_are_printed() {
    let scene = Scene::new("{}");
    for hook in [PRESTART, POSTSTOP] {
        let output = scene.run(hook, &["--nonsense"], "");
        assert_eq!(output.status.code(), Some(2));
        assert!(
            words(&output).contains("--nonsense") && words(&output).contains("--help"),
            "{}",
            words(&output)
        );
        let help = scene.run(hook, &["--help"], "");
        assert_eq!(help.status.code(), Some(0));
        assert!(String::from_utf8_lossy(&help.stdout).contains("--state-dir DIR"));
        let version = scene.run(hook, &["--version"], "");
        assert!(String::from_utf8_lossy(&version.stdout).contains(env!("CARGO_PKG_VERSION")));
    }
}

/// For systemd an end before READY=1 is a failure, whatever the exit code (systemd.service(5),
/// `Type=notify`): it would start the unit again and again.
#[test]
fn a_watcher_of_a_unit_reports_ready_and_ends_if_its_container_is_gone() {
    let scene = Scene::new("{}");
    let unit = std::os::unix::net::UnixDatagram::bind(scene.path("notify")).expect("a socket");
    let output = scene
        .command(WATCHER, &["--take-over"])
        .arg("c1")
        .env("NOTIFY_SOCKET", scene.path("notify"))
        .output()
        .expect("start the watcher");
    assert_eq!(output.status.code(), Some(0), "{}", words(&output));
    unit.set_nonblocking(true).expect("a socket");
    let mut word = [0; 64];
    let length = unit.recv(&mut word).expect("its word");
    assert_eq!(&word[..length], b"READY=1");
}

/// A process that stands for a container's init or for a watcher, and ends with the test.
struct Sleeper(Child);

impl Sleeper {
    fn start(stdin: impl Into<Stdio>) -> Self {
        let sleeper = Command::new("sleep").arg("3600").stdin(stdin).spawn();
        Self(sleeper.expect("start sleep"))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Clock ticks since boot: field 22 of /proc/PID/stat (proc_pid_stat(5)).
    fn start_time(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("read a process's stat");
        let (_, fields) = stat.rsplit_once(')').expect("stat has the name in parentheses");
        let field = fields.split_whitespace().nth(19).expect("a start time");
        field.parse().expect("a number")
    }

    fn runs(&mut self) -> bool {
        self.0.try_wait().expect("look at a child").is_none()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The container `c1` as a hook and its watcher have recorded it. Both processes are sleepers.
struct Enrolled<'s> {
    scene: &'s Scene,
    init: Sleeper,
    watcher: Sleeper,
}

const ELSEWHERE: &str = "/other/bundle";

impl<'s> Enrolled<'s> {
    /// With this bundle, and the record as `change` leaves it. The watcher has the lock as its
    /// standard input.
    fn new(scene: &'s Scene, bundle: &str, change: impl FnOnce(&mut serde_json::Value)) -> Self {
        let init = Sleeper::start(Stdio::null());
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("the boot's id");
        let directory = write_record(&scene.state_dir(), "c1", |record| {
            record["container"]["pid"] = init.pid().into();
            record["container"]["start_time"] = init.start_time().into();
            record["container"]["bundle"] = bundle.into();
            record["container"]["rootfs"] = format!("{bundle}/rootfs").into();
            record["boot"] = boot.trim().into();
            change(record);
        });
        let lock = fs::File::create(directory.join("lock")).expect("make a lock");
        FileExt::lock_exclusive(&lock).expect("take a lock");
        let watcher = Sleeper::start(lock);
        let said = serde_json::json!({ "pid": watcher.pid(), "start_time": watcher.start_time() });
        fs::write(directory.join("lock"), said.to_string()).expect("write a lock");
        Self { scene, init, watcher }
    }

    fn poststop(&self, state: &str) {
        let output = self.scene.run(POSTSTOP, &[], state);
        assert_eq!(output.status.code(), Some(0), "{state}: {}", words(&output));
    }

    #[track_caller]
    fn stays(&mut self, state: &str) {
        assert!(self.watcher.runs(), "the watcher was ended: {state}");
        assert!(!self.scene.has_no_trace(), "the record was removed: {state}");
    }

    #[track_caller]
    fn is_gone(&mut self, state: &str) {
        assert!(!self.watcher.runs(), "the watcher runs: {state}");
        assert!(self.scene.has_no_trace(), "the record is there: {state}");
    }
}

/// Case security 6.
#[test]
fn poststop_leaves_a_running_container_with_the_same_id_alone() {
    let scene = Scene::new("{}");
    let mut other = Enrolled::new(&scene, ELSEWHERE, |_| {});
    for name in STOP_STATES {
        let state = scene.state(name);
        for _ in 0..2 {
            other.poststop(&state);
            other.stays(&state);
        }
    }
}

/// Case security 6. The engine starts a container again with the same id and bundle before the
/// poststop of its previous run.
#[test]
fn a_late_poststop_leaves_the_next_run_of_its_container_alone() {
    let scene = Scene::new("{}");
    let bundle = scene.bundle().display().to_string();
    let mut next = Enrolled::new(&scene, &bundle, |_| {});
    for name in ["podman-poststop.json", "youki-poststop.json"] {
        let state = scene.state(name);
        next.poststop(&state);
        next.stays(&state);
    }
}

/// Case security 6.
#[test]
fn poststop_keeps_the_record_of_a_running_container_that_a_newer_version_wrote_or_whose_watcher_died() {
    let scene = Scene::new("{}");
    let bundle = scene.bundle().display().to_string();
    let mut newer = Enrolled::new(&scene, &bundle, |record| record["version"] = 99.into());
    let state = scene.state("runc-poststop.json");
    newer.poststop(&state);
    newer.stays(&state);
    newer.watcher.0.kill().expect("end the watcher");
    newer.watcher.0.wait().expect("end the watcher");
    newer.poststop(&state);
    assert!(!scene.has_no_trace(), "the record was removed");
}

/// Case security 6. Whatever the id, bundle and pid are: a process that started at another time is
/// another one.
#[test]
fn poststop_ends_the_watcher_of_a_container_that_has_ended() {
    for name in STOP_STATES {
        let scene = Scene::new("{}");
        let bundle = scene.bundle().display().to_string();
        let state = scene.state(name);
        let mut ended = Enrolled::new(&scene, &bundle, |_| {});
        ended.init.0.kill().expect("end the init");
        // Not yet reaped: a zombie has ended.
        let init = nix::sys::wait::Id::Pid(nix::unistd::Pid::from_raw(ended.init.pid() as i32));
        let flags = nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT;
        nix::sys::wait::waitid(init, flags).expect("wait for the init's end");
        ended.poststop(&state);
        ended.is_gone(&state);
        ended.poststop(&state);

        let reused = |record: &mut serde_json::Value| {
            let time = record["container"]["start_time"].as_u64().expect("a start time");
            record["container"]["start_time"] = (time + 1).into();
        };
        let mut ended = Enrolled::new(&scene, &bundle, reused);
        ended.poststop(&state);
        ended.is_gone(&state);

        let mut ended = Enrolled::new(&scene, ELSEWHERE, |record| {
            record["boot"] = "an earlier one".into()
        });
        ended.poststop(&state);
        ended.is_gone(&state);
    }
}

/// Case security 6. crun's `delete --force` starts poststop while the killed init is still there.
#[test]
fn poststop_waits_for_the_end_of_an_init_that_is_being_killed() {
    let scene = Scene::new("{}");
    let bundle = scene.bundle().display().to_string();
    let state = scene.state("crun-poststop.json");
    let mut ending = Enrolled::new(&scene, &bundle, |_| {});
    let mut poststop = scene
        .command(POSTSTOP, &[])
        .stdin(Stdio::piped())
        .spawn()
        .expect("start the hook");
    let mut input = poststop.stdin.take().expect("its standard input");
    input.write_all(state.as_bytes()).expect("write the state");
    drop(input);
    let descriptors = format!("/proc/{}/fd", poststop.id());
    let holds_init = || {
        let entries = fs::read_dir(&descriptors).expect("list descriptors").flatten();
        let mut leads_to = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
        leads_to.any(|path| path.to_string_lossy().contains("[pidfd]"))
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds_init() {
        assert!(Instant::now() < deadline, "poststop does not look at the init");
    }
    ending.init.0.kill().expect("end the init");
    assert!(poststop.wait().expect("wait for the hook").success());
    ending.is_gone(&state);
}

/// Case security 6.
#[test]
fn a_second_container_with_an_id_in_use_is_refused_at_once_and_the_first_keeps_its_watcher() {
    let scene = Scene::new(r#"{"io.oci-hotplug.devices":"usb:0403"}"#);
    let mut first = Enrolled::new(&scene, ELSEWHERE, |_| {});
    let record = scene.state_dir().join("containers/c1/record.json");
    let before = fs::read(&record).expect("read a record");
    let second = Sleeper::start(Stdio::null());
    let state = scene.state("runc-create-runtime.json");
    let state = state.replace("2147483646", &second.pid().to_string());
    for watched in [true, false] {
        let began = Instant::now();
        let output = scene.run(PRESTART, &[], &state);
        assert_eq!(output.status.code(), Some(1), "{}", words(&output));
        let expected = format!(
            "oci-hotplug-prestart: container c1: container id c1 is in use by another running container (process {}, \
             bundle {ELSEWHERE}): stop that container, or start this one with another id; different engines, runtime \
             roots and containerd namespaces must not use the same id\n",
            first.init.pid()
        );
        assert_eq!(words(&output), expected);
        // Less than a hook waits for a watcher that does not answer.
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        assert_eq!(fs::read(&record).expect("read a record"), before);
        if watched {
            first.stays(&state);
            first.watcher.0.kill().expect("end the watcher");
            first.watcher.0.wait().expect("end the watcher");
        }
    }
}

const TOOL: &str = env!("CARGO_BIN_EXE_oci-hotplug");

/// What the operator's tool says of a scene.
fn tool(scene: &Scene, arguments: &[&str]) -> Output {
    let output = scene.command(TOOL, arguments).output();
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

/// Case security 6. What `recover`, and a watcher that takes over, do with a record whose init is
/// another process by now.
#[test]
fn recover_and_the_next_watcher_identify_a_container_by_start_time_and_boot() {
    let changes: [fn(&mut serde_json::Value); 2] = [
        |record| {
            let time = record["container"]["start_time"].as_u64().expect("a start time");
            record["container"]["start_time"] = (time + 1).into();
        },
        |record| record["boot"] = "an earlier one".into(),
    ];
    for change in changes {
        let scene = Scene::new("{}");
        let mut another = Enrolled::new(&scene, ELSEWHERE, change);
        another.watcher.0.kill().expect("end the watcher");
        another.watcher.0.wait().expect("end the watcher");
        let output = scene
            .command(OPERATOR, &["recover"])
            .output()
            .expect("start the tool");
        assert!(output.status.success(), "{}", words(&output));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            said.contains("the container has ended: its record was removed"),
            "{said}"
        );
        assert!(scene.has_no_trace());
        assert!(another.init.runs());

        let mut another = Enrolled::new(&scene, ELSEWHERE, change);
        another.watcher.0.kill().expect("end the watcher");
        another.watcher.0.wait().expect("end the watcher");
        let output = scene
            .command(WATCHER, &["--take-over"])
            .arg("c1")
            .output()
            .expect("start the watcher");
        assert!(output.status.success(), "{}", words(&output));
        assert!(scene.has_no_trace());
        assert!(another.init.runs());
    }
}
