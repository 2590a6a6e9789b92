//! Processes, identified so that another process with a reused pid is never taken for the original,
//! and the limits of this process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, getrlimit, pidfd_open, pidfd_send_signal, setrlimit,
};

/// A process, held by a pidfd (pidfd_open(2), Linux 5.3).
#[derive(Debug)]
pub struct Process {
    pid: i32,
    pidfd: OwnedFd,
}

/// An operation on a process failed.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The process has ended, or its pid belongs to another process now.
    #[error("process {pid} does not exist any more")]
    Gone { pid: i32 },
    /// A system call failed.
    #[error("cannot {action} process {pid}: {source}")]
    Io {
        /// What cannot be done, as a verb.
        action: &'static str,
        pid: i32,
        source: io::Error,
    },
}

/// The id of the current boot (proc_sys_kernel_random(5)); empty where it cannot be read.
pub fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

/// The time at which a process started, in clock ticks since boot: `/proc/PID/stat` field 22
/// (proc_pid_stat(5)).
///
/// # Errors
/// When the process does not exist.
pub fn start_time(pid: i32) -> Result<u64, ProcessError> {
    match procfs::process::Process::new(pid).and_then(|process| process.stat()) {
        Ok(stat) => Ok(stat.starttime),
        Err(procfs::ProcError::NotFound(_)) => Err(ProcessError::Gone { pid }),
        Err(error) => Err(ProcessError::Io {
            action: "examine",
            pid,
            source: io::Error::other(error),
        }),
    }
}

impl Process {
    /// Opens the process `pid` that started at `started` (see [`start_time`]).
    ///
    /// # Errors
    /// [`ProcessError::Gone`] when that process has ended.
    pub fn open(pid: i32, started: u64) -> Result<Self, ProcessError> {
        let gone = || ProcessError::Gone { pid };
        let number = (pid > 0).then(|| Pid::from_raw(pid)).flatten().ok_or_else(gone)?;
        let pidfd = match pidfd_open(number, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => return Err(gone()),
            Err(error) => {
                return Err(ProcessError::Io {
                    action: "open",
                    pid,
                    source: error.into(),
                });
            }
        };
        let process = Self { pid, pidfd };
        // pidfd_open takes whichever process has the pid now; the start time shows whether it is
        // the right one.
        if start_time(pid)? == started && process.is_alive() {
            Ok(process)
        } else {
            Err(gone())
        }
    }

    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether the process has not ended. A zombie has ended.
    pub fn is_alive(&self) -> bool {
        !self.wait(Duration::ZERO)
    }

    /// Waits for the process to end; returns whether it ended before the timeout.
    pub fn wait(&self, timeout: Duration) -> bool {
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        matches!(
            poll(&mut [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)], timeout),
            Ok(1)
        )
    }

    /// Sends a signal to the process.
    ///
    /// # Errors
    /// [`ProcessError::Gone`] when it has ended.
    pub fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        let number =
            rustix::process::Signal::from_named_raw(signal as i32).ok_or_else(|| ProcessError::Io {
                action: "signal",
                pid: self.pid,
                source: io::ErrorKind::InvalidInput.into(),
            })?;
        match pidfd_send_signal(&self.pidfd, number) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::SRCH) => Err(ProcessError::Gone { pid: self.pid }),
            Err(error) => Err(ProcessError::Io {
                action: "signal",
                pid: self.pid,
                source: error.into(),
            }),
        }
    }
}

impl AsFd for Process {
    /// Readable once the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// Raises this process's soft limits to the hard limits. The soft limits are those of the process
/// that started us; our work must not fail because of them, whereas the hard limits are the host
/// administrator's decision.
///
/// Also blocks SIGXFSZ, so that a write beyond the file size limit returns an error and does not
/// kill the process (setrlimit(2)). Failures are ignored: a limit that matters causes an error
/// later.
pub fn raise_limits() {
    for resource in [
        Resource::Nofile,
        Resource::Fsize,
        Resource::As,
        Resource::Data,
        Resource::Cpu,
    ] {
        let limit = getrlimit(resource);
        let _ = setrlimit(
            resource,
            Rlimit {
                current: limit.maximum,
                ..limit
            },
        );
    }
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGXFSZ);
    let _ = signals.thread_block();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_identified_by_pid_and_start_time() {
        let pid = std::process::id() as i32;
        let started = start_time(pid).unwrap();
        assert!(Process::open(pid, started).unwrap().is_alive());
        assert!(matches!(
            Process::open(pid, started + 1),
            Err(ProcessError::Gone { .. })
        ));
        assert!(matches!(
            Process::open(-1, started),
            Err(ProcessError::Gone { .. })
        ));
    }

    #[test]
    fn after_the_end_of_a_process_its_pid_is_not_signalled() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = child.id() as i32;
        let process = Process::open(pid, start_time(pid).unwrap()).unwrap();
        process.signal(Signal::SIGTERM).unwrap();
        assert!(process.wait(Duration::from_secs(10)));
        child.wait().unwrap();
        assert!(matches!(
            process.signal(Signal::SIGTERM),
            Err(ProcessError::Gone { .. })
        ));
        assert!(matches!(start_time(pid), Err(ProcessError::Gone { .. })));
    }
}
