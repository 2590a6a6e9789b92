//! Every kind of /dev that a container may have: its own, one in a user namespace, the host's, and
//! the image's.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::framework::disk::number_of;
use crate::framework::udevd::host_settles;
use crate::framework::{Bundle, Disk, Machine, Terminal, Udevd, alone};

#[apply(on_both_hierarchies)]
fn devices_are_attached_and_detached_in_a_user_namespace(machine: &Machine) {
    let disk = Disk::new(machine);
    let request = format!("devnode:{};link=/dev/data/link", disk.partition(1));
    let container = Bundle::requesting(machine, &request).user_namespace().start();
    for _ in 0..3 {
        let node = disk.plug(1);
        container.eventually_reads(&node, &disk.content(1));
        container.eventually_reads("/dev/data/link", &disk.content(1));
        assert!(container.can_write(&node));
        disk.unplug(1);
        container.eventually_lacks(&node);
        container.eventually_lacks("/dev/data/link");
    }
}

#[apply(on_both_hierarchies)]
fn a_node_belongs_to_the_process_user_in_a_user_namespace(machine: &Machine) {
    let disk = Disk::new(machine);
    let request = format!(
        "devnode:{},devnode:{};uid=5;gid=6;mode=0644",
        disk.partition(1),
        disk.partition(2)
    );
    let container = Bundle::requesting(machine, &request)
        .user_namespace()
        .user(1000, 1001)
        .start();
    disk.plug(1);
    disk.plug(2);
    container.eventually_reads(&disk.partition(1), &disk.content(1));
    container.eventually_reads(&disk.partition(2), &disk.content(2));
    let inside = container.stat(&disk.partition(1));
    assert_eq!((inside.mode, inside.uid, inside.gid), (0o660, 1000, 1001));
    assert_eq!(inside.number, number_of(&disk.partition(1)));
    let inside = container.stat(&disk.partition(2));
    assert_eq!((inside.mode, inside.uid, inside.gid), (0o644, 5, 6));
    assert!(container.inside(&format!("[ -w {} ]", disk.partition(2))).status != 0);
}

#[apply(on_both_hierarchies)]
fn a_character_device_is_attached_and_detached_in_a_user_namespace(machine: &Machine) {
    let terminal = Terminal::new();
    let container = Bundle::requesting(machine, &format!("devnode:{}", terminal.node()))
        .user_namespace()
        .start();
    for _ in 0..3 {
        let node = terminal.plug();
        container.eventually_reads(&node, &terminal.content());
        terminal.unplug();
        container.eventually_lacks(&node);
    }
}

#[apply(on_both_hierarchies)]
fn a_present_device_is_attached_when_create_returns_in_a_user_namespace(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let container = Bundle::requesting(machine, &format!("devnode:{node}"))
        .user_namespace()
        .create();
    container.reads(&node, &disk.content(1));
    container.start();
    container.reads(&node, &disk.content(1));
}

#[apply(on_both_hierarchies)]
fn no_mount_is_left_in_a_user_namespace(machine: &Machine) {
    let disk = Disk::new(machine);
    let container = Bundle::requesting(machine, &format!("devnode:{}", disk.partition(1)))
        .user_namespace()
        .start();
    let mounts = || {
        container
            .inside("cat /proc/self/mountinfo")
            .output
            .lines()
            .count()
    };
    let before = mounts();
    for _ in 0..5 {
        disk.plug(1);
        container.eventually_reads(&disk.partition(1), &disk.content(1));
        disk.unplug(1);
        container.eventually_lacks(&disk.partition(1));
    }
    assert_eq!(mounts(), before);
}

#[apply(on_both_hierarchies)]
fn with_the_hosts_dev_only_access_is_granted_and_revoked(machine: &Machine) {
    // A udevd of another test would change the group of the nodes.
    alone();
    let disk = Disk::new(machine);
    let request = format!("devnode:{0},devnode:{0};access=r", disk.partition(1));
    let node = disk.plug(1);
    host_settles();
    let host = fs::symlink_metadata(&node).expect("stat a node of the host");
    let container = Bundle::requesting(machine, &request)
        .host_dev()
        .capability("CAP_MKNOD")
        .start();
    container.eventually_reads(&node, &disk.content(1));
    let own = container.make_node("own", 'b', number_of(&node));
    let after = fs::symlink_metadata(&node).expect("stat a node of the host");
    let identity = |found: &fs::Metadata| {
        (
            found.ino(),
            found.mode(),
            found.uid(),
            found.gid(),
            found.ctime_nsec(),
        )
    };
    assert_eq!(identity(&after), identity(&host), "the host's node was touched");
    let other = disk.plug(2);
    assert!(
        container.is_refused(&other),
        "another device of the host's /dev opens"
    );
    disk.unplug(1);
    container.eventually_lacks(&node);
    container.eventually_refuses(&own);
    // A device that is added while the container runs is treated like one that was not requested.
    disk.plug(1);
    container.eventually_reads(&node, &disk.content(1));
    host_settles();
    let owner = |node: &str| {
        let found = fs::symlink_metadata(node).expect("stat a node of the host");
        (found.mode(), found.uid(), found.gid())
    };
    assert_eq!(owner(&node), owner(&other), "the host's node was touched");
}

#[apply(on_both_hierarchies)]
fn options_create_nothing_in_the_hosts_dev(machine: &Machine) {
    let disk = Disk::new(machine);
    let request = format!(
        "devnode:{};link=/dev/oci-hotplug-test-link;mode=0600;uid=1",
        disk.partition(1)
    );
    let container = Bundle::requesting(machine, &request).host_dev().start();
    disk.plug(1);
    container.eventually_reads(&disk.partition(1), &disk.content(1));
    container.delete();
    let node = fs::symlink_metadata(disk.partition(1)).expect("the host's node is still there");
    assert_eq!(node.uid(), 0);
    assert!(
        fs::symlink_metadata("/dev/oci-hotplug-test-link").is_err(),
        "a link in the host's /dev"
    );
}

#[apply(on_both_hierarchies)]
fn devices_are_attached_and_detached_with_a_read_only_root(machine: &Machine) {
    let disk = Disk::new(machine);
    for user_namespace in [false, true] {
        let bundle = Bundle::requesting(machine, &format!("devnode:{}", disk.partition(1))).read_only();
        let container = bundle.with_user_namespace(user_namespace).start();
        disk.plug(1);
        container.eventually_reads(&disk.partition(1), &disk.content(1));
        disk.unplug(1);
        container.eventually_lacks(&disk.partition(1));
    }
}

#[apply(on_both_hierarchies)]
fn devices_are_attached_and_detached_with_dev_in_the_image(machine: &Machine) {
    let disk = Disk::new(machine);
    let container = Bundle::requesting(machine, &format!("devnode:{}", disk.partition(1)))
        .image_dev()
        .start();
    disk.plug(1);
    container.eventually_reads(&disk.partition(1), &disk.content(1));
    disk.unplug(1);
    container.eventually_lacks(&disk.partition(1));
}

/// Case security 10.
#[apply(on_both_hierarchies)]
fn files_on_persistent_file_systems_are_removed_when_the_container_ends(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.partition(1);
    let other = disk.partition(2);
    let request =
        format!("devnode:{node};link=/srv/board;link=/dev/by/board,devnode:{other};path=/dev/sub/x");
    for is_killed in [false, true] {
        disk.plug(1);
        disk.plug(2);
        let bundle = Bundle::requesting(machine, &request).image_dev();
        let rootfs = bundle.rootfs();
        let there = |path: &str| fs::symlink_metadata(rootfs.join(&path[1..])).is_ok();
        let mut container = bundle.start();
        container.eventually_reads("/srv/board", &disk.content(1));
        container.eventually_reads("/dev/sub/x", &disk.content(2));
        // Files that the container creates beside them stay.
        assert_eq!(
            container.inside("mkdir -p /dev/by && echo > /dev/by/mine").status,
            0
        );
        assert!(there(&node) && there("/srv/board"));
        let watcher = container.expect_watcher();
        if is_killed {
            watcher.kill();
        }
        let deleted = container.delete();
        assert!(deleted.status.success(), "{deleted:?}");
        watcher.eventually_ends();
        for path in [&*node, "/srv/board", "/dev/by/board", "/dev/sub", "/srv"] {
            assert!(
                !there(path),
                "{path} is left, the watcher was killed: {is_killed}"
            );
        }
        assert!(there("/dev/by/mine"));
        // Another device has the path at the next start.
        disk.unplug(1);
        disk.unplug(2);
        let squatter = Disk::new(machine);
        squatter.plug(1);
        disk.plug(1);
        container.start_again();
        container.eventually_reads("/srv/board", &disk.content(1));
        container.delete();
        disk.unplug(1);
    }
}

#[apply(on_both_hierarchies)]
fn devices_are_attached_and_detached_with_the_hosts_network(machine: &Machine) {
    let _udevd = Udevd::start(machine);
    let disk = Disk::new(machine);
    let container = Bundle::requesting(machine, &format!("devnode:{}", disk.partition(1)))
        .host_network()
        .start();
    disk.plug(1);
    container.eventually_reads(&disk.partition(1), &disk.content(1));
    disk.unplug(1);
    container.eventually_lacks(&disk.partition(1));
}
