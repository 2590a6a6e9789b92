//! Watchers that are replaced, also by another version, or that find the notes of another version.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::framework::container::text;
use crate::framework::tool::output_of;
use crate::framework::{Announcements, Bundle, Disk, Machine};
use crate::recovery::{edit, further_hook, inode, record_of, recover, recover_in, recover_well};

const NOTHING: Vec<PathBuf> = Vec::new();

#[apply(on_both_hierarchies)]
fn watchers_are_replaced_during_hotplug_without_effect_on_the_container(machine: &Machine) {
    let disk = Disk::new(machine);
    let still = disk.plug(1);
    let moving = [2, 3].map(|partition| disk.partition(partition));
    let container = Bundle::requesting(
        machine,
        &format!(
            "devnode:{still};link=/dev/data/still;exclusive,devnode:{},devnode:{}",
            moving[0], moving[1]
        ),
    )
    .start();
    let rival = Bundle::requesting(machine, &format!("devnode:{still};exclusive")).start();
    container.reads("/dev/data/still", &disk.content(1));
    let before = inode(&container, &still);
    let listener = Announcements::inside(machine, &container, false);
    let rivals_listener = Announcements::inside(machine, &rival, false);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let stream = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for partition in [2, 3] {
                    disk.plug(partition);
                }
                for partition in [2, 3] {
                    disk.unplug(partition);
                }
                // No person is faster, and every watcher of this host receives the events.
                thread::sleep(Duration::from_millis(10));
            }
            disk.plug(2);
        });
        let replaced = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..10 {
                let watcher = container.expect_watcher();
                let message = recover_well(machine, &["--restart-watchers"]);
                assert!(
                    message.contains(&format!("in place of {}", watcher.pid)),
                    "{message}"
                );
                watcher.eventually_ends();
                assert_ne!(container.expect_watcher(), watcher);
                container.reads("/dev/data/still", &disk.content(1));
                assert_eq!(inode(&container, &still), before, "the node was created again");
                assert!(!rival.has(&still), "the lease was released for a moment");
            }
        }));
        done.store(true, Ordering::Relaxed);
        stream.join().expect("plug and unplug");
        if let Err(panic) = replaced {
            std::panic::resume_unwind(panic);
        }
    });
    container.eventually_reads(&moving[0], &disk.content(2));
    container.eventually_lacks(&moving[1]);
    // The listener is known to work: the events of the device that stayed are all that there were.
    listener.eventually_receive("KERNEL", "add", &disk.name(2));
    for received in listener.received().iter().chain(&rivals_listener.received()) {
        assert!(
            !received.path.ends_with(&format!("/{}", disk.name(1))),
            "{received:?}"
        );
    }
    disk.unplug(1);
    container.eventually_lacks("/dev/data/still");
    for container in [container, rival] {
        container.delete();
    }
    assert_eq!(machine.traces(), NOTHING);
}

/// Calls a function while watchers are replaced one after another.
fn while_watchers_are_replaced<T>(machine: &Machine, work: impl FnOnce() -> T) -> T {
    let (state_dir, done) = (machine.state_dir(), AtomicBool::new(false));
    thread::scope(|scope| {
        let replacing = scope.spawn(|| {
            let mut outputs = Vec::new();
            while !done.load(Ordering::Relaxed) {
                outputs.push(recover_in(&state_dir, &["--restart-watchers"]));
            }
            outputs
        });
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::Relaxed);
        let replaced = replacing.join().expect("replace watchers");
        assert!(!replaced.is_empty(), "no watcher was replaced");
        for output in replaced {
            assert!(output.status.success(), "{}", text(&output));
        }
        worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[apply(on_both_hierarchies)]
fn a_hook_works_while_the_watcher_is_replaced(machine: &Machine) {
    let disk = Disk::new(machine);
    let partitions: Vec<u8> = (1..=8).collect();
    for partition in &partitions {
        disk.plug(*partition);
    }
    let container = Bundle::requesting(machine, "devnode:/dev/oci-hotplug-nothing").create();
    let hooks = while_watchers_are_replaced(machine, || {
        let hook = |partition: &u8| {
            let request = format!("devnode:{};required", disk.partition(*partition));
            further_hook(machine, &container, &request)
        };
        partitions.iter().map(hook).collect::<Vec<Output>>()
    });
    for output in hooks {
        assert!(output.status.success(), "{}", text(&output));
    }
    for partition in &partitions {
        container.reads(&disk.partition(*partition), &disk.content(*partition));
    }
    container.delete();
    assert_eq!(machine.traces(), NOTHING);
}

#[apply(on_both_hierarchies)]
fn an_upgrade_moves_running_watchers_to_the_new_executable(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let container = Bundle::requesting(machine, &format!("devnode:{node}")).start();
    let before = inode(&container, &node);
    // The new version is installed elsewhere first, then moved into place, like
    // packaging/install.sh does.
    let installed = machine.scratch("installed");
    fs::create_dir(&installed).expect("make a directory");
    for version in ["a", "b"] {
        for program in [
            env!("CARGO_BIN_EXE_oci-hotplug"),
            env!("CARGO_BIN_EXE_oci-hotplug-watcher"),
        ] {
            let place = installed.join(Path::new(program).file_name().expect("a name"));
            let new = place.with_extension("new");
            // Not by this process: a program that another test starts at the same time would
            // inherit the file while it is open for writing, and then nobody could start it
            // (execve(2), ETXTBSY).
            let copied = std::process::Command::new("cp").arg(program).arg(&new).status();
            assert!(copied.expect("start cp").success(), "copy an executable");
            fs::rename(&new, &place).expect("replace an executable");
        }
        let output = std::process::Command::new(installed.join("oci-hotplug"))
            .args(["recover", "--restart-watchers", "--state-dir"])
            .arg(machine.state_dir())
            .output()
            .expect("start oci-hotplug");
        assert!(output.status.success(), "{version}: {}", text(&output));
        let runs = container.expect_watcher().executable();
        let place = fs::metadata(installed.join("oci-hotplug-watcher")).expect("look at an executable");
        assert_eq!(
            (runs.dev(), runs.ino()),
            (place.dev(), place.ino()),
            "version {version} runs"
        );
        assert_eq!(inode(&container, &node), before);
        container.reads(&node, &disk.content(1));
    }
    disk.unplug(1);
    container.eventually_lacks(&node);
}

#[apply(on_both_hierarchies)]
fn notes_of_an_older_version_are_read_and_notes_of_a_newer_version_are_an_error(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let request = format!("devnode:{node};link=/dev/data/link");
    let container = Bundle::new(machine).hook_for_each(&[&request]).start();
    let before = inode(&container, &node);
    container.expect_watcher().kill();
    // As before the policy had conditions and hooks recorded their configuration.
    edit(&record_of(machine, &container.id), |record| {
        record["version"] = json!(0);
        let record = record.as_object_mut().expect("a record is an object");
        record.remove("traits").expect("traits");
        record.remove("config").expect("a configuration");
        record.insert("of-another-time".into(), json!("is passed over"));
    });
    let attached = record_of(machine, &container.id).with_file_name("attached.jsonl");
    let written = fs::read_to_string(&attached).expect("read the notes");
    let (first, changes) = written.split_once('\n').expect("notes have lines");
    let mut notes: Value = serde_json::from_str(first).expect("a line is JSON");
    notes["version"] = json!(0);
    notes
        .as_object_mut()
        .expect("notes are an object")
        .remove("roots")
        .expect("roots");
    fs::write(&attached, format!("{notes}\n{changes}")).expect("write the notes");
    let message = recover_well(machine, &[]);
    assert!(message.contains("watcher started"), "{message}");
    assert_eq!(inode(&container, &node), before, "the node was created again");
    disk.unplug(1);
    container.eventually_lacks("/dev/data/link");
    container.eventually_lacks(&node);
    disk.plug(1);
    container.eventually_reads("/dev/data/link", &disk.content(1));
    let before = inode(&container, &node);

    container.expect_watcher().kill();
    edit(&record_of(machine, &container.id), |record| {
        record["version"] = json!(2)
    });
    let output = recover(machine, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains(
            "it has version 2, but this oci-hotplug supports versions up to 1 (install the newer oci-hotplug)"
        ),
        "{}",
        text(&output)
    );
    assert_eq!(container.watcher(), None);
    assert_eq!(inode(&container, &node), before);
    assert!(container.delete().status.success());
    assert_eq!(machine.traces(), NOTHING);
}

#[apply(on_both_hierarchies)]
fn the_operator_s_verbs_work_while_the_watcher_is_replaced(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let container = Bundle::requesting(machine, "devnode:/dev/oci-hotplug-nothing").start();
    let request = format!("devnode:{node}");
    while_watchers_are_replaced(machine, || {
        for _ in 0..10 {
            output_of(machine, &["attach", &container.id, &request]);
            container.reads(&node, &disk.content(1));
            output_of(machine, &["reload"]);
            let shown = output_of(machine, &["list"]);
            assert!(shown.contains("ok"), "{shown}");
            output_of(machine, &["detach", &container.id, &request]);
            container.eventually_lacks(&node);
        }
    });
    container.delete();
    assert_eq!(machine.traces(), NOTHING);
}
