//! Rootless podman: an ordinary user's containers get their devices.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::NetlinkAddr;
use nix::unistd::Pid;

use crate::framework::container::text;
use crate::framework::disk::number_of;
use crate::framework::identity::{GROUPS, Identity, in_the_kernels_form, in_udevds_form, uevent_ports};
use crate::framework::ordinary_user::{OrdinaryUser, let_everyone_open};
use crate::framework::tracer::Tracer;
use crate::framework::udevd::host_settles;
use crate::framework::user_manager::UserManager;
use crate::framework::{Announcements, Disk, Machine, alone, eventually};

pub const ALONE: &str = "--network=none";

/// Plugs a partition in, and lets everyone open it, as udev rules would.
pub fn plug_for_all(disk: &Disk, partition: u8) -> String {
    let node = disk.plug(partition);
    // A udevd of the host sets the mode of the node as well.
    host_settles();
    let_everyone_open(&node);
    node
}

fn plug_and_unplug(machine: &Machine, options: &[&str]) {
    let user = OrdinaryUser::new(machine);
    let disk = Disk::new(machine);
    let request = format!("devnode:{};link=/dev/below/board", disk.partition(1));
    let second = format!("devnode:{};path=/dev/other", disk.partition(2));
    for runtime in ["crun", "runc"] {
        plug_for_all(&disk, 1);
        let container = user.start_by(runtime, "c1", options, &request);
        container.eventually_reads("/dev/below/board", &disk.content(1));
        container.eventually_reads(&disk.partition(1), &disk.content(1));
        user.output_of(&["attach", "c1", &second]);
        plug_for_all(&disk, 2);
        container.eventually_reads("/dev/other", &disk.content(2));
        disk.unplug(1);
        for path in [&*disk.partition(1), "/dev/below"] {
            container.eventually_lacks(path);
        }
        plug_for_all(&disk, 1);
        container.eventually_reads("/dev/below/board", &disk.content(1));
        assert!(!user.log().contains("ERROR"), "{}", user.log());
        container.remove();
        disk.unplug(1);
        disk.unplug(2);
    }
}

#[apply(on_cgroup_v2)]
fn a_container_in_its_engines_user_namespace_gets_its_devices(machine: &Machine) {
    plug_and_unplug(machine, &[ALONE]);
}

#[apply(on_cgroup_v2)]
fn a_container_whose_user_keeps_its_id_gets_its_devices(machine: &Machine) {
    plug_and_unplug(machine, &[ALONE, "--userns=keep-id"]);
}

#[apply(on_cgroup_v2)]
fn a_container_with_ids_of_its_own_gets_its_devices(machine: &Machine) {
    plug_and_unplug(machine, &[ALONE, "--userns=auto"]);
}

#[apply(on_cgroup_v2)]
fn a_container_without_the_user_and_with_a_read_only_root_gets_its_devices(machine: &Machine) {
    plug_and_unplug(
        machine,
        &[ALONE, "--uidmap=0:1:1000", "--gidmap=0:1:1000", "--read-only"],
    );
}

#[apply(on_cgroup_v2)]
fn a_privileged_container_in_the_hosts_network_gets_its_devices(machine: &Machine) {
    let user = OrdinaryUser::new(machine);
    let disk = Disk::new(machine);
    let node = plug_for_all(&disk, 1);
    let container = user.start(
        "c1",
        &["--network=host", "--privileged"],
        &format!("devnode:{node}"),
    );
    // podman itself has mounted the nodes that are there at the start.
    container.eventually_reads(&node, &disk.content(1));
    disk.unplug(1);
    // podman's mount of the old node, which nobody can open any more, is in the way.
    plug_for_all(&disk, 1);
    container.eventually_reads(&node, &disk.content(1));
    disk.unplug(1);
    container.eventually_lacks(&node);
    container.remove();
}

#[apply(on_cgroup_v2)]
fn the_devices_of_a_rootless_container_are_announced_inside(machine: &Machine) {
    let user = OrdinaryUser::new(machine);
    let disk = Disk::new(machine);
    let container = user.start("c1", &[ALONE], &format!("devnode:{}", disk.partition(1)));
    let listener = Announcements::of_process(machine, container.pid(), true);
    plug_for_all(&disk, 1);
    for form in ["KERNEL", "UDEV"] {
        listener.eventually_receive(form, "add", &disk.name(1));
    }
    disk.unplug(1);
    for form in ["KERNEL", "UDEV"] {
        listener.eventually_receive(form, "remove", &disk.name(1));
    }
}

/// A program inside that keeps a descriptor of the node, and opens the device through it again and
/// again. It writes what happens to a file.
const HOLD: &str = "import os, sys, time
held = os.open(sys.argv[1], os.O_PATH)
while True:
    try:
        os.close(os.open(f'/proc/self/fd/{held}', os.O_RDONLY))
        result = 'opened'
    except OSError as error:
        result = error.strerror
    with open('/tmp/new', 'w') as file:
        file.write(result)
    os.rename('/tmp/new', '/tmp/result')
    time.sleep(0.02)
";

#[apply(on_cgroup_v2)]
fn a_descriptor_that_is_held_does_not_open_a_device_that_was_taken_away(machine: &Machine) {
    let user = OrdinaryUser::new(machine);
    let disk = Disk::new(machine);
    let node = plug_for_all(&disk, 1);
    let request = format!("devnode:{node}");
    let container = user.start("c1", &[ALONE], &request);
    let start = format!("python3 -c \"{HOLD}\" {node} >/dev/null 2>&1 &");
    assert!(container.exec(&start).status.success());
    let result = || text(&container.exec("cat /tmp/result"));
    eventually("the device opens through the descriptor", || {
        result().contains("opened")
    });
    // The device stays plugged in, and the host's node keeps its mode.
    user.output_of(&["detach", "c1", &request]);
    container.eventually_lacks(&node);
    eventually("the descriptor is useless", || {
        result().contains("Permission denied")
    });
    // A new mount of the same node does not make the old one usable.
    user.output_of(&["attach", "c1", &request]);
    container.eventually_reads(&node, &disk.content(1));
    assert!(result().contains("Permission denied"), "{}", result());
}

#[apply(on_cgroup_v2)]
fn neither_users_of_the_host_nor_the_container_can_forge_events(machine: &Machine) {
    let user = OrdinaryUser::new(machine);
    let disk = Disk::new(machine);
    let node = plug_for_all(&disk, 1);
    let container = user.start("c1", &[ALONE], &format!("devnode:{node}"));
    container.eventually_reads(&node, &disk.content(1));
    let watcher = container.watcher().expect("the container has a watcher");
    let mut places = uevent_ports(watcher);
    assert!(!places.is_empty(), "the watcher listens");
    places.extend(GROUPS.map(|group| NetlinkAddr::new(0, group)));
    let path = format!("/devices/virtual/block/{0}/{1}", &disk.node[5..], disk.name(1));
    let entries = ["SUBSYSTEM=block", "DEVTYPE=partition", "SEQNUM=4294967296"].map(str::to_owned);
    let messages = [
        in_the_kernels_form("remove", &path, &entries),
        in_udevds_form("remove", &path, &entries),
    ];
    assert_eq!(Identity::Nobody.send(&places, &messages), 0);
    // The container's root may send in its own network namespace, where no watcher listens.
    Identity::RootInTheNetworkOf(container.pid()).send(&places, &messages);
    plug_for_all(&disk, 2);
    user.output_of(&["attach", "c1", &format!("devnode:{}", disk.partition(2))]);
    container.eventually_reads(&node, &disk.content(1));
    assert!(!user.log().contains("detached"), "{}", user.log());
}

#[apply(on_cgroup_v2)]
fn the_user_recovers_a_watcher_that_was_killed(machine: &Machine) {
    let user = OrdinaryUser::new(machine);
    let disk = Disk::new(machine);
    let node = plug_for_all(&disk, 1);
    let container = user.start("c1", &[ALONE, "--userns=keep-id"], &format!("devnode:{node}"));
    container.eventually_reads(&node, &disk.content(1));
    container.kill_watcher();
    // The mounted node is that of a device which is gone, whatever has its number now.
    disk.unplug(1);
    plug_for_all(&disk, 1);
    container.is_recovered();
    container.eventually_reads(&node, &disk.content(1));
    let listed = user.output_of(&["list"]);
    assert!(
        listed.contains("c1") && !listed.contains("no watcher"),
        "{listed}"
    );
    // A device that is away when the next watcher starts.
    container.kill_watcher();
    disk.unplug(1);
    container.is_recovered();
    container.eventually_lacks(&node);
    container.remove();
}

#[apply(on_cgroup_v2)]
fn the_next_watcher_removes_the_node_of_a_device_whose_number_another_one_has(machine: &Machine) {
    // It needs a number that was used before.
    alone();
    let user = OrdinaryUser::new(machine);
    let (disk, other) = (Disk::new(machine), Disk::new(machine));
    let node = plug_for_all(&disk, 1);
    let container = user.start("c1", &[ALONE], &format!("devnode:{node}"));
    container.eventually_reads(&node, &disk.content(1));
    let number = number_of(&node);
    container.kill_watcher();
    disk.unplug(1);
    other.plug_with_number(1, number);
    container.is_recovered();
    container.eventually_lacks(&node);
    container.remove();
}

#[apply(on_cgroup_v2)]
fn nothing_is_left_of_a_mounted_node_if_the_watcher_is_killed_meanwhile(machine: &Machine) {
    let user = OrdinaryUser::new(machine);
    let disk = Disk::new(machine);
    let request = format!("devnode:{};path=/dev/one/two/node", disk.partition(1));
    let container = user.start("c1", &[ALONE], &request);
    for call in ["mknodat", "move_mount", "renameat2"] {
        let watcher = container.watcher().expect("the container has a watcher");
        let tracer = Tracer::attach(watcher, &[], call, 1);
        plug_for_all(&disk, 1);
        eventually(&format!("the watcher is killed at {call}"), || {
            user.output_of(&["list"]).contains("no watcher")
        });
        tracer.detach();
        disk.unplug(1);
        user.output_of(&["recover"]);
        container.eventually_lacks("/dev/one");
    }
    container.remove();
}

#[apply(on_cgroup_v2)]
fn the_user_attaches_a_device_to_a_container_that_requests_none(machine: &Machine) {
    let user = OrdinaryUser::new(machine);
    let disk = Disk::new(machine);
    let node = plug_for_all(&disk, 1);
    let container = user.start("c1", &[ALONE], "");
    assert!(
        !user.state_dir().exists(),
        "nothing is left of a container that requests nothing"
    );
    user.output_of(&["attach", "c1", &format!("devnode:{node};link=/dev/board")]);
    container.eventually_reads("/dev/board", &disk.content(1));
    // This watcher began outside of podman's namespaces.
    eventually("the container has a udev database", || {
        container.exec("test -e /run/udev/control").status.success()
    });
    let inspected = user.output_of(&["inspect", "c1"]);
    assert!(
        inspected.contains("owner and mode of the host's node"),
        "{inspected}"
    );
    container.remove();
}

#[apply(on_cgroup_v2)]
fn a_device_that_nobody_inside_can_open_is_attached_and_reported(machine: &Machine) {
    let user = OrdinaryUser::new(machine);
    let disk = Disk::new(machine);
    let node = plug_for_all(&disk, 1);
    fs::set_permissions(&node, fs::Permissions::from_mode(0o660)).expect("close a node");
    let container = user.start("c1", &[ALONE], &format!("devnode:{node}"));
    let read = container.exec(&format!("head -n 1 {node}"));
    assert!(text(&read).contains("Permission denied"), "{}", text(&read));
    for words in [&["inspect", "c1"][..], &["explain", "c1", &node]] {
        // `explain` breaks lines.
        let shown = user
            .output_of(words)
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        assert!(
            shown.contains("cannot open it: the host's node has mode 0660")
                && shown.contains("a udev rule such as"),
            "{shown}"
        );
    }
    // A change on the host has effect inside at once.
    fs::set_permissions(&node, fs::Permissions::from_mode(0o666)).expect("open a node to all");
    container.eventually_reads(&node, &disk.content(1));
    assert!(!user.output_of(&["inspect", "c1"]).contains("cannot open"));
}

#[apply(on_cgroup_v2)]
fn what_only_root_can_give_is_refused_at_the_start(machine: &Machine) {
    let user = OrdinaryUser::new(machine);
    for (option, message) in [
        ("access=r", "no device cgroup"),
        ("mode=0666", "mode= is not possible in a rootless container"),
        ("uid=1000", "uid= is not possible"),
        ("gid=20", "gid= is not possible"),
    ] {
        let output = user.try_start("crun", "c1", &[ALONE, "--rm"], &format!("usb:0403:6001;{option}"));
        assert!(!output.status.success(), "{option}");
        assert!(user.log().contains(message), "{option}: {}", user.log());
        user.try_podman(&["rm", "--force", "c1"]);
    }
    let container = user.start("c2", &[ALONE], "usb:0403:6001;access=rw");
    let output = user.tool(&["attach", "c2", "usb:0403:6002;mode=0666"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(
        text(&output).contains("mode= is not possible"),
        "{}",
        text(&output)
    );
    container.remove();
}

/// Their grammar has no options: the mode that container-hotplug gives its nodes is not requested.
#[apply(on_cgroup_v2)]
fn annotations_of_container_hotplug_have_the_mode_of_the_host(machine: &Machine) {
    let user = OrdinaryUser::new(machine);
    let disk = Disk::new(machine);
    let node = plug_for_all(&disk, 1);
    let annotation = format!("--annotation=org.lowrisc.hotplug.devices=devnode:{node}");
    let container = user.start("c1", &[ALONE, &annotation], "");
    container.eventually_reads(&node, &disk.content(1));
    container.remove();
}

#[apply(on_cgroup_v2)]
fn the_manager_of_the_user_restarts_a_watcher_that_is_killed(machine: &Machine) {
    let user = OrdinaryUser::new(machine);
    let manager = UserManager::of(&user, machine);
    let disk = Disk::new(machine);
    let container = user.start("c1", &[ALONE], &format!("devnode:{}", disk.partition(1)));
    let of_unit = || {
        let watcher = container.watcher();
        watcher.filter(|pid| manager.has_started(*pid))
    };
    eventually("the unit's watcher has taken over", || of_unit().is_some());
    let call = format!(
        "{} --user start --no-block --quiet oci-hotplug-watcher@",
        user.runtime_dir().display()
    );
    assert!(manager.calls().starts_with(&call), "{}", manager.calls());
    let first = of_unit().expect("it has taken over");
    kill(Pid::from_raw(first), Signal::SIGKILL).expect("kill a watcher");
    eventually("the unit has another watcher", || {
        of_unit().is_some_and(|pid| pid != first)
    });
    let node = plug_for_all(&disk, 1);
    container.eventually_reads(&node, &disk.content(1));
    assert_eq!(manager.calls().lines().count(), 1, "{}", manager.calls());
    container.remove();
}

#[apply(on_cgroup_v2)]
fn the_file_of_the_user_denies_more_and_allows_nothing(machine: &Machine) {
    const FILE: &str = ".config/oci-hotplug/config.toml";
    let user = OrdinaryUser::new(machine);
    let disk = Disk::new(machine);
    let (denied, allowed) = (plug_for_all(&disk, 1), plug_for_all(&disk, 2));
    user.write(
        FILE,
        &format!(
            "[[policy.deny]]\ndevices = [\"devnode:{denied}\"]\nreason = \"it is mine\"\n\
             [class.own]\ndevices = [\"devnode:{allowed}\"]\n"
        ),
    );
    let container = user.start("c1", &[ALONE], "class:own");
    container.eventually_reads(&allowed, &disk.content(2));
    let output = user.try_start("crun", "c2", &[ALONE], &format!("devnode:{denied}"));
    assert!(!output.status.success(), "{}", text(&output));
    assert!(user.log().contains("it is mine"), "{}", user.log());
    machine.configure("[policy]\ndefault = \"nothing\"\n");
    let output = user.try_start("runc", "c3", &[ALONE], "class:own");
    assert!(!output.status.success(), "{}", text(&output));
    user.write(FILE, "[policy]\ndefault = \"anything\"\n");
    let output = user.try_start("runc", "c4", &[ALONE], &format!("devnode:{allowed}"));
    assert!(!output.status.success(), "{}", text(&output));
    assert!(
        user.log().contains("only classes and policy.deny"),
        "{}",
        user.log()
    );
    for name in ["c2", "c3", "c4"] {
        user.try_podman(&["rm", "--force", name]);
    }
    container.remove();
}

#[apply(on_cgroup_v2)]
fn a_user_installs_without_root_and_podman_starts_the_hooks(machine: &Machine) {
    const CONF: &str = ".config/containers/containers.conf";
    let user = OrdinaryUser::new(machine);
    let written = "# mine\n[containers]\npids_limit = 100\n";
    user.write(CONF, written);
    let programs = user.programs().display().to_string();
    let report = user.output_of(&["install", "--user", "--from", &programs]);
    assert!(report.contains("/.local/bin/oci-hotplug"), "{report}");
    let annotation = "io.oci-hotplug.devices=devnode:/dev/absent";
    // Without --hooks-dir.
    let mut words = vec!["run", "-d", "--name", "c1", ALONE, "--volume", "/usr:/usr:ro"];
    words.extend(["--annotation", annotation, "host", "sleep", "1000"]);
    user.podman(&words);
    assert_eq!(user.traces().len(), 1);
    user.podman(&["rm", "--force", "--time", "0", "c1"]);
    eventually("no record of the container is left", || user.traces().is_empty());
    user.output_of(&["install", "--user", "--uninstall"]);
    let conf = fs::read_to_string(user.home().join(CONF)).expect("the user's file is there");
    assert_eq!(conf, written);
    assert!(!user.home().join(".local/bin").exists());
}

#[apply(on_cgroup_v2)]
fn a_node_that_nobody_inside_can_open_is_reported(machine: &Machine) {
    let user = OrdinaryUser::new(machine);
    let disk = Disk::new(machine);
    let container = user.start("c1", &[ALONE], &format!("devnode:{}", disk.partition(1)));
    // Of root, and closed to others, as udevd and devtmpfs make it.
    let node = disk.plug(1);
    eventually("the event is in the log", || {
        user.log()
            .contains(&format!("no user of the container can open {node}"))
    });
    let events = user.output_of(&["events", "--container", "c1"]);
    assert!(events.contains("no user of the container can open"), "{events}");
    // Other checks may fail on this machine.
    let check = text(&user.tool(&["check"]));
    let line = format!("container c1, {node}: ");
    assert!(check.replace('\n', " ").contains(&line), "{check}");
    host_settles();
    fs::set_permissions(&node, fs::Permissions::from_mode(0o666)).expect("let everyone open a node");
    let check = text(&user.tool(&["check"]));
    assert!(!check.contains(&line), "{check}");
    assert_eq!(user.log().matches("inaccessible").count(), 1, "{}", user.log());
    container.remove();
}

#[apply(on_cgroup_v2)]
fn a_container_that_requests_nothing_starts_whatever_the_host_lacks(machine: &Machine) {
    let user = OrdinaryUser::new(machine);
    machine.configure("no configuration");
    user.start("c1", &[ALONE], "").remove();
    assert!(!user.state_dir().exists());
}
