//! Attacks of containers, which change their files without pause, or put other things at the paths
//! of devices. Static obstacles in images are in `obstacles`.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::attacks::{bait, nothing_is_in};
use crate::framework::disk::number_of;
use crate::framework::eventually::{DEADLINE, wait_within, within};
use crate::framework::{Bundle, Disk, Hook, Machine, RuncContainer, alone, eventually};
use crate::silent_server::SilentServer;
use crate::skipped::skipped;

#[apply(on_both_hierarchies)]
fn a_container_that_races_gains_nothing_and_others_work(machine: &Machine) {
    let bait = bait(machine);
    for user_namespace in [false, true] {
        let disk = Disk::new(machine);
        let request = format!(
            "devnode:{};path=/dev/way/node;link=/dev/way/link,devnode:{}",
            disk.partition(1),
            disk.partition(2)
        );
        let bundle = Bundle::requesting(machine, &request);
        let container = bundle.with_user_namespace(user_namespace).start();
        let racer = racer(&container, &bait);
        for round in 0..40 {
            println!("user namespace: {user_namespace}, round {round}");
            disk.plug(1);
            disk.plug(2);
            container.eventually_reads(&disk.partition(2), &disk.content(2));
            disk.unplug(1);
            disk.unplug(2);
            container.eventually_lacks(&disk.partition(2));
        }
        racer.rest(&container);
        nothing_is_in(&bait);
        // When the container stops its changes, it gets what it requested.
        let mut last = None;
        let clear = within(DEADLINE, || {
            let cleared =
                container.inside("rm -rf /dev/way; ls -lR /dev/way; ! [ -e /dev/way ] && ! [ -L /dev/way ]");
            let is_clear = cleared.status == 0;
            last = Some(cleared);
            is_clear.then_some(())
        });
        assert!(
            clear.is_some(),
            "the container cannot clear the way: {last:?}; {}",
            machine.end_of_log()
        );
        disk.plug(1);
        container.eventually_reads("/dev/way/node", &disk.content(1));
        container.eventually_reads("/dev/way/link", &disk.content(1));
        container.expect_watcher();
        let deleted = container.delete();
        nothing_is_in(&bait);
        assert_eq!(
            machine.traces(),
            Vec::<PathBuf>::new(),
            "user namespace: {user_namespace}; delete: {deleted:?}; {}",
            machine.end_of_log()
        );
    }
}

/// A process in the container that runs until it is requested to end. It ends with the container at
/// the latest.
struct Racer(Child);

impl Racer {
    fn rest(mut self, container: &RuncContainer<'_>) {
        container.inside("rm /nodes/race");
        assert!(wait_within(&mut self.0, DEADLINE).is_some(), "the racer rests");
    }
}

/// Starts a loop that exchanges /dev/way and what is in it without pause, as the container's root.
fn racer(container: &RuncContainer<'_>, bait: &Path) -> Racer {
    let script = format!(
        "echo >/nodes/race; echo; while [ -e /nodes/race ]; do mkdir /dev/way; ln -s {bait} /dev/way/node; ln -s /bin/sh /dev/way/link; rm -rf /dev/way; \
         ln -s {bait} /dev/way; rm -f /dev/way; mkfifo /dev/way; rm -f /dev/way; mkdir -p /dev/way/node/x; rm -rf /dev/way; \
         mkdir /dev/way; mkfifo /dev/way/node; mv /dev/way /dev/else; ln -s else /dev/way; rm -rf /dev/else /dev/way; done",
        bait = bait.display()
    );
    let mut command = container.command(&["exec", "--user", "0:0"], &["/bin/sh", "-c", &script]);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("start runc exec");
    let mut message = child.stdout.take().expect("a pipe was requested");
    std::io::Read::read_exact(&mut message, &mut [0]).expect("the racer runs");
    Racer(child)
}

#[apply(on_both_hierarchies)]
fn sockets_mounts_and_immutable_directories_affect_only_their_device(machine: &Machine) {
    let disk = Disk::new(machine);
    let request = format!(
        "devnode:{};path=/dev/way/node;link=/dev/other/link,devnode:{}",
        disk.partition(1),
        disk.partition(2)
    );
    let container = Bundle::requesting(machine, &request).start();
    let inside = |path: &str| PathBuf::from(format!("/proc/{}/root{path}", container.pid));
    let refused_with = |path: &str| {
        disk.plug(1);
        disk.plug(2);
        container.eventually_reads(&disk.partition(2), &disk.content(2));
        eventually(&format!("inspect names {path}"), || {
            problems(machine, &container).contains(path)
        });
        disk.unplug(1);
        disk.unplug(2);
        container.eventually_lacks(&disk.partition(2));
    };

    let listener = UnixListener::bind(inside("/dev/way")).expect("make a socket");
    refused_with("/dev/way");
    drop(listener);
    fs::remove_file(inside("/dev/way")).expect("remove the socket");

    let enter = |command: &[&str]| {
        let status = Command::new("nsenter")
            .args([
                "--target",
                &container.pid.to_string(),
                "--mount",
                "--root",
                "/bin/busybox",
            ])
            .args(command)
            .status()
            .expect("start nsenter");
        assert!(status.success(), "{command:?}");
    };
    enter(&["mkdir", "/dev/way"]);
    enter(&["mount", "-t", "tmpfs", "attack", "/dev/way"]);
    refused_with("/dev/way");
    nothing_is_in(&inside("/dev/way"));
    enter(&["umount", "/dev/way"]);

    let chattr = |change: &str| {
        let status = Command::new("chattr")
            .arg(change)
            .arg(inside("/dev/way"))
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success())
    };
    if chattr("+i") {
        refused_with("/dev/way");
        assert!(chattr("-i"));
    } else {
        skipped("an immutable directory: this kernel's tmpfs has none (Linux 6.6 has)");
    }

    // The path of the link is taken: the node is created anyway.
    enter(&["mkfifo", "/dev/other"]);
    refused_with("/dev/other");
    enter(&["rm", "/dev/other"]);
    disk.plug(1);
    container.eventually_reads("/dev/way/node", &disk.content(1));
    container.eventually_reads("/dev/other/link", &disk.content(1));
}

/// Case security 1.
#[apply(on_both_hierarchies)]
fn a_file_system_that_never_answers_delays_neither_revocation_nor_others(machine: &Machine) {
    // It needs a number that was used before.
    alone();
    let disk = Disk::new(machine);
    let request = format!(
        "devnode:{};path=/dev/way/node,devnode:{};link=/data/board,devnode:{},devnode:{}",
        disk.partition(1),
        disk.partition(2),
        disk.partition(3),
        disk.partition(4),
    );
    let container = Bundle::requesting(machine, &request)
        .capability("CAP_MKNOD")
        .start();
    let way = mount_silent(&container, "/dev/way", true);
    let volume = mount_silent(&container, "/data", true);
    disk.plug(1);
    disk.plug(2);
    disk.plug(3);
    container.eventually_reads(&disk.partition(2), &disk.content(2));
    container.eventually_reads(&disk.partition(3), &disk.content(3));
    for path in ["/dev/way", "/data"] {
        eventually(&format!("inspect names {path}"), || {
            problems(machine, &container).contains(&format!("{path} in the container is a mount"))
        });
    }

    // The container creates another node with the number, and mounts the file system over ours.
    let number = number_of(&disk.partition(3));
    let copy = container.make_node("copy", 'b', number);
    container.reads(&copy, &disk.content(3));
    let place = mount_silent(&container, &disk.partition(3), false);
    disk.unplug(3);
    container.eventually_refuses(&copy);
    let another = Disk::new(machine);
    another.plug_with_number(1, number);
    assert!(container.is_refused(&copy), "another disk has the number now");
    disk.plug(4);
    container.eventually_reads(&disk.partition(4), &disk.content(4));

    for server in [&way, &volume, &place] {
        server.expect_no_request();
    }
    let watcher = container.expect_watcher();
    let started = Instant::now();
    let deleted = container.delete();
    assert!(deleted.status.success(), "{deleted:?}");
    watcher.eventually_ends();
    let took = started.elapsed();
    // The servers never answer: a poststop that waited for one would block for ever.
    assert!(took < Duration::from_secs(10), "poststop took {took:?}");
}

/// Mounts a file system that never answers over a path of the container. The path is created if it
/// does not exist.
fn mount_silent(container: &RuncContainer<'_>, path: &str, is_directory: bool) -> SilentServer {
    let device = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .expect("open /dev/fuse");
    let make = if is_directory { "mkdir -p" } else { "test -e" };
    let options = SilentServer::options(0, is_directory);
    let script = format!("{make} {path} && busybox mount -i -t fuse -o {options} silent {path}");
    let mounted = Command::new("nsenter")
        .args(["--target", &container.pid.to_string(), "--mount", "--root"])
        .args(["/bin/busybox", "sh", "-c", &script])
        .stdin(device.try_clone().expect("copy a descriptor"))
        .output()
        .expect("start nsenter");
    assert!(mounted.status.success(), "{script}: {mounted:?}");
    SilentServer::start(device)
}

/// The problems that `oci-hotplug inspect` shows.
fn problems(machine: &Machine, container: &RuncContainer<'_>) -> String {
    let state_dir = machine.state_dir();
    let output = Hook::operator().run(
        &[
            "--state-dir",
            &state_dir.display().to_string(),
            "--json",
            "inspect",
            &container.id,
        ],
        "",
    );
    let value: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("inspect: {error}: {output:?}"));
    value["status"]["problems"].to_string()
}
