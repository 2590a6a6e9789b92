//! config.json of a bundle.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Bundle, Dev, EngineDevice, MAPPED, Place};
use crate::framework::hook::Hook;
use crate::framework::machine::cgroup_parent;

impl Bundle<'_> {
    /// The bundle's config.json; `words` is the directory in which the container writes.
    pub(super) fn config(&self, words: &Path) -> Value {
        let mut config = json!({
            "ociVersion": "1.0.2",
            "hostname": "oci-hotplug-test",
            "root": { "path": "rootfs", "readonly": self.read_only },
            "process": self.process(),
            "mounts": self.mounts(words),
            "annotations": self.annotations,
            "hooks": self.hooks(),
            "linux": {
                "cgroupsPath": format!("/{}/{}", cgroup_parent(), self.cgroup()),
                "namespaces": self.namespaces(),
                "resources": { "devices": self.device_rules() },
                "devices": self.engine_devices.iter().map(EngineDevice::node).collect::<Vec<_>>(),
            },
        });
        if self.user_namespace {
            let map = json!([{ "containerID": 0, "hostID": MAPPED.0, "size": MAPPED.1 }]);
            config["linux"]["uidMappings"] = map.clone();
            config["linux"]["gidMappings"] = map;
        }
        config
    }

    fn process(&self) -> Value {
        let mut capabilities = vec!["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL"];
        capabilities.extend(&self.capabilities);
        let mut user = json!({ "uid": self.user.0, "gid": self.user.1 });
        if let Some(umask) = self.process_umask {
            user["umask"] = json!(umask);
        }
        json!({
            "terminal": false,
            "user": user,
            "args": ["/bin/init"],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
        })
    }

    fn mounts(&self, words: &Path) -> Value {
        let mut mounts = vec![
            json!({ "destination": "/proc", "type": "proc", "source": "proc" }),
            json!({ "destination": "/words", "type": "bind", "source": words, "options": ["bind"] }),
            json!({ "destination": "/nodes", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"] }),
        ];
        // sysfs belongs to a network namespace: a container with a user namespace may not mount the
        // host's.
        if !(self.user_namespace && self.host_network) {
            let access = if self.writable_sys { "rw" } else { "ro" };
            mounts.push(json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs",
                "options": ["nosuid", "noexec", "nodev", access] }));
        }
        for (source, destination) in &self.volumes {
            mounts.push(
                json!({ "destination": destination, "type": "bind", "source": source,
                "options": ["rbind", "rw"] }),
            );
        }
        match self.dev {
            Dev::Tmpfs => {
                mounts.push(json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                    "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] }));
                mounts.push(
                    json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                    "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] }),
                );
            }
            Dev::Host => mounts.push(json!({ "destination": "/dev", "type": "bind", "source": "/dev",
                "options": ["rbind", "rw"] })),
            Dev::Image => {}
        }
        json!(mounts)
    }

    fn hooks(&self) -> Value {
        let mut hooks = json!({});
        let prestart = self
            .prestart
            .iter()
            .map(|extra| Hook::prestart(self.machine, extra));
        hooks[self.stage] = prestart
            .map(|hook| hook.entry(&self.hook_environment, &self.hook_setup))
            .collect();
        if self.idle_hook {
            hooks[self.stage] = json!([{ "path": "/bin/true", "args": ["true"] }]);
        }
        if self.with_poststop {
            hooks["poststop"] =
                json!([Hook::poststop(self.machine).entry(&self.hook_environment, &self.hook_setup)]);
        }
        if let Some(limit) = self.hooks_die_after {
            for stage in [self.stage, "poststop"] {
                for entry in hooks[stage].as_array_mut().into_iter().flatten() {
                    kill_after(limit, entry);
                }
            }
        }
        for (stage, place, entry) in &self.foreign_hooks {
            let mut list = hooks[*stage].as_array().cloned().unwrap_or_default();
            let at = if *place == Place::Before { 0 } else { list.len() };
            list.insert(at, entry.clone());
            hooks[*stage] = json!(list);
        }
        hooks
    }

    fn namespaces(&self) -> Value {
        let mut kinds = vec!["pid", "ipc", "uts", "mount"];
        if !self.host_network {
            kinds.push("network");
        }
        kinds.retain(|kind| *kind != "pid" || !self.host_pids);
        if self.user_namespace {
            kinds.push("user");
        }
        kinds.into_iter().map(|kind| json!({ "type": kind })).collect()
    }

    fn device_rules(&self) -> Value {
        let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
        rules.extend(self.engine_devices.iter().map(EngineDevice::rule));
        json!(rules)
    }
}

impl EngineDevice {
    fn node(&self) -> Value {
        json!({ "path": self.path, "type": self.kind, "major": self.number.0, "minor": self.number.1,
            "fileMode": 0o640, "uid": 0, "gid": 0 })
    }

    fn rule(&self) -> Value {
        json!({ "allow": true, "type": self.kind, "major": self.number.0, "minor": self.number.1,
            "access": self.access })
    }
}

/// Changes a hook's entry so that timeout(1) kills it.
fn kill_after(limit: Duration, entry: &mut Value) {
    let mut arguments = vec![
        json!("timeout"),
        json!("--foreground"),
        json!("--signal=KILL"),
        json!(format!("{:.3}", limit.as_secs_f64())),
    ];
    arguments.extend(entry["args"].as_array().cloned().unwrap_or_default());
    entry["path"] = json!("/usr/bin/timeout");
    entry["args"] = json!(arguments);
}
