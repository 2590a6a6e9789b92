//! What containers get by requests for remote devices, and what they do not get.

use super::bed::{Allowed, Remote, asking_for, echoes, kernel_log, nothing_is_left, refusal};
use crate::container::Container;
use crate::engine::Runtime::Crun;
use crate::engine::{docker, podman};
use crate::machine::{Machine, machine};
use crate::shell::DEADLINE;
use crate::story;
use crate::usbip_server::{Adapter, Fault, UsbipServer};

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_request_brings_a_remote_adapter_into_podmans_and_dockers_containers() {
    let vm = machine();
    let remote = Remote::start(&vm, vec![Adapter::new("1-1", "RS001")], Fault::None);
    let request = format!("usbip:{}/0403:6001:RS001", remote.address);
    let annotation = format!("--annotation 'io.oci-hotplug.devices={request};link=/dev/far;required'");
    let words = refusal(&vm, &annotation);
    assert!(
        words.contains("and no rule allows it (to allow all devices of that host"),
        "{words}"
    );
    assert_eq!(
        remote.server.accepted(),
        0,
        "nobody made this host call another one"
    );

    let allowed = Allowed::server(&vm, &remote.address);
    let docker_options = format!("--device oci-hotplug.dev/device=annotated {annotation}");
    for engine in ["podman", "docker"] {
        let container = match engine {
            "podman" => podman(&vm, Crun, &annotation),
            _ => docker(&vm, &docker_options),
        };
        echoes(&container, "/dev/far");
        let ports = vm.run("oci-hotplug usbip ports --json | jq -r '.ports[].container'");
        assert_eq!(vm.run("ls /run/oci-hotplug/containers"), ports, "{engine}");
        drop(container);
        remote.server.wait_until_all_are_free();
        nothing_is_left(&vm);
        story::nothing_is_left(&vm);
    }
    drop(allowed);

    // A trusted request needs no rule.
    let container = asking_for(&vm, "usb:ffff:ffff");
    let id = vm.run("ls /run/oci-hotplug/containers");
    vm.run(&format!("oci-hotplug attach {id} '{request};path=/dev/mine'"));
    container.gains("/dev/mine");
    let explained = vm.run(&format!("oci-hotplug explain {id} /dev/ttyUSB0"));
    assert!(explained.contains("a parent of this device"), "{explained}");
    let matched = vm.run(&format!("oci-hotplug match {request}"));
    assert!(matched.contains("/dev/ttyUSB0"), "{matched}");
    vm.run(&format!("oci-hotplug detach {id} '{request};path=/dev/mine'"));
    container.loses("/dev/mine");
    remote.server.wait_until_all_are_free();
    nothing_is_left(&vm);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_required_remote_adapter_that_is_not_available_refuses_the_start_with_the_reason() {
    let vm = machine();
    let remote = Remote::start(&vm, vec![Adapter::new("1-1", "RS001")], Fault::None);
    let _allowed = Allowed::server(&vm, &remote.address);
    let refused = |which: &str| {
        let device = format!("usbip:{}/{which}", remote.address);
        refusal(
            &vm,
            &format!("--annotation 'io.oci-hotplug.devices={device};required'"),
        )
    };
    let wrong = refused("0403:6001:RS002");
    assert!(
        wrong.contains("RS001") && wrong.contains("no driver was bound"),
        "{wrong}"
    );
    let absent = refused("busid:7-7");
    assert!(absent.contains("it is not exported there"), "{absent}");
    let log = kernel_log(&vm);
    assert!(
        log.contains("idVendor=0403, idProduct=6001"),
        "the kernel has seen it: {log}"
    );
    assert!(!log.contains("ftdi_sio"), "{log}");
    nothing_is_left(&vm);
    story::nothing_is_left(&vm);

    // A container without `required` starts without the device, and gets it when it is available.
    let Remote { server, address } = remote;
    let host = server.address;
    drop(server);
    let container = asking_for(&vm, &format!("usbip:{address}/0403:6001;link=/dev/far"));
    let server = UsbipServer::start_at(host, vec![Adapter::new("1-1", "RS001")], Fault::None);
    container.gains("/dev/far");
    drop(container);
    server.wait_until_all_are_free();
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn requests_for_local_devices_do_not_select_a_device_that_is_attached_for_another_container() {
    let vm = machine();
    let remote = Remote::start(&vm, vec![Adapter::new("1-1", "RS001")], Fault::None);
    let _allowed = Allowed::server(&vm, &remote.address);
    let local =
        "usb:0403:6001;link=/dev/near,parent-of:usb:0403:6001:RS001,glob:/dev/ttyUSB*,driver:ftdi_sio";
    let before = asking_for(&vm, local);
    let owner = asking_for(&vm, &format!("usbip:{}/0403:6001;link=/dev/far", remote.address));
    owner.gains("/dev/far");
    let why = format!("reserved for container {}", owner.id);
    let after = asking_for(&vm, local);
    // At no moment, whatever happens to the watchers meanwhile.
    let has_nothing = |container: &Container| {
        vm.wait_until(&format!("oci-hotplug inspect {} | grep '{why}'", container.id));
        assert_eq!(
            vm.run(&format!(
                "journalctl --sync; journalctl --no-pager -o cat OCI_HOTPLUG_EVENT=attached \
                 OCI_HOTPLUG_CONTAINER={} --after-cursor=\"$(cat /run/test/cursor)\"",
                container.id
            )),
            ""
        );
        assert_eq!(
            container.run("ls -d /dev/ttyUSB* /dev/near /dev/bus/usb/*/* 2> /dev/null || true"),
            ""
        );
    };
    has_nothing(&before);
    has_nothing(&after);
    vm.run("kill -9 $(pgrep oci-hotplug-wat); oci-hotplug recover");
    has_nothing(&before);
    vm.run("oci-hotplug recover --restart-watchers");
    has_nothing(&after);
    let explained = vm.run(&format!("oci-hotplug explain {} /dev/ttyUSB0", before.id));
    assert!(
        explained.contains("request it by that address)")
            && explained.contains(&why)
            && explained.ends_with("rule `reserved` of driver:ftdi_sio is not met"),
        "{explained}"
    );
    let matched = vm.run("oci-hotplug match usb:0403:6001");
    assert!(matched.contains("no such device is present now"), "{matched}");
    let refused = refusal(
        &vm,
        "--annotation 'io.oci-hotplug.devices=usb:0403:6001;required'",
    );
    assert!(refused.contains(&why), "{refused}");
    echoes(&owner, "/dev/far");

    // A device that an operator attached is available to every container.
    drop(owner);
    remote.server.wait_until_all_are_free();
    vm.run(&format!(
        "oci-hotplug usbip attach {}/0403:6001 --timeout {DEADLINE}",
        remote.address
    ));
    for container in [&before, &after] {
        container.gains("/dev/near");
    }
    echoes(&before, "/dev/near");
    vm.run("oci-hotplug usbip detach 0");
    before.loses("/dev/near");
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn of_two_containers_one_has_the_remote_adapter_and_the_other_waits_for_it() {
    let vm = machine();
    let remote = Remote::start(&vm, vec![Adapter::new("1-1", "RS001")], Fault::None);
    let _allowed = Allowed::server(&vm, &remote.address);
    let request = format!("usbip:{}/0403:6001", remote.address);
    let first = asking_for(&vm, &format!("{request};link=/dev/far"));
    first.gains("/dev/far");
    let holder = vm.run("ls /run/oci-hotplug/containers");
    let words = refusal(
        &vm,
        &format!("--annotation 'io.oci-hotplug.devices={request};required'"),
    );
    assert!(words.contains(&format!("for container {holder}")), "{words}");
    let second = asking_for(&vm, &format!("{request};link=/dev/far"));
    second.run("test ! -e /dev/far");
    let waits = vm.run(&format!(
        "oci-hotplug inspect $(ls /run/oci-hotplug/containers | grep -v {holder})"
    ));
    assert!(waits.contains(&format!("for container {holder}")), "{waits}");
    echoes(&first, "/dev/far");
    drop(first);
    second.gains("/dev/far");
    echoes(&second, "/dev/far");
    drop(second);
    remote.server.wait_until_all_are_free();
    nothing_is_left(&vm);
}

/// A configuration file. It is removed when this is dropped.
struct Named<'a>(&'a Machine);

const CLASS: &str = "/etc/oci-hotplug/config.d/61-far-board.toml";

impl<'a> Named<'a> {
    /// Defines the class `far-board`, and the CDI device of that name.
    fn class(machine: &'a Machine, request: &str) -> Self {
        machine.write(CLASS, &format!("[class.far-board]\ndevices = [\"{request}\"]\n"));
        machine.run("oci-hotplug cdi generate --all");
        Self(machine)
    }
}

impl Drop for Named<'_> {
    fn drop(&mut self) {
        self.0.output(&format!(
            "rm {CLASS} /etc/cdi/oci-hotplug.dev-device_far-board.json"
        ));
    }
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_class_brings_a_remote_adapter_by_annotation_and_as_a_cdi_device() {
    let vm = machine();
    let remote = Remote::start(&vm, vec![Adapter::new("1-1", "RS001")], Fault::None);
    let request = format!("usbip:{}/0403:6001:RS001;link=/dev/far;required", remote.address);
    let _class = Named::class(&vm, &request);
    let cdi = "--device oci-hotplug.dev/device=far-board";
    let by_annotation = "--annotation io.oci-hotplug.devices=class:far-board";
    for (engine, options) in [("podman", by_annotation), ("podman", cdi), ("docker", cdi)] {
        let container = match engine {
            "podman" => podman(&vm, Crun, options),
            _ => docker(&vm, options),
        };
        echoes(&container, "/dev/far");
        drop(container);
        remote.server.wait_until_all_are_free();
        nothing_is_left(&vm);
        story::nothing_is_left(&vm);
    }
}
