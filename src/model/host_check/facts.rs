//! The known facts about a host, without any judgement.

use std::path::{Path, PathBuf};

use super::engine_config::{ContainerdConfig, CriOConfig, DockerConfig, HookDefinition};
use super::version::Version;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// What only the running kernel can report; `None` if only files were inspected.
    pub live: Option<Live>,
    /// The kernel's release, such as `6.12.48+deb13-amd64`; empty if unknown.
    pub kernel: String,
    pub cgroups: Cgroups,
    pub udevd: Udevd,
    /// Whether SELinux enforces its policy; `None` if there is no SELinux.
    pub selinux: Option<bool>,
    /// Whether AppArmor is enabled.
    pub apparmor: bool,
    /// `fs.inotify.max_user_instances`.
    pub inotify_instances: Option<u64>,
    pub state: StateDir,
    /// The configuration, or why it is unusable.
    pub configuration: Result<Configuration, String>,
    /// The hooks and the watcher.
    pub programs: Programs,
    /// Whether systemd runs the host and has the units.
    pub systemd: Systemd,
    pub cdi: Cdi,
    pub engines: Engines,
    /// The installed runtimes: name and, if known, version.
    pub runtimes: Vec<(&'static str, Option<Version>)>,
    pub containers: Containers,
}

/// A device of a rootless container whose node a user of the container cannot open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClosedNode {
    /// The container's name, or its id.
    pub container: String,
    /// The path in the container.
    pub path: PathBuf,
    /// Why, and what changes that.
    pub fault: String,
}

/// What the running kernel reports to a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Live {
    /// The user who runs the check.
    pub uid: u32,
    /// Why a trivial device program cannot be loaded; `None` if it can.
    pub bpf_error: Option<String>,
}

/// Where cgroup hierarchies are mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cgroups {
    /// The v1 hierarchy with the `devices` controller.
    pub v1_devices: Option<PathBuf>,
    /// Whether another v1 hierarchy is mounted.
    pub other_v1: bool,
    /// The v2 hierarchy.
    pub v2: Option<PathBuf>,
}

/// A udevd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Udevd {
    Running,
    /// Only its socket exists.
    Silent,
    Absent,
}

/// The state directory, or the existing part of its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StateDir {
    pub path: PathBuf,
    /// Owner and mode; `None` if the directory does not exist.
    pub access: Option<Access>,
    /// Whether the directory, or its nearest existing parent, is writable.
    pub writable: bool,
    /// The type of the file system that it is on or will be on.
    pub filesystem: Option<String>,
}

/// Owner and mode of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Access {
    /// Whether root owns it, or the user who runs the check.
    pub is_own: bool,
    /// The permission bits.
    pub mode: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Configuration {
    /// The file, even if it does not exist.
    pub path: PathBuf,
    /// How many files were read, without that of a user.
    pub files: usize,
    /// The file of the user who runs the check, if it exists.
    pub user_file: Option<PathBuf>,
    /// The files that users other than root can write.
    pub open_files: Vec<PathBuf>,
    /// How many classes are defined.
    pub classes: usize,
    /// The number of allow rules.
    pub allow: usize,
    /// The number of deny rules.
    pub deny: usize,
    /// The places of the deny rules that depend on facts of udevd.
    pub deny_by_udev: Vec<String>,
    /// Whether untrusted requests get every device that is not protected.
    pub allows_anything: bool,
}

/// The hooks and the watcher.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Programs {
    /// The directory that was searched.
    pub dir: PathBuf,
    /// Programs that are absent or not executable.
    pub missing: Vec<String>,
    /// Programs that users other than root can write.
    pub open: Vec<String>,
    /// The versions of the programs whose version differs from this program's.
    pub other_versions: Vec<String>,
}

impl Programs {
    /// Whether this is one of the missing programs.
    pub(crate) fn lacks(&self, program: &Path) -> bool {
        let mut missing = self.missing.iter();
        missing.any(|name| self.dir.join(name) == program)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Systemd {
    /// Whether systemd runs the host.
    pub runs: bool,
    /// Whether the units of oci-hotplug are installed.
    pub has_units: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cdi {
    /// The file that defines the device `annotated`.
    pub annotated: Option<PathBuf>,
    /// The error in the definition of that device, if any, and how to fix it.
    pub fault: Option<(String, &'static str)>,
    /// The hook of that device that does not exist, if any.
    pub missing_hook: Option<PathBuf>,
    /// Files that no engine can read, of oci-hotplug or of other vendors.
    pub broken: Vec<PathBuf>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Engines {
    pub podman: Option<Podman>,
    pub docker: Option<Docker>,
    pub containerd: Option<Containerd>,
    pub cri_o: Option<CriO>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Podman {
    pub version: Option<Version>,
    /// The hooks, or why the configuration is unusable.
    pub hooks: Result<Hooks, String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Docker {
    pub version: Option<Version>,
    /// daemon.json, or why it is unusable.
    pub config: Result<DockerConfig, String>,
    /// Whether that is the rootless daemon of the user who runs the check.
    pub is_rootless: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Containerd {
    pub version: Option<Version>,
    /// config.toml with its imports, or why it is unusable.
    pub config: Result<ContainerdConfig, String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CriO {
    pub version: Option<Version>,
    /// crio.conf and crio.conf.d, or why they are unusable.
    pub config: Result<CriOConfig, String>,
    pub hooks: Hooks,
    /// Directories with hooks of oci-hotplug that the running CRI-O does not watch. CRI-O reads a
    /// directory only after an event of its watch, and it does not watch a directory that was
    /// created, or removed and created again, after CRI-O had started (containers/common,
    /// pkg/hooks/monitor.go).
    pub unwatched: Vec<PathBuf>,
}

/// What is in the hook directories of an engine, oci-hooks(5).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Hooks {
    /// The directories; a later one overrides an earlier one.
    pub dirs: Vec<PathBuf>,
    /// The files that start a hook of oci-hotplug.
    pub files: Vec<HookFile>,
}

/// A file of a hook directory that starts a hook of oci-hotplug.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HookFile {
    pub path: PathBuf,
    pub definition: HookDefinition,
    /// Whether the executable exists.
    pub is_executable: bool,
}

/// Containers that were enrolled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Containers {
    /// The number of containers with a watcher.
    pub watched: usize,
    /// Running containers without a watcher.
    pub unwatched: Vec<String>,
    /// Running containers with an annotation of oci-hotplug for which no hook ran: the name, and
    /// how to start the container instead.
    pub unhooked: Vec<(String, &'static str)>,
    /// Containers whose start was refused and that have not been started since, the latest first:
    /// when and why.
    pub refused: Vec<String>,
    /// Devices of rootless containers whose nodes someone inside cannot open: the container and the
    /// path, and why.
    pub closed: Vec<ClosedNode>,
    /// Containers that no longer exist.
    pub gone: Vec<String>,
    /// Unreadable records, each with the reason.
    pub unreadable: Vec<String>,
    /// The number of watchers that run from a replaced executable.
    pub outdated: usize,
}
