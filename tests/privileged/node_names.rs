//! `path=` that ends in `/`: all nodes of a device have stable names in a directory.

use crate::framework::tool::{failed, json_of, output_of};
use crate::framework::{Bundle, Disk, Machine, RuncContainer, eventually};

/// Plugs two partitions in, and asserts that the directory has them under the names of the first
/// loop device.
fn has_both(container: &RuncContainer<'_>, directory: &str, disk: &Disk) {
    disk.plug_again(1);
    disk.plug_again(2);
    for partition in [1, 2] {
        let node = format!("{directory}loop0p{partition}");
        container.eventually_reads(&node, &disk.content(partition));
        assert!(
            !container.has(&disk.partition(partition)),
            "there is a node at the host's path"
        );
    }
    eventually("the whole disk is there", || {
        container.has(&format!("{directory}loop0"))
    });
}

#[apply(on_both_hierarchies)]
fn all_nodes_of_a_device_are_in_the_directory(machine: &Machine) {
    for user_namespace in [false, true] {
        let disk = Disk::new(machine);
        let request = format!("devnode:{};path=/dev/deep/board/", disk.node);
        let bundle = Bundle::requesting(machine, &request);
        let container = bundle.with_user_namespace(user_namespace).start();
        has_both(&container, "/dev/deep/board/", &disk);
        disk.unplug(1);
        container.eventually_lacks("/dev/deep/board/loop0p1");
        container.reads("/dev/deep/board/loop0p2", &disk.content(2));
        has_both(&container, "/dev/deep/board/", &disk);
    }
}

#[apply(on_both_hierarchies)]
fn two_devices_have_the_same_names_in_two_directories(machine: &Machine) {
    let (one, two) = (Disk::new(machine), Disk::new(machine));
    let request = format!(
        "devnode:{};path=/dev/one/,devnode:{};path=/dev/two/",
        one.node, two.node
    );
    let container = Bundle::requesting(machine, &request).start();
    has_both(&container, "/dev/one/", &one);
    has_both(&container, "/dev/two/", &two);
}

#[apply(on_both_hierarchies)]
fn of_two_devices_in_one_directory_one_has_the_name_until_it_goes(machine: &Machine) {
    let (one, two) = (Disk::new(machine), Disk::new(machine));
    let part = |disk: &Disk| format!("devnode:{};path=/dev/board/", disk.partition(1));
    let container = Bundle::requesting(machine, &format!("{},{}", part(&one), part(&two))).start();
    let name = "/dev/board/loop0p1";
    one.plug(1);
    container.eventually_reads(name, &one.content(1));
    let second = two.plug(1);
    eventually("the conflict is explained", || {
        let explained = output_of(machine, &["explain", &container.id, &second]);
        explained.contains(name) && explained.contains("already has this path")
    });
    container.reads(name, &one.content(1));
    one.unplug(1);
    container.eventually_reads(name, &two.content(1));
}

#[apply(on_both_hierarchies)]
fn the_next_watcher_keeps_the_names(machine: &Machine) {
    let disk = Disk::new(machine);
    let request = format!("devnode:{};path=/dev/board/", disk.node);
    let container = Bundle::requesting(machine, &request).start();
    has_both(&container, "/dev/board/", &disk);
    let nodes = || container.inside("stat -c '%n %i %z' /dev/board/*").output;
    let before = nodes();
    output_of(machine, &["recover", "--restart-watchers"]);
    disk.plug(3);
    container.eventually_reads("/dev/board/loop0p3", &disk.content(3));
    disk.unplug(3);
    container.eventually_lacks("/dev/board/loop0p3");
    assert_eq!(nodes(), before, "a node was created again");
}

#[apply(on_both_hierarchies)]
fn a_file_of_the_container_in_the_directory_stays(machine: &Machine) {
    let disk = Disk::new(machine);
    let request = format!("devnode:{};path=/dev/board/", disk.node);
    let container = Bundle::requesting(machine, &request).start();
    let made = container.inside("mkdir -p /dev/board && echo mine > /dev/board/loop0p1");
    assert_eq!(made.status, 0, "{}", made.output);
    disk.plug(1);
    disk.plug(2);
    container.eventually_reads("/dev/board/loop0p2", &disk.content(2));
    disk.unplug(1);
    disk.unplug(2);
    container.eventually_lacks("/dev/board/loop0p2");
    assert_eq!(container.inside("cat /dev/board/loop0p1").output, "mine");
}

#[apply(on_both_hierarchies)]
fn match_and_explain_show_the_names(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let request = format!("devnode:{};path=/dev/board/", disk.node);
    let shown = json_of(machine, &["match", &request]);
    assert_eq!(shown["names"]["/dev/board/loop0p1"], node.as_str(), "{shown}");
    let container = Bundle::requesting(machine, &request).start();
    container.eventually_reads("/dev/board/loop0p1", &disk.content(1));
    for path in [node.as_str(), "/dev/board/loop0p1"] {
        let explained = output_of(machine, &["explain", &container.id, path]);
        assert!(
            explained.contains("/dev/board/loop0p1 with access"),
            "{explained}"
        );
    }
    let refused = failed(machine, &["match", &format!("{request};link=/dev/link")], 2);
    assert!(
        refused.contains("path=/dev/board/ is a directory for all nodes"),
        "{refused}"
    );
}
