//! Pods of a real kubelet (kubelet.rs) that request remote devices, as users of usbip-device-plugin
//! write them.

use std::time::{Duration, Instant};

use crate::engine::Cri::Containerd;
use crate::kubelet::{Node, Pod};
use crate::machine::{Machine, machine};
use crate::story;
use crate::usbip::bed::{self, Remote, echoes};
use crate::usbip_server::{Adapter, Fault, UsbipServer};

/// usbip-device-plugin's file as in docs/kubernetes.md, unchanged.
const THEIRS: &str = r#"resources:
  board:
  - target: {host: usbip.example.com, port: 3240}
    selector: {vendor: 0x0403, product: 0x6001}
    extras:
    - {host_path: /dev/ttyUSB0, container_path: /dev/ttyUSB0, permissions: rw}
    - {host_path: /dev/net/tun, container_path: /dev/net/tun, permissions: rw}
"#;
const BOARD: &str = "usbip.dev.mvalvekens.be/board";

/// The longest time until kubelet no longer offers a device that another host has, or offers a free
/// one again. Under emulation.
const SECONDS: Duration = Duration::from_secs(10);

fn remote(machine: &Machine) -> Remote {
    machine.run("modprobe tun");
    Remote::start(machine, vec![Adapter::new("1-1", "RS001")], Fault::None)
}

/// The same file for this test's server.
fn config(remote: &Remote) -> String {
    assert!(include_str!("../../docs/kubernetes.md").contains(THEIRS));
    let (host, port) = remote.address.split_once(':').expect("host and port");
    THEIRS.replace("usbip.example.com", host).replace("3240", port)
}

/// Stops a server, calls `meanwhile`, and starts the server again with its device at another place.
fn is_down(remote: Remote, meanwhile: impl FnOnce()) -> Remote {
    let Remote { server, address } = remote;
    let host = server.address;
    drop(server);
    meanwhile();
    Remote {
        server: UsbipServer::start_at(host, vec![Adapter::new("1-2", "RS001")], Fault::None),
        address,
    }
}

/// Checks that the pod has the adapter and sends bytes through it.
fn has_it(pod: &Pod) {
    pod.gains("/dev/ttyUSB0");
    echoes(pod, "/dev/ttyUSB0");
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_pod_keeps_its_remote_adapter_through_failures_and_releases_it_when_it_ends() {
    let vm = machine();
    let remote = remote(&vm);
    let node = Node::start(&vm, Containerd);
    node.runs_plugin(&config(&remote), "");
    node.advertises(BOARD, 1);
    let begin = Instant::now();
    let pod = node.pod(&format!("{BOARD}: 1"));
    eprintln!("vm: the pod runs after {:.1} s", begin.elapsed().as_secs_f64());
    has_it(&pod);
    // The nodes that libusb needs, which exist without the device.
    pod.run("set -- /dev/bus/usb/*/*; test $# = 1 && : <> $1 && : <> /dev/net/tun");

    pod.is_killed_and_starts_again();
    has_it(&pod);
    node.restart_plugin(BOARD);
    node.advertises(BOARD, 1);
    has_it(&pod);
    let begin = Instant::now();
    let remote = is_down(remote, || {
        pod.loses("/dev/ttyUSB0");
        node.plugin_says("the pod keeps running");
    });
    has_it(&pod);
    eprintln!(
        "vm: echoes {:.1} s after the server was killed",
        begin.elapsed().as_secs_f64()
    );
    pod.still_runs();
    node.advertises(BOARD, 1);

    // The server is down when the container starts: the start fails with the reason, and is retried
    // until the server is back.
    let reason = format!("usbip server {}: it closed the connection", remote.address);
    let remote = is_down(remote, || {
        pod.is_killed();
        vm.wait_until(&format!(
            "journalctl --quiet --output=cat -u kubelet --after-cursor=\"$(cat /run/test/cursor)\" | \
             grep -F '{reason}' | grep -F 'start without the device'"
        ));
    });
    pod.runs();
    has_it(&pod);

    drop(pod);
    remote.server.wait_until_all_are_free();
    node.advertises(BOARD, 1);
    bed::nothing_is_left(&vm);
    story::nothing_is_left(&vm);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_node_withdraws_a_device_that_another_host_imports_and_offers_it_again_when_it_is_free() {
    let vm = machine();
    let remote = remote(&vm);
    let node = Node::start(&vm, Containerd);
    node.runs_plugin(&config(&remote), "");
    node.advertises(BOARD, 1);
    let other = remote.server.is_imported_elsewhere("1-1");
    let begin = Instant::now();
    node.advertises(BOARD, 0);
    assert!(begin.elapsed() < SECONDS, "withdrawn after {:?}", begin.elapsed());
    drop(other);
    let begin = Instant::now();
    node.advertises(BOARD, 1);
    assert!(begin.elapsed() < SECONDS, "offered after {:?}", begin.elapsed());

    // The same after a pod on this node had it and has ended.
    let pod = node.pod(&format!("{BOARD}: 1"));
    has_it(&pod);
    drop(pod);
    remote.server.wait_until_all_are_free();
    let _other = remote.server.is_imported_elsewhere("1-1");
    let begin = Instant::now();
    node.advertises(BOARD, 0);
    assert!(begin.elapsed() < SECONDS, "withdrawn after {:?}", begin.elapsed());
    bed::nothing_is_left(&vm);
    story::nothing_is_left(&vm);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_pod_that_requests_two_equal_devices_gets_two() {
    let vm = machine();
    let adapters = vec![Adapter::new("1-1", "RS001"), Adapter::new("1-2", "RS002")];
    let remote = Remote::start(&vm, adapters, Fault::None);
    let (host, port) = remote.address.split_once(':').expect("host and port");
    let entry =
        format!("{{target: {{host: {host}, port: {port}}}, selector: {{vendor: 0x0403, product: 0x6001}}}}");
    let node = Node::start(&vm, Containerd);
    node.runs_plugin(&format!("resources: {{board: [{entry}, {entry}]}}"), "");
    node.advertises(BOARD, 2);
    let pod = node.pod(&format!("{BOARD}: 2"));
    pod.gains("/dev/ttyUSB0");
    pod.gains("/dev/ttyUSB1");
    echoes(&pod, "/dev/ttyUSB0");
    echoes(&pod, "/dev/ttyUSB1");
    node.advertises(BOARD, 2);
    drop(pod);
    remote.server.wait_until_all_are_free();
    bed::nothing_is_left(&vm);
}
