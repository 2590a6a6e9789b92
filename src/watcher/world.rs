//! The devices of the host, and the devices that udevd must process first.

mod awaited;

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;

use self::awaited::Awaited;
use crate::host::monitor::{DeviceMonitor, MonitorError, RECEIVE_BUFFER, Ready, Skipped};
use crate::host::state::control::Problem;
use crate::model::device::event::DeviceEvent;
use crate::model::device::inventory::Inventory;
use crate::model::device::same_data::{depends_on_virtual_blocks, is_virtual_block, virtual_blocks};
use crate::model::device::{Device, SysPath, UdevState};
use crate::model::plan::announcements::Announcement;
use crate::model::plan::relevance::Relevance;
use crate::model::plan::{Candidate, Candidates, Planner};
use crate::model::policy::Policy;
use crate::model::request::entry::RequestEntry;
use crate::model::request::facts_needed::FactsNeeded;
use crate::model::request::selector::DeviceSelector;

/// The host's devices.
pub(super) struct World {
    monitor: DeviceMonitor,
    inventory: Inventory,
    awaited: Awaited,
    /// Devices below which the inventory has all devices without a node: those that came while the
    /// monitor was open, as events report what is below them, and those that were read.
    complete_below: BTreeSet<SysPath>,
    /// The events of devices without a node since the last plan.
    nodeless_events: Vec<Announcement>,
}

impl World {
    /// Subscribes to events, and reads all devices.
    pub(super) fn open(planner: &Planner, policy: &Policy) -> Result<Self, MonitorError> {
        let mut world = Self {
            monitor: DeviceMonitor::open(facts_needed(planner, policy), RECEIVE_BUFFER)?,
            inventory: Inventory::default(),
            awaited: Awaited::default(),
            complete_below: BTreeSet::new(),
            nodeless_events: Vec::new(),
        };
        world.read_all()?;
        Ok(world)
    }

    pub(super) fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// The files to wait on for events.
    pub(super) fn fds(&self) -> impl Iterator<Item = (Ready, BorrowedFd<'_>)> {
        self.monitor.fds()
    }

    /// Updates the needed facts, after requests or policy have changed.
    pub(super) fn set_facts_needed(&mut self, planner: &Planner, policy: &Policy) {
        self.monitor.add_needed(&facts_needed(planner, policy));
    }

    /// Reads all devices of the host, with the kernel's facts only; see
    /// [`World::complete_selected`].
    pub(super) fn read_all(&mut self) -> Result<(), MonitorError> {
        // What is skipped after this is not older than the list.
        self.monitor.take_skipped();
        let devices = self.monitor.enumerate()?;
        let nodeless = self.inventory.iter().filter(|device| device.node.is_none());
        // The enumeration leaves most of them out.
        let nodeless: Vec<Device> = nodeless
            .filter(|device| self.monitor.has(&device.syspath))
            .cloned()
            .collect();
        self.inventory.replace(devices.into_iter().chain(nodeless));
        self.complete_below.clear();
        self.poll_static_nodes();
        Ok(())
    }

    /// Whether a decision about a selected or attached device depends on virtual block devices,
    /// whose events were left out so far: [`World::read_virtual_blocks`] must come first.
    pub(super) fn lacks_virtual_blocks<'a>(
        &self,
        candidates: &Candidates<'_>,
        mut attached: impl Iterator<Item = &'a SysPath>,
    ) -> bool {
        let depends =
            |candidate: &Candidate<'_>| depends_on_virtual_blocks(candidate.device, &self.inventory);
        self.monitor.leaves_out_virtual_blocks()
            && (candidates.iter().any(depends) || attached.any(is_virtual_block))
    }

    /// Receives the events of virtual block devices from now on, and reads these devices. The
    /// filter of the subscription changes before anything is read, so no event is missed.
    /// `planner` must find its roots again.
    pub(super) fn read_virtual_blocks(&mut self, planner: &Planner) {
        let known = virtual_blocks(&self.inventory).map(|device| device.syspath.clone());
        self.monitor.add_virtual_blocks(known.collect::<Vec<_>>());
        self.catch_up(planner);
        // One of them may have gained or lost a link.
        self.follow_links(planner);
    }

    /// Reads the udev facts of the few devices that requests select.
    pub(super) fn complete_selected(&mut self, planner: &Planner) {
        // The planner's own roots stay unchanged: `reconcile` finds out which of them are gone.
        let mut planner = planner.clone();
        planner.find_roots(&self.inventory);
        let candidates = planner.candidates(&self.inventory);
        let selected = candidates.iter().map(|candidate| &candidate.device.syspath);
        let selected: BTreeSet<SysPath> = selected.cloned().collect();
        for syspath in &selected {
            self.complete(syspath);
        }
    }

    /// Reads the udev facts of devices that a decision depends on and that no request selects:
    /// there may be no further event of them. Returns whether udevd has processed one.
    pub(super) fn complete_unselected(&mut self, unselected: &[SysPath]) -> bool {
        let mut is_news = false;
        for syspath in unselected {
            let udev_state = |world: &Self| world.inventory.get(syspath).map(|device| device.udev_state);
            if udev_state(self) == Some(UdevState::Pending) && !self.awaited.is_pending(syspath) {
                self.complete(syspath);
                is_news |= udev_state(self) != Some(UdevState::Pending);
            }
        }
        is_news
    }

    fn complete(&mut self, syspath: &SysPath) {
        awaited::complete(&mut self.inventory, &self.monitor, syspath);
    }

    /// The events that can concern a container with these attached devices. All events before them
    /// are in the inventory.
    pub(super) fn drain<'a>(
        &mut self,
        ready: Ready,
        planner: &'a Planner,
        attached: impl Iterator<Item = &'a SysPath>,
    ) -> Vec<DeviceEvent> {
        let mut awaited: Vec<&SysPath> = attached.collect();
        awaited.extend(self.awaited.devices());
        let mut relevance = Relevance::new(planner, &self.inventory, awaited);
        let events = self.monitor.drain_relevant(ready, &mut relevance);
        if !events.is_empty() {
            self.catch_up(planner);
        }
        events
    }

    /// Reads the devices whose events were skipped. udevd may have processed them already: those
    /// that a request selects are completed.
    pub(super) fn catch_up(&mut self, planner: &Planner) {
        match self.monitor.take_skipped() {
            Skipped::None => {}
            Skipped::Devices(devices) => {
                for (syspath, device) in self.monitor.read(devices.iter().cloned()) {
                    self.inventory.refresh(&syspath, device);
                }
                for syspath in devices {
                    if planner.is_affected_by(&syspath, &self.inventory) {
                        self.complete(&syspath);
                    }
                }
            }
            Skipped::Unknown => match self.read_all() {
                Ok(()) => self.complete_selected(planner),
                Err(error) => {
                    tracing::error!("{error}");
                    self.monitor.skip_all();
                }
            },
        }
    }

    /// Applies one event. Returns whether it changed anything, or is of a device without a node.
    pub(super) fn apply(&mut self, event: DeviceEvent) -> bool {
        match &event {
            DeviceEvent::Added(device) => {
                self.find_companion_of_hub_above(&device.syspath);
                // Other events are of a device that was there before.
                let is_new = self.inventory.get(&device.syspath).is_none();
                if is_new && device.udev_state != UdevState::Processed {
                    self.complete_below.insert(device.syspath.clone());
                }
            }
            DeviceEvent::Removed { syspath, .. } => {
                self.complete_below.remove(syspath);
            }
            _ => {}
        }
        let nodeless = Announcement::of_event(&event);
        let is_news = self.inventory.apply(event);
        // The kernel's `change` of a device tells of nothing that udevd has not told before.
        let is_present = |event: &Announcement| {
            let syspath = &event.device.syspath;
            self.inventory.get(syspath).is_some() && self.is_complete_at(syspath)
        };
        let nodeless = nodeless.filter(is_present);
        let is_passed_on = nodeless.is_some();
        self.nodeless_events.extend(nodeless);
        is_news || is_passed_on
    }

    /// Whether the inventory has all devices without a node around this one.
    fn is_complete_at(&self, syspath: &SysPath) -> bool {
        let mut at_or_above = std::iter::once(syspath.clone()).chain(syspath.ancestors());
        at_or_above.any(|path| self.complete_below.contains(&path))
    }

    /// The events of devices without a node since the last plan.
    pub(super) fn nodeless_events(&self) -> &[Announcement] {
        &self.nodeless_events
    }

    /// Forgets these events, after the plan that has passed them on.
    pub(super) fn forget_nodeless_events(&mut self) {
        self.nodeless_events = Vec::new();
    }

    /// Reads the devices without a node below each root that was there before its requests were.
    /// Returns whether there are any.
    pub(super) fn read_nodeless(&mut self, planner: &Planner) -> bool {
        let places = planner.entries().iter().flat_map(RequestEntry::places);
        let unread = places.filter(|place| !self.is_complete_at(place));
        let unread: BTreeSet<SysPath> = unread.cloned().collect();
        let mut is_news = false;
        for place in unread {
            for device in self.monitor.nodeless_below(&place) {
                // What an event has reported is newer, and udevd's own event follows.
                let known = self.inventory.get(&device.syspath);
                if known.is_none_or(|known| known.seqnum == 0 && known.udev_state == UdevState::Pending) {
                    is_news |= self.inventory.apply(DeviceEvent::Changed(device));
                }
            }
            self.complete_below.insert(place);
        }
        is_news
    }

    /// What is plugged into a hub comes after the hub's own events, and after the kernel has linked
    /// its two halves.
    fn find_companion_of_hub_above(&mut self, plugged_in: &SysPath) {
        let hub = plugged_in.parent().and_then(|hub| self.inventory.get_mut(&hub));
        let is_usb = |hub: &&mut Device| hub.devtype.as_deref() == Some("usb_device");
        if let Some(hub) = hub.filter(is_usb).filter(|hub| hub.companion.is_none()) {
            hub.companion = self.monitor.companion(&hub.syspath);
        }
    }

    /// Whether devices may have changed of which no uevents arrive
    /// ([`DeviceMonitor::dev_files_have_changed`]).
    pub(super) fn has_silent_changes(&mut self) -> bool {
        self.monitor.dev_files_have_changed()
    }

    /// Reads all devices again before the next plan, which a tick brings.
    pub(super) fn skip_all(&mut self) {
        self.monitor.skip_all();
    }

    /// Whether links of the host may have moved since the last call.
    pub(super) fn links_may_have_moved(&mut self) -> bool {
        self.monitor.links_may_have_moved()
    }

    /// Reads where the host's links point now. Returns whether a device gained or lost one.
    pub(super) fn follow_links(&mut self, planner: &Planner) -> bool {
        let followed = planner.followed_links(&self.inventory);
        let found = self.monitor.follow_links(followed);
        self.inventory.take_links(&found.named, &found.claimed)
    }

    /// Applies changes of nodes that only the host's /dev has. Returns whether there were any.
    pub(super) fn poll_static_nodes(&mut self) -> bool {
        let mut is_news = false;
        for event in self.monitor.poll_static_nodes() {
            is_news |= self.inventory.apply(event);
        }
        is_news
    }

    /// Whether the inventory is behind: events were skipped.
    pub(super) fn has_skipped(&self) -> bool {
        self.monitor.has_skipped()
    }

    /// Whether udevd has not processed a device in time.
    pub(super) fn has_overdue(&self) -> bool {
        self.awaited.has_overdue()
    }

    /// Whether all links of the host certainly lead where they led when last followed.
    pub(super) fn are_links_unchanged(&self) -> bool {
        self.monitor.are_links_unchanged()
    }

    /// Whether links of the host can change without an event and without SIGIO.
    pub(super) fn must_poll_links(&self) -> bool {
        self.monitor.must_poll_links()
    }

    /// Makes SIGIO report the next change that may move a link.
    pub(super) fn signal_links(&mut self) {
        self.monitor.signal_links();
    }

    /// SIGIO has come.
    pub(super) fn note_links_signal(&mut self) {
        self.monitor.note_links_signal();
    }

    /// Whether requests name nodes that sysfs may not know.
    pub(super) fn has_static_nodes(&self) -> bool {
        self.monitor.has_static_nodes()
    }

    /// Subscribes again if the subscription was lost. Returns whether [`World::fds`] has changed.
    pub(super) fn refresh(&mut self) -> bool {
        self.monitor.refresh()
    }

    /// Stores which devices the plan needs udev facts of.
    pub(super) fn note_awaited(&mut self, pending: &[SysPath], unconfirmed_links: Vec<SysPath>) {
        self.awaited.note(pending, unconfirmed_links);
    }

    /// Whether the last plan needs udev facts of a device that udevd has not processed.
    pub(super) fn is_awaiting_udevd(&self) -> bool {
        self.awaited.has_pending()
    }

    /// Whether udevd has processed everything that the last plan needs.
    pub(super) fn is_settled(&self) -> bool {
        self.awaited.is_settled()
    }

    /// Reads the udev facts of awaited devices again: udevd may have been started, stopped or
    /// killed in the meantime.
    pub(super) fn check_awaited(&mut self, id: &str) {
        if !self.is_settled() {
            self.monitor.doubt_udevd();
        }
        self.awaited.check(&mut self.inventory, &self.monitor, id);
    }

    /// The devices that udevd has not processed, as problems.
    pub(super) fn problems(&self) -> impl Iterator<Item = Problem> {
        self.awaited.problems()
    }
}

/// The facts that requests, rules for links and policy need.
fn facts_needed(planner: &Planner, policy: &Policy) -> FactsNeeded {
    let entries = planner.entries();
    let mut selectors = entries.iter().flat_map(|entry| entry.request.selectors());
    FactsNeeded {
        // What decisions about selected devices need is added by `World::read_virtual_blocks`.
        no_virtual_blocks: !selectors.any(DeviceSelector::can_select_virtual_block),
        ..FactsNeeded::of_container(entries, planner.symlinks(), policy.selectors())
    }
}

#[cfg(test)]
mod tests;
