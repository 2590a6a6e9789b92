//! Notices that the host may use other disks than before: its mounts or its swap have changed.
//!
//! The kernel reports it on the files that list them (proc_pid_mountinfo(5): poll(2) returns
//! POLLPRI; drivers of swap do the same, swaps_poll in mm/swapfile.c). Does not read them
//! (`host_use`).

use std::fs::File;
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

const LISTS: [&str; 3] = ["/proc/self/mountinfo", "/proc/1/mountinfo", "/proc/swaps"];

/// The lists, kept open: the kernel reports each change once for each open file.
#[derive(Debug)]
pub struct HostUseChanges(Vec<File>);

impl HostUseChanges {
    /// Opens the lists. One that does not exist is left out: it does not count for the use either.
    pub fn open() -> Self {
        Self(LISTS.iter().filter_map(|path| File::open(path).ok()).collect())
    }

    /// Whether something has changed since the last call. Costs one system call.
    pub fn have_happened(&self) -> bool {
        let files = self.0.iter();
        let mut files: Vec<PollFd<'_>> = files
            .map(|file| PollFd::new(file.as_fd(), PollFlags::POLLPRI))
            .collect();
        poll(&mut files, PollTimeout::ZERO).is_ok_and(|changed| changed > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_reported_twice() {
        // Other programs of the host mount file systems at any time.
        let changes = HostUseChanges::open();
        assert!((0..100).any(|_| !changes.have_happened()));
        assert!(!HostUseChanges(Vec::new()).have_happened());
    }
}
