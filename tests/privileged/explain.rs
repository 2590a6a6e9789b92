//! `oci-hotplug explain`: the reason and the hint for each rule that denies a device, and for an
//! attached device.

use crate::framework::container::text;
use crate::framework::tool::{failed, json_of, output_of, tool};
use crate::framework::{Bundle, Disk, Machine, eventually};

#[apply(on_both_hierarchies)]
fn an_attached_device_is_explained_by_its_request(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let request = format!("devnode:{node};access=rw;link=/dev/board");
    let container = Bundle::requesting(machine, &request).start();
    let of_node = output_of(machine, &["explain", &container.id, &node]);
    let lines: Vec<&str> = of_node.lines().collect();
    assert!(lines[0].starts_with(&format!("{node}  b ")), "{of_node}");
    assert_eq!(
        lines[2..],
        [
            request.as_str(),
            "  yes  selected  the request selects this device",
            "  yes  policy    allowed by default = \"anything\"",
            &format!("  yes  watcher   {node} with access rw, link /dev/board"),
            "",
            &format!("The device is attached to container {}", container.id),
        ],
        "{of_node}"
    );
    // The same with the link in the container, and with the path in sysfs.
    assert_eq!(
        output_of(machine, &["explain", &container.id, "/dev/board"]),
        of_node
    );
    let syspath = json_of(machine, &["explain", &container.id, &node])["device"].clone();
    let syspath = syspath.as_str().expect("a path");
    assert_eq!(output_of(machine, &["explain", &container.id, syspath]), of_node);
}

#[apply(on_both_hierarchies)]
fn a_device_that_no_request_selects_is_explained_with_a_hint(machine: &Machine) {
    let disk = Disk::new(machine);
    let (one, two) = (disk.plug(1), disk.plug(2));
    let container =
        Bundle::requesting(machine, &format!("devnode:{one}&subsystem:block,usb:0403:6001")).start();
    let shown = output_of(machine, &["explain", &container.id, &two]);
    assert!(
        shown.contains(&format!(
            "  no   selected  devnode:{one} does not match the device or any of its parents\n"
        )),
        "{shown}"
    );
    assert!(
        shown.contains(
            "usb:0403:6001\n  no   selected  usb:0403:6001 does not match the device or any of its parents\n"
        ),
        "{shown}"
    );
    let id = &container.id;
    let verdict = format!(
        "The device is not attached to container {id}: no request selects it (`oci-hotplug attach {id} devnode:{two}` attaches it)"
    );
    assert_eq!(shown.lines().last(), Some(verdict.as_str()));
    // The hint works.
    output_of(machine, &["attach", id, &format!("devnode:{two}")]);
    let shown = output_of(machine, &["explain", id, &two]);
    assert!(
        shown.ends_with(&format!(
            "  yes  watcher   {two} with access rwm\n\nThe device is attached to container {id}\n"
        )),
        "{shown}"
    );
}

#[apply(on_both_hierarchies)]
fn denials_by_only_and_by_the_policy_are_explained(machine: &Machine) {
    let disk = Disk::new(machine);
    let (one, two, three) = (disk.plug(1), disk.plug(2), disk.plug(3));
    machine.configure(&format!(
        "[policy]\ndefault = \"anything\"\n[[policy.deny]]\ndevices = [\"devnode:{two}\"]\nreason = \"it is the lab's\"\n"
    ));
    let request = format!("glob:{}p*;only=glob:{one};only=glob:{two}", disk.node);
    let container = Bundle::requesting(machine, &request).start();
    let attached = output_of(machine, &["explain", &container.id, &one]);
    assert!(
        attached.contains("The device is attached to container"),
        "{attached}"
    );
    // The rule says why, and the last line which rule it is. In JSON the verdict says all.
    for (node, rule, reason) in [
        (&two, "policy", "it is the lab's"),
        (&three, "only", "only= does not match the device itself"),
    ] {
        let shown = output_of(machine, &["explain", &container.id, node]);
        assert_eq!(shown.matches(reason).count(), 1, "{shown}");
        let last = format!(
            "The device is not attached to container {}: rule `{rule}` of {request} is not met\n",
            container.id
        );
        assert!(shown.ends_with(&last), "{shown}");
        let json = json_of(machine, &["explain", &container.id, node]);
        let verdict = json["verdict"].as_str().expect("a sentence");
        assert!(verdict.contains(reason), "{json}");
    }
}

/// docs/operations.md shows this text.
const GOLDEN: &str = include_str!("explain/golden.txt");

#[apply(on_both_hierarchies)]
fn the_explanation_in_the_documents_is_the_real_output(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.partition(2);
    machine.configure(&format!(
        "[policy]\ndefault = \"anything\"\n\n[[policy.deny]]\ndevices = [\"devnode:{node}\"]\nreason = \"it is the lab's archive\"\n"
    ));
    let request = format!("devnode:{}p1,glob:{}p*;access=r", disk.node, disk.node);
    let container = Bundle::requesting(machine, &request).start();
    disk.plug(2);
    let shown = output_of(machine, &["explain", &container.id, &node]);
    let shown = shown
        .replace(&container.id, "lab")
        .replace(
            machine.config().to_str().expect("scratch paths are text"),
            "/etc/oci-hotplug/config.toml",
        )
        .replace(disk.node.trim_start_matches("/dev/"), "sdb")
        .replace("sdbp", "sdb");
    let number = shown.lines().next().and_then(|line| line.split("  b ").nth(1));
    let number = number.expect("the device's number").to_owned();
    let shown = shown.replace(&number, "8:18");
    assert_eq!(shown, GOLDEN, "{shown}");
    assert!(
        include_str!("../../docs/operations.md").contains(GOLDEN),
        "docs/operations.md shows another text"
    );
}

#[apply(on_both_hierarchies)]
fn a_lease_is_explained_with_its_holder(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let holder = Bundle::requesting(machine, &format!("devnode:{node};exclusive")).start();
    let container = Bundle::requesting(machine, &format!("devnode:{node}")).start();
    let shown = output_of(machine, &["explain", &container.id, &node]);
    assert!(
        shown.contains(&format!(
            "no   watcher   {node}: another container has it exclusively (container {})",
            holder.id
        )),
        "{shown}"
    );
    holder.delete();
    container.eventually_reads(&node, &disk.content(1));
    eventually("it is explained as inside", || {
        output_of(machine, &["explain", &container.id, &node]).contains("The device is attached to container")
    });
}

#[apply(on_both_hierarchies)]
fn a_conflicting_path_is_explained(machine: &Machine) {
    let disk = Disk::new(machine);
    let (one, two) = (disk.plug(1), disk.plug(2));
    let container = Bundle::requesting(machine, &format!("devnode:{one};path=/dev/board")).start();
    let request = format!("devnode:{two};path=/dev/board");
    let output = tool(machine, &["attach", &container.id, &request]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        text(&output).contains("not attached yet: /dev/board: "),
        "{output:?}"
    );
    let shown = json_of(machine, &["explain", &container.id, &two]);
    let rule = &shown["requests"][1]["rules"][2];
    assert_eq!(
        (&rule["rule"], &rule["holds"]),
        (&"watcher".into(), &false.into()),
        "{shown}"
    );
    assert!(
        rule["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("already has this path")),
        "{shown}"
    );
    assert_eq!(shown["attached"], serde_json::json!([]));
}

#[apply(on_both_hierarchies)]
fn explaining_an_unknown_device_is_an_error(machine: &Machine) {
    let container = Bundle::requesting(machine, "devnode:/dev/oci-hotplug-nothing").start();
    assert_eq!(
        failed(
            machine,
            &["explain", &container.id, "/dev/oci-hotplug-nothing"],
            1
        ),
        "oci-hotplug: no device has the node, link or sysfs path /dev/oci-hotplug-nothing now (plug it in; `oci-hotplug tree` shows the devices)\n"
    );
}
