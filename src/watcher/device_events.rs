//! Processes device events, and plans when one concerns the container.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use super::Watcher;
use crate::host::log::event;
use crate::host::monitor::{MonitorError, Ready};
use crate::model::device::SysPath;
use crate::model::device::event::DeviceEvent;

impl Watcher {
    /// Processes all events that have arrived.
    pub(super) fn take_events(&mut self, ready: Ready) {
        let woken = Instant::now();
        let events = self.drain(ready);
        if self.world.has_silent_changes() {
            self.take_silent_changes();
        }
        let events = self.take_removals(events);
        // Follow links before applying the events, so that one plan moves a link from one device to
        // the other.
        let mut is_news = self.world.links_may_have_moved() && self.world.follow_links(&self.planner);
        for event in events {
            is_news |= self.take_event(event);
        }
        if is_news {
            self.reconcile();
        }
        // Those that concern no request.
        self.world.forget_nodeless_events();
        let took = woken.elapsed().as_micros() as u64;
        self.inside.count(|counters| counters.count_wake(took));
    }

    /// Reads all devices again where no uevents arrive: now, and at the next tick.
    fn take_silent_changes(&mut self) {
        self.try_enumerate();
        self.reconcile();
        self.world.skip_all();
    }

    /// The events that can concern the container.
    pub(super) fn drain(&mut self, ready: Ready) -> Vec<DeviceEvent> {
        self.world
            .drain(ready, &self.planner, self.inside.attached_devices())
    }

    /// Processes the removals of devices that are attached or selected before all other events:
    /// their access is revoked before anything is evaluated, and a device that is plugged in again
    /// in the same batch is first detached. Returns the other events, without those of removed
    /// devices.
    fn take_removals(&mut self, events: Vec<DeviceEvent>) -> Vec<DeviceEvent> {
        // A move changes which device the paths of later events mean, so all events are then
        // processed in order.
        let is_move = |event: &DeviceEvent| matches!(event, DeviceEvent::Moved { .. });
        if events.iter().any(is_move) {
            return events;
        }
        let mut ends = BTreeMap::<SysPath, u64>::new();
        for event in &events {
            match event {
                DeviceEvent::Removed { syspath, seqnum } if self.concerns(syspath) => {
                    let end = ends.entry(syspath.clone()).or_default();
                    *end = (*end).max(*seqnum);
                }
                _ => {}
            }
        }
        let mut others = Vec::with_capacity(events.len());
        let mut is_news = false;
        for event in events {
            let end = event.syspath().and_then(|syspath| ends.get(syspath));
            match (&event, end) {
                (DeviceEvent::Removed { seqnum, .. }, Some(end)) if seqnum == end => {
                    is_news |= self.world.apply(event);
                }
                (event, Some(end)) if event.seqnum() <= *end => {}
                _ => others.push(event),
            }
        }
        if is_news {
            self.reconcile();
        }
        others
    }

    /// Processes one event. Returns whether a plan is still needed for it.
    pub(super) fn take_event(&mut self, event: DeviceEvent) -> bool {
        match &event {
            DeviceEvent::Overrun => {
                let text = "device events were lost; reading all devices again";
                self.inside.log_event(event::OVERRUN, "", Path::new(""), text);
                return match self.enumerate() {
                    Ok(()) => true,
                    Err(error) => {
                        tracing::error!(container = %self.inside.id(), "{error}");
                        false
                    }
                };
            }
            DeviceEvent::Moved { from, device } => {
                self.planner.follow_move(from, &device.syspath);
                self.inside.follow_move(from, &device.syspath);
            }
            // The device moved in the same batch, so `take_removals` did not know it by this path.
            DeviceEvent::Removed { syspath, .. } if self.concerns(syspath) => {
                if self.world.apply(event) {
                    self.reconcile();
                }
                return false;
            }
            _ => {}
        }
        let Some(syspath) = event.syspath().cloned() else {
            return false;
        };
        // A pending device may depend on devices that no request selects.
        self.world.apply(event)
            && (self.world.is_awaiting_udevd()
                || self.planner.is_affected_by(&syspath, self.world.inventory()))
    }

    /// Whether a device is attached or a root.
    fn concerns(&self, syspath: &SysPath) -> bool {
        let mut entries = self.planner.entries().iter();
        self.inside.has(syspath) || entries.any(|entry| entry.roots.contains(syspath))
    }

    /// Reads all devices again.
    pub(super) fn enumerate(&mut self) -> Result<(), MonitorError> {
        self.world.read_all()?;
        self.revoke_gone();
        self.world.complete_selected(&self.planner);
        // Devices that were known before still have their old links.
        self.world.follow_links(&self.planner);
        Ok(())
    }

    /// Like [`Watcher::enumerate`], but only logs an error.
    pub(super) fn try_enumerate(&mut self) {
        if let Err(error) = self.enumerate() {
            tracing::error!(container = %self.inside.id(), "{error}");
        }
    }
}
