//! Attacks: callers that set up a hostile environment for hooks, unprivileged users on the host who
//! forge uevents and read or write our files, and containers that change their files without pause.
//! Static obstacles in images are in `obstacles`.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::NetlinkAddr;
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::framework::disk::number_of;
use crate::framework::eventually::{DEADLINE, wait_within, within};
use crate::framework::hook::oci_state;
use crate::framework::identity::{self, Identity, NOBODY};
use crate::framework::{Bundle, Disk, Hook, Machine, RuncContainer, Udevd, alone, eventually};
use crate::silent_server::SilentServer;
use crate::skipped::skipped;

/// For each trap, a name for messages and the commands of the shell that then becomes the hook.
fn traps(machine: &Machine, library: &Path, fakes: &Path, full: &Path) -> Vec<(&'static str, String)> {
    let library = library.display();
    let full = full.display();
    vec![
        (
            "a preloaded library",
            format!("export LD_PRELOAD={library} LD_LIBRARY_PATH=/nowhere"),
        ),
        (
            "programs of the caller's choice",
            format!("export PATH={} SHELL=/nowhere IFS=/", fakes.display()),
        ),
        (
            "variables that a program might use",
            format!(
                "export NOTIFY_SOCKET=/nowhere LISTEN_FDS=9 LISTEN_PID=1 TMPDIR={0} HOME={0} XDG_RUNTIME_DIR={0} \
                 RUST_LOG=trace RUST_BACKTRACE=full SYSTEMD_LOG_LEVEL=debug SYSTEMD_LOG_TARGET=console UDEV_LOG=7 \
                 LC_ALL=nonsense TZ=:/nowhere MALLOC_PERTURB_=7 GLIBC_TUNABLES=glibc.malloc.perturb=7",
                fakes.display()
            ),
        ),
        ("umask 0", "umask 0".to_owned()),
        ("umask 0777", "umask 0777".to_owned()),
        (
            "a working directory that is gone",
            format!(
                "mkdir {0} && cd {0} && rmdir {0}",
                machine.scratch("gone").display()
            ),
        ),
        ("outputs that are full", "exec >/dev/full 2>/dev/full".to_owned()),
        ("full outputs without a reader", format!("exec >{full} 2>{full}")),
        ("outputs that are closed", "exec >&- 2>&-".to_owned()),
        ("few descriptors", "ulimit -S -n 5".to_owned()),
        ("no room in files", "ulimit -S -f 0".to_owned()),
        (
            "little memory",
            "prlimit --pid $$ --data=2097152: --as=67108864:".to_owned(),
        ),
        (
            "a small stack and no processes",
            "prlimit --pid $$ --stack=262144 --nproc=0".to_owned(),
        ),
        // Signals that would end a process without handlers: the end of a child, the end of a
        // reader, and requests to end.
        (
            "all signals ignored and blocked",
            "set -- --ignore-signal --block-signal \"$0\" \"$@\"; exec /usr/bin/env \"$@\"".to_owned(),
        ),
    ]
}

#[apply(on_both_hierarchies)]
fn hooks_and_watcher_work_in_a_hostile_environment(machine: &Machine) {
    let seen = machine.scratch("seen");
    let library = preloaded_library(machine, &seen);
    let fakes = fake_programs(machine, &seen);
    let (full, _reader) = pipe_that_nobody_reads(machine);
    let disk = Disk::new(machine);
    for (name, setup) in traps(machine, &library, &fakes, &full) {
        println!("{name}: {setup}");
        disk.plug(1);
        let request = format!("glob:{}p*", disk.node);
        let container = Bundle::requesting(machine, &request).hooks_after(&setup).start();
        container.eventually_reads(&disk.partition(1), &disk.content(1));
        let watcher = container.expect_watcher();
        disk.plug(2);
        container.eventually_reads(&disk.partition(2), &disk.content(2));
        disk.unplug(2);
        container.eventually_lacks(&disk.partition(2));
        assert_eq!(watcher.environment(), "", "{name}");
        assert_eq!(watcher.working_directory(), Path::new("/"), "{name}");
        for limit in ["Max open files", "Max file size", "Max address space"] {
            let (soft, hard) = watcher.limit(limit);
            assert_eq!(soft, hard, "{name}: {limit}");
        }
        kill(Pid::from_raw(watcher.pid), Signal::SIGTERM).expect("signal the watcher");
        watcher.eventually_ends();
        let deleted = container.delete();
        assert!(deleted.status.success(), "{name}: {deleted:?}");
        disk.unplug(1);
        // runc reports a hook that fails here, but succeeds.
        assert_eq!(machine.traces(), Vec::<PathBuf>::new(), "{name}: {deleted:?}");
    }
    let seen = fs::read_to_string(seen).expect("the preloaded library has been in a hook");
    assert!(seen.contains("oci-hotplug-prestart"), "{seen}");
    assert!(
        !seen.contains("oci-hotplug-watcher") && !seen.contains("fake"),
        "{seen}"
    );
}

/// A library that writes into `seen` which program has loaded it.
fn preloaded_library(machine: &Machine, seen: &Path) -> PathBuf {
    let source = machine.scratch("trap.c");
    let library = machine.scratch("trap.so");
    let text = r#"
        #include <fcntl.h>
        #include <unistd.h>
        __attribute__((constructor)) static void trap(void) {
            char name[4096];
            ssize_t length = readlink("/proc/self/exe", name, sizeof name);
            int fd = open(SEEN, O_WRONLY | O_CREAT | O_APPEND, 0666);
            if (length > 0 && fd >= 0 && write(fd, name, length) == length) write(fd, "\n", 1);
            close(fd);
        }"#;
    fs::write(&source, text).expect("write a library");
    let status = Command::new("cc")
        .arg(format!("-DSEEN=\"{}\"", seen.display()))
        .args(["-w", "-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .status()
        .expect("start cc (a C compiler builds the product, too)");
    assert!(status.success(), "compile a library");
    library
}

/// A directory with programs that write into `seen` that they were started by name.
fn fake_programs(machine: &Machine, seen: &Path) -> PathBuf {
    let directory = machine.scratch("fakes");
    fs::create_dir(&directory).expect("make a directory");
    for name in [
        "sh",
        "runc",
        "udevadm",
        "oci-hotplug-watcher",
        "mknod",
        "modprobe",
        "systemd-run",
        "systemctl",
    ] {
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o755)
            .open(directory.join(name))
            .and_then(|mut file| writeln!(file, "#!/bin/sh\necho fake {name} >>{}", seen.display()))
            .expect("write a program");
    }
    directory
}

/// A full pipe, and the end that keeps it open and never reads.
fn pipe_that_nobody_reads(machine: &Machine) -> (PathBuf, fs::File) {
    let path = machine.scratch("full");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).expect("make a pipe");
    let mut pipe = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(&path)
        .expect("open a pipe");
    while pipe.write(&[0; 4096]).is_ok() {}
    (path, pipe)
}

#[apply(on_both_hierarchies)]
fn a_hook_that_cannot_work_reports_it_and_leaves_nothing(machine: &Machine) {
    let disk = Disk::new(machine);
    disk.plug(1);
    for (setup, message) in [
        ("ulimit -n 4", "Too many open files"),
        ("ulimit -f 0", "File too large"),
        ("ulimit -v 3000", ""),
        ("exec <&-", "standard input"),
        ("exec </dev/zero", "longer than"),
    ] {
        println!("{setup}");
        let bundle =
            Bundle::requesting(machine, &format!("devnode:{}", disk.partition(1))).hooks_after(setup);
        let id = bundle.id.clone();
        let begin = Instant::now();
        let Err(refusal) = bundle.try_create() else {
            panic!("{setup}: the container was created without what it requests");
        };
        assert!(refusal.message.contains(message), "{setup}: {}", refusal.message);
        assert!(
            begin.elapsed() < Duration::from_secs(12),
            "{setup}: {:?}",
            begin.elapsed()
        );
        eventually("no watcher is left", || {
            crate::framework::Watcher::of(&id).is_none()
        });
        // The next hook sweeps what a hook left that could not clean up.
        let next = Bundle::requesting(machine, &format!("devnode:{}", disk.partition(1))).start();
        next.reads(&disk.partition(1), &disk.content(1));
        next.delete();
        assert_eq!(machine.traces(), Vec::<PathBuf>::new(), "{setup}");
    }
}

/// A directory of the host; a program that follows the container's link by name would reach it.
fn bait(machine: &Machine) -> PathBuf {
    let directory = machine.scratch("bait");
    fs::create_dir(&directory).expect("make a directory");
    directory
}

#[track_caller]
fn nothing_is_in(directory: &Path) {
    let entries: Vec<_> = fs::read_dir(directory)
        .expect("list")
        .map(|entry| entry.map(|entry| (entry.file_name(), entry.file_type(), entry.metadata())))
        .collect();
    assert!(
        entries.is_empty(),
        "something was made in {}: {entries:?}",
        directory.display()
    );
}

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

/// A process that is killed when this is dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
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

/// Case security 2.
#[apply(on_both_hierarchies)]
fn a_path_that_other_users_can_create_selects_no_device(machine: &Machine) {
    machine.configure(
        "[policy]\ndefault = \"nothing\"\n[[policy.allow]]\ndevices = [\"regex:ttyUSB[0-9]+$\", \"glob:**/ttyUSB*\"]\n",
    );
    let disk = Disk::new(machine);
    disk.plug(1);
    let number = number_of(&disk.partition(1));
    let link = StrangersLink::new(machine, &disk.partition(1));
    let mut requests: Vec<String> = (3..40).map(|fd| format!("node:/dev/fd/{fd}/ttyUSB7")).collect();
    requests.push(format!("node:{}", link.0.display()));
    requests.push(format!("devnode:{}", link.0.display()));
    let container = Bundle::requesting(machine, &requests.join(","))
        .capability("CAP_MKNOD")
        .start();
    let copy = container.make_node("copy", 'b', number);
    let made = container.inside(&format!("mknod /dev/ttyUSB7 b {} {}", number.0, number.1));
    assert_eq!(made.status, 0, "{made:?}");
    // A new watcher examines all paths before it is ready.
    let state_dir = machine.state_dir().display().to_string();
    let recovered = Hook::operator().run(&["--state-dir", &state_dir, "recover", "--restart-watchers"], "");
    assert!(recovered.status.success(), "{recovered:?}");
    assert!(container.is_refused("/dev/ttyUSB7") && container.is_refused(&copy));
    assert!(!container.has(&link.0.display().to_string()));
    // And it has no inotify watch in the container: each line has the inode of a directory
    // (proc_pid_fdinfo(5)).
    let inode = fs::metadata(format!("/proc/{}/root/dev", container.pid))
        .expect("look at /dev")
        .ino();
    let watched = format!("ino:{inode:x} ");
    let watcher = container.expect_watcher();
    for entry in fs::read_dir(format!("/proc/{}/fdinfo", watcher.pid)).expect("list descriptors") {
        let text = fs::read_to_string(entry.expect("an entry").path()).unwrap_or_default();
        let theirs = text
            .lines()
            .find(|line| line.starts_with("inotify") && line.contains(&watched));
        assert_eq!(theirs, None);
    }
}

/// A link of an unprivileged user in /dev/shm, whose name a rule matches.
struct StrangersLink(PathBuf);

impl StrangersLink {
    fn new(machine: &Machine, target: &str) -> Self {
        let path = PathBuf::from(format!("/dev/shm/{}-ttyUSB7", machine.fresh_id()));
        let link = Self(path);
        symlink(target, &link.0).expect("make a link");
        std::os::unix::fs::lchown(&link.0, Some(NOBODY), Some(NOBODY)).expect("give it away");
        link
    }
}

impl Drop for StrangersLink {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
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

#[apply(on_both_hierarchies)]
fn forged_uevents_are_ignored(machine: &Machine) {
    // The watcher's CPU time is measured, and the devices of other tests would add to it.
    alone();
    let _udevd = Udevd::start(machine);
    let disk = Disk::new(machine);
    disk.plug(1);
    let container = Bundle::requesting(machine, &format!("glob:{}p*", disk.node)).start();
    container.eventually_reads(&disk.partition(1), &disk.content(1));
    let watcher = container.expect_watcher();
    let ports = identity::uevent_ports(watcher.pid);
    assert_eq!(
        ports.len(),
        2,
        "one socket for the kernel's events and one for udevd's"
    );
    let rules = container.device_rules();

    // Forged: the disk's partition 1 is gone, and there is a partition 3, which is the disk itself.
    let at = |partition: u8| {
        let disk = disk.node.trim_start_matches("/dev/").to_owned();
        format!("/devices/virtual/block/{disk}/{disk}p{partition}")
    };
    let (major, minor) = number_of(&disk.node);
    let entries = [
        "SUBSYSTEM=block".to_owned(),
        "DEVTYPE=partition".to_owned(),
        format!("MAJOR={major}"),
        format!("MINOR={minor}"),
        format!("DEVNAME={}", disk.partition(3)),
        format!("SEQNUM={}", u64::MAX / 2),
        "USEC_INITIALIZED=1".to_owned(),
    ];
    let mut forgeries = Vec::new();
    for form in [identity::in_the_kernels_form, identity::in_udevds_form] {
        forgeries.push(form("add", &at(3), &entries));
        forgeries.push(form("remove", &at(1), &entries[..2]));
    }
    forgeries.push(b"add@/devices/x\0no property\0".to_vec());
    forgeries.push(vec![0xff; 9000]);

    let groups = identity::GROUPS.map(|group| NetlinkAddr::new(0, group));
    let everywhere: Vec<_> = ports.iter().copied().chain(groups).collect();
    let storm: Vec<_> = forgeries.iter().cycle().take(600).cloned().collect();
    let before = watcher.cpu_time();
    let mut taken = Vec::new();
    for (identity, places) in [
        (Identity::Nobody, &everywhere),
        (Identity::NetworkAdministrator, &everywhere),
        (Identity::RootInTheNetworkOf(container.pid), &everywhere),
        (Identity::Root, &ports),
    ] {
        taken.push((identity, identity.send(places, &storm)));
    }
    println!("{taken:?}");
    assert!(
        taken[1].1 > 0 && taken[3].1 > 0,
        "the kernel took none: nothing was tried"
    );

    // A later event is received, and the forgeries were sent before it.
    disk.plug(2);
    container.eventually_reads(&disk.partition(2), &disk.content(2));
    watcher.eventually_waits_for_events();
    assert!(!container.has(&disk.partition(3)), "a forged device came in");
    container.reads(&disk.partition(1), &disk.content(1));
    disk.unplug(2);
    container.eventually_lacks(&disk.partition(2));
    eventually("the container has the access that it had", || {
        container.device_rules() == rules
    });
    assert_eq!(container.expect_watcher(), watcher);
    let spent = watcher.cpu_time() - before;
    assert!(spent < Duration::from_secs(1), "{spent:?} for {taken:?}");
}

/// A late udevd sends an event of the device that was at this path before, with a number that may
/// be another device's by now.
#[apply(on_both_hierarchies)]
fn an_event_of_udevd_with_another_number_attaches_no_other_device(machine: &Machine) {
    let _udevd = Udevd::start(machine);
    let disk = Disk::new(machine);
    disk.plug(1);
    // The device exists before its watcher, so no event has given the watcher a sequence number.
    let container = Bundle::requesting(machine, &format!("glob:{}p*", disk.node))
        .capability("CAP_MKNOD")
        .start();
    container.eventually_reads(&disk.partition(1), &disk.content(1));
    let name = disk.node.trim_start_matches("/dev/");
    let (major, minor) = number_of(&disk.node);
    let late = identity::in_udevds_form(
        "add",
        &format!("/devices/virtual/block/{name}/{name}p1"),
        &[
            "SUBSYSTEM=block".to_owned(),
            "DEVTYPE=partition".to_owned(),
            format!("MAJOR={major}"),
            format!("MINOR={minor}"),
            format!("DEVNAME={}", disk.partition(1)),
            format!("SEQNUM={}", u64::MAX / 2),
            "USEC_INITIALIZED=1".to_owned(),
        ],
    );
    let [_, udevds] = identity::GROUPS;
    assert_eq!(Identity::Root.send(&[NetlinkAddr::new(0, udevds)], &[late]), 1);
    // udevd's event of partition 2, which the container waits for, is sent after it on the same
    // socket.
    disk.plug(2);
    container.eventually_reads(&disk.partition(2), &disk.content(2));
    container.reads(&disk.partition(1), &disk.content(1));
    assert_eq!(
        container.stat(&disk.partition(1)).number,
        number_of(&disk.partition(1))
    );
    let own = container.make_node("disk", 'b', (major, minor));
    assert!(container.is_refused(&own), "the container has the whole disk");
}

#[apply(on_both_hierarchies)]
fn only_root_can_access_the_state_directory_at_any_time(machine: &Machine) {
    let disk = Disk::new(machine);
    disk.plug(1);
    let bundle = Bundle::requesting(machine, &format!("devnode:{}", disk.partition(1)))
        .caller_umask(0)
        .hooks_after("umask 0");
    let state = machine.state_dir();
    let own = state.join("containers").join(&bundle.id);
    let secrets = ["control.sock", "record.json", "attached.jsonl", "lock"].map(|name| own.join(name));
    let log = state.join("oci-hotplug.log");
    let (over, attempts) = (AtomicBool::new(false), AtomicU64::new(0));
    let tries_again = |when: &str| {
        let before = attempts.load(Ordering::Relaxed);
        eventually(&format!("another user tries {when}"), || {
            // The current attempt may have begun before.
            over.load(Ordering::Relaxed) || attempts.load(Ordering::Relaxed) > before + 1
        });
    };
    std::thread::scope(|scope| {
        let prying = scope.spawn(|| {
            let _over = OnDrop(&over);
            Identity::Nobody.run(|| {
                while !over.load(Ordering::Relaxed) {
                    assert!(
                        UnixStream::connect(&secrets[0]).is_err(),
                        "no connection succeeded"
                    );
                    for path in secrets[1..].iter().chain([&log]) {
                        assert!(
                            fs::File::open(path).is_err(),
                            "no user has read {}",
                            path.display()
                        );
                    }
                    assert!(fs::read_dir(&own).is_err() && fs::write(own.join("x"), "").is_err());
                    attempts.fetch_add(1, Ordering::Relaxed);
                }
            });
        });
        let _over = OnDrop(&over);
        tries_again("before there is a state");
        let container = bundle.start();
        container.reads(&disk.partition(1), &disk.content(1));
        tries_again("while the container runs");
        // Access is denied; it is not only that nothing exists there.
        let refused = Identity::Nobody.run(|| {
            let opened = secrets[1..].iter().chain([&log]).map(fs::File::open);
            let mut errors: Vec<_> = opened.map(|opened| opened.map(drop)).collect();
            errors.push(UnixStream::connect(&secrets[0]).map(drop));
            errors
        });
        for attempt in refused {
            assert_eq!(
                attempt.expect_err("no access succeeded").kind(),
                std::io::ErrorKind::PermissionDenied
            );
        }
        let mode = |path: &Path| fs::symlink_metadata(path).expect("look at a file").mode() & 0o7777;
        for directory in [&state, &state.join("containers"), &own] {
            assert_eq!(mode(directory), 0o700, "{}", directory.display());
        }
        for path in &secrets {
            assert_eq!(mode(path), 0o600, "{}", path.display());
            assert_eq!(fs::symlink_metadata(path).expect("look at a file").uid(), 0);
        }
        assert_eq!(mode(&log), 0o600);
        container.delete();
        tries_again("after the container has gone");
        over.store(true, Ordering::Relaxed);
        prying.join().expect("another user got in");
    });
}

/// Ends the loops of the other threads even if this thread panics.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[apply(on_both_hierarchies)]
fn a_state_directory_that_others_can_write_is_refused(machine: &Machine) {
    let bait = bait(machine);
    let open = machine.scratch("open");
    let make = |path: &Path, mode| {
        fs::DirBuilder::new()
            .mode(mode)
            .create(path)
            .expect("make a directory")
    };
    let give = |path: &Path| std::os::unix::fs::lchown(path, Some(NOBODY), Some(NOBODY)).expect("give away");
    make(&open, 0o700);
    fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).expect("open a directory to all");
    for name in ["theirs", "parent"] {
        make(&open.join(name), 0o755);
        chown(open.join(name), Some(NOBODY), Some(NOBODY)).expect("give away");
    }
    make(&open.join("anybodys"), 0o700);
    fs::set_permissions(open.join("anybodys"), fs::Permissions::from_mode(0o777)).expect("open to all");
    symlink(&bait, open.join("link")).expect("make a link");
    give(&open.join("link"));
    // A forged record that names a process which poststop would end.
    let mut unrelated = Ended(Command::new("sleep").arg("1000").spawn().expect("start sleep"));
    let lock = plant_a_lock(&open.join("theirs"), unrelated.0.id());

    for (place, fault) in [
        ("theirs", "belongs to user 65534"),
        ("parent/state", "belongs to user 65534"),
        ("anybodys", "is writable by everyone"),
        ("link", "belongs to user 65534"),
    ] {
        let directory = open.join(place);
        let directory = directory.to_str().expect("scratch paths are text");
        let bundle = Bundle::requesting(machine, "devnode:/dev/oci-hotplug-nothing")
            .hook_arguments(&["--state-dir", directory]);
        let Err(refusal) = bundle.try_create() else {
            panic!("{place}: the state was put there");
        };
        assert!(refusal.message.contains(fault), "{place}: {}", refusal.message);
        let output = Hook::poststop(machine).run(
            &["--state-dir", directory],
            &oci_state("planted", "stopped", &Value::Null, "/nowhere"),
        );
        assert_eq!(output.status.code(), Some(0), "{place}: {output:?}");
    }
    assert_eq!(
        wait_within_no_time(&mut unrelated),
        None,
        "poststop ended a process for another user"
    );
    drop(lock);
    nothing_is_in(&bait);
    nothing_is_in(&open.join("anybodys"));
    nothing_is_in(&open.join("parent"));

    // root's own directory in a sticky directory is safe.
    let own = open.join("own");
    let own = own.to_str().expect("scratch paths are text");
    let container = Bundle::requesting(machine, "devnode:/dev/oci-hotplug-nothing")
        .hook_arguments(&["--state-dir", own])
        .without_poststop()
        .start();
    assert!(Path::new(own).join("containers").join(&container.id).exists());
    container.expect_watcher();
}

fn wait_within_no_time(process: &mut Ended) -> Option<std::process::ExitStatus> {
    process.0.try_wait().expect("wait for a child")
}

/// Creates an entry of a container `planted` whose lock is held and names the process with this id
/// as its watcher.
fn plant_a_lock(state: &Path, pid: u32) -> fs::File {
    let directory = state.join("containers/planted");
    fs::create_dir_all(&directory).expect("make a directory");
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("read a stat");
    let (_, after_name) = stat.rsplit_once(')').expect("stat has the name in parentheses");
    let start: u64 = after_name
        .split_whitespace()
        .nth(19)
        .and_then(|field| field.parse().ok())
        .expect("a start time (proc(5), field 22)");
    let path = directory.join("lock");
    fs::write(&path, json!({ "pid": pid, "start_time": start }).to_string()).expect("write a lock");
    let file = fs::File::open(&path).expect("open a lock");
    fs2::FileExt::lock_exclusive(&file).expect("hold a lock");
    file
}
