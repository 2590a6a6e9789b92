//! What the operator's tool shows of real containers and devices.

use serde_json::{Value, json};

use crate::framework::json_schema;
use crate::framework::tool::{Running, json_of, output_of, shell, tool};
use crate::framework::{Bundle, Disk, Machine, Terminal, eventually};

/// The only problem that `inspect` shows of a container.
fn problem(machine: &Machine, id: &str) -> Option<String> {
    let inspected = json_of(machine, &["inspect", id]);
    let reason = inspected["status"]["problems"][0]["reason"].as_str();
    reason.map(str::to_owned)
}

/// Case newcomer: the suggested fix breaks everything. Case newcomer: reload without pkill.
#[apply(on_both_hierarchies)]
fn a_running_container_gets_a_device_after_following_the_hint(machine: &Machine) {
    let terminal = Terminal::new();
    machine.configure("");
    // With `devnode:` it would be refused at the start.
    let request = format!("subsystem:vc&glob:{};access=rw", terminal.node());
    let container = Bundle::requesting(machine, &request).start();
    let node = terminal.plug();
    let mut reason = String::new();
    eventually("the refusal is shown", || {
        reason = problem(machine, &container.id).unwrap_or_default();
        reason.contains("protected: console")
    });
    assert!(!container.has(&node));
    let (_, command) = reason.split_once("run `").expect("a command");
    let (command, _) = command.split_once('`').expect("its end");
    let output = shell(command);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command}: {output:?}");
    assert!(
        shown.contains(&format!("{}  attached {node}\n", container.id)),
        "{shown}"
    );
    container.reads(&node, &terminal.content());
    // A repetition changes nothing.
    let again = shell(command);
    assert!(
        String::from_utf8_lossy(&again.stdout).ends_with("unchanged, a rule already allows it\n"),
        "{again:?}"
    );

    machine.configure("[policy]\ndefault = \"whatever\"\n");
    let kept = tool(machine, &["reload"]);
    assert_eq!(kept.status.code(), Some(1), "{kept:?}");
    let shown = String::from_utf8_lossy(&kept.stdout).into_owned();
    for words in [
        "FAILED",
        "config.toml",
        "line 2",
        "the previous policy stays in force",
    ] {
        assert!(shown.contains(words), "{words:?} is not in: {shown}");
    }
    container.reads(&node, &terminal.content());
    machine.configure("[[policy.deny]]\ndevices = [\"subsystem:vc\"]\n");
    let reloaded = json_of(machine, &["reload"]);
    let expected = json!([{
        "id": container.id, "result": "reloaded", "attached": [], "detached": [node], "problems": 1, "reason": Value::Null,
    }]);
    assert_eq!(reloaded["containers"], expected);
    assert!(!container.has(&node));
    terminal.unplug();
}

#[apply(on_both_hierarchies)]
fn the_tree_shows_which_container_has_a_device_at_which_path(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let request = format!("devnode:{node};path=/dev/board");
    let container = Bundle::requesting(machine, &request).start();
    let tree = output_of(machine, &["tree"]);
    let line = tree.lines().find(|line| line.contains(&node));
    let line = line.unwrap_or_else(|| panic!("{node} is not in\n{tree}"));
    assert!(
        line.ends_with(&format!("{} as /dev/board", container.id)),
        "{line}"
    );
    // Of all loop devices, only the one that a container has.
    assert_eq!(tree.matches("/dev/loop").count(), 1, "{tree}");
    disk.unplug(1);
    container.eventually_lacks("/dev/board");
    assert!(!output_of(machine, &["tree"]).contains(&container.id));
}

#[apply(on_both_hierarchies)]
fn tree_watch_is_drawn_again_when_a_device_is_added_or_removed(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.partition(1);
    let container = Bundle::requesting(machine, &format!("devnode:{node}")).start();
    let watching = Running::start(machine, &["tree", "--watch"]);
    watching.eventually_prints("DEVICE");
    assert!(
        !watching.output().contains(&container.id),
        "{}",
        watching.output()
    );
    disk.plug(1);
    watching.eventually_prints(&container.id);
    disk.unplug(1);
    eventually("the last tree that is drawn has nothing of the container", || {
        let message = watching.output();
        let last = message.rsplit("DEVICE").next().unwrap_or_default();
        message.contains(&container.id) && !last.is_empty() && !last.contains(&container.id)
    });
}

#[apply(on_both_hierarchies)]
fn match_watch_shows_added_and_removed_devices(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.partition(1);
    let watching = Running::start(machine, &["match", "--watch", &format!("glob:{}p*", disk.node)]);
    watching.eventually_prints("no such device is present now");
    disk.plug(1);
    watching.eventually_prints(&format!("+ {node}  b "));
    disk.unplug(1);
    watching.eventually_prints(&format!("- {node}  b "));
}

#[apply(on_both_hierarchies)]
fn match_watch_prints_one_document_per_line_as_the_schema_describes_it(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.partition(1);
    let request = format!("glob:{}p*;link=/dev/board", disk.node);
    let watching = Running::start(machine, &["match", "--watch", "--json", &request]);
    watching.eventually_prints("\n");
    disk.plug(1);
    watching.eventually_prints(r#""action":"name""#);
    disk.unplug(1);
    watching.eventually_prints(r#""action":"remove""#);
    let output = watching.output();
    let documents: Vec<Value> = output
        .lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    json_schema::check("match", &documents[0]);
    for change in &documents[1..] {
        json_schema::check("match --watch", change);
    }
    assert_eq!(documents[1]["action"], "add");
    assert_eq!(documents[1]["node"]["path"], node);
}
