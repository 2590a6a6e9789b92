//! Devices that are plugged in and unplugged: partitions of a loop device, with real events.

use std::fs::File;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use oci_hotplug::sys::loop_device::LoopDevice;

use crate::device_plugin::{Node, Pace};
use crate::kubelet::{Behaviour, DEADLINE};
use crate::took_less_than;

const MIB: u64 = 1 << 20;

/// The largest number of partitions that are plugged in.
const PARTITIONS: u16 = 250;

/// A disk whose partitions are the devices. Dropping it removes all.
pub struct Disk(LoopDevice);

impl Disk {
    pub fn new() -> Self {
        let file: File = tempfile::tempfile().expect("a file behind the disk");
        file.set_len((u64::from(PARTITIONS) + 1) * MIB)
            .expect("make it long enough");
        Self(LoopDevice::attach(file.as_fd()).expect("attach a loop device"))
    }

    pub fn number(&self) -> u32 {
        self.0.number()
    }

    pub fn plug(&self, partition: u16) {
        self.0
            .add_partition(partition, u64::from(partition) * MIB, MIB)
            .expect("plug a partition");
    }

    /// The partition is busy for a moment while udevd reads it.
    pub fn unplug(&self, partition: u16) {
        let end = Instant::now() + DEADLINE;
        while let Err(error) = self.0.delete_partition(partition) {
            assert!(Instant::now() < end, "unplug partition {partition}: {error}");
            std::thread::yield_now();
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for partition in 1..=PARTITIONS {
            let end = Instant::now() + DEADLINE;
            while Instant::now() < end {
                match self.0.delete_partition(partition) {
                    Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) => std::thread::yield_now(),
                    _ => break,
                }
            }
        }
    }
}

/// A list within this time is a reaction to an event: without events the plugin polls every 10 s.
/// On a quiet machine it takes 0.2 s.
const BY_EVENT: Duration = Duration::from_secs(2);

#[tokio::test]
#[ignore = "needs root: plugs partitions of a loop device"]
async fn devices_that_smarter_matches_are_advertised_at_once_and_withdrawn_again() {
    let (node, disk) = (Node::new(), Disk::new());
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let name = format!("loop{}p3", disk.number());
    let config = node.write(
        "conf.yaml",
        &format!("- devicematch: ^loop{}p[0-9]*$\n  nummaxdevices: 2\n- {{devicematch: ^null$, nummaxdevices: 1}}\n", disk.number()),
    );
    let _plugin = node.plugin(&["--smarter-config", config.to_str().unwrap()]);
    kubelet.registered("smarter-devices/null").await.list().await;
    let mut took = Vec::new();
    let begin = Instant::now();
    disk.plug(3);
    let mut registered = kubelet.registered(&format!("smarter-devices/{name}")).await;
    assert_eq!(registered.list().await.len(), 2);
    took.push(begin.elapsed());
    for _ in 0..5 {
        disk.unplug(3);
        assert_eq!(registered.list().await.len(), 0);
        let begin = Instant::now();
        disk.plug(3);
        assert_eq!(registered.list().await.len(), 2);
        took.push(begin.elapsed());
    }
    took_less_than(BY_EVENT, took);
}

#[tokio::test]
#[ignore = "needs root: plugs partitions of a loop device"]
async fn a_hostdev_path_is_unhealthy_while_its_device_is_away() {
    let (node, disk) = (Node::new(), Disk::new());
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let name = format!("loop{}p1", disk.number());
    let _plugin = node.plugin(&["--devs", &format!("/dev/{name}:r")]);
    let mut registered = kubelet.registered(&format!("hostdev.k8s.io/dev_{name}")).await;
    let health = |list: Vec<oci_hotplug::kubernetes::kubelet::api::Device>| {
        assert_eq!(list.len(), 1);
        list[0].health.clone()
    };
    assert_eq!(health(registered.list().await), "Unhealthy");
    for _ in 0..3 {
        disk.plug(1);
        assert_eq!(health(registered.list().await), "Healthy");
        disk.unplug(1);
        assert_eq!(health(registered.list().await), "Unhealthy");
    }
}

#[tokio::test]
#[ignore = "needs root: plugs partitions of a loop device"]
async fn an_allocated_present_unit_stays_and_is_unhealthy_while_its_device_is_absent() {
    let (node, disk) = (Node::new(), Disk::new());
    let mut kubelet = node.kubelet(Behaviour::Normal);
    disk.plug(1);
    let config = node.write(
        "config.yaml",
        &format!(
            "resources: [{{name: a.b/part, mode: present, requests: ['glob:/dev/loop{}p*']}}]",
            disk.number()
        ),
    );
    let plugin = node.plugin(&["--config", config.to_str().unwrap()]);
    let mut registered = kubelet.registered("a.b/part").await;
    let list = registered.list().await;
    let [held] = &list[..] else {
        panic!("one partition: {list:?}")
    };
    disk.plug(2);
    let (two, _) = registered.list_where(|list| list.len() == 2).await;
    registered.allocate(std::slice::from_ref(&held.id)).await.unwrap();
    disk.unplug(1);
    disk.unplug(2);
    let (left, _) = registered.list_where(|list| list.len() == 1).await;
    assert_eq!((&left[0].id, left[0].health.as_str()), (&held.id, "Unhealthy"));
    plugin
        .logs("was unplugged while in use by a container; the pod keeps running")
        .await;
    disk.plug(1);
    let (back, _) = registered
        .list_where(|list| list.iter().all(|unit| unit.health == "Healthy"))
        .await;
    assert_eq!(back, list);
    assert!(two.iter().any(|unit| unit.id == held.id));
}

/// Case README 2. The partition represents a device that returns with other ids at the same place.
#[tokio::test]
#[ignore = "needs root: plugs partitions of a loop device"]
async fn a_brief_absence_is_not_sent_to_kubelet_if_several_requests_select_the_device() {
    let (node, disk) = (Node::new(), Disk::new());
    let mut kubelet = node.kubelet(Behaviour::Normal);
    disk.plug(1);
    let config = node.write(
        "config.yaml",
        &format!(
            "resources: [{{name: a.b/part, mode: present, requests: ['devnode:/dev/loop{0}p1', 'glob:/dev/loop{0}p[1]']}}]",
            disk.number()
        ),
    );
    let plugin = node.plugin(&["--config", config.to_str().unwrap()]);
    let mut registered = kubelet.registered("a.b/part").await;
    let list = registered.list().await;
    let [held] = &list[..] else {
        panic!("one partition: {list:?}")
    };
    let spec = std::fs::read_to_string(node.cdi_dir().join(&registered.specs[0])).unwrap();
    for request in ["devnode:/dev/loop", "glob:/dev/loop"] {
        assert!(spec.contains(request), "{request}: {spec}");
    }
    registered.allocate(std::slice::from_ref(&held.id)).await.unwrap();
    for _ in 0..3 {
        disk.unplug(1);
        disk.plug(1);
    }
    assert_eq!(registered.lists_within(Duration::from_secs(1)).await, 0);
    disk.unplug(1);
    let begin = Instant::now();
    let (gone, _) = registered
        .list_where(|list| list.iter().any(|unit| unit.health == "Unhealthy"))
        .await;
    assert!(begin.elapsed() > Duration::from_secs(4), "{:?}", begin.elapsed());
    assert_eq!((gone.len(), &gone[0].id), (1, &held.id));
    plugin
        .logs("was unplugged while in use by a container; the pod keeps running")
        .await;
    disk.plug(1);
    let (back, _) = registered
        .list_where(|list| list.iter().all(|unit| unit.health == "Healthy"))
        .await;
    assert_eq!(back, list);
}

#[tokio::test]
#[ignore = "needs root: plugs partitions of a loop device"]
async fn a_slot_sends_no_list_when_its_device_comes_and_goes() {
    let (node, disk) = (Node::new(), Disk::new());
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let config = node.write(
        "config.yaml",
        &format!(
            "resources:\n- {{name: a.b/slot, requests: ['devnode:/dev/loop{0}p1']}}\n\
             - {{name: a.b/seen, mode: static, requests: ['devnode:/dev/loop{0}p1']}}\n",
            disk.number()
        ),
    );
    let _plugin = node.plugin(&["--config", config.to_str().unwrap()]);
    let mut slot = kubelet.registered("a.b/slot").await;
    let mut seen = kubelet.registered("a.b/seen").await;
    let before = slot.list().await;
    seen.list().await;
    disk.plug(1);
    assert_eq!(seen.list().await.len(), 1);
    disk.unplug(1);
    assert_eq!(seen.list().await.len(), 0);
    assert_eq!(before[0].health, "Healthy");
    // With CDI the nodes are not part of the list, so no list is sent.
    assert_eq!(slot.lists_within(Duration::from_millis(300)).await, 0);
}

#[tokio::test]
#[ignore = "needs root: plugs partitions of a loop device"]
async fn a_thousand_changes_in_a_burst_make_one_list() {
    let (node, disk) = (Node::new(), Disk::new());
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let config = node.write(
        "config.yaml",
        &format!(
            "resources: [{{name: a.b/part, groups: [{{paths: [{{path: '/dev/loop{}p*'}}]}}]}}]",
            disk.number()
        ),
    );
    let plugin = node.plugin(&["--config", config.to_str().unwrap()]);
    let mut registered = kubelet.registered("a.b/part").await;
    assert_eq!(registered.list().await.len(), 0);
    let (ticks, _) = plugin.costs();
    let mut pace = Pace::start();
    for round in 0..500 {
        let partition = 1 + round % 40;
        disk.plug(partition);
        pace.step();
        disk.unplug(partition);
        pace.step();
    }
    for partition in 1..=40 {
        disk.plug(partition);
        pace.step();
    }
    let (_, before) = registered.list_where(|list| list.len() == 40).await;
    pace.allows(before);
    let (after, memory) = plugin.costs();
    println!(
        "1040 changes: {} lists, {} ticks of 10 ms, {memory} KiB",
        before + 1,
        after - ticks
    );
}

#[tokio::test]
#[ignore = "needs root: plugs partitions of loop devices"]
async fn a_thousand_devices_come_and_go_in_one_list_for_each_burst() {
    let (node, disks) = (Node::new(), [(); 4].map(|()| Disk::new()));
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let groups: String = disks
        .iter()
        .map(|disk| format!("{{paths: [{{path: '/dev/loop{}p*'}}]}}, ", disk.number()))
        .collect();
    let config = node.write(
        "config.yaml",
        &format!("resources: [{{name: a.b/part, groups: [{groups}]}}]"),
    );
    let plugin = node.plugin(&["--config", config.to_str().unwrap()]);
    let mut registered = kubelet.registered("a.b/part").await;
    assert_eq!(registered.list().await.len(), 0);
    for (change, count) in [(Disk::plug as fn(&Disk, u16), 1000), (Disk::unplug, 0)] {
        let (ticks, _) = plugin.costs();
        let mut pace = Pace::start();
        for disk in &disks {
            for partition in 1..=PARTITIONS {
                change(disk, partition);
                pace.step();
            }
        }
        let (_, before) = registered.list_where(|list| list.len() == count).await;
        pace.allows(before);
        let (after, memory) = plugin.costs();
        println!(
            "to {count} devices: {} lists, {} ticks of 10 ms, {memory} KiB",
            before + 1,
            after - ticks
        );
    }
}

/// The memory that packaging/kubernetes/base reserves, in KiB.
const MEMORY: u64 = 15 << 10;

#[tokio::test]
#[ignore = "needs root and a release build: plugs partitions of a loop device"]
async fn with_65_resources_and_a_thousand_devices_that_come_and_go_it_keeps_to_its_memory() {
    let (node, disk) = (Node::new(), Disk::new());
    let mut kubelet = node.kubelet(Behaviour::Normal);
    let config = node.write(
        "conf.yaml",
        "- {devicematch: '^tty[0-9]*$', nummaxdevices: 20}\n- {devicematch: ^null$, nummaxdevices: 20}\n",
    );
    let own = node.write(
        "config.yaml",
        &format!(
            "resources: [{{name: a.b/part, count: 25, mode: present, requests: ['glob:/dev/loop{}p*']}}]",
            disk.number()
        ),
    );
    let plugin = node.release_plugin(&[
        "--smarter-config",
        config.to_str().unwrap(),
        "--config",
        own.to_str().unwrap(),
    ]);
    // tty, tty0 to tty63, and null.
    let mut others = vec![kubelet.registered("smarter-devices/null").await];
    for number in 0..64 {
        others.push(kubelet.registered(&format!("smarter-devices/tty{number}")).await);
    }
    let mut registered = kubelet.registered("a.b/part").await;
    assert_eq!(registered.list().await.len(), 0);
    let at_first = plugin.resident();
    for _ in 0..5 {
        // First changes within the debounce time, for which no list is sent, and then changes that
        // kubelet gets one by one.
        for partition in (1..=40).cycle().take(160) {
            disk.plug(partition);
            disk.unplug(partition);
        }
        (1..=40).for_each(|partition| disk.plug(partition));
        registered.list_where(|list| list.len() == 1000).await;
        (1..=40).for_each(|partition| disk.unplug(partition));
        registered.list_where(<[_]>::is_empty).await;
    }
    let (now, most) = plugin.resident();
    println!(
        "KiB: {at_first:?} with {} resources, then {now}, at most {most}",
        others.len() + 1
    );
    assert!(
        most <= MEMORY,
        "{most} KiB at most, {now} now, {at_first:?} at first"
    );
}
