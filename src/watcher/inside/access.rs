//! The access to devices that the container has.

use super::Inside;
use crate::host::filter::FilterError;
use crate::model::cgroup::grants::Change;
use crate::model::device::inventory::Inventory;
use crate::model::plan::still_due;
use crate::watcher::access::Place;
use crate::watcher::transaction;

impl Inside {
    /// Revokes access to devices that are gone or have another number now, without inspecting the
    /// container: their numbers may belong to other devices from now on.
    ///
    /// # Errors
    /// The reason why the access is still in force.
    pub(in crate::watcher) fn revoke_gone(&mut self, inventory: &Inventory) -> Result<(), String> {
        let due = still_due(&self.granted, &self.attachments, inventory);
        if due == self.granted {
            return Ok(());
        }
        transaction::revoke(due, &mut self.granted, &mut self.effects)
    }

    /// Follows the container into another cgroup, see
    /// [`ContainerAccess::follow`](crate::watcher::access::ContainerAccess::follow).
    pub(in crate::watcher) fn follow(&mut self) -> Place {
        let place = self.effects.follow();
        if matches!(place, Place::Nowhere(_)) {
            // No grant is in force: the next plan sets each of them again, and reports those that
            // fail.
            self.granted.clear();
        }
        place
    }

    /// Whether the container is certainly in the cgroup in which the next plan would grant access.
    /// While something is granted, that is checked every second.
    pub(in crate::watcher) fn is_in_place(&self) -> bool {
        self.has_access() || self.effects.is_in_place()
    }

    /// Whether access to some device is granted.
    pub(in crate::watcher) fn has_access(&self) -> bool {
        !self.granted.is_empty()
    }

    /// Whether all granted access is certainly in force. Costs two or three system calls, and none
    /// if nothing is granted.
    pub(in crate::watcher) fn is_access_unchanged(&self) -> bool {
        !self.has_access() || self.effects.is_access_unchanged()
    }

    /// Checks that access is still in force; grants it again if an engine has replaced the filter.
    pub(in crate::watcher) fn ensure_access(&mut self) -> Result<Change, FilterError> {
        let outcome = self.effects.ensure(&self.granted);
        if let Err(FilterError::Refused { refused }) = &outcome {
            // These are not in force: the next plan sets them again, and reports the devices.
            for (num, _) in refused {
                self.granted.remove(num);
            }
        }
        outcome
    }

    /// Revokes all access after the container has ended. Returns whether nothing is granted any
    /// more.
    pub(in crate::watcher) fn revoke_all(&self) -> bool {
        self.effects.revoke()
    }
}
