//! Things in the way that a container put there: named, left alone, and no hindrance for anything
//! else.

use std::io::Read;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use oci_hotplug::host::container_dev::{ContainerDev, ContainerDevError, LinkOutcome, NodeOutcome};
use oci_hotplug::model::cgroup::grants::Change;
use oci_hotplug::model::plan::attachment::PathState;

use crate::fixture::{Inside, Kind, OWNER, Reaped, ZERO, mount_silent, path, wait_until};

const OWN: Kind = Kind {
    user: false,
    net: false,
    host_dev: false,
};
const USER: Kind = Kind {
    user: true,
    net: false,
    host_dev: false,
};

/// A thing at /dev/serial bars the way below it and takes the place; it stays what it is, and other
/// nodes go on.
fn is_named_and_left(inside: &mut Inside, dev: &mut ContainerDev, name: &str) {
    let before = inside.sh("ls -ld /dev/serial");
    let below = dev
        .add_node(path("/dev/serial/by-id/x"), ZERO, &OWNER, true)
        .unwrap_err()
        .to_string();
    assert_eq!(
        below,
        format!(
            "/dev/serial in the container is {name}, which oci-hotplug does not enter; remove it or choose another path"
        )
    );
    let taken = format!(
        "/dev/serial in the container is {name}, which oci-hotplug does not replace; remove it or choose another path"
    );
    assert_eq!(
        dev.add_node(path("/dev/serial"), ZERO, &OWNER, false)
            .unwrap_err()
            .to_string(),
        taken
    );
    let link = dev
        .add_link(path("/dev/serial"), path("/dev/ttyUSB0"), false)
        .unwrap_err();
    assert_eq!(link.to_string(), taken);
    assert_eq!(dev.remove_node(path("/dev/serial"), ZERO).unwrap(), Change::None);
    assert_eq!(
        dev.remove_node(path("/dev/serial/by-id/x"), ZERO).unwrap(),
        Change::None
    );
    assert_eq!(
        dev.remove_link(path("/dev/serial"), path("/dev/ttyUSB0"))
            .unwrap(),
        Change::None
    );
    assert_eq!(inside.sh("ls -ld /dev/serial"), before);
    others_go_on(inside, dev);
    assert_eq!(inside.sh("ls -A /dev"), "serial", "nothing half-made is left");
    inside.sh("rm -rf /dev/serial");
}

fn others_go_on(inside: &mut Inside, dev: &mut ContainerDev) {
    assert_eq!(
        dev.add_node(path("/dev/other/zero"), ZERO, &OWNER, false)
            .unwrap(),
        NodeOutcome::Created
    );
    assert_eq!(inside.first_byte("/dev/other/zero"), "000");
    assert_eq!(
        dev.remove_node(path("/dev/other/zero"), ZERO).unwrap(),
        Change::Made
    );
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn links_pipes_and_files_in_the_way_are_named_and_left() {
    for kind in [OWN, USER] {
        let mut inside = Inside::start(kind);
        let mut dev = inside.dev();
        inside.sh("mkdir /etc /opt/trap");
        for (make, name) in [
            ("ln -s /etc /dev/serial", "a symbolic link to \"/etc\""),
            ("ln -s /opt/trap /dev/serial", "a symbolic link to \"/opt/trap\""),
            ("ln -s . /dev/serial", "a symbolic link to \".\""),
            (
                "ln -s /proc/self/root /dev/serial",
                "a symbolic link to \"/proc/self/root\"",
            ),
            ("mkfifo /dev/serial", "a FIFO"),
            ("echo text > /dev/serial", "a file"),
            ("touch /dev/serial", "a file"),
        ] {
            inside.sh(make);
            is_named_and_left(&mut inside, &mut dev, name);
        }
        assert_eq!(
            inside.sh("ls -A /etc /opt/trap | tr '\\n' ' '"),
            "/etc:  /opt/trap:"
        );
    }
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_socket_or_another_device_in_the_way_is_named_and_left() {
    let mut inside = Inside::start(OWN);
    let mut dev = inside.dev();
    let _listener = UnixListener::bind(format!("/proc/{}/root/dev/serial", inside.facts.pid)).unwrap();
    is_named_and_left(&mut inside, &mut dev, "a socket");
    inside.sh("mknod /dev/serial c 1 3");
    is_named_and_left(&mut inside, &mut dev, "the device node c 1:3");
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_directory_takes_the_place_of_a_node_even_when_a_record_says_it_is_ours() {
    for kind in [OWN, USER] {
        let mut inside = Inside::start(kind);
        let mut dev = inside.dev();
        dev.add_node(path("/dev/a"), ZERO, &OWNER, false).unwrap();
        inside.sh("mv /dev/a /dev/elsewhere || umount /dev/a; rm -f /dev/a /dev/elsewhere; mkdir /dev/a");
        let error = dev.add_node(path("/dev/a"), ZERO, &OWNER, true).unwrap_err();
        assert!(matches!(error, ContainerDevError::Taken { found, .. } if found == "a directory"));
        assert_eq!(dev.remove_node(path("/dev/a"), ZERO).unwrap(), Change::None);
        assert_eq!(inside.sh("ls -A /dev"), "a");
    }
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_mount_in_the_way_is_named_and_not_entered() {
    for kind in [OWN, USER] {
        let mut inside = Inside::start(kind);
        let mut dev = inside.dev();
        inside.sh("mkdir /dev/shm /opt/volume; mount -t tmpfs x /dev/shm; mount -t tmpfs x /opt/volume");
        let error = dev
            .add_node(path("/dev/shm/zero"), ZERO, &OWNER, false)
            .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("/dev/shm in the container is a mount of another file system, which oci-hotplug does not enter; "),
            "{error}"
        );
        let error = dev
            .add_link(path("/opt/volume/l"), path("/dev/zero"), false)
            .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("/opt/volume in the container is a mount of another file system, which oci-hotplug does not enter; "),
            "{error}"
        );
        assert_eq!(
            inside.sh("ls -A /dev/shm /opt/volume | tr '\\n' ' '"),
            "/dev/shm:  /opt/volume:"
        );
        others_go_on(&mut inside, &mut dev);
    }
}

/// Case security 1.
#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_file_system_that_never_answers_is_asked_nothing_and_keeps_only_its_own_place() {
    for kind in [OWN, USER] {
        let mut inside = Inside::start(kind);
        let mut dev = inside.dev();
        let way = mount_silent(&mut inside, &mut dev, "/dev/bus", true);
        let place = mount_silent(&mut inside, &mut dev, "/dev/board", false);
        let volume = mount_silent(&mut inside, &mut dev, "/data", true);
        let node = path("/dev/bus/usb/001/002");
        let in_the_way = "/dev/bus in the container is a mount of another file system, which oci-hotplug does not enter; remove it or choose another path";
        let error = dev.add_node(node, ZERO, &OWNER, true).unwrap_err();
        assert_eq!(error.to_string(), in_the_way);
        assert_eq!(dev.find_node(node, ZERO).unwrap_err().to_string(), in_the_way);
        assert_eq!(dev.remove_node(node, ZERO).unwrap(), Change::None);

        let board = path("/dev/board");
        assert_eq!(dev.find_node(board, ZERO).unwrap(), PathState::Other);
        let error = dev.add_node(board, ZERO, &OWNER, true).unwrap_err();
        let taken = "/dev/board in the container is a mount of another file system, which oci-hotplug does not replace; remove it or choose another path";
        assert_eq!(error.to_string(), taken);
        let error = dev.add_link(board, path("/dev/zero"), true).unwrap_err();
        assert_eq!(error.to_string(), taken);
        assert_eq!(dev.remove_node(board, ZERO).unwrap(), Change::None);

        // A volume whose server has died: no attacker is needed for that.
        let link = path("/data/board");
        let error = dev.add_link(link, path("/dev/zero"), false).unwrap_err();
        assert!(
            error.to_string().starts_with(
                "/data in the container is a mount of another file system, which oci-hotplug does not enter; "
            ),
            "{error}"
        );
        assert_eq!(dev.remove_link(link, path("/dev/zero")).unwrap(), Change::None);
        others_go_on(&mut inside, &mut dev);
        // A container that is opened again does not query it either.
        let again = inside.dev();
        assert_eq!(again.find_node(board, ZERO).unwrap(), PathState::Other);
        for server in [way, place, volume] {
            server.expect_no_request();
        }
    }
}

/// Case security 1.
#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_dev_that_never_answers_is_not_entered() {
    for kind in [OWN, USER] {
        let mut inside = Inside::start(kind);
        let mut dev = inside.dev();
        let silent = mount_silent(&mut inside, &mut dev, "/dev", true);
        let error = ContainerDev::open(&inside.container(), Default::default())
            .err()
            .expect("not to be entered");
        assert!(
            error.to_string().starts_with(
                "/dev in the container is a mount of another file system, which oci-hotplug does not enter; "
            ),
            "{error}"
        );
        // What was opened before is the directory below it, where all goes on.
        dev.add_node(path("/dev/other"), ZERO, &OWNER, false).unwrap();
        assert_eq!(dev.remove_node(path("/dev/other"), ZERO).unwrap(), Change::Made);
        silent.expect_no_request();
    }
}

/// Case security 1.
#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_root_that_the_container_has_replaced_and_that_never_answers_is_not_entered() {
    // In a user namespace, such a file system is closed to root of the host (fs/fuse/dir.c,
    // fuse_allow_current_process).
    let mut inside = Inside::start(OWN);
    let mut dev = inside.dev();
    let before = Some(dev.root_file_system());
    let again = |inside: &Inside| ContainerDev::open_again(&inside.container(), Default::default(), before);
    assert!(again(&inside).is_ok());
    let silent = mount_silent(&mut inside, &mut dev, "/opt/silent", true);
    // The shell is running already, and asks nothing of its new root.
    inside.sh("pivot_root /opt/silent /opt/silent");
    let error = again(&inside).err().expect("not to be entered");
    assert!(
        error.to_string().starts_with(
            "/ in the container is a mount of another file system, which oci-hotplug does not enter; "
        ),
        "{error}"
    );
    // What was opened before is the root below it, where all goes on.
    dev.add_node(path("/dev/other"), ZERO, &OWNER, false).unwrap();
    assert_eq!(dev.remove_node(path("/dev/other"), ZERO).unwrap(), Change::Made);
    silent.expect_no_request();
}

/// Case security 1.
#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn an_overlay_of_the_containers_own_is_not_entered() {
    let mut inside = Inside::start(USER);
    let mut dev = inside.dev();
    inside.sh("mkdir -p /lower/x /opt/over && mount -t overlay -o lowerdir=/lower:/mnt over /opt/over");
    let error = dev
        .add_link(path("/opt/over/x/l"), path("/dev/zero"), false)
        .unwrap_err();
    assert!(
        error.to_string().starts_with(
            "/opt/over in the container is a mount of another file system, which oci-hotplug does not enter; "
        ),
        "{error}"
    );
    let error = dev
        .add_link(path("/opt/over"), path("/dev/zero"), true)
        .unwrap_err();
    assert!(matches!(error, ContainerDevError::Taken { .. }), "{error}");
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_read_only_file_system_is_named_and_nothing_else_suffers() {
    for kind in [OWN, USER] {
        let mut inside = Inside::start(kind);
        let mut dev = inside.dev();
        inside.sh("mount -o remount,bind,ro /");
        let error = dev
            .add_link(path("/opt/x/l"), path("/dev/zero"), false)
            .unwrap_err()
            .to_string();
        let hint = "in the container: its file system is read-only; choose a path below a writable /dev";
        assert_eq!(error, format!("cannot create the directory /opt/x {hint}"));
        let error = dev
            .add_link(path("/opt/l"), path("/dev/zero"), false)
            .unwrap_err()
            .to_string();
        assert_eq!(error, format!("cannot create the link /opt/l {hint}"));
        others_go_on(&mut inside, &mut dev);

        dev.add_node(path("/dev/kept/zero"), ZERO, &OWNER, false).unwrap();
        inside.sh("mount -o remount,bind,ro /dev");
        let result = dev.add_node(path("/dev/zero"), ZERO, &OWNER, false);
        assert!(
            matches!(result, Err(ContainerDevError::ReadOnly { .. })),
            "{result:?}"
        );
        let result = dev.remove_node(path("/dev/kept/zero"), ZERO);
        assert!(
            matches!(result, Err(ContainerDevError::ReadOnly { .. })),
            "{result:?}"
        );
        inside.sh("mount -o remount,bind,rw /dev");
        assert_eq!(
            dev.remove_node(path("/dev/kept/zero"), ZERO).unwrap(),
            Change::Made
        );
        assert_eq!(inside.sh("ls -A /dev"), "");
    }
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn leftovers_of_a_killed_watcher_are_removed_and_a_trap_in_their_place_is_an_error() {
    for kind in [OWN, USER] {
        let mut inside = Inside::start(kind);
        let mut dev = inside.dev();
        for leftover in ["ln -s /bin/busybox", "mkfifo", "touch", "mkdir"] {
            inside.sh(&format!("{leftover} /dev/.oci-hotplug-new"));
            others_go_on(&mut inside, &mut dev);
            assert_eq!(
                dev.add_node(path("/dev/zero"), ZERO, &OWNER, false).unwrap(),
                NodeOutcome::Created
            );
            assert_eq!(dev.remove_node(path("/dev/zero"), ZERO).unwrap(), Change::Made);
        }
        inside.sh("mkdir -p /dev/.oci-hotplug-new/x");
        let error = dev.add_node(path("/dev/zero"), ZERO, &OWNER, false).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("/dev/.oci-hotplug-new in the container is a directory, "),
            "{error}"
        );
        assert_eq!(inside.sh("ls -A /dev"), ".oci-hotplug-new");
        inside.sh("/bin/busybox true"); // What the link led to is whole.
    }
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_dev_that_is_a_link_is_refused() {
    let mut inside = Inside::start(OWN);
    inside.sh("umount /dev && rmdir /dev && ln -s /opt /dev");
    let error = ContainerDev::open(&inside.container(), Default::default())
        .map(drop)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("cannot open the directory /dev in the container: "),
        "{error}"
    );
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_link_of_ours_that_became_something_else_stays() {
    let mut inside = Inside::start(OWN);
    let mut dev = inside.dev();
    let (link, node) = (path("/dev/by/l"), path("/dev/zero"));
    assert_eq!(dev.add_link(link, node, false).unwrap(), LinkOutcome::Created);
    inside.sh("ln -sf /bin/sh /dev/by/l");
    assert_eq!(dev.remove_link(link, node).unwrap(), Change::None);
    assert_eq!(inside.sh("readlink /dev/by/l"), "/bin/sh");
    inside.sh("rm /dev/by/l; mkdir /dev/by/l");
    assert!(matches!(
        dev.add_link(link, node, true),
        Err(ContainerDevError::Taken { .. })
    ));
}

/// A second process in the container, which never rests.
fn swapper(inside: &Inside, kind: Kind) -> Reaped {
    let mut command = Command::new("nsenter");
    command.args([
        "--target",
        &inside.facts.pid.to_string(),
        "--mount",
        "--root",
        "--wd=/",
    ]);
    if kind.user {
        command.args(["--user", "--setuid", "0", "--setgid", "0"]);
    }
    let script = "echo; while :; do mkdir /dev/x; ln -s /bin/sh /dev/x/.oci-hotplug-new; rm -rf /dev/x; \
                  ln -s /etc /dev/x; rm -f /dev/x; done";
    let command = command
        .args(["/bin/sh", "-c", script])
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut swapper = Reaped(command.spawn().unwrap());
    swapper.0.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
    swapper
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_container_that_swaps_directories_for_links_all_the_time_gains_nothing() {
    for kind in [OWN, USER] {
        let mut inside = Inside::start(kind);
        let mut dev = inside.dev();
        inside.sh("mkdir /etc");
        let swapper = swapper(&inside, kind);
        let (mut failures, mut rounds) = (0, 0);
        wait_until("the container gets in the way", || {
            rounds += 1;
            let (node, link) = (path("/dev/x/zero"), path("/dev/x/link"));
            let results = [
                dev.add_node(node, ZERO, &OWNER, true).map(drop),
                dev.add_link(link, path("/dev/zero"), true).map(drop),
                dev.remove_link(link, path("/dev/zero")).map(drop),
                dev.remove_node(node, ZERO).map(drop),
            ];
            failures += results.iter().filter(|result| result.is_err()).count();
            rounds >= 1000 && failures > 0
        });
        drop(swapper);
        // The last command of the shell that was killed may outlive it by a moment, and make one
        // more entry.
        wait_until("nothing but the container's own entry was in /dev", || {
            inside
                .sh("rm -rf /dev/x; test -x /bin/sh && ls -A /dev")
                .is_empty()
        });
        assert_eq!(inside.sh("ls -A /etc"), "", "after {failures} failures");
        others_go_on(&mut inside, &mut dev);
    }
}
