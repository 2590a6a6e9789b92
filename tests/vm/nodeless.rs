//! A container hears of devices without a node exactly what the host hears: interfaces, input
//! devices, sound cards.

use crate::background::Background;
use crate::container::Container;
use crate::engine::Runtime::Crun;
use crate::engine::podman;
use crate::machine::{Machine, machine};
use crate::setup::Setup;
use crate::usb::{Audio, Device, Tablet, UsbSerial};

/// Two clients of libudev inside.
const LISTEN: &str = "setsid udevadm monitor --kernel --udev > /run/monitor 2>&1 < /dev/null & \
    setsid python3 -u -c 'import pyudev; m = pyudev.Monitor.from_netlink(pyudev.Context()); m.start(); print(\"listening\"); \
    [print(d.action, d.sys_name, d.subsystem, d.get(\"SOUND_INITIALIZED\")) for d in iter(m.poll, None)]' \
    > /run/pyudev 2>&1 < /dev/null &";

const REQUESTS: &str = "usb:0403:6001,usb:0627:0001,usb:46f4:0002";

/// The subsystems of devices below this USB port that have no node in the devices of this test, and
/// names of those that have one.
const NODELESS: [&str; 5] = ["(usb)", "(usb-serial)", "(hid)", "(input)", "(sound)"];
const NODES: [&str; 5] = ["event", "mouse", "js", "controlC", "pcmC"];

/// What `udevadm monitor` printed about devices without a node below a port: form, action, path,
/// subsystem; sorted.
fn events(monitor: &str, port: &str) -> Vec<String> {
    let below = format!("/1-{port}/");
    let mut events = Vec::new();
    for line in monitor.lines() {
        let Some((form, rest)) = line.split_once('[') else {
            continue;
        };
        let Some((_, rest)) = rest.split_once(']') else {
            continue;
        };
        let [action, path, subsystem] = rest.split_whitespace().collect::<Vec<_>>()[..] else {
            continue;
        };
        let name = path.rsplit('/').next().unwrap_or_default();
        let has_node = NODES.iter().any(|node| name.starts_with(node));
        if path.contains(&below) && NODELESS.contains(&subsystem) && !has_node {
            events.push(format!("{} {action} {path} {subsystem}", form.trim()));
        }
    }
    events.sort();
    events
}

/// Plugs a device in and out while both listen. Returns what the container has heard, after it has
/// heard as much as the host.
fn heard(
    vm: &Machine,
    outside: &Background<'_>,
    container: &Container<'_>,
    device: &impl Device,
    port: &str,
    last: &str,
) -> Vec<String> {
    let plugged = vm.plug(device);
    container.wait_until(&format!("grep 'UDEV .*/1-{port}/.*{last}' /run/monitor"));
    vm.run("udevadm settle");
    plugged.unplug();
    vm.wait_until(&format!("grep 'UDEV .* remove .*/1-{port} ' {}", outside.output));
    vm.run("udevadm settle");
    container.wait_until(&format!("grep 'UDEV .* remove .*/1-{port} ' /run/monitor"));
    let inside = events(&container.run("cat /run/monitor"), port);
    let outside = events(&vm.run(&format!("cat {}", outside.output)), port);
    assert_eq!(inside, outside, "port {port}");
    assert!(
        inside.iter().any(|event| event.starts_with("UDEV add")),
        "{inside:?}"
    );
    inside
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn events_of_devices_without_a_node_are_received_once_in_the_container_as_on_the_host() {
    let vm = machine();
    let setup = Setup::default().lab();
    let setup = setup.annotation("io.oci-hotplug.devices", REQUESTS);
    let container = podman(&vm, Crun, &setup.options());
    let outside = Background::udevadm_monitor(&vm, "--kernel --udev");
    container.run(LISTEN);
    container.wait_until("grep listening /run/pyudev && grep 'KERNEL - ' /run/monitor");

    let serial = UsbSerial {
        serial: "FT001",
        port: "2",
    };
    let of_serial = heard(&vm, &outside, &container, &serial, "2", "/tty/ttyUSB0 ");
    for event in ["UDEV bind ", "UDEV unbind ", "UDEV remove "] {
        assert!(
            of_serial.iter().any(|heard| heard.starts_with(event)),
            "{of_serial:?}"
        );
    }
    heard(
        &vm,
        &outside,
        &container,
        &Tablet("3"),
        "3",
        "/input/input[0-9]* ",
    );
    heard(&vm, &outside, &container, &Audio("4"), "4", "/sound/card[0-9]* ");
    container
        .run("grep '^change card[0-9]* sound 1' /run/pyudev && grep '^remove card[0-9]* sound' /run/pyudev");
}
