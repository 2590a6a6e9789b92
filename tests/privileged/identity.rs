//! Which container a record and a watcher belong to: its init process with its start time decides,
//! not the id alone.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::framework::container::text;
use crate::framework::disk::number_of;
use crate::framework::hook::inspect_json;
use crate::framework::machine::cgroup_parent;
use crate::framework::{Bundle, Disk, Hook, Machine, RuncContainer, eventually};

const NOTHING: Vec<PathBuf> = Vec::new();

/// A container with the same id as another one, in another runtime root (`runc --root`).
struct Namesake<'m> {
    machine: &'m Machine,
    id: String,
    bundle: PathBuf,
}

impl<'m> Namesake<'m> {
    /// A changed copy of the bundle, with a separate cgroup.
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
        config["linux"]["cgroupsPath"] = json!(format!("/{}/{}-namesake", cgroup_parent(), container.id));
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
        // The container's process keeps the output open: reading a pipe would not end.
        let status = command
            .args(before)
            .arg(&self.id)
            .stdin(Stdio::null())
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
#[apply(on_both_hierarchies)]
fn two_runtime_roots_can_use_one_id(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let container = Bundle::requesting(machine, &format!("devnode:{node}"))
        .capability("CAP_MKNOD")
        .start();
    let watcher = container.expect_watcher();
    let keeps_all = || {
        assert!(watcher.is_alive());
        assert_eq!(container.expect_watcher(), watcher);
        container.reads(&node, &disk.content(1));
    };

    // A container that requests devices is refused, with the reason; runc then runs its poststop
    // hook.
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

    // A container that requests nothing starts and ends.
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
    let own = container.make_node("own", 'b', number_of(&node));
    disk.unplug(1);
    container.eventually_lacks(&node);
    container.eventually_refuses(&own);

    assert!(container.delete().status.success());
    assert!(!watcher.is_alive());
    assert_eq!(machine.traces(), NOTHING);
}

/// Case security 6. The state directory was removed, so the second container could not know about
/// the first.
#[apply(on_both_hierarchies)]
fn a_watcher_whose_id_another_container_has_revokes_its_access(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let container = Bundle::requesting(machine, &format!("devnode:{node}"))
        .capability("CAP_MKNOD")
        .start();
    let watcher = container.expect_watcher();
    container.reads(&node, &disk.content(1));
    let own = container.make_node("own", 'b', number_of(&node));
    container.reads(&own, &disk.content(1));
    watcher.pause();
    fs::remove_dir_all(machine.state_dir().join("containers")).expect("remove the state");
    let second = Namesake::of(machine, &container, |_| {});
    let output = second.create();
    watcher.resume();
    assert!(output.status.success(), "{}", text(&output));
    watcher.eventually_ends();
    container.eventually_lacks(&node);
    container.eventually_refuses(&own);
    drop(second);
    container.delete();
    eventually("nothing is left", || machine.traces() == NOTHING);
}

/// Case security 11.
#[apply(on_both_hierarchies)]
fn a_container_that_can_signal_its_watcher_is_reported_and_the_watcher_notifies_systemd(machine: &Machine) {
    let nothing = "devnode:/dev/oci-hotplug-nothing";
    let [own, hosts] = [
        Bundle::requesting(machine, nothing).start(),
        Bundle::requesting(machine, nothing).host_pids().start(),
    ];
    let shares = |container: &RuncContainer<'_>| {
        let shown: Value = serde_json::from_str(&inspect_json(machine, &container.id)).expect("JSON");
        shown["host_pid_namespace"].as_bool().expect("a truth value")
    };
    assert!(!shares(&own) && shares(&hosts));

    // Like systemd starts a unit's watcher (sd_notify(3), sd_watchdog_enabled(3)).
    let socket = machine.scratch("notify");
    let unit = std::os::unix::net::UnixDatagram::bind(&socket).expect("a socket");
    unit.set_read_timeout(Some(crate::framework::eventually::DEADLINE))
        .expect("a time limit");
    let mut watcher = Hook::watcher(machine)
        .command()
        .args(["--take-over", &hosts.id])
        .env("NOTIFY_SOCKET", &socket)
        .env("WATCHDOG_USEC", "1000000")
        .stdin(Stdio::null())
        .spawn()
        .expect("start a watcher");
    let mut signs = 0;
    while signs < 3 {
        let mut word = [0; 512];
        let length = unit.recv(&mut word).expect("a word of the watcher");
        signs += usize::from(&word[..length] == b"WATCHDOG=1");
    }
    hosts.kill("KILL");
    assert!(watcher.wait().expect("wait for the watcher").success());
    hosts.delete();
    own.delete();
    eventually("nothing is left", || machine.traces() == NOTHING);
}
