//! What the demo needs: programs, and a directory with a configuration.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::host::programs;

/// The default policy allows only USB devices. Every host has loop devices.
const CONFIG: &str = "[[policy.allow]]\ndevices = [\"subsystem:block\"]\n";

/// How long a step may take.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// The programs that the demo needs, and our own.
pub(super) struct Tools {
    pub(super) runc: PathBuf,
    pub(super) busybox: PathBuf,
    pub(super) prestart: PathBuf,
    pub(super) poststop: PathBuf,
}

impl Tools {
    pub(super) fn find() -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "cannot run the demo: it starts a container and plugs a disk (run it as root)"
        );
        Ok(Self {
            runc: in_path("runc", "apt-get install runc")?,
            busybox: in_path("busybox", "apt-get install busybox-static")?,
            prestart: programs::find("oci-hotplug-prestart")?,
            poststop: programs::find("oci-hotplug-poststop")?,
        })
    }
}

fn in_path(name: &str, hint: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
        .with_context(|| format!("{name} is not installed ({hint})"))
}

/// The demo's directory; removed when dropped.
pub(super) struct Scratch {
    pub(super) dir: PathBuf,
}

impl Scratch {
    pub(super) fn new() -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("oci-hotplug-demo-{}", std::process::id()));
        fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let scratch = Self { dir };
        fs::write(scratch.config(), CONFIG).context("cannot write a configuration")?;
        Ok(scratch)
    }

    pub(super) fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    pub(super) fn config(&self) -> PathBuf {
        self.dir.join("config.toml")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            eprintln!("oci-hotplug: cannot remove {}: {error}", self.dir.display());
        }
    }
}
