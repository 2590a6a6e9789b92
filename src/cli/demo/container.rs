//! The demo's container, run by runc.

use std::fs::{self, File};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use super::bundle;
use super::setup::{Scratch, TIMEOUT, Tools};

/// The demo's container; deleted when dropped.
pub(super) struct DemoContainer<'a> {
    tools: &'a Tools,
    scratch: &'a Scratch,
    id: String,
}

impl<'a> DemoContainer<'a> {
    pub(super) fn start(tools: &'a Tools, scratch: &'a Scratch, node: &str) -> Result<Self> {
        let bundle = scratch.dir.join("bundle");
        bundle::create(&bundle, tools, scratch, node)?;
        let id = format!("oci-hotplug-demo-{}", std::process::id());
        let container = Self { tools, scratch, id };
        // A file, not a pipe: the container's process keeps it open, and reading a pipe would wait
        // for the end of that process.
        let log = scratch.dir.join("runc.log");
        let run = container
            .runc()
            .args(["run", "--detach", "--bundle"])
            .arg(&bundle)
            .arg(&container.id)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .status()
            .context("cannot start runc")?;
        ensure!(
            run.success(),
            "runc run failed:\n{}",
            fs::read_to_string(&log).unwrap_or_default()
        );
        Ok(container)
    }

    fn runc(&self) -> Command {
        let mut command = Command::new(&self.tools.runc);
        command.arg("--root").arg(self.scratch.dir.join("runc"));
        command
    }

    fn sh(&self, line: &str) -> Result<Output> {
        self.runc()
            .args(["exec", &self.id, "sh", "-c", line])
            .output()
            .context("runc exec")
    }

    /// Runs a command in the container, prints it with its output, and fails unless the output
    /// contains `part`.
    pub(super) fn shows(&self, line: &str, part: &str) -> Result<()> {
        let output = self.sh(line)?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        println!("    inside # {line}");
        for text_line in text.lines() {
            println!("    {text_line}");
        }
        ensure!(text.contains(part), "expected {part:?} in the output");
        Ok(())
    }

    /// Repeats a command in the container until its output is as expected.
    pub(super) fn eventually(&self, line: &str, is_expected: impl Fn(&Output) -> bool) -> Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let output = self.sh(line)?;
            if is_expected(&output) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "`{line}` in the container still prints: {}",
                    String::from_utf8_lossy(&output.stderr)
                );
            }
        }
    }

    pub(super) fn inspect(&self) -> Result<String> {
        let output = Command::new("/proc/self/exe")
            .arg("--state-dir")
            .arg(self.scratch.state_dir())
            .args(["inspect", &self.id])
            .output()
            .context("oci-hotplug inspect")?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().map(|line| format!("    {line}\n")).collect())
    }
}

impl Drop for DemoContainer<'_> {
    fn drop(&mut self) {
        let delete = self.runc().args(["delete", "--force", &self.id]).output();
        match delete {
            Ok(output) if output.status.success() => {}
            Ok(output) => eprintln!(
                "oci-hotplug: runc delete: {}",
                String::from_utf8_lossy(&output.stderr)
            ),
            Err(error) => eprintln!("oci-hotplug: runc delete: {error}"),
        }
    }
}
