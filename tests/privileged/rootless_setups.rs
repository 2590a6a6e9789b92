//! Unusual hosts and users of rootless podman.

use std::fs;

use nix::mount::{MsFlags, mount};

use crate::framework::container::text;
use crate::framework::hook::Hook;
use crate::framework::ordinary_user::OrdinaryUser;
use crate::framework::{Disk, Machine};
use crate::rootless::{ALONE, plug_for_all};

/// A device that is present at the start, and one that is attached and unplugged later.
fn devices_come_and_go(user: &OrdinaryUser<'_>, machine: &Machine, options: &[&str]) {
    let disk = Disk::new(machine);
    let node = plug_for_all(&disk, 1);
    let container = user.start("c1", options, &format!("devnode:{node}"));
    container.eventually_reads(&node, &disk.content(1));
    let second = plug_for_all(&disk, 2);
    user.output_of(&["attach", "c1", &format!("devnode:{second}")]);
    container.eventually_reads(&second, &disk.content(2));
    disk.unplug(1);
    container.eventually_lacks(&node);
    let listed = user.output_of(&["list"]);
    assert!(
        listed.contains("c1") && !listed.contains("no watcher"),
        "{listed}"
    );
    container.remove();
}

#[apply(on_cgroup_v2)]
fn a_user_without_subordinate_ids_has_devices(machine: &Machine) {
    let user = OrdinaryUser::without_subordinates(machine);
    devices_come_and_go(&user, machine, &[ALONE]);
}

#[apply(on_cgroup_v2)]
fn a_container_in_the_users_own_user_namespace_has_devices(machine: &Machine) {
    let user = OrdinaryUser::new(machine);
    devices_come_and_go(&user, machine, &[ALONE, "--userns=host"]);
}

#[apply(on_cgroup_v2)]
fn users_who_do_not_see_processes_of_others_have_devices(machine: &Machine) {
    mount(
        Some("proc"),
        "/proc",
        Some("proc"),
        MsFlags::empty(),
        Some("hidepid=invisible"),
    )
    .expect("mount a /proc that hides processes (proc(5))");
    for options in [&[ALONE][..], &[ALONE, "--uidmap=0:1:1000", "--gidmap=0:1:1000"]] {
        let user = OrdinaryUser::new(machine);
        let hidden = user.run(&["test", "-e", "/proc/1"]);
        assert!(!hidden.status.success(), "the user sees processes of root");
        devices_come_and_go(&user, machine, options);
    }
}

#[apply(on_cgroup_v2)]
fn a_state_directory_that_others_can_change_is_refused(machine: &Machine) {
    let user = OrdinaryUser::new(machine);
    let disk = Disk::new(machine);
    let node = plug_for_all(&disk, 1);
    let state = user.state_dir().display().to_string();
    for command in [
        format!("mkdir {state} && chmod 0777 {state}"),
        format!(": >{state}"),
    ] {
        assert!(user.run(&["sh", "-c", &command]).status.success());
        let output = user.try_start("runc", "c1", &[ALONE], &format!("devnode:{node}"));
        assert!(!output.status.success(), "{command}");
        assert!(text(&output).contains(&state), "{command}: {}", text(&output));
        user.podman(&["rm", "--force", "c1"]);
        assert!(user.run(&["rm", "-r", &state]).status.success());
    }
    assert!(!fs::exists(&state).expect("look at the state directory"));
    devices_come_and_go(&user, machine, &[ALONE]);
}

/// As rootless Docker and nerdctl have it.
#[apply(on_cgroup_v2)]
fn an_engine_in_a_separate_network_namespace_notices_devices_by_their_files(machine: &Machine) {
    let user = OrdinaryUser::new(machine);
    let disk = Disk::new(machine);
    let (first, second) = (disk.partition(1), disk.partition(2));
    plug_for_all(&disk, 1);
    let container = user.start_in_separate_network("c1", &format!("glob:{}p*", disk.node));
    container.eventually_reads(&first, &disk.content(1));
    plug_for_all(&disk, 2);
    container.eventually_reads(&second, &disk.content(2));
    disk.unplug(1);
    container.eventually_lacks(&first);
    plug_for_all(&disk, 1);
    container.eventually_reads(&first, &disk.content(1));
    assert!(!user.log().contains("ERROR"), "{}", user.log());
    container.remove();
}

#[apply(on_cgroup_v2)]
fn users_with_containers_of_the_same_name_have_their_own_devices(machine: &Machine) {
    let (alice, bob) = (OrdinaryUser::new(machine), OrdinaryUser::new(machine));
    let disks = (Disk::new(machine), Disk::new(machine));
    let nodes = (plug_for_all(&disks.0, 1), plug_for_all(&disks.1, 1));
    let of_alice = alice.start("c1", &[ALONE], &format!("devnode:{}", nodes.0));
    let of_bob = bob.start("c1", &[ALONE], &format!("devnode:{}", nodes.1));
    of_alice.eventually_reads(&nodes.0, &disks.0.content(1));
    of_bob.eventually_reads(&nodes.1, &disks.1.content(1));
    for (user, own, other) in [(&alice, &nodes.0, &nodes.1), (&bob, &nodes.1, &nodes.0)] {
        let shown = user.output_of(&["inspect", "c1"]);
        assert!(shown.contains(own) && !shown.contains(other), "{shown}");
    }
    // One container gives a device up, and the other one keeps the same device.
    bob.output_of(&["attach", "c1", &format!("devnode:{}", nodes.0)]);
    of_bob.eventually_reads(&nodes.0, &disks.0.content(1));
    of_alice.remove();
    of_bob.eventually_reads(&nodes.0, &disks.0.content(1));
    of_bob.remove();
}

/// What a user can put in place of the files in the state directory. `$1` is that of another user.
/// The last one is in place of a runtime's files.
const SPOILED: [&str; 5] = [
    "for file in containers/*/* leases/*; do test ! -e $file || { rm -rf $file; mkdir $file; }; done",
    "for file in containers/*/*; do rm -rf $file; echo '{' >$file; done",
    "rm -rf containers leases && ln -s \"$1\"/containers containers && ln -s \"$1\"/leases leases",
    "cd .. && rm -rf oci-hotplug && ln -s \"$1\" oci-hotplug",
    "mkdir -p ../runc/forged && mkfifo ../runc/forged/state.json",
];

/// The exit code of timeout(1) when it had to kill its command.
const KILLED: i32 = 128;

#[apply(on_cgroup_v2)]
fn a_user_who_spoils_the_state_directory_harms_nobody_else(machine: &Machine) {
    let (alice, bob) = (OrdinaryUser::new(machine), OrdinaryUser::new(machine));
    let disk = Disk::new(machine);
    let node = plug_for_all(&disk, 1);
    let request = format!("devnode:{node}");
    let state_of_alice = alice.state_dir().display().to_string();
    let state_of_bob = bob.state_dir().display().to_string();
    let of_alice = alice.start("c1", &[ALONE], &request);
    let watcher = of_alice.watcher();
    for (number, command) in SPOILED.into_iter().enumerate() {
        let of_bob = bob.try_start("runc", &format!("bob{number}"), &[ALONE], &request);
        assert!(of_bob.status.success(), "{command}: {}", text(&of_bob));
        let script = format!("cd \"$0\" && {command}");
        let spoiled = bob.run(&["sh", "-c", &script, &state_of_bob, &state_of_alice]);
        assert!(spoiled.status.success(), "{command}: {}", text(&spoiled));
        // Commands and engine of this user end, whatever they print.
        for words in [&["list"][..], &["inspect", "c1"], &["recover"], &["check"]] {
            let output = bob.tool(words);
            let is_done = output.status.code().is_some_and(|code| code < KILLED);
            assert!(is_done, "{command}: {words:?}: {}", text(&output));
        }
        let removed = bob.try_podman(&["rm", "--force", "--time", "0", &format!("bob{number}")]);
        assert!(removed.status.success(), "{command}: {}", text(&removed));
        assert!(bob.run(&["rm", "-rf", &state_of_bob]).status.success());
        // Those of root see nothing of it, and the other user's container keeps its device.
        let listed = Hook::operator().run(&["list"], "");
        assert!(listed.status.success(), "{command}: {}", text(&listed));
        assert_eq!(of_alice.watcher(), watcher, "{command}");
        of_alice.eventually_reads(&node, &disk.content(1));
        disk.unplug(1);
        of_alice.eventually_lacks(&node);
        plug_for_all(&disk, 1);
        of_alice.eventually_reads(&node, &disk.content(1));
    }
    of_alice.remove();
}
