//! What is advertised, as values: names that kubelet takes, units with their health, and which units belong together.
//!
//! Pure. Must not know configuration formats, gRPC, nor how the host's devices are read.

use std::collections::{BTreeMap, BTreeSet};

use super::names::ResourceName;
use super::unit::{Unit, nearness};
use crate::cdi::generate::Wish;

/// A resource as it is at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Its name.
    pub name: ResourceName,
    /// Its units by id.
    pub units: BTreeMap<String, Unit>,
    /// The CDI devices that its units name.
    pub wishes: Vec<Wish>,
    /// Whether its units are places for devices that come and go.
    pub hotplug: bool,
    /// Whose metrics it has beside ours.
    pub metrics: Metrics,
}

/// The program whose metrics a resource has beside ours: those of its own format.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Metrics {
    /// No other's.
    #[default]
    Ours,
    /// generic-device-plugin's.
    Generic,
    /// usbip-device-plugin's.
    Usbip,
}

impl Metrics {
    /// The name of that program's counter of answers to Allocate.
    pub fn allocations(self) -> Option<&'static str> {
        match self {
            Self::Ours => None,
            Self::Generic => Some("generic_device_plugin_allocations_total"),
            Self::Usbip => Some("usbip_device_plugin_allocations_total"),
        }
    }

    /// The name of that program's counter of registrations beyond the first.
    pub fn restarts(self) -> Option<&'static str> {
        match self {
            Self::Ours => None,
            Self::Generic => Some("generic_device_plugin_restarts_total"),
            Self::Usbip => Some("usbip_device_plugin_restarts_total"),
        }
    }
}

impl Resource {
    /// A resource without hooks, of these units.
    pub(super) fn without_hooks(name: ResourceName, units: BTreeMap<String, Unit>) -> Self {
        Self {
            name,
            units,
            wishes: Vec::new(),
            hotplug: false,
            metrics: Metrics::Ours,
        }
    }

    /// How many units are healthy, and how many are not.
    pub fn health(&self) -> (usize, usize) {
        let healthy = self.units.values().filter(|unit| unit.healthy).count();
        (healthy, self.units.len() - healthy)
    }

    /// The state that follows `before`: what was given to a container and has gone stays, unhealthy, so that kubelet
    /// can tell whose device is away; all else that has gone is withdrawn.
    pub fn keep_allocated(&mut self, before: &Resource, allocated: &BTreeSet<String>) {
        for (id, unit) in &before.units {
            if allocated.contains(id) && !self.units.contains_key(id) {
                let gone = Unit {
                    healthy: false,
                    ..unit.clone()
                };
                self.units.insert(id.clone(), gone);
                for wish in &before.wishes {
                    if unit.offer.cdi.as_ref() == Some(&wish.name) && !self.wishes.contains(wish) {
                        self.wishes.push(wish.clone());
                    }
                }
            }
        }
    }

    /// Only these units, as they are, and what brings them.
    pub fn retain(&mut self, ids: &BTreeSet<String>) {
        self.units.retain(|id, _| ids.contains(id));
        let units = &self.units;
        let brings = |wish: &Wish| {
            units
                .values()
                .any(|unit| unit.offer.cdi.as_ref() == Some(&wish.name))
        };
        self.wishes.retain(brings);
    }

    /// Which `size` of the units `available` a container should get that must have `must`: those that are at the same
    /// NUMA node, and then behind the same hub. Units that are not there are passed over.
    pub fn preferred(&self, available: &[String], must: &[String], size: usize) -> Vec<String> {
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
        rest.sort_by(|(one, left), (other, right)| {
            (left.numa, &left.place, one).cmp(&(right.numa, &right.place, other))
        });
        rest.dedup_by(|one, other| one.0 == other.0);
        let missing = size.saturating_sub(chosen.len()).min(rest.len());
        if chosen.is_empty() {
            // Neighbours stand side by side: the best run is the one whose ends have most in common.
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
