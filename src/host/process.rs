//! Processes, identified so that another process with a reused pid is never taken for the original,
//! and the limits of this process.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::Mode;
use procfs::FromRead;
use procfs::process::Stat;
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, getrlimit, pidfd_open, pidfd_send_signal, setrlimit,
};

use crate::host::file_system::open_directory;
use crate::host::kernel_text;

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
    let file = File::open("/proc/sys/kernel/random/boot_id");
    let text = file.and_then(|file| kernel_text::read(&file));
    text.unwrap_or_default().trim().to_owned()
}

/// The time at which a process started, in clock ticks since boot: `/proc/PID/stat` field 22
/// (proc_pid_stat(5)).
///
/// # Errors
/// When the process does not exist.
pub fn start_time(pid: i32) -> Result<u64, ProcessError> {
    let file = File::open(format!("/proc/{pid}/stat"));
    match file.and_then(|file| read_stat(&file)) {
        Ok(stat) => Ok(stat.starttime),
        Err(error) if is_gone(&error) => Err(ProcessError::Gone { pid }),
        Err(source) => Err(ProcessError::Io {
            action: "examine",
            pid,
            source,
        }),
    }
}

/// Whether an error of a file of `/proc/PID` says that the process has ended.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ESRCH as i32)
}

/// Reads `/proc/PID/stat` (proc_pid_stat(5)). The name of the program in it may be any bytes.
fn read_stat(file: &File) -> io::Result<Stat> {
    let text = kernel_text::read_bytes(file)?;
    Stat::from_read(&*text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// `/proc/PID`, held open: it stays bound to its process even if the pid is used again.
#[derive(Debug)]
pub(crate) struct ProcessDir(OwnedFd);

impl ProcessDir {
    /// Opens the directory of the process that has the pid now.
    pub(crate) fn open(pid: i32) -> io::Result<Self> {
        Ok(Self(open_directory(format!("/proc/{pid}").as_str())?))
    }

    /// Opens a file in it for reading.
    pub(crate) fn file(&self, name: &str) -> io::Result<File> {
        self.open_at(name, OFlag::O_RDONLY).map(File::from)
    }

    /// Opens a directory in it, or one that a link in it leads to, as an O_PATH descriptor.
    pub(crate) fn directory(&self, name: &str) -> io::Result<OwnedFd> {
        self.open_at(name, OFlag::O_PATH | OFlag::O_DIRECTORY)
    }

    fn open_at(&self, name: &str, flags: OFlag) -> io::Result<OwnedFd> {
        Ok(openat(&self.0, name, flags | OFlag::O_CLOEXEC, Mode::empty())?)
    }

    pub(crate) fn stat(&self) -> io::Result<Stat> {
        read_stat(&self.file("stat")?)
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
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    use std::time::Instant;

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
    fn a_process_has_a_start_time_whatever_the_name_of_its_program_is() {
        let directory = tempfile::tempdir().unwrap();
        let own = start_time(std::process::id().cast_signed()).unwrap();
        for name in [&b"a) b"[..], b") R 1 2 3 (", b"a\nb", b"\xff\xfe"] {
            let program = directory.path().join(OsStr::from_bytes(name));
            symlink("/bin/sleep", &program).unwrap();
            let mut child = std::process::Command::new(&program).arg("1000").spawn().unwrap();
            let is_named = || {
                let comm = fs::read(format!("/proc/{}/comm", child.id())).unwrap();
                comm.strip_suffix(b"\n") == Some(name)
            };
            // The kernel sets the name a moment after spawn(3) returns.
            let end = Instant::now() + Duration::from_secs(10);
            while !is_named() && Instant::now() < end {
                std::thread::yield_now();
            }
            let (is_named, started) = (is_named(), start_time(child.id().cast_signed()));
            child.kill().unwrap();
            child.wait().unwrap();
            assert!(is_named && started.unwrap() >= own, "{name:?}");
        }
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
