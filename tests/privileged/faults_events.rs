//! Events that are lost, late, or never sent, and devices that change faster than their events are
//! processed. In the end the container has the devices that exist, and access to a number ends with
//! its device.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::framework::disk::number_of;
use crate::framework::eventually::within;
use crate::framework::tool::output_of;
use crate::framework::{Bundle, Disk, Machine, RuncContainer, Terminal, Udevd, alone, eventually};

/// The nodes of these disks below /dev: names with numbers.
type Nodes = BTreeMap<String, (u32, u32)>;

fn on_the_host(disks: &[Disk]) -> Nodes {
    let partitions = disks.iter().flat_map(|disk| {
        (1..=250)
            .map(|partition| disk.partition(partition))
            .filter(|node| std::fs::exists(node).expect("look for a node"))
    });
    partitions.map(|node| (node.clone(), number_of(&node))).collect()
}

fn inside(container: &RuncContainer<'_>) -> Nodes {
    let message = container
        .inside("cd /dev; for node in loop*p*; do [ ! -e \"$node\" ] || stat -c '%n %t %T' \"$node\"; done")
        .output;
    let node = |line: &str| {
        let mut words = line.split(' ');
        let name = words.next()?;
        let mut number = || u32::from_str_radix(words.next()?, 16).ok();
        Some((format!("/dev/{name}"), (number()?, number()?)))
    };
    message.lines().filter_map(node).collect()
}

#[apply(on_both_hierarchies)]
fn a_thousand_devices_overrun_a_tiny_buffer_and_the_result_is_right(machine: &Machine) {
    // Other tests would receive the events of a thousand devices, too.
    alone();
    let disks = [(); 4].map(|()| Disk::new(machine));
    let globs: Vec<_> = disks.iter().map(|disk| format!("glob:{}p*", disk.node)).collect();
    let container = Bundle::requesting(machine, &globs.join(",")).start();
    let watcher = container.expect_watcher();
    watcher.shrink_event_buffers();
    let burst = |act: &dyn Fn(&Disk, u8), wanted: &dyn Fn(u8) -> bool| {
        for disk in &disks {
            (1..=250)
                .filter(|partition| wanted(*partition))
                .for_each(|partition| act(disk, partition));
        }
    };
    let same = |when: &str| {
        let host = on_the_host(&disks);
        let mut last = Nodes::new();
        let settled = within(Duration::from_secs(60), || {
            last = inside(&container);
            (last == host).then_some(())
        });
        assert!(
            settled.is_some(),
            "{when}: {} devices are there and {} are inside",
            host.len(),
            last.len()
        );
        host
    };
    // While the watcher runs, as fast as the kernel creates them.
    burst(&Disk::plug_small, &|_| true);
    assert_eq!(same("plugged in").len(), 1000);
    // While the watcher is stopped.
    watcher.pause();
    burst(&Disk::unplug, &|partition| partition % 10 != 0);
    burst(&Disk::plug_small, &|partition| partition % 10 == 1);
    watcher.resume();
    let left = same("unplugged, and some plugged in again");
    assert_eq!(left.len(), 200);
    let refused = left.keys().find(|node| container.read(node, 0).status != 0);
    assert_eq!(refused, None, "what is inside can be opened");
    let lost = machine.log().matches("events were lost").count();
    assert!(lost > 0, "no event was lost, so the test has shown nothing");
    assert_eq!(container.expect_watcher(), watcher);
}

#[apply(on_both_hierarchies)]
fn a_watcher_that_loses_events_answers_while_more_of_them_arrive(machine: &Machine) {
    // Other watchers would receive these events, too.
    alone();
    let (disk, other) = (Disk::new(machine), Disk::new(machine));
    let container = Bundle::requesting(machine, &format!("glob:{}p*", disk.node)).start();
    let node = disk.plug(1);
    container.eventually_reads(&node, &disk.content(1));
    container.expect_watcher().shrink_event_buffers();
    other.plug(1);
    let uevent = format!("/sys/class/block/{}/uevent", other.name(1));
    let announce = || std::fs::write(&uevent, "change").expect("send an event of a device");
    while_repeating(announce, || {
        eventually("events are lost", || machine.log().contains("events were lost"));
        output_of(machine, &["inspect", &container.id]);
        output_of(machine, &["recover", "--restart-watchers"]);
    });
    let second = disk.plug(2);
    container.eventually_reads(&second, &disk.content(2));
}

#[apply(on_both_hierarchies)]
fn a_number_that_another_device_got_while_events_were_lost_is_denied(machine: &Machine) {
    // It needs a number that was used before.
    alone();
    let disk = Disk::new(machine);
    let crowd = Disk::new(machine);
    let container = Bundle::requesting(machine, &format!("devnode:{}", disk.partition(1)))
        .capability("CAP_MKNOD")
        .start();
    let node = disk.plug(1);
    container.eventually_reads(&node, &disk.content(1));
    let watcher = container.expect_watcher();
    watcher.shrink_event_buffers();
    let old = number_of(&node);
    let own = container.make_node("own", 'b', old);
    watcher.pause();
    (1..=50).for_each(|partition| crowd.plug_small(partition));
    disk.unplug(1);
    let squatter = disk.plug_with_another_number(machine, 1, old);
    watcher.resume();
    container.eventually_reads(&node, &disk.content(1));
    container.eventually_refuses(&own);
    assert!(machine.log().contains("events were lost"));
    assert!(!container.has(&squatter.partition(1)));
}

#[apply(on_both_hierarchies)]
fn a_number_that_another_device_gets_at_once_is_denied_at_once(machine: &Machine) {
    // It needs a number that was used before.
    alone();
    let (disk, other) = (Disk::new(machine), Disk::new(machine));
    let container = Bundle::requesting(machine, &format!("devnode:{}", disk.partition(1)))
        .capability("CAP_MKNOD")
        .start();
    let mut took = Vec::new();
    for round in 0..20 {
        let node = disk.plug(1);
        container.eventually_reads(&node, &disk.content(1));
        let number = number_of(&node);
        let own = container.make_node(&format!("own-{round}"), 'b', number);
        disk.unplug(1);
        other.plug_with_number(1, number);
        let begin = Instant::now();
        container.eventually_refuses(&own);
        took.push(begin.elapsed());
        // This does not change: nothing grants the number again.
        container.eventually_lacks(&node);
        assert!(container.is_refused(&own));
        other.unplug(1);
    }
    took.sort_unstable();
    println!("refused after the other device was there: {took:?}");
    // In most rounds the event caused it. One round may be late, because the machine has other
    // things to do.
    assert!(took[10] < Duration::from_millis(900), "{took:?}");
}

#[apply(on_both_hierarchies)]
fn a_device_that_was_added_and_removed_unnoticed_does_not_grant_its_number(machine: &Machine) {
    // It needs a number that was used before.
    alone();
    let (disk, other) = (Disk::new(machine), Disk::new(machine));
    let container = Bundle::requesting(machine, &format!("devnode:{}", disk.partition(1)))
        .capability("CAP_MKNOD")
        .start();
    let watcher = container.expect_watcher();
    watcher.eventually_waits_for_events();
    for round in 0..5 {
        watcher.pause();
        let number = number_of(&disk.plug(1));
        let own = container.make_node(&format!("own-{round}"), 'b', number);
        let log = format!("/words/reached-{round}");
        let reader = container
            .inside(&format!(
                "( while :; do head -c 12 {own} >>{log}; done ) >/dev/null 2>&1 & echo $!"
            ))
            .output;
        // On a busy machine the reader may begin much later than its shell says its number.
        eventually("the container's reader tries to read", || container.has(&log));
        disk.unplug(1);
        other.plug_with_number(1, number);
        watcher.resume();
        // When a later device is attached, all earlier events have been processed.
        let node = disk.plug(1);
        container.eventually_reads(&node, &disk.content(1));
        container.inside(&format!("kill {reader}"));
        let reached = container.inside(&format!("cat {log}"));
        assert!(
            reached.status == 0 && reached.output.is_empty(),
            "round {round}: the container read the device with number {number:?}, which is {} now \
             (its own, {node}, is {:?}): {reached:?}; {}",
            other.partition(1),
            number_of(&node),
            machine.end_of_log()
        );
        assert!(
            container.is_refused(&own),
            "round {round}: {own} with number {number:?} is not refused; {}",
            machine.end_of_log()
        );
        disk.unplug(1);
        container.eventually_lacks(&node);
        other.unplug(1);
    }
}

/// Unplugs and immediately plugs in again, like a device that resets itself.
fn reset(disk: &Disk) {
    disk.unplug(1);
    disk.plug(1);
}

#[apply(on_both_hierarchies)]
fn a_device_that_resets_repeatedly_is_attached_in_the_end(machine: &Machine) {
    let disk = Disk::new(machine);
    let terminal = Terminal::new();
    let request = format!(
        "devnode:{};link=/dev/stable,devnode:{}",
        disk.partition(1),
        terminal.node()
    );
    let container = Bundle::requesting(machine, &request)
        .capability("CAP_MKNOD")
        .start();
    let (node, screen) = (disk.plug(1), terminal.plug());
    container.eventually_reads(&node, &disk.content(1));
    let mut numbers = Vec::new();
    for _ in 0..100 {
        reset(&disk);
        terminal.unplug();
        terminal.plug();
        numbers.push(number_of(&node));
    }
    container.eventually_reads(&node, &disk.content(1));
    container.eventually_reads("/dev/stable", &disk.content(1));
    container.eventually_reads(&screen, &terminal.content());
    let now = number_of(&node);
    numbers.sort_unstable();
    numbers.dedup();
    for number in numbers.into_iter().filter(|number| *number != now) {
        let own = container.make_node(&format!("own-{}", number.1), 'b', number);
        container.eventually_refuses(&own);
    }
}

/// Resets the device while `meanwhile` runs.
fn while_it_resets<T>(disk: &Disk, meanwhile: impl FnOnce() -> T) -> T {
    while_repeating(|| reset(disk), meanwhile)
}

/// Does `act` again and again, at least once, while `meanwhile` runs.
fn while_repeating<T>(act: impl Fn() + Sync, meanwhile: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    let (result, times) = thread::scope(|scope| {
        let repeater = scope.spawn(|| {
            let mut times = 0;
            while !over.load(Ordering::Relaxed) {
                act();
                times += 1;
            }
            times
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(meanwhile));
        over.store(true, Ordering::Relaxed);
        (result, repeater.join().expect("the repeating thread ends"))
    });
    assert!(times > 0, "it was not done even once");
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[apply(on_both_hierarchies)]
fn a_device_that_resets_during_the_hook_is_attached_in_the_end(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    for _ in 0..10 {
        let bundle = Bundle::requesting(machine, &format!("devnode:{node}"));
        let container = while_it_resets(&disk, || bundle.create());
        container.start();
        container.eventually_reads(&node, &disk.content(1));
        let number = number_of(&node);
        assert_eq!(container.stat(&node).number, number);
        container.delete();
    }
    assert_eq!(machine.traces(), Vec::<std::path::PathBuf>::new());
}

#[apply(on_both_hierarchies)]
fn a_device_that_resets_between_create_and_start_is_attached_in_the_end(machine: &Machine) {
    let disk = Disk::new(machine);
    let node = disk.plug(1);
    for user_namespace in [false, true] {
        let bundle = Bundle::requesting(machine, &format!("devnode:{node}"));
        let container = bundle.with_user_namespace(user_namespace).create();
        (0..30).for_each(|_| reset(&disk));
        while_it_resets(&disk, || container.start());
        container.eventually_reads(&node, &disk.content(1));
        assert_eq!(container.stat(&node).number, number_of(&node));
    }
}

/// Both partitions are added and removed; the first one has `ready=udev`, the second one
/// `ready=kernel`.
fn come_and_go(container: &RuncContainer<'_>, disk: &Disk) {
    for partition in [1, 2] {
        let node = disk.plug(partition);
        container.eventually_reads(&node, &disk.content(partition));
        disk.unplug(partition);
        container.eventually_lacks(&node);
    }
}

fn asking_for_two<'m>(machine: &'m Machine, disk: &Disk) -> RuncContainer<'m> {
    let request = format!(
        "devnode:{};ready=udev,devnode:{};ready=kernel",
        disk.partition(1),
        disk.partition(2)
    );
    Bundle::requesting(machine, &request).start()
}

#[apply(on_both_hierarchies)]
fn udevd_can_start_late_die_and_start_again(machine: &Machine) {
    let disk = Disk::new(machine);
    let container = asking_for_two(machine, &disk);
    // Without udevd, only the kernel's facts will ever be known.
    come_and_go(&container, &disk);
    for _ in 0..2 {
        // udevd is started while the container runs and has devices.
        let present = disk.plug(2);
        let mut udevd = Udevd::start(machine);
        container.eventually_reads(&present, &disk.content(2));
        disk.unplug(2);
        container.eventually_lacks(&present);
        come_and_go(&container, &disk);
        // udevd is killed while it works: it will never process this device, and its socket's file
        // still exists.
        let node = disk.plug(1);
        udevd.kill();
        container.eventually_reads(&node, &disk.content(1));
        disk.unplug(1);
        container.eventually_lacks(&node);
        come_and_go(&container, &disk);
    }
    come_and_go(&container, &disk);
}

#[apply(on_cgroup_v2)]
fn the_wait_for_a_stopped_udevd_ends(machine: &Machine) {
    let disk = Disk::new(machine);
    let container = asking_for_two(machine, &disk);
    let udevd = Udevd::start(machine);
    come_and_go(&container, &disk);
    udevd.pause();
    let (slow, quick) = (disk.plug(1), disk.plug(2));
    for _ in 0..5 {
        container.eventually_reads(&quick, &disk.content(2));
        disk.unplug(2);
        container.eventually_lacks(&quick);
        disk.plug(2);
    }
    let served = within(Duration::from_secs(20), || {
        (container.read(&slow, disk.content(1).len()).output == disk.content(1)).then_some(())
    });
    assert!(served.is_some(), "{slow} still waits for a udevd that is silent");
    disk.unplug(1);
    container.eventually_lacks(&slow);
    // udevd continues, with events of devices that are gone.
    udevd.resume();
    disk.unplug(2);
    container.eventually_lacks(&quick);
    come_and_go(&container, &disk);
    assert!(!container.has(&slow) && !container.has(&quick));
}

/// Case security 4.
#[apply(on_cgroup_v2)]
fn a_deny_rule_on_a_udev_fact_denies_while_udevd_is_stopped(machine: &Machine) {
    // Start it before the disk exists, so that it processes the disk, too: a partition is below it,
    // and rules apply to devices below.
    let udevd = Udevd::start_with_rules(machine, "KERNEL==\"loop*p1\", ENV{OHT_LABEL}=\"secret\"\n");
    let disk = Disk::new(machine);
    let (secret, other) = (disk.partition(1), disk.partition(2));
    machine.configure(
        "[policy]\ndefault = \"nothing\"\n[[policy.allow]]\ndevices = [\"subsystem:block\"]\n\
         [[policy.deny]]\ndevices = [\"property:OHT_LABEL=secret\"]\n",
    );
    let request = format!("devnode:{secret};ready=kernel,devnode:{other};ready=kernel");
    let container = Bundle::requesting(machine, &request).start();
    udevd.pause();
    disk.plug(1);
    disk.plug(2);
    let shown = within(Duration::from_secs(20), || {
        assert!(
            !container.has(&secret) && !container.has(&other),
            "the facts of the devices are unknown"
        );
        let log = machine.log();
        let is_denied = |node: &str| {
            let reason = format!("{node} not attached");
            log.lines()
                .any(|line| line.contains(&reason) && line.contains("udevd has not processed"))
        };
        (is_denied(&secret) && is_denied(&other)).then_some(())
    });
    assert!(shown.is_some(), "{}", machine.log());
    udevd.resume();
    container.eventually_reads(&other, &disk.content(2));
    assert!(!container.has(&secret));
    let log = machine.log();
    assert!(!log.contains(&format!("attached {secret} ")), "{log}");
}

/// udevd removes what it stored of a device only when it processes the removal, and by then another
/// device can have the number.
#[apply(on_cgroup_v2)]
fn facts_of_an_earlier_device_with_the_same_number_do_not_count(machine: &Machine) {
    // It needs a number that was used before.
    alone();
    let udevd = Udevd::start_with_rules(machine, "KERNEL==\"loop*p1\", ENV{OHT_LABEL}=\"public\"\n");
    let disk = Disk::new(machine);
    let node = disk.partition(1);
    machine.configure(
        "[policy]\ndefault = \"nothing\"\n[[policy.allow]]\ndevices = [\"property:OHT_LABEL=public\"]\n",
    );
    let container = Bundle::requesting(machine, &format!("devnode:{node};ready=kernel")).start();
    disk.plug(1);
    container.eventually_reads(&node, &disk.content(1));
    let number = number_of(&node);
    udevd.pause();
    disk.unplug(1);
    container.eventually_lacks(&node);
    disk.plug_with_number(1, number);
    let is_overdue = within(Duration::from_secs(20), || {
        assert!(!container.has(&node), "{}", machine.log());
        machine.log().contains("udevd has not processed").then_some(())
    });
    assert!(is_overdue.is_some(), "{}", machine.log());
    udevd.resume();
    container.eventually_reads(&node, &disk.content(1));
}
