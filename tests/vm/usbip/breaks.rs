//! What fails while a container has a remote device, and how the device comes back.

use super::bed::{
    Allowed, BREAKS, FAR, Far, Remote, asking_for, echoes, nothing_is_left, release_of, uptime,
};
use crate::machine::machine;
use crate::shell::until;
use crate::story;
use crate::usbip_server::adapter::GET_DESCRIPTOR;
use crate::usbip_server::{Adapter, Fault, UsbipServer};

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_remote_adapter_comes_back_under_its_link_when_its_server_was_killed() {
    let vm = machine();
    let Remote { server, address } = Remote::start(&vm, vec![Adapter::new("1-1", "RS001")], Fault::None);
    let _allowed = Allowed::server(&vm, &address);
    let container = asking_for(&vm, &format!("usbip:{address}/0403:6001;link=/dev/far"));
    container.gains("/dev/far");
    // While a program has the node open, the kernel does not use its name again.
    container.run("sleep 1000000 < /dev/far > /dev/null 2>&1 &");
    let before = container.run("readlink -f /dev/far");
    let host = server.address;
    let killed = uptime(&vm);
    drop(server);
    container.loses("/dev/far");
    eprintln!(
        "vm: gone {:.1} s after the server was killed",
        uptime(&vm) - killed
    );
    let restarted = uptime(&vm);
    // The same with the device at another port of the server.
    let server = UsbipServer::start_at(host, vec![Adapter::new("1-2", "RS001")], Fault::None);
    container.gains("/dev/far");
    eprintln!(
        "vm: back {:.1} s after it was started again",
        uptime(&vm) - restarted
    );
    echoes(&container, "/dev/far");
    assert_ne!(container.run("readlink -f /dev/far"), before);
    drop(container);
    server.wait_until_all_are_free();
    nothing_is_left(&vm);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_server_that_hangs_blocks_no_process_and_no_container_for_ever() {
    let vm = machine();
    let remote = Remote::start(&vm, vec![Adapter::new("1-1", "RS001")], Fault::None);
    let _allowed = Allowed::server(&vm, &remote.address);
    let start = || asking_for(&vm, &format!("usbip:{}/0403:6001;link=/dev/far", remote.address));
    let container = start();
    container.gains("/dev/far");
    remote.server.hang(true);
    // The worker waits in the kernel, where no signal ends it.
    container.run("cat /dev/far > /dev/null 2>&1 & echo $! > /run/reader; sleep 1; kill -9 $!");
    container.wait_until("! kill -0 $(cat /run/reader)");
    container.loses("/dev/far");
    remote.server.hang(false);
    container.gains("/dev/far");
    // The same while the container ends.
    remote.server.hang(true);
    container.run("cat /dev/far > /dev/null 2>&1 & sleep 1");
    drop(container);
    remote.server.hang(false);
    remote.server.wait_until_all_are_free();
    nothing_is_left(&vm);
    story::nothing_is_left(&vm);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn whenever_its_watcher_is_killed_a_remote_adapter_is_neither_lost_nor_attached_twice() {
    let vm = machine();
    let adapters = vec![Adapter::new("1-1", "RS001")];
    let Remote { server, address } = Remote::start(&vm, adapters.clone(), Fault::StallAt(GET_DESCRIPTOR));
    let _allowed = Allowed::server(&vm, &address);
    // While the kernel reads the device's descriptors: the server never answers.
    let container = asking_for(&vm, &format!("usbip:{address}/0403:6001;link=/dev/far"));
    let kill = "kill -9 $(pgrep oci-hotplug-wat); oci-hotplug recover";
    vm.wait_until("grep -q . /run/oci-hotplug/usbip/port-*.json");
    vm.run(kill);
    let host = server.address;
    drop(server);
    let server = UsbipServer::start_at(host, adapters, Fault::None);
    container.gains("/dev/far");
    // While it is attached: a process that has the device open notices nothing.
    let ports = "oci-hotplug usbip ports --json | jq -c '.ports | map([.port, .syspath, .container])'";
    let (accepted, before) = (server.accepted(), vm.run(ports));
    container.run("exec 3<>/dev/far; stty raw -echo <&3; sleep 1000000 <&3 & echo $! > /run/holder");
    vm.run(kill);
    echoes(&container, "/dev/far");
    assert_eq!((server.accepted(), vm.run(ports)), (accepted, before));
    // While the device is away, which returns before there is a watcher again: it is attached
    // again.
    vm.run("kill -9 $(pgrep oci-hotplug-wat)");
    drop(server);
    let server = UsbipServer::start_at(host, vec![Adapter::new("1-1", "RS001")], Fault::None);
    vm.run("oci-hotplug recover");
    container.gains("/dev/far");
    // While the container ends.
    vm.run("kill -9 $(pgrep oci-hotplug-wat)");
    drop(container);
    server.wait_until_all_are_free();
    nothing_is_left(&vm);
    story::nothing_is_left(&vm);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_remote_adapter_survives_failures_of_the_network_and_of_its_server() {
    let vm = machine();
    let (adapter, far) = Far::with_adapter(&vm);
    let _allowed = Allowed::server(&vm, FAR);
    // A round-trip time of 400 ms.
    far.link("delay 200ms");
    let began = uptime(&vm);
    let container = asking_for(&vm, &format!("usbip:{FAR}/0403:6001:FT001;link=/dev/far"));
    container.gains("/dev/far");
    eprintln!("vm: there after {:.1} s at 400 ms", uptime(&vm) - began);
    far.link("delay 0ms");
    container.talks_through(&adapter, "/dev/far");

    for (what, break_it, mend_it) in BREAKS {
        let began = uptime(&vm);
        vm.run(&format!("busid={}; {break_it}", far.busid));
        container.loses("/dev/far");
        let mended = uptime(&vm);
        vm.run(&format!("busid={}; {mend_it}", far.busid));
        container.gains("/dev/far");
        eprintln!(
            "vm: {what}: gone after {:.1} s, back {:.1} s after its end",
            mended - began,
            uptime(&vm) - mended
        );
    }
    container.talks_through(&adapter, "/dev/far");
    drop(container);
    nothing_is_left(&vm);
}

/// How long after the loss of its device a watcher is killed: during its pause (0.15 to 0.25 s),
/// while it connects, imports, and while kernel and drivers read the device, until the record is
/// written, which is after 1 to 2 s under emulation.
const MOMENTS: &str = "0 0.2 0.3 0.4 0.5 0.6 0.7 0.8 1.0 1.2 1.5 2.0";

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_watcher_that_is_killed_at_any_moment_of_an_attachment_leaves_one_device_and_nothing_else() {
    let vm = machine();
    let remote = Remote::start(&vm, vec![Adapter::new("1-1", "RS001")], Fault::None);
    let _allowed = Allowed::server(&vm, &remote.address);
    let container = asking_for(&vm, &format!("usbip:{}/0403:6001;link=/dev/far", remote.address));
    container.gains("/dev/far");
    // The worker and the state of the port show which step it was interrupted in.
    let met = vm.run(&format!(
        "exec 2>&1; for moment in {MOMENTS}; do \
         {release} || exit 1; sleep $moment; \
         step=$(oci-hotplug usbip ports --json | jq -r '.ports[0].state // \"none\"'); \
         pgrep -x oci-hotplug-usb > /dev/null && step=$step+worker; \
         kill -9 $(pgrep oci-hotplug-wat); \
         case $moment in *[05]) kill -9 $(pgrep -x oci-hotplug-usb) ;; esac 2> /dev/null; \
         oci-hotplug recover > /dev/null || exit 1; \
         {again} || exit 1; \
         test $(oci-hotplug usbip ports --json | jq '.ports | length') = 1 || exit 1; \
         test $(ls /run/oci-hotplug/usbip/port-*.json | wc -l) = 1 || exit 1; echo \"$moment: $step\"; done",
        release = release_of(&container.id),
        again = until(&format!(
            "oci-hotplug usbip ports --json | tee /dev/stderr | jq -e '.ports[0].state == \"attached\"' && \
             oci-hotplug inspect {} | tee /dev/stderr | grep /dev/far",
            container.id
        )),
    ));
    eprintln!("vm: killed after\n{met}");
    for step in ["unfinished", "attached"] {
        assert!(met.contains(step), "no moment met this step: {step}\n{met}");
    }
    // While the server has not answered yet.
    remote.server.hang(true);
    vm.run(&format!(
        "{}; {}; kill -9 $(pgrep oci-hotplug-wat); oci-hotplug recover",
        release_of(&container.id),
        until("pgrep -x oci-hotplug-usb")
    ));
    remote.server.hang(false);
    container.gains("/dev/far");
    echoes(&container, "/dev/far");
    drop(container);
    remote.server.wait_until_all_are_free();
    nothing_is_left(&vm);
    story::nothing_is_left(&vm);
}
