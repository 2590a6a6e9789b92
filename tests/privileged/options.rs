//! Options of requests: access, owner, mode, path, links, and which nodes of a root.

use crate::framework::disk::number_of;
use crate::framework::{Bundle, Disk, Machine, Terminal, Udevd, eventually};

#[apply(on_both_hierarchies)]
fn read_access_allows_only_reading(machine: &Machine) {
    let disk = Disk::new(machine);
    let request = format!("devnode:{};access=r", disk.partition(1));
    let container = Bundle::requesting(machine, &request)
        .capability("CAP_MKNOD")
        .start();
    let node = disk.plug(1);
    container.eventually_reads(&node, &disk.content(1));
    assert!(container.is_write_refused(&node));
    let own = container.make_node("own", 'b', number_of(&node));
    container.reads(&own, &disk.content(1));
    assert!(container.is_write_refused(&own));
    disk.unplug(1);
    container.eventually_lacks(&node);
    container.eventually_refuses(&own);
}

#[apply(on_both_hierarchies)]
fn a_node_has_mode_0660_and_the_process_users_owner_by_default(machine: &Machine) {
    let disk = Disk::new(machine);
    let container = Bundle::requesting(machine, &format!("devnode:{}", disk.partition(1)))
        .user(1000, 1001)
        .start();
    let node = disk.plug(1);
    container.eventually_reads(&node, &disk.content(1));
    let inside = container.stat(&node);
    assert_eq!((inside.mode, inside.uid, inside.gid), (0o660, 1000, 1001));
}

#[apply(on_both_hierarchies)]
fn umasks_do_not_affect_the_mode_of_a_node(machine: &Machine) {
    let disk = Disk::new(machine);
    let request = format!(
        "devnode:{0};mode=0666;path=/dev/deep/down/here;link=/dev/also/here,devnode:{1}",
        disk.partition(1),
        disk.partition(2)
    );
    let container = Bundle::requesting(machine, &request)
        .caller_umask(0o777)
        .process_umask(0o777)
        .user(1000, 1000)
        .start();
    disk.plug(1);
    disk.plug(2);
    container.eventually_reads("/dev/deep/down/here", &disk.content(1));
    container.eventually_reads("/dev/also/here", &disk.content(1));
    container.eventually_reads(&disk.partition(2), &disk.content(2));
    assert_eq!(container.stat("/dev/deep/down/here").mode, 0o666);
    assert_eq!(container.stat("/dev/deep/down").mode, 0o755);
    assert_eq!(container.stat(&disk.partition(2)).mode, 0o660);
}

#[apply(on_both_hierarchies)]
fn mode_owner_path_and_links_are_as_requested(machine: &Machine) {
    let disk = Disk::new(machine);
    let options = "mode=0604;uid=7;gid=8;path=/dev/data/one;link=/dev/by-use/data;link=/dev/data-too";
    let container = Bundle::requesting(machine, &format!("devnode:{};{options}", disk.partition(1))).start();
    disk.plug(1);
    container.eventually_reads("/dev/by-use/data", &disk.content(1));
    eventually("the second link is there", || container.has("/dev/data-too"));
    let inside = container.stat("/dev/data/one");
    assert_eq!((inside.mode, inside.uid, inside.gid), (0o604, 7, 8));
    assert_eq!(container.stat("/dev/by-use/data").kind, "symbolic link");
    assert_eq!(
        container.inside("readlink -f /dev/data-too").output,
        "/dev/data/one"
    );
    assert!(
        !container.has(&disk.partition(1)),
        "the host path was not requested"
    );
    disk.unplug(1);
    container.eventually_lacks("/dev/data/one");
    for link in ["/dev/by-use/data", "/dev/data-too"] {
        container.eventually_lacks(link);
    }
}

#[apply(on_both_hierarchies)]
fn only_selects_some_nodes_of_a_root(machine: &Machine) {
    let disk = Disk::new(machine);
    let request = format!("devnode:{};only=devnode:{}", disk.node, disk.partition(2));
    let container = Bundle::requesting(machine, &request).start();
    disk.plug(1);
    disk.plug(2);
    container.eventually_reads(&disk.partition(2), &disk.content(2));
    assert!(!container.has(&disk.partition(1)));
    assert!(!container.has(&disk.node));
}

#[apply(on_both_hierarchies)]
fn two_requests_for_one_device_add_up(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.partition(1);
    let request = format!("devnode:{node};access=r , devnode:{node};access=w;path=/dev/write");
    let container = Bundle::requesting(machine, &request).start();
    disk.plug(1);
    container.eventually_reads(&node, &disk.content(1));
    eventually("the second node is there", || container.can_write("/dev/write"));
    disk.unplug(1);
    container.eventually_lacks(&node);
    container.eventually_lacks("/dev/write");
}

#[apply(on_both_hierarchies)]
fn links_of_udevd_follow_the_device(machine: &Machine) {
    let disk = Disk::new(machine);
    let rule = format!(
        "KERNEL==\"{}\", SYMLINK+=\"oci-hotplug-test/{}\"\n",
        disk.name(1),
        disk.name(1)
    );
    let _udevd = Udevd::start_with_rules(machine, &rule);
    let link = format!("/dev/oci-hotplug-test/{}", disk.name(1));
    let container = Bundle::requesting(machine, &format!("devnode:{}", disk.partition(1))).start();
    disk.plug(1);
    container.eventually_reads(&link, &disk.content(1));
    assert_eq!(
        container.inside(&format!("readlink -f {link}")).output,
        disk.partition(1)
    );
    disk.unplug(1);
    container.eventually_lacks(&link);
    container.eventually_lacks(&disk.partition(1));
}

#[apply(on_both_hierarchies)]
fn tags_and_properties_of_udevd_select_devices(machine: &Machine) {
    let disk = Disk::new(machine);
    let [tagged, named] = [disk.name(1), disk.name(2)];
    let rules = format!(
        "KERNEL==\"{tagged}\", TAG+=\"oci_hotplug_test\"\nKERNEL==\"{named}\", ENV{{OCI_HOTPLUG_TEST}}=\"number two\"\n"
    );
    let _udevd = Udevd::start_with_rules(machine, &rules);
    let request = "tag:oci_hotplug_test,property:OCI_HOTPLUG_TEST=number*";
    let container = Bundle::requesting(machine, request).start();
    for partition in [1, 2, 3] {
        disk.plug(partition);
    }
    container.eventually_reads(&disk.partition(1), &disk.content(1));
    container.eventually_reads(&disk.partition(2), &disk.content(2));
    assert!(!container.has(&disk.partition(3)));
    disk.unplug(1);
    disk.unplug(2);
    container.eventually_lacks(&disk.partition(1));
    container.eventually_lacks(&disk.partition(2));
    // The same selectors work for devices that are present at the start.
    disk.plug(1);
    let cold = Bundle::requesting(machine, request).start();
    cold.eventually_reads(&disk.partition(1), &disk.content(1));
}

#[apply(on_both_hierarchies)]
fn subsystem_attribute_and_syspath_select_devices(machine: &Machine) {
    let disk = Disk::new(machine);
    let terminal = Terminal::new();
    let screen = terminal.node().replace("/dev/", "");
    let request = format!(
        "subsystem:vc&devnode:{}, attr:partition=3&glob:{}p*, syspath:/sys/devices/virtual/block/{}/{}",
        terminal.node(),
        disk.node,
        disk.node.replace("/dev/", ""),
        disk.name(4)
    );
    let container = Bundle::requesting(machine, &request).start();
    terminal.plug();
    for partition in [2, 3, 4] {
        disk.plug(partition);
    }
    container.eventually_reads(&format!("/dev/{screen}"), &terminal.content());
    container.eventually_reads(&disk.partition(3), &disk.content(3));
    container.eventually_reads(&disk.partition(4), &disk.content(4));
    assert!(!container.has(&disk.partition(2)));
    assert!(!container.has(&terminal.node().replace("vcs", "vcsa")));
}

#[apply(on_both_hierarchies)]
fn a_negated_selector_excludes_devices(machine: &Machine) {
    let disk = Disk::new(machine);
    let request = format!("glob:{}p*&!devnode:{}", disk.node, disk.partition(1));
    let container = Bundle::requesting(machine, &request).start();
    disk.plug(1);
    disk.plug(2);
    container.eventually_reads(&disk.partition(2), &disk.content(2));
    assert!(!container.has(&disk.partition(1)));
}

/// Case README 5.
#[apply(on_both_hierarchies)]
fn a_selector_may_match_a_parent(machine: &Machine) {
    let disk = Disk::new(machine);
    let request = format!(
        "property:DEVTYPE=partition&devnode:{}&!attr:partition=2",
        disk.node
    );
    let container = Bundle::requesting(machine, &request).start();
    for partition in [1, 2, 3] {
        disk.plug(partition);
    }
    container.eventually_reads(&disk.partition(1), &disk.content(1));
    container.eventually_reads(&disk.partition(3), &disk.content(3));
    assert!(!container.has(&disk.partition(2)) && !container.has(&disk.node));
    // The opposite: the disk without its partitions.
    let whole = Bundle::requesting(machine, &format!("devnode:{}&!attr:partition=*", disk.node)).start();
    eventually("the disk is there", || whole.has(&disk.node));
    assert!(!whole.has(&disk.partition(1)));
}
