//! Two hosts that want the same device, devices other than adapters exported by Debian's usbipd,
//! and a host that is switched off.

use super::bed::{Allowed, FAR, Far, Remote, Usbipd, asking_for, echoes, nothing_is_left, refusal};
use crate::engine::Runtime::Crun;
use crate::engine::{docker, podman};
use crate::machine::{Machine, machine};
use crate::story;
use crate::usb::{Stick, UsbSerial};
use crate::usbip_server::{Adapter, Fault};

/// A third host with usbip(8): a network namespace with its own address and its own link to the far
/// host. It shares the kernel: what it attaches is one more port of this host, which oci-hotplug
/// does not know.
struct Third<'a>(&'a Machine);

/// The far host's address in the third host's network.
const FAR_FOR_THIRD: &str = "10.78.0.2";

impl<'a> Third<'a> {
    fn start(machine: &'a Machine) -> Self {
        machine.run(&format!(
            "set -e; ip netns add third; ip link add third netns third type veth peer name far3 netns far; \
             ip -n third addr add 10.78.0.1/24 dev third; ip -n third link set third up; \
             ip -n far addr add {FAR_FOR_THIRD}/24 dev far3; ip -n far link set far3 up"
        ));
        Self(machine)
    }

    fn attach(&self, busid: &str) -> String {
        format!("ip netns exec third usbip attach -r {FAR_FOR_THIRD} -b {busid}")
    }

    /// Detaches all its devices.
    fn detach(&self) {
        self.0.run(
            "usbip detach -p $(oci-hotplug usbip ports --json | jq '.ports[] | select(.device == null).port')",
        );
    }
}

impl Drop for Third<'_> {
    fn drop(&mut self) {
        self.0.output(
            "for port in $(oci-hotplug usbip ports --json | jq '.ports[] | select(.device == null).port'); do \
             usbip detach -p $port; done; ip netns del third",
        );
    }
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn of_two_hosts_one_has_the_adapter_and_the_other_reports_that_it_waits() {
    let vm = machine();
    let (adapter, far) = Far::with_adapter(&vm);
    let third = Third::start(&vm);
    let _allowed = Allowed::server(&vm, FAR);
    let request = format!("usbip:{FAR}/busid:{}", far.busid);
    vm.run(&third.attach(&far.busid));
    let words = refusal(
        &vm,
        &format!("--annotation 'io.oci-hotplug.devices={request};required'"),
    );
    assert!(
        words.contains("is busy: another host or container has imported it"),
        "{words}"
    );
    let container = asking_for(&vm, &format!("{request};link=/dev/far"));
    vm.wait_until(&format!("oci-hotplug inspect {} | grep 'is busy'", container.id));
    container.run("! test -e /dev/far");
    third.detach();
    container.gains("/dev/far");
    container.talks_through(&adapter, "/dev/far");

    // Now this host waits for the other one.
    let refused = vm.output(&third.attach(&far.busid));
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && words.contains("busy"), "{words}");
    drop(container);
    nothing_is_left(&vm);
    vm.wait_until(&third.attach(&far.busid));

    // A host that vanished keeps the device until the server binds it again: only that frees it.
    let container = asking_for(&vm, &format!("{request};link=/dev/far"));
    vm.run("ip -n third link set third down");
    vm.wait_until(&format!(
        "oci-hotplug inspect {} | grep 'until it is bound again there'",
        container.id
    ));
    vm.run(&format!("usbip unbind -b {0}; usbip bind -b {0}", far.busid));
    container.gains("/dev/far");
    container.talks_through(&adapter, "/dev/far");
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn an_adapter_that_is_plugged_in_elsewhere_at_its_server_comes_back_when_it_is_exported_again() {
    let vm = machine();
    let plug = |port| {
        let adapter = vm.plug(&UsbSerial {
            serial: "FT001",
            port,
        });
        vm.wait_until("ls /dev/serial/by-id/*FT001*");
        adapter
    };
    let adapter = plug("2");
    let far = Far::export(&vm, "FT001");
    let _allowed = Allowed::server(&vm, FAR);
    let container = asking_for(&vm, &format!("usbip:{FAR}/0403:6001:FT001;link=/dev/far"));
    container.gains("/dev/far");
    adapter.unplug();
    container.loses("/dev/far");
    let adapter = plug("3");
    let busid = vm.run("basename $(dirname $(grep -lx FT001 /sys/bus/usb/devices/*/serial))");
    assert_ne!(busid, far.busid);
    vm.run(&format!("usbip bind -b {busid}"));
    container.gains("/dev/far");
    container.talks_through(&adapter, "/dev/far");
    drop(container);
    nothing_is_left(&vm);
    vm.run(&format!("usbip unbind -b {busid}"));
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_remote_superspeed_disk_is_read_in_podmans_and_dockers_containers() {
    let vm = machine();
    let _stick = vm.plug(&Stick("3"));
    vm.wait_until("grep -lx STICK1 /sys/bus/usb/devices/*/serial");
    let _usbipd = Usbipd::export(&vm, "STICK1");
    let _allowed = Allowed::server(&vm, "127.0.0.1");
    let annotation =
        "--annotation 'io.oci-hotplug.devices=usbip:127.0.0.1/46f4:0001:STICK1;link=/dev/stick;required'";
    for engine in ["podman", "docker"] {
        let container = match engine {
            "podman" => podman(&vm, Crun, annotation),
            _ => docker(
                &vm,
                &format!("--device oci-hotplug.dev/device=annotated {annotation}"),
            ),
        };
        // A disk appears some time after its USB device, because the kernel scans the bus first.
        // Until then the link leads to the generic SCSI node, from which dd reads for ever.
        container.wait_until("test -b /dev/stick && : < /dev/stick");
        assert_eq!(
            container.run("dd if=/dev/stick bs=512 skip=2048 count=1 2> /dev/null | head -n 1"),
            "hotplug",
            "{engine}"
        );
        let speed = vm.run("oci-hotplug usbip ports --json | jq -r '.ports[].speed'");
        assert_eq!(speed, "super", "{engine}");
        drop(container);
        nothing_is_left(&vm);
        story::nothing_is_left(&vm);
        vm.wait_until("oci-hotplug usbip list 127.0.0.1 | grep 46f4:0001");
    }
}

/// A setup that must work after a boot without an operator. It is removed when this is dropped.
struct AtBoot<'a>(&'a Machine);

impl<'a> AtBoot<'a> {
    fn enable(machine: &'a Machine) -> Self {
        machine
            .run("echo vhci-hcd > /etc/modules-load.d/usbip.conf; systemctl enable podman-restart.service");
        Self(machine)
    }
}

impl Drop for AtBoot<'_> {
    fn drop(&mut self) {
        self.0
            .output("rm /etc/modules-load.d/usbip.conf; systemctl disable podman-restart.service");
    }
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_host_that_is_switched_off_and_on_attaches_the_requested_devices_again() {
    let vm = machine();
    let remote = Remote::start(&vm, vec![Adapter::new("1-1", "RS001")], Fault::None);
    let _allowed = Allowed::server(&vm, &remote.address);
    let _at_boot = AtBoot::enable(&vm);
    let container = podman(
        &vm,
        Crun,
        &format!(
            "--restart always --annotation 'io.oci-hotplug.devices=usbip:{}/0403:6001;link=/dev/far'",
            remote.address
        ),
    );
    container.gains("/dev/far");
    // Neither containers nor the server are notified.
    vm.run("sync");
    vm.switch_off_and_on();
    remote.server.wait_until_all_are_free();
    // The container starts before its server can be reached.
    vm.wait_until("podman ps --format '{{.Status}}' | grep Up");
    vm.wait_until(&format!(
        "oci-hotplug inspect {} | grep 'trying again'",
        container.id
    ));
    vm.forward_at(&remote.address, remote.server.address.port());
    container.gains("/dev/far");
    echoes(&container, "/dev/far");
    assert_eq!(
        vm.run("oci-hotplug usbip ports --json | jq -r '.ports[].container'; ls /run/oci-hotplug/containers"),
        format!("{0}\n{0}", container.id)
    );
    drop(container);
    remote.server.wait_until_all_are_free();
    nothing_is_left(&vm);
    story::nothing_is_left(&vm);
}
