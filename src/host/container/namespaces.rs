//! Runs work in other namespaces, after which the calling thread returns to its own.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::Mode;
use nix::unistd::{chroot, fchdir};

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

/// The thread could not return to its own namespace. Every path or address now means something
/// else, so the process must end without doing anything more.
#[derive(Debug)]
pub struct CannotReturn(pub io::Error);

impl Namespace {
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
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = |path: &str| open(path, flags, Mode::empty());
        Ok(Self {
            kind,
            namespace: kind.open_own()?,
            directories: match kind {
                Namespace::Network => None,
                Namespace::Mount => Some((directory("/")?, directory(".")?)),
            },
        })
    }

    /// Runs work that enters other namespaces, then returns to this one, whatever the result.
    ///
    /// # Errors
    /// When the thread could not return.
    pub fn run_and_return<T>(&self, work: impl FnOnce() -> T) -> Result<T, CannotReturn> {
        let result = work();
        match self.return_to_own() {
            Ok(()) => Ok(result),
            Err(errno) => Err(CannotReturn(errno.into())),
        }
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
