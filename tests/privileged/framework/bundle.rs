//! Creates OCI bundles: a busybox image and a config.json with our hooks. Does not know runc.

mod config;
mod image;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use self::image::{give_to_mapped_root, layer_over_host, unpack_image};
use super::container::{Refusal, RuncContainer, runtime};
use super::disk::number_of;
use super::machine::Machine;

/// The first host id of the user namespace's map, and how many ids it has.
pub const MAPPED: (u32, u32) = (100_000, 65_536);

/// A bundle to be written. Each method changes one thing of a small, well-behaved container with
/// our two hooks.
pub struct Bundle<'m> {
    machine: &'m Machine,
    pub id: String,
    annotations: serde_json::Map<String, Value>,
    prestart: Vec<Vec<String>>,
    stage: &'static str,
    with_poststop: bool,
    idle_hook: bool,
    hook_environment: Vec<String>,
    hooks_die_after: Option<Duration>,
    foreign_hooks: Vec<(&'static str, Place, Value)>,
    below: Option<String>,
    shared_cgroup: Option<String>,
    hook_setup: String,
    engine_devices: Vec<EngineDevice>,
    capabilities: Vec<&'static str>,
    user_namespace: bool,
    dev: Dev,
    host_network: bool,
    host_pids: bool,
    read_only: bool,
    writable_sys: bool,
    host_image: bool,
    volumes: Vec<(PathBuf, &'static str)>,
    user: (u32, u32),
    process_umask: Option<u32>,
    caller_umask: Option<u32>,
    runtime: PathBuf,
}

/// A device that the engine gives the container: a node and rules in config.json.
struct EngineDevice {
    path: String,
    kind: &'static str,
    number: (u32, u32),
    access: String,
}

/// The position of a hook that is not ours.
#[derive(Clone, Copy, PartialEq)]
pub enum Place {
    /// Before ours, in the same stage.
    Before,
    /// After ours.
    After,
}

/// The container's /dev.
#[derive(PartialEq)]
enum Dev {
    Tmpfs,
    Host,
    Image,
}

impl<'m> Bundle<'m> {
    /// A container with our hooks that requests nothing yet.
    pub fn new(machine: &'m Machine) -> Self {
        Self {
            machine,
            id: machine.fresh_id(),
            annotations: serde_json::Map::new(),
            prestart: vec![Vec::new()],
            stage: "createRuntime",
            with_poststop: true,
            idle_hook: false,
            hook_environment: Vec::new(),
            hooks_die_after: None,
            foreign_hooks: Vec::new(),
            below: None,
            shared_cgroup: None,
            hook_setup: String::new(),
            engine_devices: Vec::new(),
            capabilities: Vec::new(),
            user_namespace: false,
            dev: Dev::Tmpfs,
            host_network: false,
            host_pids: false,
            read_only: false,
            writable_sys: false,
            host_image: false,
            volumes: Vec::new(),
            user: (0, 0),
            process_umask: None,
            caller_umask: None,
            runtime: PathBuf::from("runc"),
        }
    }

    /// A container with our hooks and the value `requests` of the annotation
    /// `io.oci-hotplug.devices`.
    pub fn requesting(machine: &'m Machine, requests: &str) -> Self {
        Self::new(machine).annotation("io.oci-hotplug.devices", requests)
    }

    /// Adds an annotation.
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), json!(value));
        self
    }

    /// Without hooks: what runc does alone.
    pub fn without_hooks(mut self) -> Self {
        self.prestart.clear();
        self.with_poststop = false;
        self
    }

    /// Instead of our hooks, one that does nothing: what any hook costs.
    #[allow(dead_code, reason = "for the benchmark")]
    pub fn idle_hook(mut self) -> Self {
        self.prestart.clear();
        self.with_poststop = false;
        self.idle_hook = true;
        self
    }

    /// Without a poststop hook.
    pub fn without_poststop(mut self) -> Self {
        self.with_poststop = false;
        self
    }

    /// One prestart hook for each of these requests, with the argument `--device`, as several CDI
    /// devices would give.
    pub fn hook_for_each(mut self, requests: &[&str]) -> Self {
        let arguments = |request: &&str| vec!["--device".to_owned(), (*request).to_owned()];
        self.prestart = requests.iter().map(arguments).collect();
        self
    }

    /// More arguments for the last prestart hook.
    pub fn hook_arguments(mut self, arguments: &[&str]) -> Self {
        let last = self.prestart.last_mut().expect("a container with hooks");
        last.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// The hook in the old stage `prestart`.
    pub fn old_stage(mut self) -> Self {
        self.stage = "prestart";
        self
    }

    /// A variable of the hooks' environment in config.json.
    pub fn hook_environment(mut self, variable: &str) -> Self {
        self.hook_environment.push(variable.to_owned());
        self
    }

    /// Our hooks are killed after this time.
    pub fn hooks_killed_after(mut self, limit: Duration) -> Self {
        self.hooks_die_after = Some(limit);
        self
    }

    /// A hook that is not ours: a command line for the shell, which gets the state on its standard
    /// input.
    pub fn foreign_hook(mut self, stage: &'static str, place: Place, script: &str) -> Self {
        let entry = json!({ "path": "/bin/sh", "args": ["sh", "-c", script] });
        self.foreign_hooks.push((stage, place, entry));
        self
    }

    /// The container's cgroup is below this one of the tests.
    pub fn below_cgroup(mut self, name: &str) -> Self {
        self.below = Some(name.to_owned());
        self
    }

    /// The container's cgroup is this one of the tests, which others may use, too.
    pub fn in_cgroup(mut self, name: &str) -> Self {
        self.shared_cgroup = Some(name.to_owned());
        self
    }

    /// The hooks are started by a shell that first runs these commands.
    pub fn hooks_after(mut self, setup: &str) -> Self {
        setup.clone_into(&mut self.hook_setup);
        self
    }

    /// A device of the host that the engine gives the container, with node and rule; `access` is
    /// like `rwm`.
    pub fn engine_device(mut self, path: &str, access: &str) -> Self {
        let metadata = fs::metadata(path).unwrap_or_else(|error| panic!("stat {path}: {error}"));
        let is_block = metadata.mode() & nix::libc::S_IFMT == nix::libc::S_IFBLK;
        self.engine_devices.push(EngineDevice {
            path: path.to_owned(),
            kind: if is_block { "b" } else { "c" },
            number: number_of(path),
            access: access.to_owned(),
        });
        self
    }

    /// A capability in addition to the usual ones.
    pub fn capability(mut self, name: &'static str) -> Self {
        self.capabilities.push(name);
        self
    }

    /// A user namespace: ids of the container start at 100000 on the host.
    pub fn user_namespace(self) -> Self {
        self.with_user_namespace(true)
    }

    /// The same for a test that runs with and without one.
    pub fn with_user_namespace(mut self, user_namespace: bool) -> Self {
        self.user_namespace = user_namespace;
        self
    }

    /// `-v /dev:/dev`: the container sees the host's devtmpfs.
    pub fn host_dev(mut self) -> Self {
        self.dev = Dev::Host;
        self
    }

    /// /dev is a directory of the image, with its content.
    pub fn image_dev(mut self) -> Self {
        self.dev = Dev::Image;
        self
    }

    /// The host's network namespace.
    pub fn host_network(mut self) -> Self {
        self.host_network = true;
        self
    }

    /// The host's pid namespace.
    pub fn host_pids(mut self) -> Self {
        self.host_pids = true;
        self
    }

    /// A read-only root file system.
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// A writable sysfs, as privileged containers have it.
    pub fn writable_sys(mut self) -> Self {
        self.writable_sys = true;
        self
    }

    /// The image is the host's root file system, with a writable layer over it: the container has
    /// the host's programs.
    pub fn host_image(mut self) -> Self {
        self.host_image = true;
        self
    }

    /// `-v SOURCE:DESTINATION`.
    pub fn volume(mut self, source: &Path, destination: &'static str) -> Self {
        self.volumes.push((source.to_owned(), destination));
        self
    }

    /// The ids of the container's process, as it sees them.
    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        self.user = (uid, gid);
        self
    }

    /// The umask of the container's process.
    pub fn process_umask(mut self, umask: u32) -> Self {
        self.process_umask = Some(umask);
        self
    }

    /// The umask of the process that starts the runtime, which the hooks inherit.
    pub fn caller_umask(mut self, umask: u32) -> Self {
        self.caller_umask = Some(umask);
        self
    }

    /// The program that is called in place of runc to create the container. It has runc's command
    /// line and wraps runc.
    #[allow(dead_code, reason = "for the benchmark")]
    pub fn runtime(mut self, program: &Path) -> Self {
        program.clone_into(&mut self.runtime);
        self
    }

    /// The directory of the bundle, which may not exist yet.
    pub fn directory(&self) -> PathBuf {
        self.machine.scratch("bundles").join(&self.id)
    }

    /// The root of the image, created at once so that a test can add files.
    pub fn rootfs(&self) -> PathBuf {
        let rootfs = self.directory().join("rootfs");
        if !rootfs.exists() {
            if self.host_image {
                layer_over_host(&rootfs);
            } else {
                unpack_image(&rootfs);
            }
        }
        rootfs
    }

    /// The container's cgroup below that of the tests.
    fn cgroup(&self) -> String {
        match (&self.shared_cgroup, &self.below) {
            (Some(name), _) => name.clone(),
            (None, Some(above)) => format!("{above}/{}", self.id),
            (None, None) => self.id.clone(),
        }
    }

    /// Writes the bundle, then creates and starts the container.
    #[track_caller]
    pub fn start(self) -> RuncContainer<'m> {
        let container = self.create();
        container.start();
        container
    }

    /// Writes the bundle and creates the container, which then waits for its start.
    #[track_caller]
    pub fn create(self) -> RuncContainer<'m> {
        match self.try_create() {
            Ok(container) => container,
            Err(refusal) => panic!("runc create failed: {refusal:?}"),
        }
    }

    /// Writes the bundle and lets runc try to create the container.
    pub fn try_create(self) -> Result<RuncContainer<'m>, Refusal> {
        self.write();
        let words = self.directory().join("words");
        RuncContainer::create(
            self.machine,
            &self.id,
            &self.cgroup(),
            &self.directory(),
            words,
            runtime(&self.runtime, self.machine, self.caller_umask),
        )
    }

    /// Writes the bundle.
    pub fn write(&self) {
        let rootfs = self.rootfs();
        let words = self.directory().join("words");
        fs::create_dir_all(&words).expect("make a directory");
        fs::set_permissions(&words, fs::Permissions::from_mode(0o777)).expect("open a directory to all");
        if self.user_namespace {
            give_to_mapped_root(&rootfs);
        }
        let config = serde_json::to_vec_pretty(&self.config(&words)).expect("config.json is JSON");
        fs::write(self.directory().join("config.json"), config).expect("write config.json");
    }
}
