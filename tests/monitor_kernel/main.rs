//! The monitor against the real kernel: partitions of a loop device come and go, with and without a
//! real udevd.
//!
//! Each test lives in separate mount and network namespaces: a private /run (so /run/udev is the
//! test's own), and a udev group that only the test's own udevd speaks in. The kernel's events
//! reach every network namespace.

mod bed;
mod sockets;
#[path = "../support/udevd_answers.rs"]
mod udevd_answers;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use oci_hotplug::host::monitor::{DeviceMonitor, RECEIVE_BUFFER};
use oci_hotplug::model::device::{SysPath, UdevState};
use oci_hotplug::model::request::facts_needed::FactsNeeded;

use crate::bed::*;

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn without_udevd_events_of_the_kernel_are_complete_at_once() {
    private_world();
    let disk = LoopDisk::attach();
    let facts = FactsNeeded {
        attributes: [
            ("size".to_owned(), Some("partition".to_owned())),
            ("ro".to_owned(), Some("disk".to_owned())),
        ]
        .into(),
        ..FactsNeeded::default()
    };
    let mut monitor = DeviceMonitor::open(facts, RECEIVE_BUFFER).unwrap();
    let mut queue = Vec::new();
    let syspath = disk.partition_syspath();

    disk.plug();
    let device = added(next(&mut monitor, &mut queue, &syspath));
    assert_eq!(
        (device.subsystem.as_deref(), device.devtype.as_deref()),
        (Some("block"), Some("partition"))
    );
    let node = device.node.clone().unwrap();
    assert_eq!(node.path, PathBuf::from(format!("/dev/loop{}p1", disk.number)));
    let number = fs::read_to_string(syspath.as_path().join("dev")).unwrap();
    assert_eq!(node.num.to_string(), format!("b {}", number.trim()));
    assert_eq!(device.attribute("size"), Some("8192"));
    assert_eq!(device.attribute("ro"), None, "facts of disks only");
    assert_eq!(device.udev_state, UdevState::NoUdevd);
    assert!(device.seqnum > 0);

    let mut listed = listed(&monitor, &syspath);
    assert_eq!((listed.udev_state, listed.seqnum), (UdevState::Pending, 0));
    monitor.complete(&mut listed);
    assert_eq!(
        (listed.udev_state, &listed.node),
        (UdevState::NoUdevd, &device.node)
    );

    disk.unplug();
    assert!(removed(next(&mut monitor, &mut queue, &syspath)) > device.seqnum);
    assert!(
        monitor
            .enumerate()
            .unwrap()
            .iter()
            .all(|other| other.syspath != syspath)
    );
    let mut gone = listed.clone();
    monitor.complete(&mut gone);
    assert_eq!(gone, listed);
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn change_online_and_bind_are_changes() {
    private_world();
    let disk = LoopDisk::attach();
    let mut monitor = DeviceMonitor::open(FactsNeeded::default(), RECEIVE_BUFFER).unwrap();
    let mut queue = Vec::new();
    for action in ["change", "online", "offline", "bind", "unbind"] {
        disk.announce(action);
        let device = changed(next(&mut monitor, &mut queue, &disk.syspath()));
        assert_eq!(device.properties["ACTION"], action);
        assert_eq!(device.devtype.as_deref(), Some("disk"));
    }
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn with_udevd_a_device_is_reported_twice_and_its_removal_once() {
    private_world();
    let disk = LoopDisk::attach();
    let link = PathBuf::from(format!("/dev/oci-hotplug-test-{}", disk.number));
    let _link = Link(link.clone());
    let mut monitor = DeviceMonitor::open(FactsNeeded::default(), RECEIVE_BUFFER).unwrap();
    let rule = format!(
        "KERNEL==\"loop{}p1\", SYMLINK+=\"{}\", TAG+=\"oci_hotplug_test\", ENV{{OCI_HOTPLUG_TEST}}=\"yes\"\n",
        disk.number,
        link.file_name().unwrap().to_str().unwrap(),
    );
    let _udevd = Udevd::start(&rule);
    monitor.refresh();
    let syspath = disk.partition_syspath();
    let mut queue = Vec::new();

    for _ in 0..3 {
        disk.plug();
        let kernel = added(next(&mut monitor, &mut queue, &syspath));
        assert_eq!(kernel.udev_state, UdevState::Pending);
        assert!(kernel.links.is_empty() && kernel.tags.is_empty());
        assert_eq!(kernel.properties.get("OCI_HOTPLUG_TEST"), None);

        let udev = added(next(&mut monitor, &mut queue, &syspath));
        assert_eq!(
            (udev.udev_state, udev.seqnum),
            (UdevState::Processed, kernel.seqnum)
        );
        assert_eq!(udev.properties["OCI_HOTPLUG_TEST"], "yes");
        assert!(udev.tags.contains("oci_hotplug_test"), "{:?}", udev.tags);
        assert!(udev.links.contains(&link), "{:?}", udev.links);
        assert_eq!(udev.node, kernel.node);

        let mut listed = listed(&monitor, &syspath);
        monitor.complete(&mut listed);
        assert_eq!(
            (listed.udev_state, &listed.tags, &listed.links),
            (UdevState::Processed, &udev.tags, &udev.links)
        );
        assert_eq!(listed.properties["OCI_HOTPLUG_TEST"], "yes");

        // The next event is the next round's Added: udevd's own removal is not told.
        disk.unplug();
        assert!(removed(next(&mut monitor, &mut queue, &syspath)) > udev.seqnum);
    }
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_device_that_udevd_has_not_processed_has_only_facts_of_the_kernel() {
    private_world();
    let disk = LoopDisk::attach();
    let _udevd = Udevd::start("");
    let facts = FactsNeeded {
        udev_of_all: true,
        ..FactsNeeded::default()
    };
    let monitor = DeviceMonitor::open(facts, RECEIVE_BUFFER).unwrap();
    // Attached before this udevd came up, and never triggered.
    let devices = monitor.enumerate().unwrap();
    let listed = devices
        .iter()
        .find(|other| other.syspath == disk.syspath())
        .unwrap();
    assert_eq!(listed.udev_state, UdevState::Pending);
    // A bus or a port above some device, without a node.
    let mut above = devices.iter().filter(|device| device.node.is_none()).peekable();
    assert!(above.peek().is_some(), "every device has a node");
    for device in above {
        assert_eq!(
            device.udev_state,
            UdevState::Processed,
            "udevd stores nothing of {}",
            device.syspath
        );
    }
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn events_of_a_udevd_that_starts_later_are_read_without_a_devtmpfs_on_dev() {
    private_world();
    let disk = LoopDisk::attach();
    // libudev's own monitors do not join udevd's group there.
    let none: Option<&str> = None;
    fs::create_dir("/run/dev").unwrap();
    mount(
        Some("/dev"),
        "/run/dev",
        none,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        none,
    )
    .unwrap();
    mount(Some("tmpfs"), "/dev", Some("tmpfs"), MsFlags::empty(), none).unwrap();
    for name in ["null", "urandom"] {
        std::os::unix::fs::symlink(Path::new("/run/dev").join(name), Path::new("/dev").join(name)).unwrap();
    }
    let mut monitor = DeviceMonitor::open(FactsNeeded::default(), RECEIVE_BUFFER).unwrap();
    let _udevd = Udevd::start("");
    disk.announce("change");
    let mut queue = Vec::new();
    assert_eq!(
        changed(next(&mut monitor, &mut queue, &disk.syspath())).udev_state,
        UdevState::Pending
    );
    assert_eq!(
        changed(next(&mut monitor, &mut queue, &disk.syspath())).udev_state,
        UdevState::Processed
    );
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_static_node_is_added_changed_and_removed() {
    private_world();
    // Only nodes on the file system of /dev count, in directories that others than its owner can't
    // write.
    mount(
        Some("tmpfs"),
        "/dev",
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=755"),
    )
    .expect("mount a /dev of the test's own");
    let path = PathBuf::from("/dev/node");
    let make = |minor| {
        mknod(
            &path,
            SFlag::S_IFCHR,
            Mode::from_bits_truncate(0o600),
            makedev(1, minor),
        )
        .unwrap()
    };
    let facts = FactsNeeded {
        static_nodes: [path.clone()].into(),
        ..FactsNeeded::default()
    };
    let mut monitor = DeviceMonitor::open(FactsNeeded::default(), RECEIVE_BUFFER).unwrap();
    monitor.add_needed(&facts);
    assert_eq!(monitor.poll_static_nodes(), []);
    let syspath = SysPath::new(format!("/sys/devices/oci-hotplug-node{}", path.display()));
    let mut queue = Vec::new();

    make(3);
    let device = added(next(&mut monitor, &mut queue, &syspath));
    assert_eq!(device.node.as_ref().unwrap().num.to_string(), "c 1:3");
    assert!(monitor.enumerate().unwrap().contains(&device));
    fs::remove_file(&path).unwrap();
    make(5);
    let device = changed(next(&mut monitor, &mut queue, &syspath));
    assert_eq!(device.node.unwrap().num.to_string(), "c 1:5");
    fs::remove_file(&path).unwrap();
    removed(next(&mut monitor, &mut queue, &syspath));
}

/// Prints, does not judge: run it with `--release -- --ignored --nocapture` for figures that mean
/// something.
#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn the_costs_of_listing_and_of_one_event_are_measured() {
    private_world();
    let disk = LoopDisk::attach();
    let usb = |name: &str| (name.to_owned(), Some("usb_device".to_owned()));
    let facts = FactsNeeded {
        attributes: ["idVendor", "idProduct", "serial"].map(usb).into(),
        ..FactsNeeded::default()
    };
    let mut monitor = DeviceMonitor::open(facts, RECEIVE_BUFFER).unwrap();
    let mut listing: Vec<_> = (0..51)
        .map(|_| {
            let start = Instant::now();
            let devices = monitor.enumerate().unwrap();
            (
                start.elapsed(),
                devices.iter().filter(|device| device.node.is_some()).count(),
                devices.len(),
            )
        })
        .collect();
    let mut devices = monitor.enumerate().unwrap();
    let start = Instant::now();
    devices.iter_mut().for_each(|device| monitor.complete(device));
    let completing = start.elapsed() / u32::try_from(devices.len()).unwrap();
    let mut event: Vec<_> = (0..200)
        .map(|_| {
            disk.announce("change");
            let start = Instant::now();
            let events = monitor.drain();
            assert!(!events.is_empty());
            start.elapsed() / u32::try_from(events.len()).unwrap()
        })
        .collect();
    listing.sort();
    event.sort();
    let (median, nodes, all) = listing[listing.len() / 2];
    println!(
        "enumerate: {nodes} with nodes, {all} in all: min {:?}, median {median:?}, max {:?}",
        listing[0].0, listing[50].0
    );
    println!("complete: {completing:?} a device");
    println!(
        "drain, one kernel event: min {:?}, median {:?}, max {:?}",
        event[0], event[100], event[199]
    );
    assert!(nodes > 0 && all >= nodes);
}
