//! The tool, started in a scratch directory, and what it finds there.

use std::process::{Command, Output};

use oci_hotplug::host::config::Config;
use oci_hotplug::model::policy::Policy;

use super::record::write_record;

pub fn tool(arguments: &[&str]) -> Output {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    tool_with(scratch.path(), arguments)
}

pub fn tool_with(state_dir: &std::path::Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_oci-hotplug"))
        .env_remove("OCI_HOTPLUG_CONFIG")
        .arg("--state-dir")
        .arg(state_dir)
        .args(arguments)
        .output()
        .expect("start oci-hotplug")
}

pub fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).expect("JSON")
}

pub fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A state directory with a container of podman's, and podman's store that has its name.
pub fn with_a_container_of_podman(scratch: &std::path::Path) -> std::path::PathBuf {
    let id = "0a1b2c3d4e5f".repeat(6)[..64].to_owned();
    let store = scratch.join("overlay-containers");
    std::fs::create_dir_all(&store).expect("podman's store");
    std::fs::write(
        store.join("containers.json"),
        format!(r#"[{{"id":"{id}","names":["robot"]}}]"#),
    )
    .expect("podman's index");
    let bundle = store.join(&id).join("userdata");
    let state_dir = scratch.join("state");
    write_record(&state_dir, &id, |record| {
        record["container"]["bundle"] = serde_json::json!(bundle);
        record["requests"] = serde_json::json!([{ "origin": "annotation", "request": "usb:0403:6001" }]);
    });
    state_dir
}

/// A record as version `version` of a container whose process has never been.
pub fn record(scratch: &std::path::Path, id: &str, version: u32) -> std::path::PathBuf {
    write_record(scratch, id, |record| {
        record["version"] = serde_json::json!(version)
    })
}

/// A configuration with its drop-ins in a scratch directory, and the tool that uses it.
pub struct Configured {
    pub scratch: tempfile::TempDir,
}

impl Configured {
    pub fn new(text: &str) -> Self {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        std::fs::write(scratch.path().join("config.toml"), text).expect("write a configuration");
        Self { scratch }
    }

    pub fn path(&self) -> std::path::PathBuf {
        self.scratch.path().join("config.toml")
    }

    pub fn state_dir(&self) -> std::path::PathBuf {
        self.scratch.path().join("state dir")
    }

    pub fn load(&self) -> Config {
        Config::load(Some(&self.path()), Some(&self.state_dir())).expect("the configuration can be used")
    }

    pub fn policy(&self) -> Policy {
        self.load().policy().expect("the policy can be used")
    }

    pub fn tool(&self, words: &[&str]) -> Output {
        let config = self.path();
        let mut all = vec!["--config", config.to_str().expect("scratch paths are text")];
        all.extend(words);
        tool_with(&self.state_dir(), &all)
    }

    /// What is in config.d, each file with its text.
    pub fn drop_ins(&self) -> Vec<(String, String)> {
        let entries = std::fs::read_dir(self.scratch.path().join("config.d"));
        let mut files: Vec<(String, String)> = entries
            .into_iter()
            .flatten()
            .map(|entry| {
                let entry = entry.expect("an entry");
                let text = std::fs::read_to_string(entry.path()).expect("read a drop-in");
                (entry.file_name().to_string_lossy().into_owned(), text)
            })
            .collect();
        files.sort();
        files
    }
}
