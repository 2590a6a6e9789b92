//! Devices of other hosts (`usbip:`): attached while the container asks for them, attached again when their connection
//! broke, and given back.
//!
//! ```text
//! asked for, allowed ──> Worker at work ──> bound: a root like any other ──> gone (the kernel's event) ─┐
//!        ^                    │ failed: pause, longer each time                                        │
//!        └────────────────────┴────────────────────────────────────────────────────────────────────────┘
//! ```
//! Nothing here waits for a server: a process of its own does (`usbip::worker`), and none runs while all is well.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Watcher;
use super::event_loop::EventLoop;
use crate::host::backoff::{Backoff, jittered};
use crate::host::log::event;
use crate::host::state::control::Problem;
use crate::model::device::Device;
use crate::model::plan::Planner;
use crate::model::remote::address::RemoteDevice;
use crate::model::remote::binding::{Binding, LastConnection};
use crate::model::remote::vhci;
use crate::model::request::entry::RequestEntry;
use crate::model::request::id::RequestId;
use crate::usbip::records;
use crate::usbip::task::{AttachTask, AttachedDevice, Failure, Release};
use crate::usbip::worker::{self, RELEASE_TIMEOUT, Worker};

/// How long one attempt may take. On a link of 400 ms there and back the kernel alone asks for 5 s.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a container that does not require the device waits for it at its start.
const START_PATIENCE: Duration = Duration::from_secs(2);

/// The pause before the first attempt after a break, and the longest one. Each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The longest one while somebody else has the device, who may let it go at any time.
const LONGEST_WAIT: Duration = Duration::from_secs(4);

/// How long a process of the container may be stuck in the kernel's USB core before its server counts as stopped.
const STUCK: Duration = Duration::from_secs(5);

/// How long who wants to be the watcher in our place waits for an attempt to end (`succession`: less than its patience).
const SUCCESSOR_WAITS: Duration = Duration::from_secs(8);

/// One device of another host.
pub(super) struct Remote {
    device: RemoteDevice,
    worker: Option<Worker>,
    /// Since when that is at work.
    since: Instant,
    /// Whether it was there when last looked at.
    was_bound: bool,
    /// How it was attached last.
    last: Option<LastConnection>,
    backoff: Backoff,
    next: Instant,
    /// Why it is not there; empty = it is, or nothing has failed yet.
    problem: Option<String>,
}

/// All of one container.
#[derive(Default)]
pub(super) struct Remotes {
    all: Vec<Remote>,
    /// Since when one of the container's processes is stuck in the kernel's USB core.
    stuck_since: Option<Instant>,
    /// Where its processes are, once that was of interest.
    cgroup: Option<PathBuf>,
}

impl Remotes {
    /// The container was moved to another cgroup.
    pub(super) fn forget_place(&mut self) {
        self.cgroup = None;
    }
}

impl Remote {
    fn new(device: RemoteDevice, last: Option<LastConnection>) -> Self {
        Self {
            device,
            worker: None,
            since: Instant::now(),
            was_bound: false,
            last,
            backoff: Backoff::new(FIRST_PAUSE),
            next: Instant::now(),
            problem: None,
        }
    }

    /// Waits before the next attempt.
    fn pause(&mut self, longest: Duration) {
        self.next = Instant::now() + jittered(self.backoff.failed(longest));
    }

    fn is_due(&self, now: Instant) -> bool {
        self.worker.is_none() && !self.was_bound && self.next <= now
    }

    /// Whether the first attempt is still to come, or at work.
    fn is_new(&self) -> bool {
        !self.was_bound && self.backoff.failures() == 0
    }
}

impl Watcher {
    /// Finds out which devices of other hosts are here for other containers, if what is asked for could select any.
    pub(super) fn read_reservations(&mut self) {
        let is_virtual = |device: &Device| vhci::includes(&device.syspath);
        let is_asked_for = |device: &Device| {
            self.planner
                .is_affected_by(&device.syspath, self.world.inventory())
        };
        let mut virtual_usb = self.world.inventory().starting_with(vhci::CONTROLLERS).peekable();
        // A node that is asked for by its path may be one of these by another name, such as /dev/char/188:0.
        let is_concerned = virtual_usb.peek().is_some()
            && (virtual_usb.any(is_asked_for)
                || self
                    .world
                    .inventory()
                    .static_nodes()
                    .any(|node| is_virtual(self.world.inventory().real(node))));
        if !is_concerned {
            self.planner.set_reserved(Vec::new());
            return;
        }
        let state_dir = self.inside.state_dir();
        let reserved = records::reserved_devices(state_dir, self.inside.id(), self.world.inventory());
        self.planner.set_reserved(reserved);
    }

    /// Takes up what is asked for now and allowed, and gives the rest back. To be called whenever that may have changed.
    pub(super) fn note_remotes(&mut self) {
        let mut wanted = Vec::new();
        let allowed = |entry: &&RequestEntry| {
            let policy = self.admission.policy();
            policy.authorise(self.inside.circumstances(), entry).is_ok()
        };
        let entries = self.planner.entries().iter();
        let remote = entries.filter(|entry| entry.request.selector.remote().is_some());
        wanted.extend(
            remote
                .filter(allowed)
                .filter_map(|entry| entry.request.selector.remote()),
        );
        if wanted.is_empty() && self.remotes.all.is_empty() {
            return;
        }
        let state_dir = self.inside.state_dir().to_owned();
        let owner = self.inside.id().to_owned();
        let mut given_up = Vec::new();
        self.remotes.all.retain(|remote| {
            let stays = wanted.contains(&remote.device);
            if !stays {
                given_up.push(remote.device.clone());
            }
            stays
        });
        for device in given_up {
            self.planner.unbind(&device);
            let release = Release::Device {
                container: owner.clone(),
                device,
            };
            worker::release(&state_dir, release, RELEASE_TIMEOUT);
        }
        for device in wanted {
            if !self.remotes.all.iter().any(|remote| remote.device == device) {
                let bound = self.planner.bound_as(&device);
                let last = bound.map(|bound| bound.last.clone());
                self.remotes.all.push(Remote::new(device, last));
            }
        }
    }

    /// Takes away what the watcher before had only begun to attach, if anything: with a server that hangs, the kernel's hub
    /// would wait for ever, and whoever reads its attributes. To be called before that.
    pub(super) fn undo_what_was_begun(state_dir: &Path, owner: &str, planner: &Planner) {
        let mut entries = planner.entries().iter();
        if entries.any(|entry| entry.request.selector.remote().is_some()) {
            worker::release(state_dir, Release::Unfinished(owner.to_owned()), RELEASE_TIMEOUT);
        }
    }

    /// Sees which devices have gone, and starts the attempts that are due; the event loop waits on them.
    pub(super) fn seek_remotes(&mut self, events: &EventLoop) {
        if self.remotes.all.is_empty() {
            return;
        }
        let now = Instant::now();
        let required = self.required_at_start();
        for remote in &mut self.remotes.all {
            let bound = self.planner.bound_as(&remote.device);
            if let Some(bound) = bound {
                remote.last = Some(bound.last.clone());
            } else if remote.was_bound {
                tracing::warn!(container = %self.inside.id(), "{} is gone: it is attached again as soon as it can be", remote.device);
                remote.backoff.reset();
                remote.pause(LONGEST_PAUSE);
            }
            remote.was_bound = bound.is_some();
            if !remote.is_due(now) {
                continue;
            }
            // Who waits for the answer is to hear the reason, and not only that there was no answer.
            let patience = match required.contains(&remote.device) {
                true => self.waiters.timeout().mul_f32(0.8).min(PATIENCE),
                false => PATIENCE,
            };
            let task = AttachTask {
                device: remote.device.clone(),
                container: self.inside.id().to_owned(),
                last: remote.last.clone(),
                timeout: patience.max(Duration::from_secs(1)),
            };
            let started = Worker::attach(self.inside.state_dir(), task);
            match started {
                Ok(worker) => {
                    events.add_worker(&worker);
                    remote.worker = Some(worker);
                    remote.since = now;
                }
                Err(error) => {
                    remote.problem = Some(error.to_string());
                    remote.pause(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Hears what the attempts have come to, and acts on it.
    pub(super) fn hear_workers(&mut self) {
        let mut news = false;
        for index in 0..self.remotes.all.len() {
            let remote = &mut self.remotes.all[index];
            let Some(reply) = remote.worker.as_mut().and_then(Worker::reply) else {
                continue;
            };
            remote.worker = None;
            news = true;
            match reply {
                Ok(AttachedDevice { binding, note }) => {
                    remote.problem = None;
                    remote.backoff.reset();
                    remote.was_bound = true;
                    remote.next = Instant::now();
                    let device = remote.device.clone();
                    let note = note.map_or_else(String::new, |note| format!(" ({note})"));
                    tracing::info!(container = %self.inside.id(), "{device} is attached: {}{note}", binding.syspath);
                    self.planner.bind(device, binding);
                }
                Err(Failure { reason, is_taken }) => {
                    remote.pause(if is_taken { LONGEST_WAIT } else { LONGEST_PAUSE });
                    let before = remote.problem.replace(reason.clone());
                    if before.as_ref() != Some(&reason) {
                        let kind = if is_taken { event::WAITING } else { event::FAILED };
                        self.inside.log_event(kind, "", Path::new(""), &reason);
                    }
                }
            }
        }
        if !news {
            return;
        }
        // The kernel has sent its events before the process could speak.
        let events = self.world.drain();
        self.world.follow_links(&self.planner);
        for event in events {
            self.take_event(event);
        }
        let is_unknown =
            |(_, bound): &(RemoteDevice, Binding)| self.world.inventory().get(&bound.syspath).is_none();
        if self.planner.bound().iter().any(is_unknown) {
            if let Err(error) = self.enumerate() {
                tracing::error!(container = %self.inside.id(), "{error}");
            }
        }
        self.reconcile();
    }

    /// The workers that the event loop waits on.
    pub(super) fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.remotes
            .all
            .iter()
            .filter_map(|remote| remote.worker.as_ref())
    }

    /// When the next attempt is due.
    pub(super) fn next_attempt(&self) -> Option<Instant> {
        let waiting = |remote: &&Remote| remote.worker.is_none() && !remote.was_bound;
        self.remotes
            .all
            .iter()
            .filter(waiting)
            .map(|remote| remote.next)
            .min()
    }

    fn required_at_start(&self) -> Vec<RemoteDevice> {
        let mut required = Vec::new();
        if !self.waiters.is_empty() {
            let entries = self.planner.entries().iter();
            let entries = entries.filter(|entry| entry.request.options.required);
            required.extend(entries.filter_map(|entry| entry.request.selector.remote()));
        }
        required
    }

    /// Until when somebody who waits for these requests since then waits for devices of other hosts; `None` when he need
    /// not.
    pub(super) fn remotes_awaited(
        &self,
        requests: &[RequestId],
        since: Instant,
        until: Instant,
    ) -> Option<Instant> {
        let mut awaited = None;
        for (entry, _) in self.remotes_of(requests).filter(|(_, remote)| remote.is_new()) {
            if entry.request.options.required {
                return Some(until);
            }
            awaited = Some(until.min(since + START_PATIENCE));
        }
        awaited
    }

    fn remotes_of(&self, requests: &[RequestId]) -> impl Iterator<Item = (&RequestEntry, &Remote)> {
        let all = &self.remotes.all;
        let meant = self
            .planner
            .requests()
            .filter(|(id, _)| !all.is_empty() && requests.contains(id));
        meant.filter_map(move |(_, entry)| {
            let device = entry.request.selector.remote()?;
            let remote = all.iter().find(|remote| remote.device == device)?;
            Some((entry, remote))
        })
    }

    /// Why a container that starts lacks a device of another host that it requires.
    pub(super) fn required_and_remote(&self, requests: &[RequestId]) -> Option<String> {
        let mut missing = self
            .remotes_of(requests)
            .filter(|(entry, remote)| entry.request.options.required && !remote.was_bound);
        let (entry, remote) = missing.next()?;
        let reason = remote.problem.as_deref().unwrap_or("it is not attached in time");
        Some(format!(
            "device request {:?}: {reason}; and it is required (leave out `;required` to have it when it comes)",
            entry.request.to_string()
        ))
    }

    /// The problems that devices of other hosts are: those that are not to be had, and those that the policy refuses by now.
    pub(super) fn remote_problems(&self) -> impl Iterator<Item = Problem> {
        let of = |reason| Problem {
            path: PathBuf::from("/dev"),
            device: None,
            reason,
            waiting: false,
        };
        let sought = self.remotes.all.iter().filter_map(move |remote| {
            let reason = remote.problem.as_ref()?;
            Some(of(format!(
                "usbip:{}: {reason}: it is tried again",
                remote.device
            )))
        });
        let refused = self.planner.entries().iter().filter_map(move |entry| {
            entry.request.selector.remote()?;
            let verdict = self
                .admission
                .policy()
                .authorise(self.inside.circumstances(), entry);
            let denial = verdict.err()?;
            Some(of(format!(
                "device request {:?}: {denial}",
                entry.request.to_string()
            )))
        });
        sought.chain(refused)
    }

    /// Looks whether one of the container's processes hangs because a server does, and takes the devices away then: nothing
    /// else ends its wait, not even SIGKILL, and so nothing else lets the container end.
    ///
    /// On which device it hangs, nothing tells: its stack (proc_pid_stack(5)) names functions that are the same for all
    /// controllers, and the descriptor is gone from /proc/PID/fd while it is closed, as that of an open(2) is not there
    /// yet. So a local device whose controller is broken has the remote ones given back as well. A controller of hardware
    /// answers within milliseconds, or the kernel gives it up; and remote devices come back by themselves, while a
    /// container that can't end does not.
    pub(super) fn free_the_stuck(&mut self) {
        if self.planner.bound().is_empty() || !self.is_stuck() {
            self.remotes.stuck_since = None;
            return;
        }
        if self
            .remotes
            .stuck_since
            .get_or_insert_with(Instant::now)
            .elapsed()
            < STUCK
        {
            return;
        }
        self.remotes.stuck_since = None;
        tracing::warn!(container = %self.inside.id(), "a process of it has been stuck in the kernel's USB core for {STUCK:?}: its usbip server hangs; detaching");
        worker::release(
            self.inside.state_dir(),
            Release::Container(self.inside.id().to_owned()),
            RELEASE_TIMEOUT,
        );
    }

    /// Whether a process of the container sleeps uninterruptibly in the USB core: in usb_kill_urb as a rule
    /// (drivers/usb/core/urb.c), which waits for the server to confirm.
    fn is_stuck(&mut self) -> bool {
        if self.remotes.cgroup.is_none() {
            let own = self.inside.cgroups().ok();
            self.remotes.cgroup = own.and_then(|own| own.v2.last().cloned().or(own.v1_devices));
        }
        self.remotes.cgroup.as_deref().is_some_and(is_stuck_below)
    }

    /// Gives all devices of other hosts back. At the container's end.
    pub(super) fn give_remotes_back(&mut self) {
        if self.remotes.all.is_empty() {
            return;
        }
        self.remotes.all.clear();
        Self::give_back_all_of(self.inside.id(), self.inside.state_dir());
    }

    /// Gives back what an earlier watcher of this container attached.
    pub(super) fn give_back_all_of(owner: &str, state_dir: &Path) {
        worker::release(state_dir, Release::Container(owner.to_owned()), RELEASE_TIMEOUT);
    }

    /// Whether an attempt is at work that may come to its end before whoever wants to be the watcher loses patience.
    pub(super) fn attempts(&self) -> bool {
        let mut all = self.remotes.all.iter();
        all.any(|remote| remote.worker.is_some() && remote.since.elapsed() < SUCCESSOR_WAITS)
    }

    /// Ends the attempts that are at work: another watcher makes its own.
    pub(super) fn end_attempts(&mut self) {
        for remote in &mut self.remotes.all {
            remote.worker = None;
        }
    }
}

fn is_stuck_below(cgroup: &Path) -> bool {
    let tasks = ["cgroup.threads", "tasks", "cgroup.procs"]
        .iter()
        .find_map(|file| fs::read_to_string(cgroup.join(file)).ok())
        .unwrap_or_default();
    if tasks.lines().any(is_stuck) {
        return true;
    }
    let below = fs::read_dir(cgroup).into_iter().flatten().flatten();
    below
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .any(|entry| is_stuck_below(&entry.path()))
}

/// proc_pid_wchan(5) names the function of the kernel in which a task sleeps; whether SIGKILL wakes it, its state tells.
fn is_stuck(task: &str) -> bool {
    let read = |file: &str| fs::read_to_string(format!("/proc/{task}/{file}")).unwrap_or_default();
    let wchan = read("wchan");
    if !wchan.starts_with("usb_") {
        return false;
    }
    let stat = read("stat");
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| rest.starts_with('D'))
}
