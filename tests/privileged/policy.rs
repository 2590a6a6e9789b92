//! The policy: what it denies to an annotation at the start and at a plug, what rules and classes
//! allow, and how a changed policy takes effect.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, socket};
use nix::unistd::Pid;

use crate::framework::hook::oci_state;
use crate::framework::machine::PERMISSIVE;
use crate::framework::tool::{shell, tool};
use crate::framework::{Bundle, Disk, Hook, Machine, RuncContainer, Terminal, eventually};

const NOTHING: Vec<PathBuf> = Vec::new();

fn inspect(machine: &Machine, container: &RuncContainer<'_>) -> String {
    let state_dir = machine.state_dir();
    let state_dir = state_dir.to_str().expect("scratch paths are text");
    let output = Hook::operator().run(
        &["inspect", &container.id, "--json", "--state-dir", state_dir],
        "",
    );
    String::from_utf8(output.stdout).expect("JSON is text")
}

/// Waits until `inspect` shows all of these words.
#[track_caller]
pub fn eventually_shows(machine: &Machine, container: &RuncContainer<'_>, words: &[&str]) {
    eventually(&format!("inspect of {} shows {words:?}", container.id), || {
        let shown = inspect(machine, container);
        words.iter().all(|word| shown.contains(word))
    });
}

pub fn reread(container: &RuncContainer<'_>) {
    let watcher = container.expect_watcher();
    kill(Pid::from_raw(watcher.pid), Signal::SIGHUP).expect("send SIGHUP to the watcher");
}

#[apply(on_both_hierarchies)]
fn a_certain_denial_has_exit_code_3_and_the_rule_to_add(machine: &Machine) {
    let classes_only = "[policy]\nclasses-only = true\n";
    for (config, request, words) in [
        (
            "",
            "devnode:/dev/mem",
            [
                "protected: memory",
                "class add devnode-dev-mem 'devnode:/dev/mem'",
                "request class:devnode-dev-mem",
            ],
        ),
        (
            "",
            "devnode:/dev/kvm",
            [
                "protected: virtualization",
                "to allow it, run `oci-hotplug ",
                "allow 'devnode:/dev/kvm'`",
            ],
        ),
        (
            classes_only,
            "usb:0403",
            [
                "classes-only",
                "class add usb-0403 'usb:0403'",
                "request class:usb-0403",
            ],
        ),
        (
            "",
            "usbip:lab/0403:6001",
            [
                "another host",
                "to allow all devices of that host",
                "allow 'usbip:lab'`",
            ],
        ),
    ] {
        machine.configure(config);
        let bundle = Bundle::requesting(machine, request);
        bundle.write();
        let directory = bundle.directory();
        let state = oci_state(
            &bundle.id,
            "creating",
            &std::process::id().into(),
            directory.to_str().expect("scratch paths are text"),
        );
        let output = Hook::prestart(machine, &[]).run(&[], &state);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{message}");
        assert!(
            message.contains(&format!("device request {request:?}")),
            "{message}"
        );
        for word in words {
            assert!(message.contains(word), "{word:?} is not in: {message}");
        }
    }
    assert_eq!(machine.traces(), NOTHING);
}

#[apply(on_both_hierarchies)]
fn a_denied_present_device_prevents_the_start(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    machine.configure("");
    let refusal = match Bundle::requesting(machine, &format!("devnode:{node}")).try_create() {
        Ok(container) => panic!("{} was created", container.id),
        Err(refusal) => refusal.message,
    };
    let line = format!("allow 'devnode:{node}'");
    // runc escapes quotes in its log.
    let plain = refusal.replace('\\', "");
    for word in ["default = \"removable\"", &line] {
        assert!(plain.contains(word), "{word} is not in: {refusal}");
    }
    eventually("nothing is left", || machine.traces() == NOTHING);
}

/// Runs the command that an error suggests, in a shell; returns the request that the container
/// should use then.
fn follow_the_hint(refusal: &str) -> String {
    let plain = refusal.replace("\\\"", "\"");
    let (_, rest) = plain.split_once("run `").expect("a command");
    let (command, rest) = rest.split_once("` and request ").expect("the class");
    let output = shell(command);
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let end = rest.find(|letter: char| !(letter.is_ascii_alphanumeric() || ":-".contains(letter)));
    rest[..end.unwrap_or(rest.len())].to_owned()
}

#[apply(on_both_hierarchies)]
fn the_hint_for_a_denied_parent_works(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let request = format!("parent-of:devnode:{node}");
    for config in ["", "[policy]\ndefault = \"nothing\"\n"] {
        machine.configure(config);
        let refusal = match Bundle::requesting(machine, &request).try_create() {
            Ok(container) => panic!("{} was created", container.id),
            Err(refusal) => refusal.message,
        };
        let request = follow_the_hint(&refusal);
        let container = Bundle::requesting(machine, &request).start();
        container.reads(&node, &disk.content(1));
        assert!(container.has(&disk.node), "the disk above it");
        container.delete();
    }
}

#[apply(on_both_hierarchies)]
fn the_policy_is_applied_at_a_plug_and_when_it_changes(machine: &Machine) {
    let terminal = Terminal::new();
    machine.configure("");
    // Not with `devnode:`, which would be refused at the start.
    let request = format!("subsystem:vc&glob:{}", terminal.node());
    let container = Bundle::requesting(machine, &request).start();
    let node = terminal.plug();
    eventually_shows(machine, &container, &["protected: console", &node]);
    assert!(!container.has(&node));
    machine.configure(PERMISSIVE);
    reread(&container);
    container.eventually_reads(&node, &terminal.content());
    machine.configure("[policy]\ndefault = \"whatever\"\n");
    reread(&container);
    eventually_shows(
        machine,
        &container,
        &["config.toml", "line 2", "the previous policy stays in force"],
    );
    container.reads(&node, &terminal.content());
    machine.configure("[[policy.deny]]\ndevices = [\"subsystem:vc\"]\nreason = \"screens are private\"\n");
    reread(&container);
    container.eventually_lacks(&node);
    eventually_shows(
        machine,
        &container,
        &["[[policy.deny]] at ", "line 1", "screens are private"],
    );
    let log = machine.log();
    assert_eq!(
        log.matches("screens are private").count(),
        1,
        "logged more than once: {log}"
    );
    terminal.unplug();
}

/// Case newcomer: one broken drop-in.
#[apply(on_both_hierarchies)]
fn a_drop_in_rule_allows_and_a_broken_drop_in_denies_only_what_it_may_concern(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    machine.configure("");
    let directory = machine.scratch("config.d");
    fs::create_dir(&directory).expect("make a directory");
    let rule = "[[policy.allow]]\ndevices = [\"subsystem:block\"]\naccess = \"r\"\n\
                annotations = { \"engine.namespace\" = \"lab-*\" }\n";
    fs::write(directory.join("10-lab.toml"), rule).expect("write a drop-in");
    let request = format!("devnode:{node};access=r");
    let container = Bundle::requesting(machine, &request)
        .annotation("engine.namespace", "lab-7")
        .start();
    container.reads(&node, &disk.content(1));
    assert!(container.is_write_refused(&node));
    let other = Bundle::requesting(machine, &request).annotation("engine.namespace", "shop");
    assert!(other.try_create().is_err(), "the rule is not for this namespace");
    fs::write(
        directory.join("20-bad.toml"),
        "[policy]\ndefualt = \"anything\"\n",
    )
    .expect("write a drop-in");
    let refusal = match Bundle::requesting(machine, "usb:0403").try_create() {
        Ok(container) => panic!("{} was created", container.id),
        Err(refusal) => refusal.message,
    };
    assert!(
        refusal.contains("20-bad.toml")
            && refusal.contains("line 2")
            && refusal.contains("fix or remove that file"),
        "{refusal}"
    );
    // Running containers are not affected, and requests of root work, even with a watcher that
    // starts now.
    container.reads(&node, &disk.content(1));
    fs::write(
        directory.join("30-class.toml"),
        format!("[class.data]\ndevices = [\"devnode:{node}\"]\n"),
    )
    .expect("write a drop-in");
    let trusted = Bundle::requesting(machine, "class:data").start();
    trusted.reads(&node, &disk.content(1));
    trusted.expect_watcher().kill();
    let recovered = tool(machine, &["recover"]);
    assert!(recovered.status.success(), "{recovered:?}");
    trusted.expect_watcher();
    trusted.reads(&node, &disk.content(1));
    let listed = format!("{:?}", tool(machine, &["list"]));
    assert!(listed.contains(&trusted.id), "{listed}");
    trusted.delete();
    // The broken file may have a rule for all requests.
    fs::write(
        directory.join("20-bad.toml"),
        "[[policy.deny]] devices = [\"subsystem:block\"]\n",
    )
    .expect("write a drop-in");
    assert!(Bundle::requesting(machine, "class:data").try_create().is_err());
    fs::write(machine.config(), "rubbish").expect("write a configuration");
    assert!(Bundle::requesting(machine, "class:data").try_create().is_err());
    let without_requests = Bundle::new(machine).start();
    without_requests.delete();
}

#[apply(on_both_hierarchies)]
fn trusted_requests_are_allowed(machine: &Machine) {
    let disk = Disk::new(machine);
    let (first, second) = (disk.plug(1), disk.plug(2));
    machine.configure(&format!(
        "[policy]\nclasses-only = true\ndefault = \"nothing\"\n[class.data]\ndevices = [\"devnode:{first};access=r\"]\n"
    ));
    let container = Bundle::requesting(machine, "class:data;access=rw")
        .hook_arguments(&["--device", &format!("devnode:{second}")])
        .start();
    container.reads(&first, &disk.content(1));
    assert!(
        container.is_write_refused(&first),
        "an annotation gets no more than the class gives"
    );
    container.reads(&second, &disk.content(2));
    machine.configure("[[policy.deny]]\ndevices = [\"subsystem:block\"]\napplies-to = \"all\"\n");
    reread(&container);
    container.eventually_lacks(&first);
    container.eventually_lacks(&second);
}

#[apply(on_both_hierarchies)]
fn a_disk_that_the_host_mounts_is_detached(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let made = Command::new("mke2fs")
        .args(["-q", "-F", &node])
        .status()
        .expect("start mke2fs (package e2fsprogs)");
    assert!(made.success());
    let point = machine.scratch("mounted");
    fs::create_dir(&point).expect("make a mount point");
    let other = disk.plug(2);
    let container = Bundle::requesting(
        machine,
        &format!("devnode:{node},devnode:{other},parent-of:devnode:{other}"),
    )
    .start();
    assert!(container.has(&node) && container.has(&other) && container.has(&disk.node));
    mount(
        Some(node.as_str()),
        &point,
        Some("ext4"),
        MsFlags::empty(),
        None::<&str>,
    )
    .expect("mount a partition");
    // The whole disk and all its partitions: writing to one of its nodes may change all of them.
    for path in [&node, &other, &disk.node] {
        container.eventually_lacks(path);
    }
    eventually_shows(machine, &container, &["protected: host-disk", &node, &disk.node]);
    let refusal = Bundle::requesting(machine, &format!("devnode:{node}")).try_create();
    assert!(refusal.is_err_and(|refusal| refusal.message.contains("protected: host-disk")));
    umount2(&point, MntFlags::empty()).expect("unmount a partition");
    eventually("what is unmounted comes back", || {
        container.has(&node) && container.has(&disk.node)
    });
}

/// (With a server and its devices: tests/vm/usbip/.)
#[apply(on_both_hierarchies)]
fn a_remote_device_needs_a_rule_and_is_tried_while_the_container_runs(machine: &Machine) {
    // Bound, so that no other process gets the port, but not listening.
    let flags = SockFlag::SOCK_CLOEXEC;
    let bound = socket(AddressFamily::Inet, SockType::Stream, flags, None).expect("a socket");
    bind(bound.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).expect("a port");
    let server = getsockname::<SockaddrIn>(bound.as_raw_fd()).expect("its number");
    let request = format!("usbip:{server}/0403:6001");
    machine.configure(&format!("[[policy.allow]]\ndevices = [\"usbip:{server}\"]\n"));
    let reason = match Path::new("/sys/devices/platform/vhci_hcd.0").exists() {
        true => "nothing listens there",
        false => "this kernel has no virtual USB host controller",
    };
    let refusal = match Bundle::requesting(machine, &format!("{request};required")).try_create() {
        Ok(container) => panic!("{} was created", container.id),
        Err(refusal) => refusal.message,
    };
    assert!(
        refusal.contains(reason) && refusal.contains("the request is `required`"),
        "{refusal}"
    );
    eventually("nothing is left", || machine.traces() == NOTHING);
    let container = Bundle::requesting(machine, &request).start();
    eventually_shows(machine, &container, &[reason, "trying again"]);
    // A stricter policy ends that.
    machine.configure("");
    reread(&container);
    eventually_shows(machine, &container, &["a device of another host"]);
    assert!(!inspect(machine, &container).contains(reason));
    drop(container);
    eventually("nothing is left", || machine.traces() == NOTHING);
}
