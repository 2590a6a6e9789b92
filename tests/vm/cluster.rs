//! A real cluster of one node in the machine: etcd, API server, controller manager, scheduler and
//! kubelet, with the device plugin as packaging/kubernetes installs it. `cluster/` has the
//! machine's files for it.
//!
//! pods.rs tests what kubelet alone does with a pod; this file tests what the rest of the cluster
//! does with what kubelet reports. `tests/run.sh --cluster` runs the tests of this file; the one in
//! cluster_pod.rs is in every run.

use std::ops::Deref;
use std::path::Path;
use std::process::Command;

use crate::container::{Container, IDLE, quoted};
use crate::engine::Cri;
use crate::kubelet::{image, running_containers};
use crate::machine::{Machine, machine};
use crate::shell::until;
use crate::story::nothing_is_left;
use crate::usb::{Plugged, UsbSerial};

/// kubectl in the machine, with the administrator's rights.
const KUBECTL: &str = "kubectl --kubeconfig=/var/lib/kubernetes/admin.conf";

/// The deadline of `kubectl wait`. kubelet reports its node's resources to the API server every 10
/// s, and all of this is emulated.
const PATIENCE: &str = "--timeout=240s";

/// The directory of the manifests in the machine.
const MANIFESTS: &str = "/etc/cluster";

/// The plugin's configuration, used beside those of hostdev and smarter-device-manager in their own
/// formats.
const CONFIG: &str = "domain: example.com
resources:
- { name: place, requests: ['usb:0403:6001:FT003'] }
- { name: adapter, requests: ['usb:0403:6001:FT001'], mode: present }
";
/// The argument and the file that docs/kubernetes.md tells users of the two to keep.
const HOSTDEVS_ARGUMENT: &str = "--devs=/dev/mem:rwm,/dev/fuse:rwm";
const SMARTERS_ARGUMENT: &str = "--smarter-config=/root/config/conf.yaml";
const SMARTERS_MOUNT: &str = "{name: config, mountPath: /root/config}";
const SMARTERS: &str = "- devicematch: ^ttyUSB[0-9]*$\n  nummaxdevices: 1\n";

/// A running cluster. It is stopped when this is dropped.
pub struct Cluster<'a> {
    machine: &'a Machine,
}

/// A running pod with one container. It is deleted when this is dropped.
pub struct Pod<'a> {
    machine: &'a Machine,
    name: String,
    container: Container<'a>,
}

impl<'a> Cluster<'a> {
    /// Starts all parts, and returns when the node accepts pods.
    pub fn start(machine: &'a Machine) -> Self {
        machine.run("modprobe fuse");
        Cri::Containerd.start(machine);
        let cluster = Self { machine };
        cluster.bring("tests/vm", "cluster");
        machine.run(&format!("sh {MANIFESTS}/cluster/up.sh"));
        machine.wait_until(&format!("{KUBECTL} get serviceaccount default"));
        cluster
    }

    /// Waits until the API server answers and knows the node.
    fn answers(&self) {
        // Twice the deadline: after a boot, everything else starts beside it.
        let asked = until(&format!(
            "busybox wget -q -T 5 -O - --no-check-certificate https://10.0.0.1/readyz && {KUBECTL} get node $(hostname)"
        ));
        self.machine.run(&format!(
            "for attempt in 1 2; do if ({asked}); then exit; fi; done; exit 1"
        ));
    }

    /// Copies a directory of this repository into the machine.
    fn bring(&self, parent: &str, directory: &str) {
        let archive = Command::new("tar")
            .arg("-C")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(parent))
            .args(["-c", directory])
            .output()
            .expect("running tar");
        self.given(
            &archive.stdout,
            &format!("mkdir -p {MANIFESTS} && tar -x -C {MANIFESTS} --no-same-owner"),
        );
    }

    fn given(&self, input: &[u8], command: &str) {
        let output = self.machine.output_given(command, input);
        assert!(
            output.status.success(),
            "{command}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn kubectl(&self, arguments: &str) -> String {
        self.machine.run(&format!("{KUBECTL} {arguments}"))
    }

    fn apply(&self, manifest: &str) {
        self.given(manifest.as_bytes(), &format!("{KUBECTL} apply -f -"));
    }

    /// Waits until `what` (`pod/first`) has `value` at a JSONPath.
    fn has(&self, what: &str, path: &str, value: &str) {
        self.kubectl(&format!(
            "wait {PATIENCE} {what} --for=jsonpath={}={value}",
            quoted(path)
        ));
    }

    /// Installs the plugin as docs/kubernetes.md says: Kustomize's base and the component for
    /// events, with the configuration and arguments of this test.
    pub fn installs_the_plugin(&self) {
        self.given(&image(), "ctr -n k8s.io images import -");
        self.bring("packaging", "kubernetes");
        let told = include_str!("../../docs/kubernetes.md");
        for line in [
            format!("args: [\"{HOSTDEVS_ARGUMENT}\"]"),
            format!("args: [\"{SMARTERS_ARGUMENT}\"]"),
            SMARTERS_MOUNT.to_owned(),
        ] {
            let after = told.lines().filter(|told| told.ends_with(&line));
            assert!(after.count() > 0, "docs/kubernetes.md has no {line}");
        }
        let indented = |text: &str| text.replace('\n', "\n        ");
        let overlay = format!(
            "apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [kubernetes/base]
components: [kubernetes/events]
patches:
- patch: |
    apiVersion: v1
    kind: ConfigMap
    metadata: {{ name: oci-hotplug-device-plugin }}
    data:
      config.yaml: |
        {}
      conf.yaml: |
        {}
- target: {{ kind: DaemonSet }}
  patch: |
    - {{ op: add, path: /spec/template/spec/containers/0/args/-, value: '{SMARTERS_ARGUMENT}' }}
    - {{ op: add, path: /spec/template/spec/containers/0/args/-, value: '{HOSTDEVS_ARGUMENT}' }}
    - {{ op: add, path: /spec/template/spec/containers/0/volumeMounts/-, value: {SMARTERS_MOUNT} }}
",
            indented(CONFIG),
            indented(SMARTERS)
        );
        self.machine
            .write(&format!("{MANIFESTS}/kustomization.yaml"), &overlay);
        self.kubectl(&format!("apply -k {MANIFESTS}"));
        self.plugin_is_ready();
    }

    /// Waits until the DaemonSet's pod is ready.
    fn plugin_is_ready(&self) {
        self.kubectl(&format!(
            "rollout status daemonset/oci-hotplug-device-plugin -n oci-hotplug {PATIENCE}"
        ));
    }

    /// The line of the plugin's `--check`, as docs/kubernetes.md shows it, about a file of the
    /// node.
    pub fn check_says(&self, file: &str) -> String {
        let crictl = Cri::Containerd.crictl();
        self.machine.run(&format!(
            "{crictl} exec $({crictl} ps -q --name device-plugin) oci-hotplug-device-plugin --check \
             --config=/config/config.yaml | grep -F {file}"
        ))
    }

    /// Waits until the node has `count` allocatable units of a resource at the API server.
    pub fn offers(&self, resource: &str, count: usize) {
        let path = format!("{{.status.allocatable.{}}}", resource.replace('.', "\\."));
        self.has("node/$(hostname)", &path, &count.to_string());
    }

    /// Creates a pod whose container has these limits (`example.com/adapter: 1`).
    pub fn wants_pod(&self, name: &str, limits: &str) {
        self.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{ name: {name}, labels: {{ app: {name} }} }}\nspec:\n{}",
            pod_spec(limits, 2)
        ));
    }

    /// Waits until a pod is unschedulable because no node has enough of a resource.
    pub fn has_no_place_for(&self, pod: &str, resource: &str) {
        let condition = |field: &str| format!("{{.status.conditions[?(@.type==\"PodScheduled\")].{field}}}");
        self.has(&format!("pod/{pod}"), &condition("reason"), "Unschedulable");
        let words = self.kubectl(&format!(
            "get pod {pod} -o jsonpath={}",
            quoted(&condition("message"))
        ));
        assert!(words.contains(&format!("Insufficient {resource}")), "{words}");
        assert_eq!(
            self.kubectl(&format!("get pod {pod} -o jsonpath='{{.status.phase}}'")),
            "Pending"
        );
    }

    /// Waits until a pod is ready.
    pub fn runs(&self, pod: &str) -> Pod<'a> {
        self.kubectl(&format!("wait {PATIENCE} pod/{pod} --for=condition=Ready"));
        let pod = Pod {
            machine: self.machine,
            name: pod.to_owned(),
            container: Container::new(
                self.machine,
                format!("{} exec -i $(cat /run/test/{pod})", Cri::Containerd.crictl()),
                format!("{KUBECTL} delete pod {pod} --ignore-not-found {PATIENCE}"),
            ),
        };
        pod.is_another();
        pod
    }

    /// Creates a pod, and waits until it is ready.
    fn pod(&self, name: &str, limits: &str) -> Pod<'a> {
        self.wants_pod(name, limits);
        self.runs(name)
    }

    /// The name of the running pod of a Deployment, once there is one.
    fn pod_of(&self, deployment: &str) -> String {
        let names = format!(
            "get pods -l app={deployment} --field-selector=status.phase=Running -o name | cut -d / -f 2"
        );
        // A pod that is admitted before its device is registered fails, and the Deployment creates
        // another one.
        self.kubectl(&format!(
            "wait {PATIENCE} deployment/{deployment} --for=condition=Available"
        ));
        self.kubectl(&names)
    }

    /// Waits until `kubectl describe pod` shows an event with this reason and these words.
    pub fn tells_of(&self, pod: &str, reason: &str, words: &str) {
        self.machine.wait_until(&format!(
            "{KUBECTL} describe pod {pod} | sed '1,/^Events:/d' | grep -F {reason} | grep -F {}",
            quoted(words)
        ));
    }
}

/// The part of a pod's manifest below `spec:`, indented.
fn pod_spec(limits: &str, indent: usize) -> String {
    let text = format!(
        "terminationGracePeriodSeconds: 5
containers:
- name: box
  image: localhost/box:latest
  imagePullPolicy: Never
  command: [sh, -c, \"{IDLE}\"]
  resources: {{ limits: {{ {limits} }} }}
"
    );
    let lines = text.lines().map(|line| format!("{}{line}\n", " ".repeat(indent)));
    lines.collect()
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        let output = self
            .machine
            .output(&format!("sh {MANIFESTS}/cluster/down.sh && rm -rf {MANIFESTS}"));
        if !std::thread::panicking() {
            assert!(
                output.status.success(),
                "stopping the cluster: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
}

impl<'a> Deref for Pod<'a> {
    type Target = Container<'a>;
    fn deref(&self) -> &Container<'a> {
        &self.container
    }
}

impl Pod<'_> {
    /// Waits until the pod has a running container that is not the one of the last call.
    fn is_another(&self) {
        let (name, ids) = (&self.name, running_containers(&self.name));
        self.machine.wait_until(&format!(
            "id=$({ids}) && test -n \"$id\" && ! grep -x \"$id\" /run/test/{name} && echo $id > /run/test/{name}"
        ));
    }

    /// Waits until the pod's container is the one of the last call.
    pub fn still_runs(&self) {
        let (name, ids) = (&self.name, running_containers(&self.name));
        self.machine
            .wait_until(&format!("{ids} | cmp - /run/test/{name}"));
    }

    /// Kills the pod's container, and waits until kubelet has started another one.
    fn is_killed_and_starts_again(&self) {
        self.machine.run(&format!(
            "kill -9 $({} inspect $(cat /run/test/{}) | jq .info.pid)",
            Cri::Containerd.crictl(),
            self.name
        ));
        self.is_another();
    }
}

fn adapter<'a>(vm: &'a Machine, serial: &'static str, port: &'static str) -> Plugged<'a> {
    vm.plug(&UsbSerial { serial, port })
}

#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn pods_of_a_cluster_are_scheduled_as_their_adapter_comes_and_goes() {
    let vm = machine();
    let cluster = Cluster::start(&vm);
    cluster.installs_the_plugin();
    cluster.offers("example.com/place", 1);
    cluster.offers("example.com/adapter", 0);

    // A hotplug slot exists before its device.
    let early = cluster.pod("early", "example.com/place: 1");
    cluster.wants_pod("first", "example.com/adapter: 1");
    cluster.has_no_place_for("first", "example.com/adapter");
    let plugged = adapter(&vm, "FT001", "1");
    let first = cluster.runs("first");
    first.talks_through(&plugged, "/dev/ttyUSB0");

    plugged.unplug();
    first.loses("/dev/ttyUSB0");
    cluster.offers("example.com/adapter", 0);
    first.still_runs();
    cluster.tells_of("first", "DeviceVanished", "example.com/adapter");
    first.is_killed_and_starts_again();
    let plugged = adapter(&vm, "FT001", "1");
    first.gains("/dev/ttyUSB0");
    first.talks_through(&plugged, "/dev/ttyUSB0");
    cluster.offers("example.com/adapter", 1);
    cluster.tells_of("first", "DeviceReturned", "example.com/adapter");

    // The peak memory, including the connection to the API server. The limit of the DaemonSet is
    // twice as high.
    let most: u32 = vm
        .run("awk '/VmHWM/ { print $2 }' /proc/$(pgrep -x oci-hotplug-dev)/status")
        .parse()
        .expect("KiB");
    eprintln!("vm: the plugin had at most {most} KiB");
    assert!(most < 15 << 10, "the plugin had {most} KiB");

    // There is one adapter, and one pod has it.
    cluster.wants_pod("second", "example.com/adapter: 1");
    cluster.has_no_place_for("second", "example.com/adapter");
    drop(first);
    let second = cluster.runs("second");
    second.talks_through(&plugged, "/dev/ttyUSB0");
    drop(second);

    let places = adapter(&vm, "FT003", "2");
    early.gains("/dev/ttyUSB1");
    early.talks_through(&places, "/dev/ttyUSB1");
    drop(early);
    drop(plugged);
    drop(places);
    nothing_is_left(&vm);
}

/// A Deployment whose pod has these limits, as users of smarter-device-manager write it.
fn deployment(name: &str, limits: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{ name: {name} }}
spec:
  replicas: 1
  strategy: {{ type: Recreate }}
  selector: {{ matchLabels: {{ app: {name} }} }}
  template:
    metadata: {{ labels: {{ app: {name} }} }}
    spec:
{}",
        pod_spec(limits, 6)
    )
}

/// Restarts kubelet, the plugin and the API server, and then reboots the machine.
#[test]
#[ignore = "needs the virtual machine: tests/run.sh --vm"]
fn a_cluster_loses_no_pod_when_its_parts_restart_and_a_deployment_is_back_after_a_reboot() {
    let vm = machine();
    vm.run("echo fuse > /etc/modules-load.d/fuse.conf");
    let cluster = Cluster::start(&vm);
    cluster.installs_the_plugin();
    let plugged = adapter(&vm, "FT001", "1");

    // Pods as users of hostdev and smarter-device-manager write them.
    cluster.offers("hostdev.k8s.io/dev_fuse", 1);
    let fuse = cluster.pod("fuse", "hostdev.k8s.io/dev_fuse: 1");
    fuse.run(": <> /dev/fuse");
    cluster.offers("smarter-devices/ttyUSB0", 1);
    cluster.apply(&deployment("smarters", "smarter-devices/ttyUSB0: 1"));
    let smarters = cluster.runs(&cluster.pod_of("smarters"));
    smarters.talks_through(&plugged, "/dev/ttyUSB0");
    let ours = cluster.pod("ours", "example.com/adapter: 1");
    ours.talks_through(&plugged, "/dev/ttyUSB0");

    vm.run("systemctl restart kubelet kube-apiserver");
    cluster.answers();
    let plugin = "-n oci-hotplug -l app.kubernetes.io/name=oci-hotplug-device-plugin";
    cluster.kubectl(&format!("delete pod {plugin} {PATIENCE}"));
    cluster.plugin_is_ready();
    for resource in [
        "example.com/adapter",
        "example.com/place",
        "hostdev.k8s.io/dev_fuse",
        "smarter-devices/ttyUSB0",
    ] {
        cluster.offers(resource, 1);
    }
    for pod in [&fuse, &smarters, &ours] {
        pod.still_runs();
    }
    ours.talks_through(&plugged, "/dev/ttyUSB0");

    // After a boot kubelet admits its pods before any plugin has registered, so pods with resources
    // of any plugin fail.
    vm.reboot();
    vm.run("mkdir -p /run/test");
    cluster.answers();
    for pod in [&fuse, &ours, &smarters] {
        let reason = "{.status.reason}";
        cluster.has(&format!("pod/{}", pod.name), reason, "UnexpectedAdmissionError");
    }
    cluster.plugin_is_ready();
    let again = cluster.runs(&cluster.pod_of("smarters"));
    again.talks_through(&plugged, "/dev/ttyUSB0");
    // Nothing creates a bare pod again.
    drop((fuse, ours, smarters));
    cluster.offers("example.com/adapter", 1);
    let ours = cluster.pod("ours", "example.com/adapter: 1");
    ours.talks_through(&plugged, "/dev/ttyUSB0");
    plugged.unplug();
    ours.loses("/dev/ttyUSB0");
    drop(ours);
    cluster.kubectl("delete deployment smarters");
    drop(again);
    nothing_is_left(&vm);
}
