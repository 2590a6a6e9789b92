//! podman, through hooks.d, where an annotation asks, and through CDI.

use crate::engine::Runtime::{Crun, Runc, Youki};
use crate::engine::podman;
use crate::machine::machine;
use crate::story::{
    a_lab_is_followed, an_adapter_comes_and_goes, lab_by_annotations, lab_by_class, nothing_is_left,
};
use crate::usb::UsbSerial;

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn with_crun_a_lab_is_followed() {
    let vm = machine();
    a_lab_is_followed(&vm, || podman(&vm, Crun, &lab_by_annotations().options()), || ());
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn with_runc_a_lab_is_followed() {
    let vm = machine();
    a_lab_is_followed(&vm, || podman(&vm, Runc, &lab_by_annotations().options()), || ());
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn with_youki_a_lab_is_followed() {
    let vm = machine();
    a_lab_is_followed(&vm, || podman(&vm, Youki, &lab_by_class().options()), || ());
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_container_with_users_of_its_own_follows_an_adapter() {
    let vm = machine();
    // Without a device of the engine's own: with one, crun 1.21 names "/" as the bundle to the hook (README).
    let request = "--annotation io.oci-hotplug.devices=usb:0403:6001";
    let container = podman(&vm, Crun, &format!("--userns=auto {request}"));
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
fn through_cdi_crun_and_runc_follow_an_adapter() {
    let vm = machine();
    for runtime in [Crun, Runc] {
        let container = podman(&vm, runtime, "--device oci-hotplug.dev/device=serial");
        an_adapter_comes_and_goes(&vm, &container);
        drop(container);
        nothing_is_left(&vm);
    }
}
