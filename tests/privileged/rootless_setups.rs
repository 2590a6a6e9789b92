//! Unusual hosts and users of rootless podman.

use std::fs;

use nix::mount::{MsFlags, mount};

use crate::framework::container::text;
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
    let user = OrdinaryUser::new(machine);
    let hidden = user.run(&["test", "-e", "/proc/1"]);
    assert!(!hidden.status.success(), "the user sees processes of root");
    for options in [&[ALONE][..], &[ALONE, "--uidmap=0:1:1000", "--gidmap=0:1:1000"]] {
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
