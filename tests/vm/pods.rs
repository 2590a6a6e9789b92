//! Pods of a real kubelet (kubelet.rs) that request resources of the device plugin.

use crate::engine::Cri::{self, Containerd, Crio};
use crate::kubelet::Node;
use crate::machine::{Machine, machine};
use crate::story::nothing_is_left;
use crate::usb::{Hub, UsbSerial};

/// What docs/kubernetes.md tells a user of smarter-device-manager to write, so that unchanged pods
/// with `smarter-devices/ttyUSB0` get hotplug.
const SERIAL: &str = r#"resources:
- {name: smarter-devices/ttyUSB0, requests: ["usb:0403:6001;path=/dev/ttyUSB0"], count: 1}
"#;
const RESOURCE: &str = "smarter-devices/ttyUSB0";

/// An adapter behind a hub is plugged in, pulled out and plugged in again while a pod has it. The
/// pod's container is restarted while the adapter is absent. Then kubelet, the device plugin and
/// the engine are restarted while bytes pass.
fn a_pod_keeps_its_adapter_through_failures_of_the_node(engine: Cri, runs_plugin: impl FnOnce(&Node)) {
    assert!(include_str!("../../docs/kubernetes.md").contains(SERIAL));
    let vm = machine();
    let node = Node::start(&vm, engine);
    runs_plugin(&node);
    node.advertises(RESOURCE, 1);
    let pod = node.pod("smarter-devices/ttyUSB0: 1");

    let hub = vm.plug(&Hub("1"));
    let adapter = |port| {
        vm.plug(&UsbSerial {
            serial: "FT001",
            port,
        })
    };
    let first = adapter("1.1");
    pod.gains("/dev/ttyUSB0");
    pod.makes_its_own_node("/run/mine", "/dev/ttyUSB0");
    pod.talks_through(&first, "/dev/ttyUSB0");
    first.unplug();
    pod.loses("/dev/ttyUSB0");
    pod.is_refused("/run/mine");
    let again = adapter("1.2");
    pod.gains("/dev/ttyUSB0");
    pod.talks_through(&again, "/dev/ttyUSB0");
    hub.unplug();
    pod.loses("/dev/ttyUSB0");

    pod.is_killed_and_starts_again();
    let adapter = adapter("2");
    pod.gains("/dev/ttyUSB0");

    let mut listener = pod.listens_to(&adapter, "/dev/ttyUSB0");
    listener.hears("before");
    node.restart_kubelet(RESOURCE);
    listener.hears("kubelet");
    node.restart_plugin(RESOURCE);
    listener.hears("plugin");
    node.restart_engine();
    pod.is_reachable();
    listener.hears("engine");
    pod.still_runs();
    node.advertises(RESOURCE, 1);
    adapter.unplug();
    pod.loses("/dev/ttyUSB0");

    drop(pod);
    nothing_is_left(&vm);
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn kubelet_with_containerd_runc_and_our_daemon_set_gives_a_pod_an_adapter_that_comes_and_goes() {
    a_pod_keeps_its_adapter_through_failures_of_the_node(Containerd, |node| node.runs_daemon_set(SERIAL));
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn kubelet_with_crio_and_crun_gives_a_pod_an_adapter_that_comes_and_goes() {
    a_pod_keeps_its_adapter_through_failures_of_the_node(Crio, |node| node.runs_plugin(SERIAL, ""));
}

/// The configurations of hostdev and smarter-device-manager in their own formats, and one resource
/// of each of our modes.
const HOSTDEVS: &str = "-devs=/dev/fuse:r";
const SMARTERS: &str =
    "- devicematch: ^ttyUSB[0-9]*$\n  nummaxdevices: 1\n- devicematch: ^net/tun$\n  nummaxdevices: 20\n";
const MODES: &str = "domain: example.com
resources:
- { name: place, requests: ['usb:0403:6001'] }
- { name: adapter, requests: ['usb:0403:6001'], mode: present }
- { name: latency, requests: ['devnode:/dev/cpu_dma_latency'], mode: static, permissions: rw, path: /dev/latency }
";

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn kubelet_gives_pods_what_hostdev_smarter_and_each_mode_of_ours_advertise() {
    let vm = machine();
    vm.run("modprobe -a fuse tun");
    vm.write("/etc/kubernetes/conf.yaml", SMARTERS);
    let arguments = format!("{HOSTDEVS} --smarter-config /etc/kubernetes/conf.yaml");
    let node = Node::start(&vm, Containerd);
    node.runs_plugin(MODES, &arguments);
    node.advertises("hostdev.k8s.io/dev_fuse", 1);
    node.advertises("smarter-devices/net_tun", 20);
    node.advertises("smarter-devices/ttyUSB0", 0);
    node.advertises("example.com/place", 1);
    node.advertises("example.com/adapter", 0);
    node.advertises("example.com/latency", 1);

    let adapter = vm.plug(&UsbSerial {
        serial: "FT001",
        port: "1",
    });
    node.advertises("smarter-devices/ttyUSB0", 1);
    node.advertises("example.com/adapter", 1);
    let fixed = node.pod("hostdev.k8s.io/dev_fuse: 1, smarter-devices/net_tun: 2, example.com/latency: 1");
    fixed.run(": < /dev/fuse && : <> /dev/latency && : <> /dev/net/tun");
    fixed.run("! (: > /dev/fuse) 2> /run/words && grep 'not permitted' /run/words");
    let smarters = node.pod("smarter-devices/ttyUSB0: 1");
    smarters.talks_through(&adapter, "/dev/ttyUSB0");
    let ours = node.pod("example.com/adapter: 1");
    ours.talks_through(&adapter, "/dev/ttyUSB0");

    adapter.unplug();
    node.advertises("smarter-devices/ttyUSB0", 0);
    node.advertises("example.com/adapter", 0);
    node.advertises("example.com/place", 1);
    ours.loses("/dev/ttyUSB0");
    smarters.still_runs();
    ours.still_runs();
    ours.is_killed_and_starts_again();
    let adapter = vm.plug(&UsbSerial {
        serial: "FT001",
        port: "1",
    });
    node.advertises("example.com/adapter", 1);
    ours.gains("/dev/ttyUSB0");
    ours.talks_through(&adapter, "/dev/ttyUSB0");
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn without_cdi_in_containerd_a_pod_gets_the_present_devices_and_a_warning_says_that_hotplug_is_missing() {
    let vm = machine();
    let _silent = SilentConfig::put(&vm);
    let adapter = vm.plug(&UsbSerial {
        serial: "FT001",
        port: "1",
    });
    vm.wait_until("test -e /dev/ttyUSB0");
    let node = Node::start(&vm, Containerd);
    node.runs_plugin(SERIAL, "");
    node.plugin_says("no hotplug (switch CDI on in the container engine)");
    node.advertises(RESOURCE, 1);
    let pod = node.pod("smarter-devices/ttyUSB0: 1");
    pod.talks_through(&adapter, "/dev/ttyUSB0");
    nothing_is_left(&vm);
}

/// containerd's configuration as the package installs it, without CDI: 1.7 then ignores CDI
/// devices. The old configuration returns when this is dropped.
struct SilentConfig<'a>(&'a Machine);

impl<'a> SilentConfig<'a> {
    fn put(vm: &'a Machine) -> Self {
        vm.run(
            "cd /etc/containerd && cp config.toml /run/ && sed -i /enable_cdi/d config.toml && systemctl restart containerd",
        );
        Self(vm)
    }
}

impl Drop for SilentConfig<'_> {
    fn drop(&mut self) {
        let _ = self
            .0
            .output("cp /run/config.toml /etc/containerd/ && systemctl restart containerd");
    }
}
