//! Changes of the host's device files, watched with inotify(7) where no uevents arrive
//! ([`receives_uevents`](crate::host::rootless::receives_uevents)). They say that something has
//! changed, not what: all devices are then read again.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::error::MonitorError;

/// Where the kernel creates and removes nodes (devtmpfs), and where udevd then writes or removes a
/// file for each device. Nodes in subdirectories of `/dev` are noticed by the second alone.
const DIRECTORIES: [&str; 2] = ["/dev", "/run/udev/data"];

/// How many reads empty the queue at one wake: changes may come faster than they are read.
const MAX_READS: u32 = 4;

/// A subscription to the changes.
pub(super) struct DeviceFiles {
    inotify: Inotify,
}

impl DeviceFiles {
    /// Errors: the limit of inotify instances of this user (fs.inotify.max_user_instances).
    pub(super) fn open() -> Result<Self, MonitorError> {
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        let inotify = Inotify::init(flags).map_err(|errno| MonitorError::Inotify(errno.into()))?;
        let files = Self { inotify };
        files.watch();
        Ok(files)
    }

    /// For epoll: readable when something has changed.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }

    /// Watches the directories that exist now. One that was removed and created again is another
    /// one; watching it twice is watching it once (inotify_add_watch(2)).
    pub(super) fn watch(&self) {
        // udevd renames a complete file to the device's name.
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_ONLYDIR;
        for directory in DIRECTORIES {
            // It may not exist: without udevd there is no database.
            let _ = self.inotify.add_watch(directory, flags);
        }
    }

    /// Whether something has changed since this was last called.
    pub(super) fn have_changed(&self) -> bool {
        let mut reads = (0..MAX_READS).map(|_| self.inotify.read_events());
        let is_some = |read: nix::Result<Vec<_>>| read.is_ok_and(|events| !events.is_empty());
        let mut have_changed = false;
        while reads.next().is_some_and(is_some) {
            have_changed = true;
        }
        have_changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_the_host_that_comes_is_noticed_once() {
        let files = DeviceFiles::open().unwrap();
        let scratch = tempfile::tempdir().unwrap();
        files
            .inotify
            .add_watch(scratch.path(), AddWatchFlags::IN_CREATE)
            .unwrap();
        // Devices of the host may change as well, so only what follows the file is certain.
        std::fs::write(scratch.path().join("c188:0"), "").unwrap();
        assert!(files.have_changed());
    }
}
