//! The user, group and umask with which files are created in a container.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, getegid, setfsgid, setfsuid};

/// The user that creates files in the container: root of its user namespace, if it has one.
///
/// A file system that was mounted in a user namespace rejects files whose owner is not mapped there
/// (EOVERFLOW).
pub(super) type FileSystemUser = Option<(Uid, Gid)>;

/// Sets the file system user and group of the thread until it is dropped (setfsuid(2)).
pub(super) struct FileSystemUserGuard(FileSystemUser);

impl FileSystemUserGuard {
    pub(super) fn new(user: FileSystemUser) -> Self {
        // The group comes first: without fsuid 0 it could not be changed any more.
        Self(user.map(|(uid, gid)| {
            let previous = setfsgid(gid);
            (setfsuid(uid), previous)
        }))
    }
}

impl Drop for FileSystemUserGuard {
    fn drop(&mut self) {
        if let Some((uid, gid)) = self.0 {
            setfsuid(uid);
            setfsgid(gid);
        }
    }
}

/// Sets only the file system group of the thread until it is dropped (setfsgid(2)).
pub(super) struct FileSystemGroupGuard(Option<Gid>);

impl FileSystemGroupGuard {
    pub(super) fn new(group: Gid) -> Self {
        static OWN: OnceLock<Gid> = OnceLock::new();
        // Nothing else changes it: execve(2) sets it to the effective group.
        let own = *OWN.get_or_init(getegid);
        Self((group != own).then(|| setfsgid(group)))
    }
}

impl Drop for FileSystemGroupGuard {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            setfsgid(group);
        }
    }
}

/// Whether [`clear_umask`] was called.
static HAS_NO_UMASK: AtomicBool = AtomicBool::new(false);

/// Clears the umask of the process for the rest of its life (umask(2)), so that files get exactly
/// the modes with which they are created.
pub(crate) fn clear_umask() {
    umask(Mode::empty());
    HAS_NO_UMASK.store(true, Ordering::Relaxed);
}

/// Clears the umask of the process until it is dropped, unless it has none. Other threads would
/// create files without it meanwhile; the programs that use this have one thread.
pub(super) struct NoUmask(Option<Mode>);

impl NoUmask {
    pub(super) fn new() -> Self {
        let has_umask = !HAS_NO_UMASK.load(Ordering::Relaxed);
        Self(has_umask.then(|| umask(Mode::empty())))
    }
}

impl Drop for NoUmask {
    fn drop(&mut self) {
        if let Some(mask) = self.0 {
            umask(mask);
        }
    }
}
