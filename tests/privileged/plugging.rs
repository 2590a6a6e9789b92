//! The main promise: a requested device is in the container while it is plugged in; after that,
//! node and access are gone.

use std::time::Duration;

use crate::framework::disk::number_of;
use crate::framework::{Bundle, Disk, Machine, Terminal, Udevd, WholeDisk, alone};

#[apply(on_both_hierarchies)]
fn a_partition_that_is_plugged_in_can_be_read_in_the_container(machine: &Machine) {
    let disk = Disk::new(machine);
    let container = Bundle::requesting(machine, &format!("devnode:{}", disk.partition(1))).start();
    assert!(!container.has(&disk.partition(1)));
    let node = disk.plug(1);
    container.eventually_reads(&node, &disk.content(1));
    assert!(container.can_write(&node));
    let inside = container.stat(&node);
    assert_eq!(inside.kind, "block special file");
    assert_eq!(inside.number, number_of(&node));
}

#[apply(on_both_hierarchies)]
fn a_partition_that_is_unplugged_is_gone_and_denied(machine: &Machine) {
    let disk = Disk::new(machine);
    let container = Bundle::requesting(machine, &format!("devnode:{}", disk.partition(1)))
        .capability("CAP_MKNOD")
        .start();
    let node = disk.plug(1);
    container.eventually_reads(&node, &disk.content(1));
    let number = number_of(&node);
    let own = container.make_node("own", 'b', number);
    container.reads(&own, &disk.content(1));
    disk.unplug(1);
    container.eventually_lacks(&node);
    container.eventually_refuses(&own);
    assert!(container.is_write_refused(&own));
    assert!(container.is_running());
}

#[apply(on_both_hierarchies)]
fn a_partition_that_returns_with_another_number_is_attached_again(machine: &Machine) {
    // It needs a number that was used before.
    alone();
    let disk = Disk::new(machine);
    let container = Bundle::requesting(machine, &format!("devnode:{}", disk.partition(1))).start();
    let node = disk.plug(1);
    container.eventually_reads(&node, &disk.content(1));
    let old = number_of(&node);
    disk.unplug(1);
    let _squatter = disk.plug_with_another_number(machine, 1, old);
    container.eventually_reads(&node, &disk.content(1));
    assert_eq!(container.stat(&node).number, number_of(&node));
}

#[apply(on_both_hierarchies)]
fn a_number_that_now_belongs_to_another_device_is_denied(machine: &Machine) {
    // It needs a number that was used before.
    alone();
    let disk = Disk::new(machine);
    let container = Bundle::requesting(machine, &format!("devnode:{}", disk.partition(1)))
        .capability("CAP_MKNOD")
        .start();
    let node = disk.plug(1);
    container.eventually_reads(&node, &disk.content(1));
    let number = number_of(&node);
    let own = container.make_node("own", 'b', number);
    disk.unplug(1);
    container.eventually_lacks(&node);
    // A disk that the container does not request gets the device number.
    let squatter = disk.plug_with_another_number(machine, 1, number);
    assert_eq!(number_of(&squatter.partition(1)), number);
    container.eventually_reads(&node, &disk.content(1));
    assert!(
        container.is_refused(&own),
        "another device's data: {:?}",
        container.read(&own, 20)
    );
}

#[apply(on_both_hierarchies)]
fn a_present_device_is_attached_when_create_returns(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let container = Bundle::requesting(machine, &format!("devnode:{node}")).create();
    container.reads(&node, &disk.content(1));
    assert!(
        container.creation < Duration::from_secs(10),
        "create took {:?}",
        container.creation
    );
    container.start();
    container.reads(&node, &disk.content(1));
    assert_eq!(container.exec_as_root(&format!("head -c 5 {node}")).status, 0);
}

#[apply(on_both_hierarchies)]
fn an_absent_device_is_attached_when_it_is_plugged_in_later(machine: &Machine) {
    let disk = Disk::new(machine);
    let container = Bundle::requesting(machine, &format!("devnode:{}", disk.partition(4))).create();
    assert!(!container.has(&disk.partition(4)));
    let before = container.expect_watcher();
    container.start();
    disk.plug(4);
    container.eventually_reads(&disk.partition(4), &disk.content(4));
    assert_eq!(container.expect_watcher(), before);
}

#[apply(on_both_hierarchies)]
fn devices_that_no_request_selects_are_not_attached(machine: &Machine) {
    let disk = Disk::new(machine);
    let container = Bundle::requesting(machine, &format!("devnode:{}", disk.partition(2)))
        .capability("CAP_MKNOD")
        .start();
    let other = disk.plug(1);
    // Events are in order: when the second device has been processed, so has the first.
    disk.plug(2);
    container.eventually_reads(&disk.partition(2), &disk.content(2));
    assert!(!container.has(&other));
    let own = container.make_node("own", 'b', number_of(&other));
    assert!(container.is_refused(&own));
}

#[apply(on_both_hierarchies)]
fn two_containers_get_different_devices(machine: &Machine) {
    let disk = Disk::new(machine);
    let first = Bundle::requesting(machine, &format!("devnode:{}", disk.partition(1))).start();
    let second = Bundle::requesting(machine, &format!("devnode:{}", disk.partition(2))).start();
    assert_ne!(first.expect_watcher().pid, second.expect_watcher().pid);
    disk.plug(1);
    disk.plug(2);
    first.eventually_reads(&disk.partition(1), &disk.content(1));
    second.eventually_reads(&disk.partition(2), &disk.content(2));
    assert!(!first.has(&disk.partition(2)));
    assert!(!second.has(&disk.partition(1)));
    disk.unplug(1);
    first.eventually_lacks(&disk.partition(1));
    second.reads(&disk.partition(2), &disk.content(2));
}

#[apply(on_both_hierarchies)]
fn two_containers_share_a_device(machine: &Machine) {
    let disk = Disk::new(machine);
    let request = format!("devnode:{}", disk.partition(1));
    let first = Bundle::requesting(machine, &request).start();
    let second = Bundle::requesting(machine, &request).start();
    let node = disk.plug(1);
    first.eventually_reads(&node, &disk.content(1));
    second.eventually_reads(&node, &disk.content(1));
    first.delete();
    second.reads(&node, &disk.content(1));
    disk.unplug(1);
    second.eventually_lacks(&node);
}

#[apply(on_both_hierarchies)]
fn partitions_that_are_added_later_belong_to_a_requested_disk(machine: &Machine) {
    let disk = Disk::new(machine);
    let container = Bundle::requesting(machine, &format!("devnode:{}", disk.node)).create();
    container.reads(&disk.node, &disk.content(0));
    container.start();
    for partition in [1, 5, 9] {
        disk.plug(partition);
        container.eventually_reads(&disk.partition(partition), &disk.content(partition));
    }
    disk.unplug(5);
    container.eventually_lacks(&disk.partition(5));
    container.reads(&disk.partition(1), &disk.content(1));
    container.reads(&disk.partition(9), &disk.content(9));
    container.reads(&disk.node, &disk.content(0));
}

#[apply(on_both_hierarchies)]
fn a_whole_disk_is_unplugged_and_plugged_in_again(machine: &Machine) {
    let mut disk = WholeDisk::new();
    let node = disk.node();
    let container = Bundle::requesting(machine, &format!("devnode:{node}")).start();
    for _ in 0..3 {
        disk.plug();
        crate::framework::eventually(&format!("{node} opens inside"), || {
            container.read(&node, 0).status == 0
        });
        disk.unplug();
        container.eventually_lacks(&node);
    }
}

#[apply(on_both_hierarchies)]
fn a_character_device_is_unplugged_while_a_process_has_it_open(machine: &Machine) {
    let terminal = Terminal::new();
    let container = Bundle::requesting(machine, &format!("devnode:{}", terminal.node()))
        .capability("CAP_MKNOD")
        .start();
    let node = terminal.plug();
    container.eventually_reads(&node, &terminal.content());
    assert_eq!(container.stat(&node).kind, "character special file");
    let own = container.make_node("own", 'c', number_of(&node));
    // A process that holds the device open does not keep it in the container.
    let holder = container
        .inside(&format!("sleep 3600 <{node} >/dev/null 2>&1 & echo $!"))
        .output;
    terminal.unplug();
    container.eventually_lacks(&node);
    container.eventually_refuses(&own);
    terminal.plug();
    container.eventually_reads(&node, &terminal.content());
    container.inside(&format!("kill {holder}"));
}

#[apply(on_both_hierarchies)]
fn a_partition_is_attached_and_detached_while_udevd_runs(machine: &Machine) {
    let _udevd = Udevd::start(machine);
    let disk = Disk::new(machine);
    let request = format!(
        "devnode:{0},devnode:{1};ready=kernel",
        disk.partition(1),
        disk.partition(2)
    );
    let container = Bundle::requesting(machine, &request).start();
    for partition in [1, 2] {
        let node = disk.plug(partition);
        container.eventually_reads(&node, &disk.content(partition));
        disk.unplug(partition);
        container.eventually_lacks(&node);
        disk.plug(partition);
        container.eventually_reads(&node, &disk.content(partition));
    }
}

#[apply(on_both_hierarchies)]
fn a_character_device_is_attached_and_detached_while_udevd_runs(machine: &Machine) {
    let _udevd = Udevd::start(machine);
    for ready in ["", ";ready=udev", ";ready=kernel"] {
        let terminal = Terminal::new();
        let container = Bundle::requesting(machine, &format!("devnode:{}{ready}", terminal.node())).start();
        let node = terminal.plug();
        container.eventually_reads(&node, &terminal.content());
        terminal.unplug();
        container.eventually_lacks(&node);
    }
}

#[apply(on_both_hierarchies)]
fn many_devices_plugged_in_at_once_are_all_attached(machine: &Machine) {
    let disk = Disk::new(machine);
    let container = Bundle::requesting(machine, &format!("glob:{}p*", disk.node)).start();
    for partition in 1..=15 {
        disk.plug(partition);
    }
    for partition in 1..=15 {
        container.eventually_reads(&disk.partition(partition), &disk.content(partition));
    }
    for partition in 1..=15 {
        disk.unplug(partition);
    }
    for partition in 1..=15 {
        container.eventually_lacks(&disk.partition(partition));
    }
    // The disk itself does not match the pattern.
    assert!(!container.has(&disk.node));
}

#[apply(on_both_hierarchies)]
fn a_device_that_is_unplugged_before_the_start_is_detached(machine: &Machine) {
    // It needs a number that was used before.
    alone();
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let old = number_of(&node);
    let container = Bundle::requesting(machine, &format!("devnode:{node}")).create();
    disk.unplug(1);
    container.eventually_lacks(&node);
    let _squatter = disk.plug_with_another_number(machine, 1, old);
    container.start();
    container.eventually_reads(&node, &disk.content(1));
}
