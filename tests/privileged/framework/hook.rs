//! Our executables, started the way a runtime or an operator starts them. Does not know their
//! internals.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use super::machine::Machine;

const PRESTART: &str = env!("CARGO_BIN_EXE_oci-hotplug-prestart");
const POSTSTOP: &str = env!("CARGO_BIN_EXE_oci-hotplug-poststop");
const WATCHER: &str = env!("CARGO_BIN_EXE_oci-hotplug-watcher");
const OPERATOR: &str = env!("CARGO_BIN_EXE_oci-hotplug");

/// How long an executable may take that is run by hand, in seconds (timeout(1)): no test waits for
/// ever.
const RUN_DEADLINE: &str = "30";

/// One of our executables with its arguments: as an entry of config.json, or to be run by hand.
pub struct Hook {
    path: &'static str,
    arguments: Vec<String>,
}

impl Hook {
    /// `oci-hotplug-prestart` for this machine's state directory, with `extra` arguments (`--device
    /// REQUEST`).
    pub fn prestart(machine: &Machine, extra: &[String]) -> Self {
        Self::new(PRESTART, machine, extra)
    }

    /// `oci-hotplug-poststop` for this machine's state directory.
    pub fn poststop(machine: &Machine) -> Self {
        Self::new(POSTSTOP, machine, &[])
    }

    /// `oci-hotplug-watcher` for this machine's state directory, as a service manager starts it;
    /// the container's id follows.
    pub fn watcher(machine: &Machine) -> Self {
        Self::new(WATCHER, machine, &[])
    }

    /// The operator's tool without a verb.
    pub fn operator() -> Self {
        Self {
            path: OPERATOR,
            arguments: Vec::new(),
        }
    }

    fn new(path: &'static str, machine: &Machine, extra: &[String]) -> Self {
        let mut arguments = Vec::new();
        for (name, value) in [
            ("--state-dir", machine.state_dir()),
            ("--config", machine.config()),
        ] {
            arguments.push(name.to_owned());
            arguments.push(value.to_str().expect("scratch paths are text").to_owned());
        }
        arguments.extend_from_slice(extra);
        Self { path, arguments }
    }

    /// The entry for `hooks` in config.json (runtime-spec, config.md, POSIX-platform hooks).
    /// `setup` are commands of a shell that then becomes the hook; without them, the runtime starts
    /// the hook directly.
    pub fn entry(&self, environment: &[String], setup: &str) -> Value {
        let mut arguments = vec![self.path.to_owned()];
        arguments.extend_from_slice(&self.arguments);
        let mut path = self.path;
        if !setup.is_empty() {
            path = "/bin/sh";
            let script = format!("set -e\n{setup}\nexec \"$0\" \"$@\"");
            arguments.splice(0..0, ["sh".to_owned(), "-c".to_owned(), script]);
        }
        let mut entry = json!({ "path": path, "args": arguments, "timeout": 15 });
        if !environment.is_empty() {
            entry["env"] = json!(environment);
        }
        entry
    }

    /// The executable as a command, with its arguments so far.
    pub fn command(&self) -> Command {
        let mut command = Command::new(self.path);
        command.args(&self.arguments);
        command
    }

    /// Runs it by hand with `input` (usually an OCI state) on its standard input.
    pub fn run(&self, more: &[&str], input: &str) -> Output {
        let mut child = Command::new("timeout")
            .args(["--signal=KILL", RUN_DEADLINE, self.path])
            .args(&self.arguments)
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("start {}: {error}", self.path));
        // An executable that decides without reading its input closes the pipe; that is not a
        // failure.
        let _ = child
            .stdin
            .take()
            .expect("a pipe was requested")
            .write_all(input.as_bytes());
        child.wait_with_output().expect("wait for a hook")
    }
}

/// The output of `oci-hotplug inspect --json` for a container.
pub fn inspect_json(machine: &Machine, id: &str) -> String {
    let state_dir = machine.state_dir();
    let state_dir = state_dir.to_str().expect("scratch paths are text");
    let output = Hook::operator().run(&["inspect", id, "--json", "--state-dir", state_dir], "");
    String::from_utf8(output.stdout).expect("JSON is text")
}

/// An OCI state (runtime-spec, runtime.md) as a runtime writes it. `Value::Null` as `pid` leaves
/// the pid out.
pub fn oci_state(id: &str, status: &str, pid: &Value, bundle: &str) -> String {
    let mut state = json!({ "ociVersion": "1.0.2", "id": id, "status": status, "bundle": bundle });
    if !pid.is_null() {
        state["pid"] = pid.clone();
    }
    state.to_string()
}
