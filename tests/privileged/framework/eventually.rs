//! Waits for conditions, always with a deadline.

use std::os::fd::AsFd;
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// How long anything may take that should be quick. A test waits this long only if it fails, or on
/// a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// How often a condition is checked.
const STEP: Duration = Duration::from_millis(4);

/// Waits until `condition` holds; panics with `what` at the deadline.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    eventually_some(what, || condition().then_some(()));
}

/// Waits until `attempt` returns a value; panics with `what` at the deadline.
#[track_caller]
pub fn eventually_some<T>(what: &str, attempt: impl FnMut() -> Option<T>) -> T {
    match within(DEADLINE, attempt) {
        Some(value) => value,
        None => panic!("not within {DEADLINE:?}: {what}"),
    }
}

/// Waits at most `limit` until `attempt` returns a value.
pub fn within<T>(limit: Duration, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = attempt() {
            return Some(value);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(STEP);
    }
}

/// Waits for a child at most `limit`, with microsecond precision; at the limit, kills it and
/// returns `None`.
pub fn wait_within(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).expect("a descriptor of a child");
    let timeout = PollTimeout::try_from(limit).expect("a deadline of less than a month");
    let ended =
        poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], timeout).expect("wait for a child");
    if ended == 0 {
        let _ = child.kill();
        let _ = child.wait();
        return None;
    }
    Some(child.wait().expect("reap a child"))
}
