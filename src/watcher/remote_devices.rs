//! What the watcher does about remote devices when requests, devices or replies of workers change.

use std::time::Instant;

use super::Watcher;
use super::event_loop::EventLoop;
use super::remotes;
use super::waiters::Waiter;
use crate::host::monitor::Ready;
use crate::host::state::control::Problem;
use crate::model::device::Device;
use crate::model::remote::address::RemoteDevice;
use crate::model::remote::binding::Binding;
use crate::model::remote::vhci;
use crate::model::request::entry::RequestEntry;
use crate::usbip::records;

/// The fraction of a start's timeout that an attempt to attach a required device may take, so that
/// a failed start gets the reason.
const PART_OF_START: f32 = 0.8;

impl Watcher {
    /// Reads which remote devices are reserved for other containers, if the requests could select
    /// any.
    pub(super) fn read_reservations(&mut self) {
        let reserved = if self.may_select_remote_devices() {
            records::reserved_devices(self.inside.state_dir(), self.inside.id(), self.world.inventory())
        } else {
            Vec::new()
        };
        self.planner.set_reserved(reserved);
    }

    /// Whether requests for devices of this host could select an attached remote device. A
    /// requested path may be another name of one, such as /dev/char/188:0.
    fn may_select_remote_devices(&self) -> bool {
        let inventory = self.world.inventory();
        let mut devices = inventory.starting_with(vhci::CONTROLLERS).peekable();
        let is_selected = |device: &Device| self.planner.is_affected_by(&device.syspath, inventory);
        devices.peek().is_some()
            && (devices.any(is_selected)
                || inventory
                    .static_nodes()
                    .any(|node| vhci::includes(&inventory.real(node).syspath)))
    }

    /// Attaches the remote devices that are requested and allowed, and releases the others. Call it
    /// whenever requests or policy may have changed.
    pub(super) fn update_remotes(&mut self) {
        let policy = self.admission.policy();
        let traits = self.inside.traits();
        let mut requested = Vec::new();
        for entry in self.planner.entries() {
            let remote = entry.request.selector.remote();
            requested.extend(remote.filter(|_| policy.authorise(traits, entry).is_ok()));
        }
        self.remotes.update(requested, &mut self.planner);
    }

    /// Starts the attempts to attach remote devices that are due.
    pub(super) fn start_attempts(&mut self, events: &EventLoop) {
        let start_timeout = self.waiters.timeout().mul_f32(PART_OF_START);
        let start_timeout = Some(start_timeout).filter(|_| !self.waiters.is_empty());
        self.remotes.start_due(&self.planner, start_timeout, events);
    }

    /// Takes the replies of workers, and brings the container up to date with them.
    pub(super) fn take_worker_replies(&mut self) {
        if !self.remotes.take_replies(&mut self.planner, &self.inside) {
            return;
        }
        // The kernel sends its events before the worker replies.
        let events = self.drain(Ready::All);
        self.world.follow_links(&self.planner);
        for event in events {
            self.take_event(event);
        }
        let inventory = self.world.inventory();
        let is_unknown = |(_, bound): &(RemoteDevice, Binding)| inventory.get(&bound.syspath).is_none();
        if self.planner.bound().iter().any(is_unknown) {
            if let Err(error) = self.enumerate() {
                tracing::error!(container = %self.inside.id(), "{error}");
            }
        }
        self.reconcile();
    }

    /// The time until which a waiter waits for remote devices; `None` if it does not.
    pub(super) fn awaits_remotes_until(&self, waiter: &Waiter) -> Option<Instant> {
        self.remotes
            .awaited_until(waiter.requests(), &self.planner, waiter.since(), waiter.until())
    }

    /// The problems with remote devices: failed attempts, and requests that the policy denies now.
    pub(super) fn remote_problems(&self) -> impl Iterator<Item = Problem> {
        let policy = self.admission.policy();
        let traits = self.inside.traits();
        let denied = |entry: &RequestEntry| {
            entry.request.selector.remote()?;
            let denial = policy.authorise(traits, entry).err()?;
            Some(remotes::problem(format!(
                "device request {:?}: {denial}",
                entry.request.to_string()
            )))
        };
        let entries = self.planner.entries().iter();
        self.remotes.problems().chain(entries.filter_map(denied))
    }
}
