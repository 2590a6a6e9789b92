//! Nodes and links in their three placements.

use std::collections::BTreeSet;

use nix::sys::stat::{Mode, umask};
use oci_hotplug::host::container_dev::{
    ContainerDev, ContainerDevError, LinkOutcome, NodeOutcome, NodeOwner, Placement,
};
use oci_hotplug::model::cgroup::grants::Change;

use crate::fixture::{FULL, Inside, Kind, OWNER, ZERO, path};

const USER: Kind = Kind {
    user: true,
    net: false,
    host_dev: false,
};
const HOST_DEV: Kind = Kind {
    user: false,
    net: false,
    host_dev: true,
};

/// The process's umask, put back at the end.
struct Umask(Mode);

impl Umask {
    fn set(mode: u32) -> Self {
        Self(umask(Mode::from_bits_truncate(mode)))
    }
}

impl Drop for Umask {
    fn drop(&mut self) {
        umask(self.0);
    }
}

/// What both placements that create nodes promise.
fn node_lives_and_goes(kind: Kind, placement: Placement) {
    let mut inside = Inside::start(kind);
    let mut dev = inside.dev();
    assert_eq!(dev.placement(), placement);
    let node = path("/dev/deep/er/zero");
    {
        let _umask = Umask::set(0o777);
        assert_eq!(
            dev.add_node(node, ZERO, &OWNER, false).unwrap(),
            NodeOutcome::Created
        );
    }
    assert_eq!(
        inside.stat("/dev/deep/er/zero"),
        "character special file 640 12 34 1:5"
    );
    assert_eq!(inside.first_byte("/dev/deep/er/zero"), "000");
    assert_eq!(inside.stat("/dev/deep"), "directory 755 0 0 0:0");
    let made: BTreeSet<_> = ["/dev/deep".into(), "/dev/deep/er".into()].into();
    assert_eq!(*dev.directories(), made);
    assert_eq!(
        dev.add_node(node, ZERO, &OWNER, true).unwrap(),
        NodeOutcome::Unchanged
    );

    // Another number, then another mode: replaced, and a file is there at every moment.
    assert_eq!(
        dev.add_node(node, FULL, &OWNER, true).unwrap(),
        NodeOutcome::Created
    );
    assert_eq!(
        inside.stat("/dev/deep/er/zero"),
        "character special file 640 12 34 1:7"
    );
    let open = NodeOwner {
        mode: 0o666,
        uid: 0,
        gid: 0,
    };
    assert_eq!(
        dev.add_node(node, FULL, &open, true).unwrap(),
        NodeOutcome::Created
    );
    assert_eq!(
        inside.stat("/dev/deep/er/zero"),
        "character special file 666 0 0 1:7"
    );
    assert_eq!(
        inside.sh("ls -A /dev/deep/er"),
        "zero",
        "nothing temporary is left"
    );

    assert_eq!(
        dev.remove_node(node, ZERO).unwrap(),
        Change::None,
        "it has another number"
    );
    assert!(inside.has("/dev/deep/er/zero"));
    assert_eq!(dev.remove_node(node, FULL).unwrap(), Change::Made);
    assert_eq!(inside.sh("ls -A /dev"), "", "the directories went with the node");
    assert!(dev.directories().is_empty());
    assert_eq!(dev.remove_node(node, FULL).unwrap(), Change::None);
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_node_in_the_containers_own_dev_has_exact_mode_and_owner_and_goes_with_its_directories() {
    node_lives_and_goes(Kind::default(), Placement::Own);
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_node_in_a_user_namespace_opens_and_goes_with_its_directories() {
    node_lives_and_goes(USER, Placement::UserNamespace);
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_directory_opened_before_pivot_root_stays_valid_after_it() {
    for kind in [Kind::default(), USER] {
        let mut inside = Inside::start_unpivoted(kind);
        let mut dev = inside.dev();
        dev.add_node(path("/dev/a"), ZERO, &OWNER, false).unwrap();
        assert!(inside.stat("/dev/a").ends_with("640 12 34 1:5"));
        inside.pivot();
        assert!(inside.stat("/dev/a").ends_with("640 12 34 1:5"));
        dev.add_node(path("/dev/b"), ZERO, &OWNER, false).unwrap();
        assert_eq!(inside.first_byte("/dev/a"), "000");
        assert_eq!(inside.first_byte("/dev/b"), "000");
        dev.add_node(path("/dev/c"), ZERO, &OWNER, false).unwrap();
        assert_eq!(dev.remove_node(path("/dev/c"), ZERO).unwrap(), Change::Made);
        // A watcher that starts now finds the same /dev.
        let mut later = ContainerDev::open(&inside.container(), dev.directories().clone()).unwrap();
        assert_eq!(
            later.add_node(path("/dev/b"), ZERO, &OWNER, true).unwrap(),
            NodeOutcome::Unchanged
        );
        assert_eq!(later.remove_node(path("/dev/a"), ZERO).unwrap(), Change::Made);
        assert!(!inside.has("/dev/a"));
    }
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn plugging_in_a_user_namespace_leaves_no_mount_file_or_descriptor_and_the_process_where_it_was() {
    let mut inside = Inside::start(USER);
    let mut dev = inside.dev();
    let where_am_i = || {
        let namespace = std::fs::read_link("/proc/thread-self/ns/mnt").unwrap();
        (
            namespace,
            std::env::current_dir().unwrap(),
            std::fs::read_dir("/proc/self/fd").unwrap().count(),
        )
    };
    let cycle = |dev: &mut ContainerDev| {
        dev.add_node(path("/dev/x/zero"), ZERO, &OWNER, false).unwrap();
        dev.add_node(path("/dev/x/zero"), FULL, &OWNER, true).unwrap();
        assert_eq!(dev.remove_node(path("/dev/x/zero"), FULL).unwrap(), Change::Made);
    };
    let before = where_am_i();
    cycle(&mut dev);
    let (namespace, directory, descriptors) = where_am_i();
    assert_eq!((&namespace, &directory), (&before.0, &before.1));
    let mounts = inside.sh("cat /proc/self/mountinfo");
    for _ in 0..100 {
        cycle(&mut dev);
    }
    assert_eq!(where_am_i(), (namespace, directory, descriptors));
    assert_eq!(inside.sh("cat /proc/self/mountinfo"), mounts);
    assert_eq!(inside.sh("ls -A /dev"), "");
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_node_that_the_container_unmounted_is_healed_and_its_file_removed() {
    let mut inside = Inside::start(USER);
    let mut dev = inside.dev();
    dev.add_node(path("/dev/zero"), ZERO, &OWNER, false).unwrap();
    inside.sh("umount /dev/zero");
    assert_eq!(
        dev.add_node(path("/dev/zero"), ZERO, &OWNER, true).unwrap(),
        NodeOutcome::Created
    );
    assert_eq!(inside.first_byte("/dev/zero"), "000");
    inside.sh("umount /dev/zero");
    assert_eq!(dev.remove_node(path("/dev/zero"), ZERO).unwrap(), Change::Made);
    assert!(!inside.has("/dev/zero"));
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn ids_that_the_user_namespace_does_not_have_are_named() {
    let inside = Inside::start(USER);
    let mut dev = inside.dev();
    let owner = NodeOwner { gid: 70_000, ..OWNER };
    let error = dev.add_node(path("/dev/zero"), ZERO, &owner, false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "group id 70000 is not mapped in the container's user namespace: choose one that is"
    );
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn the_engines_own_node_is_adopted_as_it_is() {
    let mut inside = Inside::start(Kind::default());
    let mut dev = inside.dev();
    inside.sh("mknod -m 0604 /dev/zero c 1 5");
    assert_eq!(
        dev.add_node(path("/dev/zero"), ZERO, &OWNER, false).unwrap(),
        NodeOutcome::Adopted
    );
    assert_eq!(inside.stat("/dev/zero"), "character special file 604 0 0 1:5");
    let error = dev.add_node(path("/dev/zero"), FULL, &OWNER, false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "/dev/zero in the container is the device node c 1:5, which oci-hotplug does not replace; remove it or choose another path"
    );
    assert_eq!(inside.stat("/dev/zero"), "character special file 604 0 0 1:5");
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn in_a_user_namespace_the_engines_bind_mounted_node_is_adopted_as_it_is() {
    let mut inside = Inside::start_unpivoted(USER);
    let target = inside.at("/dev/zero");
    inside.sh(&format!("touch {target} && mount --bind /dev/zero {target}"));
    inside.pivot();
    let before = inside.stat("/dev/zero");
    assert_eq!(
        inside
            .dev()
            .add_node(path("/dev/zero"), ZERO, &OWNER, false)
            .unwrap(),
        NodeOutcome::Adopted
    );
    assert_eq!(inside.stat("/dev/zero"), before);
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn the_hosts_own_dev_is_never_touched() {
    let name = format!("oci-hotplug-test-{}", std::process::id());
    let (node, link) = (format!("/dev/{name}/zero"), format!("/dev/{name}-link"));
    let mut inside = Inside::start(HOST_DEV);
    let mut dev = inside.dev();
    assert_eq!(dev.placement(), Placement::HostDev);
    assert_eq!(
        dev.add_node(path(&node), ZERO, &OWNER, false).unwrap(),
        NodeOutcome::HostOwned
    );
    assert_eq!(
        dev.add_node(path("/dev/zero"), FULL, &OWNER, true).unwrap(),
        NodeOutcome::HostOwned
    );
    assert_eq!(
        dev.add_link(path(&link), path("/dev/zero"), false).unwrap(),
        LinkOutcome::HostOwned
    );
    assert_eq!(dev.remove_node(path("/dev/zero"), ZERO).unwrap(), Change::None);
    assert!(!inside.has(&format!("/dev/{name}")) && !inside.has(&link) && inside.has("/dev/zero"));
    // Elsewhere the container's root is its own.
    assert_eq!(
        dev.add_link(path("/opt/l"), path("/dev/zero"), false).unwrap(),
        LinkOutcome::Created
    );
    assert_eq!(
        dev.remove_link(path("/opt/l"), path("/dev/zero")).unwrap(),
        Change::Made
    );
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_part_of_the_hosts_dev_mounted_below_the_containers_is_never_touched() {
    let mut inside = Inside::start_unpivoted(Kind::default());
    let bus = inside.at("/dev/bus");
    inside.sh(&format!("mkdir {bus} && mount --bind /dev {bus}"));
    inside.pivot();
    let mut dev = inside.dev();
    assert_eq!(dev.placement(), Placement::Own);
    let name = format!("/dev/bus/oci-hotplug-test-{}", std::process::id());
    assert_eq!(
        dev.add_node(path(&name), ZERO, &OWNER, false).unwrap(),
        NodeOutcome::HostOwned
    );
    let below = format!("{name}/deep/er");
    assert!(matches!(
        dev.add_node(path(&below), ZERO, &OWNER, false),
        Ok(NodeOutcome::HostOwned)
    ));
    assert_eq!(
        dev.remove_node(path("/dev/bus/zero"), ZERO).unwrap(),
        Change::None
    );
    assert!(!inside.has(&name) && inside.has("/dev/bus/zero"));
}

/// What links promise, with or without a user namespace.
fn links_live_and_go(kind: Kind) {
    let mut inside = Inside::start(kind);
    let mut dev = inside.dev();
    let (link, node) = (path("/dev/serial/by-id/usb-x"), path("/dev/ttyUSB0"));
    assert_eq!(dev.add_link(link, node, false).unwrap(), LinkOutcome::Created);
    assert_eq!(inside.sh("readlink /dev/serial/by-id/usb-x"), "../../ttyUSB0");
    assert_eq!(inside.sh("stat -c %u:%g /dev/serial/by-id/usb-x"), "0:0");
    assert_eq!(dev.add_link(link, node, true).unwrap(), LinkOutcome::Unchanged);
    assert_eq!(dev.add_link(link, node, false).unwrap(), LinkOutcome::Adopted);
    assert_eq!(
        dev.add_link(link, path("/dev/ttyUSB1"), true).unwrap(),
        LinkOutcome::Created
    );
    assert_eq!(inside.sh("readlink /dev/serial/by-id/usb-x"), "../../ttyUSB1");
    assert!(matches!(
        dev.add_link(link, node, false),
        Err(ContainerDevError::Taken { found, .. }) if found == "a symbolic link to \"../../ttyUSB1\""
    ));
    assert_eq!(
        dev.remove_link(link, node).unwrap(),
        Change::None,
        "it leads elsewhere"
    );
    assert_eq!(dev.remove_link(link, path("/dev/ttyUSB1")).unwrap(), Change::Made);
    assert_eq!(inside.sh("ls -A /dev"), "");

    let outside = path("/opt/devices/modem");
    assert_eq!(dev.add_link(outside, node, false).unwrap(), LinkOutcome::Created);
    assert_eq!(inside.sh("readlink /opt/devices/modem"), "/dev/ttyUSB0");
    assert_eq!(dev.remove_link(outside, node).unwrap(), Change::Made);
    assert_eq!(inside.sh("ls -A /opt"), "");
    assert!(dev.directories().is_empty());
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn links_are_relative_in_dev_and_absolute_elsewhere_and_follow_their_device() {
    links_live_and_go(Kind::default());
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn links_in_a_user_namespace_are_its_roots() {
    links_live_and_go(USER);
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn only_our_directories_go_and_only_when_empty() {
    let mut inside = Inside::start(Kind::default());
    let mut dev = inside.dev();
    inside.sh("mkdir /dev/engines");
    for name in ["/dev/engines/a", "/dev/ours/a", "/dev/ours/b"] {
        dev.add_node(path(name), ZERO, &OWNER, false).unwrap();
    }
    inside.sh("touch /dev/ours/theirs");
    for name in ["/dev/engines/a", "/dev/ours/a", "/dev/ours/b"] {
        assert_eq!(dev.remove_node(path(name), ZERO).unwrap(), Change::Made);
    }
    assert_eq!(
        inside.sh("ls -A /dev /dev/ours | tr '\\n' ' '"),
        "/dev: engines ours  /dev/ours: theirs"
    );
    // An earlier watcher's directory is known again by the list.
    let list = dev.directories().clone();
    assert_eq!(list, ["/dev/ours".into()].into());
    inside.sh("rm /dev/ours/theirs");
    let mut later = ContainerDev::open(&inside.container(), list).unwrap();
    later.add_node(path("/dev/ours/c"), ZERO, &OWNER, false).unwrap();
    assert_eq!(
        later.remove_node(path("/dev/ours/c"), ZERO).unwrap(),
        Change::Made
    );
    assert_eq!(inside.sh("ls -A /dev"), "engines");
}
