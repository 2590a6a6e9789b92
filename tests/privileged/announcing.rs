//! Uevents of its devices are received in the container and nowhere else.

use crate::framework::disk::number_of;
use crate::framework::{Announcements, Bundle, Disk, Machine, Terminal, Udevd};

#[apply(on_both_hierarchies)]
fn uevents_reach_a_container_with_its_own_network_namespace(machine: &Machine) {
    let disk = Disk::new(machine);
    let container = Bundle::requesting(machine, &format!("devnode:{}", disk.partition(1))).start();
    let listener = Announcements::inside(machine, &container, false);
    let node = disk.plug(1);
    let (major, minor) = number_of(&node);
    let added = listener.eventually_receive("UDEV", "add", &disk.name(1));
    container.reads(&node, &disk.content(1));
    for property in [
        format!("DEVNAME={node}"),
        format!("MAJOR={major}"),
        format!("MINOR={minor}"),
        "SUBSYSTEM=block".to_owned(),
        "DEVTYPE=partition".to_owned(),
    ] {
        assert!(
            added.properties.contains(&property),
            "{property} is not in {added:?}"
        );
    }
    disk.unplug(1);
    listener.eventually_receive("UDEV", "remove", &disk.name(1));
    container.eventually_lacks(&node);
}

#[apply(on_both_hierarchies)]
fn uevents_reach_a_container_with_its_own_user_namespace(machine: &Machine) {
    let disk = Disk::new(machine);
    let request = format!("devnode:{}", disk.partition(1));
    let container = Bundle::requesting(machine, &request).user_namespace().start();
    // The kernel itself sends nothing here: its own uevents go only to network namespaces of the
    // initial user namespace.
    let listener = Announcements::inside(machine, &container, true);
    disk.plug(1);
    for form in ["KERNEL", "UDEV"] {
        listener.eventually_receive(form, "add", &disk.name(1));
    }
    disk.unplug(1);
    for form in ["KERNEL", "UDEV"] {
        listener.eventually_receive(form, "remove", &disk.name(1));
    }
}

#[apply(on_both_hierarchies)]
fn each_uevent_is_sent_once_while_udevd_runs(machine: &Machine) {
    let _udevd = Udevd::start(machine);
    let terminal = Terminal::new();
    let name = terminal.node().replace("/dev/", "");
    let container = Bundle::requesting(machine, &format!("devnode:{}", terminal.node())).start();
    let listener = Announcements::inside(machine, &container, false);
    for round in 1..=3 {
        terminal.plug();
        let form = "UDEV";
        crate::framework::eventually("it is announced", || listener.count(form, "add", &name) >= round);
        terminal.unplug();
        crate::framework::eventually("its end is announced", || {
            listener.count(form, "remove", &name) >= round
        });
        assert_eq!(listener.count(form, "add", &name), round);
        assert_eq!(listener.count(form, "remove", &name), round);
    }
}

#[apply(on_both_hierarchies)]
fn uevents_of_other_devices_are_not_sent(machine: &Machine) {
    let disk = Disk::new(machine);
    let container = Bundle::requesting(machine, &format!("devnode:{}", disk.partition(2))).start();
    let listener = Announcements::inside(machine, &container, false);
    disk.plug(1);
    disk.plug(2);
    listener.eventually_receive("UDEV", "add", &disk.name(2));
    assert_eq!(listener.count("UDEV", "add", &disk.name(1)), 0);
}

#[apply(on_both_hierarchies)]
fn nothing_is_announced_in_the_hosts_network_namespace(machine: &Machine) {
    let disk = Disk::new(machine);
    let listener = Announcements::on_the_host(machine);
    let request = format!("devnode:{0},devnode:{1}", disk.partition(1), disk.partition(2));
    let container = Bundle::requesting(machine, &request).host_network().start();
    for partition in [1, 2] {
        disk.plug(partition);
        listener.eventually_receive("KERNEL", "add", &disk.name(partition));
        container.eventually_reads(&disk.partition(partition), &disk.content(partition));
        disk.unplug(partition);
        listener.eventually_receive("KERNEL", "remove", &disk.name(partition));
        container.eventually_lacks(&disk.partition(partition));
    }
    // The last steps for the first partition were done before the first ones for the second.
    for action in ["add", "remove"] {
        assert_eq!(listener.count("UDEV", action, &disk.name(1)), 0);
        assert_eq!(listener.count("KERNEL", action, &disk.name(1)), 1);
    }
}

#[apply(on_both_hierarchies)]
fn the_node_can_be_opened_when_the_uevent_arrives(machine: &Machine) {
    let terminal = Terminal::new();
    let node = terminal.node();
    let name = node.replace("/dev/", "");
    let container = Bundle::requesting(machine, &format!("devnode:{node};link=/dev/screen")).start();
    let listener = Announcements::inside(machine, &container, false);
    for round in 1..=5 {
        terminal.plug();
        crate::framework::eventually("it is announced", || {
            listener.count("UDEV", "add", &name) >= round
        });
        assert_eq!(container.read(&node, 1).status, 0);
        assert_eq!(container.read("/dev/screen", 1).status, 0);
        terminal.unplug();
        container.eventually_lacks(&node);
    }
}
