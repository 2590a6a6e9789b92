//! Who looks after the watcher itself: a unit of systemd's, which is asked to take over once nobody waits for us.
//!
//! The hook starts the watcher as its own child, because that is fastest; the unit's watcher then takes its place
//! (`succession`), in a cgroup of its own, and is started again when it dies.

use std::time::{Duration, Instant};

use super::Watcher;
use crate::host::backoff::Backoff;
use crate::host::config::Config;
use crate::host::spawn::{Child, ChildState};
use crate::host::systemd;
use crate::model::oci::ContainerId;

/// How long a unit may take to take over before it is asked again; each time twice as long.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How often a unit is asked.
const ATTEMPTS: u32 = 6;

/// How far it has come.
pub(super) enum SystemdUnit {
    /// We are a unit's; it shows these words.
    Ours {
        shown: String,
        watchdog: Option<Watchdog>,
    },
    /// There is a unit that may take our place.
    Sought {
        unit: String,
        backoff: Backoff,
        next: Instant,
        starting: Option<Child>,
    },
    /// Nobody does, or need.
    None,
}

/// Signs of life for systemd. A process that root in the host's pid namespace has stopped gives none, and is replaced.
pub(super) struct Watchdog {
    interval: Duration,
    due: Instant,
}

impl Watchdog {
    fn new(interval: Duration) -> Self {
        Self {
            interval,
            due: Instant::now(),
        }
    }

    fn feed(&mut self) {
        if self.due <= Instant::now() {
            systemd::notify("WATCHDOG=1");
            self.due = Instant::now() + self.interval;
        }
    }
}

impl SystemdUnit {
    pub fn new(id: &str, wanted: bool) -> Self {
        if systemd::is_supervised() {
            return Self::Ours {
                shown: String::new(),
                watchdog: systemd::watchdog_interval().map(Watchdog::new),
            };
        }
        let unit = || systemd::unit_of(&id.parse::<ContainerId>().ok()?);
        if !wanted || !systemd::has_unit() {
            return Self::None;
        }
        let Some(unit) = unit() else {
            tracing::info!(container = %id, "its id is too long for the name of a unit: systemd does not look after its watcher");
            return Self::None;
        };
        Self::Sought {
            unit,
            backoff: Backoff::new(TIMEOUT),
            next: Instant::now(),
            starting: None,
        }
    }
}

impl Watcher {
    /// Requests systemd to look after us, once nobody waits for us any more; if it does, tells it how it goes.
    pub(super) fn maintain_systemd_unit(&mut self) {
        if let SystemdUnit::Ours {
            watchdog: Some(watchdog),
            ..
        } = &mut self.systemd_unit
        {
            watchdog.feed();
        }
        let problem = !self.retries.is_empty() || self.access_problem.is_some();
        match &mut self.systemd_unit {
            SystemdUnit::Ours { shown, .. } if self.waiters.is_empty() => {
                let words = format!(
                    "READY=1\nSTATUS=container {}: {} device nodes inside{}",
                    self.record.container.id,
                    self.attachments.iter().count(),
                    if problem {
                        ", and problems: see oci-hotplug inspect"
                    } else {
                        ""
                    }
                );
                if *shown != words {
                    systemd::notify(&words);
                    *shown = words;
                }
            }
            SystemdUnit::Sought {
                unit,
                backoff,
                next,
                starting,
            } if self.waiters.is_empty() => {
                if starting
                    .as_mut()
                    .is_some_and(|systemctl| systemctl.state() != ChildState::Running)
                {
                    *starting = None;
                }
                if starting.is_some() || Instant::now() < *next {
                    return;
                }
                if backoff.failures() == ATTEMPTS {
                    tracing::warn!(container = %self.record.container.id, "systemd does not look after its watcher: {unit} did not start (systemctl status tells why)");
                    self.systemd_unit = SystemdUnit::None;
                    return;
                }
                // Only now, when nobody waits: the unit reads that file, and has its state where that says.
                if backoff.failures() == 0 && !serves(self.inside.lock().state_dir()) {
                    self.systemd_unit = SystemdUnit::None;
                    return;
                }
                // What fails is tried again, and told in the end.
                *starting = systemd::start(unit).ok();
                *next = Instant::now() + backoff.failed(Duration::MAX);
            }
            _ => {}
        }
    }
}

/// Whether a unit, which is told nothing but the container's id, looks for it in this state directory.
fn serves(state_dir: &std::path::Path) -> bool {
    Config::load(None, None).is_ok_and(|config| config.state_dir == state_dir)
}
