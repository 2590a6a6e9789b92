//! `oci-hotplug events`: people and programs find the events that watchers have logged, with and
//! without a journal.

use std::process::Command;

use serde_json::Value;

use crate::framework::tool::{Running, failed, output_of};
use crate::framework::{Bundle, Disk, Journald, Machine, RuncContainer, eventually};

/// All events of a container, oldest first.
fn events(machine: &Machine, container: &RuncContainer) -> Vec<Value> {
    let shown = output_of(machine, &["events", "--json", "--container", &container.id]);
    let line = |line: &str| serde_json::from_str(line).expect("a line is JSON");
    shown.lines().map(line).collect()
}

fn names(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .map(|event| event["event"].as_str().expect("an event has a name"))
        .collect()
}

/// Runs a container that gets a partition, loses it, and is denied another one. The disk stays:
/// another test could get its number, and the container would get that test's device.
fn run_and_deny(machine: &Machine) -> (RuncContainer<'_>, Disk) {
    let disk = Disk::new(machine);
    machine.configure(&format!(
        "[policy]\ndefault = \"anything\"\n[[policy.deny]]\ndevices = [\"devnode:{}\"]\n",
        disk.partition(2)
    ));
    let container = Bundle::requesting(machine, &format!("glob:{}p*", disk.node)).start();
    let one = disk.plug(1);
    container.eventually_reads(&one, &disk.content(1));
    disk.plug(2);
    eventually("the second partition is refused", || {
        names(&events(machine, &container)).contains(&"denied")
    });
    disk.unplug(1);
    container.eventually_lacks(&one);
    eventually("the end of the first is shown", || {
        names(&events(machine, &container)).contains(&"detached")
    });
    (container, disk)
}

fn is_told_in_full(machine: &Machine) -> (RuncContainer<'_>, Disk) {
    let (container, disk) = run_and_deny(machine);
    let (one, two) = (disk.partition(1), disk.partition(2));
    let other = Bundle::requesting(machine, "devnode:/dev/oci-hotplug-nothing").start();
    assert_eq!(
        events(machine, &other),
        [Value::Null; 0],
        "another container has its own events"
    );
    let shown = events(machine, &container);
    assert_eq!(names(&shown), ["attached", "denied", "detached"], "{shown:?}");
    for (event, node) in shown.iter().zip([&one, &two, &one]) {
        assert_eq!(event["container"], container.id.as_str());
        assert_eq!(event["node"], node.as_str());
        let device = event["device"].as_str().expect("a device");
        let name = node.trim_start_matches("/dev/");
        assert!(
            device.starts_with("/sys/devices/") && device.ends_with(name),
            "{event}"
        );
        assert!(
            event["time"].as_str().is_some_and(|time| time.ends_with('Z')),
            "{event}"
        );
        assert!(
            event["message"]
                .as_str()
                .is_some_and(|message| message.contains(node.as_str())),
            "{event}"
        );
    }
    let plain = output_of(machine, &["events", "--since", "1h"]);
    let first = plain.lines().next().expect("a line");
    assert!(
        first.contains(&format!("Z  {}  attached  {one} (b ", container.id)),
        "{plain}"
    );
    assert_eq!(output_of(machine, &["events", "--since", "2999-01-01"]), "");
    // Case newcomer: `events --container nosuch` prints nothing and exits with 0.
    let unknown = failed(machine, &["events", "--container", "nobody"], 1);
    assert!(
        unknown.contains("no container \"nobody\" is known here"),
        "{unknown}"
    );
    (container, disk)
}

#[apply(on_both_hierarchies)]
fn events_are_read_from_the_log_file(machine: &Machine) {
    let (container, _disk) = is_told_in_full(machine);
    container.delete();
    assert_eq!(
        events(machine, &container).len(),
        3,
        "of a container that is gone as well"
    );
}

#[apply(on_both_hierarchies)]
fn the_log_file_is_followed_across_rotation(machine: &Machine) {
    let disk = Disk::new(machine);
    let following = Running::start(machine, &["events", "--follow", "--since", "1h"]);
    let container = Bundle::requesting(machine, &format!("glob:{}p*", disk.node)).start();
    let one = disk.plug(1);
    following.eventually_prints(&format!("attached  {one} "));
    let log = machine.state_dir().join("oci-hotplug.log");
    std::fs::rename(&log, log.with_extension("log.old")).expect("put the log aside");
    // The running watcher has the old file open; the next one has the new file.
    let two = disk.plug(2);
    following.eventually_prints(&format!("attached  {two} "));
    let other = Bundle::requesting(machine, &format!("devnode:{one}")).start();
    following.eventually_prints(&format!("{}  attached  {one} ", other.id));
    assert_eq!(
        following
            .output()
            .matches(&format!("{}  attached", container.id))
            .count(),
        2,
        "{}",
        following.output()
    );
}

#[apply(on_both_hierarchies)]
fn events_are_read_from_the_journal_and_found_by_their_fields(machine: &Machine) {
    let _journald = Journald::start(machine);
    let (container, _disk) = is_told_in_full(machine);
    assert_eq!(machine.log(), "", "the journal has it, and nothing else");
    let found = Command::new("journalctl")
        .args(["--quiet", "--output=cat", "OCI_HOTPLUG_EVENT=attached"])
        .arg(format!("OCI_HOTPLUG_CONTAINER={}", container.id))
        .output()
        .expect("start journalctl");
    let found = String::from_utf8_lossy(&found.stdout);
    assert!(
        found.lines().count() == 1 && found.starts_with("attached /dev/loop"),
        "{found}"
    );
}

#[apply(on_both_hierarchies)]
fn the_journal_is_followed(machine: &Machine) {
    let _journald = Journald::start(machine);
    let disk = Disk::new(machine);
    let container = Bundle::requesting(machine, &format!("glob:{}p*", disk.node)).start();
    let following = Running::start(
        machine,
        &[
            "events",
            "--follow",
            "--since",
            "1h",
            "--container",
            &container.id,
        ],
    );
    let one = disk.plug(1);
    following.eventually_prints(&format!("attached  {one} "));
    disk.unplug(1);
    following.eventually_prints(&format!("detached  {one} "));
}

#[apply(on_both_hierarchies)]
fn an_invalid_time_is_a_usage_error(machine: &Machine) {
    let message = failed(machine, &["events", "--since", "yesterday"], 2);
    assert!(
        message.contains("'yesterday'") && message.contains("write how long ago (90s, 15m, 2h, 7d)"),
        "{message}"
    );
}

/// Case newcomer: podman with crun shows only the exit code. Case newcomer: one denied device with
/// eight nodes printed eight lines.
#[apply(on_both_hierarchies)]
fn a_refused_start_is_shown_and_nodes_with_one_reason_are_one_line(machine: &Machine) {
    let disk = Disk::new(machine);
    let (one, two) = (disk.plug(1), disk.plug(2));
    disk.plug(3);
    machine.configure(&format!(
        "[policy]\ndefault = \"anything\"\n[[policy.deny]]\ndevices = [\"glob:{}p[12]\"]\nreason = \"of the lab\"\n",
        disk.node
    ));
    let refused = Bundle::requesting(machine, &format!("devnode:{one}"));
    let id = refused.id.clone();
    assert!(refused.try_create().is_err());
    let list = output_of(machine, &["list"]);
    assert!(
        list.contains(&format!("Container {id} was not started, ")) && list.contains("of the lab"),
        "{list}"
    );
    let shown = output_of(machine, &["events", "--json", "--container", &id]);
    let last = shown.lines().last().expect("an event");
    let event: Value = serde_json::from_str(last).expect("a line is JSON");
    assert_eq!(
        (&event["event"], &event["container"]),
        (&"refused-start".into(), &id.clone().into()),
        "{event}"
    );
    assert!(
        event["message"]
            .as_str()
            .is_some_and(|message| message.contains("of the lab")),
        "{event}"
    );

    // The third partition is allowed: a start is refused only if everything that a request selects
    // is denied.
    let container = Bundle::requesting(machine, &format!("glob:{}p*", disk.node)).start();
    eventually("both partitions are shown", || {
        names(&events(machine, &container)).contains(&"denied")
    });
    let all = events(machine, &container);
    let lines: Vec<&Value> = all.iter().filter(|event| event["event"] == "denied").collect();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    let message = lines[0]["message"].as_str().expect("a message");
    assert!(
        message.contains(" +1 not attached, ") && (message.contains(&one) || message.contains(&two)),
        "{message}"
    );
    let inspected = output_of(machine, &["inspect", &container.id]);
    let (_, problems) = inspected.split_once("\nProblems\n").expect("problems");
    assert_eq!(problems.lines().count(), 1, "{inspected}");
}
