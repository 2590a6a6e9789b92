//! Names of devices and classes that requests and commands use.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::bench::{BOARD, Bench, Said, done};

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
