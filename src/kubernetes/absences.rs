//! Units whose device is absent, perhaps only for a moment.
//!
//! A container that restarts detaches a device of another host and attaches it again. A device that
//! changes its ids is absent while its firmware starts, for two or three seconds. Neither is a
//! change that kubelet should see. Pure but for the clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::resources::resource::Resource;
use crate::cdi::generate::NewDevice;

/// How long a device may be absent before kubelet sees it. By then a USB/IP server has been asked
/// again.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The absent units by id, each with the time since when.
#[derive(Debug, Default)]
pub(super) struct Absences {
    since: BTreeMap<String, Instant>,
    /// The absent units of the previous round.
    previous: BTreeMap<String, Instant>,
}

impl Absences {
    /// Starts a round, in which each resource is bridged once.
    pub(super) fn begin_round(&mut self) {
        self.previous = std::mem::take(&mut self.since);
    }

    /// When the next absence becomes final.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.since.values().min().map(|since| *since + TIMEOUT)
    }

    /// Leaves the units of `resource` as they were `before` while their device is absent only
    /// briefly: a remote device, or any device if `ids_may_change`.
    pub(super) fn bridge(&mut self, resource: &mut Resource, before: &Resource, ids_may_change: bool) {
        for (id, unit) in &mut resource.units {
            let was_attached = before.units.get(id).and_then(|unit| unit.attached);
            let is_detached = (was_attached, unit.attached) == (Some(true), Some(false));
            if is_detached && self.is_brief(id) {
                unit.attached = Some(true);
            }
        }
        if ids_may_change {
            self.keep_missing(resource, before);
        }
    }

    fn keep_missing(&mut self, resource: &mut Resource, before: &Resource) {
        let mut kept = BTreeSet::new();
        for (id, unit) in before.units.iter().filter(|(_, unit)| unit.healthy) {
            if !resource.units.contains_key(id) && self.is_brief(id) {
                resource.units.insert(id.clone(), unit.clone());
                kept.extend(unit.offer.cdi.clone());
            }
        }
        let is_kept = |cdi_device: &&NewDevice| kept.contains(&cdi_device.name);
        resource
            .cdi_devices
            .extend(before.cdi_devices.iter().filter(is_kept).cloned());
    }

    /// Records that the device of a unit is absent. Returns whether it has been absent for less
    /// than the timeout.
    fn is_brief(&mut self, id: &str) -> bool {
        let since = self.previous.get(id).copied().unwrap_or_else(Instant::now);
        let is_brief = since.elapsed() < TIMEOUT;
        if is_brief {
            self.since.insert(id.to_owned(), since);
        }
        is_brief
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::kubernetes::resources::unit::Unit;

    fn resource(units: &[(&str, Option<bool>)]) -> Resource {
        let unit = |attached| Unit {
            healthy: true,
            attached,
            numa: None,
            place: String::new(),
            offer: Arc::default(),
        };
        let units = units
            .iter()
            .map(|(id, attached)| (id.to_string(), unit(*attached)));
        Resource::without_hooks("a.b/c".parse().unwrap(), units.collect())
    }

    #[test]
    fn a_detached_device_counts_as_attached_until_the_timeout() {
        let (attached, detached) = (resource(&[("x", Some(true))]), resource(&[("x", Some(false))]));
        let mut absences = Absences::default();
        let mut now = detached.clone();
        absences.begin_round();
        absences.bridge(&mut now, &attached, false);
        assert_eq!(now, attached);
        assert!(
            absences
                .deadline()
                .is_some_and(|deadline| deadline > Instant::now())
        );
        let long_ago = Instant::now().checked_sub(TIMEOUT).unwrap();
        absences.since.insert("x".to_owned(), long_ago);
        let mut now = detached.clone();
        absences.begin_round();
        absences.bridge(&mut now, &attached, false);
        assert_eq!((now, absences.deadline()), (detached, None));
    }

    #[test]
    fn a_missing_unit_stays_only_if_ids_may_change() {
        let before = resource(&[("x", None)]);
        for (ids_may_change, expected) in [(true, before.clone()), (false, resource(&[]))] {
            let (mut absences, mut now) = (Absences::default(), resource(&[]));
            absences.begin_round();
            absences.bridge(&mut now, &before, ids_may_change);
            assert_eq!((&now, absences.deadline().is_some()), (&expected, ids_may_change));
        }
    }
}
