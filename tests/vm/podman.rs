//! podman, with annotations through hooks.d, and with CDI devices.

use crate::engine::Runtime::{Crun, Runc, Youki};
use crate::engine::podman;
use crate::machine::machine;
use crate::story::{
    a_lab_is_followed, an_adapter_comes_and_goes, lab_by_annotations, lab_by_class, nothing_is_left,
};
use crate::usb::UsbSerial;

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn with_crun_podman_attaches_devices() {
    let vm = machine();
    a_lab_is_followed(&vm, || podman(&vm, Crun, &lab_by_annotations().options()), || ());
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn with_runc_podman_attaches_devices() {
    let vm = machine();
    a_lab_is_followed(&vm, || podman(&vm, Runc, &lab_by_annotations().options()), || ());
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn with_youki_podman_attaches_devices() {
    let vm = machine();
    a_lab_is_followed(&vm, || podman(&vm, Youki, &lab_by_class().options()), || ());
}

/// With a device of the engine, crun 1.21 gives the hook "/" as the bundle.
#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_container_with_users_of_its_own_follows_an_adapter_beside_a_device_of_the_engine() {
    let vm = machine();
    vm.run("modprobe fuse");
    let fuse = "--device /dev/fuse:/dev/fuse:r";
    for options in [
        "--userns=auto".to_owned(),
        format!("--userns=auto {fuse}"),
        format!("--uidmap 0:100000:65536 {fuse}"),
    ] {
        eprintln!("vm: {options}");
        let request = "--annotation io.oci-hotplug.devices=usb:0403:6001";
        let container = podman(&vm, Crun, &format!("{options} {request}"));
        let adapter = vm.plug(&UsbSerial {
            serial: "FT001",
            port: "2",
        });
        container.gains("/dev/ttyUSB0");
        container.talks_through(&adapter, "/dev/ttyUSB0");
        if options.contains(fuse) {
            container.run(": < /dev/fuse");
            let words = container.fails(": > /dev/fuse");
            assert!(words.contains("not permitted"), "{words}");
        }
        let name = vm.run("podman ps --format '{{.Names}}'");
        assert!(vm.run("oci-hotplug list").contains(&format!(" {name} ")));
        adapter.unplug();
        container.loses("/dev/ttyUSB0");
        drop(container);
        nothing_is_left(&vm);
    }
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn through_cdi_podman_attaches_an_adapter_with_crun_and_runc() {
    let vm = machine();
    for runtime in [Crun, Runc] {
        let container = podman(&vm, runtime, "--device oci-hotplug.dev/device=serial");
        an_adapter_comes_and_goes(&vm, &container);
        drop(container);
        nothing_is_left(&vm);
    }
}

/// A container with its own udevd, as a system container: it receives kernel events, and its rules
/// apply to the nodes that the watcher creates.
#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn an_udevd_inside_the_container_does_not_get_in_the_way() {
    let vm = machine();
    let tools =
        "-v /usr:/usr:ro -v /usr/lib:/lib:ro -v /usr/lib64:/lib64:ro -v /etc/ld.so.cache:/etc/ld.so.cache:ro";
    let request = "--annotation 'io.oci-hotplug.devices=usb:0403:6001;mode=0666' --annotation io.oci-hotplug.udev=never";
    let container = podman(&vm, Crun, &format!("--tmpfs /run {tools} {request}"));
    container.run("/usr/lib/systemd/systemd-udevd --daemon");
    container.wait_until("/usr/bin/udevadm control --ping");
    let link = "/dev/serial/by-id/usb-QEMU_QEMU_USB_SERIAL_FT001-if00-port0";
    for port in ["2", "3"] {
        let adapter = vm.plug(&UsbSerial {
            serial: "FT001",
            port,
        });
        container.gains("/dev/ttyUSB0");
        container.wait_until(&format!("test -c {link}"));
        // From the container's own database, which has only the devices that its own udevd has
        // seen.
        container.wait_until("/usr/bin/udevadm info -q property /dev/ttyUSB0 | grep ID_SERIAL_SHORT=FT001");
        container.talks_through(&adapter, link);
        adapter.unplug();
        container.loses("/dev/ttyUSB0");
        container.loses(link);
    }
}
