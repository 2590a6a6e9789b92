//! Whether links of the host's `/dev` may lead elsewhere than when they were last followed, found
//! out with one system call for each directory: a directory's time of change (ctime) moves whenever
//! a name in it is created, removed or renamed, and whenever its own name, mode or owner changes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::stat::{FileStat, lstat};
use nix::time::{ClockId, clock_gettime};

/// How many directories are observed. A request can name any number of paths.
const MAX_DIRECTORIES: usize = 8;

/// The directories in which links were looked up.
#[derive(Debug, Default)]
pub(super) struct UsedDirectories {
    directories: Vec<Directory>,
    /// The kernel's clock for times of change when the first directory was looked at.
    begin: Duration,
    /// Whether a change could go unnoticed.
    is_unsure: bool,
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
    /// None yet.
    pub(super) fn begin() -> Self {
        let now = clock_gettime(ClockId::CLOCK_REALTIME_COARSE).map(Duration::from);
        Self {
            directories: Vec::new(),
            // Without a clock, no time of change is in the past.
            begin: now.unwrap_or_default(),
            is_unsure: false,
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

    pub(super) fn is_empty(&self) -> bool {
        self.directories.is_empty()
    }

    /// Whether all of them are certainly as they were.
    pub(super) fn are_unchanged(&self) -> bool {
        let is_unchanged = |directory: &Directory| State::at(&directory.path) == Some(directory.state);
        !self.is_unsure && self.directories.iter().all(is_unchanged)
    }
}

#[cfg(test)]
mod tests {
    use super::super::links::HostLinks;
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::Instant;

    /// The directories of these paths below a `/dev`, after its last change is in the past.
    fn used(dev: &Path, paths: &[&str]) -> UsedDirectories {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let links = HostLinks::open_at(dev).recording();
            links.follow(&paths.iter().map(|path| dev.join(path)).collect::<Vec<_>>());
            let used = links.used();
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
            assert!(!used.is_empty() && used.are_unchanged(), "before {what}");
            change();
            assert!(!used.are_unchanged(), "{what}");
        }
    }

    #[test]
    fn a_directory_that_has_just_changed_is_not_trusted() {
        let dev = tempfile::tempdir().unwrap();
        let mut facts = lstat(dev.path()).unwrap();
        let mut used = UsedDirectories::begin();
        facts.st_ctime = i64::MAX;
        used.add(dev.path().to_owned(), &facts);
        assert!(!used.are_unchanged());
        let mut none = UsedDirectories::default();
        assert!(none.is_empty() && none.are_unchanged());
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
        let links = HostLinks::open_at(dev.path()).recording();
        links.follow(&paths.iter().map(|path| dev.path().join(path)).collect::<Vec<_>>());
        assert!(!links.used().are_unchanged());
    }
}
