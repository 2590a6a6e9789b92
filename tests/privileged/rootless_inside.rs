//! What programs in an ordinary user's containers find and do: the udev database, and
//! their mounts.

use crate::framework::container::text;
use crate::framework::ordinary_user::{OrdinaryUser, RootlessContainer};
use crate::framework::{Disk, Machine, Udevd, alone, eventually};
use crate::rootless::{ALONE, plug_for_all};

#[track_caller]
fn inside(container: &RootlessContainer<'_>, command: &str) -> String {
    let output = container.exec(command);
    assert!(output.status.success(), "{command}: {}", text(&output));
    text(&output)
}

#[apply(on_cgroup_v2)]
fn programs_in_rootless_containers_find_udevs_properties(machine: &Machine) {
    // This udevd sets the mode of every node, and rootless containers have the host's.
    alone();
    let disk = Disk::new(machine);
    // Before podman makes its mount namespace, which must show this udevd's database.
    let _udevd = Udevd::start_with_rules(machine, &format!("KERNEL==\"{}\", MODE=\"0666\"\n", disk.name(1)));
    let request = format!("devnode:{};link=/dev/board", disk.partition(1));
    for options in [
        &[ALONE][..],
        &[ALONE, "--userns=keep-id"],
        &[ALONE, "--uidmap=0:1:1000", "--gidmap=0:1:1000"],
    ] {
        let user = OrdinaryUser::new(machine);
        let container = user.start("c1", options, &request);
        let node = plug_for_all(&disk, 1);
        container.eventually_reads("/dev/board", &disk.content(1));
        // podman hides /sys/dev/block, by which udevadm finds nodes and tagged devices.
        let info = format!(
            "udevadm info --query=all --path=/sys/class/block/{}",
            disk.name(1)
        );
        eventually("the properties of udevd are found inside", || {
            let found = text(&container.exec(&info));
            found.contains("USEC_INITIALIZED=") && found.contains("S: board")
        });
        let command =
            "udevadm trigger --dry-run --verbose --subsystem-match=block --property-match=DEVLINKS=*board*";
        let linked = inside(&container, command);
        assert!(
            linked.lines().count() == 1 && linked.contains(&disk.name(1)),
            "{linked}"
        );
        let written = container.exec(": >/run/udev/new");
        assert!(text(&written).contains("Read-only"), "{}", text(&written));
        disk.unplug(1);
        container.eventually_lacks(&node);
        eventually("the database has no device", || {
            inside(&container, "ls /run/udev/data").is_empty()
        });
        container.remove();
    }
}

#[apply(on_cgroup_v2)]
fn a_container_that_mounts_over_its_node_loses_only_its_own_device(machine: &Machine) {
    let user = OrdinaryUser::new(machine);
    let disk = Disk::new(machine);
    let node = plug_for_all(&disk, 1);
    let second = format!("devnode:{}", disk.partition(2));
    let container = user.start("c1", &[ALONE, "--cap-add=SYS_ADMIN"], &format!("devnode:{node}"));
    container.eventually_reads(&node, &disk.content(1));
    let watcher = container.watcher();
    // The container mounts something over the node, and the node beside it.
    inside(
        &container,
        &format!(
            "echo own >/tmp/own && touch /dev/kept && mount --bind {node} /dev/kept && mount --bind /tmp/own {node}"
        ),
    );
    disk.unplug(1);
    container.eventually_lacks(&node);
    let kept = container.exec("head -n 1 /dev/kept");
    assert!(!kept.status.success(), "{}", text(&kept));
    plug_for_all(&disk, 1);
    plug_for_all(&disk, 2);
    user.output_of(&["attach", "c1", &second]);
    container.eventually_reads(&disk.partition(2), &disk.content(2));
    // Another device with the number of the kept mount does not open through it.
    let kept = container.exec("head -n 1 /dev/kept");
    assert!(!kept.status.success(), "{}", text(&kept));
    container.eventually_reads(&node, &disk.content(1));
    assert_eq!(container.watcher(), watcher);
    container.remove();
}

#[apply(on_cgroup_v2)]
fn a_node_that_the_container_unmounts_is_mounted_again(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = plug_for_all(&disk, 1);
    let request = format!("devnode:{node};link=/dev/board");
    for options in [
        &[ALONE, "--cap-add=SYS_ADMIN"][..],
        &[
            ALONE,
            "--cap-add=SYS_ADMIN",
            "--uidmap=0:1:1000",
            "--gidmap=0:1:1000",
        ],
    ] {
        let user = OrdinaryUser::new(machine);
        let container = user.start("c1", options, &request);
        container.eventually_reads("/dev/board", &disk.content(1));
        inside(&container, &format!("umount {node} && test ! -b {node}"));
        container.eventually_reads("/dev/board", &disk.content(1));
        let log = user.log();
        assert!(
            log.contains("is mounted again") && !log.contains("ERROR"),
            "{log}"
        );
        disk.unplug(1);
        container.eventually_lacks(&node);
        container.eventually_lacks("/dev/board");
        container.remove();
        plug_for_all(&disk, 1);
    }
}
