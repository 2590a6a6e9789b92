//! Creates OCI bundles: a busybox image and a config.json with our hooks. Does not know runc.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, mknod};
use serde_json::{Value, json};

use super::container::{Refusal, RuncContainer, runtime};
use super::disk::number_of;
use super::hook::Hook;
use super::machine::{Machine, cgroup_parent, open_to_all};

/// The first host id of the user namespace's map, and how many ids it has.
pub const MAPPED: (u32, u32) = (100_000, 65_536);

/// The process of every container: waits without a child process, writes what signals it got, and
/// ends on SIGTERM.
const INIT: &str = "\
#!/bin/sh
exec </dev/null >/dev/null 2>&1
trap 'echo stopped >/words/last; exit 0' TERM
trap 'echo usr1 >/words/last' USR1
echo listening >/words/last
while :; do sleep 3600 & wait $!; kill $!; done
";

const APPLETS: [&str; 18] = [
    "sh", "cat", "chmod", "dd", "grep", "head", "id", "kill", "ln", "ls", "mkdir", "mkfifo", "mknod", "mv",
    "readlink", "rm", "sleep", "stat",
];

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

    fn config(&self, words: &Path) -> Value {
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

/// Mounts the host's root file system with a writable layer, which is on the scratch file system.
/// `/run` is empty, as in an image: on a host where it is not a mount, it has udevd's database.
fn layer_over_host(rootfs: &Path) {
    let parent = rootfs.parent().expect("a bundle has a directory");
    let [upper, work] = ["upper", "work"].map(|name| parent.join(name));
    for directory in [&upper, &work, &rootfs.to_owned()] {
        fs::create_dir_all(directory).expect("make a directory for a layer");
    }
    open_to_all(parent);
    // A device 0:0 in the writable layer hides the file below it
    // (Documentation/filesystems/overlayfs.rst).
    mknod(&upper.join("run"), SFlag::S_IFCHR, Mode::empty(), 0).expect("hide the host's /run");
    let options = format!(
        "lowerdir=/,upperdir={},workdir={}",
        upper.display(),
        work.display()
    );
    let overlay = Some("overlay");
    mount(overlay, rootfs, overlay, MsFlags::empty(), Some(options.as_str())).expect("mount an overlay");
    fs::create_dir(rootfs.join("run")).expect("make the image's /run");
    let init = rootfs.join("bin/init");
    fs::write(&init, INIT).expect("write the image's init");
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).expect("make a program executable");
}

fn unpack_image(rootfs: &Path) {
    for directory in ["bin", "dev", "proc", "sys", "words", "nodes", "tmp"] {
        fs::create_dir_all(rootfs.join(directory)).expect("make a directory of the image");
    }
    let parent = rootfs.parent().expect("a bundle has a directory");
    open_to_all(parent);
    open_to_all(rootfs);
    let busybox = rootfs.join("bin/busybox");
    let source = ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    fs::copy(
        source.expect("busybox is not installed: apt-get install busybox-static"),
        &busybox,
    )
    .expect("copy busybox");
    for applet in APPLETS {
        symlink("busybox", rootfs.join("bin").join(applet)).expect("link an applet");
    }
    let init = rootfs.join("bin/init");
    fs::write(&init, INIT).expect("write the image's init");
    for program in [busybox, init] {
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("make a program executable");
    }
}

fn give_to_mapped_root(path: &Path) {
    lchown(path, Some(MAPPED.0), Some(MAPPED.0)).expect("give the image to the mapped root");
    if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
        for entry in fs::read_dir(path).expect("list the image").flatten() {
            give_to_mapped_root(&entry.path());
        }
    }
}
