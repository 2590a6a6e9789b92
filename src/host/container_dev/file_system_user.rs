//! The user that creates files in a container.

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

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
