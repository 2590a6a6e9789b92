//! How hooks process a container's requests: where they are read from, and what a wrong one causes.

use std::fs;

use crate::framework::hook::oci_state;
use crate::framework::{Bundle, Disk, Hook, Machine};

#[apply(on_both_hierarchies)]
fn a_container_without_requests_leaves_no_files(machine: &Machine) {
    let container = Bundle::new(machine)
        .annotation("org.example.other", "devnode:/dev/loop0")
        .start();
    assert_eq!(container.watcher(), None);
    assert_eq!(machine.traces(), Vec::<std::path::PathBuf>::new());
    assert!(container.delete().status.success());
    assert_eq!(machine.traces(), Vec::<std::path::PathBuf>::new());
}

/// Asserts that creation fails with a message that has all of `words`, and that nothing is left.
fn refused(machine: &Machine, bundle: Bundle<'_>, words: &[&str]) {
    let id = bundle.id.clone();
    let refusal = match bundle.try_create() {
        Ok(container) => panic!("{} was created", container.id),
        Err(refusal) => refusal,
    };
    for word in words {
        assert!(
            refusal.message.contains(word),
            "{word:?} is not in the message: {}",
            refusal.message
        );
    }
    crate::framework::eventually("no watcher is left", || {
        crate::framework::Watcher::of(&id).is_none()
    });
    assert_eq!(machine.traces(), Vec::<std::path::PathBuf>::new());
}

#[apply(on_both_hierarchies)]
fn a_malformed_annotation_prevents_the_start(machine: &Machine) {
    let cases: [(&str, &str, &[&str]); 5] = [
        ("io.oci-hotplug.devices", "usb:12345:6001", &["4 hex digits"]),
        ("io.oci-hotplug.devices", "devnode:dev/ttyS0", &["absolute"]),
        ("io.oci-hotplug.devices", "ubs:0403:6001", &["usb"]),
        ("io.oci-hotplug.devices", "devnode:/dev/x;access=q", &["access"]),
        ("io.oci-hotplug.symlinks", "usb:0403:6001=/dev/x", &["INTERFACE"]),
    ];
    for (key, value, words) in cases {
        let bundle = Bundle::new(machine).annotation(key, value);
        let mut expected = vec![key, value];
        expected.extend(words);
        refused(machine, bundle, &expected);
    }
}

#[apply(on_both_hierarchies)]
fn a_malformed_argument_prevents_the_start(machine: &Machine) {
    let bundle = Bundle::new(machine).hook_for_each(&["devnode:/dev/x;mode=9"]);
    refused(machine, bundle, &["--device", "mode", "octal"]);
    let bundle = Bundle::new(machine).hook_arguments(&["--symlink", "/dev/x"]);
    refused(machine, bundle, &["--symlink", "/dev/x"]);
}

#[apply(on_both_hierarchies)]
fn an_absent_required_device_prevents_the_start(machine: &Machine) {
    let disk = Disk::new(machine);
    let request = format!("devnode:{};required", disk.partition(1));
    refused(
        machine,
        Bundle::requesting(machine, &request),
        &[&disk.partition(1), "required"],
    );
}

#[apply(on_both_hierarchies)]
fn a_present_required_device_is_attached(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let container = Bundle::requesting(machine, &format!("devnode:{node};required")).create();
    container.reads(&node, &disk.content(1));
    disk.unplug(1);
    container.eventually_lacks(&node);
    container.start();
    disk.plug(1);
    container.eventually_reads(&node, &disk.content(1));
}

#[apply(on_both_hierarchies)]
fn arguments_and_annotations_add_up(machine: &Machine) {
    let disk = Disk::new(machine);
    let argument = format!("devnode:{},devnode:{}", disk.partition(2), disk.partition(3));
    let container = Bundle::requesting(machine, &format!("devnode:{}", disk.partition(1)))
        .hook_for_each(&[&argument])
        .hook_arguments(&["--device", &format!("devnode:{}", disk.partition(4))])
        .start();
    for partition in 1..=4 {
        disk.plug(partition);
        container.eventually_reads(&disk.partition(partition), &disk.content(partition));
    }
}

#[apply(on_both_hierarchies)]
fn a_second_prestart_hook_uses_the_existing_watcher(machine: &Machine) {
    let disk = Disk::new(machine);
    let [first, second] = [1, 2].map(|partition| format!("devnode:{}", disk.partition(partition)));
    disk.plug(2);
    let container = Bundle::new(machine).hook_for_each(&[&first, &second]).create();
    container.expect_watcher();
    container.reads(&disk.partition(2), &disk.content(2));
    container.start();
    disk.plug(1);
    container.eventually_reads(&disk.partition(1), &disk.content(1));
    disk.unplug(2);
    container.eventually_lacks(&disk.partition(2));
    container.delete();
    assert_eq!(machine.traces(), Vec::<std::path::PathBuf>::new());
}

#[apply(on_both_hierarchies)]
fn annotations_are_read_from_the_bundle_if_the_state_has_none(machine: &Machine) {
    // Like Docker: the state that the hook gets has no annotations.
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let container = Bundle::requesting(machine, &format!("devnode:{node}"))
        .without_hooks()
        .start();
    assert!(!container.has(&node));
    let bundle = container.bundle.to_str().expect("scratch paths are text");
    let state = oci_state(&container.id, "creating", &container.pid.into(), bundle);
    let output = Hook::prestart(machine, &[]).run(&[], &state);
    assert!(output.status.success(), "{output:?}");
    container.reads(&node, &disk.content(1));
    container.delete();
    assert!(Hook::poststop(machine).run(&[], &state).status.success());
    assert_eq!(container.watcher(), None);
}

#[apply(on_both_hierarchies)]
fn the_hook_works_in_the_old_stage_prestart(machine: &Machine) {
    let disk = Disk::new(machine);
    disk.plug(1);
    let container = Bundle::requesting(machine, &format!("devnode:{}", disk.partition(1)))
        .old_stage()
        .create();
    container.reads(&disk.partition(1), &disk.content(1));
    container.start();
    disk.plug(2);
    container.reads(&disk.partition(1), &disk.content(1));
    assert!(!container.has(&disk.partition(2)));
}

#[apply(on_both_hierarchies)]
fn annotations_of_container_hotplug_work_unchanged(machine: &Machine) {
    let disk = Disk::new(machine);
    for key in ["org.lowrisc.hotplug.devices", "org.lowrisc.hotplug.device"] {
        disk.plug(1);
        let request = format!("parent-of:devnode:{}", disk.partition(1));
        let container = Bundle::new(machine).annotation(key, &request).start();
        container.reads(&disk.node, &disk.content(0));
        container.reads(&disk.partition(1), &disk.content(1));
        container.delete();
        disk.unplug(1);
    }
}

#[apply(on_both_hierarchies)]
fn the_parent_of_a_partition_is_its_disk(machine: &Machine) {
    let disk = Disk::new(machine);
    let request = format!("parent-of:devnode:{}", disk.partition(1));
    let container = Bundle::requesting(machine, &request).start();
    disk.plug(2);
    // No selector matches the disk yet.
    assert!(!container.has(&disk.node));
    disk.plug(1);
    for partition in [1, 2] {
        container.eventually_reads(&disk.partition(partition), &disk.content(partition));
    }
    container.eventually_reads(&disk.node, &disk.content(0));
    // A parent that was found stays selected when its child is removed.
    disk.unplug(1);
    container.eventually_lacks(&disk.partition(1));
    disk.plug(3);
    container.eventually_reads(&disk.partition(3), &disk.content(3));
    container.reads(&disk.node, &disk.content(0));
}

#[apply(on_both_hierarchies)]
fn the_operators_tool_lists_attached_devices(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let container = Bundle::requesting(machine, &format!("devnode:{node}")).start();
    let state_dir = machine.state_dir();
    let state_dir = state_dir.to_str().expect("scratch paths are text");
    let run = |verb: &[&str]| {
        let mut arguments = verb.to_vec();
        arguments.extend(["--json", "--state-dir", state_dir]);
        let output = Hook::operator().run(&arguments, "");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("JSON is text")
    };
    assert!(run(&["list"]).contains(&container.id));
    assert!(run(&["inspect", &container.id]).contains(&node));
    assert!(run(&["match", &format!("devnode:{node}")]).contains(&node));
    container.delete();
    assert!(!run(&["list"]).contains(&container.id));
    assert!(fs::exists(&node).expect("look for a node"));
}
