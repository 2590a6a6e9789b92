//! What is advertised: the resources that are served to kubelet, the holders of their units, and
//! their CDI specs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{info, warn};

use super::absences::Absences;
use super::api_server::events::Events;
use super::api_server::queue::Change;
use super::cdi_specs::{CdiSpecs, Unneeded};
use super::config::{self, Definition};
use super::kubelet::plugin::Plugin;
use super::kubelet::pod_resources::{Holders, UnitsInUse};
use super::kubelet::registrar::Registrar;
use super::metrics::Metrics;
use super::options::Options;
use super::resources::names::{Names, ResourceName, cdi_stem};
use super::resources::resource::Resource;
use super::resources::{self, own, usbip};
use super::snapshot::Snapshot;

/// How long an allocated unit counts as the container's although kubelet does not list it yet: the
/// container is starting.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Everything that is advertised.
pub(super) struct Publisher {
    cdi_specs: CdiSpecs,
    kubelet_dir: PathBuf,
    /// Changes whenever kubelet's directory changes.
    kubelet: watch::Receiver<u64>,
    grace: Duration,
    metrics: Arc<Metrics>,
    /// Receives the changes of pods' devices, with `--events`.
    events: Option<Arc<Events>>,
    names: Names,
    served: BTreeMap<ResourceName, Served>,
    in_use: UnitsInUse,
    absences: Absences,
    unneeded: Unneeded,
}

struct Served {
    resource: watch::Sender<Arc<Resource>>,
    plugin: Arc<Plugin>,
    registrar: JoinHandle<()>,
}

impl Served {
    fn resource(&self) -> Arc<Resource> {
        self.resource.borrow().clone()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.registrar.abort();
    }
}

impl Publisher {
    /// Advertises nothing at first.
    pub(super) fn new(
        options: &Options,
        kubelet: watch::Receiver<u64>,
        metrics: Arc<Metrics>,
        events: Option<Arc<Events>>,
    ) -> Self {
        Self {
            cdi_specs: options.cdi_specs.clone(),
            kubelet_dir: options.kubelet_dir.clone(),
            kubelet,
            grace: options.grace,
            metrics,
            events,
            names: Names::default(),
            served: BTreeMap::new(),
            in_use: UnitsInUse::default(),
            absences: Absences::default(),
            unneeded: Unneeded::default(),
        }
    }

    /// When a new snapshot is needed even without a change: an absence becomes final.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.absences.deadline()
    }

    /// Advertises the resources that result from definitions and a snapshot.
    pub(super) fn publish(&mut self, definitions: &[Definition], mut snapshot: Snapshot) {
        if self.cdi_specs.enabled {
            snapshot.in_use = self.remotes_in_use(definitions);
            let free = usbip::released(definitions, &snapshot);
            self.in_use.forget(&free);
            for served in self.served.values() {
                served.plugin.release(&free);
            }
        }
        let resources = resources::resources(definitions, &snapshot, &mut self.names);
        for note in self.names.take_notes() {
            warn!("{note}");
        }
        let mut missing: Vec<ResourceName> = self.served.keys().cloned().collect();
        self.absences.begin_round();
        for mut resource in resources {
            missing.retain(|name| *name != resource.name);
            if let Some(served) = self.served.get(&resource.name) {
                let ids_may_change = own::ids_may_change(definitions, &resource.name);
                self.absences
                    .bridge(&mut resource, &served.resource(), ids_may_change);
            }
            self.publish_resource(resource);
        }
        for name in missing {
            self.withdraw(&name, definitions);
        }
    }

    /// Applies kubelet's list of holders. Returns whether a new snapshot is needed: with devices of
    /// USB/IP servers after every change of the list, otherwise only after a unit has become free.
    pub(super) fn take_holders(&mut self, holders: Holders, has_servers: bool) -> bool {
        let mut changed = has_servers && holders != self.in_use.now;
        self.in_use.update(holders, Instant::now(), self.grace);
        for (name, served) in &self.served {
            let count = self.in_use.now.get(name.as_str()).map_or(0, BTreeMap::len);
            self.metrics.set_in_use(name.as_str(), count);
            let in_use = self.in_use.units(name.as_str());
            changed |= served.plugin.update_in_use(&in_use, self.grace);
        }
        if self.cdi_specs.enabled {
            self.remove_unneeded_specs();
        }
        changed
    }

    /// The units of remote devices that containers have, as far as known, and whether that is
    /// certain.
    fn remotes_in_use(&self, definitions: &[Definition]) -> BTreeMap<String, bool> {
        let mut in_use = BTreeMap::new();
        for (name, _) in config::remote(definitions) {
            let served = self.served.get(name);
            let allocated = served.map(|served| served.plugin.allocated());
            let recent = served.map(|served| served.plugin.allocated_within(START_TIMEOUT));
            let seen = self.in_use.units(name.as_str());
            let mut starting = recent.unwrap_or_default();
            starting.retain(|id| !seen.contains(id));
            let listed = self.in_use.now.get(name.as_str()).into_iter();
            let listed = listed.flat_map(BTreeMap::keys).cloned();
            let uncertain = seen.into_iter().chain(allocated.unwrap_or_default());
            in_use.extend(uncertain.map(|id| (id, false)));
            in_use.extend(starting.into_iter().chain(listed).map(|id| (id, true)));
        }
        in_use
    }

    fn publish_resource(&mut self, mut resource: Resource) {
        let name = resource.name.clone();
        if let Some(served) = self.served.get(&name) {
            let before = served.resource();
            resource.keep_allocated(&before, &served.plugin.allocated());
            if resource == *before {
                return;
            }
            self.report_changes(&before, &resource, served);
        }
        // Write the specs before kubelet learns of the resource: a container with a device without
        // a spec cannot start.
        if let Err(error) = self.cdi_specs.write(&resource) {
            warn!("{name}: {error}; containers with it cannot start until this is fixed");
        }
        let (healthy, unhealthy) = resource.health();
        info!("{name}: {healthy} healthy, {unhealthy} unhealthy");
        self.metrics.set_devices(&resource);
        let resource = Arc::new(resource);
        match self.served.get(&name) {
            Some(served) => {
                served.resource.send_replace(resource);
            }
            None => {
                let served = self.serve(resource);
                self.served.insert(name, served);
            }
        }
    }

    /// Removes the specs of devices that are gone and of resources that are no longer configured,
    /// once no container has had them for the grace period.
    fn remove_unneeded_specs(&mut self) {
        let mut needed = BTreeSet::new();
        for served in self.served.values() {
            let resource = served.resource();
            needed.extend(
                resource
                    .cdi_devices
                    .iter()
                    .map(|cdi_device| cdi_device.name.clone()),
            );
        }
        let stems: Vec<String> = self.in_use.resources().into_iter().map(cdi_stem).collect();
        let is_needed = |device: &str| {
            let mut suffixes = stems.iter().filter_map(|stem| device.strip_prefix(stem.as_str()));
            needed.contains(device) || suffixes.any(|suffix| suffix.is_empty() || suffix.starts_with('-'))
        };
        self.unneeded.remove(&self.cdi_specs, is_needed, self.grace);
    }

    /// Reports devices that were unplugged while in use, or are back.
    fn report_changes(&self, before: &Resource, now: &Resource, served: &Served) {
        let allocated = served.plugin.allocated();
        for (id, unit) in before.units.iter().filter(|(id, _)| allocated.contains(*id)) {
            let after = now.units.get(id);
            let is_healthy = after.is_some_and(|unit| unit.healthy);
            let change = match (unit.healthy, is_healthy) {
                (true, false) => Change::Vanished,
                (false, true) => Change::Returned,
                // The first attachment of a remote device is not a return.
                _ => match (unit.attached, after.and_then(|unit| unit.attached)) {
                    (Some(true), Some(false)) => Change::Vanished,
                    (Some(false), Some(true)) if self.has_vanished(now, id) => Change::Returned,
                    _ => continue,
                },
            };
            let holder = self.in_use.holder(now.name.as_str(), id);
            if change == Change::Vanished {
                warn!(
                    "{}: device {id} at {} was unplugged while in use by {}; the pod keeps running",
                    now.name,
                    unit.place,
                    holder.unwrap_or("a container")
                );
                self.metrics.count_unplugged_in_use(now.name.as_str());
            }
            if let Some(events) = &self.events {
                events.note(now.name.as_str(), id, &unit.place, holder, change);
            }
        }
    }

    /// Whether the removal of a unit's device was reported.
    fn has_vanished(&self, resource: &Resource, id: &str) -> bool {
        let events = self.events.as_ref();
        events.is_some_and(|events| events.has_vanished(resource.name.as_str(), id))
    }

    fn serve(&self, resource: Arc<Resource>) -> Served {
        let name = resource.name.clone();
        let (sender, receiver) = watch::channel(resource);
        let metrics = Arc::clone(&self.metrics);
        let plugin = Arc::new(Plugin::new(receiver, self.cdi_specs.clone(), metrics));
        let registrar = Registrar {
            name,
            plugin: Arc::clone(&plugin),
            dir: self.kubelet_dir.clone(),
            changes: self.kubelet.clone(),
            metrics: Arc::clone(&self.metrics),
        };
        Served {
            resource: sender,
            plugin,
            registrar: tokio::spawn(registrar.run()),
        }
    }

    /// Withdraws a resource. If it is still configured, advertises it without units: if the stream
    /// ended and started again, kubelet could lose both registrations (kubernetes#121994).
    /// Otherwise ends once no container has any unit of it: a container can restart only while its
    /// resources are registered (kubelet's devicemanager/manager.go,
    /// callPreStartContainerIfNeeded). kubelet forgets the resource after its grace period of 5
    /// minutes.
    fn withdraw(&mut self, name: &ResourceName, definitions: &[Definition]) {
        let Some(served) = self.served.get(name) else {
            return;
        };
        let is_configured = self.names.is_given(name)
            && definitions.iter().any(|definition| {
                matches!(
                    definition,
                    Definition::Pattern { .. } | Definition::NvidiaGpu { .. }
                )
            });
        let before = served.resource();
        let mut rest = Resource::clone(&before);
        let allocated = served.plugin.allocated();
        if is_configured {
            rest.units.clear();
            self.publish_resource(rest);
        } else if !allocated.is_empty() {
            rest.retain(&allocated);
            if rest != *before {
                let count = allocated.len();
                info!("{name}: no longer configured, and kept while containers have {count} of it");
            }
            self.publish_resource(rest);
        } else {
            info!("{name}: no longer configured");
            self.metrics.forget(name.as_str());
            self.served.remove(name);
        }
    }
}
