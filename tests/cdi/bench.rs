//! Scratch directories with CDI specs, and the program that uses them.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

pub const HOOKS: &str = "/usr/libexec/oci/hooks.d";
pub const BOARD: &str = "oci-hotplug.dev/device=board";

/// Two directories, as `/etc/cdi` and `/var/run/cdi`, and a configuration.
pub struct Bench {
    scratch: tempfile::TempDir,
}

/// The output of a command, and its exit code.
#[derive(Debug)]
pub struct Said {
    pub out: String,
    pub err: String,
    pub code: i32,
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
    pub fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        for dir in ["low", "high"] {
            fs::create_dir(scratch.path().join(dir)).unwrap();
        }
        fs::write(scratch.path().join("config.toml"), "").unwrap();
        Self { scratch }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// A spec of another vendor.
    pub fn foreign(&self, name: &str, kind: &str, device: &str) {
        let text = format!(
            "cdiVersion: 0.5.0\nkind: {kind}\ndevices:\n- name: {device}\n  containerEdits:\n    env: ['FROM={name}']\n"
        );
        self.write(name, &text);
    }

    pub fn run(&self, arguments: &[&str]) -> Said {
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

    pub fn cdi(&self, arguments: &[&str]) -> Said {
        self.run(&[&["cdi"], arguments].concat())
    }

    /// Writes devices into the directory with the lower priority.
    pub fn generate(&self, arguments: &[&str]) -> Said {
        let low = self.path("low");
        let output = ["--output", low.to_str().unwrap(), "--hook-dir", HOOKS];
        self.cdi(&[&["generate"], arguments, &output].concat())
    }

    pub fn files(&self, dir: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path(dir))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

pub fn done(said: Said) -> String {
    assert_eq!(said.code, 0, "{said:?}");
    said.out
}

pub fn json(said: Said) -> Value {
    serde_json::from_str(&done(said)).unwrap()
}
