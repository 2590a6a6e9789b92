//! Waiting until something happens in a directory. Must not know what is kept there.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;
use tokio::time::{sleep, timeout};

use crate::sys::readiness;

/// How often it is looked whether a directory that is absent has come.
const LOOK_FOR: Duration = Duration::from_millis(500);

/// A directory that is watched, also when it goes and another takes its place.
pub struct DirectoryWatch {
    path: PathBuf,
    watch: Option<Watch>,
}

/// An inotify instance, and a copy of its descriptor to wait on.
struct Watch {
    inotify: Inotify,
    readable: AsyncFd<OwnedFd>,
}

impl DirectoryWatch {
    /// Watches from now on, or from when the directory comes.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            watch: watch(path).ok(),
        }
    }

    /// Waits until something has come, gone or been written in the directory, or until `at_most` has passed: what no
    /// event tells of, such as another directory mounted over this one, is then seen by who looks.
    pub async fn changed(&mut self, at_most: Duration) {
        let Some(watch) = &self.watch else {
            sleep(LOOK_FOR.min(at_most)).await;
            self.watch = self::watch(&self.path).ok();
            return;
        };
        let Ok(readable) = timeout(at_most, watch.readable.readable()).await else {
            // Free of charge, and the cure for a watch on a directory that is no longer the one of this name.
            self.watch = self::watch(&self.path).ok();
            return;
        };
        let mut is_gone = readable.is_err();
        if let Ok(mut guard) = readable {
            while let Ok(events) = watch.inotify.read_events() {
                let end =
                    AddWatchFlags::IN_IGNORED | AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF;
                is_gone |= events.iter().any(|event| event.mask.intersects(end));
            }
            guard.clear_ready();
        }
        if is_gone {
            self.watch = self::watch(&self.path).ok();
        }
    }
}

fn watch(path: &Path) -> io::Result<Watch> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    let events = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_ONLYDIR;
    inotify.add_watch(path, events)?;
    Ok(Watch {
        readable: readiness::of(inotify.as_fd().try_clone_to_owned()?)?,
        inotify,
    })
}
