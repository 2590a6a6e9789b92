//! The events that wake the daemon: from the host's devices and paths, the configuration files,
//! kubelet, USB/IP servers, timers and signals.
//!
//! Events only wake; a new snapshot shows what has changed. Must not know what is advertised.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::changes::{Changes, Debounce, FileWatch};
use super::config::Definition;
use super::kubelet::pod_resources::{self, Holders};
use super::options::Options;
use super::resources;
use super::snapshot::{self, PathKind, Snapshot};
use super::usbip_servers::{Known, Servers};
use crate::host::monitor::{DeviceMonitor, RECEIVE_BUFFER};
use crate::model::remote::address::Server;
use crate::sys::readiness;

/// The interval of checking paths outside /dev, for which there are no events; the same as in
/// generic-device-plugin.
const OUTSIDE_INTERVAL: Duration = Duration::from_secs(5);

/// How long the start waits for USB/IP servers and for kubelet's list of holders: if resources were
/// withdrawn for a moment, a kubelet that starts at the same time could miss their return.
const FIRST_ANSWERS_TIMEOUT: Duration = Duration::from_secs(3);

pub(super) enum Wake {
    /// SIGTERM or SIGINT.
    End,
    /// kubelet listed which containers have which units.
    Holders(Holders),
    /// A burst of changes is over.
    Changes(Changes),
}

/// The signals that end the daemon in order; without handlers, they would kill the process.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    ///
    /// If the kernel refuses a handler.
    pub(super) fn install() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

/// Everything that wakes the daemon.
pub(super) struct Sources {
    signals: Signals,
    monitor: DeviceMonitor,
    /// Copies of the monitor's descriptors, so that the monitor itself can be drained.
    readable: Vec<AsyncFd<OwnedFd>>,
    configuration: FileWatch,
    paths: FileWatch,
    outside: OutsidePaths,
    holders: watch::Receiver<Option<Holders>>,
    asks_kubelet: bool,
    /// Whether to query kubelet for holders often, because other nodes wait for devices of USB/IP
    /// servers that a pod releases.
    often: watch::Sender<bool>,
    servers: Servers,
    known: watch::Receiver<Known>,
    debounce: Debounce,
    _tasks: JoinSet<()>,
}

impl Sources {
    /// Starts all sources.
    ///
    /// # Errors
    ///
    /// If the host's devices cannot be watched.
    pub(super) fn start(signals: Signals, options: &Options, definitions: &[Definition]) -> Result<Self> {
        let mut tasks = JoinSet::new();
        let (answers, often) = (watch::Sender::new(None), watch::Sender::new(false));
        let holders = answers.subscribe();
        if let Some(socket) = &options.pod_resources {
            let (socket, grace) = (socket.clone(), options.grace);
            tasks.spawn(pod_resources::follow(socket, grace, often.subscribe(), answers));
        }
        let mut monitor = DeviceMonitor::open(resources::facts_needed(definitions), RECEIVE_BUFFER)
            .context("cannot watch the host's devices")?;
        // Later polls report changes of static nodes, including the removal of one that exists now.
        monitor.poll_static_nodes();
        let servers = Servers::none();
        Ok(Self {
            signals,
            readable: readable(&monitor)?,
            monitor,
            configuration: FileWatch::of(options.config_sources.files()),
            paths: FileWatch::of(paths_outside_dev(definitions)),
            outside: OutsidePaths::of(definitions),
            holders,
            asks_kubelet: options.pod_resources.is_some(),
            often,
            known: servers.known(),
            servers,
            debounce: Debounce::default(),
            _tasks: tasks,
        })
    }

    /// Watches what these definitions need, from now on.
    pub(super) fn watch(&mut self, definitions: &[Definition]) {
        self.monitor.add_needed(&resources::facts_needed(definitions));
        self.monitor.poll_static_nodes();
        self.paths = FileWatch::of(paths_outside_dev(definitions));
        self.outside = OutsidePaths::of(definitions);
    }

    /// Lists exactly these USB/IP servers from now on.
    pub(super) fn ask(&mut self, servers: BTreeSet<Server>) {
        self.often.send_replace(!servers.is_empty());
        self.servers.follow(servers);
    }

    /// Whether any USB/IP server is listed.
    pub(super) fn has_servers(&self) -> bool {
        *self.often.borrow()
    }

    /// Waits, for a limited time, until the facts about remote devices for the first snapshot are
    /// known.
    pub(super) async fn first_answers(&mut self) -> Option<Holders> {
        if !self.has_servers() {
            return None;
        }
        let (asks_kubelet, answers) = (self.asks_kubelet, &mut self.holders);
        let of_kubelet = async {
            if asks_kubelet {
                let holders = answers.wait_for(Option::is_some).await;
                holders.ok().and_then(|holders| holders.clone())
            } else {
                None
            }
        };
        let (_, holders) = tokio::join!(
            self.servers.first_lists(FIRST_ANSWERS_TIMEOUT),
            timeout(FIRST_ANSWERS_TIMEOUT, of_kubelet)
        );
        holders.ok().flatten()
    }

    /// A new snapshot of the host, with the exports of USB/IP servers.
    ///
    /// # Errors
    ///
    /// If sysfs cannot be listed.
    pub(super) fn snapshot(&mut self, definitions: &[Definition], state_dir: &Path) -> Result<Snapshot> {
        let mut snapshot = Snapshot::take(definitions, &self.monitor, state_dir)?;
        snapshot.exports = self.known.borrow_and_update().exports.clone();
        Ok(snapshot)
    }

    /// Adds a change, which leads to a wake.
    pub(super) fn add(&mut self, changes: Changes) {
        self.debounce.add(changes);
    }

    /// Waits for the next wake. At `deadline`, the host counts as changed.
    ///
    /// # Errors
    ///
    /// If the host's devices can no longer be watched.
    pub(super) async fn next(&mut self, deadline: Option<Instant>) -> Result<Wake> {
        loop {
            // A pending change leads to a new snapshot anyway.
            let deadline = deadline.filter(|_| !self.debounce.is_pending());
            let changes = tokio::select! {
                _ = self.signals.terminate.recv() => return Ok(Wake::End),
                _ = self.signals.interrupt.recv() => return Ok(Wake::End),
                Ok(()) = self.holders.changed() => {
                    let holders = self.holders.borrow_and_update().clone();
                    return Ok(Wake::Holders(holders.unwrap_or_default()));
                }
                changes = self.debounce.over() => return Ok(Wake::Changes(changes)),
                () = any_readable(&self.readable) => match self.read_monitor()? {
                    true => Changes::HOST,
                    false => continue,
                },
                () = self.configuration.changed() => Changes::CONFIGURATION,
                () = self.paths.changed() => Changes::HOST,
                () = self.outside.changed() => Changes::HOST,
                Ok(()) = self.known.changed() => Changes::HOST,
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => Changes::HOST,
            };
            self.debounce.add(changes);
        }
    }

    /// Reads the monitor's events. Returns whether a snapshot may contain something new.
    fn read_monitor(&mut self) -> Result<bool> {
        // udevd's remove event is not reported, but its processing can move a link to another
        // device.
        let has_events = !self.monitor.drain().is_empty() || self.monitor.links_may_have_moved();
        let has_new_descriptors = self.monitor.refresh();
        if has_new_descriptors {
            self.readable = readable(&self.monitor)?;
        }
        Ok(has_events || has_new_descriptors)
    }
}

/// Paths outside /dev that match patterns.
struct OutsidePaths {
    definitions: Vec<Definition>,
    found: BTreeMap<PathBuf, PathKind>,
    next: Instant,
}

impl OutsidePaths {
    fn of(definitions: &[Definition]) -> Self {
        let has_patterns = |definition: &&Definition| definition.patterns_outside_dev().next().is_some();
        let definitions: Vec<Definition> = definitions.iter().filter(has_patterns).cloned().collect();
        Self {
            found: snapshot::paths_outside_dev(&definitions),
            definitions,
            next: Instant::now() + OUTSIDE_INTERVAL,
        }
    }

    /// Waits until the set of paths changes; forever without a pattern.
    async fn changed(&mut self) {
        if self.definitions.is_empty() {
            std::future::pending::<()>().await;
        }
        loop {
            sleep_until(self.next).await;
            self.next = Instant::now() + OUTSIDE_INTERVAL;
            let found = snapshot::paths_outside_dev(&self.definitions);
            if found != self.found {
                self.found = found;
                return;
            }
        }
    }
}

/// The paths outside /dev that hostdev's list names. (The monitor watches those in /dev.)
fn paths_outside_dev(definitions: &[Definition]) -> impl Iterator<Item = &PathBuf> {
    definitions.iter().filter_map(Definition::path_outside_dev)
}

fn readable(monitor: &DeviceMonitor) -> Result<Vec<AsyncFd<OwnedFd>>> {
    let copies = monitor
        .fds()
        .map(|(_, fd)| readiness::of(fd.try_clone_to_owned()?));
    copies
        .collect::<std::io::Result<_>>()
        .context("cannot wait for events of the host's devices")
}

/// Waits until a descriptor is readable and clears its readiness: the caller reads everything
/// available.
async fn any_readable(descriptors: &[AsyncFd<OwnedFd>]) {
    std::future::poll_fn(|context| {
        let mut is_readable = false;
        for descriptor in descriptors {
            while let Poll::Ready(ready) = descriptor.poll_read_ready(context) {
                is_readable = true;
                match ready {
                    Ok(mut guard) => guard.clear_ready(),
                    Err(_) => break,
                }
            }
        }
        if is_readable {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}
