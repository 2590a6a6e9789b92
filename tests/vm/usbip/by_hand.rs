//! Devices that an operator attaches and detaches with `oci-hotplug usbip`.

use serde_json::Value;

use super::bed::{
    Remote, Usbipd, asking_for, attach_for, failure, kernel_log, nothing_is_left, release_of, uptime,
};
use crate::json_schema;
use crate::machine::{Machine, machine};
use crate::shell::DEADLINE;
use crate::usb::UsbSerial;
use crate::usbip_server::adapter::{GET_DESCRIPTOR, SET_CONFIGURATION};
use crate::usbip_server::{Adapter, Fault};

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_remote_adapter_comes_into_a_running_container_and_goes() {
    let vm = machine();
    let remote = Remote::start(&vm, vec![Adapter::new("1-1", "RS001")], Fault::None);
    let device = format!("{}/0403:6001", remote.address);
    let container = asking_for(&vm, "usb:0403:6001:RS001");

    let said = vm.run(&format!("oci-hotplug usbip attach {device} --timeout {DEADLINE}"));
    assert!(
        said.starts_with(&format!("{device} is attached at port 0: /dev/bus/usb/"))
            && said.contains(" /dev/ttyUSB0\n"),
        "{said}"
    );
    assert!(
        said.ends_with("A container requests it with usb:0403:6001:RS001"),
        "{said}"
    );
    container.gains("/dev/ttyUSB0");
    container.makes_its_own_node("/run/mine", "/dev/ttyUSB0");
    let heard = container.run(&format!(
        "exec 3<>/dev/ttyUSB0; stty raw -echo <&3; echo far away >&3; read -t {DEADLINE} words <&3; echo \"$words\""
    ));
    assert_eq!(heard, "far away");

    let ports = vm.run("oci-hotplug usbip ports");
    let line = ports.lines().nth(1).unwrap_or_default();
    let words: Vec<&str> = line.split_whitespace().collect();
    let from = format!("{}/busid:1-1", remote.address);
    assert_eq!(words[..4], ["0", "attached", "0403:6001", "RS001"], "{ports}");
    assert_eq!(words[5..], [from.as_str()], "{ports}");
    let again = failure(&vm, &format!("attach {}/busid:1-1", remote.address));
    assert!(
        again.contains("is attached to this host already, at port 0 "),
        "{again}"
    );
    let wrong = failure(&vm, "detach 1");
    assert!(wrong.contains("port 1 is not attached to this host"), "{wrong}");

    vm.run(&format!("oci-hotplug usbip detach {device}"));
    container.loses("/dev/ttyUSB0");
    container.is_refused("/run/mine");
    the_schema_describes_what_is_printed(&vm, &device);
    remote.server.wait_until_all_are_free();
    nothing_is_left(&vm);
}

/// Attaches, lists and detaches a device once more, with `--json`.
fn the_schema_describes_what_is_printed(vm: &Machine, device: &str) {
    let prints = |verb: &str, arguments: &str| -> Value {
        let printed = vm.run(&format!("oci-hotplug usbip {verb} {arguments} --json"));
        let document = serde_json::from_str(&printed).expect(&printed);
        json_schema::check(&format!("usbip {verb}"), &document);
        document
    };
    let attached = prints("attach", &format!("{device} --timeout {DEADLINE}"));
    assert_eq!(attached["state"], "attached");
    let ports = prints("ports", "");
    assert_eq!(ports["ports"][0]["serial"], "RS001", "{ports:#}");
    let detached = prints("detach", device);
    assert_eq!(detached["device"], device);
    let ports = prints("ports", "");
    assert_eq!(ports["ports"], serde_json::json!([]));
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_device_with_other_ids_than_requested_is_refused_before_a_driver_is_bound() {
    let vm = machine();
    let liar = Adapter {
        true_ids: (0x0403, 0x6010),
        ..Adapter::new("1-1", "RS001")
    };
    for (adapter, which, told) in [
        (
            liar,
            "0403:6001",
            "it is 0403:6010 with serial number \"RS001\", and not 0403:6001; no driver was bound",
        ),
        (
            Adapter::new("1-1", "RS001"),
            "0403:6001:RS002",
            "it is 0403:6001 with serial number \"RS001\", and not 0403:6001:RS002; no driver was bound",
        ),
    ] {
        let remote = Remote::start(&vm, vec![adapter], Fault::None);
        let error = failure(
            &vm,
            &format!("attach {}/{which} --timeout {DEADLINE}", remote.address),
        );
        assert!(error.contains(told), "{error}");
        remote.server.wait_until_all_are_free();
        nothing_is_left(&vm);
    }
    vm.wait_until("journalctl --no-pager -k --after-cursor=\"$(cat /run/test/cursor)\" | grep -c 'USB disconnect' | grep 2");
    let log = kernel_log(&vm);
    assert!(
        log.contains("idVendor=0403, idProduct=6010"),
        "the kernel has seen it: {log}"
    );
    assert!(
        !log.contains("ftdi_sio") && !log.contains("now attached"),
        "{log}"
    );
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_server_that_hangs_while_the_kernel_reads_descriptors_is_abandoned_in_time() {
    let vm = machine();
    let remote = Remote::start(
        &vm,
        vec![Adapter::new("1-1", "RS001")],
        Fault::StallAt(GET_DESCRIPTOR),
    );
    // The kernel itself never gives up: it waits until the server confirms the cancelled request.
    let error = failure(&vm, &format!("attach {}/0403:6001 --timeout 12", remote.address));
    assert!(
        error.contains("not ready in time: its server hangs")
            && error.contains("asking it for its descriptors"),
        "{error}"
    );
    remote.server.wait_until_all_are_free();
    nothing_is_left(&vm);
    drop(remote);
    // The server serves the next client as usual.
    let remote = Remote::start(&vm, vec![Adapter::new("1-1", "RS001")], Fault::None);
    vm.run(&format!(
        "oci-hotplug usbip attach {}/0403:6001 --timeout {DEADLINE} && test -c /dev/ttyUSB0 && oci-hotplug usbip detach 0",
        remote.address
    ));
    nothing_is_left(&vm);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_server_that_dies_while_its_device_is_attached_leaves_nothing_behind() {
    let vm = machine();
    let remote = Remote::start(&vm, vec![Adapter::new("1-1", "RS001")], Fault::None);
    vm.run(&format!(
        "oci-hotplug usbip attach {}/0403:6001 --timeout {DEADLINE}",
        remote.address
    ));
    drop(remote);
    vm.wait_until("test ! -e /dev/ttyUSB0");
    vm.wait_until("oci-hotplug usbip ports --json | jq -e '.ports == []'");
}

/// How often a device is attached and detached in a test of what is left behind: more often than
/// there are ports (15), so that a port that is not released is noticed. Under emulation each time
/// takes 1 to 2 s.
const CYCLES: u32 = 30;

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_server_that_hangs_while_a_driver_is_bound_is_abandoned_in_time() {
    let vm = machine();
    let remote = Remote::start(
        &vm,
        vec![Adapter::new("1-1", "RS001")],
        Fault::StallAt(SET_CONFIGURATION),
    );
    let began = uptime(&vm);
    let error = failure(&vm, &format!("attach {}/0403:6001 --timeout 6", remote.address));
    assert!(
        error.contains("not ready in time: its server hangs") && error.contains("binding drivers to it"),
        "{error}"
    );
    let took = uptime(&vm) - began;
    assert!(took < 12.0, "{took} s");
    remote.server.wait_until_all_are_free();
    nothing_is_left(&vm);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn many_remote_adapters_one_after_another_leave_nothing() {
    let vm = machine();
    let remote = Remote::start(&vm, vec![Adapter::new("1-1", "RS001")], Fault::None);
    let began = uptime(&vm);
    // The server may not have noticed yet that the last connection has ended.
    let attach = attach_for("nobody", &format!("{}/0403:6001", remote.address));
    vm.run(&format!(
        "set -e; for i in $(seq {CYCLES}); do end=$(($(date +%s) + {DEADLINE})); \
         until words=$({attach} 2>&1); \
         do test $(date +%s) -lt $end; echo \"$words\" | grep 'is busy' >&2; done; \
         {}; done",
        release_of("nobody")
    ));
    eprintln!(
        "vm: {:.2} s for one of {CYCLES} cycles",
        (uptime(&vm) - began) / f64::from(CYCLES)
    );
    remote.server.wait_until_all_are_free();
    nothing_is_left(&vm);
    vm.run(&format!(
        "! ss -tnH state established | grep -w {}",
        remote.address.rsplit(':').next().expect("a port")
    ));
    // The devices of a container without a record are detached by the next `recover`.
    vm.run(&format!("{attach} && oci-hotplug recover"));
    nothing_is_left(&vm);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn usbipd_of_debian_serves_over_ipv6_and_devices_of_other_tools_stay_attached() {
    let vm = machine();
    let adapter = vm.plug(&UsbSerial {
        serial: "FT001",
        port: "2",
    });
    vm.wait_until("test -e /dev/ttyUSB0");
    let usbipd = Usbipd::export(&vm, "FT001");
    let busid = &usbipd.busid;
    let list = vm.run("oci-hotplug usbip list [::1]");
    assert!(
        list.contains(busid.as_str()) && list.contains("0403:6001"),
        "{list}"
    );
    let container = asking_for(&vm, "usb:0403:6001:FT001");
    vm.run(&format!(
        "oci-hotplug usbip attach [::1]/0403:6001:FT001 --timeout {DEADLINE}"
    ));
    container.gains("/dev/ttyUSB0");
    container.talks_through(&adapter, "/dev/ttyUSB0");
    let busy = failure(&vm, &format!("attach 127.0.0.1/busid:{busid}"));
    assert_eq!(
        busy,
        format!(
            "oci-hotplug: device {busid} of usbip server 127.0.0.1 is busy: another host or container has imported it (a \
             host that vanished holds it until it is bound again there: usbip unbind, usbip bind)\n"
        )
    );
    vm.run("oci-hotplug usbip detach [::1]/0403:6001");
    container.loses("/dev/ttyUSB0");
    nothing_is_left(&vm);

    // usbip(8) attaches devices as well. The server takes a moment to export the device again.
    vm.wait_until(&format!("usbip attach -r 127.0.0.1 -b {busid}"));
    container.gains("/dev/ttyUSB0");
    let refused = failure(&vm, "detach 0");
    assert!(
        refused.contains("cannot detach port 0: it holds device 0403:6001, which oci-hotplug did not attach"),
        "{refused}"
    );
    container.run(": < /dev/ttyUSB0");
    vm.run("usbip detach -p 0");
    container.loses("/dev/ttyUSB0");
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn without_its_kernel_module_the_tool_says_how_to_load_it() {
    let vm = machine();
    vm.run("modprobe -r vhci-hcd");
    for verb in ["ports", "attach 127.0.0.1/0403:6001", "detach 0"] {
        assert_eq!(
            failure(&vm, verb),
            "oci-hotplug: this kernel has no virtual USB host controller (/sys/devices/platform/vhci_hcd.0 is missing): \
             load its module with `modprobe vhci-hcd`, and at each boot with a line \"vhci-hcd\" in \
             /etc/modules-load.d/usbip.conf\n"
        );
    }
}
