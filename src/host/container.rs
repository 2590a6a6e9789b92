//! A running container as the host sees it: its init process, identified by a pidfd, and what /proc
//! shows of it.
//!
//! Does not know which devices are requested, nor how the container was found (the hook and the
//! registry know).

pub(crate) mod engine_namespace;
mod error;
mod facts;
mod membership;
pub mod namespaces;

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

pub use error::ContainerError;
pub use facts::{CgroupPaths, ContainerFacts};

use crate::host::file_system::{Mounts, attributes, file_id, identity};
use crate::host::kernel_text;
use crate::host::process::{Process, ProcessDir, ProcessError};
use crate::host::rootless::rootless;
use crate::model::id_maps::IdMaps;
use membership::{CgroupMount, CgroupMounts, Membership};

/// A running container: a pidfd and `/proc/PID` of its init. Both stay bound to that process even
/// if the pid is used again.
#[derive(Debug)]
pub struct Container {
    facts: ContainerFacts,
    is_rootless: bool,
    init: Process,
    proc: ProcessDir,
}

impl Container {
    /// Opens the container's init. `Gone` if init has ended, even if another process has its pid.
    pub fn open(facts: &ContainerFacts) -> Result<Container, ContainerError> {
        let gone = || ContainerError::Gone {
            id: facts.id.clone(),
            pid: facts.pid,
        };
        let init = Process::open(facts.pid, facts.start_time).map_err(|error| match error {
            ProcessError::Gone { .. } => gone(),
            source => ContainerError::Init {
                id: facts.id.clone(),
                source,
            },
        })?;
        let proc = ProcessDir::open(facts.pid).map_err(|_| gone())?;
        // If init is still alive, no other process had its pid in between, so `proc` is of the same
        // process.
        if init.is_alive() {
            Ok(Container {
                facts: facts.clone(),
                is_rootless: rootless().is_some(),
                init,
                proc,
            })
        } else {
            Err(gone())
        }
    }

    /// Whether the container with these facts is running.
    pub fn exists(facts: &ContainerFacts) -> bool {
        Process::open(facts.pid, facts.start_time).is_ok()
    }

    pub fn facts(&self) -> &ContainerFacts {
        &self.facts
    }

    /// Whether a rootless engine runs the container, so that this process has no privileges over
    /// the host's devices.
    pub fn is_rootless(&self) -> bool {
        self.is_rootless
    }

    /// Init. Its descriptor becomes readable when the container ends.
    pub fn init(&self) -> &Process {
        &self.init
    }

    /// Whether init's main thread has ended or is ending. From then on the kernel shows the root as
    /// its cgroup in each v1 hierarchy (kernel/cgroup/cgroup.c, proc_cgroup_show), even while other
    /// threads still run or memory is being freed.
    pub fn is_exiting(&self) -> bool {
        // include/linux/sched.h; proc_pid_stat(5), field 9.
        const PF_EXITING: u32 = 4;
        self.proc.stat().is_ok_and(|stat| stat.flags & PF_EXITING != 0)
    }

    /// The file in which the kernel lists the cgroups of init, `/proc/PID/cgroup`. Its text changes
    /// when init is moved.
    pub fn membership_file(&self) -> Result<File, ContainerError> {
        let opened = self.proc.file("cgroup");
        opened.map_err(|source| self.proc_error("cgroup", source))
    }

    /// The text of [`Self::membership_file`].
    pub fn membership(&self) -> Result<String, ContainerError> {
        match kernel_text::read(&self.membership_file()?) {
            Ok(text) => Ok(text),
            Err(_) if !self.init.is_alive() => Err(self.gone()),
            Err(source) => Err(self.io_error("cgroup", source)),
        }
    }

    /// The container's own cgroups that control device access. Root cgroups are left out, so the
    /// result is empty for a process that no runtime has put into a cgroup.
    pub fn cgroup_paths(&self) -> Result<CgroupPaths, ContainerError> {
        let membership = Membership::parse(&self.membership()?);
        let own_v2 = membership.own_v2(self.facts.cgroups_path.as_deref(), &self.facts.id);
        let mounts = own_cgroup_mounts().map_err(|source| proc_error(&self.facts, OWN_MOUNTS, source))?;
        let v1 = membership.v1_devices.as_deref().map(Path::new);
        let v1_devices = v1
            .map(|path| self.directory(&mounts.v1_devices, path, "v1 devices"))
            .transpose()?;
        let v2 = own_v2
            .iter()
            .map(|path| self.directory(&mounts.v2, path, "v2"))
            .collect::<Result<_, _>>()?;
        Ok(CgroupPaths { v1_devices, v2 })
    }

    /// How the container's ids map to the host's; `None` if the container shares our user
    /// namespace.
    pub fn id_maps(&self) -> Result<Option<IdMaps>, ContainerError> {
        if self.foreign_namespace("user")?.is_none() {
            return Ok(None);
        }
        let maps = IdMaps::parse(&self.read("uid_map")?, &self.read("gid_map")?);
        maps.map(Some).map_err(|line| ContainerError::IdMap {
            id: self.facts.id.clone(),
            line,
        })
    }

    /// The container's root directory, as an O_PATH descriptor that is valid before and after
    /// pivot_root.
    ///
    /// While hooks of stage createRuntime run, init has its own mount namespace but still the
    /// host's root. The root file system is then mounted at the path in the bundle's config,
    /// resolved from init's root.
    pub fn root(&self) -> Result<OwnedFd, ContainerError> {
        let root = self.proc.directory("root");
        let root = root.map_err(|source| self.proc_error("root", source))?;
        let failed = |source: Errno| ContainerError::Rootfs {
            id: self.facts.id.clone(),
            rootfs: self.facts.rootfs.clone(),
            source: source.into(),
        };
        let theirs = attributes(&root).map_err(|source| self.io_error("root", source))?;
        let ours = File::open("/")
            .and_then(attributes)
            .map_err(|source| self.io_error("root", source))?;
        if identity(&theirs) != identity(&ours) {
            return Ok(root);
        }
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(&root, &self.facts.rootfs, how).map_err(failed)
    }

    /// The mounts that init sees.
    pub fn mounts(&self) -> Result<Mounts, ContainerError> {
        let proc = self.proc.directory(".");
        Ok(Mounts::new(proc.map_err(|source| self.proc_error(".", source))?))
    }

    /// The container's network namespace; `None` if it shares ours.
    pub fn network_namespace(&self) -> Result<Option<OwnedFd>, ContainerError> {
        self.foreign_namespace("net")
    }

    pub fn mount_namespace(&self) -> Result<OwnedFd, ContainerError> {
        self.namespace("mnt")
    }

    /// The container's mount namespace; `None` if it shares ours.
    pub fn own_mount_namespace(&self) -> Result<Option<OwnedFd>, ContainerError> {
        self.foreign_namespace("mnt")
    }

    fn namespace(&self, name: &str) -> Result<OwnedFd, ContainerError> {
        let path = format!("ns/{name}");
        let opened = self.proc.file(&path);
        opened
            .map(OwnedFd::from)
            .map_err(|source| self.proc_error(&path, source))
    }

    /// A namespace of the container; `None` if the calling thread is in the same one.
    fn foreign_namespace(&self, name: &str) -> Result<Option<OwnedFd>, ContainerError> {
        let theirs = self.namespace(name)?;
        let path = format!("/proc/thread-self/ns/{name}");
        let failed = |source: io::Error| proc_error(&self.facts, &path, source);
        // Two namespaces are the same if their inodes on nsfs are (namespaces(7)).
        let theirs = File::from(theirs);
        let their_id = file_id(&theirs.metadata().map_err(failed)?);
        let own_id = file_id(&fs::metadata(&path).map_err(failed)?);
        Ok((their_id != own_id).then(|| theirs.into()))
    }

    fn directory(
        &self,
        mounts: &[CgroupMount],
        path: &Path,
        version: &'static str,
    ) -> Result<PathBuf, ContainerError> {
        mounts
            .iter()
            .find_map(|mount| mount.directory(path))
            .ok_or_else(|| ContainerError::CgroupNotMounted {
                id: self.facts.id.clone(),
                path: path.to_owned(),
                version,
            })
    }

    fn read(&self, name: &str) -> Result<String, ContainerError> {
        let file = self.proc.file(name);
        let file = file.map_err(|source| self.proc_error(name, source))?;
        match kernel_text::read(&file) {
            Ok(text) => Ok(text),
            Err(_) if !self.init.is_alive() => Err(self.gone()),
            Err(source) => Err(proc_error(&self.facts, &self.proc_path(name), source)),
        }
    }

    fn gone(&self) -> ContainerError {
        ContainerError::Gone {
            id: self.facts.id.clone(),
            pid: self.facts.pid,
        }
    }

    fn proc_path(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.facts.pid)
    }

    fn io_error(&self, name: &str, source: io::Error) -> ContainerError {
        proc_error(&self.facts, &self.proc_path(name), source)
    }

    /// An error of a file of `/proc/PID`, unless the process has ended: then that is the error.
    fn proc_error(&self, name: &str, source: io::Error) -> ContainerError {
        if self.init.is_alive() {
            self.io_error(name, source)
        } else {
            self.gone()
        }
    }
}

/// The mounts that this process sees.
const OWN_MOUNTS: &str = "/proc/self/mountinfo";

fn own_cgroup_mounts() -> io::Result<CgroupMounts> {
    let mut mounts = CgroupMounts::default();
    for line in BufReader::new(File::open(OWN_MOUNTS)?).split(b'\n') {
        let added = mounts.add_line(&String::from_utf8_lossy(&line?));
        added.map_err(io::Error::other)?;
    }
    Ok(mounts)
}

fn proc_error(facts: &ContainerFacts, path: &str, source: io::Error) -> ContainerError {
    ContainerError::Proc {
        id: facts.id.clone(),
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
