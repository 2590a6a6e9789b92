//! A process inside the container that reports, to the microsecond, when a device can be opened and
//! when no longer. It is this program, started again; it joins the container's cgroup and mount
//! namespace and answers queries.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_timerslack;
use nix::sys::stat::{Mode, lstat};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{AccessFlags, access, setsid};

use crate::framework::RuncContainer;

/// The first argument that makes this program a probe; the container's pid and cgroup follow.
pub const FLAG: &str = "--probe";

/// The time between two attempts.
const NAP: Duration = Duration::from_micros(20);

/// CLOCK_MONOTONIC in nanoseconds: the same clock in every process of the machine.
pub fn now() -> i64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("read the clock");
    time.tv_sec() * 1_000_000_000 + time.tv_nsec()
}

/// Runs the probe: each line of input is a query, `opens PATH`, `refused PATH` or `ends OWN NODE`,
/// with two lines of output: that the probe has begun to try, and when it succeeded. `ends` has two
/// times: when OWN, a node that the container has made, was refused, and when NODE was gone.
pub fn serve(pid: &str, cgroup: &str) {
    std::fs::write(
        Path::new(cgroup).join("cgroup.procs"),
        std::process::id().to_string(),
    )
    .expect("join the cgroup");
    // The scheduler shares processors between sessions (sched(7), autogroups): in that of the
    // benchmark, the probe would stand in for the processes there, and not for others.
    setsid().expect("begin a session");
    set_timerslack(1).expect("sleep exactly");
    let namespace = std::fs::File::open(format!("/proc/{pid}/ns/mnt")).expect("open a mount namespace");
    setns(namespace, CloneFlags::CLONE_NEWNS).expect("join the mount namespace");
    for line in std::io::stdin().lines() {
        let line = line.expect("read a question");
        let (question, path) = line.split_once(' ').expect("a question and a path");
        println!("trying");
        match question {
            "opens" => try_until(|| opens(path)),
            "ends" => {
                println!("{}", ends(path));
                continue;
            }
            _ => try_until(|| is_refused(path)),
        }
        println!("{}", now());
    }
}

/// Does not open the node: that would keep a partition from being deleted. access(2) also checks
/// the device cgroup.
fn is_refused(path: &str) -> bool {
    access(path, AccessFlags::R_OK) == Err(Errno::EPERM)
}

fn ends(paths: &str) -> String {
    let (own, node) = paths.split_once(' ').expect("two paths");
    let (mut refused, mut gone) = (None, None);
    try_until(|| {
        if refused.is_none() && is_refused(own) {
            refused = Some(now());
        }
        if gone.is_none() && lstat(node).err() == Some(Errno::ENOENT) {
            gone = Some(now());
        }
        refused.is_some() && gone.is_some()
    });
    format!("{} {}", refused.unwrap_or_default(), gone.unwrap_or_default())
}

/// Sleeps between the attempts, so that the probe keeps no process that has work to do from a
/// processor.
fn try_until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        thread::sleep(NAP);
    }
}

fn opens(path: &str) -> bool {
    open(
        path,
        OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .is_ok()
}

/// A running probe.
pub struct Probe {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Probe {
    /// Starts a probe in a container.
    pub fn enter(container: &RuncContainer<'_>) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("the path of this program"))
            .args([FLAG, &container.pid.to_string()])
            .arg(container.cgroup())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the probe");
        let questions = child.stdin.take().expect("a pipe was requested");
        let answers = BufReader::new(child.stdout.take().expect("a pipe was requested"));
        Self {
            child,
            questions,
            answers,
        }
    }

    /// Makes the probe try until `path` opens.
    pub fn try_to_open(&mut self, path: &str) {
        self.ask("opens", path);
    }

    /// Makes the probe try until the device cgroup refuses `path`.
    pub fn wait_for_refusal(&mut self, path: &str) {
        self.ask("refused", path);
    }

    /// Makes the probe try until the device cgroup refuses `own` and `node` is gone.
    pub fn wait_for_end(&mut self, own: &str, node: &str) {
        self.ask("ends", &format!("{own} {node}"));
    }

    /// Waits until the probe has seen both, and returns when.
    pub fn when_both(&mut self) -> (i64, i64) {
        let line = self.line();
        let (refused, gone) = line.split_once(' ').expect("two times");
        (refused.parse().expect("a time"), gone.parse().expect("a time"))
    }

    /// Waits until the probe has succeeded, and returns when.
    pub fn when(&mut self) -> i64 {
        self.line().parse().expect("a time")
    }

    fn ask(&mut self, question: &str, path: &str) {
        writeln!(self.questions, "{question} {path}").expect("ask the probe");
        assert_eq!(self.line(), "trying");
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("hear the probe");
        line.trim_end().to_owned()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
