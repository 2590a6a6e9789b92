//! A node of Kubernetes in the machine: a real kubelet that takes its pods from a directory instead
//! of an API server, and the device plugin.

use std::ops::Deref;
use std::path::Path;
use std::process::Command;

use oci_hotplug::kubernetes::kubelet::api;
use oci_hotplug::kubernetes::kubelet::grpc::{CallError, Client};
use oci_hotplug::model::yaml;
use serde_json::{Value, json};

use crate::container::{Container, idle_with_shell, quoted};
use crate::engine::Cri;
use crate::install;
use crate::machine::{Machine, poll};
use crate::shell::{PATIENCE, until};
use crate::usb::{Line, Plugged};

/// The socket where kubelet lists the devices of the node and of each pod.
const POD_RESOURCES: &str = "/var/lib/kubelet/pod-resources/kubelet.sock";

/// The call that lists what kubelet can allocate (kubelet's pkg/apis/podresources/v1/api.proto).
const ALLOCATABLE: &str = "/v1.PodResourcesLister/GetAllocatableResources";

#[derive(Clone, PartialEq, prost::Message)]
struct Allocatable {
    #[prost(message, repeated, tag = "1")]
    devices: Vec<api::pod_resources::ContainerDevices>,
}

/// The directory of kubelet's pods.
const MANIFESTS: &str = "/etc/kubernetes/manifests";

/// The device plugin's configuration.
const CONFIG: &str = "/etc/kubernetes/plugin/config.yaml";

/// The program of the device plugin that runs as a service.
const PLUGIN: &str = "/usr/local/bin/oci-hotplug-device-plugin";

/// The rights of the device plugin that runs as a service: those that the DaemonSet of
/// packaging/kubernetes has.
const LIMITS: &str = "-p Restart=always -p RestartSec=0 -p CapabilityBoundingSet= -p NoNewPrivileges=yes -p MemoryMax=32M -p MemorySwapMax=0 -p ProtectSystem=strict \
    -p ReadWritePaths=/var/lib/kubelet/device-plugins -p ReadWritePaths=/run/cdi";

/// A shell command that prints how many registrations of a resource kubelet has accepted since it
/// started.
fn registrations(resource: &str) -> String {
    let metric = format!("kubelet_device_plugin_registration_total{{resource_name=\"{resource}\"}}");
    format!("busybox wget -qO- http://127.0.0.1:10255/metrics | grep -F '{metric}' | cut -d ' ' -f 2")
}

/// kubelet's name for a pod that comes from a file.
fn on_this_node(pod: &str) -> String {
    format!("{pod}-$(hostname)")
}

/// A shell command that prints the ids of a pod's running containers. kubelet names log files after
/// them, and each has a cgroup; `crictl ps` would take processor time from kubelet under emulation.
/// The pattern stays as it is while no such file exists, and names none: hence the quotes.
pub fn running_containers(pod: &str) -> String {
    format!(
        "for log in /var/log/containers/{pod}_default_box-*.log; do id=${{log##*-}}; id=${{id%.log}}; \
         if test -L \"$log\" && find /sys/fs/cgroup/kubepods.slice -name \"*$id*\" | grep -q .; then echo $id; fi; done"
    )
}

/// The name of an engine's service.
fn unit(engine: Cri) -> &'static str {
    match engine {
        Cri::Containerd => "containerd",
        Cri::Crio => "crio",
    }
}

/// The device plugin's image, as an OCI archive.
pub fn image() -> Vec<u8> {
    let directory = tempfile::tempdir().expect("a directory for the image");
    let made = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/image.sh"))
        .arg("--bin-dir")
        .arg(install::built())
        .arg("--output")
        .arg(directory.path())
        .output()
        .expect("running image.sh");
    assert!(
        made.status.success(),
        "image.sh: {}",
        String::from_utf8_lossy(&made.stderr)
    );
    let path = String::from_utf8_lossy(&made.stdout).trim_end().to_owned();
    std::fs::read(path).expect("the image")
}

/// The pod of the DaemonSet as a file for kubelet. Such a pod cannot refer to objects of the API
/// server, so the configuration comes from the machine instead of a ConfigMap.
fn daemon_sets_pod() -> Value {
    let daemon_set: Value = yaml::from_str(
        include_str!("../../packaging/kubernetes/base/daemonset.yaml"),
        yaml::Dialect::Core,
    )
    .expect("a DaemonSet");
    let mut spec = daemon_set["spec"]["template"]["spec"].clone();
    for reference in ["serviceAccountName", "priorityClassName"] {
        spec.as_object_mut().expect("a pod").remove(reference);
    }
    for volume in spec["volumes"].as_array_mut().expect("volumes") {
        if volume["name"] == "config" {
            *volume = json!({ "name": "config", "hostPath": { "path": "/etc/kubernetes/plugin" } });
        }
    }
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "plugin" }, "spec": spec })
}

/// kubelet's configuration for an engine.
fn kubelet_config(engine: Cri) -> String {
    let engine = unit(engine);
    // Restart an ended container soon: the default is a pause of 10 s and more before the second
    // restart.
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix:///run/{engine}/{engine}.sock
staticPodPath: {MANIFESTS}
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

/// kubelet and the device plugin. They are stopped when this is dropped.
pub struct Node<'a> {
    machine: &'a Machine,
    engine: Cri,
}

/// A running pod with one container. It is removed when this is dropped.
pub struct Pod<'a> {
    node: &'a Node<'a>,
    name: String,
    container: Container<'a>,
}

/// A process in a container that reads from an adapter until it is dropped.
pub struct Listener<'a> {
    pod: &'a Pod<'a>,
    line: Line,
}

impl<'a> Node<'a> {
    /// Starts kubelet with `engine`.
    pub fn start(machine: &'a Machine, engine: Cri) -> Self {
        engine.start(machine);
        machine.run(&format!(
            "mkdir -p {MANIFESTS} /var/lib/kubelet/device-plugins /run/cdi"
        ));
        machine.write("/etc/kubernetes/kubelet.yaml", &kubelet_config(engine));
        let node = Self { machine, engine };
        machine.run("systemctl start kubelet");
        machine.wait_until("test -S /var/lib/kubelet/device-plugins/kubelet.sock");
        node
    }

    /// Runs the device plugin as a service of the machine, with a configuration in our format and
    /// further arguments.
    pub fn runs_plugin(&self, config: &str, arguments: &str) {
        self.machine.write(CONFIG, config);
        let program =
            std::fs::read(install::built().join("oci-hotplug-device-plugin")).expect("the device plugin");
        self.put(&program, &format!("cat > {PLUGIN} && chmod 0755 {PLUGIN}"));
        self.machine.run(&format!(
            "systemd-run --quiet --unit=device-plugin {LIMITS} {PLUGIN} --config {CONFIG} {arguments}"
        ));
    }

    /// Runs the device plugin with containerd as the pod of packaging/kubernetes's DaemonSet, with
    /// the image of packaging/image.sh. Its init container installs hooks and watcher on the node.
    pub fn runs_daemon_set(&self, config: &str) {
        self.machine.write(CONFIG, config);
        self.put(&image(), "ctr -n k8s.io images import -");
        self.machine
            .write("/etc/kubernetes/plugin.json", &daemon_sets_pod().to_string());
        self.machine
            .run(&format!("mv /etc/kubernetes/plugin.json {MANIFESTS}/plugin.json"));
        self.machine
            .wait_until("busybox wget -qO- http://127.0.0.1:8080/readyz");
    }

    /// Runs a shell command in the machine with `input` as its standard input.
    fn put(&self, content: &[u8], command: &str) {
        let output = self.machine.output_given(command, content);
        assert!(
            output.status.success(),
            "{command}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Waits until kubelet lists `count` healthy units of a resource.
    pub fn advertises(&self, resource: &str, count: usize) {
        let socket = self.machine.forward_socket(POD_RESOURCES);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let ask = || {
            let asked = async {
                let kubelet = Client::connect(&socket).await?;
                kubelet.unary(ALLOCATABLE, api::Empty {}).await
            };
            let said: Result<Allocatable, CallError> = runtime.block_on(asked);
            let devices = said.map_err(|error| error.to_string())?.devices.into_iter();
            let units = devices
                .filter(|devices| devices.resource_name == resource)
                .map(|devices| devices.device_ids.len());
            Ok::<usize, String>(units.sum())
        };
        let mut last = Ok(0);
        let is_so = poll(PATIENCE, || {
            last = ask();
            (last == Ok(count)).then_some(())
        });
        assert!(is_so.is_some(), "kubelet has {last:?} of {resource}, not {count}");
    }

    /// Starts a pod whose container has these limits (`example.com/serial: 1`), and waits until it
    /// runs.
    pub fn pod(&'a self, limits: &str) -> Pod<'a> {
        let name = self.machine.new_name("p");
        let idle = idle_with_shell(&name);
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
    command: [sh, -c, \"{idle}\"]
    securityContext: {{ capabilities: {{ add: [MKNOD] }} }}
    resources: {{ limits: {{ {limits} }} }}
"
        );
        self.machine.write(&format!("/etc/kubernetes/{name}"), &manifest);
        self.machine
            .run(&format!("mv /etc/kubernetes/{name} {MANIFESTS}/{name}.yaml"));
        let crictl = self.engine.crictl();
        let gone = until(&format!(
            "test -z \"$({})\"",
            running_containers(&on_this_node(&name))
        ));
        let pod = Pod {
            container: Container::new(
                self.machine,
                format!("{crictl} exec -i $(cat /run/test/{name})"),
                format!("rm {MANIFESTS}/{name}.yaml && {gone}"),
            )
            .with_shell(&name),
            node: self,
            name,
        };
        pod.runs();
        pod
    }

    /// Restarts kubelet, and waits until the new process knows the resource.
    pub fn restart_kubelet(&self, resource: &str) {
        self.machine.run("systemctl restart kubelet");
        self.machine
            .wait_until("busybox wget -qO- http://127.0.0.1:10255/healthz");
        // Its counters begin again. The checkpoint stays until the new process has something to
        // write.
        self.is_registered(resource, 0);
    }

    /// Ends the device plugin, and waits until the next one has registered the resource.
    pub fn restart_plugin(&self, resource: &str) {
        let before = self.machine.run(&registrations(resource));
        self.machine.run("kill $(pgrep -x oci-hotplug-dev)");
        self.is_registered(resource, before.parse().expect("a number"));
    }

    /// Waits until this kubelet has accepted more than `before` registrations of a resource.
    fn is_registered(&self, resource: &str, before: u32) {
        let now = registrations(resource);
        self.machine
            .wait_until(&format!("test \"$({now})\" -gt {before}"));
    }

    /// Waits until the running device plugin has logged these words.
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
             rm -rf /etc/kubernetes /var/lib/kubelet/device-plugins /run/cdi {PLUGIN}"
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
    /// Waits until the pod has a running container that is not the one of the last call.
    pub fn runs(&self) {
        let (name, ids) = (&self.name, running_containers(&on_this_node(&self.name)));
        self.node.machine.wait_until(&format!(
            "id=$({ids}) && test -n \"$id\" && ! grep -x \"$id\" /run/test/{name} && echo $id > /run/test/{name}"
        ));
    }

    /// Kills the pod's container, and waits until kubelet has started another one.
    pub fn is_killed_and_starts_again(&self) {
        self.is_killed();
        self.runs();
    }

    /// Kills the pod's container.
    pub fn is_killed(&self) {
        let crictl = self.node.engine.crictl();
        self.node.machine.run(&format!(
            "kill -9 $({crictl} inspect $(cat /run/test/{}) | jq .info.pid)",
            self.name
        ));
    }

    /// Waits until the pod's container is the one of the last call.
    pub fn still_runs(&self) {
        let (name, ids) = (&self.name, running_containers(&on_this_node(&self.name)));
        self.node
            .machine
            .wait_until(&format!("{ids} | cmp - /run/test/{name}"));
    }

    /// Starts a process inside that reads from an adapter.
    pub fn listens_to(&'a self, adapter: &Plugged, path: &str) -> Listener<'a> {
        // Before the container opens the adapter: bytes are lost while nothing is connected to the
        // other end.
        let mut line = adapter.line();
        self.run(&format!(
            "setsid sh -c 'exec 3<>{path}; stty raw -echo <&3; echo ready >&3; exec cat <&3' > /run/heard 2>&1 < /dev/null &"
        ));
        line.expect("ready");
        Listener { pod: self, line }
    }
}

impl Listener<'_> {
    /// Checks that the process that has read from the beginning receives a word that is sent now.
    pub fn hears(&mut self, word: &str) {
        self.line.send(&format!("{word}\n"));
        self.pod.wait_until(&format!("grep {word} /run/heard"));
    }
}
