//! A resource: its units with their health, and which units are near each other.
//!
//! Pure. Must not know configuration formats, gRPC, or how the host's devices are read.

use std::collections::{BTreeMap, BTreeSet};

use super::names::ResourceName;
use super::unit::{Unit, nearness};
use crate::cdi::generate::NewDevice;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resource {
    pub name: ResourceName,
    pub units: BTreeMap<String, Unit>,
    pub cdi_devices: Vec<NewDevice>,
    /// Whether its units are slots for devices that come and go.
    pub hotplug: bool,
    /// The format of its definition.
    pub format: Format,
}

/// The format of a resource's definition. It decides which other program's metrics the resource
/// also has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// Our own, hostdev's or smarter-device-manager's.
    #[default]
    Other,
    /// generic-device-plugin's.
    Generic,
    /// usbip-device-plugin's.
    Usbip,
}

impl Resource {
    /// A resource of these units, without hooks.
    pub(crate) fn without_hooks(name: ResourceName, units: BTreeMap<String, Unit>) -> Self {
        Self {
            name,
            units,
            cdi_devices: Vec::new(),
            hotplug: false,
            format: Format::Other,
        }
    }

    /// The numbers of healthy and unhealthy units.
    pub(crate) fn health(&self) -> (usize, usize) {
        let healthy = self.units.values().filter(|unit| unit.healthy).count();
        (healthy, self.units.len() - healthy)
    }

    /// Keeps units of `before` that are missing now and that a container has, as unhealthy: kubelet
    /// then reports the pod whose device is absent.
    pub(crate) fn keep_allocated(&mut self, before: &Resource, allocated: &BTreeSet<String>) {
        for (id, unit) in &before.units {
            if allocated.contains(id) && !self.units.contains_key(id) {
                let missing = Unit {
                    healthy: false,
                    ..unit.clone()
                };
                self.units.insert(id.clone(), missing);
                for cdi_device in &before.cdi_devices {
                    if unit.offer.cdi.as_ref() == Some(&cdi_device.name)
                        && !self.cdi_devices.contains(cdi_device)
                    {
                        self.cdi_devices.push(cdi_device.clone());
                    }
                }
            }
        }
    }

    /// Removes all units except these, and CDI devices that are no longer needed.
    pub(crate) fn retain(&mut self, ids: &BTreeSet<String>) {
        self.units.retain(|id, _| ids.contains(id));
        let units = &self.units;
        let is_needed = |cdi_device: &NewDevice| {
            units
                .values()
                .any(|unit| unit.offer.cdi.as_ref() == Some(&cdi_device.name))
        };
        self.cdi_devices.retain(is_needed);
    }

    /// Chooses `size` of the units `available`, including `must`, preferably on the same NUMA node
    /// and behind the same hub. Unknown units are ignored.
    pub(crate) fn preferred(&self, available: &[String], must: &[String], size: usize) -> Vec<String> {
        let mut chosen: Vec<&String> = must
            .iter()
            .filter(|id| self.units.contains_key(*id))
            .take(size)
            .collect();
        let mut rest: Vec<(&String, &Unit)> = available
            .iter()
            .filter(|id| !chosen.contains(id))
            .filter_map(|id| self.units.get_key_value(id))
            .filter(|(_, unit)| unit.healthy)
            .collect();
        rest.sort_by(|(left_id, left), (right_id, right)| {
            (left.numa, &left.place, left_id).cmp(&(right.numa, &right.place, right_id))
        });
        rest.dedup_by_key(|(id, _)| *id);
        let missing = size.saturating_sub(chosen.len()).min(rest.len());
        if chosen.is_empty() {
            // Units are sorted by place: the best run is the one whose ends have the longest common
            // prefix.
            let runs = rest.windows(missing.max(1));
            let best = runs.rev().max_by_key(|run| match run {
                [(_, first), .., (_, last)] => nearness(first, last),
                _ => (false, 0),
            });
            chosen.extend(best.unwrap_or_default().iter().take(missing).map(|(id, _)| *id));
        } else {
            let near = |unit: &Unit| {
                let musts = chosen.iter().filter_map(|id| self.units.get(*id));
                musts.map(|other| nearness(unit, other)).max()
            };
            rest.sort_by_key(|(_, unit)| std::cmp::Reverse(near(unit)));
            let nearest: Vec<&String> = rest.iter().take(missing).map(|(id, _)| *id).collect();
            chosen.extend(nearest);
        }
        chosen.into_iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests;
