//! Devices that `cdi generate` writes and `cdi remove` removes.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::bench::{BOARD, Bench, HOOKS, done, json};

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
