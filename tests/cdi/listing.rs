//! What `cdi list` and `cdi validate` say of the specs of all vendors.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::bench::{Bench, Said, done, json};

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
