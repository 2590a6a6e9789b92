//! Attacks of unprivileged users of the host, who forge uevents, and read or write our files. Those
//! of callers and of containers are in `attacks_callers` and `attacks_containers`.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::socket::NetlinkAddr;
use serde_json::{Value, json};

use crate::framework::disk::number_of;
use crate::framework::hook::oci_state;
use crate::framework::identity::{self, Identity, NOBODY};
use crate::framework::{Bundle, Disk, Hook, Machine, Udevd, alone, eventually};

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

/// A process that is killed when this is dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
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

/// A directory of the host; a program that follows the container's link by name would reach it.
pub fn bait(machine: &Machine) -> PathBuf {
    let directory = machine.scratch("bait");
    fs::create_dir(&directory).expect("make a directory");
    directory
}

#[track_caller]
pub fn nothing_is_in(directory: &Path) {
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
