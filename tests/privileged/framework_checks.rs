//! Tests of the test framework itself: what it promises, checked with runc alone.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use crate::framework::disk::number_of;
use crate::framework::{
    Announcements, Bundle, Disk, Hierarchy, Machine, Terminal, Udevd, WholeDisk, alone, eventually, kernel,
};

/// Set for the tests that [`a_killed_test_leaves_nothing`] kills.
const TO_BE_KILLED: &str = "OCI_HOTPLUG_TO_BE_KILLED";

#[apply(on_both_hierarchies)]
fn runc_alone_denies_a_device_that_was_not_requested(machine: &Machine) {
    let disk = Disk::new(machine);
    let container = Bundle::new(machine)
        .without_hooks()
        .capability("CAP_MKNOD")
        .start();
    let node = disk.plug(1);
    assert!(!container.has(&node));
    let own = container.make_node("own", 'b', number_of(&node));
    assert!(container.is_refused(&own));
    assert!(container.is_write_refused(&own));
    assert_eq!(container.watcher(), None);
}

#[apply(on_both_hierarchies)]
fn runc_alone_grants_a_device_of_the_engine(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let container = Bundle::new(machine)
        .without_hooks()
        .engine_device(&node, "r")
        .start();
    container.reads(&node, &disk.content(1));
    assert!(container.is_write_refused(&node));
    assert_eq!(container.stat(&node).kind, "block special file");
    assert_eq!(container.stat(&node).mode, 0o640);
    assert_eq!(container.stat(&node).number, number_of(&node));
}

#[apply(on_both_hierarchies)]
fn commands_run_in_a_container_before_its_start(machine: &Machine) {
    let container = Bundle::new(machine).without_hooks().caller_umask(0o077).create();
    assert_eq!(container.state().expect("a state")["status"], "created");
    assert!(container.has("/dev/null"));
    assert!(!container.has("/dev/nothing"));
    container.start();
    assert!(container.is_running());
    assert!(container.exec_as_root("id").output.starts_with("uid=0"));
}

#[apply(on_both_hierarchies)]
fn a_container_with_a_user_namespace_has_its_own_root(machine: &Machine) {
    let container = Bundle::new(machine)
        .without_hooks()
        .user_namespace()
        .user(1000, 1000)
        .start();
    assert!(container.inside("id").output.contains("uid=1000 gid=1000"));
    let status = fs::read_to_string(format!("/proc/{}/status", container.pid)).expect("read a status");
    assert!(status.contains("Uid:\t101000\t101000"), "{status}");
    assert_eq!(container.stat("/bin/busybox").uid, 0);
}

#[apply(on_both_hierarchies)]
fn a_container_with_the_hosts_dev_sees_partitions(machine: &Machine) {
    let disk = Disk::new(machine);
    let container = Bundle::new(machine)
        .without_hooks()
        .host_dev()
        .host_network()
        .start();
    let node = disk.plug(2);
    assert!(container.has(&node));
    assert!(container.is_refused(&node));
    disk.unplug(2);
    container.eventually_lacks(&node);
}

#[apply(on_both_hierarchies)]
fn a_partition_can_return_with_another_number(machine: &Machine) {
    // It needs a number that was used before.
    alone();
    let disk = Disk::new(machine);
    let node = disk.plug(3);
    let old = number_of(&node);
    disk.unplug(3);
    let squatter = disk.plug_with_another_number(machine, 3, old);
    assert_ne!(number_of(&node), old);
    assert_ne!(squatter.node, disk.node);
}

#[apply(on_both_hierarchies)]
fn the_container_ends_on_sigterm(machine: &Machine) {
    let container = Bundle::new(machine).without_hooks().start();
    container.kill("USR1");
    eventually("the container received SIGUSR1", || {
        container.last_output() == "usr1"
    });
    assert!(container.is_running());
    container.kill("TERM");
    eventually("the container received SIGTERM", || {
        container.last_output() == "stopped"
    });
    eventually("the container has stopped", || !container.is_running());
}

#[apply(on_both_hierarchies)]
fn an_engine_that_rewrites_its_rules_can_be_simulated(machine: &Machine) {
    if machine.hierarchy == Hierarchy::V1 {
        let container = Bundle::new(machine).without_hooks().start();
        assert!(container.device_rules().contains("c 1:3 rwm"));
        return;
    }
    let [one, other] = [(), ()].map(|()| Bundle::new(machine).without_hooks().start());
    let programs =
        |cgroup: std::path::PathBuf| kernel::device_programs(&cgroup).expect("query the device programs");
    let (old, new) = (programs(one.cgroup()), programs(other.cgroup()));
    assert_eq!((old.len(), new.len()), (1, 1));
    kernel::replace_device_program(&one.cgroup(), old[0], new[0]).expect("replace a program");
    assert_eq!(programs(one.cgroup()), new);
    assert!(kernel::bpf_objects().0 >= 1);
}

#[apply(on_both_hierarchies)]
fn a_whole_disk_can_be_added_and_removed(_: &Machine) {
    let mut disk = WholeDisk::new();
    disk.plug();
    assert!(fs::exists(disk.node()).expect("look for a node"));
    disk.unplug();
    assert!(!fs::exists(disk.node()).expect("look for a node"));
}

#[apply(on_both_hierarchies)]
fn a_screen_of_a_terminal_can_be_added_and_removed(machine: &Machine) {
    let container = Bundle::new(machine).without_hooks().host_dev().start();
    let listener = Announcements::on_the_host(machine);
    let terminal = Terminal::new();
    let node = terminal.plug();
    let name = node.trim_start_matches("/dev/").to_owned();
    listener.eventually_receive("KERNEL", "add", &name);
    assert!(container.is_refused(&node));
    terminal.unplug();
    listener.eventually_receive("KERNEL", "remove", &name);
    assert!(!fs::exists(&node).expect("look for a node"));
}

#[apply(on_both_hierarchies)]
fn udevd_runs_only_while_a_test_needs_it(machine: &Machine) {
    assert!(!fs::exists("/run/udev/control").expect("look for udevd"));
    let listener = Announcements::on_the_host(machine);
    let disk = Disk::new(machine);
    {
        let _udevd = Udevd::start(machine);
        disk.plug(1);
        let received = listener.eventually_receive("UDEV", "add", &disk.name(1));
        assert!(
            received
                .properties
                .iter()
                .any(|property| property.starts_with("USEC_INITIALIZED="))
        );
        disk.unplug(1);
    }
    assert!(!fs::exists("/run/udev/control").expect("look for udevd"));
}

#[apply(on_both_hierarchies)]
fn a_stopped_udevd_ends_with_a_test_that_does_not_clean_up(machine: &Machine) {
    let log = machine.scratch("udevd.log");
    let killed = thread::spawn(move || {
        let udevd = Udevd::start_with_log(&log);
        udevd.pause();
        let pid = udevd.pid();
        std::mem::forget(udevd);
        pid
    });
    let pid = killed.join().expect("start udevd");
    eventually("the kernel kills it", || {
        let ended = waitpid(pid, Some(WaitPidFlag::WNOHANG)).expect("wait for udevd");
        ended == WaitStatus::Signaled(pid, Signal::SIGKILL, false)
    });
}

#[apply(on_both_hierarchies)]
fn a_killed_test_leaves_nothing(machine: &Machine) {
    if std::env::var_os(TO_BE_KILLED).is_some() {
        waits_to_be_killed(machine);
    }
    let hierarchy = match machine.hierarchy {
        Hierarchy::V1 => "v1",
        Hierarchy::V2 => "v2",
    };
    let this_test = format!("framework_checks::a_killed_test_leaves_nothing::{hierarchy}");
    let mut tests = Command::new(std::env::current_exe().expect("the tests have a path"))
        .args(["--ignored", "--exact", "--nocapture", &this_test])
        .env(TO_BE_KILLED, "")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start the tests again");
    let lines = BufReader::new(tests.stdout.take().expect("a pipe")).lines();
    let started = lines
        .map(|line| line.expect("read from the tests"))
        .find_map(|line| line.split_once("started: ").map(|(_, what)| what.to_owned()))
        .expect("the test has started a container");
    let [container, watcher, cgroup, scratch] = started
        .split(' ')
        .collect::<Vec<_>>()
        .try_into()
        .expect("four words");
    let disks = disks_of(scratch);
    assert_eq!(disks.len(), 1, "the test has a disk");
    tests.kill().expect("kill the tests");
    tests.wait().expect("reap the tests");
    for pid in [container, watcher] {
        eventually("its processes have ended", || {
            !fs::exists(format!("/proc/{pid}")).expect("look for a process")
        });
    }
    for path in [cgroup, scratch] {
        eventually(&format!("{path} is gone"), || {
            !fs::exists(path).expect("look for what the test has made")
        });
    }
    // The path of a file whose file system is not mounted any more begins there.
    let unmounted = disks[0].1.strip_prefix(scratch).expect("it is there");
    let unmounted = Path::new("/").join(unmounted);
    eventually("its disk has no file, or that of another test", || {
        let file = file_of(&disks[0].0);
        !file.starts_with(scratch) && file != unmounted
    });
}

/// The loop devices over files of a test, with these. Other tests may have the devices afterwards.
fn disks_of(scratch: &str) -> Vec<(PathBuf, PathBuf)> {
    let entries = fs::read_dir("/sys/block").expect("list the disks").flatten();
    let disks = entries.map(|entry| (entry.path(), file_of(&entry.path())));
    disks.filter(|(_, file)| file.starts_with(scratch)).collect()
}

/// The file of a loop device; empty if it has none.
fn file_of(disk: &Path) -> PathBuf {
    let file = fs::read_to_string(disk.join("loop/backing_file")).unwrap_or_default();
    file.trim_end().into()
}

/// Starts what a test can leave, says so, and waits.
fn waits_to_be_killed(machine: &Machine) -> ! {
    let disk = Disk::new(machine);
    let container = Bundle::requesting(machine, &format!("devnode:{}", disk.partition(1))).start();
    let node = disk.plug(1);
    container.eventually_reads(&node, &disk.content(1));
    let watcher = container.watcher().expect("a watcher").pid;
    let (cgroup, scratch) = (container.cgroup(), machine.scratch(""));
    println!(
        "started: {} {watcher} {} {}",
        container.pid,
        cgroup.display(),
        scratch.display()
    );
    loop {
        thread::park();
    }
}
