//! The remote devices (`usbip:`) of one container: attached while the container requests them,
//! attached again after their connection broke, and released.
//!
//! ```text
//! requested, allowed ──> Worker runs ──> Binding: a root like any other ──> removed (uevent) ─┐
//!        ^                    │ failed: pause, longer each time                              │
//!        └────────────────────┴──────────────────────────────────────────────────────────────┘
//! ```
//! Nothing here waits for a server: a worker process does (`usbip::worker`), and none runs while
//! the devices are attached.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::event_loop::EventLoop;
use super::inside::Inside;
use crate::host::backoff::{Backoff, jittered};
use crate::host::log::event;
use crate::host::state::control::Problem;
use crate::host::stuck;
use crate::model::plan::Planner;
use crate::model::remote::address::RemoteDevice;
use crate::model::remote::binding::LastConnection;
use crate::model::request::entry::RequestEntry;
use crate::model::request::id::RequestId;
use crate::usbip::task::{AttachReply, AttachTask, AttachedDevice, Failure, Release};
use crate::usbip::worker::{self, RELEASE_TIMEOUT, Worker};

/// The timeout of one attempt. On a link with a round trip of 400 ms, the kernel alone takes 5 s.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);

/// The minimum timeout of one attempt.
const MIN_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a start waits for a device that is not required.
const START_TIMEOUT: Duration = Duration::from_secs(2);

/// The first and the maximum pause after the connection broke. Each pause is twice as long as the
/// one before.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The maximum pause while another host has the device, which may release it at any time.
const LONGEST_PAUSE_IF_TAKEN: Duration = Duration::from_secs(4);

/// How long a process of the container may be blocked in the kernel's USB core before its server
/// counts as hanging.
const BLOCKED_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a handover waits for an attempt to end: less than the new watcher waits for the
/// handover.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(8);

/// The remote devices that one container requests.
pub(super) struct Remotes {
    container: String,
    state_dir: PathBuf,
    all: Vec<Remote>,
    /// The time since when a process of the container has been blocked in the kernel's USB core.
    blocked_since: Option<Instant>,
    /// The cgroup of the container, once it was looked up.
    cgroup: Option<PathBuf>,
}

/// One remote device.
struct Remote {
    device: RemoteDevice,
    worker: Option<Worker>,
    /// When the worker was started.
    started: Instant,
    /// Whether the device was attached when last checked.
    was_bound: bool,
    last: Option<LastConnection>,
    backoff: Backoff,
    next: Instant,
    /// Why the last attempt failed; `None` if it did not.
    problem: Option<String>,
}

impl Remote {
    fn new(device: RemoteDevice, last: Option<LastConnection>) -> Self {
        Self {
            device,
            worker: None,
            started: Instant::now(),
            was_bound: false,
            last,
            backoff: Backoff::new(FIRST_PAUSE),
            next: Instant::now(),
            problem: None,
        }
    }

    fn pause(&mut self, longest: Duration) {
        self.next = Instant::now() + jittered(self.backoff.failed(longest));
    }

    /// Whether the device is neither attached nor being attached.
    fn is_waiting(&self) -> bool {
        self.worker.is_none() && !self.was_bound
    }

    /// Whether the first attempt has not ended.
    fn is_new(&self) -> bool {
        !self.was_bound && self.backoff.failures() == 0
    }

    /// Checks whether the device is attached. After the connection broke, the next attempt follows
    /// soon.
    fn check(&mut self, planner: &Planner, container: &str) {
        let bound = planner.bound_as(&self.device);
        if let Some(bound) = bound {
            self.last = Some(bound.last.clone());
        } else if self.was_bound {
            tracing::warn!(container = %container, "{} was disconnected; it will be attached again as soon as possible", self.device);
            self.backoff.reset();
            self.pause(LONGEST_PAUSE);
        }
        self.was_bound = bound.is_some();
    }

    fn start(&mut self, container: &str, state_dir: &Path, timeout: Duration, events: &EventLoop) {
        let task = AttachTask {
            device: self.device.clone(),
            container: container.to_owned(),
            last: self.last.clone(),
            timeout: timeout.max(MIN_ATTEMPT_TIMEOUT),
        };
        match Worker::attach(state_dir, task) {
            Ok(worker) => {
                events.add_worker(&worker);
                self.worker = Some(worker);
                self.started = Instant::now();
            }
            Err(error) => {
                self.problem = Some(error.to_string());
                self.pause(LONGEST_PAUSE);
            }
        }
    }

    fn take_reply(&mut self, reply: AttachReply, planner: &mut Planner, inside: &Inside) {
        match reply {
            Ok(AttachedDevice { binding, note }) => {
                self.problem = None;
                self.backoff.reset();
                self.was_bound = true;
                self.next = Instant::now();
                let note = note.map_or_else(String::new, |note| format!(" ({note})"));
                tracing::info!(container = %inside.id(), "{} is attached: {}{note}", self.device, binding.syspath);
                planner.bind(self.device.clone(), binding);
            }
            Err(Failure { reason, is_taken }) => {
                self.pause(if is_taken {
                    LONGEST_PAUSE_IF_TAKEN
                } else {
                    LONGEST_PAUSE
                });
                if self.problem.as_ref() != Some(&reason) {
                    let kind = if is_taken { event::WAITING } else { event::FAILED };
                    inside.log_event(kind, "", Path::new(""), &reason);
                }
                self.problem = Some(reason);
            }
        }
    }
}

impl Remotes {
    /// The remote devices of a container. Undoes the attachments that an earlier watcher did not
    /// finish: if their server hangs, they would block every process that reads attributes of the
    /// hub, including this watcher.
    pub(super) fn open(container: &str, state_dir: &Path, planner: &Planner) -> Self {
        let mut entries = planner.entries().iter();
        if entries.any(|entry| entry.request.selector.remote().is_some()) {
            let release = Release::Unfinished(container.to_owned());
            worker::release(state_dir, release, RELEASE_TIMEOUT);
        }
        Self {
            container: container.to_owned(),
            state_dir: state_dir.to_owned(),
            all: Vec::new(),
            blocked_since: None,
            cgroup: None,
        }
    }

    /// Adds the devices that are requested now, and releases the others.
    pub(super) fn update(&mut self, requested: Vec<RemoteDevice>, planner: &mut Planner) {
        let is_requested = |remote: &Remote| requested.contains(&remote.device);
        let (kept, dropped): (Vec<Remote>, Vec<Remote>) =
            std::mem::take(&mut self.all).into_iter().partition(is_requested);
        self.all = kept;
        for remote in dropped {
            planner.unbind(&remote.device);
            let release = Release::Device {
                container: self.container.clone(),
                device: remote.device.clone(),
            };
            drop(remote);
            worker::release(&self.state_dir, release, RELEASE_TIMEOUT);
        }
        for device in requested {
            if !self.all.iter().any(|remote| remote.device == device) {
                let bound = planner.bound_as(&device);
                let last = bound.map(|bound| bound.last.clone());
                self.all.push(Remote::new(device, last));
            }
        }
    }

    /// Starts the attempts that are due; the event loop waits for them. `start_timeout` is the
    /// timeout of a start that waits for required devices, if there is one: the attempt ends before
    /// it, so that the start fails with the reason.
    pub(super) fn start_due(
        &mut self,
        planner: &Planner,
        start_timeout: Option<Duration>,
        events: &EventLoop,
    ) {
        for remote in &mut self.all {
            remote.check(planner, &self.container);
            if !remote.is_waiting() || remote.next > Instant::now() {
                continue;
            }
            let timeout = start_timeout.filter(|_| is_required(&remote.device, planner));
            let timeout = timeout.map_or(ATTEMPT_TIMEOUT, |timeout| timeout.min(ATTEMPT_TIMEOUT));
            remote.start(&self.container, &self.state_dir, timeout, events);
        }
    }

    /// Takes the replies of workers. Returns whether there were any.
    pub(super) fn take_replies(&mut self, planner: &mut Planner, inside: &Inside) -> bool {
        let mut were_any = false;
        for remote in &mut self.all {
            let Some(reply) = remote.worker.as_mut().and_then(Worker::reply) else {
                continue;
            };
            remote.worker = None;
            were_any = true;
            remote.take_reply(reply, planner, inside);
        }
        were_any
    }

    /// The workers that the event loop waits for.
    pub(super) fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.all.iter().filter_map(|remote| remote.worker.as_ref())
    }

    /// When the next attempt is due.
    pub(super) fn next_attempt(&self) -> Option<Instant> {
        let waiting = self.all.iter().filter(|remote| remote.is_waiting());
        waiting.map(|remote| remote.next).min()
    }

    /// The time until which a client that waits for these requests since `since`, at most until
    /// `until`, waits for remote devices; `None` if it does not.
    pub(super) fn awaited_until(
        &self,
        requests: &[RequestId],
        planner: &Planner,
        since: Instant,
        until: Instant,
    ) -> Option<Instant> {
        let mut awaited = None;
        for (entry, _) in self
            .of_requests(requests, planner)
            .filter(|(_, remote)| remote.is_new())
        {
            if entry.request.options.required {
                return Some(until);
            }
            awaited = Some(until.min(since + START_TIMEOUT));
        }
        awaited
    }

    /// Why a start fails that requires a remote device; `None` if its remote devices are attached.
    pub(super) fn missing_at_start(&self, requests: &[RequestId], planner: &Planner) -> Option<String> {
        let mut missing = self
            .of_requests(requests, planner)
            .filter(|(entry, remote)| entry.request.options.required && !remote.was_bound);
        let (entry, remote) = missing.next()?;
        let reason = remote
            .problem
            .as_deref()
            .unwrap_or("the remote device was not attached in time");
        Some(format!(
            "device request {:?}: {reason}; the request is `required` (remove `;required` to start without the device and get it later)",
            entry.request.to_string()
        ))
    }

    fn of_requests<'a>(
        &'a self,
        requests: &'a [RequestId],
        planner: &'a Planner,
    ) -> impl Iterator<Item = (&'a RequestEntry, &'a Remote)> {
        let entries = planner.requests();
        let entries = entries.filter(|(id, _)| !self.all.is_empty() && requests.contains(id));
        entries.filter_map(|(_, entry)| {
            let device = entry.request.selector.remote()?;
            let remote = self.all.iter().find(|remote| remote.device == device)?;
            Some((entry, remote))
        })
    }

    /// The attempts that failed, as problems.
    pub(super) fn problems(&self) -> impl Iterator<Item = Problem> {
        self.all.iter().filter_map(|remote| {
            let reason = remote.problem.as_ref()?;
            Some(problem(format!(
                "usbip:{}: {reason} (trying again)",
                remote.device
            )))
        })
    }

    /// Detaches all devices if a process of the container is blocked because a server hangs:
    /// nothing else unblocks it, not even SIGKILL, so the container could not end.
    ///
    /// The kernel does not show which device the process waits for: its stack (proc_pid_stack(5))
    /// has the same functions for all controllers, and /proc/PID/fd does not have a descriptor that
    /// is being opened or closed. So a local device with a broken controller makes the remote ones
    /// be detached as well. That is acceptable: a hardware controller responds within milliseconds,
    /// or the kernel gives up on it; and remote devices are attached again, whereas a container
    /// that cannot end stays.
    pub(super) fn detach_if_blocked(&mut self, planner: &Planner, inside: &Inside) {
        if planner.bound().is_empty() || !self.has_blocked_process(inside) {
            self.blocked_since = None;
            return;
        }
        let since = self.blocked_since.get_or_insert_with(Instant::now);
        if since.elapsed() < BLOCKED_TIMEOUT {
            return;
        }
        self.blocked_since = None;
        tracing::warn!(container = %self.container, "a process of the container has been blocked in the kernel's USB core for {BLOCKED_TIMEOUT:?} because a usbip server hangs; detaching the remote devices");
        release_all_of(&self.container, &self.state_dir);
    }

    fn has_blocked_process(&mut self, inside: &Inside) -> bool {
        if self.cgroup.is_none() {
            let own = inside.cgroup_paths().ok();
            self.cgroup = own.and_then(|own| own.v2.last().cloned().or(own.v1_devices));
        }
        self.cgroup.as_deref().is_some_and(stuck::is_blocked_by_usb)
    }

    /// Forgets the cgroup of the container, because it was moved.
    pub(super) fn forget_cgroup(&mut self) {
        self.cgroup = None;
    }

    /// Releases all devices, at the end of the container.
    pub(super) fn release_all(&mut self) {
        if self.all.is_empty() {
            return;
        }
        self.all.clear();
        release_all_of(&self.container, &self.state_dir);
    }

    /// Whether an attempt runs that a handover waits for.
    pub(super) fn is_attaching(&self) -> bool {
        let mut all = self.all.iter();
        all.any(|remote| remote.worker.is_some() && remote.started.elapsed() < HANDOVER_TIMEOUT)
    }

    /// Ends all attempts: the next watcher makes its own.
    pub(super) fn end_attempts(&mut self) {
        for remote in &mut self.all {
            remote.worker = None;
        }
    }
}

/// Detaches all devices that were attached for a container.
pub(super) fn release_all_of(container: &str, state_dir: &Path) {
    let release = Release::Container(container.to_owned());
    worker::release(state_dir, release, RELEASE_TIMEOUT);
}

/// A problem of a remote device, which has no node.
pub(super) fn problem(reason: String) -> Problem {
    Problem {
        path: PathBuf::from("/dev"),
        device: None,
        reason,
        waiting: false,
    }
}

fn is_required(device: &RemoteDevice, planner: &Planner) -> bool {
    planner.entries().iter().any(|entry| {
        entry.request.options.required && entry.request.selector.remote().as_ref() == Some(device)
    })
}
