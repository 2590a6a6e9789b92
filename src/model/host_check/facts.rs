//! What is known of a host, before anything is thought of it.

use std::path::PathBuf;

use super::engine_config::{ContainerdConfig, CriOConfig, DockerConfig, HookDefinition};
use super::version::Version;

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// What only the running kernel can tell; `None` when files alone were looked at.
    pub live: Option<Live>,
    /// The kernel's release, such as `6.12.48+deb13-amd64`; empty when it is not known.
    pub kernel: String,
    /// Where the cgroup hierarchies are.
    pub cgroups: Cgroups,
    /// Who tells of devices, beside the kernel.
    pub udevd: Udevd,
    /// Whether SELinux enforces; `None`: there is none.
    pub selinux: Option<bool>,
    /// Whether AppArmor is on.
    pub apparmor: bool,
    /// `fs.inotify.max_user_instances`.
    pub inotify_instances: Option<u64>,
    /// The state directory.
    pub state: StateDir,
    /// The configuration, or why it can't be used.
    pub configuration: Result<Configuration, String>,
    /// The hooks and the watcher.
    pub programs: Programs,
    /// Whether systemd runs the host, and has our units.
    pub systemd: Systemd,
    /// CDI specs.
    pub cdi: Cdi,
    /// Engines that are installed.
    pub engines: Engines,
    /// Runtimes that are installed: the name, and the version as far as it is known.
    pub runtimes: Vec<(&'static str, Option<Version>)>,
    /// Containers that were enrolled.
    pub containers: Containers,
}

/// What the running kernel tells a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// The user who asks.
    pub uid: u32,
    /// Why a trivial device program can't be loaded, if it can't.
    pub bpf_error: Option<String>,
}

/// Where cgroup hierarchies are mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cgroups {
    /// The v1 hierarchy with the `devices` controller.
    pub v1_devices: Option<PathBuf>,
    /// Whether there is any other v1 hierarchy.
    pub other_v1: bool,
    /// The v2 hierarchy.
    pub v2: Option<PathBuf>,
}

/// A udevd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Udevd {
    /// It listens.
    Running,
    /// It left its socket behind.
    Silent,
    /// There is none.
    Absent,
}

/// The state directory, or what is there of the way to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir {
    /// Its path.
    pub path: PathBuf,
    /// Whether it is there, and who may use it.
    pub access: Option<Access>,
    /// Whether it, or the nearest directory above it that is there, can be written.
    pub writable: bool,
    /// The kind of file system it is on, or will be.
    pub filesystem: Option<String>,
}

/// Who may use a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Whether it belongs to root.
    pub of_root: bool,
    /// The permission bits.
    pub mode: u32,
}

/// What the configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// The file, whether it is there or not.
    pub path: PathBuf,
    /// How many files were read.
    pub files: usize,
    /// Those of them that others than root can write.
    pub open_files: Vec<PathBuf>,
    /// How many classes are defined.
    pub classes: usize,
    /// Rules that allow.
    pub allow: usize,
    /// Rules that deny.
    pub deny: usize,
    /// Where the deny rules stand that depend on what only udevd knows.
    pub deny_by_udev: Vec<String>,
    /// Whether untrusted requests get anything that is not protected.
    pub allows_anything: bool,
}

/// The hooks and the watcher.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Programs {
    /// Where they were looked for.
    pub dir: PathBuf,
    /// Those that are not there, or not executable.
    pub missing: Vec<String>,
    /// Those that others than root can write.
    pub open: Vec<String>,
    /// The versions of those that have another one than this program.
    pub other_versions: Vec<String>,
}

/// systemd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Systemd {
    /// Whether it runs the host.
    pub runs: bool,
    /// Whether our units are installed.
    pub has_units: bool,
}

/// CDI specs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cdi {
    /// The file that defines our device `annotated`.
    pub annotated: Option<PathBuf>,
    /// What is wrong with that device, if anything.
    pub fault: Option<String>,
    /// Files that no engine can read, ours or others'.
    pub broken: Vec<PathBuf>,
}

/// The engines that are installed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Engines {
    /// podman.
    pub podman: Option<Podman>,
    /// Docker's daemon.
    pub docker: Option<Docker>,
    /// containerd.
    pub containerd: Option<Containerd>,
    /// CRI-O.
    pub cri_o: Option<CriO>,
}

/// podman.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Podman {
    /// Its version.
    pub version: Option<Version>,
    /// Its hooks, or why its configuration can't be read.
    pub hooks: Result<Hooks, String>,
}

/// Docker's daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Docker {
    /// Its version.
    pub version: Option<Version>,
    /// daemon.json.
    pub config: Result<DockerConfig, String>,
}

/// containerd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Containerd {
    /// Its version.
    pub version: Option<Version>,
    /// config.toml and what it imports.
    pub config: Result<ContainerdConfig, String>,
}

/// CRI-O.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CriO {
    /// Its version.
    pub version: Option<Version>,
    /// crio.conf and crio.conf.d.
    pub config: Result<CriOConfig, String>,
    /// Its hooks.
    pub hooks: Hooks,
    /// Directories of our hooks that the running CRI-O does not watch. It reads a directory only
    /// when an event of its watch arrives, and has none on a directory that was created, or removed
    /// and created again, after it had started (containers/common, pkg/hooks/monitor.go).
    pub unwatched: Vec<PathBuf>,
}

/// What an engine finds in its hook directories, oci-hooks(5).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    /// The directories, a later one wins.
    pub dirs: Vec<PathBuf>,
    /// The files that start a hook of ours.
    pub files: Vec<HookFile>,
}

/// A file of a hook directory that starts a hook of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookFile {
    /// The file.
    pub path: PathBuf,
    /// What it says.
    pub definition: HookDefinition,
    /// Whether the executable is there.
    pub is_executable: bool,
}

/// Containers that were enrolled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Containers {
    /// How many have a watcher.
    pub watched: usize,
    /// Those that run and have none.
    pub unwatched: Vec<String>,
    /// Those that run with our annotation, and that no hook of ours has seen: name, and how to
    /// start it instead.
    pub unhooked: Vec<(String, &'static str)>,
    /// Those whose start was refused and that were not started since, the last one first: when and
    /// why.
    pub refused: Vec<String>,
    /// Those that are gone.
    pub gone: Vec<String>,
    /// Records that can't be read, with the reason.
    pub unreadable: Vec<String>,
    /// How many watchers run running from a replaced executable.
    pub outdated: usize,
}
