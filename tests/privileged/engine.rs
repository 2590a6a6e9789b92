//! The engine's own devices and rules stay exactly as they were, before, during and after a plug;
//! and when the engine writes its rules again, access to attached devices is restored.

use std::fs;

use crate::framework::container::text;
use crate::framework::disk::number_of;
use crate::framework::{Bundle, Disk, Hierarchy, Machine, RuncContainer, alone, eventually, kernel};

#[apply(on_both_hierarchies)]
fn an_engines_device_keeps_its_access_before_during_and_after(machine: &Machine) {
    let disk = Disk::new(machine);
    let [reading, writing] = [disk.plug(1), disk.plug(2)];
    let container = Bundle::requesting(machine, &format!("devnode:{}", disk.partition(3)))
        .engine_device(&reading, "r")
        .engine_device(&writing, "w")
        .start();
    let unchanged = |when: &str| {
        container.reads(&reading, &disk.content(1));
        assert!(
            container.is_write_refused(&reading),
            "{when}: {reading} can be written"
        );
        assert!(container.is_refused(&writing), "{when}: {writing} can be read");
        assert!(
            container.can_write(&writing),
            "{when}: {writing} can't be written"
        );
        assert_eq!(container.stat(&reading).mode, 0o640, "{when}");
    };
    unchanged("before");
    disk.plug(3);
    container.eventually_reads(&disk.partition(3), &disk.content(3));
    unchanged("during");
    disk.unplug(3);
    container.eventually_lacks(&disk.partition(3));
    unchanged("after");
}

#[apply(on_both_hierarchies)]
fn a_requested_node_of_the_engine_is_adopted_and_not_removed(machine: &Machine) {
    // It needs a number that was used before.
    alone();
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let number = number_of(&node);
    let container = Bundle::requesting(machine, &format!("devnode:{node}"))
        .engine_device(&node, "r")
        .capability("CAP_MKNOD")
        .start();
    let engines = container.stat(&node);
    assert_eq!(engines.mode, 0o640);
    container.reads(&node, &disk.content(1));
    eventually("with the request, it can be written as well", || {
        container.can_write(&node)
    });
    disk.unplug(1);
    eventually("the requested access is revoked", || {
        container.is_write_refused(&node)
    });
    assert_eq!(
        container.stat(&node),
        engines,
        "the engine's node stays as it was"
    );
    // What the engine allowed is still allowed, and what was requested is granted again. (With
    // another number, the engine's node would lead to no device, and we must not replace it.)
    disk.plug_with_number(1, number);
    container.eventually_reads(&node, &disk.content(1));
    eventually("the request grants access again", || container.can_write(&node));
}

#[apply(on_both_hierarchies)]
fn the_default_devices_work_throughout(machine: &Machine) {
    let disk = Disk::new(machine);
    let container = Bundle::requesting(machine, &format!("devnode:{}", disk.partition(1))).start();
    let loops = "while :; do head -c1 /dev/zero >/dev/null || { echo refused >/words/loop; exit; }; done";
    let busy = container
        .inside(&format!("( {loops} ) >/dev/null 2>&1 & echo $!"))
        .output;
    for _ in 0..10 {
        disk.plug(1);
        container.eventually_reads(&disk.partition(1), &disk.content(1));
        disk.unplug(1);
        container.eventually_lacks(&disk.partition(1));
    }
    assert_eq!(
        container.inside(&format!("kill {busy}")).status,
        0,
        "an access to /dev/zero or /dev/null failed"
    );
    let refusals = fs::read_to_string(container.bundle.join("words/loop")).unwrap_or_default();
    assert_eq!(refusals, "");
}

#[apply(on_both_hierarchies)]
fn runc_update_does_not_revoke_access(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let container = Bundle::requesting(machine, &format!("devnode:{node}")).start();
    container.reads(&node, &disk.content(1));
    // runc writes only limits with a controller: on a hybrid host, cgroup v2 has no pids
    // controller.
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers");
    let has_pids = machine.hierarchy == Hierarchy::V1 || controllers.is_ok_and(|all| all.contains("pids"));
    let options: &[&str] = if has_pids {
        &["--pids-limit", "100"]
    } else {
        &["--blkio-weight", "0"]
    };
    let output = container.update(options);
    assert!(output.status.success(), "runc update: {}", text(&output));
    container.eventually_reads(&node, &disk.content(1));
    assert_eq!(container.read("/dev/zero", 1).status, 0);
}

#[apply(on_both_hierarchies)]
fn access_is_restored_after_the_engine_rewrites_its_rules(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    let container = Bundle::requesting(machine, &format!("devnode:{node}"))
        .capability("CAP_MKNOD")
        .start();
    container.reads(&node, &disk.content(1));
    let plain = Bundle::new(machine).without_hooks().start();
    for _ in 0..3 {
        write_engines_rules(machine, &container, &plain, number_of(&node));
        container.eventually_reads(&node, &disk.content(1));
    }
    let own = container.make_node("own", 'b', number_of(&node));
    write_engines_rules(machine, &container, &plain, number_of(&node));
    disk.unplug(1);
    container.eventually_lacks(&node);
    container.eventually_refuses(&own);
    assert_eq!(container.read("/dev/zero", 1).status, 0);
}

/// Does what an engine's update does: on v1, the device is denied; on v2, a program without our
/// prologue is attached.
fn write_engines_rules(
    machine: &Machine,
    container: &RuncContainer<'_>,
    plain: &RuncContainer<'_>,
    number: (u32, u32),
) {
    match machine.hierarchy {
        Hierarchy::V1 => {
            let rule = format!("b {}:{} rwm", number.0, number.1);
            fs::write(container.cgroup().join("devices.deny"), rule).expect("deny a device");
        }
        Hierarchy::V2 => {
            let of = |cgroup| kernel::device_programs(cgroup).expect("query the device programs");
            let (old, new) = (of(&container.cgroup()), of(&plain.cgroup()));
            assert_eq!((old.len(), new.len()), (1, 1));
            kernel::replace_device_program(&container.cgroup(), old[0], new[0]).expect("replace a program");
        }
    }
}

#[apply(on_both_hierarchies)]
fn the_device_rules_are_as_before_after_all_devices_are_unplugged(machine: &Machine) {
    let disk = Disk::new(machine);
    let container = Bundle::requesting(machine, &format!("devnode:{}", disk.partition(1))).start();
    let rules = |container: &RuncContainer<'_>| match machine.hierarchy {
        Hierarchy::V1 => container.device_rules(),
        Hierarchy::V2 => {
            let programs = kernel::device_programs(&container.cgroup()).expect("query the device programs");
            format!("{} program", programs.len())
        }
    };
    let before = rules(&container);
    disk.plug(1);
    container.eventually_reads(&disk.partition(1), &disk.content(1));
    disk.unplug(1);
    container.eventually_lacks(&disk.partition(1));
    eventually("the kernel's rules are as before", || rules(&container) == before);
}
