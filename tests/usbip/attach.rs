//! Attaching a device of a server, up to what is written to the kernel's files.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use oci_hotplug::model::remote::address::RemoteDevice;
use oci_hotplug::usbip::{Purpose, client};

use super::controllers::{Kernel, attach};
use super::usbip_server::{Adapter, Fault, UsbipServer};
use super::{LONG, SHORT, name, one, out, tool};

#[test]
fn a_failed_import_is_reported_and_changes_nothing_in_the_kernel() {
    for (fault, which, patience, told) in [
        (
            Fault::Status(2),
            "0403:6001",
            LONG,
            "device 1-1 of usbip server SERVER is busy: another host or container has imported it (a host that vanished \
             holds it until it is bound again there: usbip unbind, usbip bind)",
        ),
        (
            Fault::Status(1),
            "0403:6001",
            LONG,
            "device 1-1 of usbip server SERVER: the server refuses it without a reason (status 1): it is in use, or not \
             exported",
        ),
        (
            Fault::Status(3),
            "busid:1-1",
            LONG,
            "device 1-1 of usbip server SERVER: it is in an error state there (bind it again: usbip unbind, usbip bind)",
        ),
        (
            Fault::None,
            "busid:7-7",
            LONG,
            "device 7-7 of usbip server SERVER: it is not exported there (usbip bind)",
        ),
        (
            Fault::None,
            "1050:0407",
            LONG,
            "usbip server SERVER exports no device 1050:0407 that is free (a device in use is not in its list); it has: \
             1-1 0403:6001",
        ),
        (
            Fault::WrongBusId,
            "busid:1-1",
            LONG,
            "usbip server SERVER: it gave device 9-9 instead of 1-1",
        ),
        (
            Fault::CloseAfter(319),
            "busid:1-1",
            LONG,
            "usbip server SERVER: it closed the connection while importing a device",
        ),
        (
            Fault::Drip(Duration::from_millis(50)),
            "busid:1-1",
            SHORT,
            "usbip server SERVER: no answer in time while importing a device (it is down, hangs, or a firewall drops what \
             is sent there)",
        ),
    ] {
        let (kernel, server) = (Kernel::new(), one(fault));
        assert_eq!(attach(&kernel, &server, which, patience), told, "{fault:?}");
        assert_eq!(kernel.was_told("attach"), "", "{fault:?}");
        server.wait_until_all_are_free();
    }
}

#[test]
fn a_device_that_never_appears_is_abandoned_and_leaves_nothing() {
    let (kernel, server) = (Kernel::new(), one(Fault::None));
    let told = attach(&kernel, &server, "0403:6001", SHORT);
    assert_eq!(
        told,
        "device SERVER/busid:1-1 was not ready in time: its server hangs, or the network is slow; the kernel was asking it \
         for its descriptors (--timeout allows more time)"
    );
    // Port 0 is in use; 65538 is bus 1, device 2; the speed is full speed.
    let written = kernel.was_told("attach");
    let words: Vec<&str> = written.split(' ').collect();
    assert_eq!((words[0], &words[2..]), ("1", &["65538", "2"][..]), "{written}");
    assert_eq!(
        kernel.was_told("detach"),
        "",
        "the port was never used: nothing to detach"
    );
    for hub in ["usb3", "usb4"] {
        assert_eq!(kernel.was_told(&format!("{hub}/authorized_default")), "1\n");
    }
    server.wait_until_all_are_free();
    let left: Vec<_> = fs::read_dir(kernel.state().join("usbip"))
        .expect("the state")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(left, ["hubs.lock"]);
}

/// A server with one device of this speed, as `enum usb_device_speed` numbers it.
fn one_of_speed(speed: u32) -> UsbipServer {
    let adapter = Adapter {
        speed,
        ..Adapter::new("1-1", "FT001")
    };
    UsbipServer::start(vec![adapter], Fault::None)
}

/// Case README 20.
#[test]
fn a_device_of_super_plus_speed_is_attached_with_super_speed() {
    let kernel = Kernel::new();
    let server = one_of_speed(6);
    let address = server.address.to_string();
    assert!(out(&tool(&["list", &address])).contains("0403:6001  super+"));
    let told = attach(&kernel, &server, "0403:6001", SHORT);
    assert!(
        told.contains("the kernel was asking it for its descriptors"),
        "{told}"
    );
    // The first port of the SuperSpeed hub, and speed 5.
    let written = kernel.was_told("attach");
    let words: Vec<&str> = written.split(' ').collect();
    assert_eq!((words[0], &words[2..]), ("2", &["65538", "5"][..]), "{written}");
    server.wait_until_all_are_free();
}

/// Case README 20.
#[test]
fn a_device_of_unknown_speed_is_refused_with_a_hint() {
    let kernel = Kernel::new();
    let server = one_of_speed(0);
    assert_eq!(
        attach(&kernel, &server, "0403:6001", LONG),
        "device SERVER/busid:1-1: its server does not know its speed, and a wrong one breaks it (plug the device in again at \
         the server, or use another USB/IP server)"
    );
    assert_eq!(kernel.was_told("attach"), "");
    server.wait_until_all_are_free();
}

#[test]
fn a_host_without_a_free_port_reports_it_and_releases_the_device() {
    let (kernel, server) = (Kernel::new(), one(Fault::None));
    kernel.shows("006 002 00010009", "005 003 00010003");
    assert_eq!(
        attach(&kernel, &server, "0403:6001", LONG),
        "no port of the virtual USB host controllers is free for a device of full speed (`oci-hotplug usbip ports`)"
    );
    server.wait_until_all_are_free();
}

#[test]
fn an_attachment_that_a_killed_watcher_began_is_undone_by_the_next_watcher() {
    let (kernel, server) = (Kernel::new(), one(Fault::None));
    kernel.shows("006 002 00010009", "005 002 00000000");
    let path = kernel.state().join("usbip/port-1.json");
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("the state");
    let (address, requested) = (server.address, format!("{}/0403:6001", server.address));
    let begun = format!(
        r#"{{"version":1,"port":1,"requested":"{requested}","remote":"{address}/busid:1-1","devid":65538,"speed":2,"container":"c1","local_port":1,"attempt":"a","local":null}}"#
    );
    fs::write(path, begun).expect("a record");
    let deadline = Instant::now() + LONG;
    let busid = "1-1".parse().expect("a bus id");
    // Another client has imported it, so the server no longer lists it.
    let held = client::import(&name(&server), &busid, None, deadline).expect("an import");
    let purpose = |container: &str| Purpose {
        container: Some(container.to_owned()),
        last: None,
    };
    let device: RemoteDevice = requested.parse().expect("a device");
    let refused = kernel
        .usbip()
        .attach(&device, &purpose("c2"), LONG)
        .expect_err("a refusal");
    assert!(refused.to_string().contains("for container c1"), "{refused}");
    assert_eq!(kernel.was_told("detach"), "");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while kernel.was_told("detach").is_empty() {
                assert!(Instant::now() < deadline, "nobody detaches it");
                std::thread::yield_now();
            }
            drop(held);
            server.wait_until_all_are_free();
            kernel.shows("006 002 00010009", "004 000 00000000");
        });
        let late = kernel
            .usbip()
            .attach(&device, &purpose("c1"), SHORT * 2)
            .expect_err("no device");
        assert!(late.to_string().contains("not ready in time"), "{late}");
    });
    assert_eq!(kernel.was_told("detach"), "1");
    assert!(
        kernel.was_told("attach").starts_with("1 "),
        "it was attached again"
    );
}
