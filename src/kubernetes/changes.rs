//! Waits for changes of directories and files, and until a burst of changes is over. Must not know
//! what the changes mean.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::task::Poll;
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::sys::readiness;

/// The interval of checking whether a missing directory was created.
const REAPPEAR_INTERVAL: Duration = Duration::from_millis(500);

/// A burst of changes is over after this time without a change...
const QUIET_TIME: Duration = Duration::from_millis(150);

/// ... and after this time at the latest.
const MAX_DEBOUNCE: Duration = Duration::from_secs(3);

/// The interval of checking for changes without events, such as a directory that is mounted over
/// another one.
pub(super) const POLL_INTERVAL: Duration = Duration::from_secs(10);

/// Watches a directory, even if it is removed and created again.
pub(super) struct DirectoryWatch {
    path: PathBuf,
    watch: Option<Watch>,
}

/// An inotify instance, and a copy of its descriptor to wait for.
struct Watch {
    inotify: Inotify,
    readable: AsyncFd<OwnedFd>,
}

impl DirectoryWatch {
    /// Watches from now on, or from the creation of the directory on.
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            watch: watch(path).ok(),
        }
    }

    /// Waits until a file was created, removed or written in the directory, or until `at_most` has
    /// passed. After that time, the caller checks for changes without events, such as another
    /// directory that is mounted over this one.
    pub(super) async fn changed(&mut self, at_most: Duration) {
        let Some(watch) = &self.watch else {
            sleep(REAPPEAR_INTERVAL.min(at_most)).await;
            self.watch = self::watch(&self.path).ok();
            return;
        };
        let Ok(readable) = timeout(at_most, watch.readable.readable()).await else {
            // This is cheap, and necessary if another directory has the name now.
            self.watch = self::watch(&self.path).ok();
            return;
        };
        let mut is_removed = readable.is_err();
        if let Ok(mut guard) = readable {
            while let Ok(events) = watch.inotify.read_events() {
                let end =
                    AddWatchFlags::IN_IGNORED | AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF;
                is_removed |= events.iter().any(|event| event.mask.intersects(end));
            }
            guard.clear_ready();
        }
        if is_removed {
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

/// Watches the directories of files: the files of a ConfigMap change by a link in their directory,
/// and a node that was created outside /dev has no other event.
pub(super) struct FileWatch(Vec<DirectoryWatch>);

impl FileWatch {
    /// Watches from now on.
    pub(super) fn of<'a>(files: impl Iterator<Item = &'a PathBuf>) -> Self {
        let directory = |file: &'a PathBuf| match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let directories: BTreeSet<&Path> = files.map(directory).collect();
        Self(directories.into_iter().map(DirectoryWatch::new).collect())
    }

    /// Waits until something may have happened to one of the files.
    pub(super) async fn changed(&mut self) {
        let mut changes: Vec<_> = self
            .0
            .iter_mut()
            .map(|directory| Box::pin(directory.changed(POLL_INTERVAL)))
            .collect();
        std::future::poll_fn(|context| {
            let mut polls = changes.iter_mut().map(|change| change.as_mut().poll(context));
            match polls.any(|poll| poll.is_ready()) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }
}

/// What may have changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// The configuration files.
    pub configuration: bool,
    /// What a snapshot contains.
    pub host: bool,
}

impl Changes {
    /// A change of the configuration.
    pub(super) const CONFIGURATION: Self = Self {
        configuration: true,
        host: false,
    };
    /// A change of the host.
    pub(super) const HOST: Self = Self {
        configuration: false,
        host: true,
    };
}

/// Collects the changes of a burst, for one reaction to all: kubelet rewrites its checkpoint at
/// each list.
#[derive(Debug, Default)]
pub(super) struct Debounce {
    changes: Changes,
    /// The times of the first and the last change.
    burst: Option<(Instant, Instant)>,
}

impl Debounce {
    /// Adds a change.
    pub(super) fn add(&mut self, changes: Changes) {
        let now = Instant::now();
        let first = self.burst.map_or(now, |(first, _)| first);
        self.burst = Some((first, now));
        self.changes.configuration |= changes.configuration;
        self.changes.host |= changes.host;
    }

    /// Whether there are changes.
    pub(super) fn is_pending(&self) -> bool {
        self.burst.is_some()
    }

    /// Waits until a burst is over and takes its changes; forever if there are none.
    pub(super) async fn over(&mut self) -> Changes {
        let Some((first, last)) = self.burst else {
            return std::future::pending().await;
        };
        sleep_until((last + QUIET_TIME).min(first + MAX_DEBOUNCE)).await;
        self.burst = None;
        std::mem::take(&mut self.changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_burst_ends_once_with_all_its_changes() {
        let mut debounce = Debounce::default();
        assert!(
            timeout(QUIET_TIME * 2, debounce.over()).await.is_err(),
            "no change"
        );
        let begin = Instant::now();
        debounce.add(Changes::HOST);
        debounce.add(Changes::CONFIGURATION);
        assert!(debounce.is_pending());
        let changes = debounce.over().await;
        assert!(changes.host && changes.configuration && begin.elapsed() >= QUIET_TIME);
        assert!(!debounce.is_pending());
        debounce.add(Changes::HOST);
        assert_eq!(debounce.over().await, Changes::HOST);
    }
}
