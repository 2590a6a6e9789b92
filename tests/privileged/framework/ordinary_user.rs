//! An ordinary user of the host with rootless podman: a separate user id, subordinate ids, a home
//! and a runtime directory, all in the test's mount namespace. Does not know the product's
//! internals.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::container::text;
use super::eventually::{DEADLINE, eventually, within};
use super::hook::Hook;
use super::machine::{Machine, cgroup_parent, mount_tmpfs, open_to_all};

/// User ids that no distribution assigns.
const FIRST_UID: u32 = 61_184;

/// The first subordinate id, and how many each user has: enough for `--userns=auto`.
const FIRST_SUBORDINATE: u32 = 500_000_000;
const SUBORDINATES: u32 = 131_072;

/// How long a command may take, in seconds (timeout(1)).
const COMMAND_DEADLINE: &str = "60";

/// podman, without what a user has only in a session.
const PODMAN: [&str; 4] = [
    "podman",
    "--cgroup-manager=cgroupfs",
    "--events-backend=file",
    "--storage-driver=vfs",
];

static USERS: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// The nodes that the test of this thread has opened to everyone, with their inodes: another
    /// test may have a node with the same name by now.
    static OPEN_NODES: RefCell<BTreeMap<String, u64>> = const { RefCell::new(BTreeMap::new()) };
}

/// Lets everyone open a node of the host, as udev rules would.
pub fn let_everyone_open(node: &str) {
    set_open(node).expect("let everyone open a node");
    let inode = inode_of(node).expect("the node exists");
    OPEN_NODES.with_borrow_mut(|nodes| nodes.insert(node.to_owned(), inode));
}

/// Does it again: a udevd of the host sets the mode of a disk's node when a process that could
/// write closes it (udev(7), "watch").
fn keep_nodes_open() {
    OPEN_NODES.with_borrow(|nodes| {
        for (node, inode) in nodes {
            if inode_of(node) == Some(*inode) {
                // It may be unplugged.
                let _ = set_open(node);
            }
        }
    });
}

fn inode_of(node: &str) -> Option<u64> {
    Some(fs::symlink_metadata(node).ok()?.ino())
}

fn set_open(node: &str) -> std::io::Result<()> {
    fs::set_permissions(node, fs::Permissions::from_mode(0o666))
}

/// The user. Its containers and its processes of podman end with it. A test can have several, and
/// needs one for each mapping of ids: podman ends a container in the background, and sometimes
/// denies the next one with other ids the way to its root ("make … private: Permission denied").
pub struct OrdinaryUser<'m> {
    machine: &'m Machine,
    uid: u32,
    home: PathBuf,
    cgroup: PathBuf,
}

impl<'m> OrdinaryUser<'m> {
    /// Creates the user, and an image that has the host's `/usr`.
    pub fn new(machine: &'m Machine) -> Self {
        Self::with(machine, SUBORDINATES)
    }

    /// The same without subordinate ids: the user's containers have one user.
    pub fn without_subordinates(machine: &'m Machine) -> Self {
        Self::with(machine, 0)
    }

    fn with(machine: &'m Machine, subordinates: u32) -> Self {
        let number = USERS.fetch_add(1, Ordering::Relaxed);
        let uid = FIRST_UID + number;
        let user = Self {
            machine,
            uid,
            home: machine.scratch(&format!("home-{uid}")),
            cgroup: Path::new("/sys/fs/cgroup")
                .join(cgroup_parent())
                .join(format!("user-{uid}")),
        };
        let first = FIRST_SUBORDINATE + number * SUBORDINATES;
        let subordinates = match subordinates {
            0 => String::new(),
            count => format!("ordinary{uid}:{first}:{count}\n"),
        };
        let passwd = format!("ordinary{uid}:x:{uid}:{uid}::{}:/bin/sh\n", user.home.display());
        add_lines(machine, "passwd", &passwd);
        add_lines(machine, "group", &format!("ordinary{uid}:x:{uid}:\n"));
        add_lines(machine, "subuid", &subordinates);
        add_lines(machine, "subgid", &subordinates);
        if !user.programs().exists() {
            user.prepare_for_all();
        }
        for directory in [&user.home, &user.runtime_dir(), &user.cgroup] {
            fs::create_dir_all(directory).expect("make a directory of the user");
            chown(directory, Some(uid), Some(uid)).expect("give the user a directory");
        }
        chown(user.cgroup.join("cgroup.procs"), Some(uid), Some(uid)).expect("delegate a cgroup");
        user.import_image();
        user
    }

    /// Creates what the users of a test share.
    fn prepare_for_all(&self) {
        fs::create_dir_all("/run/user").expect("make /run/user");
        mount_tmpfs(Path::new("/run/user"), "mode=755");
        // The build directory may be in one that the user cannot enter.
        let programs = Hook::operator().command().get_program().to_owned();
        let programs = Path::new(&programs).parent().expect("the tool is in a directory");
        fs::create_dir(self.programs()).expect("make a directory for the programs");
        mount(
            Some(programs),
            &self.programs(),
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .expect("show the programs to the user");
        self.write_hooks();
    }

    /// The hook's files for podman (`oci-hooks(5)`), for containers with one of our annotations.
    fn write_hooks(&self) {
        fs::create_dir(self.hooks()).expect("make a directory for hooks");
        for (program, stage) in [
            ("oci-hotplug-prestart", "createRuntime"),
            ("oci-hotplug-poststop", "poststop"),
        ] {
            let hook = json!({
                "version": "1.0.0",
                "hook": {
                    "path": self.programs().join(program),
                    "args": [program, "--config", self.machine.config()],
                    "timeout": 15,
                },
                "when": { "always": true },
                "stages": [stage],
            });
            let file = self.hooks().join(format!("{program}.json"));
            fs::write(file, hook.to_string()).expect("write a hook's file");
        }
    }

    fn import_image(&self) {
        let tree = self.home.join("image");
        for directory in ["usr", "proc", "sys", "dev", "run", "tmp", "etc"] {
            fs::create_dir_all(tree.join(directory)).expect("make the image's tree");
        }
        for link in ["bin", "sbin", "lib", "lib64"] {
            std::os::unix::fs::symlink(format!("usr/{link}"), tree.join(link))
                .expect("make a link of the image");
        }
        let archive = self.home.join("image.tar");
        let packed = Command::new("tar")
            .arg("-cf")
            .arg(&archive)
            .arg("-C")
            .arg(&tree)
            .arg(".")
            .status();
        assert!(packed.expect("start tar").success(), "pack the image");
        open_to_all(&archive);
        let archive = archive.to_str().expect("scratch paths are text").to_owned();
        self.podman(&["import", &archive, "host"]);
    }

    fn hooks(&self) -> PathBuf {
        self.machine.scratch("hooks.d")
    }

    /// The directory of the product's programs, as the user sees it.
    pub fn programs(&self) -> PathBuf {
        self.machine.scratch("programs")
    }

    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Writes a file of the user, with the directories above it in the home directory.
    pub fn write(&self, path: &str, text: &str) {
        let file = self.home.join(path);
        let directory = file.parent().expect("a file is in a directory");
        fs::create_dir_all(directory).expect("make a directory of the user");
        fs::write(&file, text).expect("write a file of the user");
        let made = file.ancestors().take_while(|path| *path != self.home);
        for path in made {
            chown(path, Some(self.uid), Some(self.uid)).expect("give the user a file");
        }
    }

    /// `XDG_RUNTIME_DIR` of the user.
    pub fn runtime_dir(&self) -> PathBuf {
        format!("/run/user/{}", self.uid).into()
    }

    /// The product's state directory of this user.
    pub fn state_dir(&self) -> PathBuf {
        self.runtime_dir().join("oci-hotplug")
    }

    /// The product's log of this user.
    pub fn log(&self) -> String {
        fs::read_to_string(self.state_dir().join("oci-hotplug.log")).unwrap_or_default()
    }

    /// The containers that the product still has in its state directory.
    pub fn traces(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.state_dir().join("containers"));
        let entries = entries.into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }

    /// Runs a program as this user.
    pub fn run(&self, words: &[&str]) -> Output {
        let script = "echo 0 >\"$0\"/cgroup.procs && cd \"$1\" && shift && exec setpriv \"$@\"";
        let (uid, home) = (self.uid.to_string(), self.home.display().to_string());
        let runtime_dir = format!("XDG_RUNTIME_DIR={}", self.runtime_dir().display());
        Command::new("timeout")
            .args(["--signal=KILL", COMMAND_DEADLINE, "sh", "-c", script])
            .arg(&self.cgroup)
            .args([&home, "--reuid", &uid, "--regid", &uid, "--clear-groups", "--"])
            .args([
                "env",
                "-i",
                &format!("HOME={home}"),
                &format!("USER=ordinary{uid}"),
                &runtime_dir,
            ])
            .arg("PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin")
            .args(words)
            .output()
            .expect("start a program as an ordinary user")
    }

    /// Runs podman, which may fail.
    pub fn try_podman(&self, words: &[&str]) -> Output {
        self.run(&[&PODMAN, words].concat())
    }

    /// The output of podman, which must succeed.
    #[track_caller]
    pub fn podman(&self, words: &[&str]) -> String {
        let output = self.try_podman(words);
        assert!(
            output.status.success(),
            "podman {words:?}: {}\nthe product's log:\n{}",
            text(&output),
            self.log()
        );
        text(&output)
    }

    /// Starts a container that sleeps; the outcome of podman. `options` are those of `podman run`.
    pub fn try_start(&self, runtime: &str, name: &str, options: &[&str], requests: &str) -> Output {
        self.try_start_in(&[], runtime, name, options, requests)
    }

    /// Starts a container that sleeps, with runc, by a podman in a separate network namespace:
    /// rootless Docker has one (rootlesskit). The container shares it.
    #[track_caller]
    pub fn start_in_separate_network(&self, name: &str, requests: &str) -> RootlessContainer<'_> {
        let namespace = ["podman", "unshare", "unshare", "--net"];
        let output = self.try_start_in(&namespace, "runc", name, &["--network=host"], requests);
        assert!(output.status.success(), "{}\n{}", text(&output), self.log());
        RootlessContainer {
            user: self,
            name: name.to_owned(),
        }
    }

    /// `namespace` are the words of a command that runs podman elsewhere.
    fn try_start_in(
        &self,
        namespace: &[&str],
        runtime: &str,
        name: &str,
        options: &[&str],
        requests: &str,
    ) -> Output {
        let hooks = self.hooks().display().to_string();
        let annotation = format!("io.oci-hotplug.devices={requests}");
        let mut words = [namespace, &PODMAN].concat();
        words.extend(["--runtime", runtime, "--hooks-dir", &hooks]);
        words.extend(["run", "-d", "--name", name, "--volume", "/usr:/usr:ro"]);
        if !requests.is_empty() {
            words.extend(["--annotation", &annotation]);
        }
        words.extend(options);
        words.extend(["host", "sleep", "1000"]);
        self.run(&words)
    }

    /// Starts a container that sleeps, with crun.
    #[track_caller]
    pub fn start(&self, name: &str, options: &[&str], requests: &str) -> RootlessContainer<'_> {
        self.start_by("crun", name, options, requests)
    }

    /// The same with another runtime.
    #[track_caller]
    pub fn start_by(
        &self,
        runtime: &str,
        name: &str,
        options: &[&str],
        requests: &str,
    ) -> RootlessContainer<'_> {
        let mut output = self.try_start(runtime, name, options, requests);
        // With --privileged, podman lists the host's devices, and a disk of another test can be
        // unplugged before crun mounts it.
        while text(&output).contains("error stat'ing file `/dev/loop") {
            self.podman(&["rm", "--force", name]);
            output = self.try_start(runtime, name, options, requests);
        }
        assert!(
            output.status.success(),
            "start {name} {options:?} {requests:?}: {}\nthe product's log:\n{}",
            text(&output),
            self.log()
        );
        RootlessContainer {
            user: self,
            name: name.to_owned(),
        }
    }

    /// Runs the operator's tool as this user.
    pub fn tool(&self, words: &[&str]) -> Output {
        let program = self.programs().join("oci-hotplug").display().to_string();
        let config = self.machine.config().display().to_string();
        let mut all = vec![program.as_str()];
        all.extend(words);
        all.extend(["--config", &config]);
        self.run(&all)
    }

    /// The output of the operator's tool, which must succeed.
    #[track_caller]
    pub fn output_of(&self, words: &[&str]) -> String {
        let output = self.tool(words);
        assert!(
            output.status.success(),
            "{words:?}: {}\nthe product's log:\n{}",
            text(&output),
            self.log()
        );
        text(&output)
    }

    /// Ends all processes that the user has started, and waits for their end.
    fn end_processes(&self) {
        // Before Linux 5.14 this fails, and only podman's processes that are at their end remain.
        let _ = fs::write(self.cgroup.join("cgroup.kill"), "1");
        self.end_namespaces();
        let events = self.cgroup.join("cgroup.events");
        let has_ended = || {
            let events = fs::read_to_string(&events).ok()?;
            events.contains("populated 0").then_some(())
        };
        let _ = within(DEADLINE, has_ended);
    }

    /// Ends podman's namespaces, which a process that it started keeps. Its next call makes new
    /// ones, with the mounts that this mount namespace has then.
    pub fn end_namespaces(&self) {
        let pause = self.runtime_dir().join("libpod/tmp/pause.pid");
        let pid = fs::read_to_string(pause)
            .ok()
            .and_then(|text| text.trim().parse().ok());
        if let Some(pid) = pid {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

impl Drop for OrdinaryUser<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("--- the user's log:\n{}", self.log());
        }
        let hooks = self.hooks().display().to_string();
        let _ = self.try_podman(&["--hooks-dir", &hooks, "rm", "--all", "--force", "--time", "0"]);
        self.end_processes();
        // podman's process that cleans up after a container makes it.
        let _ = fs::remove_dir_all(format!("/tmp/containers-user-{}", self.uid));
    }
}

/// A container of an ordinary user.
pub struct RootlessContainer<'u> {
    user: &'u OrdinaryUser<'u>,
    pub name: String,
}

impl RootlessContainer<'_> {
    /// Runs a command line in the container as its root.
    pub fn exec(&self, command: &str) -> Output {
        let words = ["exec", "--user", "0", &self.name, "sh", "-c", command];
        self.user.try_podman(&words)
    }

    /// The host's process id of init.
    pub fn pid(&self) -> i32 {
        let pid = self
            .user
            .podman(&["inspect", "--format", "{{.State.Pid}}", &self.name]);
        pid.trim().parse().expect("podman prints a number")
    }

    /// Waits until the first line of a device can be read inside.
    #[track_caller]
    pub fn eventually_reads(&self, node: &str, content: &str) {
        let line = format!("head -n 1 {node}");
        eventually(&format!("{} reads {node}", self.name), || {
            keep_nodes_open();
            text(&self.exec(&line)).trim() == content
        });
    }

    /// Waits until nothing is at a path.
    #[track_caller]
    pub fn eventually_lacks(&self, path: &str) {
        let line = format!("[ ! -e {path} ] && [ ! -L {path} ]");
        eventually(&format!("{} has no {path}", self.name), || {
            self.exec(&line).status.success()
        });
    }

    /// The watcher's process id, by the lock of the container's record.
    pub fn watcher(&self) -> Option<i32> {
        let id = self.user.podman(&["inspect", "--format", "{{.Id}}", &self.name]);
        let lock = self
            .user
            .state_dir()
            .join("containers")
            .join(id.trim())
            .join("lock");
        let lock: serde_json::Value = serde_json::from_str(&fs::read_to_string(lock).ok()?).ok()?;
        i32::try_from(lock["pid"].as_i64()?).ok()
    }

    /// Kills the container's watcher.
    #[track_caller]
    pub fn kill_watcher(&self) {
        let watcher = self.watcher().expect("the container has a watcher");
        kill(Pid::from_raw(watcher), Signal::SIGKILL).expect("kill the watcher");
    }

    /// Waits until the user's list says that the container has no watcher, and starts the next one.
    #[track_caller]
    pub fn is_recovered(&self) {
        eventually("the watcher has ended", || {
            self.user.output_of(&["list"]).contains("no watcher")
        });
        self.user.output_of(&["recover"]);
    }

    /// Stops and removes the container, and waits until the product has forgotten it.
    #[track_caller]
    pub fn remove(self) {
        let hooks = self.user.hooks().display().to_string();
        let words = ["--hooks-dir", &hooks, "rm", "--force", "--time", "0", &self.name];
        self.user.podman(&words);
        eventually("no record of the container is left", || {
            self.user.traces().is_empty()
        });
    }
}

/// Adds lines to a file of /etc in this mount namespace only.
fn add_lines(machine: &Machine, name: &str, lines: &str) {
    let target = Path::new("/etc").join(name);
    let before = fs::read_to_string(&target).unwrap_or_default();
    let copy = machine.scratch(name);
    fs::write(&copy, before + lines).expect("write a file for /etc");
    open_to_all(&copy);
    mount(Some(&copy), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .unwrap_or_else(|error| panic!("mount on {}: {error}", target.display()));
}
