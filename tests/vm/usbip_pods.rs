//! Pods of a real kubelet (kubelet.rs) that ask for devices of another host, as usbip-device-plugin's users have them.

use std::time::{Duration, Instant};

use crate::engine::Cri::Containerd;
use crate::kubelet::{Node, Pod};
use crate::machine::{Machine, machine};
use crate::shell::DEADLINE;
use crate::story;
use crate::usbip_server::{Adapter, Fault, UsbipServer};

/// usbip-device-plugin's file, as packaging/kubernetes/README.md has it. It stays as it is.
const THEIRS: &str = r#"resources:
  board:
  - target: {host: usbip.example.com, port: 3240}
    selector: {vendor: 0x0403, product: 0x6001}
    extras:
    - {host_path: /dev/ttyUSB0, container_path: /dev/ttyUSB0, permissions: rw}
    - {host_path: /dev/net/tun, container_path: /dev/net/tun, permissions: rw}
"#;
const BOARD: &str = "usbip.dev.mvalvekens.be/board";

/// The longest that kubelet may go on offering what another host has, or not hear that it is free again. Under emulation.
const SECONDS: Duration = Duration::from_secs(10);

/// A server that a machine reaches at a port of its own.
struct Remote {
    server: UsbipServer,
    port: u16,
}

impl Remote {
    fn start(machine: &Machine) -> Self {
        machine.run("modprobe vhci-hcd && modprobe tun");
        let server = UsbipServer::start(vec![Adapter::new("1-1", "RS001")], Fault::None);
        let port = machine.forward(server.address.port());
        Self { server, port }
    }

    /// Their file, for this server.
    fn config(&self) -> String {
        assert!(include_str!("../../packaging/kubernetes/README.md").contains(THEIRS));
        THEIRS
            .replace("usbip.example.com", "127.0.0.1")
            .replace("3240", &self.port.to_string())
    }

    /// What happens while it is down, with its device elsewhere when it is up again.
    fn is_down_while(self, something: impl FnOnce()) -> Self {
        let address = self.server.address;
        drop(self.server);
        something();
        Self {
            server: UsbipServer::start_at(address, vec![Adapter::new("1-2", "RS001")], Fault::None),
            ..self
        }
    }
}

/// What a pod says into the adapter comes back from there. It is said again where nothing does: a serial line keeps nothing
/// for who is not ready yet.
fn echoes(pod: &Pod) {
    pod.gains("/dev/ttyUSB0");
    let heard = pod.run(&format!(
        "exec 3<>/dev/ttyUSB0; stty raw -echo <&3; for _ in $(seq 10); do \
         echo far away >&3; read -t {} words <&3 && break; done; echo \"$words\"",
        DEADLINE / 5
    ));
    assert_eq!(heard, "far away");
}

/// Nothing is attached to the machine.
fn nothing_is_left(machine: &Machine) {
    machine.wait_until("oci-hotplug usbip ports --json | jq -e 'length == 0'");
    story::nothing_is_left(machine);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_pod_of_usbip_device_plugins_users_has_its_adapter_whatever_befalls_it_and_gives_it_back() {
    let vm = machine();
    let remote = Remote::start(&vm);
    let node = Node::start(&vm, Containerd);
    node.runs_plugin(&remote.config(), "");
    node.advertises(BOARD, 1);
    let begin = Instant::now();
    let pod = node.pod(&format!("{BOARD}: 1"));
    eprintln!("vm: the pod runs after {:.1} s", begin.elapsed().as_secs_f64());
    echoes(&pod);
    // What libusb wants, and what is there without the device.
    pod.run("set -- /dev/bus/usb/*/*; test $# = 1 && : <> $1 && : <> /dev/net/tun");

    pod.is_killed_and_starts_again();
    echoes(&pod);
    node.restart_plugin(BOARD);
    node.advertises(BOARD, 1);
    echoes(&pod);
    let begin = Instant::now();
    let remote = remote.is_down_while(|| pod.loses("/dev/ttyUSB0"));
    node.plugin_says("its pod is left alone");
    echoes(&pod);
    eprintln!(
        "vm: echoes {:.1} s after the server was killed",
        begin.elapsed().as_secs_f64()
    );
    pod.still_runs();
    node.advertises(BOARD, 1);

    // Its server is away when its container starts: that fails, with the reason, and is tried until the server is back.
    let reason = format!("usbip server 127.0.0.1:{}: it closed the connection", remote.port);
    let remote = remote.is_down_while(|| {
        pod.is_killed();
        vm.wait_until(&format!(
            "journalctl --quiet --output=cat -u kubelet --after-cursor=\"$(cat /run/test/cursor)\" | \
             grep -F '{reason}' | grep -F 'it is required'"
        ));
    });
    pod.runs();
    echoes(&pod);

    drop(pod);
    remote.server.wait_until_all_are_free();
    node.advertises(BOARD, 1);
    nothing_is_left(&vm);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_node_withdraws_what_another_host_takes_and_offers_it_again_when_it_is_free() {
    let vm = machine();
    let remote = Remote::start(&vm);
    let node = Node::start(&vm, Containerd);
    node.runs_plugin(&remote.config(), "");
    node.advertises(BOARD, 1);
    let other = remote.server.is_imported_elsewhere("1-1");
    let begin = Instant::now();
    node.advertises(BOARD, 0);
    assert!(begin.elapsed() < SECONDS, "withdrawn after {:?}", begin.elapsed());
    drop(other);
    let begin = Instant::now();
    node.advertises(BOARD, 1);
    assert!(begin.elapsed() < SECONDS, "offered after {:?}", begin.elapsed());

    // The same when a pod here had it before, and has ended.
    let pod = node.pod(&format!("{BOARD}: 1"));
    echoes(&pod);
    drop(pod);
    remote.server.wait_until_all_are_free();
    let _other = remote.server.is_imported_elsewhere("1-1");
    let begin = Instant::now();
    node.advertises(BOARD, 0);
    assert!(begin.elapsed() < SECONDS, "withdrawn after {:?}", begin.elapsed());
    nothing_is_left(&vm);
}
