//! The options of a test's container, in the format of each engine.

use serde_json::{Map, Value, json};

/// What a container of [`Setup::lab`] mounts from the machine, read-only: programs (udevadm,
/// python3 with pyudev). The watcher gives it a udev database.
const TOOLS: [(&str, &str); 5] = [
    ("/usr", "/usr"),
    ("/usr/lib", "/lib"),
    ("/usr/lib64", "/lib64"),
    ("/usr/sbin", "/sbin"),
    ("/etc/ld.so.cache", "/etc/ld.so.cache"),
];

/// How a container differs from the engine's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Around {
    /// All rights of the machine's root, and every device.
    Privileged,
    /// The machine's /dev.
    HostDev,
    /// The machine's network.
    HostNetwork,
    /// A read-only root file system.
    ReadOnly,
}

/// The options of a container.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    annotations: Map<String, Value>,
    cdi: Vec<&'static str>,
    lab: bool,
    around: Option<Around>,
}

impl Setup {
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.into(), json!(value));
        self
    }

    /// Adds a CDI device by its name.
    pub fn cdi(mut self, name: &'static str) -> Self {
        self.cdi.push(name);
        self
    }

    /// Adds a read-only device of the engine, /dev/fuse; the machine's programs; and a network
    /// namespace, so that a udev client receives only what is announced in it.
    pub fn lab(mut self) -> Self {
        self.lab = true;
        self
    }

    /// Sets how the container differs from the engine's default.
    pub fn around(mut self, around: Around) -> Self {
        self.around = Some(around);
        self
    }

    /// The options of `podman run` and `docker run`.
    pub fn options(&self) -> String {
        let annotations = self.annotations.iter().map(|(key, value)| {
            format!(
                "--annotation '{key}={}' ",
                value.as_str().expect("annotations are strings")
            )
        });
        let devices = self.cdi.iter().map(|name| format!("--device {name} "));
        let mounts = self.tools().map(|(from, to)| format!("-v {from}:{to}:ro "));
        let fuse = self.lab.then(|| "--device /dev/fuse:/dev/fuse:r".to_owned());
        let around = self.around.map(|around| match around {
            Around::Privileged => " --privileged",
            Around::HostDev => " -v /dev:/dev",
            Around::HostNetwork => " --network host",
            Around::ReadOnly => " --read-only",
        });
        annotations
            .chain(devices)
            .chain(mounts)
            .chain(fuse)
            .chain(around.map(str::to_owned))
            .collect()
    }

    /// A pod and its only container, as kubelet describes them to an engine.
    pub fn pod(&self, name: &str, command: &[&str]) -> (Value, Value) {
        // A pod's own network only where a test needs it: the machine's costs less time.
        let is_own = self.lab || self.around.is_some_and(|around| around != Around::HostNetwork);
        let network = if is_own { 0 } else { 2 };
        let security = json!({ "namespace_options": { "network": network, "pid": 1 },
            "capabilities": { "add_capabilities": ["MKNOD"] },
            "privileged": self.around == Some(Around::Privileged),
            "readonly_rootfs": self.around == Some(Around::ReadOnly) });
        let sandbox = json!({ "metadata": { "name": name, "namespace": "tests", "uid": name },
            "annotations": self.annotations, "log_directory": format!("/var/log/pods/{name}"),
            "linux": { "cgroup_parent": "tests.slice", "security_context": security } });
        let devices: Vec<Value> = self.cdi.iter().map(|name| json!({ "name": name })).collect();
        let dev = (self.around == Some(Around::HostDev))
            .then(|| json!({ "host_path": "/dev", "container_path": "/dev" }));
        let mounts: Vec<Value> = self
            .tools()
            .map(|(from, to)| json!({ "host_path": from, "container_path": to, "readonly": true }))
            .chain(dev)
            .collect();
        let fuse: &[Value] =
            &[json!({ "host_path": "/dev/fuse", "container_path": "/dev/fuse", "permissions": "r" })];
        let container = json!({ "metadata": { "name": name }, "image": { "image": "localhost/box:latest" },
            "log_path": "log", "command": command, "annotations": self.annotations, "CDI_devices": devices,
            "mounts": mounts, "devices": if self.lab { fuse } else { &[] }, "linux": { "security_context": security } });
        (sandbox, container)
    }

    /// What a config.json gets in addition.
    pub fn config(&self) -> Value {
        let mounts: Vec<Value> = self
            .tools()
            .map(|(from, to)| json!({ "source": from, "destination": to, "type": "bind", "options": ["rbind", "ro"] }))
            .collect();
        let fuse: &[Value] =
            &[json!({ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666 })];
        let rule: &[Value] =
            &[json!({ "allow": true, "type": "c", "major": 10, "minor": 229, "access": "r" })];
        json!({ "annotations": self.annotations, "mounts": mounts,
            "devices": if self.lab { fuse } else { &[] }, "rules": if self.lab { rule } else { &[] } })
    }

    fn tools(&self) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
        TOOLS.iter().filter(|_| self.lab)
    }
}
