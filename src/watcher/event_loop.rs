//! The watcher's life: take the lock, look, say that we are ready, follow events, end.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::detach::HandedOver;
use super::effects::{EffectError, Memory};
use super::handover::take_over;
use super::restore::Entry;
use super::{Recipient, Waiter, Watcher};
use crate::host::container::{Container, ContainerError};
use crate::host::monitor::MonitorError;
use crate::host::process::{ProcessError, start_time};
use crate::host::state::control::{ControlClient, ControlError, ControlResponse, ControlSocket, Received};
use crate::host::state::leases::Leases;
use crate::host::state::leftovers;
use crate::host::state::registry::{RecordLock, Registry, RegistryError, WatcherProcess};
use crate::model::counters::Counters;
use crate::model::oci::ContainerId;
use crate::model::plan::Current;
use crate::model::policy::Policy;

/// The pause between two looks at what no event tells of.
const TICK: Duration = Duration::from_secs(1);

/// How long to wait for the lock when nobody handed it over.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// How many may have the control socket open at once.
const MAX_CLIENTS: usize = 64;

/// Why a watcher ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The container's init has ended. The record is removed, unless some of its access could not be taken back.
    ContainerGone,
    /// It was told to end. Record and devices stay for its successor, or for poststop.
    Told,
    /// The container may not start as it asks. The record is removed.
    Refused,
}

/// Why a watcher could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum WatcherError {
    /// There is nothing to watch.
    #[error("container {0} has no record in {1} (its hook enrolls it)")]
    NotEnrolled(ContainerId, std::path::PathBuf),
    /// The state directory.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The container.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// This process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// What is inside.
    #[error(transparent)]
    Inside(#[from] EffectError),
    /// Devices and events.
    #[error(transparent)]
    Monitor(#[from] MonitorError),
    /// The control socket.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The event loop.
    #[error("waiting for events: {0}")]
    Wait(#[from] nix::errno::Errno),
}

/// What the administrator has decided for all containers.
#[derive(Debug)]
pub struct Settings {
    /// Who may have what.
    pub policy: Policy,
    /// The configuration that was named: it is read again on SIGHUP.
    pub config: Option<std::path::PathBuf>,
    /// How long somebody waits for readiness before it is told all the same.
    pub ready_timeout: Duration,
    /// Whether systemd is asked to look after us.
    pub supervise: bool,
}

/// How a watcher comes to its container.
pub enum Beginning {
    /// The hook has the record's lock, and hands it over.
    HandedOver(HandedOver),
    /// In place of the watcher that is there, if one is.
    TakeOver,
    /// There is none any more.
    Alone,
}

/// What woke us.
mod token {
    pub const CONTAINER: u64 = 0;
    pub const SIGNAL: u64 = 1;
    pub const CONTROL: u64 = 2;
    pub const DEVICES: u64 = 3;
    pub const WORKER: u64 = 4;
    pub const FIRST_CLIENT: u64 = 16;
}

/// Watches one container until it ends, or until told to end. Readiness is told after ``Settings::ready_timeout` at the
/// latest.
///
/// # Errors
/// When the container is not enrolled, or something that all of it depends on can't be opened. The one who
/// waits for readiness is told, too.
pub fn run(
    registry: &Registry,
    id: &ContainerId,
    beginning: Beginning,
    settings: Settings,
) -> Result<Ending, WatcherError> {
    let none_held = || Leases::new(registry.root());
    let (lock, leases, ready) = match beginning {
        Beginning::HandedOver(given) => (
            RecordLock::inherit(registry, id, given.lock)?,
            none_held(),
            Some(given.ready),
        ),
        Beginning::TakeOver => {
            let (lock, leases) = take_over(registry, id)?;
            (lock, leases, None)
        }
        Beginning::Alone => (registry.lock(id, LOCK_TIMEOUT)?, none_held(), None),
    };
    let mut ready_copy = ready.as_ref().and_then(|file| file.try_clone().ok());
    let outcome = watch(registry, id, lock, leases, ready, settings);
    let failure = match &outcome {
        Err(error) => Some(error.to_string()),
        Ok(Ending::ContainerGone) => Some("the container's process has ended".to_owned()),
        Ok(Ending::Told | Ending::Refused) => None,
    };
    if let (Some(failure), Some(pipe)) = (failure, &mut ready_copy) {
        let text = serde_json::to_string(&ControlResponse::Failed(failure)).unwrap_or_default();
        // The hook may have given up by now; the log has the error in any case.
        let _ = std::io::Write::write_all(pipe, format!("{text}\n").as_bytes());
    }
    outcome
}

fn watch(
    registry: &Registry,
    id: &ContainerId,
    lock: RecordLock,
    leases: Leases,
    ready: Option<std::fs::File>,
    settings: Settings,
) -> Result<Ending, WatcherError> {
    let pid = std::process::id() as i32;
    lock.sign(WatcherProcess {
        pid,
        start_time: start_time(pid)?,
    })?;
    let signals = block_signals()?;
    let record = lock
        .record()?
        .ok_or_else(|| WatcherError::NotEnrolled(id.clone(), registry.root().to_owned()))?;
    let memory: Memory = lock.attached()?.unwrap_or_default();
    let opened = match record.is_running() {
        true => Container::open(&record.container),
        // Also of an earlier boot, in which the same pid and start time were another process's.
        false => Err(ContainerError::Gone {
            id: record.container.id.clone(),
            pid: record.container.pid,
        }),
    };
    let container = match opened {
        Ok(container) => container,
        Err(ContainerError::Gone { .. }) => {
            // First of all: once a remote device is given back, its number may become another device's.
            let is_revoked = leftovers::revoke(&lock);
            Watcher::give_back_all_of(&record.container.id, registry.root());
            leftovers::remove_files(&lock);
            // Otherwise the record is for whoever tries again.
            if is_revoked {
                lock.remove()?;
            }
            return Ok(Ending::ContainerGone);
        }
        Err(error) => return Err(error.into()),
    };
    let control = ControlSocket::bind(lock.dir_fd(), lock.dir())?;
    let mut watcher = Watcher::open(record, lock, container, memory, leases, settings)?;
    watcher.inside.count(Counters::begin);
    if let Some(pipe) = ready {
        let requests = watcher.planner.requests().map(|(id, _)| id).collect();
        watcher.waiters.push(Waiter::new(
            Recipient::Starter(pipe),
            requests,
            watcher.ready_timeout,
        ));
    }
    watcher.reconcile();
    let ending = watcher.follow(control, &signals)?;
    if ending != Ending::Told {
        let is_revoked = watcher.inside.revoke();
        watcher.give_remotes_back();
        watcher.inside.remove_outliving(&watcher.attachments);
        if is_revoked {
            watcher.inside.into_lock().remove()?;
        }
    }
    Ok(ending)
}

fn block_signals() -> nix::Result<SignalFd> {
    let mut mask = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        mask.add(signal);
    }
    mask.thread_block()?;
    SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

impl Watcher {
    /// The loop: one epoll, one thread.
    fn follow(&mut self, mut control: ControlSocket, signals: &SignalFd) -> Result<Ending, WatcherError> {
        let mut epoll = self.register(&control, signals)?;
        let mut clients: Vec<Option<ControlClient>> = Vec::new();
        let mut next_tick = Instant::now() + TICK;
        let mut first = true;
        loop {
            if matches!(
                self.reply_to_ready_waiters(),
                Some(ControlResponse::Failed(_) | ControlResponse::Refused(_))
            ) {
                return Ok(Ending::Refused);
            }
            if self.is_relieved() {
                return Ok(Ending::Told);
            }
            self.act_on_due_removals();
            self.maintain_systemd_unit();
            self.seek_remotes(&epoll, token::WORKER);
            if std::mem::take(&mut first) {
                // Whatever dead hooks left is cleared away now, when nobody waits for us.
                let registry = Registry::new(self.inside.lock().state_dir());
                if let Err(error) = leftovers::clear(&registry, leftovers::revoke) {
                    tracing::warn!("{error}");
                }
                self.note_tally();
                if let Err(error) = crate::sys::memory::forget_start_up() {
                    tracing::debug!("giving memory back: {error}");
                }
            }
            let mut ready = [EpollEvent::empty(); 16];
            let count = match epoll.wait(&mut ready, self.pause(next_tick)) {
                Ok(count) => count,
                Err(nix::errno::Errno::EINTR) => 0,
                Err(error) => return Err(error.into()),
            };
            // The end first: nothing is to be done to a container that is gone.
            let woken: Vec<u64> = ready[..count].iter().map(EpollEvent::data).collect();
            if woken.contains(&token::CONTAINER) {
                return Ok(Ending::ContainerGone);
            }
            if woken.contains(&token::SIGNAL) {
                let received = read_signals(signals);
                if received.to_end {
                    self.note_end();
                    return Ok(Ending::Told);
                }
                if received.to_reload {
                    // What is wrong is in the log and in the status.
                    let _ = self.reload();
                }
            }
            if woken.contains(&token::DEVICES) {
                self.take_events();
            }
            if woken.contains(&token::WORKER) {
                self.hear_workers();
            }
            for client in woken
                .iter()
                .filter_map(|token| token.checked_sub(token::FIRST_CLIENT))
            {
                self.read_client(&epoll, &mut clients, client as usize);
            }
            if woken.contains(&token::CONTROL) {
                accept(&control, &epoll, &mut clients);
            }
            if next_tick <= Instant::now() {
                next_tick = Instant::now() + TICK;
                self.tick();
                self.note_tally();
                let mut moved = self.monitor.refresh();
                match self.restore() {
                    Entry::InPlace => {}
                    Entry::Restored(socket) => (control, moved) = (socket, true),
                    Entry::Taken => return Ok(Ending::Told),
                }
                if moved {
                    epoll = self.register(&control, signals)?;
                    clients.clear();
                }
            }
        }
    }

    fn register(&self, control: &ControlSocket, signals: &SignalFd) -> nix::Result<Epoll> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let readable = |token| EpollEvent::new(EpollFlags::EPOLLIN, token);
        epoll.add(self.container.init(), readable(token::CONTAINER))?;
        epoll.add(signals.as_fd(), readable(token::SIGNAL))?;
        epoll.add(control.as_fd(), readable(token::CONTROL))?;
        for fd in self.monitor.fds() {
            epoll.add(fd, readable(token::DEVICES))?;
        }
        for worker in self.workers() {
            epoll.add(worker, readable(token::WORKER))?;
        }
        Ok(epoll)
    }

    /// Until the next tick, or until somebody's patience is over.
    fn pause(&self, next_tick: Instant) -> EpollTimeout {
        let next = self
            .next_deadline()
            .map_or(next_tick, |deadline| deadline.min(next_tick));
        let millis = next
            .saturating_duration_since(Instant::now())
            .as_micros()
            .div_ceil(1000);
        EpollTimeout::from(u16::try_from(millis).unwrap_or(1000))
    }

    fn read_client(&mut self, epoll: &Epoll, clients: &mut [Option<ControlClient>], index: usize) {
        let Some(slot) = clients.get_mut(index) else {
            return;
        };
        let Some(client) = slot.as_mut() else { return };
        match client.hear() {
            Received::Incomplete => {}
            Received::Closed => *slot = None,
            Received::Request(request) => {
                if let Some(client) = slot.take() {
                    // One question each: from here on it only waits for its answer.
                    let _ = epoll.delete(client.as_fd());
                    self.handle_request(client, request);
                }
            }
        }
    }

    /// Removes everything: the container may not start, or another watcher has its place.
    pub(super) fn remove_all(&mut self) {
        let steps = crate::model::plan::remove_all(&Current {
            attachments: &self.attachments,
            granted: &self.granted,
            postponed: &BTreeSet::new(),
        });
        let failures = super::transaction::apply(
            steps,
            &mut self.attachments,
            &mut self.granted,
            &mut self.inside,
            super::unix_time(),
        );
        for failure in failures {
            tracing::warn!(container = %self.record.container.id, "{}", failure.reason);
        }
    }
}

fn accept(control: &ControlSocket, epoll: &Epoll, clients: &mut Vec<Option<ControlClient>>) {
    while let Some(client) = control.accept() {
        let index = clients.iter().position(Option::is_none).unwrap_or(clients.len());
        let event = EpollEvent::new(EpollFlags::EPOLLIN, token::FIRST_CLIENT + index as u64);
        if index >= MAX_CLIENTS || epoll.add(client.as_fd(), event).is_err() {
            continue;
        }
        if index == clients.len() {
            clients.push(None);
        }
        clients[index] = Some(client);
    }
}

/// What signals have asked of us.
#[derive(Default)]
struct Signals {
    to_end: bool,
    to_reload: bool,
}

fn read_signals(signals: &SignalFd) -> Signals {
    let mut received = Signals::default();
    while let Ok(Some(info)) = signals.read_signal() {
        if info.ssi_signo == Signal::SIGHUP as u32 {
            received.to_reload = true;
        } else {
            received.to_end = true;
        }
    }
    received
}
