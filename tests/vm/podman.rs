//! podman, through hooks.d: an annotation asks.

use crate::engine::Runtime::{Crun, Runc, Youki};
use crate::engine::podman;
use crate::machine::machine;
use crate::story::{an_adapter_comes_and_goes, nothing_is_left};
use crate::usb::{Hub, UsbSerial};

const ANY_ADAPTER: &str = "--annotation io.oci-hotplug.devices=usb:0403:6001";

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn an_adapter_that_is_plugged_in_at_start_works_and_its_access_goes_with_it() {
    let vm = machine();
    let adapter = vm.plug(&UsbSerial {
        serial: "FT001",
        port: "2",
    });
    vm.wait_until("test -e /dev/ttyUSB0");
    let container = podman(&vm, Crun, ANY_ADAPTER);
    container.run(": < /dev/ttyUSB0");
    container.makes_its_own_node("/mine", "/dev/ttyUSB0");
    container.talks_through(&adapter, "/dev/ttyUSB0");
    adapter.unplug();
    container.loses("/dev/ttyUSB0");
    container.is_refused("/mine");
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn an_adapter_that_is_plugged_in_later_works_also_at_another_port_and_under_another_minor() {
    let vm = machine();
    let container = podman(&vm, Crun, &format!("{ANY_ADAPTER}:FT001"));
    let adapter = vm.plug(&UsbSerial {
        serial: "FT001",
        port: "2",
    });
    container.gains("/dev/ttyUSB0");
    container.talks_through(&adapter, "/dev/ttyUSB0");
    adapter.unplug();
    container.loses("/dev/ttyUSB0");
    let _other = vm.plug(&UsbSerial {
        serial: "FT002",
        port: "2",
    });
    vm.wait_until("test -e /dev/ttyUSB0");
    let adapter = vm.plug(&UsbSerial {
        serial: "FT001",
        port: "3",
    });
    container.gains("/dev/ttyUSB1");
    container.talks_through(&adapter, "/dev/ttyUSB1");
    container.run("test ! -e /dev/ttyUSB0");
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn with_runc_an_adapter_comes_and_goes() {
    let vm = machine();
    let container = podman(&vm, Runc, ANY_ADAPTER);
    an_adapter_comes_and_goes(&vm, &container);
    drop(container);
    nothing_is_left(&vm);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn parent_of_brings_everything_behind_the_hub_and_lowrisc_annotations_mean_what_they_did() {
    let vm = machine();
    let _hub = vm.plug(&Hub("1"));
    let board = vm.plug(&UsbSerial {
        serial: "FT001",
        port: "1.1",
    });
    vm.wait_until("test -e /dev/ttyUSB0");
    let container = podman(
        &vm,
        Crun,
        "--annotation org.lowrisc.hotplug.devices=parent-of:usb:0403:6001:FT001 \
         --annotation org.lowrisc.hotplug.symlinks=usb:0403:6001:0=/dev/ttyBOARD",
    );
    container.gains("/dev/ttyBOARD");
    let second = vm.plug(&UsbSerial {
        serial: "FT002",
        port: "1.2",
    });
    container.gains("/dev/ttyUSB1");
    container.talks_through(&second, "/dev/ttyUSB1");
    board.unplug();
    container.loses("/dev/ttyUSB0");
    container.run(": < /dev/ttyUSB1");
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

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn with_youki_an_adapter_comes_and_goes() {
    let vm = machine();
    let container = podman(&vm, Youki, ANY_ADAPTER);
    an_adapter_comes_and_goes(&vm, &container);
}
