//! Which container a record, a watcher and a cgroup belong to: its init process decides, with its start time, and not the
//! id alone.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::framework::container::text;
use crate::framework::machine::CGROUP_PARENT;
use crate::framework::{Bundle, Disk, Machine, RuncContainer};

on_both_hierarchies!(two_runtime_roots_with_one_id);

const NOTHING: Vec<PathBuf> = Vec::new();

/// A container with the id of another one, in another runtime root: `runc --root`.
struct Namesake<'m> {
    machine: &'m Machine,
    id: String,
    bundle: PathBuf,
}

impl<'m> Namesake<'m> {
    /// A copy of the bundle, changed, with a cgroup of its own.
    fn of(machine: &'m Machine, container: &RuncContainer<'_>, change: impl FnOnce(&mut Value)) -> Self {
        let bundle = machine
            .scratch("bundles")
            .join(format!("{}-namesake", container.id));
        let copied = Command::new("cp")
            .arg("-a")
            .arg(&container.bundle)
            .arg(&bundle)
            .status();
        assert!(copied.expect("start cp").success());
        let path = bundle.join("config.json");
        let text = fs::read(&path).expect("read a config.json");
        let mut config: Value = serde_json::from_slice(&text).expect("config.json is JSON");
        config["linux"]["cgroupsPath"] = json!(format!("/{CGROUP_PARENT}/{}-namesake", container.id));
        change(&mut config);
        fs::write(&path, config.to_string()).expect("write a config.json");
        Self {
            machine,
            id: container.id.clone(),
            bundle,
        }
    }

    fn runc(&self, before: &[&str]) -> Output {
        let log = fs::File::create(self.bundle.join("runc.log")).expect("make a log");
        let mut command = Command::new("runc");
        command.arg("--root").arg(self.machine.scratch("other-runc"));
        // The container's process keeps the output: a pipe would not end.
        let status = command
            .args(before)
            .arg(&self.id)
            .stdin(std::process::Stdio::null())
            .stdout(log.try_clone().expect("share a log"))
            .stderr(log)
            .status()
            .expect("start runc");
        Output {
            status,
            stdout: fs::read(self.bundle.join("runc.log")).expect("read a log"),
            stderr: Vec::new(),
        }
    }

    fn create(&self) -> Output {
        let bundle = self.bundle.to_str().expect("scratch paths are text");
        self.runc(&["create", "--bundle", bundle])
    }
}

impl Drop for Namesake<'_> {
    fn drop(&mut self) {
        let _ = self.runc(&["delete", "--force"]);
    }
}

/// Case security 6.
fn two_runtime_roots_with_one_id(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let container = Bundle::asking(machine, &format!("devnode:{node}"))
        .capability("CAP_MKNOD")
        .start();
    let watcher = container.expect_watcher();
    let keeps_all = || {
        assert!(watcher.is_alive());
        assert_eq!(container.expect_watcher(), watcher);
        container.reads(&node, &disk.content(1));
    };

    // One that requests devices is refused, with the reason; runc then runs its poststop hook.
    let second = Namesake::of(machine, &container, |_| {});
    let output = second.create();
    assert!(!output.status.success(), "{}", text(&output));
    let reason = format!(
        "container id {} is in use by another running container (process {}, bundle {})",
        container.id,
        container.pid,
        container.bundle.display()
    );
    assert!(text(&output).contains(&reason), "{}", text(&output));
    drop(second);
    keeps_all();

    // One that requests nothing comes and goes.
    fs::remove_dir_all(
        machine
            .scratch("bundles")
            .join(format!("{}-namesake", container.id)),
    )
    .expect("remove a bundle");
    let second = Namesake::of(machine, &container, |config| config["annotations"] = json!({}));
    let output = second.create();
    assert!(output.status.success(), "{}", text(&output));
    let output = second.runc(&["delete", "--force"]);
    assert!(output.status.success(), "{}", text(&output));
    keeps_all();
    let own = container.make_node("own", 'b', crate::framework::disk::number_of(&node));
    disk.unplug(1);
    container.eventually_lacks(&node);
    container.eventually_refuses(&own);

    assert!(container.delete().status.success());
    assert!(!watcher.is_alive());
    assert_eq!(machine.traces(), NOTHING);
}
