//! A node of Kubernetes in the machine: a real kubelet, which takes its pods from a directory and not from an API server,
//! and the device plugin beside it.

use std::ops::Deref;

use crate::container::{Container, IDLE_SCRIPT, quoted};
use crate::engine::Cri;
use crate::machine::Machine;
use crate::shell::until;
use crate::usb::{Line, Plugged};

/// Where kubelet keeps what plugins advertise and who has what of it.
const CHECKPOINT: &str = "/var/lib/kubelet/device-plugins/kubelet_internal_checkpoint";

/// What the device plugin may do: as much as the DaemonSet of packaging/kubernetes/base lets it.
const LIMITS: &str = "-p CapabilityBoundingSet= -p NoNewPrivileges=yes -p MemoryMax=32M -p MemorySwapMax=0 -p ProtectSystem=strict \
    -p ReadWritePaths=/var/lib/kubelet/device-plugins -p ReadWritePaths=/run/cdi";

/// The name of an engine's service.
fn unit(engine: Cri) -> &'static str {
    match engine {
        Cri::Containerd => "containerd",
        Cri::Crio => "crio",
    }
}

/// kubelet's configuration with an engine.
fn kubelet_config(engine: Cri) -> String {
    let engine = unit(engine);
    // A dead container is to be started anew soon: the default waits for 10 s and more before the second time.
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix:///run/{engine}/{engine}.sock
staticPodPath: /etc/kubernetes/manifests
authentication: {{ anonymous: {{ enabled: false }}, webhook: {{ enabled: false }} }}
authorization: {{ mode: AlwaysAllow }}
cgroupDriver: systemd
failSwapOn: false
registerNode: false
readOnlyPort: 10255
resolvConf: ''
makeIPTablesUtilChains: false
localStorageCapacityIsolation: false
imageGCHighThresholdPercent: 100
evictionHard: {{ nodefs.available: 1%, imagefs.available: 1%, memory.available: 50Mi }}
featureGates: {{ KubeletCrashLoopBackOffMax: true }}
crashLoopBackOff: {{ maxContainerRestartPeriod: 1s }}
"
    )
}

/// kubelet and the device plugin, until it is dropped.
pub struct Node<'a> {
    machine: &'a Machine,
    engine: Cri,
}

/// A running pod of one container, as [`Container`] has it; gone when it is dropped.
pub struct Pod<'a> {
    node: &'a Node<'a>,
    name: String,
    container: Container<'a>,
}

/// A process in a container that reads from an adapter for as long as it can.
pub struct Listener<'a> {
    pod: &'a Pod<'a>,
    line: Line,
}

impl<'a> Node<'a> {
    /// Starts kubelet with `engine`, and the device plugin with our own configuration and further arguments.
    pub fn start(machine: &'a Machine, engine: Cri, config: &str, arguments: &str) -> Self {
        engine.start(machine);
        let node = Self { machine, engine };
        machine.run("mkdir -p /etc/kubernetes/manifests /var/lib/kubelet/device-plugins /run/cdi");
        machine.write("/etc/kubernetes/kubelet.yaml", &kubelet_config(engine));
        machine.write("/etc/kubernetes/devices.yaml", config);
        let plugin =
            std::fs::read(env!("CARGO_BIN_EXE_oci-hotplug-device-plugin")).expect("the device plugin");
        let path = "/usr/local/bin/oci-hotplug-device-plugin";
        let put = machine.output_given(
            &format!(
                "test -e {path} || {{ cat > {path}.new && chmod 0755 {path}.new && mv {path}.new {path}; }}"
            ),
            &plugin,
        );
        assert!(put.status.success(), "putting the device plugin into the machine");
        machine.run(&format!(
            "systemctl start kubelet && systemd-run --quiet --unit=device-plugin {LIMITS} \
             {path} --config /etc/kubernetes/devices.yaml {arguments}"
        ));
        machine.wait_until("test -S /var/lib/kubelet/device-plugins/kubelet.sock");
        node
    }

    /// Waits until kubelet knows `count` healthy units of a resource.
    pub fn advertises(&self, resource: &str, count: usize) {
        self.machine.wait_until(&format!(
            "jq -e '.Data.RegisteredDevices[\"{resource}\"] | length == {count}' {CHECKPOINT}"
        ));
    }

    /// Starts a pod whose container has these limits (`example.com/serial: 1`), and waits until it runs.
    pub fn pod(&'a self, limits: &str) -> Pod<'a> {
        let name = self.machine.new_name("p");
        let manifest = format!(
            "apiVersion: v1
kind: Pod
metadata: {{ name: {name} }}
spec:
  terminationGracePeriodSeconds: 5
  containers:
  - name: box
    image: localhost/box:latest
    imagePullPolicy: Never
    command: [sh, -c, \"{IDLE_SCRIPT}\"]
    securityContext: {{ capabilities: {{ add: [MKNOD] }} }}
    resources: {{ limits: {{ {limits} }} }}
"
        );
        let directory = "/etc/kubernetes/manifests";
        self.machine.write(&format!("/etc/kubernetes/{name}"), &manifest);
        self.machine
            .run(&format!("mv /etc/kubernetes/{name} {directory}/{name}.yaml"));
        let crictl = self.engine.crictl();
        let gone = until(&format!("test -z \"$({})\"", self.ids(&name)));
        let pod = Pod {
            container: Container::new(
                self.machine,
                format!("{crictl} exec $(cat /run/test/{name})"),
                format!("rm {directory}/{name}.yaml && {gone}"),
            ),
            node: self,
            name,
        };
        pod.runs();
        pod
    }

    /// A shell command that prints the ids of the running containers of a pod.
    fn ids(&self, pod: &str) -> String {
        format!(
            "{} ps --quiet --label io.kubernetes.pod.name={pod}-$(hostname)",
            self.engine.crictl()
        )
    }

    /// Restarts kubelet, and waits until the new one knows the resource.
    pub fn restart_kubelet(&self, resource: &str) {
        self.machine.run("systemctl restart kubelet");
        // Its own counts begin anew; the checkpoint is the old one's until the new one has something to write.
        self.machine.wait_until(&format!(
            "busybox wget -qO- http://127.0.0.1:10255/metrics | \
             grep '^kubelet_device_plugin_registration_total{{resource_name=\"{resource}\"}} [1-9]'"
        ));
    }

    /// Restarts the device plugin, and waits until it is registered again.
    pub fn restart_plugin(&self) {
        self.machine.run("systemctl restart device-plugin");
        self.plugin_says("registered with kubelet");
    }

    /// Waits until the device plugin that runs now has said something.
    pub fn plugin_says(&self, words: &str) {
        self.machine.wait_until(&format!(
            "journalctl --quiet --output=cat _SYSTEMD_INVOCATION_ID=$(systemctl show -P InvocationID device-plugin) | \
             grep -F {}",
            quoted(words)
        ));
    }

    pub fn restart_engine(&self) {
        self.machine
            .run(&format!("systemctl restart {}", unit(self.engine)));
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        let crictl = self.engine.crictl();
        let output = self.machine.output(&format!(
            "systemctl stop device-plugin kubelet; {crictl} rmp --all --force; \
             rm -rf /etc/kubernetes /var/lib/kubelet/device-plugins /run/cdi"
        ));
        if !std::thread::panicking() {
            assert!(
                output.status.success(),
                "stopping kubelet: {}",
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

impl<'a> Pod<'a> {
    /// Waits until its container runs, and another one than the last time.
    fn runs(&self) {
        let (name, ids) = (&self.name, self.node.ids(&self.name));
        self.node.machine.wait_until(&format!(
            "id=$({ids}) && test -n \"$id\" && ! grep -x \"$id\" /run/test/{name} && echo $id > /run/test/{name}"
        ));
    }

    /// Its container is killed; kubelet starts another.
    pub fn is_killed_and_starts_again(&self) {
        let crictl = self.node.engine.crictl();
        self.node.machine.run(&format!(
            "kill -9 $({crictl} inspect $(cat /run/test/{}) | jq .info.pid)",
            self.name
        ));
        self.runs();
    }

    /// Its container is the one that ran before.
    pub fn still_runs(&self) {
        let (name, ids) = (&self.name, self.node.ids(&self.name));
        self.node
            .machine
            .wait_until(&format!("{ids} | cmp - /run/test/{name}"));
    }

    /// Starts to read what comes through an adapter.
    pub fn listens_to(&'a self, adapter: &Plugged, path: &str) -> Listener<'a> {
        self.run(&format!(
            "setsid sh -c 'exec 3<>{path}; stty raw -echo <&3; echo ready >&3; exec cat <&3' > /run/heard 2>&1 < /dev/null &"
        ));
        let mut line = adapter.line();
        line.expect("ready");
        Listener { pod: self, line }
    }
}

impl Listener<'_> {
    /// The process that reads since the beginning hears a word that is sent now.
    pub fn hears(&mut self, word: &str) {
        self.line.send(&format!("{word}\n"));
        self.pod.wait_until(&format!("grep {word} /run/heard"));
    }
}
