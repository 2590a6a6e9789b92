//! A CDI device on the real kernel: the test applies the spec as an engine does, and runs the
//! container with runc alone.
//!
//! Needs root, runc, busybox and the virtual terminals: `cargo test --test cdi_kernel --
//! --ignored`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const TOOL: &str = env!("CARGO_BIN_EXE_oci-hotplug");

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A container of runc. It is deleted when this is dropped, also after a failure.
struct Container {
    id: String,
    runc: Child,
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = Command::new("runc")
            .args(["kill", &self.id, "KILL"])
            .stderr(Stdio::null())
            .status();
        let _ = self.runc.wait();
        let _ = Command::new("runc")
            .args(["delete", "--force", &self.id])
            .stderr(Stdio::null())
            .status();
    }
}

/// Adds a spec's hooks to a config.json, as the CDI library does (pkg/cdi/container-edits.go,
/// Apply).
fn inject(config_json: &Path, edits: &Value, environment: &str) {
    let mut config: Value = serde_json::from_str(&fs::read_to_string(config_json).unwrap()).unwrap();
    for hook in edits["hooks"].as_array().unwrap() {
        let stage = hook["hookName"].as_str().unwrap();
        let entry = json!({
            "path": hook["path"], "args": hook["args"], "timeout": hook["timeout"], "env": [environment],
        });
        if config["hooks"][stage].is_null() {
            config["hooks"][stage] = json!([]);
        }
        config["hooks"][stage].as_array_mut().unwrap().push(entry);
    }
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["/bin/sh", "-c", "while :; do sleep 1; done"]);
    fs::write(config_json, config.to_string()).unwrap();
}

#[test]
#[ignore = "needs root and runc"]
fn a_container_with_the_cdi_device_of_a_class_has_its_devices() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let state = path("state");
    fs::write(
        path("config.toml"),
        format!(
            "state-dir = {state:?}\n[class.lab]\ndevices = [\"devnode:/dev/tty7;access=r\", \"devnode:/dev/tty8\"]\n"
        ),
    )
    .unwrap();
    let tool = |arguments: &[&str]| {
        output(
            Command::new(TOOL)
                .arg("--config")
                .arg(path("config.toml"))
                .args(arguments),
        )
    };
    let cdi = path("cdi");
    let cdi = cdi.to_str().unwrap();
    let hooks = Path::new(TOOL).parent().unwrap().to_str().unwrap();
    tool(&[
        "cdi",
        "generate",
        "--all",
        "--cdi-dir",
        cdi,
        "--output",
        cdi,
        "--hook-dir",
        hooks,
    ]);
    let edits = tool(&[
        "cdi",
        "resolve",
        "--json",
        "--cdi-dir",
        cdi,
        "oci-hotplug.dev/device=lab",
    ]);
    let edits: Value = serde_json::from_str(&edits).unwrap();
    let edits = &edits["edits"];

    let bundle = path("bundle");
    fs::create_dir_all(bundle.join("rootfs/bin")).unwrap();
    fs::copy("/bin/busybox", bundle.join("rootfs/bin/busybox")).unwrap();
    for applet in ["sh", "sleep", "ls"] {
        symlink("busybox", bundle.join("rootfs/bin").join(applet)).unwrap();
    }
    output(Command::new("runc").arg("spec").current_dir(&bundle));
    let environment = format!("OCI_HOTPLUG_CONFIG={}", path("config.toml").display());
    inject(&bundle.join("config.json"), edits, &environment);

    let id = format!("oci-hotplug-cdi-{}", std::process::id());
    let mut runc = Command::new("runc");
    runc.args(["run", &id]).current_dir(&bundle).stdin(Stdio::null());
    let container = Container {
        id: id.clone(),
        runc: runc.spawn().unwrap(),
    };
    // The hook returns only when present devices are attached, so a running container has them.
    let running = || {
        let state = Command::new("runc").args(["state", &id]).output().unwrap();
        String::from_utf8_lossy(&state.stdout).contains("\"running\"")
    };
    wait_until("the container runs", running);
    let inside = output(Command::new("runc").args(["exec", &id, "ls", "/dev/tty7", "/dev/tty8"]));
    assert_eq!(inside, "/dev/tty7\n/dev/tty8\n");
    let list: Value = serde_json::from_str(&tool(&["list", "--json"])).unwrap();
    assert_eq!(list["containers"][0]["requests"], json!(["class:lab"]));
    let record: Value = serde_json::from_str(&tool(&["inspect", "--json", &id])).unwrap();
    let entry = &record["record"]["requests"][0];
    assert_eq!(
        (&entry["request"], &entry["class"]),
        (&json!("devnode:/dev/tty7;access=r"), &json!("lab"))
    );

    drop(container);
    wait_until("nothing of it is left", || {
        let list: Value = serde_json::from_str(&tool(&["list", "--json"])).unwrap();
        list["containers"] == json!([])
    });
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "waited in vain: {what}"
        );
        std::thread::yield_now();
    }
}
