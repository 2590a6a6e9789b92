//! Containers with more or less around them than usual: user namespaces, the host's /dev, the host's network,
//! everything allowed, nothing writable.

use crate::engine::Runtime::{Crun, Runc};
use crate::engine::podman;
use crate::machine::machine;
use crate::usb::UsbSerial;

const ANY_ADAPTER: &str = "--annotation io.oci-hotplug.devices=usb:0403:6001";

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn with_runc_a_container_with_mapped_users_gets_devices() {
    let vm = machine();
    let adapter = vm.plug(&UsbSerial {
        serial: "FT001",
        port: "2",
    });
    vm.wait_until("test -e /dev/ttyUSB0");
    let container = podman(&vm, Runc, &format!("--uidmap 0:100000:65536 {ANY_ADAPTER}"));
    container.run(": < /dev/ttyUSB0");
    adapter.unplug();
    container.loses("/dev/ttyUSB0");
    let adapter = vm.plug(&UsbSerial {
        serial: "FT001",
        port: "2",
    });
    container.gains("/dev/ttyUSB0");
    container.talks_through(&adapter, "/dev/ttyUSB0");
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_privileged_container_gets_nodes() {
    let vm = machine();
    let container = podman(&vm, Crun, &format!("--privileged {ANY_ADAPTER}"));
    let adapter = vm.plug(&UsbSerial {
        serial: "FT001",
        port: "2",
    });
    container.gains("/dev/ttyUSB0");
    container.talks_through(&adapter, "/dev/ttyUSB0");
    adapter.unplug();
    container.loses("/dev/ttyUSB0");
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn the_hosts_own_dev_is_never_touched() {
    let vm = machine();
    let adapter = vm.plug(&UsbSerial {
        serial: "FT001",
        port: "2",
    });
    vm.wait_until("test -e /dev/ttyUSB0");
    // The node is there with the kernel's word; its mode and group are the host's udevd's.
    vm.run("udevadm settle");
    let before = vm.run("stat -c '%n %a %u %g %i' /dev/ttyUSB0 /dev/bus/usb/*/*");
    let container = podman(&vm, Crun, &format!("-v /dev:/dev {ANY_ADAPTER}"));
    container.gains("/dev/ttyUSB0");
    container.talks_through(&adapter, "/dev/ttyUSB0");
    drop(container);
    vm.wait_until("! pgrep -f '[o]ci-hotplug-watcher'");
    assert_eq!(
        vm.run("stat -c '%n %a %u %g %i' /dev/ttyUSB0 /dev/bus/usb/*/*"),
        before
    );
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn on_the_hosts_network_nothing_is_announced() {
    let vm = machine();
    let container = podman(&vm, Crun, &format!("--network host {ANY_ADAPTER}"));
    vm.run("setsid udevadm monitor --udev --subsystem-match=tty > /run/test/monitor 2>&1 < /dev/null &");
    vm.wait_until("grep UDEV /run/test/monitor");
    let adapter = vm.plug(&UsbSerial {
        serial: "FT001",
        port: "2",
    });
    container.gains("/dev/ttyUSB0");
    adapter.unplug();
    container.loses("/dev/ttyUSB0");
    vm.wait_until("grep 'remove.*tty/ttyUSB0' /run/test/monitor");
    // udevd's own word, once.
    assert_eq!(vm.run("grep -c ' add .*tty/ttyUSB0' /run/test/monitor"), "1");
    vm.run("pkill -x udevadm");
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_read_only_container_gets_devices() {
    let vm = machine();
    let container = podman(&vm, Crun, &format!("--read-only {ANY_ADAPTER}"));
    let adapter = vm.plug(&UsbSerial {
        serial: "FT001",
        port: "2",
    });
    container.gains("/dev/ttyUSB0");
    container.talks_through(&adapter, "/dev/ttyUSB0");
    adapter.unplug();
    container.loses("/dev/ttyUSB0");
}
