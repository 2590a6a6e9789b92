//! packaging/install.sh into a directory that stands for `/`. Needs no privilege and builds
//! nothing: it installs the executables of this test run.

mod again;
mod contents;
#[path = "../support/json_schema.rs"]
mod json_schema;
mod running;
mod uninstall;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const CONFIG: &str = "etc/oci-hotplug/config.toml";
const ANNOTATED: &str = "etc/cdi/oci-hotplug.dev-device_annotated.json";
const WATCHER: &str = "usr/libexec/oci/hooks.d/oci-hotplug-watcher";

/// The executables of this test run without what debuggers read, which would be copied a dozen
/// times.
fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("install");
        fs::create_dir_all(&dir).unwrap();
        for program in [
            env!("CARGO_BIN_EXE_oci-hotplug"),
            env!("CARGO_BIN_EXE_oci-hotplug-prestart"),
            env!("CARGO_BIN_EXE_oci-hotplug-poststop"),
            env!("CARGO_BIN_EXE_oci-hotplug-watcher"),
            env!("CARGO_BIN_EXE_oci-hotplug-usbip"),
        ] {
            let stripped = dir.join(Path::new(program).file_name().unwrap());
            let mut command = Command::new("strip");
            let status = command.arg("-o").arg(&stripped).arg(program).status();
            let status = status.expect("start strip, which comes with the linker (package binutils)");
            assert!(status.success(), "{command:?}: {status}");
        }
        dir
    })
}

struct Root(tempfile::TempDir);

impl Root {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    /// What the script said, standard error behind standard output, and whether it succeeded.
    fn script(&self, arguments: &[&str], prefix: Option<&str>) -> (String, bool) {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(here.join("packaging/install.sh"));
        command
            .args(arguments)
            .env("DESTDIR", self.0.path())
            .env_remove("PREFIX");
        if let Some(prefix) = prefix {
            command.env("PREFIX", prefix);
        }
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (String::from_utf8(text).unwrap(), output.status.success())
    }

    fn install(&self) -> String {
        self.install_with(None)
    }

    fn install_with(&self, prefix: Option<&str>) -> String {
        let bins = programs();
        let (text, fine) = self.script(&["--bin-dir", bins.to_str().unwrap()], prefix);
        assert!(fine, "{text}");
        text
    }

    fn uninstall(&self) -> String {
        let (text, fine) = self.script(&["--uninstall"], None);
        assert!(fine, "{text}");
        text
    }

    /// All files below the root.
    fn files(&self) -> BTreeSet<String> {
        let mut files = BTreeSet::new();
        let mut dirs = vec![self.0.path().to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    dirs.push(entry.path());
                } else {
                    let below = entry.path().strip_prefix(self.0.path()).unwrap().to_owned();
                    files.insert(below.to_str().unwrap().to_owned());
                }
            }
        }
        files
    }

    fn is_bare(&self) -> bool {
        fs::read_dir(self.0.path()).unwrap().next().is_none()
    }
}
