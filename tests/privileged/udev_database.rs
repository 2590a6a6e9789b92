//! The udev database of a container: what libudev's clients inside find, on which containers it is
//! placed, and what a hostile container can do to it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::framework::disk::number_of;
use crate::framework::tool::{json_of, output_of};
use crate::framework::{Bundle, Disk, Hook, Machine, RuncContainer, Udevd, eventually};

const NOTHING: Vec<PathBuf> = Vec::new();

/// Whether the container has its database: libudev looks for this file.
const CONTROL: &str = "/run/udev/control";

/// The data of a device that the container has, as udev names it: `b7:1`.
fn data_of(node: &str) -> String {
    let (major, minor) = number_of(node);
    format!("/run/udev/data/b{major}:{minor}")
}

/// The part of the status of `oci-hotplug inspect` about the database.
#[track_caller]
fn status_of(machine: &Machine, container: &RuncContainer<'_>) -> Value {
    json_of(machine, &["inspect", &container.id])["status"]["udev_database"].take()
}

#[track_caller]
fn state_of(machine: &Machine, container: &RuncContainer<'_>) -> String {
    state_in(&status_of(machine, container)).to_owned()
}

#[track_caller]
fn state_in(status: &Value) -> &str {
    status["state"].as_str().expect("inspect shows the state")
}

/// The state after an attempt to place the database that `oci-hotplug reload` causes, and the
/// reason if it failed.
#[track_caller]
fn found_by_a_new_attempt(machine: &Machine, container: &RuncContainer<'_>) -> String {
    json_of(machine, &["reload"]);
    let status = status_of(machine, container);
    let state = state_in(&status);
    match status["reason"].as_str() {
        Some(reason) => format!("{state}: {reason}"),
        None => state.to_owned(),
    }
}

#[track_caller]
fn inside(container: &RuncContainer<'_>, command: &str) -> String {
    let result = container.inside(command);
    assert_eq!(result.status, 0, "{command}: {}", result.output);
    result.output
}

/// Plugs and unplugs a device: nothing that was done to the database affects it.
fn devices_come_and_go(container: &RuncContainer<'_>, disk: &Disk) {
    disk.plug(2);
    container.eventually_reads(&disk.partition(2), &disk.content(2));
    disk.unplug(2);
    container.eventually_lacks(&disk.partition(2));
    container.expect_watcher();
}

/// Makes a file system with this label, and tells udevd.
fn label(node: &str, label: &str) {
    let status = Command::new("mkfs.ext4")
        .args(["-q", "-F", "-L", label, node])
        .status();
    assert!(status.expect("start mkfs.ext4 (package e2fsprogs)").success());
    let name = node.strip_prefix("/dev/").expect("a node");
    let status = Command::new("udevadm")
        .args(["trigger", "--settle", "-c", "change", "--sysname-match", name])
        .status();
    assert!(status.expect("start udevadm").success());
}

#[apply(on_both_hierarchies)]
fn programs_find_the_properties_of_the_container_s_devices_until_they_are_unplugged(machine: &Machine) {
    let _udevd = Udevd::start(machine);
    let (disk, other) = (Disk::new(machine), Disk::new(machine));
    let [node, foreign] = [disk.plug(1), other.plug(1)];
    let container = Bundle::requesting(machine, &format!("glob:{}p*;link=/dev/board", disk.node))
        .host_image()
        .start();
    assert_eq!(state_of(machine, &container), "placed");
    let udevadm = |node: &str| {
        let path = node.replacen("/dev", "/sys/class/block", 1);
        container
            .inside(&format!("udevadm info --query=all --path={path}"))
            .output
    };
    // udevd rewrites its entry: the container has the new one when it is announced.
    label(&node, "OHT");
    label(&foreign, "FOREIGN");
    eventually("the container has the label", || {
        udevadm(&node).contains("ID_FS_LABEL=OHT")
    });
    let found = udevadm(&node);
    for expected in ["ID_FS_TYPE=ext4", "S: board", "USEC_INITIALIZED="] {
        assert!(found.contains(expected), "{expected}: {found}");
    }
    // By label, and by tag: only the container's own device.
    let names = |options: &str| {
        let command = format!("udevadm trigger --dry-run --verbose {options}");
        let lines = inside(&container, &command);
        let names = lines
            .lines()
            .map(|line| line.rsplit('/').next().unwrap_or_default().to_owned());
        names.collect::<Vec<String>>()
    };
    let own = disk.name(1);
    assert_eq!(
        names("--subsystem-match=block --tag-match=systemd"),
        [own.as_str()]
    );
    assert_eq!(names("--property-match=ID_FS_TYPE=ext4"), [own.as_str()]);
    let found = udevadm(&foreign);
    assert!(
        !found.contains("ID_FS_") && !found.contains("USEC_INITIALIZED"),
        "{found}"
    );
    let listed = inside(&container, &format!("lsblk -no LABEL {node}"));
    assert_eq!(listed.trim(), "OHT");

    for command in [
        "rm -r /run/udev/data",
        ": >/run/udev/new",
        "echo x >>/run/udev/control",
    ] {
        let result = container.inside(command);
        assert!(
            result.status != 0 && result.output.contains("Read-only"),
            "{command}: {result:?}"
        );
    }
    let data = data_of(&node);
    disk.unplug(1);
    container.eventually_lacks(&node);
    container.eventually_lacks(&data);
    assert_eq!(
        inside(&container, "ls /run/udev/data /run/udev/tags"),
        "/run/udev/data:\n\n/run/udev/tags:"
    );
    let log = machine.log();
    assert!(!log.contains("ERROR") && !log.contains("WARN"), "{log}");
    container.delete();
    assert_eq!(machine.traces(), NOTHING);
}

/// What libudev's monitor does: without the database it would listen to no group at all.
#[apply(on_both_hierarchies)]
fn libudev_s_monitor_listens_to_udevd(machine: &Machine) {
    const SCRIPT: &str = "\
import ctypes, socket
udev = ctypes.CDLL('libudev.so.1')
for name in ['udev_new', 'udev_monitor_new_from_netlink']:
    getattr(udev, name).restype = ctypes.c_void_p
monitor = ctypes.c_void_p(udev.udev_monitor_new_from_netlink(ctypes.c_void_p(udev.udev_new()), b'udev'))
assert udev.udev_monitor_enable_receiving(monitor) >= 0
descriptor = udev.udev_monitor_get_fd(monitor)
print(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15, fileno=descriptor).getsockname()[1])
";
    let groups = |mode: &str| {
        let bundle = Bundle::requesting(machine, "devnode:/dev/oci-hotplug-nothing")
            .annotation("io.oci-hotplug.udev", mode)
            .host_image();
        fs::write(bundle.rootfs().join("monitor.py"), SCRIPT).expect("write a program");
        let container = bundle.start();
        inside(&container, "/usr/bin/python3 /monitor.py")
    };
    assert_eq!(groups("auto"), "2");
    assert_eq!(groups("never"), "0");
}

#[apply(on_both_hierarchies)]
fn every_kind_of_container_has_a_database(machine: &Machine) {
    let udevd = Udevd::start(machine);
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    udevd.pause();
    udevd.resume();
    let bundle = || Bundle::requesting(machine, &format!("devnode:{node}"));
    for (name, bundle) in [
        ("ordinary", bundle()),
        ("read-only", bundle().read_only()),
        ("user namespace", bundle().user_namespace().user(1000, 1000)),
        ("host network", bundle().host_network()),
        ("prestart", bundle().old_stage()),
        ("the host's /dev", bundle().host_dev()),
    ] {
        println!("{name}");
        let rootfs = bundle.rootfs();
        let container = bundle.start();
        let data = inside(&container, &format!("cat {}", data_of(&node)));
        assert!(data.contains("I:"), "{name}: {data}");
        assert!(container.has(CONTROL), "{name}");
        assert_eq!(state_of(machine, &container), "placed", "{name}");
        container.delete();
        assert_eq!(machine.traces(), NOTHING, "{name}");
        assert!(
            !rootfs.join("run").exists(),
            "{name}: a directory is left in the image"
        );
    }
}

#[apply(on_both_hierarchies)]
fn a_container_that_runs_gets_its_database_with_its_first_device(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let container = Bundle::new(machine).without_hooks().start();
    assert!(!container.has(CONTROL));
    let request = format!("devnode:{node}");
    let root = machine.runc_root();
    output_of(
        machine,
        &["attach", &container.id, &request, "--runtime-root", path(&root)],
    );
    assert!(container.has(CONTROL) && container.has(&data_of(&node)));
}

fn path(path: &std::path::Path) -> &str {
    path.to_str().expect("scratch paths are text")
}

/// Without udevd the devices count as initialized, because nothing will ever process them.
#[apply(on_both_hierarchies)]
fn on_a_host_without_udevd_devices_are_initialized(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let container = Bundle::requesting(machine, &format!("devnode:{node};link=/dev/board")).start();
    let data = inside(&container, &format!("cat {}", data_of(&node)));
    assert!(data.starts_with("S:board\nI:") && data.ends_with("V:1"), "{data}");
}

#[apply(on_both_hierarchies)]
fn what_the_engine_and_the_image_have_at_run_udev_stays(machine: &Machine) {
    let disk = Disk::new(machine);
    let request = format!("glob:{}p*", disk.node);
    let volume = machine.scratch("volume");
    fs::create_dir(&volume).expect("make a directory");
    fs::write(volume.join("theirs"), "").expect("write a file");
    let image = Bundle::requesting(machine, &request);
    fs::create_dir_all(image.rootfs().join("run/udev/data")).expect("make a directory of the image");
    let bundle = || Bundle::requesting(machine, &request);
    let no_run = bundle();
    symlink("/words", no_run.rootfs().join("run")).expect("make a link");
    for (bundle, state, expected) in [
        (bundle().volume(&volume, "/run/udev"), "mounted", "theirs"),
        (image, "image", "data"),
        (
            bundle().volume(&volume, "/run"),
            "failed",
            "ls: /run/udev: No such file or directory",
        ),
        (no_run, "failed", "ls: /run/udev: No such file or directory"),
        (
            bundle().writable_sys(),
            "writable-sys",
            "ls: /run/udev: No such file or directory",
        ),
        (
            bundle().annotation("io.oci-hotplug.udev", "never"),
            "never",
            "ls: /run/udev: No such file or directory",
        ),
        (
            bundle().hook_arguments(&["--udev", "never"]),
            "never",
            "ls: /run/udev: No such file or directory",
        ),
    ] {
        let container = bundle.start();
        assert_eq!(state_of(machine, &container), state);
        assert_eq!(container.inside("ls /run/udev").output, expected, "{state}");
        devices_come_and_go(&container, &disk);
        container.delete();
        assert_eq!(machine.traces(), NOTHING);
    }
    let files: Vec<_> = fs::read_dir(&volume)
        .expect("list")
        .flatten()
        .map(|found| found.file_name())
        .collect();
    assert_eq!(files, ["theirs"]);
}

/// As a systemd inside may do.
#[apply(on_both_hierarchies)]
fn a_database_that_is_covered_is_placed_again(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let container = Bundle::requesting(machine, &format!("devnode:{node}"))
        .host_image()
        .capability("CAP_SYS_ADMIN")
        .start();
    assert!(container.has(CONTROL));
    for command in [
        "mount -t tmpfs tmpfs /run",
        "umount -l /run",
        "umount -l /run/udev",
    ] {
        inside(&container, command);
        eventually("the database is placed again", || container.has(CONTROL));
        assert!(container.has(&data_of(&node)), "{command}");
    }
    assert_eq!(state_of(machine, &container), "placed");
}

#[apply(on_both_hierarchies)]
fn after_a_crash_the_database_is_right_again_and_nothing_is_left(machine: &Machine) {
    let disk = Disk::new(machine);
    let [first, second] = [disk.plug(1), disk.plug(2)];
    let bundle = Bundle::requesting(machine, &format!("glob:{}p*", disk.node));
    let rootfs = bundle.rootfs();
    let container = bundle.start();
    let (gone, stays) = (data_of(&first), data_of(&second));
    assert!(container.has(&gone) && container.has(&stays));
    container.expect_watcher().kill();
    disk.unplug(1);
    let third = disk.plug(3);
    // A file of a step that was interrupted.
    let directory = machine.state_dir().join("containers").join(&container.id);
    fs::write(directory.join("udev-entry.tmp"), "E:").expect("write a file");
    output_of(machine, &["recover"]);
    container.eventually_reads(&third, &disk.content(3));
    eventually("the entries are those of the devices", || {
        let entries = inside(&container, "ls /run/udev/data");
        let has = |data: &str| entries.lines().any(|name| data.ends_with(name));
        !has(&gone) && has(&stays) && has(&data_of(&third))
    });
    assert_eq!(state_of(machine, &container), "placed");
    container.expect_watcher().kill();
    container.delete();
    assert_eq!(machine.traces(), NOTHING);
    assert!(!rootfs.join("run").exists(), "a directory is left in the image");
}

/// A file that another program removes: the container's entry in the state directory is restored,
/// and the database with it.
#[apply(on_both_hierarchies)]
fn a_database_that_was_removed_from_the_host_is_placed_again(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let container = Bundle::requesting(machine, &format!("devnode:{node}")).start();
    let data = data_of(&node);
    assert!(container.has(&data));
    fs::remove_dir_all(machine.state_dir().join("containers")).expect("remove the entries");
    eventually("the database is placed again", || {
        container.has(CONTROL) && container.has(&data)
    });
}

/// A hostile container replaces what is on the way to the database.
#[apply(on_both_hierarchies)]
fn a_container_that_replaces_run_reaches_nothing_of_the_host(machine: &Machine) {
    let bait = machine.scratch("bait");
    fs::create_dir(&bait).expect("make a directory");
    let disk = Disk::new(machine);
    let container = Bundle::requesting(machine, &format!("glob:{}p*", disk.node))
        .host_image()
        .capability("CAP_SYS_ADMIN")
        .start();
    for (replace, found) in [
        (
            format!("ln -s {} /run", bait.display()),
            "failed: /run in the container is a symbolic link",
        ),
        (
            "ln -s /proc/self /run".to_owned(),
            "failed: /run in the container is a symbolic link",
        ),
        (": >/run".to_owned(), "failed: /run in the container is a file"),
        (
            "mkfifo /run".to_owned(),
            "failed: /run in the container is a FIFO",
        ),
        // A file system whose lookups are not in memory.
        (
            "mkdir /run && mount -t proc proc /run".to_owned(),
            "failed: /run in the container is a mount of another file system",
        ),
        (
            format!("mkdir /run && ln -s {} /run/udev", bait.display()),
            "failed: /run/udev in the container is a symbolic link",
        ),
        (
            "mkdir /run && : >/run/udev".to_owned(),
            "failed: /run/udev in the container is a file",
        ),
        (
            "mkdir -p /run/udev && mount -t proc proc /run/udev".to_owned(),
            "mounted",
        ),
        ("mkdir -p /run/udev/mine".to_owned(), "image"),
    ] {
        inside(
            &container,
            &format!("umount -l /run/udev /run; rm -rf /run; mv -T /run /run.old; {replace}; true"),
        );
        let now = found_by_a_new_attempt(machine, &container);
        assert!(now.starts_with(found), "{replace}: {now}");
        devices_come_and_go(&container, &disk);
    }
    inside(&container, "rm -rf /run; mkdir /run");
    // The watcher tries again by itself, too.
    eventually("the database is placed again", || container.has(CONTROL));
    assert_eq!(fs::read_dir(&bait).expect("list").count(), 0);
}

/// With CAP_SYS_ADMIN a container can make the mount writable.
#[apply(on_both_hierarchies)]
fn a_container_that_writes_into_its_database_reaches_nothing_of_the_host(machine: &Machine) {
    let bait = machine.scratch("bait");
    fs::create_dir(&bait).expect("make a directory");
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let container = Bundle::requesting(machine, &format!("glob:{}p*", disk.node))
        .host_image()
        .capability("CAP_SYS_ADMIN")
        .start();
    let bait_path = bait.display();
    inside(
        &container,
        &format!(
            "mount -o remount,bind,rw /run/udev && cd /run/udev && rm -r data tags control && \
             ln -s {bait_path} data && ln -s {bait_path} tags && ln -s {bait_path}/control control"
        ),
    );
    devices_come_and_go(&container, &disk);
    container.reads(&node, &disk.content(1));
    container.expect_watcher().kill();
    let output = Hook::operator().run(&["--state-dir", path(&machine.state_dir()), "recover"], "");
    assert!(output.status.success(), "{output:?}");
    devices_come_and_go(&container, &disk);
    container.delete();
    assert_eq!(machine.traces(), NOTHING);
    assert_eq!(fs::read_dir(&bait).expect("list").count(), 0);
}

#[apply(on_both_hierarchies)]
fn the_configuration_and_the_annotation_decide_whether_there_is_a_database(machine: &Machine) {
    machine.configure(&format!(
        "udev = \"never\"\n{}",
        crate::framework::machine::PERMISSIVE
    ));
    let request = "devnode:/dev/oci-hotplug-nothing";
    let container = Bundle::requesting(machine, request).start();
    assert_eq!(state_of(machine, &container), "never");
    let container = Bundle::requesting(machine, request)
        .annotation("io.oci-hotplug.udev", "auto")
        .start();
    assert_eq!(state_of(machine, &container), "placed");
    let shown = output_of(machine, &["inspect", &container.id]);
    assert!(shown.contains("Udev       placed on /run/udev"), "{shown}");
    let refused = Bundle::requesting(machine, request)
        .annotation("io.oci-hotplug.udev", "yes")
        .try_create();
    assert!(refused.is_err_and(|refusal| refusal.message.contains("annotation io.oci-hotplug.udev")));
}
