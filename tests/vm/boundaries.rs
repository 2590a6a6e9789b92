//! Containers of each engine with the host's /dev, with the host's network, privileged, and with a
//! read-only root file system; and user namespaces.

use crate::background::Background;
use crate::engine::Runtime::Runc;
use crate::engine::{Engine, podman};
use crate::machine::{Machine, machine};
use crate::setup::{Around, Setup};
use crate::story::{an_adapter_is_followed, nothing_is_left};
use crate::usb::{Plugged, UsbSerial};

/// A request that every engine supports.
fn any_adapter(around: Around) -> Setup {
    Setup::default()
        .cdi("oci-hotplug.dev/device=serial")
        .around(around)
}

fn adapter(vm: &Machine) -> Plugged<'_> {
    vm.plug(&UsbSerial {
        serial: "FT001",
        port: "2",
    })
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn with_runc_a_container_with_mapped_users_gets_devices() {
    let vm = machine();
    let present = adapter(&vm);
    vm.wait_until("test -e /dev/ttyUSB0");
    let options = "--uidmap 0:100000:65536 --annotation io.oci-hotplug.devices=usb:0403:6001";
    let container = podman(&vm, Runc, options);
    container.run(": < /dev/ttyUSB0");
    present.unplug();
    container.loses("/dev/ttyUSB0");
    an_adapter_is_followed(&vm, &container);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_privileged_container_of_any_engine_gets_nodes() {
    let vm = machine();
    for engine in Engine::ALL {
        eprintln!("vm: {engine:?}");
        let container = engine.start(&vm, &any_adapter(Around::Privileged));
        an_adapter_is_followed(&vm, &container);
        drop(container);
        nothing_is_left(&vm);
    }
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn the_hosts_dev_is_never_changed_with_any_engine() {
    let vm = machine();
    let adapter = adapter(&vm);
    vm.wait_until("test -e /dev/ttyUSB0");
    // The node exists from the kernel's event on; udevd sets its mode and group later.
    vm.run("udevadm settle");
    let nodes = || vm.run("stat -c '%n %F %a %u %g %t:%T %i' /dev/ttyUSB0 /dev/bus/usb/*/* /dev/serial/*/*");
    let before = nodes();
    for engine in Engine::ALL {
        eprintln!("vm: {engine:?}");
        let container = engine.start(&vm, &any_adapter(Around::HostDev));
        container.gains("/dev/ttyUSB0");
        container.talks_through(&adapter, "/dev/ttyUSB0");
        drop(container);
        nothing_is_left(&vm);
        assert_eq!(nodes(), before, "{engine:?}");
    }
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn nothing_is_announced_in_the_hosts_network_with_any_engine() {
    let vm = machine();
    let monitor = Background::udevadm_monitor(&vm, "--subsystem-match=tty");
    let heard = &monitor.output;
    for engine in Engine::ALL {
        eprintln!("vm: {engine:?}");
        let container = engine.start(&vm, &any_adapter(Around::HostNetwork));
        assert_eq!(
            container.run("readlink /proc/self/ns/net"),
            vm.run("readlink /proc/self/ns/net")
        );
        an_adapter_is_followed(&vm, &container);
    }
    let said = |who: &str, what: &str| {
        let pattern = format!("^{who} *[[].* {what} .*/tty/ttyUSB0 ");
        vm.run(&format!("grep -c '{pattern}' {heard} || true"))
    };
    let times = Engine::ALL.len().to_string();
    vm.wait_until(&format!(
        "test $(grep -c '^UDEV.* remove .*/tty/ttyUSB0 ' {heard}) -ge {times}"
    ));
    // The kernel's event and udevd's, once each.
    for what in ["add", "remove"] {
        assert_eq!(
            (said("KERNEL", what), said("UDEV", what)),
            (times.clone(), times.clone()),
            "{what}"
        );
    }
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_read_only_container_of_any_engine_gets_devices() {
    let vm = machine();
    for engine in Engine::ALL {
        eprintln!("vm: {engine:?}");
        let container = engine.start(&vm, &any_adapter(Around::ReadOnly));
        let words = container.fails("touch /here");
        assert!(words.contains("Read-only file system"), "{words}");
        an_adapter_is_followed(&vm, &container);
    }
}
