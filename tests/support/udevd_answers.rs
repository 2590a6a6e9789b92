//! Whether a udevd responds.

use std::path::Path;
use std::process::{Command, Stdio};

/// Whether a udevd responds on /run/udev/control. It listens there 0.2 ms before it receives the
/// kernel's events (systemd 252), and misses those of that time.
pub fn answers() -> bool {
    Path::new("/run/udev/control").exists()
        && Command::new("udevadm")
            .args(["control", "--ping", "--timeout=2"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("start udevadm")
            .success()
}
