//! What the monitor's sockets receive: bursts, messages of others, and what the kernel drops.

use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, NetlinkAddr, getsockname, sendto};
use oci_hotplug::host::monitor::{DeviceMonitor, RECEIVE_BUFFER, Skipped};
use oci_hotplug::model::device::event::DeviceEvent;
use oci_hotplug::model::device::{Device, SysPath, UdevState};
use oci_hotplug::model::request::facts_needed::FactsNeeded;

use crate::bed::*;

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_burst_into_a_tiny_buffer_is_one_overrun_and_later_events_are_read() {
    private_world();
    let disk = LoopDisk::attach();
    let mut monitor = DeviceMonitor::open(FactsNeeded::default(), 1).unwrap();
    for _ in 0..500 {
        disk.announce("change");
    }
    // What had arrived before the loss is dropped, because all devices are read again.
    assert_eq!(monitor.drain(), [DeviceEvent::Overrun]);

    // Other tests' events can fill so small a buffer again: such a loss is reported, too.
    let deadline = Instant::now() + DEADLINE;
    loop {
        disk.announce("online");
        let events = drain_until(&mut monitor, deadline, |event| {
            *event == DeviceEvent::Overrun || syspath_of(event) == Some(&disk.syspath())
        });
        if let Some(event) = events
            .iter()
            .find(|event| syspath_of(event) == Some(&disk.syspath()))
        {
            assert_eq!(changed(event.clone()).properties["ACTION"], "online");
            break;
        }
    }
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn every_event_of_a_burst_into_the_usual_buffer_is_read() {
    private_world();
    let disk = LoopDisk::attach();
    let mut monitor = DeviceMonitor::open(FactsNeeded::default(), RECEIVE_BUFFER).unwrap();
    for _ in 0..2000 {
        disk.announce("change");
    }
    let mut events = Vec::new();
    loop {
        let some = monitor.drain();
        if some.is_empty() {
            break;
        }
        // Not all at once, so that a flood keeps the reader from nothing else.
        assert!(some.len() < 2000, "{} events at once", some.len());
        events.extend(some);
    }
    let own = events
        .iter()
        .filter(|event| syspath_of(event) == Some(&disk.syspath()))
        .count();
    assert_eq!(own, 2000);
    assert!(!events.contains(&DeviceEvent::Overrun));
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn messages_of_other_users_are_ignored_and_hide_no_later_event() {
    private_world();
    let disk = LoopDisk::attach();
    let mut monitor = DeviceMonitor::open(FactsNeeded::default(), RECEIVE_BUFFER).unwrap();
    let sender = other_socket();
    let (_, kernel_fd) = monitor.fds().next().unwrap();
    let kernel_fd = kernel_fd.as_raw_fd();
    let address: NetlinkAddr = getsockname(kernel_fd).unwrap();
    let forged = format!(
        "add@/devices/forged\0ACTION=add\0DEVPATH=/devices/forged\0SUBSYSTEM=mem\0SEQNUM={}\0",
        1_u64 << 40
    );
    let broken = b"change@/devices/forged\0this is not a property\0";
    for _ in 0..100 {
        // To the monitor's own port, and as root in the network namespace to the kernel's group.
        for text in [forged.as_bytes(), broken, b"short"] {
            for to in [NetlinkAddr::new(address.pid(), 0), NetlinkAddr::new(0, 1)] {
                sendto(sender.as_raw_fd(), text, &to, MsgFlags::empty()).unwrap();
            }
        }
    }
    // One multicast drain later, the true event is there.
    disk.announce("change");
    let events = monitor.drain();
    assert!(
        events
            .iter()
            .any(|event| syspath_of(event) == Some(&disk.syspath())),
        "{events:?}"
    );
    let forged = SysPath::new("/sys/devices/forged");
    assert!(
        events.iter().all(|event| syspath_of(event) != Some(&forged)),
        "{events:?}"
    );
}

/// Creates and removes a pair of network interfaces of the test's own namespace.
fn pair_of_interfaces() {
    for arguments in ["link add oht0 type veth peer oht1", "link delete oht0"] {
        let status = Command::new("ip").args(arguments.split(' ')).status();
        assert!(
            status.expect("start ip (package iproute2)").success(),
            "{arguments}"
        );
    }
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn events_of_network_interfaces_wake_the_monitor_only_if_they_are_needed() {
    private_world();
    let disk = LoopDisk::attach();
    let mut monitor = DeviceMonitor::open(FactsNeeded::default(), RECEIVE_BUFFER).unwrap();
    let is_of_network = |event: &DeviceEvent| {
        syspath_of(event).is_some_and(|syspath| syspath.as_str().starts_with("/sys/devices/virtual/net/"))
    };
    let mut device = Device::new(SysPath::new("/sys/devices/virtual/net/oht0"));
    device.subsystem = Some("net".into());
    // Other tests' events may come meanwhile, but none of this network namespace.
    pair_of_interfaces();
    change_in_udevds_group(&device);
    let (_, of_udevd) = monitor.fds().nth(1).unwrap();
    let mut fds = [PollFd::new(of_udevd, PollFlags::POLLIN)];
    assert_eq!(
        poll(&mut fds, PollTimeout::ZERO).unwrap(),
        0,
        "the kernel drops it"
    );
    disk.announce("change");
    let events = monitor.drain();
    assert!(!events.iter().any(is_of_network), "{events:?}");
    assert!(
        events
            .iter()
            .any(|event| syspath_of(event) == Some(&disk.syspath()))
    );

    monitor.add_needed(&FactsNeeded {
        nodeless_events: true,
        ..FactsNeeded::default()
    });
    pair_of_interfaces();
    let events = monitor.drain();
    let of_network = events.iter().filter(|event| is_of_network(event)).count();
    assert!(of_network >= 4, "{of_network} events of two interfaces");
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn events_of_virtual_block_devices_wake_the_monitor_only_if_they_are_needed() {
    private_world();
    let disk = LoopDisk::attach();
    let facts = FactsNeeded {
        no_virtual_blocks: true,
        ..FactsNeeded::default()
    };
    let mut monitor = DeviceMonitor::open(facts, RECEIVE_BUFFER).unwrap();
    let mut device = Device::new(disk.syspath());
    device.subsystem = Some("block".into());
    let is_of_disk = |event: &DeviceEvent| {
        let syspath = syspath_of(event);
        syspath.is_some_and(|syspath| syspath.is_at_or_below(&disk.syspath()))
    };
    disk.plug();
    disk.announce("change");
    change_in_udevds_group(&device);
    disk.unplug();
    let (_, of_udevd) = monitor.fds().nth(1).unwrap();
    let mut fds = [PollFd::new(of_udevd, PollFlags::POLLIN)];
    assert_eq!(
        poll(&mut fds, PollTimeout::ZERO).unwrap(),
        0,
        "the kernel drops it"
    );
    let mut null = Device::new(SysPath::new("/sys/devices/virtual/mem/null"));
    null.subsystem = Some("mem".into());
    change_in_udevds_group(&null);
    let deadline = Instant::now() + DEADLINE;
    let events = drain_until(&mut monitor, deadline, |event| {
        syspath_of(event) == Some(&null.syspath)
    });
    assert!(!events.iter().any(is_of_disk), "{events:?}");

    monitor.add_virtual_blocks([]);
    assert!(monitor.has_skipped(), "its events were left out");
    match monitor.take_skipped() {
        Skipped::Devices(devices) => assert!(devices.contains(&disk.syspath()), "{devices:?}"),
        skipped => panic!("{skipped:?}"),
    }
    disk.announce("change");
    change_in_udevds_group(&device);
    let state_of_disk = |event: &DeviceEvent| match event {
        DeviceEvent::Changed(device) if device.syspath == disk.syspath() => Some(device.udev_state),
        _ => None,
    };
    let of_disk: Vec<UdevState> = monitor.drain().iter().filter_map(state_of_disk).collect();
    for form in [UdevState::NoUdevd, UdevState::Processed] {
        assert!(of_disk.contains(&form), "{of_disk:?}");
    }
}

#[test]
#[ignore = "needs root: tests/run.sh runs it"]
fn a_message_that_does_not_fit_is_an_overrun() {
    private_world();
    let mut monitor = DeviceMonitor::open(FactsNeeded::default(), RECEIVE_BUFFER).unwrap();
    let mut device = Device::new(SysPath::new("/sys/devices/virtual/mem/null"));
    device.subsystem = Some("mem".into());
    let mut send = |length: usize| {
        device.properties.insert("FILLER".into(), "x".repeat(length));
        change_in_udevds_group(&device);
        let deadline = Instant::now() + DEADLINE;
        drain_until(&mut monitor, deadline, |event| {
            *event == DeviceEvent::Overrun || syspath_of(event) == Some(&device.syspath)
        })
    };
    assert!(!send(120 << 10).contains(&DeviceEvent::Overrun));
    assert!(send(140 << 10).contains(&DeviceEvent::Overrun));
}
