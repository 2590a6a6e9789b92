//! Devices that are no serial adapters, and whole hubs.

use crate::engine::Runtime::Crun;
use crate::engine::podman;
use crate::machine::machine;
use crate::usb::{Hub, Stick, Tablet, UsbSerial};

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_stick_brings_its_disk_with_partitions_and_a_tablet_its_input_nodes() {
    let vm = machine();
    let container = podman(
        &vm,
        Crun,
        "--annotation io.oci-hotplug.devices=usb:46f4:0001,usb:0627:0001",
    );
    let stick = vm.plug(&Stick("2"));
    container.gains("/dev/sda1");
    assert_eq!(container.run("head -n 1 /dev/sda1"), "hotplug");
    let tablet = vm.plug(&Tablet("3"));
    container.gains("/dev/hidraw0");
    container.wait_until("test -c $(ls /dev/input/event* | head -n 1)");
    tablet.unplug();
    container.loses("/dev/hidraw0");
    stick.unplug();
    container.loses("/dev/sda1");
    container.run("test ! -e /dev/sda && test -z \"$(ls /dev/input/event* 2>/dev/null)\"");
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn cameras_and_a_modem_come_with_their_drivers_and_go_with_them() {
    let vm = machine();
    let container = podman(
        &vm,
        Crun,
        "--annotation io.oci-hotplug.devices=subsystem:video4linux,driver:cdc_acm",
    );
    vm.run("modprobe vivid n_devs=1");
    container.gains("/dev/video0");
    vm.run("modprobe dummy_hcd && modprobe g_serial");
    container.gains("/dev/ttyACM0");
    vm.run("rmmod g_serial dummy_hcd vivid");
    container.loses("/dev/ttyACM0");
    container.loses("/dev/video0");
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_hub_that_is_pulled_out_takes_all_behind_it_and_brings_it_back() {
    let vm = machine();
    let hub = vm.plug(&Hub("1"));
    let container = podman(&vm, Crun, "--annotation io.oci-hotplug.devices=usb:0409:55aa");
    let first = vm.plug(&UsbSerial {
        serial: "FT001",
        port: "1.1",
    });
    let second = vm.plug(&UsbSerial {
        serial: "FT002",
        port: "1.2",
    });
    container.gains("/dev/ttyUSB1");
    hub.unplug();
    container.loses("/dev/ttyUSB0");
    container.loses("/dev/ttyUSB1");
    first.unplug();
    second.unplug();
    let _hub = vm.plug(&Hub("1"));
    let _first = vm.plug(&UsbSerial {
        serial: "FT001",
        port: "1.4",
    });
    container.gains("/dev/ttyUSB0");
}
