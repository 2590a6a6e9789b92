//! Watchers that run during the installation.

use std::fs;
use std::process::{Child, Command};

use super::{Root, WATCHER};

/// Ends with its test, also when that fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process that runs the watcher's file, and that is what counts.
fn sleeping_watcher(root: &Root) -> Running {
    // By cp(1): an executable that this process has written itself cannot be started while another
    // thread forks (ETXTBSY).
    let status = Command::new("cp")
        .arg("/bin/sleep")
        .arg(root.path(WATCHER))
        .status();
    assert!(status.unwrap().success(), "copy sleep");
    Running(Command::new(root.path(WATCHER)).arg("600").spawn().unwrap())
}

#[test]
fn while_watchers_run_uninstalling_needs_force() {
    let root = Root::new();
    root.install();
    let watcher = sleeping_watcher(&root);
    let (text, fine) = root.script(&["--uninstall"], None);
    assert!(
        !fine && text.contains(&format!("(processes {})", watcher.0.id())),
        "{text}"
    );
    assert!(root.path("usr/bin/oci-hotplug").exists());
    let (text, fine) = root.script(&["--uninstall", "--force"], None);
    assert!(fine && root.is_bare(), "{text}");
}

/// And what runs is not disturbed.
#[test]
fn an_update_says_how_watchers_that_run_get_the_new_version() {
    let root = Root::new();
    root.install();
    let watcher = sleeping_watcher(&root);
    let text = root.install();
    assert!(
        text.contains(&format!("(processes {})", watcher.0.id()))
            && text.contains("oci-hotplug recover --restart-watchers"),
        "{text}"
    );
    // Replaced by rename: what runs is as it was.
    let runs = fs::read_link(format!("/proc/{}/exe", watcher.0.id())).unwrap();
    assert!(
        runs.to_string_lossy().ends_with(" (deleted)"),
        "{}",
        runs.display()
    );
}
