//! Runs work in other namespaces, after which the calling thread returns to its own.

use std::os::fd::{AsFd, OwnedFd};
use std::process;

use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::Mode;
use nix::unistd::{chroot, fchdir};

use crate::host::file_system::open_directory;

/// The kinds of namespaces that a thread can enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    /// network_namespaces(7).
    Network,
    /// mount_namespaces(7).
    Mount,
}

/// The calling thread's own namespace, to return to.
#[derive(Debug)]
pub struct OwnNamespace {
    kind: Namespace,
    namespace: OwnedFd,
    /// Root and working directory: setns(2) changes them with the mount namespace.
    directories: Option<(OwnedFd, OwnedFd)>,
}

impl Namespace {
    fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Mount => "mount",
        }
    }

    /// The calling thread's namespace of this kind.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn open_own(self) -> nix::Result<OwnedFd> {
        let path = match self {
            Self::Network => "/proc/thread-self/ns/net",
            Self::Mount => "/proc/thread-self/ns/mnt",
        };
        open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
    }

    /// Moves the calling thread into a namespace of this kind. Call it only within
    /// [`OwnNamespace::run_and_return`].
    ///
    /// # Errors
    /// Those of setns(2).
    pub fn enter(self, namespace: impl AsFd) -> nix::Result<()> {
        setns(
            namespace,
            match self {
                Self::Network => CloneFlags::CLONE_NEWNET,
                Self::Mount => CloneFlags::CLONE_NEWNS,
            },
        )
    }
}

impl OwnNamespace {
    /// Opens what [`Self::run_and_return`] needs to return.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn open(kind: Namespace) -> nix::Result<Self> {
        Ok(Self {
            kind,
            namespace: kind.open_own()?,
            directories: match kind {
                Namespace::Network => None,
                Namespace::Mount => Some((open_directory("/")?, open_directory(".")?)),
            },
        })
    }

    /// Runs work that enters other namespaces, then returns to this one, whatever the result.
    ///
    /// Ends the process with exit code 1 when it cannot return: every path or address would mean
    /// something else, so it must do nothing more, not even write to its log. What it leaves is
    /// removed by the next watcher, or by `recover`.
    pub fn run_and_return<T>(&self, work: impl FnOnce() -> T) -> T {
        let result = work();
        if let Err(errno) = self.return_to_own() {
            let kind = self.kind.name();
            eprintln!(
                "oci-hotplug: cannot return to the host's {kind} namespace: {errno} (this process ends)"
            );
            process::exit(1);
        }
        result
    }

    fn return_to_own(&self) -> nix::Result<()> {
        self.kind.enter(&self.namespace)?;
        if let Some((root, working_directory)) = &self.directories {
            fchdir(root)?;
            chroot(".")?;
            fchdir(working_directory)?;
        }
        Ok(())
    }
}
