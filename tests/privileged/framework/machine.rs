//! The environment of one test: private mount and network namespaces with the requested cgroup
//! hierarchy, a scratch file system and no udevd, all removed afterwards. Does not know the
//! product's internals.
//!
//! The kernel sends uevents of devices to every network namespace. udevd sends its own only to the
//! network namespace in which it runs, and listens on a socket below /run. So a test and a udevd of
//! the host do not receive each other's messages, and a test starts its own udevd if it needs one.
//! The host's udevd still affects the devices of a test: it opens them for a moment, changes the
//! owner of nodes in /dev, and creates links there.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::kernel;

/// The cgroup hierarchy of the test's containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hierarchy {
    /// The devices controller of cgroup v1.
    V1,
    /// cgroup v2 with its device programs.
    V2,
}

/// A policy that allows partitions of loop devices and screens of virtual terminals to annotations.
pub const PERMISSIVE: &str =
    "[policy]\ndefault = \"anything\"\n[[policy.allow]]\ndevices = [\"subsystem:vc\"]\n";

const CGROUPS: &str = "/sys/fs/cgroup";
const UDEV: &str = "/run/udev";

/// Removes everything when its standard input ends.
const GUARD: &str = include_str!("guard.sh");

/// The environment of a test.
pub struct Machine {
    /// The hierarchy that runc uses here.
    pub hierarchy: Hierarchy,
    scratch: PathBuf,
    containers: Cell<u32>,
    /// Cleans up after this test, also if it is killed.
    guard: Child,
}

impl Hierarchy {
    /// Runs a test in an environment with this hierarchy.
    ///
    /// A thread can have its own mount namespace (unshare(2), CLONE_NEWNS implies CLONE_FS), in
    /// which its child processes run, too. So no process has to start itself again.
    pub fn run_test(self, test: fn(&Machine)) {
        let name = thread::current().name().unwrap_or("test").to_owned();
        let shown = thread::Builder::new()
            .name(name)
            .spawn(move || {
                let machine = Machine::prepare(self);
                test(&machine);
            })
            .expect("start the test's thread")
            .join();
        if let Err(panic) = shown {
            resume_unwind(panic);
        }
    }
}

impl Machine {
    /// Creates the environment for the calling thread, which stays in its namespaces.
    pub fn prepare(hierarchy: Hierarchy) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "these tests need root: run them with `sudo tests/run.sh --privileged`"
        );
        super::alone::begin();
        // If a test run is killed, a program that it started must not keep its locks.
        kernel::close_descriptors_on_exec().expect("keep inherited descriptors from what tests start");
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
            .expect("mount and network namespaces of our own");
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            None::<&str>,
        )
        .expect("make every mount private");
        match hierarchy {
            Hierarchy::V1 => prepare_v1(),
            Hierarchy::V2 => prepare_v2(),
        }
        let scratch = std::env::temp_dir().join(format!("oci-hotplug-test-{}", unique()));
        fs::create_dir_all(&scratch).expect("make the scratch directory");
        // Without `nodev` (which a distribution's /tmp may have), because images may have device
        // nodes.
        mount_tmpfs(&scratch, "mode=755");
        hide_udevd();
        let machine = Self {
            hierarchy,
            guard: start_guard(&scratch),
            scratch,
            containers: Cell::new(0),
        };
        for directory in ["bundles", "runc", "disks"] {
            fs::create_dir(machine.scratch.join(directory)).expect("make a scratch directory");
        }
        // Not the host's own configuration. This one only allows what the tests plug in, which is
        // not on USB, to annotations.
        machine.configure(PERMISSIVE);
        machine
    }

    /// A directory below the scratch file system, which is removed with the test.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    /// runc's `--root` in this test.
    pub fn runc_root(&self) -> PathBuf {
        self.scratch("runc")
    }

    /// The hooks' `--state-dir` in this test. The hooks create it.
    pub fn state_dir(&self) -> PathBuf {
        self.scratch("state")
    }

    /// Writes the configuration.
    pub fn configure(&self, text: &str) {
        fs::write(self.config(), text).expect("write a configuration");
    }

    /// The hooks' `--config` in this test: [`PERMISSIVE`] unless the test writes something else.
    pub fn config(&self) -> PathBuf {
        self.scratch("config.toml")
    }

    /// A container id that is unique on this host.
    pub fn fresh_id(&self) -> String {
        let number = self.containers.get();
        self.containers.set(number + 1);
        format!("oht-{}-{number}", unique())
    }

    /// The directory in sysfs of a cgroup below the tests' own (a container's has its id), in the
    /// hierarchy that controls device access.
    pub fn cgroup_of(&self, name: &str) -> PathBuf {
        let parent = cgroup_parent();
        match self.hierarchy {
            Hierarchy::V1 => Path::new(CGROUPS).join("devices").join(parent).join(name),
            Hierarchy::V2 => Path::new(CGROUPS).join(parent).join(name),
        }
    }

    /// All files that the product left in its state directory, except for the log and the list of
    /// refused starts.
    pub fn traces(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        collect_files(&self.state_dir(), &mut found);
        let containers = fs::read_dir(self.state_dir().join("containers"));
        found.extend(
            containers
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path()),
        );
        let stays = ["oci-hotplug.log", "refused-starts.json", "refused-starts.lock"];
        found.retain(|path| !stays.iter().any(|name| path.ends_with(name)));
        found.sort();
        found.dedup();
        found
    }

    /// The product's log on a host without a journal.
    pub fn log(&self) -> String {
        fs::read_to_string(self.state_dir().join("oci-hotplug.log")).unwrap_or_default()
    }

    /// The last lines of the product's log, for panic messages.
    pub fn end_of_log(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        format!(
            "the end of the product's log:\n{}",
            lines[lines.len().saturating_sub(8)..].join("\n")
        )
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("--- the product's log:\n{}", self.log());
            println!("--- state directory: {:#?}", self.traces());
        }
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// Starts the guard in the namespaces of this thread and in a separate process group: neither
/// ctrl-c nor a signal to the group of the tests reaches it.
fn start_guard(scratch: &Path) -> Child {
    Command::new("sh")
        .args([
            "-c",
            GUARD,
            "guard",
            &std::process::id().to_string(),
            &cgroup_parent(),
        ])
        .arg(scratch)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("start sh to clean up after the test")
}

/// A name that is unique to this process and thread, because tests run in parallel.
fn unique() -> String {
    format!(
        "{}-{}",
        std::process::id(),
        nix::unistd::gettid().as_raw() % 100_000
    )
}

fn collect_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => collect_files(&entry.path(), found),
            _ => found.push(entry.path()),
        }
    }
}

/// Mounts a new tmpfs on which device nodes work.
pub fn mount_tmpfs(target: &Path, options: &str) {
    mount(
        Some("tmpfs"),
        target,
        Some("tmpfs"),
        MsFlags::MS_NOSUID,
        Some(options),
    )
    .unwrap_or_else(|error| panic!("mount a tmpfs on {}: {error}", target.display()));
}

/// Mounts an empty /run/udev: in this namespace no udevd runs until a test starts one.
fn hide_udevd() {
    fs::create_dir_all(UDEV).expect("make /run/udev");
    mount_tmpfs(Path::new(UDEV), "mode=755");
}

fn prepare_v1() {
    if has_mount("/sys/fs/cgroup/devices", "cgroup") {
        return;
    }
    // A host with cgroup v2 only: the devices controller has no v2 part, so it can still be mounted
    // as v1 while nothing else does so.
    clear_cgroups();
    mount_tmpfs(Path::new(CGROUPS), "mode=755");
    for controller in ["devices", "freezer", "pids"] {
        let target = Path::new(CGROUPS).join(controller);
        fs::create_dir(&target).expect("make a mount point for a controller");
        let mounted = mount(
            Some("cgroup"),
            &target,
            Some("cgroup"),
            MsFlags::empty(),
            Some(controller),
        );
        if let Err(error) = mounted {
            let _ = fs::remove_dir(&target);
            assert!(
                controller != "devices",
                "this computer has no cgroup v1 devices controller mounted and it cannot be mounted either: {error}"
            );
        }
    }
}

fn prepare_v2() {
    let is_v2 = nix::sys::statfs::statfs(CGROUPS)
        .is_ok_and(|found| found.filesystem_type() == nix::sys::statfs::CGROUP2_SUPER_MAGIC);
    if !is_v2 {
        clear_cgroups();
        mount(
            Some("cgroup2"),
            CGROUPS,
            Some("cgroup2"),
            MsFlags::empty(),
            None::<&str>,
        )
        .expect("mount cgroup v2");
    }
    if !has_mount("/sys/fs/bpf", "bpf") {
        match mount(
            Some("bpf"),
            "/sys/fs/bpf",
            Some("bpf"),
            MsFlags::empty(),
            None::<&str>,
        ) {
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(error) => panic!("mount the BPF file system on /sys/fs/bpf: {error}"),
        }
    }
}

/// Unmounts everything at and below /sys/fs/cgroup, in this namespace only.
fn clear_cgroups() {
    while umount2(CGROUPS, MntFlags::MNT_DETACH).is_ok() {}
}

fn has_mount(point: &str, file_system: &str) -> bool {
    kernel::mountinfo().lines().any(|line| {
        let (left, right) = line
            .split_once(" - ")
            .expect("mountinfo has a separator (proc(5))");
        left.split(' ').nth(4) == Some(point) && right.split(' ').next() == Some(file_system)
    })
}

/// The parent of the test's cgroups, in every hierarchy.
pub fn cgroup_parent() -> String {
    format!("oci-hotplug-tests-{}", unique())
}

/// Makes `path` readable for everybody, because containers with a user namespace access it.
pub fn open_to_all(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("open a directory to all");
}
