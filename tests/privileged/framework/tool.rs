//! Runs the operator's tool as root. Does not know what its verbs do.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use super::container::text;
use super::eventually::eventually;
use super::hook::Hook;
use super::json_schema;
use super::machine::Machine;

/// Runs the tool with this machine's state directory and configuration.
pub fn tool(machine: &Machine, words: &[&str]) -> Output {
    let path = |path: PathBuf| path.to_str().expect("scratch paths are text").to_owned();
    let (state_dir, config) = (path(machine.state_dir()), path(machine.config()));
    let mut all = words.to_vec();
    all.extend(["--state-dir", &state_dir, "--config", &config]);
    Hook::operator().run(&all, "")
}

/// The output of the tool, which must succeed.
#[track_caller]
pub fn output_of(machine: &Machine, words: &[&str]) -> String {
    let output = tool(machine, words);
    assert!(output.status.success(), "{words:?}: {output:?}");
    text(&output)
}

/// The output with `--json`, validated by the schema.
#[track_caller]
pub fn json_of(machine: &Machine, words: &[&str]) -> Value {
    let mut all = words.to_vec();
    all.push("--json");
    let document = serde_json::from_str(&output_of(machine, &all)).expect("--json prints JSON");
    json_schema::check(words[0], &document);
    document
}

/// The error message of the tool, which must fail with this exit code.
#[track_caller]
pub fn failed(machine: &Machine, words: &[&str], code: i32) -> String {
    let output = tool(machine, words);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
    assert_eq!(text(&output), String::from_utf8_lossy(&output.stderr));
    text(&output)
}

/// Runs a command line that a message suggests, in a shell.
pub fn shell(line: &str) -> Output {
    let program = Hook::operator().command().get_program().to_owned();
    let dir = PathBuf::from(program);
    let dir = dir.parent().expect("the tool is in a directory");
    let path = std::env::var("PATH").unwrap_or_default();
    Command::new("sh")
        .args(["-c", line])
        .env("PATH", format!("{}:{path}", dir.display()))
        .output()
        .expect("start a shell")
}

/// A verb that runs until this is dropped.
pub struct Running {
    process: Child,
    output: PathBuf,
}

impl Running {
    pub fn start(machine: &Machine, verb: &[&str]) -> Self {
        let output = machine.scratch("running.out");
        let file = File::create(&output).expect("make a file for the tool's output");
        let mut command = Hook::operator().command();
        command.args(verb).arg("--state-dir").arg(machine.state_dir());
        command
            .arg("--config")
            .arg(machine.config())
            .stdin(Stdio::null())
            .stdout(file);
        let process = command.spawn().expect("start the tool");
        Self { process, output }
    }

    /// Waits until this is in the output.
    #[track_caller]
    pub fn eventually_prints(&self, text: &str) {
        eventually(&format!("the tool says {text:?}"), || {
            self.output().contains(text)
        });
    }

    /// The output so far.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.output).expect("read the tool's output")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
