//! The watcher's systemd unit. It is started when no client waits, and its watcher takes over.
//!
//! The hook starts the watcher as its own child, because that is fastest. The unit's watcher then
//! replaces it (`handover`), in a separate cgroup, and systemd starts it again if it crashes.

use std::path::Path;
use std::time::{Duration, Instant};

use super::inside::Inside;
use crate::host::backoff::Backoff;
use crate::host::config::{Config, SystemdUnitSetting};
use crate::host::spawn::{Child, ChildState};
use crate::host::systemd::{self, Manager};
use crate::model::oci::ContainerId;

/// How long the unit's watcher may take to take over before the unit is started again; twice as
/// long each time.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How often the unit is started.
const ATTEMPTS: u32 = 6;

/// The relation of this watcher to a systemd unit.
pub(super) enum SystemdUnit {
    /// This watcher belongs to the unit; systemd shows this status.
    Ours {
        shown: String,
        watchdog: Option<Watchdog>,
    },
    /// There is a unit, whose watcher is to take over.
    Starting(Startup),
    /// There is no unit.
    None,
}

/// The start of the unit, which may take several attempts.
pub(super) struct Startup {
    manager: Manager,
    unit: String,
    backoff: Backoff,
    next: Instant,
    systemctl: Option<Child>,
}

/// The watchdog of systemd. If root has stopped this process (SIGSTOP), the notifications end, and
/// systemd replaces it.
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
    /// `manager` is the one that is to restart the watcher; `None`: the watcher has no unit.
    pub(super) fn new(id: &str, manager: Option<Manager>) -> Self {
        if systemd::is_systemd_unit() {
            return Self::Ours {
                shown: String::new(),
                watchdog: systemd::watchdog_interval().map(Watchdog::new),
            };
        }
        let unit = || systemd::unit_of(&id.parse::<ContainerId>().ok()?);
        let Some(manager) = manager.filter(|manager| manager.has_unit()) else {
            return Self::None;
        };
        let Some(unit) = unit() else {
            tracing::info!(container = %id, "the container id is too long for the name of a systemd unit: systemd does not restart its watcher");
            return Self::None;
        };
        Self::Starting(Startup {
            manager,
            unit,
            backoff: Backoff::new(TIMEOUT),
            next: Instant::now(),
            systemctl: None,
        })
    }

    /// Notifies systemd, or starts the unit. `is_idle` says that no client waits.
    pub(super) fn maintain(&mut self, inside: &Inside, has_problems: bool, is_idle: bool) {
        match self {
            Self::Ours { shown, watchdog } => {
                if let Some(watchdog) = watchdog {
                    watchdog.feed();
                }
                if is_idle {
                    show_status(shown, inside, has_problems);
                }
            }
            Self::Starting(startup) if is_idle => {
                if !startup.advance(inside) {
                    *self = Self::None;
                }
            }
            Self::Starting(_) | Self::None => {}
        }
    }
}

fn show_status(shown: &mut String, inside: &Inside, has_problems: bool) {
    let status = format!(
        "READY=1\nSTATUS=container {}: {} device nodes attached{}",
        inside.id(),
        inside.attachments().len(),
        if has_problems {
            ", with problems (see oci-hotplug inspect)"
        } else {
            ""
        }
    );
    if *shown != status {
        systemd::notify(&status);
        *shown = status;
    }
}

impl Startup {
    /// Starts the unit when that is due. Returns false if there is no point in trying.
    fn advance(&mut self, inside: &Inside) -> bool {
        let is_running = |child: &mut Child| child.state() == ChildState::Running;
        if !self.systemctl.as_mut().is_some_and(is_running) {
            self.systemctl = None;
        }
        if self.systemctl.is_some() || Instant::now() < self.next {
            return true;
        }
        if self.backoff.failures() == ATTEMPTS {
            tracing::warn!(container = %inside.id(), "systemd does not restart the watcher: {} did not start ({} status shows why)", self.unit, self.manager.command());
            return false;
        }
        // Checked only now, and not while clients waited, because it reads a file.
        if self.backoff.failures() == 0 && !unit_uses(inside.state_dir()) {
            return false;
        }
        // A failure shows at the next attempts, and is logged after the last one.
        self.systemctl = self.manager.start(&self.unit).ok();
        self.next = Instant::now() + self.backoff.failed(Duration::MAX);
        true
    }
}

/// The manager that is to have a unit for each watcher; `None` if the configuration wants no units.
pub(crate) fn manager(config: &Config) -> Option<Manager> {
    (config.systemd_unit == SystemdUnitSetting::Auto).then(Manager::own)
}

/// Whether the unit's watcher, which gets only the container's id, would use this state directory.
pub(crate) fn unit_uses(state_dir: &Path) -> bool {
    Config::load(None, None).is_ok_and(|config| config.state_dir == state_dir)
}
