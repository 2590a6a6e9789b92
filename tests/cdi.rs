//! `oci-hotplug cdi` and classes, through the real executables, in scratch directories.

use std::fs;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use oci_hotplug::cdi::document::Document;
use oci_hotplug::cdi::rules;
use oci_hotplug::model::yaml;
use serde_json::Value;

const HOOKS: &str = "/usr/libexec/oci/hooks.d";
const BOARD: &str = "oci-hotplug.dev/device=board";

/// Two directories, as `/etc/cdi` and `/var/run/cdi`, and a configuration.
struct Bench {
    scratch: tempfile::TempDir,
}

/// The output of a command, and its exit code.
#[derive(Debug)]
struct Said {
    out: String,
    err: String,
    code: i32,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
            code: output.status.code().unwrap_or(-1),
        }
    }
}

impl Bench {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        for dir in ["low", "high"] {
            fs::create_dir(scratch.path().join(dir)).unwrap();
        }
        fs::write(scratch.path().join("config.toml"), "").unwrap();
        Self { scratch }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// A spec of another vendor.
    fn foreign(&self, name: &str, kind: &str, device: &str) {
        let text = format!(
            "cdiVersion: 0.5.0\nkind: {kind}\ndevices:\n- name: {device}\n  containerEdits:\n    env: ['FROM={name}']\n"
        );
        self.write(name, &text);
    }

    fn run(&self, arguments: &[&str]) -> Said {
        Command::new(env!("CARGO_BIN_EXE_oci-hotplug"))
            .arg("--config")
            .arg(self.path("config.toml"))
            .args(arguments)
            .arg("--cdi-dir")
            .arg(self.path("low"))
            .arg("--cdi-dir")
            .arg(self.path("high"))
            .output()
            .unwrap()
            .into()
    }

    fn cdi(&self, arguments: &[&str]) -> Said {
        self.run(&[&["cdi"], arguments].concat())
    }

    /// Writes devices into the directory with the lower priority.
    fn generate(&self, arguments: &[&str]) -> Said {
        let low = self.path("low");
        let output = ["--output", low.to_str().unwrap(), "--hook-dir", HOOKS];
        self.cdi(&[&["generate"], arguments, &output].concat())
    }

    fn files(&self, dir: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path(dir))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn done(said: Said) -> String {
    assert_eq!(said.code, 0, "{said:?}");
    said.out
}

fn json(said: Said) -> Value {
    serde_json::from_str(&done(said)).unwrap()
}

#[test]
fn a_generated_device_brings_the_hooks_with_the_requests_and_nothing_else() {
    let bench = Bench::new();
    done(bench.generate(&[
        "board",
        "--device",
        "usb:0403:6001",
        "--device",
        "port:1-1.4;access=r",
        "--symlink",
        "usb:0403:6001:0=/dev/gps",
    ]));
    assert_eq!(bench.files("low"), ["oci-hotplug.dev-device_board.json"]);
    let spec: Value = serde_json::from_str(&bench.read("low/oci-hotplug.dev-device_board.json")).unwrap();
    let expected = serde_json::json!({
        "cdiVersion": "0.5.0",
        "kind": "oci-hotplug.dev/device",
        "devices": [{
            "name": "board",
            "containerEdits": { "hooks": [
                {
                    "hookName": "createRuntime",
                    "path": format!("{HOOKS}/oci-hotplug-prestart"),
                    "args": [
                        "oci-hotplug-prestart", "--device", "usb:0403:6001", "--device", "port:1-1.4;access=r",
                        "--symlink", "usb:0403:6001:0=/dev/gps",
                    ],
                    "timeout": 10,
                },
                {
                    "hookName": "poststop",
                    "path": format!("{HOOKS}/oci-hotplug-poststop"),
                    "args": ["oci-hotplug-poststop"],
                    "timeout": 10,
                },
            ]},
        }],
    });
    assert_eq!(spec, expected);
    assert!(done(bench.cdi(&["validate"])).contains("1 spec is valid"));
}

#[test]
fn the_device_annotated_brings_the_hooks_alone_and_no_other_may() {
    let bench = Bench::new();
    done(bench.generate(&["annotated"]));
    let edits = json(bench.cdi(&["resolve", "oci-hotplug.dev/device=annotated", "--json"]));
    assert_eq!(
        edits["edits"]["hooks"][0]["args"],
        serde_json::json!(["oci-hotplug-prestart"])
    );
    let said = bench.generate(&["other"]);
    assert!(
        said.code == 1 && said.err.contains("has no request: give --device REQUEST"),
        "{said:?}"
    );
}

#[test]
fn writing_again_changes_nothing_and_another_request_updates() {
    let bench = Bench::new();
    let file = "low/oci-hotplug.dev-device_board.json";
    assert!(done(bench.generate(&["board", "--device", "usb:0403"])).contains(": wrote "));
    let before = fs::metadata(bench.path(file)).unwrap().modified().unwrap();
    assert!(done(bench.generate(&["board", "--device", "usb:0403"])).contains(": unchanged "));
    assert_eq!(
        fs::metadata(bench.path(file)).unwrap().modified().unwrap(),
        before
    );
    assert!(done(bench.generate(&["board", "--device", "usb:0404"])).contains(": updated "));
    assert!(bench.read(file).contains("usb:0404"));
    assert_eq!(bench.files("low").len(), 1);
}

#[test]
fn a_device_that_another_file_defines_is_refused() {
    for dir in ["low", "high"] {
        let bench = Bench::new();
        bench.foreign(&format!("{dir}/mine.yaml"), "oci-hotplug.dev/device", "board");
        let said = bench.generate(&["board", "--device", "usb:0403"]);
        let expected = format!(
            "cannot write {BOARD}: {} also defines it",
            bench.path(&format!("{dir}/mine.yaml")).display()
        );
        assert!(said.code == 1 && said.err.contains(&expected), "{said:?}");
        assert!(
            !bench
                .files("low")
                .iter()
                .any(|file| file.ends_with("_board.json"))
        );
    }
}

#[test]
fn a_file_that_is_not_ours_is_not_overwritten() {
    let file = "low/oci-hotplug.dev-device_board.json";
    let bench = Bench::new();
    for text in ["not a spec", ""] {
        bench.write(file, text);
        let said = bench.generate(&["board", "--device", "usb:0403"]);
        assert!(
            said.code == 1 && said.err.contains("oci-hotplug did not write it"),
            "{said:?}"
        );
        assert_eq!(bench.read(file), text);
    }
    bench.foreign(file, "a.b/c", "x");
    let said = bench.generate(&["board", "--device", "usb:0403"]);
    assert!(said.err.contains("it is a spec of a.b/c"), "{said:?}");
    fs::remove_file(bench.path(file)).unwrap();
    std::os::unix::fs::symlink("/dev/null", bench.path(file)).unwrap();
    let said = bench.generate(&["board", "--device", "usb:0403"]);
    assert!(said.err.contains("it is not a regular file"), "{said:?}");
}

#[test]
fn wrong_names_kinds_and_requests_are_refused_with_a_hint() {
    let bench = Bench::new();
    for (arguments, hint) in [
        (
            &["my board", "--device", "usb:0403"] as &[&str],
            "as in \"my-board\"",
        ),
        (
            &["board", "--device", "usb:403"],
            "vendor id must be 4 hex digits",
        ),
        (&["board", "--device", "class:x"], "oci-hotplug class add x"),
        (
            &["board", "--device", "usb:0403", "--symlink", "x"],
            "symlink rule \"x\"",
        ),
        (
            &["board", "--device", "usb:0403", "--kind", "x"],
            "write VENDOR/CLASS",
        ),
        (
            &["board", "--device", "usb:0403", "--kind", "vendor.com/d"],
            "the class \"d\" has only one letter",
        ),
        (&["--all", "--device", "usb:0403"], "cannot be used with"),
        (&[], "<NAME>"),
    ] {
        let said = bench.generate(arguments);
        assert!(
            said.code == 2 && said.err.contains(hint),
            "{arguments:?}: {said:?}"
        );
    }
    assert_eq!(bench.files("low"), [""; 0]);
}

#[test]
fn to_standard_output_nothing_is_written() {
    let bench = Bench::new();
    let arguments = [
        "generate",
        "board",
        "--device",
        "usb:0403",
        "--kind",
        "lab.example/serial",
    ];
    let spec = json(bench.cdi(&[&arguments[..], &["--output", "-", "--hook-dir", "/h"]].concat()));
    assert_eq!(spec["kind"], "lab.example/serial");
    assert_eq!(
        spec["devices"][0]["containerEdits"]["hooks"][0]["path"],
        "/h/oci-hotplug-prestart"
    );
    assert_eq!(bench.files("low"), [""; 0]);
}

#[test]
fn without_a_directory_the_hooks_beside_the_program_are_taken() {
    let bench = Bench::new();
    let beside = Path::new(env!("CARGO_BIN_EXE_oci-hotplug")).parent().unwrap();
    let spec = json(bench.cdi(&["generate", "board", "--device", "usb:0403", "--output", "-"]));
    assert_eq!(
        spec["devices"][0]["containerEdits"]["hooks"][0]["path"],
        beside.join("oci-hotplug-prestart").to_str().unwrap()
    );
}

#[test]
fn every_class_gets_a_device_and_a_removed_class_is_reported() {
    let bench = Bench::new();
    bench.write(
        "config.toml",
        "[class.lab]\ndevices = [\"usb:0403\"]\n[class.cam]\ndevices = [\"subsystem:video4linux\"]\n",
    );
    done(bench.generate(&["--all"]));
    assert_eq!(
        bench.files("low"),
        [
            "oci-hotplug.dev-device_cam.json",
            "oci-hotplug.dev-device_lab.json"
        ]
    );
    assert!(
        bench
            .read("low/oci-hotplug.dev-device_lab.json")
            .contains("\"class:lab\"")
    );
    bench.write("config.toml", "[class.lab]\ndevices = [\"usb:0403\"]\n");
    let said = bench.generate(&["--all"]);
    assert!(
        said.code == 0 && said.err.contains("requests class \"cam\", which is not defined"),
        "{said:?}"
    );
    bench.write("config.toml", "");
    let said = bench.generate(&["--all"]);
    assert!(
        said.code == 1 && said.err.contains("defines no class (`oci-hotplug class add "),
        "{said:?}"
    );
}

#[test]
fn the_later_directory_wins_and_the_list_says_so() {
    let bench = Bench::new();
    bench.foreign("low/a.yaml", "v.w/gpu", "x");
    bench.foreign("high/b.yaml", "v.w/gpu", "x");
    let list = json(bench.cdi(&["list", "--json"]));
    assert_eq!(list["devices"].as_array().unwrap().len(), 1);
    assert_eq!(
        list["devices"][0]["file"],
        bench.path("high/b.yaml").to_str().unwrap()
    );
    assert_eq!(
        list["devices"][0]["shadows"][0],
        bench.path("low/a.yaml").to_str().unwrap()
    );
    assert!(done(bench.cdi(&["list"])).contains("(instead of "));
    assert_eq!(
        json(bench.cdi(&["resolve", "v.w/gpu=x", "--json"]))["edits"]["env"][0],
        "FROM=high/b.yaml"
    );
}

#[test]
fn engines_ignore_a_device_that_two_files_of_one_directory_define_and_both_are_named() {
    let bench = Bench::new();
    bench.foreign("low/a.yaml", "v.w/gpu", "x");
    bench.foreign("low/b.yaml", "v.w/gpu", "x");
    let list = json(bench.cdi(&["list", "--json"]));
    assert_eq!(list["devices"], serde_json::json!([]));
    let files: Vec<&str> = list["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|problem| problem["file"].as_str().unwrap())
        .collect();
    assert_eq!(
        files,
        [
            bench.path("low/a.yaml").to_str().unwrap(),
            bench.path("low/b.yaml").to_str().unwrap()
        ]
    );
    let said = bench.cdi(&["validate"]);
    assert!(
        said.code == 1 && said.out.contains("engines ignore all of them"),
        "{said:?}"
    );
}

#[test]
fn a_broken_file_hides_no_other() {
    let bench = Bench::new();
    bench.foreign("low/good.yaml", "v.w/gpu", "x");
    bench.write(
        "low/broken.json",
        "{\"cdiVersion\": \"0.5.0\",\n \"kind\": \"v.w/gpu\",\n \"devces\": []}\n",
    );
    bench.write("low/ignored.txt", "nothing that CDI reads");
    fs::create_dir(bench.path("low/sub.json")).unwrap();
    fs::create_dir(bench.path("low/sub")).unwrap();
    bench.foreign("low/sub/deeper.yaml", "v.w/gpu", "deeper");
    nix::unistd::mkfifo(&bench.path("low/pipe.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let out = done(bench.cdi(&["list"]));
    assert!(out.contains("v.w/gpu=x") && !out.contains("deeper"), "{out}");
    let place = format!(
        "{}:3:2: unknown field `devces`",
        bench.path("low/broken.json").display()
    );
    assert!(out.contains(&place), "{out}");
    assert!(
        out.contains("pipe.json: it is a FIFO, not a regular file"),
        "{out}"
    );
    done(bench.cdi(&["resolve", "v.w/gpu=x"]));
}

#[test]
fn validate_names_file_line_and_field_of_every_fault() {
    let bench = Bench::new();
    let text = "cdiVersion: 0.4.0\nkind: a.b/c\ndevices:\n- name: 0x\n  containerEdits:\n    hooks:\n    - hookName: start\n      path: /bin/true\n- name: y\n";
    bench.write("spec.yaml", text);
    let file = bench.path("spec.yaml");
    let file = file.to_str().unwrap();
    let said = bench.cdi(&["validate", file]);
    let expected = format!(
        "{file}:1:13: cdiVersion: 0.4.0 is too low: it must be at least 0.5.0, because of devices[0].name (a digit first)\n\
         {file}:7:17: devices[0].containerEdits.hooks[0].hookName: \"start\" is not a hook; write one of prestart, createRuntime, createContainer, startContainer, poststart, poststop\n\
         {file}:9:3: devices[1].containerEdits: must not be empty: a device must change something, such as env, deviceNodes or hooks\n"
    );
    assert_eq!(
        (said.out.as_str(), said.err.as_str(), said.code),
        (expected.as_str(), "oci-hotplug: 3 problems\n", 1)
    );
    let problems = Command::new(env!("CARGO_BIN_EXE_oci-hotplug"))
        .args(["--json", "cdi", "validate", file])
        .output()
        .map(Said::from)
        .unwrap();
    let problems: Value = serde_json::from_str(&problems.out).unwrap();
    assert_eq!(problems["problems"][1]["line"], 7);
    assert_eq!(
        problems["problems"][1]["field"],
        "devices[0].containerEdits.hooks[0].hookName"
    );
}

#[test]
fn validate_warns_of_devices_that_cannot_work_on_this_host() {
    let bench = Bench::new();
    std::os::unix::fs::symlink("/dev/null", bench.path("link")).unwrap();
    let link = bench.path("link");
    let text = format!(
        "cdiVersion: 0.5.0\nkind: a.b/c\ndevices:\n- name: x\n  containerEdits:\n    hooks: [{{hookName: poststop, path: /nowhere/hook}}]\n    deviceNodes: [{{path: /dev/x, hostPath: /dev/nowhere}}, {{path: {}}}, {{path: /dev/null}}]\n",
        link.display()
    );
    bench.write("low/spec.yaml", &text);
    let out = done(bench.cdi(&["validate"]));
    let warnings: Vec<&str> = out.lines().filter(|line| line.starts_with("warning: ")).collect();
    assert_eq!(warnings.len(), 4, "{out}");
    for part in [
        "kind: the class \"c\" has only one letter",
        "/nowhere/hook does not exist",
        "/dev/nowhere does not exist",
        "is a link, which engines do not follow",
    ] {
        assert!(out.contains(part), "{out}");
    }
}

/// Case README 16. Case README 17.
#[test]
fn a_spec_is_valid_exactly_when_engines_read_it() {
    let bench = Bench::new();
    let octal = "cdiVersion: \"0.6.0\"\nkind: vendor.com/device\ndevices:\n- name: \"0\"\n  containerEdits: {deviceNodes: [{path: /dev/null, fileMode: 0666, permissions: rw}]}\n";
    bench.write("low/octal.yaml", octal);
    let out = done(bench.cdi(&["validate"]));
    assert!(out.contains("1 spec is valid"), "{out}");
    let edits: Value =
        serde_json::from_str(&done(bench.cdi(&["resolve", "vendor.com/device=0", "--json"]))).unwrap();
    assert_eq!(edits["edits"]["deviceNodes"][0]["fileMode"], 438);

    let empty = r#"{"cdiVersion":"0.6.0","kind":"vendor.com/other","devices":[{"name":"managed","containerEdits":{"mounts":[]}}]}"#;
    bench.write("low/empty.json", empty);
    let said = bench.cdi(&["validate"]);
    assert!(
        said.code == 1 && said.out.contains("a device must change something"),
        "{said:?}"
    );
}

#[test]
fn all_names_that_cannot_be_resolved_are_reported_at_once() {
    let bench = Bench::new();
    bench.foreign("low/good.yaml", "v.w/gpu", "x");
    let said = bench.cdi(&["resolve", "v.w/gpu=x", "v.w/gpu=y", "nonsense"]);
    assert_eq!((said.code, said.out.as_str()), (1, ""));
    assert!(
        said.err.contains("v.w/gpu=y: no spec in ") && said.err.contains("nonsense: "),
        "{said:?}"
    );
    assert!(!said.err.contains("v.w/gpu=x:"), "{said:?}");
}

/// The hook's message about a container with this request, under this configuration.
fn prestart(bench: &Bench, arguments: &[&str], annotation: &str) -> Said {
    let state = serde_json::json!({
        "ociVersion": "1.0.2", "id": "one", "status": "creating", "pid": 1, "bundle": bench.path("bundle"),
        "annotations": { "io.oci-hotplug.devices": annotation },
    });
    let mut child = Command::new(env!("CARGO_BIN_EXE_oci-hotplug-prestart"))
        .arg("--config")
        .arg(bench.path("config.toml"))
        .arg("--state-dir")
        .arg(bench.path("state"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(state.to_string().as_bytes())
        .unwrap();
    child.wait_with_output().unwrap().into()
}

#[test]
fn a_container_that_requests_an_unknown_class_is_refused_with_the_known_ones() {
    let bench = Bench::new();
    bench.write("config.toml", "[class.lab-board]\ndevices = [\"usb:0403\"]\n");
    let said = prestart(&bench, &[], "class:lab");
    let expected = format!(
        "device request \"class:lab\": no such class is defined in {}; known are lab-board (annotation io.oci-hotplug.devices)",
        bench.path("config.toml").display()
    );
    assert!(said.code == 2 && said.err.contains(&expected), "{said:?}");
    let said = prestart(&bench, &["--device", "class:labboard"], "usb:0403");
    assert!(
        said.code == 2 && said.err.contains("(did you mean \"lab-board\"?)"),
        "{said:?}"
    );
    assert!(said.err.contains("(argument --device of the hook)"), "{said:?}");
}

#[test]
fn a_class_that_is_malformed_is_the_configurations_fault() {
    let bench = Bench::new();
    bench.write(
        "config.toml",
        "[class.lab]\ndevices = [\"usb:0403\", \"class:other\"]\n",
    );
    let said = prestart(&bench, &[], "class:lab");
    let expected = format!(
        "cannot read the configuration {}: class \"lab\": device request \"class:other\": a class cannot use a class",
        bench.path("config.toml").display()
    );
    assert!(said.code == 1 && said.err.contains(&expected), "{said:?}");
}

#[test]
fn match_knows_classes() {
    let bench = Bench::new();
    bench.write(
        "config.toml",
        "[class.none]\ndevices = [\"usb:fffe:fffd\", \"usb:fffe:fffc;access=rw\"]\n",
    );
    let said: Said = Command::new(env!("CARGO_BIN_EXE_oci-hotplug"))
        .arg("--config")
        .arg(bench.path("config.toml"))
        .args(["match", "class:none;access=r"])
        .output()
        .unwrap()
        .into();
    assert_eq!(
        done(said),
        "usb:fffe:fffd;access=r: no such device is present now\nusb:fffe:fffc;access=r: no such device is present now\n"
    );
}

/// Case newcomer: cdi has no remove.
#[test]
fn only_devices_of_ours_are_removed() {
    let bench = Bench::new();
    for name in ["board", "probe", "annotated"] {
        let request: &[&str] = match name {
            "annotated" => &[],
            _ => &["--device", "usb:0403"],
        };
        done(bench.generate(&[&[name], request].concat()));
    }
    bench.foreign("low/other.yaml", "v.com/c", "gpu");
    bench.foreign("low/same-kind.yaml", "oci-hotplug.dev/device", "theirs");
    let missing = bench.cdi(&["remove", "board", "nothing"]);
    assert!(
        missing.code == 1
            && missing
                .err
                .contains("cannot remove oci-hotplug.dev/device=nothing: no such device"),
        "{missing:?}"
    );
    for name in ["v.com/c=gpu", "theirs"] {
        let foreign = bench.cdi(&["remove", name]);
        assert!(
            foreign.code == 1 && foreign.err.contains("another program wrote its spec"),
            "{foreign:?}"
        );
    }
    assert_eq!(bench.files("low").len(), 5, "nothing is removed by halves");
    let said = done(bench.cdi(&["remove", "board"]));
    assert!(
        said.starts_with("oci-hotplug.dev/device=board: removed "),
        "{said}"
    );
    let all = json(bench.cdi(&["remove", "--all", "--json"]));
    assert_eq!(all["devices"][0]["device"], "oci-hotplug.dev/device=probe");
    assert_eq!(
        bench.files("low"),
        [
            "oci-hotplug.dev-device_annotated.json",
            "other.yaml",
            "same-kind.yaml"
        ]
    );
    done(bench.cdi(&["remove", "annotated"]));
    assert_eq!(bench.files("low"), ["other.yaml", "same-kind.yaml"]);
}

/// Case newcomer: cdi generate over another program's spec.
#[test]
fn a_spec_of_another_program_is_replaced_only_by_force_and_reported() {
    let bench = Bench::new();
    let file = "low/oci-hotplug.dev-device_board.json";
    done(bench.generate(&["other", "--device", "usb:0403"]));
    let with_our_hooks = bench
        .read("low/oci-hotplug.dev-device_other.json")
        .replace("other", "theirs");
    done(bench.cdi(&["remove", "other"]));
    let foreign = r#"{"cdiVersion":"0.5.0","kind":"v.com/c","devices":[{"name":"x","containerEdits":{"env":["A=1"]}}]}"#;
    for text in [with_our_hooks.as_str(), foreign] {
        bench.write(file, text);
        let refused = bench.generate(&["board", "--device", "usb:0403"]);
        assert!(
            refused.code == 1 && refused.err.contains("replace it with --force"),
            "{refused:?}"
        );
        assert_eq!(bench.read(file), text);
    }
    let said = done(bench.generate(&["board", "--device", "usb:0403", "--force"]));
    assert!(said.contains("replaced another program's"), "{said}");
    let said = done(bench.generate(&["board", "--device", "usb:0404"]));
    assert!(said.contains(": updated "), "{said}");
}

/// Case newcomer: cdi resolve could try our kind.
#[test]
fn a_short_name_is_resolved_as_a_device_of_ours() {
    let bench = Bench::new();
    done(bench.generate(&["board", "--device", "usb:0403"]));
    assert_eq!(
        done(bench.cdi(&["resolve", "board"])),
        done(bench.cdi(&["resolve", BOARD]))
    );
}

/// The errors of the CNCF's own library about these specs, one JSON document each; empty for a
/// valid one.
fn library_errors(specs: &[String]) -> Vec<String> {
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cdi_reference/build.sh");
    let built = Command::new(&build)
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("cannot run {}: {error}", build.display()));
    assert!(built.status.success(), "{}: {}", build.display(), built.status);
    let program = String::from_utf8(built.stdout).unwrap();
    let mut input = tempfile::tempfile().unwrap();
    input.write_all(specs.join("\n").as_bytes()).unwrap();
    input.rewind().unwrap();
    let output = Command::new(program.trim())
        .stdin(input)
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
    assert!(output.status.success(), "{program}: {}", output.status);
    let lines = String::from_utf8(output.stdout).unwrap();
    let errors: Vec<String> = lines.lines().map(str::to_owned).collect();
    assert_eq!(errors.len(), specs.len(), "one answer for each spec");
    errors
}

/// All combinations of valid and invalid parts, with the versions that exist: the library panics on
/// any other.
fn combined_specs() -> Vec<String> {
    let versions = ["0.3.0", "v0.5.0", "0.7.0", "1.0.0", "1.1.0"];
    let kinds = ["a.b/c", "a/b.c", "_a/b", "a", "a/b/c"];
    let names = ["x", "0", "x:y", "x y", "", "-x"];
    let edits = [
        r#"{"env":["A=1"]}"#,
        r#"{"env":["A"]}"#,
        "{}",
        r#"{"hooks":[{"hookName":"createRuntime","path":"/bin/true"}]}"#,
        r#"{"hooks":[{"hookName":"creatRuntime","path":"/bin/true"}]}"#,
        r#"{"deviceNodes":[{"path":"/dev/x","hostPath":"/dev/y","permissions":"rw"}]}"#,
        r#"{"deviceNodes":[{"path":"/dev/x","permissions":"rwx"}]}"#,
        r#"{"mounts":[{"hostPath":"/a","containerPath":"/b","type":"bind"}]}"#,
        r#"{"additionalGids":[5]}"#,
        r#"{"netDevices":[{"hostInterfaceName":"eth1","name":"eth0"}]}"#,
    ];
    let mut specs = Vec::new();
    for version in versions {
        for kind in kinds {
            for name in names {
                specs.extend(edits.iter().map(|edits| {
                    format!(
                        r#"{{"cdiVersion":"{version}","kind":"{kind}","devices":[{{"name":"{name}","containerEdits":{edits}}}]}}"#
                    )
                }));
            }
        }
    }
    specs
}

#[test]
#[ignore = "builds the CNCF's library: tests/run.sh --unit"]
fn our_rules_and_the_cncf_library_agree_about_every_spec() {
    let specs = combined_specs();
    let errors = library_errors(&specs);
    let mut valid = 0;
    for (spec, error) in specs.iter().zip(&errors) {
        let root = yaml::parse(spec).unwrap();
        let document = Document::decode(&root).unwrap();
        let faults = rules::faults(&document, &root);
        assert_eq!(
            faults.is_empty(),
            error.is_empty(),
            "{spec}: our rules say {faults:?}, the library says {error:?}"
        );
        valid += usize::from(error.is_empty());
    }
    // A library that accepted or refused everything would be a broken comparison.
    assert!(
        valid > 20 && valid < specs.len() / 2,
        "{valid} of {} are valid",
        specs.len()
    );
}

#[test]
#[ignore = "builds the CNCF's library: tests/run.sh --unit"]
fn the_cncf_library_accepts_what_is_generated() {
    let bench = Bench::new();
    done(bench.generate(&[
        "board",
        "--device",
        "usb:0403:6001",
        "--symlink",
        "usb:0403:6001:0=/dev/x",
    ]));
    done(bench.generate(&["annotated"]));
    let specs: Vec<String> = bench
        .files("low")
        .iter()
        .map(|name| {
            let spec: Value = serde_json::from_str(&bench.read(&format!("low/{name}"))).unwrap();
            spec.to_string()
        })
        .collect();
    assert_eq!(specs.len(), 2, "{specs:?}");
    assert_eq!(library_errors(&specs), ["", ""], "{specs:?}");
}
