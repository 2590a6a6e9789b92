//! Live attach and detach: the requests of a running container change, and only through its
//! watcher.

use std::fs;
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use crate::framework::container::text;
use crate::framework::disk::number_of;
use crate::framework::tool::{failed, json_of, output_of};
use crate::framework::{Bundle, Disk, Hook, Machine, RuncContainer, Terminal, eventually};

/// A request that matches nothing: the container has a watcher from its start.
const NOTHING: &str = "devnode:/dev/oci-hotplug-nothing";

fn watched(machine: &Machine) -> Bundle<'_> {
    Bundle::requesting(machine, NOTHING)
}

/// The requests in the container's record, as they were written.
fn recorded_requests(machine: &Machine, container: &RuncContainer) -> Vec<String> {
    let list = json_of(machine, &["list"]);
    let own = list["containers"].as_array().into_iter().flatten();
    let own = own.filter(|entry| entry["id"] == container.id.as_str());
    own.flat_map(|entry| entry["requests"].as_array().cloned().unwrap_or_default())
        .map(|request| request.as_str().expect("a request is text").to_owned())
        .collect()
}

#[apply(on_both_hierarchies)]
fn an_attached_device_can_be_used_and_a_detached_one_is_gone_and_denied(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let container = watched(machine).capability("CAP_MKNOD").start();
    let own = container.make_node("own", 'b', number_of(&disk.partition(1)));
    assert!(container.is_refused(&own));
    let rules = container.device_rules();

    let request = format!("devnode:{node};link=/dev/board");
    let shown = output_of(machine, &["attach", &container.id, &request]);
    let (major, minor) = number_of(&disk.partition(1));
    assert_eq!(
        shown,
        format!("{request}\n  {node}  b {major}:{minor}  access rwm\n    link /dev/board\n")
    );
    // The response comes when the device is attached: no need to wait.
    container.reads(&node, &disk.content(1));
    container.reads("/dev/board", &disk.content(1));
    container.reads(&own, &disk.content(1));

    let shown = output_of(machine, &["detach", &container.id, &node]);
    assert_eq!(
        shown,
        format!("{request} is not requested any more\n  {node} is removed\n")
    );
    assert!(!container.has(&node) && !container.has("/dev/board"));
    assert!(container.is_refused(&own), "the container's own node");
    if machine.hierarchy == crate::framework::Hierarchy::V1 {
        assert_eq!(container.device_rules(), rules);
    }
    assert_eq!(recorded_requests(machine, &container), [NOTHING]);
    // And all remaining requests; then the watcher has nothing to do.
    output_of(machine, &["detach", &container.id, "--all"]);
    assert!(!output_of(machine, &["list"]).contains(&container.id));
}

#[apply(on_both_hierarchies)]
fn attaching_works_in_a_user_namespace(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let container = watched(machine).user_namespace().user(1000, 1000).start();
    let shown = json_of(machine, &["attach", &container.id, &format!("devnode:{node}")]);
    assert_eq!(shown["requests"][0]["nodes"][0]["path"], node.as_str());
    assert_eq!(shown["requests"][0]["nodes"][0]["uid"], 1000);
    container.reads(&node, &disk.content(1));
    assert_eq!(container.stat(&node).uid, 1000);
    let shown = json_of(machine, &["detach", &container.id, &format!("devnode:{node}")]);
    assert_eq!(shown["requests"][0]["detached"], json!([node]));
    assert!(!container.has(&node));
}

#[apply(on_both_hierarchies)]
fn an_attached_terminal_is_unplugged_and_plugged_in_again(machine: &Machine) {
    let terminal = Terminal::new();
    let node = terminal.plug();
    let container = watched(machine).start();
    output_of(machine, &["attach", &container.id, &format!("devnode:{node}")]);
    container.eventually_reads(&node, &terminal.content());
    terminal.unplug();
    container.eventually_lacks(&node);
    terminal.plug();
    container.eventually_reads(&node, &terminal.content());
    output_of(machine, &["detach", &container.id, &format!("devnode:{node}")]);
    assert!(!container.has(&node));
}

#[apply(on_both_hierarchies)]
fn an_absent_device_is_attached_when_it_is_plugged_in(machine: &Machine) {
    let disk = Disk::new(machine);
    let container = watched(machine).start();
    let request = format!("devnode:{}", disk.partition(1));
    assert_eq!(
        output_of(machine, &["attach", &container.id, &request]),
        format!("{request}\n  no such device is present: it is attached when it is plugged in\n")
    );
    let node = disk.plug(1);
    container.eventually_reads(&node, &disk.content(1));
}

/// A watcher that is started by hand, like a service manager does.
struct NewWatcher(Child);

impl NewWatcher {
    fn start(machine: &Machine, container: &RuncContainer) -> Self {
        let watcher = Hook::watcher(machine)
            .command()
            .arg(&container.id)
            .stdin(Stdio::null())
            .spawn();
        Self(watcher.expect("start a watcher"))
    }
}

impl Drop for NewWatcher {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[apply(on_both_hierarchies)]
fn a_new_watcher_knows_what_was_attached_and_detached(machine: &Machine) {
    let disk = Disk::new(machine);
    let (kept, taken) = (disk.plug(1), disk.plug(2));
    let other = disk.plug(3);
    let container = watched(machine).capability("CAP_MKNOD").start();
    let request = |node: &str| format!("devnode:{node}");
    for node in [&taken, &kept, &other] {
        output_of(machine, &["attach", &container.id, &request(node)]);
    }
    output_of(machine, &["detach", &container.id, &request(&taken)]);
    container.expect_watcher().kill();
    container.reads(&kept, &disk.content(1));
    disk.unplug(3);
    assert!(
        failed(machine, &["attach", &container.id, &request(&taken)], 1).contains("has no watcher"),
        "an attach must not start over what the dead watcher has noted"
    );
    let _watcher = NewWatcher::start(machine, &container);
    container.eventually_lacks(&other);
    container.reads(&kept, &disk.content(1));
    assert!(!container.has(&taken));
    let own = container.make_node("own", 'b', number_of(&disk.partition(2)));
    assert!(container.is_refused(&own));
    output_of(machine, &["detach", &container.id, &request(&kept)]);
    assert!(!container.has(&kept));
}

#[apply(on_both_hierarchies)]
fn detaching_keeps_devices_of_other_requests(machine: &Machine) {
    let disk = Disk::new(machine);
    let (one, two) = (disk.plug(1), disk.plug(2));
    let container = Bundle::requesting(machine, &format!("devnode:{one}")).start();
    let every = format!("glob:{}p*", disk.node);
    output_of(machine, &["attach", &container.id, &every]);
    container.reads(&two, &disk.content(2));
    let shown = output_of(machine, &["detach", &container.id, &every]);
    assert_eq!(
        shown,
        format!(
            "{every} is not requested any more\n  {one} stays: devnode:{one} requests it as well\n  {two} is removed\n"
        )
    );
    container.reads(&one, &disk.content(1));
    assert!(!container.has(&two));
}

#[apply(on_both_hierarchies)]
fn a_node_of_the_engine_stays_when_its_request_is_detached(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let container = watched(machine).engine_device(&node, "r").start();
    let (before, rules) = (container.stat(&node), container.device_rules());
    output_of(machine, &["attach", &container.id, &format!("devnode:{node}")]);
    assert!(container.can_write(&node));
    output_of(machine, &["detach", &container.id, &format!("devnode:{node}")]);
    assert_eq!(container.stat(&node), before);
    container.reads(&node, &disk.content(1));
    assert!(container.is_write_refused(&node));
    if machine.hierarchy == crate::framework::Hierarchy::V1 {
        assert_eq!(container.device_rules(), rules);
    }
}

#[apply(on_both_hierarchies)]
fn root_attaches_a_device_that_an_annotation_may_not_request(machine: &Machine) {
    machine.configure("");
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let request = format!("devnode:{node}");
    let refused = Bundle::requesting(machine, &request).try_create();
    assert!(refused.is_err_and(|refusal| refusal.message.contains("policy")));
    let container = Bundle::new(machine).hook_for_each(&[NOTHING]).start();
    output_of(machine, &["attach", &container.id, &request]);
    container.reads(&node, &disk.content(1));
}

#[apply(on_both_hierarchies)]
fn a_class_is_attached_and_detached_by_its_name(machine: &Machine) {
    let disk = Disk::new(machine);
    let (one, two) = (disk.plug(1), disk.plug(2));
    machine.configure(&format!(
        "[class.board]\ndevices = [\"devnode:{one}\", \"devnode:{two};path=/dev/second\"]\n"
    ));
    let container = Bundle::new(machine).hook_for_each(&[NOTHING]).start();
    output_of(machine, &["attach", &container.id, "class:board"]);
    container.reads(&one, &disk.content(1));
    container.reads("/dev/second", &disk.content(2));
    assert_eq!(recorded_requests(machine, &container), [NOTHING, "class:board"]);
    output_of(machine, &["detach", &container.id, "class:board"]);
    assert!(!container.has(&one) && !container.has("/dev/second"));
}

/// A directory with one CDI spec.
fn cdi_dir(machine: &Machine, spec: &Value) -> String {
    let dir = machine.scratch("cdi");
    fs::create_dir_all(&dir).expect("make a directory for specs");
    fs::write(dir.join("vendor.json"), spec.to_string()).expect("write a spec");
    dir.to_str().expect("scratch paths are text").to_owned()
}

#[apply(on_both_hierarchies)]
fn a_cdi_device_of_any_vendor_is_attached_with_its_nodes(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let dir = cdi_dir(
        machine,
        &json!({ "cdiVersion": "0.5.0", "kind": "vendor.com/board", "devices": [{ "name": "first",
            "containerEdits": {
                "env": ["BOARD=1"],
                "mounts": [{ "hostPath": "/lib/firmware", "containerPath": "/firmware" }],
                "deviceNodes": [{ "path": "/dev/board", "hostPath": node, "permissions": "r",
                    "fileMode": 0o640, "uid": 12, "gid": 34 }] } }] }),
    );
    let container = watched(machine).start();
    let name = "vendor.com/board=first";
    let shown = output_of(machine, &["attach", &container.id, name, "--cdi-dir", &dir]);
    let (major, minor) = number_of(&disk.partition(1));
    assert_eq!(
        shown,
        format!(
            "{name}: devnode:{node};access=r;mode=0640;uid=12;gid=34;path=/dev/board\n  /dev/board  b {major}:{minor}  access r\n{name}: not possible in a running container: environment BOARD=1\n{name}: not possible in a running container: mount /lib/firmware at /firmware\n"
        )
    );
    container.reads("/dev/board", &disk.content(1));
    assert!(container.is_write_refused("/dev/board"));
    let inside = container.stat("/dev/board");
    assert_eq!((inside.mode, inside.uid, inside.gid), (0o640, 12, 34));
    assert_eq!(recorded_requests(machine, &container), [NOTHING, name]);
    disk.unplug(1);
    container.eventually_lacks("/dev/board");
    disk.plug(1);
    container.eventually_reads("/dev/board", &disk.content(1));
    output_of(machine, &["detach", &container.id, name]);
    assert!(!container.has("/dev/board"));
}

#[apply(on_both_hierarchies)]
fn a_cdi_device_of_ours_is_attached_with_its_requests(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let dir = machine.scratch("cdi");
    fs::create_dir_all(&dir).expect("make a directory for specs");
    let dir = dir.to_str().expect("scratch paths are text");
    let request = format!("devnode:{node}");
    output_of(
        machine,
        &["cdi", "generate", "board", "--device", &request, "--output", dir],
    );
    let container = watched(machine).start();
    output_of(
        machine,
        &[
            "attach",
            &container.id,
            "oci-hotplug.dev/device=board",
            "--cdi-dir",
            dir,
        ],
    );
    container.reads(&node, &disk.content(1));
}

/// runc's directory on this machine.
fn runtime_root(machine: &Machine) -> String {
    machine
        .runc_root()
        .to_str()
        .expect("scratch paths are text")
        .to_owned()
}

#[apply(on_both_hierarchies)]
fn a_device_is_attached_to_a_container_without_hooks_by_id(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let container = Bundle::new(machine)
        .without_hooks()
        .capability("CAP_MKNOD")
        .user(0, 6)
        .start();
    let own = container.make_node("own", 'b', number_of(&disk.partition(1)));
    assert!(container.is_refused(&own));
    assert!(container.watcher().is_none());
    let root = runtime_root(machine);
    let every = format!("glob:{}p*", disk.node);
    output_of(
        machine,
        &["attach", &container.id, &every, "--runtime-root", &root],
    );
    container.reads(&node, &disk.content(1));
    assert_eq!((container.stat(&node).uid, container.stat(&node).gid), (0, 6));
    let second = disk.plug(2);
    container.eventually_reads(&second, &disk.content(2));
    disk.unplug(1);
    container.eventually_lacks(&node);
    assert!(container.is_refused(&own));
    // No poststop hook will run: the watcher ends when the container does, and removes its record.
    let watcher = container.expect_watcher();
    container.delete();
    watcher.eventually_ends();
    eventually("nothing is left of the container", || machine.traces().is_empty());
}

#[apply(on_both_hierarchies)]
fn a_device_is_attached_to_a_container_without_hooks_by_pid(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let container = Bundle::new(machine).without_hooks().user_namespace().start();
    // Without the shell's output, which the process would keep open, and `runc exec` with it.
    let result = container.inside("sleep 1000 >/dev/null 2>&1 & echo started");
    assert_eq!(result.status, 0, "{}", result.output);
    let children = || {
        let entries = fs::read_dir("/proc").expect("list /proc").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let own = namespace(container.pid);
        pids.filter(|pid| *pid != container.pid && namespace(*pid) == own)
            .collect::<Vec<_>>()
    };
    let child = *children().last().expect("a second process in the container");
    let shown = json_of(
        machine,
        &["attach", "--pid", &child.to_string(), &format!("devnode:{node}")],
    );
    container.reads(&node, &disk.content(1));
    let id = shown["id"].as_str().expect("an id");
    assert!(id.starts_with(&format!("pid-{}-", container.pid)), "{id}");
    // The id works from now on, and so does the pid: it is the same container.
    let second = disk.plug(2);
    let pid = container.pid.to_string();
    output_of(machine, &["attach", "--pid", &pid, &format!("devnode:{second}")]);
    container.reads(&second, &disk.content(2));
    assert_eq!(
        json_of(machine, &["list"])["containers"].as_array().map(Vec::len),
        Some(1)
    );
    output_of(machine, &["detach", id, &format!("devnode:{node}")]);
    assert!(!container.has(&node));
    container.delete();
    eventually("nothing is left of the container", || machine.traces().is_empty());
}

#[apply(on_both_hierarchies)]
fn fifty_simultaneous_attach_commands_succeed(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    // The container has no watcher yet: the first command starts one, and the others use it.
    let container = Bundle::new(machine).without_hooks().start();
    let (id, root) = (container.id.clone(), runtime_root(machine));
    let place = |number: usize| format!("/dev/many/{number}");
    let request = |number| format!("devnode:{node};path={}", place(number));
    let attaching: Vec<Child> = (0..50)
        .map(|number| {
            let mut command = Hook::operator().command();
            command.args([
                "attach",
                &id,
                &request(number),
                "--runtime-root",
                &root,
                "--state-dir",
            ]);
            command
                .arg(machine.state_dir())
                .arg("--config")
                .arg(machine.config());
            let piped = command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            piped.spawn().expect("start the tool")
        })
        .collect();
    for (child, number) in attaching.into_iter().zip(0..) {
        let output = child.wait_with_output().expect("wait for the tool");
        assert!(
            output.status.success() && text(&output).contains(&place(number)),
            "{output:?}"
        );
    }
    for number in 0..50 {
        container.reads(&place(number), &disk.content(1));
    }
    assert_eq!(recorded_requests(machine, &container).len(), 50);
    container.delete();
    eventually("nothing is left of the container", || machine.traces().is_empty());
}

#[apply(on_both_hierarchies)]
fn a_failed_attach_leaves_no_request(machine: &Machine) {
    let container = watched(machine).start();
    let id = container.id.as_str();
    let message = failed(
        machine,
        &["attach", id, "devnode:/dev/oci-hotplug-absent;required"],
        1,
    );
    assert!(
        message.contains("no such device is present") && message.contains("(nothing was attached)"),
        "{message}"
    );
    assert_eq!(
        failed(machine, &["attach", id, "usb:12345:6001"], 2)
            .lines()
            .next(),
        Some("oci-hotplug: device request \"usb:12345:6001\": vendor id must be 4 hex digits, such as 0403")
    );
    failed(machine, &["attach", id, "class:unknown"], 2);
    assert_eq!(
        failed(
            machine,
            &["attach", "--pid", &std::process::id().to_string(), NOTHING],
            1
        ),
        format!(
            "oci-hotplug: process {} has the host's root directory: it is not in a container (--pid takes the host's pid of a container's process)\n",
            std::process::id()
        )
    );
    let unknown = failed(machine, &["attach", "nobody", NOTHING], 1);
    assert!(
        unknown.starts_with("oci-hotplug: no running container \"nobody\" is known to oci-hotplug, nor to runc, crun or youki ("),
        "{unknown}"
    );
    assert!(failed(machine, &["attach", id], 2).contains("no request is given"));
    assert_eq!(recorded_requests(machine, &container), [NOTHING]);
}

#[apply(on_both_hierarchies)]
fn detaching_an_unknown_request_lists_the_known_ones(machine: &Machine) {
    let container = Bundle::requesting(machine, &format!("{NOTHING},usb:0403:6001;access=r")).start();
    assert_eq!(
        failed(machine, &["detach", &container.id, "usb:0403:6010"], 1),
        format!(
            "oci-hotplug: the container does not request \"usb:0403:6010\": its requests are {NOTHING}, usb:0403:6001;access=r\n"
        )
    );
    assert_eq!(recorded_requests(machine, &container).len(), 2);
}
