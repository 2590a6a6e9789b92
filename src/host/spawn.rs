//! Starts a program as a child process: one of ours, or systemctl.
//!
//! The child gets an empty environment unless the caller passes one, no blocked signals, and
//! /dev/null for every standard stream that the caller does not pass. `std::process` can do the
//! same, but makes a watcher 40 KiB larger.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, open};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// The interval at which [`Child::ends_within`] checks the child.
const CHECK_INTERVAL: Duration = Duration::from_millis(5);

/// The standard streams of a child; `None` = /dev/null.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Streams<'a> {
    pub stdin: Option<BorrowedFd<'a>>,
    pub stdout: Option<BorrowedFd<'a>>,
}

/// Starts a program; `path` also becomes argument 0. Waits until the kernel has loaded it.
///
/// # Errors
/// When the program cannot be started, or an argument contains a NUL byte.
pub(crate) fn spawn(path: &Path, arguments: &[&OsStr], streams: Streams<'_>) -> io::Result<Child> {
    spawn_with(&[], path, arguments, streams)
}

/// [`spawn`] with an environment; each element is `NAME=VALUE`.
///
/// # Errors
/// As [`spawn`].
pub(crate) fn spawn_with(
    environment: &[&OsStr],
    path: &Path,
    arguments: &[&OsStr],
    streams: Streams<'_>,
) -> io::Result<Child> {
    let words: Vec<&OsStr> = [path.as_os_str()]
        .into_iter()
        .chain(arguments.iter().copied())
        .collect();
    let (words, environment) = (c_strings(&words)?, c_strings(environment)?);
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut actions = PosixSpawnFileActions::init()?;
    for (number, stream) in [(0, streams.stdin), (1, streams.stdout), (2, None)] {
        let source = stream.map_or(null.as_raw_fd(), |stream| stream.as_raw_fd());
        actions.add_dup2(source, number)?;
    }
    // Undo what children would inherit: a watcher blocks the signals that it reads from its
    // signalfd, and Rust programs ignore SIGPIPE.
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF)?;
    attributes.set_sigmask(&SigSet::empty())?;
    let mut defaults = SigSet::empty();
    defaults.add(Signal::SIGPIPE);
    attributes.set_sigdefault(&defaults)?;
    let pid = posix_spawn(path, &actions, &attributes, &words, &environment)?;
    Ok(Child {
        pid,
        state: ChildState::Running,
    })
}

fn c_strings(texts: &[&OsStr]) -> io::Result<Vec<CString>> {
    let text = |text: &&OsStr| Ok(CString::new(text.as_bytes())?);
    texts.iter().map(text).collect()
}

/// Whether a child process has ended, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildState {
    Running,
    /// Ended with exit code 0.
    Succeeded,
    /// Ended with another exit code, or by a signal.
    Failed,
}

/// A child process. Until it is reaped, no other process can get its pid. Dropping this value
/// leaves the process running.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    state: ChildState,
}

impl Child {
    /// Reaps the child if it has ended. Never blocks.
    pub fn state(&mut self) -> ChildState {
        if self.state == ChildState::Running {
            self.state = match waitpid(self.pid, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => ChildState::Running,
                Ok(WaitStatus::Exited(_, 0)) => ChildState::Succeeded,
                _ => ChildState::Failed,
            };
        }
        self.state
    }

    /// Waits for the child to end; returns whether it ended before the timeout.
    pub fn ends_within(&mut self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        loop {
            if self.state() != ChildState::Running {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(CHECK_INTERVAL);
        }
    }

    /// Sends SIGKILL, unless the child has ended.
    pub fn kill(&mut self) {
        if self.state() == ChildState::Running {
            // The child is not reaped yet, so no other process can have its pid.
            let _ = kill(self.pid, Signal::SIGKILL);
        }
    }

    /// Kills the child and waits for its end.
    pub fn kill_and_wait(&mut self) {
        self.kill();
        if self.state == ChildState::Running {
            let _ = waitpid(self.pid, None);
            self.state = ChildState::Failed;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;

    use super::*;

    fn shell(script: &str, streams: Streams<'_>) -> Child {
        spawn(Path::new("/bin/sh"), &["-c", script].map(OsStr::new), streams).unwrap()
    }

    /// What a child prints of its standard streams and its environment.
    fn printed(environment: &[&str]) -> String {
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
        let streams = Streams {
            stdin: None,
            stdout: Some(write.as_fd()),
        };
        let script = "readlink /proc/self/fd/0 /proc/self/fd/2; tr '\\0' '\\n' < /proc/$$/environ";
        let environment: Vec<&OsStr> = environment.iter().map(OsStr::new).collect();
        let shell = Path::new("/bin/sh");
        let mut child = spawn_with(&environment, shell, &["-c", script].map(OsStr::new), streams).unwrap();
        drop(write);
        let mut text = String::new();
        std::fs::File::from(read).read_to_string(&mut text).unwrap();
        assert!(child.ends_within(Duration::from_secs(10)));
        assert_eq!(child.state(), ChildState::Succeeded);
        text
    }

    #[test]
    fn a_child_has_only_the_given_environment_and_streams() {
        assert_eq!(printed(&[]), "/dev/null\n/dev/null\n");
        let with_variable = "/dev/null\n/dev/null\nXDG_RUNTIME_DIR=/run/user/1000\n";
        assert_eq!(printed(&["XDG_RUNTIME_DIR=/run/user/1000"]), with_variable);
    }

    #[test]
    fn the_exit_code_determines_the_state_of_a_child() {
        for (script, state) in [
            ("exit 0", ChildState::Succeeded),
            ("exit 3", ChildState::Failed),
            ("kill -9 $$", ChildState::Failed),
        ] {
            let mut child = shell(script, Streams::default());
            assert!(child.ends_within(Duration::from_secs(10)), "{script}");
            assert_eq!(child.state(), state, "{script}");
        }
        let mut child = shell("exec sleep 1000", Streams::default());
        assert!(!child.ends_within(Duration::ZERO));
        child.kill_and_wait();
        assert_eq!(child.state(), ChildState::Failed);
    }

    #[test]
    fn spawning_a_missing_program_returns_an_error() {
        let error = spawn(Path::new("/no/such/program"), &[], Streams::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
