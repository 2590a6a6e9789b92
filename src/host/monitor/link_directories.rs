//! Whether links of the host's `/dev` may lead elsewhere than when they were last followed, found
//! out with one system call for each directory: a directory's time of change (ctime) moves whenever
//! a name in it is created, removed or renamed, and whenever its own name, mode or owner changes.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{FileStat, Mode, lstat};
use nix::time::{ClockId, clock_gettime};

use crate::sys::directory_change;

/// How many directories are observed. A request can name any number of paths.
const MAX_DIRECTORIES: usize = 8;

/// The directories in which links were looked up.
#[derive(Debug, Default)]
pub(super) struct UsedDirectories {
    /// The directory that all of them are in.
    dev: PathBuf,
    directories: Vec<Directory>,
    /// The kernel's clock for times of change when the first directory was looked at.
    begin: Duration,
    /// Whether a change could go unnoticed.
    is_unsure: bool,
    /// While a signal reports the next change: the directories, which must stay open for that.
    signalled: Vec<OwnedFd>,
}

/// A directory as it was.
#[derive(Debug, PartialEq, Eq)]
struct Directory {
    path: PathBuf,
    state: State,
}

/// What identifies a directory and everything that was done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    file_system: u64,
    inode: u64,
    changed: Duration,
}

impl State {
    fn of(facts: &FileStat) -> Self {
        let (seconds, nanoseconds) = (facts.st_ctime, facts.st_ctime_nsec);
        Self {
            file_system: facts.st_dev,
            inode: facts.st_ino,
            changed: Duration::new(
                u64::try_from(seconds).unwrap_or(0),
                u32::try_from(nanoseconds).unwrap_or(0),
            ),
        }
    }

    fn at(path: &Path) -> Option<Self> {
        lstat(path).ok().map(|facts| Self::of(&facts))
    }
}

impl UsedDirectories {
    /// None yet, of this `/dev`.
    pub(super) fn begin(dev: PathBuf) -> Self {
        let now = clock_gettime(ClockId::CLOCK_REALTIME_COARSE).map(Duration::from);
        Self {
            dev,
            directories: Vec::new(),
            // Without a clock, no time of change is in the past.
            begin: now.unwrap_or_default(),
            is_unsure: false,
            signalled: Vec::new(),
        }
    }

    /// Adds a directory, before names are looked up in it.
    pub(super) fn add(&mut self, path: PathBuf, facts: &FileStat) {
        let state = State::of(facts);
        // A later change within the same tick of the clock would not move the time.
        self.is_unsure |= state.changed >= self.begin;
        match self.directories.iter().find(|known| known.path == path) {
            Some(known) => self.is_unsure |= known.state != state,
            None if self.directories.len() == MAX_DIRECTORIES => self.is_unsure = true,
            None => self.directories.push(Directory { path, state }),
        }
    }

    /// Whether one of them can change without a signal.
    pub(super) fn must_be_polled(&self) -> bool {
        !self.directories.is_empty() && self.signalled.is_empty()
    }

    /// Makes SIGIO report the next change, if possible. The calling thread must have
    /// blocked it.
    pub(super) fn signal_next_change(&mut self) {
        if self.must_be_polled() && !self.is_unsure {
            let signalled = self.all().into_iter().map(signalled).collect::<Option<Vec<_>>>();
            // A change before that sends no signal.
            self.signalled = signalled.filter(|_| self.are_unchanged()).unwrap_or_default();
        }
    }

    /// The signal has come, and reports no further change.
    pub(super) fn note_signal(&mut self) {
        self.signalled = Vec::new();
    }

    /// The directories, and those above them: a directory that is removed and created again changes
    /// only these.
    fn all(&self) -> BTreeSet<&Path> {
        let directories = self.directories.iter();
        let at_or_above = directories.flat_map(|directory| directory.path.ancestors());
        at_or_above.filter(|path| path.starts_with(&self.dev)).collect()
    }

    /// Whether all of them are certainly as they were.
    pub(super) fn are_unchanged(&self) -> bool {
        let is_unchanged = |directory: &Directory| State::at(&directory.path) == Some(directory.state);
        !self.is_unsure && self.directories.iter().all(is_unchanged)
    }
}

/// Opens a directory, and makes SIGIO report its next change.
fn signalled(path: &Path) -> Option<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let directory = open(path, flags, Mode::empty()).ok()?;
    directory_change::signal_once(directory.as_fd()).ok()?;
    Some(directory)
}

#[cfg(test)]
mod tests {
    use super::super::links::HostLinks;
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::Instant;

    use nix::sys::signal::{SigSet, Signal};
    use nix::sys::signalfd::{SfdFlags, SignalFd};

    /// The directories of these paths below a `/dev`, after its last change is in the past.
    fn used(dev: &Path, paths: &[&str]) -> UsedDirectories {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let mut links = HostLinks::open_at(dev).recording();
            links.follow(&paths.iter().map(|path| dev.join(path)).collect::<Vec<_>>());
            let used = links.take_used();
            if !used.is_unsure || Instant::now() > end {
                return used;
            }
        }
    }

    #[test]
    fn every_change_of_a_link_or_of_its_directory_is_noticed() {
        let scratch = tempfile::tempdir().unwrap();
        let dev = scratch.path();
        let path = |name: &str| dev.join(name);
        fs::create_dir_all(path("serial/by-id")).unwrap();
        fs::write(path("ttyUSB0"), "").unwrap();
        symlink("../../ttyUSB0", path("serial/by-id/usb-X")).unwrap();
        let all = ["serial/by-id/usb-X", "stick", "disk/by-label/X"];
        let changes: [(&str, &dyn Fn()); 8] = [
            ("another link", &|| symlink("ttyUSB0", path("stick")).unwrap()),
            ("no link", &|| fs::remove_file(path("stick")).unwrap()),
            ("a link that is replaced", &|| {
                symlink("../../ttyUSB1", path("serial/by-id/new")).unwrap();
                fs::rename(path("serial/by-id/new"), path("serial/by-id/usb-X")).unwrap();
            }),
            ("a node at the end", &|| fs::write(path("ttyUSB1"), "").unwrap()),
            ("a directory that comes", &|| {
                fs::create_dir(path("disk")).unwrap()
            }),
            ("a directory below it", &|| {
                fs::create_dir(path("disk/by-label")).unwrap();
            }),
            ("a directory that others can write", &|| {
                fs::set_permissions(path("disk/by-label"), fs::Permissions::from_mode(0o777)).unwrap();
            }),
            ("a directory that goes", &|| {
                fs::rename(path("serial"), scratch.path().join("away")).unwrap();
            }),
        ];
        for (what, change) in changes {
            let used = used(dev, &all);
            assert!(used.must_be_polled() && used.are_unchanged(), "before {what}");
            change();
            assert!(!used.are_unchanged(), "{what}");
        }
    }

    /// Blocks SIGIO in this thread.
    fn block_sigio() -> SignalFd {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGIO);
        mask.thread_block().unwrap();
        SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK).unwrap()
    }

    /// Whether SIGIO is pending; takes it.
    fn is_signalled(signals: &SignalFd) -> bool {
        matches!(signals.read_signal(), Ok(Some(_)))
    }

    #[test]
    fn a_signal_reports_the_next_change_of_a_directory_or_of_one_above_it() {
        let signals = block_sigio();
        let dev = tempfile::tempdir().unwrap();
        let path = |name: &str| dev.path().join(name);
        fs::create_dir_all(path("serial/by-id")).unwrap();
        let all = ["serial/by-id/usb-X"];
        let changes: [(&str, &dyn Fn()); 3] = [
            ("a link", &|| {
                symlink("../../tty", path("serial/by-id/usb-X")).unwrap()
            }),
            ("no link", &|| {
                fs::remove_file(path("serial/by-id/usb-X")).unwrap()
            }),
            ("no directory", &|| fs::remove_dir(path("serial/by-id")).unwrap()),
        ];
        for (what, change) in changes {
            let mut used = used(dev.path(), &all);
            used.signal_next_change();
            assert!(!used.must_be_polled() && !is_signalled(&signals), "before {what}");
            change();
            assert!(is_signalled(&signals) && !used.are_unchanged(), "{what}");
            used.note_signal();
            assert!(used.must_be_polled(), "after {what}");
        }
    }

    #[test]
    fn a_change_before_the_signal_was_requested_is_noticed_by_polling() {
        let _signals = block_sigio();
        let dev = tempfile::tempdir().unwrap();
        let mut used = used(dev.path(), &["x"]);
        fs::write(dev.path().join("x"), "").unwrap();
        used.signal_next_change();
        assert!(used.must_be_polled() && !used.are_unchanged());
    }

    #[test]
    fn a_directory_that_has_just_changed_is_not_trusted() {
        let dev = tempfile::tempdir().unwrap();
        let mut facts = lstat(dev.path()).unwrap();
        let mut used = UsedDirectories::begin(dev.path().to_owned());
        facts.st_ctime = i64::MAX;
        used.add(dev.path().to_owned(), &facts);
        assert!(!used.are_unchanged());
        let mut none = UsedDirectories::default();
        assert!(!none.must_be_polled() && none.are_unchanged());
        none.add(dev.path().to_owned(), &lstat(dev.path()).unwrap());
        assert!(!none.are_unchanged(), "without a clock");
    }

    #[test]
    fn more_directories_than_are_observed_are_looked_at_each_time() {
        let dev = tempfile::tempdir().unwrap();
        let names: Vec<String> = (0..=MAX_DIRECTORIES)
            .map(|number| format!("{number}/x"))
            .collect();
        for name in &names {
            fs::create_dir(dev.path().join(name).parent().unwrap()).unwrap();
        }
        let paths: Vec<&str> = names.iter().map(String::as_str).collect();
        assert!(used(dev.path(), &paths[..MAX_DIRECTORIES]).are_unchanged());
        let mut links = HostLinks::open_at(dev.path()).recording();
        links.follow(&paths.iter().map(|path| dev.path().join(path)).collect::<Vec<_>>());
        assert!(!links.take_used().are_unchanged());
    }
}
