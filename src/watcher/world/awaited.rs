//! Devices that udevd must process before a plan knows all that it needs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::host::monitor::DeviceMonitor;
use crate::host::state::control::Problem;
use crate::model::device::inventory::Inventory;
use crate::model::device::{SysPath, UdevState};

/// How long a container start waits for udevd to process a device.
const UDEVD_TIMEOUT: Duration = Duration::from_secs(10);

/// The devices that the last plan lacks udev facts of.
#[derive(Default)]
pub(super) struct Awaited {
    /// Devices whose udev facts the plan needs, and since when.
    pending: BTreeMap<SysPath, Instant>,
    /// Devices to which a requested link points, and which udevd has not processed.
    unconfirmed_links: Vec<SysPath>,
    /// Devices that udevd has not processed in time, when last checked.
    overdue: BTreeSet<SysPath>,
}

impl Awaited {
    /// Stores which devices the plan needs udev facts of.
    pub(super) fn note(&mut self, pending: &[SysPath], unconfirmed_links: Vec<SysPath>) {
        let now = Instant::now();
        self.pending.retain(|syspath, _| pending.contains(syspath));
        for syspath in pending {
            self.pending.entry(syspath.clone()).or_insert(now);
        }
        self.unconfirmed_links = unconfirmed_links;
    }

    /// The devices that udevd has not processed.
    pub(super) fn devices(&self) -> impl Iterator<Item = &SysPath> {
        self.pending.keys().chain(&self.unconfirmed_links)
    }

    /// Whether the plan needs udev facts of this device.
    pub(super) fn is_pending(&self, syspath: &SysPath) -> bool {
        self.pending.contains_key(syspath)
    }

    /// Whether the plan needs udev facts of a device.
    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether udevd has not processed a device in time.
    pub(super) fn has_overdue(&self) -> bool {
        !self.overdue.is_empty()
    }

    /// Whether udevd has processed everything that the plan needs.
    pub(super) fn is_settled(&self) -> bool {
        self.pending.is_empty() && self.unconfirmed_links.is_empty()
    }

    /// Reads the udev facts of the devices again. A device that udevd has not processed in time is
    /// overdue. That ends the wait for `ready=udev`; its udev facts stay unknown.
    pub(super) fn check(&mut self, inventory: &mut Inventory, monitor: &DeviceMonitor, id: &str) {
        for syspath in &self.unconfirmed_links {
            complete(inventory, monitor, syspath);
        }
        for (syspath, since) in &self.pending {
            let Some(device) = inventory.get_mut(syspath) else {
                continue;
            };
            monitor.complete(device);
            if device.udev_state == UdevState::Pending && since.elapsed() >= UDEVD_TIMEOUT {
                tracing::warn!(container = %id, "udevd has not processed {syspath} for {UDEVD_TIMEOUT:?}; its properties, tags and links stay unknown (is systemd-udevd stopped or overloaded?)");
                device.udev_state = UdevState::Overdue;
                self.overdue.insert(syspath.clone());
            }
        }
        // The event of an overdue device may have been lost.
        self.overdue.retain(|syspath| {
            complete(inventory, monitor, syspath);
            let device = inventory.get(syspath);
            device.is_some_and(|device| device.udev_state == UdevState::Overdue)
        });
    }

    /// The devices that udevd has not processed, as problems.
    pub(super) fn problems(&self) -> impl Iterator<Item = Problem> {
        self.devices().map(|syspath| Problem {
            path: PathBuf::from(syspath.as_path()),
            device: Some(syspath.clone()),
            reason: "udevd has not processed the device yet".into(),
            waiting: false,
        })
    }
}

/// Reads the udev facts of a device, if it is present.
pub(super) fn complete(inventory: &mut Inventory, monitor: &DeviceMonitor, syspath: &SysPath) {
    if let Some(device) = inventory.get_mut(syspath) {
        monitor.complete(device);
    }
}
