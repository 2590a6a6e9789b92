//! Devices other than serial adapters, and whole hubs.

use crate::engine::Runtime::Crun;
use crate::engine::podman;
use crate::machine::machine;
use crate::usb::{Audio, Hub, Stick, Tablet, UsbSerial};

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_stick_comes_with_disk_and_partitions_and_a_tablet_with_its_input_nodes() {
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
    container.wait_until("set -- /dev/input/event*; test -c $1");
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
fn a_hub_is_unplugged_and_plugged_in_again_with_all_devices_behind_it() {
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

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_sound_card_that_returns_with_another_number_is_still_card_0_inside() {
    let vm = machine();
    let container = podman(
        &vm,
        Crun,
        "--annotation 'io.oci-hotplug.devices=port:1-3;only=subsystem:sound;path=/dev/snd/'",
    );
    let number = || container.run("stat -c %T /dev/snd/controlC0");
    let nodes = || container.run("ls /dev/snd | grep C | sort");
    let is_complete = "ls /dev/snd/pcmC0D*p && test -c /dev/snd/controlC0";
    let card = vm.plug(&Audio("3"));
    container.wait_until(is_complete);
    let (before, names) = (number(), nodes());
    card.unplug();
    container.loses("/dev/snd/controlC0");
    // Another card takes the number on the host.
    let _other = vm.plug(&Audio("4"));
    vm.wait_until("test -c /dev/snd/controlC0");
    let _card = vm.plug(&Audio("3"));
    container.wait_until(is_complete);
    assert_ne!(number(), before, "the number on the host is the same");
    assert_eq!(nodes(), names);
    container.gains("/dev/snd/controlC0");
}

/// Case README 1.
#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_container_follows_the_link_that_two_adapters_with_one_serial_number_claim() {
    let vm = machine();
    let link = "/dev/serial/by-id/usb-QEMU_QEMU_USB_SERIAL_FT001-if00-port0";
    let request = format!("--annotation 'io.oci-hotplug.devices=devnode:{link};link=/dev/stick'");
    let container = podman(&vm, Crun, &request);
    let adapter = |port| UsbSerial {
        serial: "FT001",
        port,
    };
    let follows = || {
        let node = vm.run(&format!("udevadm settle; readlink -f {link}"));
        let node = node.trim();
        let only_it =
            format!("test \"$(readlink -f /dev/stick)\" = {node} && test \"$(ls /dev/ttyUSB*)\" = {node}");
        container.wait_until(&only_it);
        podman(&vm, Crun, &request).wait_until(&only_it);
    };
    let _first = vm.plug(&adapter("2"));
    vm.wait_until("test -e /dev/ttyUSB0");
    follows();
    let second = vm.plug(&adapter("3"));
    vm.wait_until("test -e /dev/ttyUSB1");
    follows();
    second.unplug();
    vm.wait_until("test ! -e /dev/ttyUSB1");
    follows();
}

/// Case README 4.
#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_symlink_rule_names_the_event_node_of_a_tablet_after_a_hotplug_and_a_cold_start() {
    let vm = machine();
    let requests = "--annotation io.oci-hotplug.devices=usb:0627:0001 \
        --annotation io.oci-hotplug.symlinks=usb:0627:0001:00=/dev/mytab";
    let hot = podman(&vm, Crun, requests);
    let _tablet = vm.plug(&Tablet("3"));
    let names_the_event_node = "readlink -f /dev/mytab | grep -q '^/dev/input/event'";
    hot.wait_until(names_the_event_node);
    podman(&vm, Crun, requests).wait_until(names_the_event_node);
}
