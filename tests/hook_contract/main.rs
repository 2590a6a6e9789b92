//! The two hooks as a runtime starts them: state on standard input, exit code, message, and no
//! trace where no device is requested; and the watcher as systemd starts it. No privilege is
//! needed: nothing here gets as far as a container.

mod hostile;
#[path = "../support/record.rs"]
mod record;
mod recorded_container;
mod starts;
mod streams;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

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
