//! `strace`, which kills a watcher before a system call, or writes its calls to a file.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::eventually::wait_within;

pub struct Tracer(Child);

impl Tracer {
    /// Kills the watcher, a process id, when it enters the `count`th `call` that concerns one of
    /// these files; any such call if there are no files.
    pub fn attach(watcher: i32, paths: &[PathBuf], call: &str, count: u32) -> Self {
        let mut strace = Command::new("strace");
        strace.args(["-o", "/dev/null", "-e"]);
        strace.arg(format!("inject={call}:signal=SIGKILL:when={count}"));
        for path in paths {
            strace.arg("-P").arg(path);
        }
        Self::start(strace, watcher)
    }

    /// Writes the calls of the watcher to a file.
    pub fn record(watcher: i32, file: &Path) -> Self {
        let mut strace = Command::new("strace");
        strace.arg("-o").arg(file);
        Self::start(strace, watcher)
    }

    fn start(mut strace: Command, watcher: i32) -> Self {
        let mut child = strace
            .args(["-p", &watcher.to_string()])
            .stderr(Stdio::piped())
            .spawn()
            .expect("start strace (package strace)");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let is_attached = lines.any(|line| line.is_ok_and(|line| line.ends_with("attached")));
        assert!(is_attached, "strace does not trace the watcher");
        Self(child)
    }

    /// Lets the watcher go on, if it was not killed.
    pub fn detach(mut self) {
        // strace has ended by itself if the watcher has.
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        wait_within(&mut self.0, Duration::from_secs(20)).expect("strace ends");
    }
}
