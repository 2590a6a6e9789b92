//! Devices that only one container has at a time, and devices that two containers share.

use std::path::PathBuf;
use std::process::Command;

use crate::framework::tool::json_of;
use crate::framework::{Bundle, Disk, Machine, RuncContainer, eventually};
use crate::policy::{eventually_shows, reread};

const NOTHING: Vec<PathBuf> = Vec::new();

#[apply(on_both_hierarchies)]
fn an_exclusive_device_is_in_one_container_at_a_time(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let request = format!("devnode:{node};exclusive");
    let first = Bundle::requesting(machine, &request).start();
    first.reads(&node, &disk.content(1));
    let second = Bundle::requesting(machine, &request).start();
    let third = Bundle::requesting(machine, &format!("devnode:{node}")).start();
    for waiting in [&second, &third] {
        eventually_shows(machine, waiting, &[&node, &format!("container {}", first.id)]);
        assert!(!waiting.has(&node));
        // Case newcomer: waiting is not a problem.
        let list = json_of(machine, &["list"]);
        let of = |id: &str| {
            list["containers"]
                .as_array()?
                .iter()
                .find(|entry| entry["id"] == id)
                .cloned()
        };
        let entry = of(&waiting.id).expect("it is listed");
        assert_eq!(entry["health"], "waiting", "{entry}");
    }
    let refusal = Bundle::requesting(machine, &format!("devnode:{node};required")).try_create();
    let message = refusal
        .err()
        .expect("what is required and taken refuses the start")
        .message;
    assert!(
        message.contains("required") && message.contains(&first.id),
        "{message}"
    );
    // A removed device is free; the next container gets it exclusively.
    disk.unplug(1);
    first.eventually_lacks(&node);
    third.delete();
    disk.plug(1);
    eventually("one of the two has it", || first.has(&node) || second.has(&node));
    assert!(!(first.has(&node) && second.has(&node)));
    let (has, waits) = if first.has(&node) {
        (&first, &second)
    } else {
        (&second, &first)
    };
    has.delete();
    waits.eventually_reads(&node, &disk.content(1));
    let log = machine.log();
    assert!(
        log.contains("waiting until the other container releases it"),
        "{log}"
    );
    waits.delete();
    assert_eq!(machine.traces(), NOTHING);
}

#[apply(on_both_hierarchies)]
fn an_exclusive_request_waits_for_containers_that_share(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let sharing = [(), ()].map(|()| Bundle::requesting(machine, &format!("devnode:{node}")).start());
    for container in &sharing {
        container.reads(&node, &disk.content(1));
    }
    let alone = Bundle::requesting(machine, &format!("devnode:{node};exclusive")).start();
    sharing[0].delete();
    eventually_shows(
        machine,
        &alone,
        &[
            "the request is `exclusive`",
            &format!("container {}", sharing[1].id),
        ],
    );
    assert!(!alone.has(&node));
    sharing[1].delete();
    alone.eventually_reads(&node, &disk.content(1));
    alone.delete();
    assert_eq!(machine.traces(), NOTHING);
}

#[apply(on_both_hierarchies)]
fn a_crash_of_the_watcher_releases_an_exclusive_device(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let request = format!("devnode:{node};exclusive");
    let [first, second] = [(), ()].map(|()| Bundle::requesting(machine, &request).start());
    eventually_shows(machine, &second, &[&node, &format!("container {}", first.id)]);
    first.expect_watcher().kill();
    second.eventually_reads(&node, &disk.content(1));
    first.delete();
    second.reads(&node, &disk.content(1));
    second.delete();
    assert_eq!(machine.traces(), NOTHING);
}

/// Case security 8.
#[apply(on_both_hierarchies)]
fn exclusive_disk_and_partition_exclude_each_other_and_two_partitions_do_not(machine: &Machine) {
    let disk = Disk::new(machine);
    let (one, two) = (disk.plug(1), disk.plug(2));
    let alone = |node: &str| Bundle::requesting(machine, &format!("devnode:{node};exclusive")).start();
    let (first, second) = (alone(&one), alone(&two));
    first.reads(&one, &disk.content(1));
    second.reads(&two, &disk.content(2));
    let of_disk = Bundle::requesting(
        machine,
        &format!("devnode:{};only=devnode:{}", disk.node, disk.node),
    )
    .start();
    let holder =
        |container: &RuncContainer<'_>, node: &str| format!("container {}, which has {node}", container.id);
    eventually_shows(
        machine,
        &of_disk,
        &[&disk.node, &holder(&first, &one), &holder(&second, &two)],
    );
    assert!(!of_disk.has(&disk.node));
    first.delete();
    second.delete();
    eventually("the disk comes when both partitions are free", || {
        of_disk.has(&disk.node)
    });
    let waiting = alone(&one);
    eventually_shows(machine, &waiting, &[&one, &holder(&of_disk, &disk.node)]);
    assert!(!waiting.has(&one));
    of_disk.delete();
    waiting.eventually_reads(&one, &disk.content(1));
    waiting.delete();
    assert_eq!(machine.traces(), NOTHING);
}

/// A loop device over a partition, created by losetup(8), detached when dropped.
struct LoopOver(String);

impl LoopOver {
    fn new(node: &str) -> Self {
        let made = Command::new("losetup")
            .args(["--find", "--show", node])
            .output()
            .expect("start losetup");
        assert!(made.status.success(), "{made:?}");
        Self(
            String::from_utf8(made.stdout)
                .expect("a path is text")
                .trim()
                .to_owned(),
        )
    }
}

impl Drop for LoopOver {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

/// Case security 8.
#[apply(on_both_hierarchies)]
fn an_exclusive_partition_includes_a_loop_device_over_it(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let over = LoopOver::new(&node);
    machine.configure("[policy]\ndefault = \"anything\"\n");
    let container = Bundle::requesting(machine, &format!("devnode:{}", over.0)).start();
    container.reads(&over.0, &disk.content(1));
    // A device is in use if a loop device is on it.
    let refusal = match Bundle::requesting(machine, &format!("devnode:{node}")).try_create() {
        Ok(container) => panic!("{} was created", container.id),
        Err(refusal) => refusal.message,
    };
    let name = over.0.trim_start_matches("/dev/");
    let reason = format!("{name} is over {}", disk.name(1));
    assert!(
        refusal.contains("protected: host-disk") && refusal.contains(&reason),
        "{refusal}"
    );
    machine.configure(&format!(
        "[policy]\ndefault = \"anything\"\n[[policy.deny]]\ndevices = [\"devnode:{node}\"]\n"
    ));
    reread(&container);
    container.eventually_lacks(&over.0);
    eventually_shows(machine, &container, &["[[policy.deny]] at ", &over.0]);
}

/// Case newcomer: a disk in use by another container.
#[apply(on_both_hierarchies)]
fn a_disk_of_another_container_is_attached_with_a_warning(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let request = format!("devnode:{node}");
    let first = Bundle::requesting(machine, &request).start();
    let second = Bundle::requesting(machine, &request).start();
    for container in [&first, &second] {
        container.reads(&node, &disk.content(1));
    }
    let warning = format!("{node} is in another container as well (container {})", first.id);
    eventually("the second container's watcher warns", || {
        machine.log().contains(&warning)
    });
    assert_eq!(
        machine.log().matches("is in another container as well").count(),
        1
    );
}
