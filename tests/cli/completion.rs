//! The completions, in real shells on a terminal: words are typed, the tabulator is pressed, and
//! the line that came of it is printed.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use super::scene::with_a_container_of_podman;

/// A directory with the completions, and the configuration that has a class and a container.
struct Scene {
    scratch: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let state = with_a_container_of_podman(scratch.path());
        let config = format!("state-dir = {:?}\n[class.lab]\ndevices = [\"usb:0403\"]\n", state);
        fs::write(scratch.path().join("config.toml"), config).expect("write a configuration");
        let docs = Command::new(env!("CARGO_BIN_EXE_oci-hotplug"))
            .arg("generate-docs")
            .arg(scratch.path())
            .status();
        assert!(docs.expect("start oci-hotplug").success());
        Self { scratch }
    }

    fn path(&self) -> &Path {
        self.scratch.path()
    }

    /// The line that this shell makes of typed words when the tabulator is pressed behind them.
    fn completed(&self, shell: &str, begin: &str, words: &str) -> String {
        let bin = Path::new(env!("CARGO_BIN_EXE_oci-hotplug"))
            .parent()
            .expect("a directory");
        let path = std::env::var("PATH").expect("PATH");
        let mut terminal = Command::new("script")
            .args(["-qec", shell, "/dev/null"])
            .current_dir(self.path())
            .env("PATH", format!("{}:{path}", bin.display()))
            .env("OCI_HOTPLUG_CONFIG", self.path().join("config.toml"))
            .env("HOME", self.path())
            .env("TERM", "dumb")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("start script (package bsdutils)");
        let mut keys = terminal.stdin.take().expect("its input");
        // Ctrl-A: to the beginning of the line.
        let typed = format!("{begin}\n{words}\t\u{1}echo \"<\"\u{5}\">\"\nexit\n");
        keys.write_all(typed.as_bytes()).expect("type");
        drop(keys);
        let output = terminal.wait_with_output().expect("what is on the terminal");
        let seen = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = seen.lines().rev().find_map(|line| {
            let line = line.trim().strip_prefix('<')?.strip_suffix('>')?;
            Some(line.trim_end().to_owned())
        });
        line.unwrap_or_else(|| panic!("{shell}: {seen}"))
    }
}

/// What is typed, and the line that it becomes.
const COMPLETED: [(&str, &str); 7] = [
    ("oci-hotplug insp", "oci-hotplug inspect"),
    ("oci-hotplug cdi val", "oci-hotplug cdi validate"),
    ("oci-hotplug inspect ro", "oci-hotplug inspect robot"),
    (
        "oci-hotplug events --container ro",
        "oci-hotplug events --container robot",
    ),
    ("oci-hotplug class remove l", "oci-hotplug class remove lab"),
    (
        "oci-hotplug attach robot class:l",
        "oci-hotplug attach robot class:lab",
    ),
    (
        "oci-hotplug attach robot /dev/nul",
        "oci-hotplug attach robot /dev/null",
    ),
];

fn completes(shell: &str, begin: &str) {
    let scene = Scene::new();
    for (typed, expected) in COMPLETED {
        assert_eq!(scene.completed(shell, begin, typed), expected, "{shell}: {typed}");
    }
}

#[test]
fn bash_completes_verbs_containers_and_classes() {
    completes(
        "bash --norc --noprofile -i",
        "source completions/oci-hotplug.bash",
    );
}

#[test]
fn zsh_completes_verbs_containers_and_classes() {
    completes(
        "zsh -f -i",
        "bindkey -e; fpath=($PWD/completions $fpath); autoload -U compinit; compinit -u -D",
    );
}

#[test]
fn fish_completes_verbs_containers_and_classes() {
    completes("fish --no-config -i", "source completions/oci-hotplug.fish");
}
