//! The metrics of the plugin, and which resources are registered.
//!
//! Resources in the format of generic-device-plugin or usbip-device-plugin also have the metrics of
//! that program.
//!
//! The metrics of watchers (`cli::metrics`) have a small writer in the operator's tool: they are
//! read from state files at each scrape and include a summary, a type that prometheus-client does
//! not have.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub(super) use prometheus_client::encoding::prometheus_text::CONTENT_TYPE;
use prometheus_client::encoding::prometheus_text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::resources::resource::{Format, Resource};

type Labels = Vec<(&'static str, String)>;
type Gauges = Family<Labels, Gauge>;
type Counters = Family<Labels, Counter>;

#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    devices: Gauges,
    registered: Gauges,
    in_use: Gauges,
    registrations: Counters,
    lists: Counters,
    allocations: Counters,
    unplugged_in_use: Counters,
    events: Counters,
    reloads: Counters,
    others: OtherPrograms,
    /// Whether each resource is registered, because a family of metrics cannot be read.
    is_registered: Mutex<BTreeMap<String, bool>>,
}

/// The metrics of the programs whose formats we read.
#[derive(Debug)]
struct OtherPrograms {
    generic_devices: Gauges,
    usbip_available: Gauges,
    usbip_attached: Gauges,
    generic: FormatMetrics,
    usbip: FormatMetrics,
}

/// The counters that generic-device-plugin and usbip-device-plugin both have.
#[derive(Debug)]
struct FormatMetrics {
    allocations: Counters,
    restarts: Counters,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::default();
        let ours = registry.sub_registry_with_prefix("oci_hotplug_device_plugin");
        let devices = gauges(ours, "devices", "Devices advertised to kubelet, by health");
        let registered = gauges(
            ours,
            "registered",
            "1 while kubelet watches the resource's devices",
        );
        let in_use = gauges(
            ours,
            "in_use",
            "Devices of containers, from kubelet's pod-resources",
        );
        let registrations = counters(ours, "registrations", "Registrations that kubelet accepted");
        let lists = counters(ours, "lists", "Lists of devices sent to kubelet");
        let allocations = counters(ours, "allocations", "Allocate calls");
        let unplugged_in_use = counters(
            ours,
            "unplugged_in_use",
            "Devices unplugged while a container had them",
        );
        let events = counters(ours, "events", "Changes to report as events, by result");
        let reloads = counters(ours, "reloads", "Reloads of the configuration, by result");
        for result in ["ok", "failed"] {
            count(&reloads, by_result(result), 0);
        }
        Self {
            others: OtherPrograms::register(&mut registry),
            registry,
            devices,
            registered,
            in_use,
            registrations,
            lists,
            allocations,
            unplugged_in_use,
            events,
            reloads,
            is_registered: Mutex::default(),
        }
    }

    /// Sets the numbers of a resource's devices.
    pub(super) fn set_devices(&self, resource: &Resource) {
        let name = resource.name.as_str();
        let (healthy, unhealthy) = resource.health();
        set(&self.devices, with_health(name, "healthy"), healthy);
        set(&self.devices, with_health(name, "unhealthy"), unhealthy);
        // A counter that begins with its first event hides that event from increase().
        count(&self.allocations, of(name), 0);
        count(&self.unplugged_in_use, of(name), 0);
        self.others.set_devices(resource);
    }

    /// Sets how many of a resource's devices containers have.
    pub(super) fn set_in_use(&self, resource: &str, count: usize) {
        set(&self.in_use, of(resource), count);
    }

    /// Sets whether kubelet watches a resource's devices.
    pub(super) fn set_registered(&self, resource: &str, is_registered: bool) {
        set(&self.registered, of(resource), usize::from(is_registered));
        self.registrations_now()
            .insert(resource.to_owned(), is_registered);
    }

    /// Counts a registration; `is_restart` unless it is the first.
    pub(super) fn count_registration(&self, resource: &str, format: Format, is_restart: bool) {
        count(&self.registrations, of(resource), 1);
        if let Some(format) = self.others.of_format(format).filter(|_| is_restart) {
            count(&format.restarts, of(resource), 1);
        }
    }

    /// Counts a list that is sent to kubelet.
    pub(super) fn count_list(&self, resource: &str) {
        count(&self.lists, of(resource), 1);
    }

    /// Counts an Allocate call.
    pub(super) fn count_allocation(&self, resource: &str, format: Format) {
        count(&self.allocations, of(resource), 1);
        if let Some(format) = self.others.of_format(format) {
            count(&format.allocations, of(resource), 1);
        }
    }

    /// Counts a device that was unplugged while a container had it.
    pub(super) fn count_unplugged_in_use(&self, resource: &str) {
        count(&self.unplugged_in_use, of(resource), 1);
    }

    /// Counts changes by the result of sending them as events.
    pub(super) fn count_events(&self, result: &'static str, changes: u32) {
        count(&self.events, by_result(result), changes);
    }

    /// Counts a reload of the configuration.
    pub(super) fn count_reload(&self, result: &'static str) {
        count(&self.reloads, by_result(result), 1);
    }

    /// Removes the current values of a resource. Its counters remain.
    pub(super) fn forget(&self, resource: &str) {
        for health in ["healthy", "unhealthy"] {
            self.devices.remove(&with_health(resource, health));
        }
        for gauges in [&self.registered, &self.in_use] {
            gauges.remove(&of(resource));
        }
        self.others.forget(resource);
        self.registrations_now().remove(resource);
    }

    /// The resources that are configured but not registered.
    pub(super) fn unregistered(&self) -> Vec<String> {
        let registrations = self.registrations_now();
        let missing = registrations.iter().filter(|(_, is_registered)| !**is_registered);
        missing.map(|(resource, _)| resource.clone()).collect()
    }

    /// All metrics in Prometheus' text format.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    fn registrations_now(&self) -> MutexGuard<'_, BTreeMap<String, bool>> {
        self.is_registered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OtherPrograms {
    fn register(registry: &mut Registry) -> Self {
        let generic = registry.sub_registry_with_prefix("generic_device_plugin");
        let generic_devices = gauges(generic, "devices", "Devices advertised to kubelet");
        let generic = FormatMetrics::register(generic);
        let usbip = registry.sub_registry_with_prefix("usbip_device_plugin");
        Self {
            generic_devices,
            usbip_available: gauges(usbip, "available_devices", "Free devices of USB/IP servers"),
            usbip_attached: gauges(usbip, "attached_devices", "Attached devices of USB/IP servers"),
            generic,
            usbip: FormatMetrics::register(usbip),
        }
    }

    fn set_devices(&self, resource: &Resource) {
        let name = resource.name.as_str();
        let with = |attached| {
            let units = resource.units.values();
            units.filter(|unit| unit.attached == attached).count()
        };
        match resource.format {
            Format::Other => {}
            Format::Generic => set(&self.generic_devices, of(name), resource.units.len()),
            Format::Usbip => {
                set(&self.usbip_available, of(name), with(None));
                set(&self.usbip_attached, of(name), with(Some(true)));
            }
        }
        // Those programs show their counters from the start.
        if let Some(format) = self.of_format(resource.format) {
            count(&format.allocations, of(name), 0);
            count(&format.restarts, of(name), 0);
        }
    }

    fn forget(&self, resource: &str) {
        for gauges in [&self.generic_devices, &self.usbip_available, &self.usbip_attached] {
            gauges.remove(&of(resource));
        }
    }

    fn of_format(&self, format: Format) -> Option<&FormatMetrics> {
        match format {
            Format::Other => None,
            Format::Generic => Some(&self.generic),
            Format::Usbip => Some(&self.usbip),
        }
    }
}

impl FormatMetrics {
    fn register(registry: &mut Registry) -> Self {
        Self {
            allocations: counters(registry, "allocations", "Allocate calls"),
            restarts: counters(registry, "restarts", "Registrations after the first"),
        }
    }
}

fn gauges(registry: &mut Registry, name: &str, help: &str) -> Gauges {
    let family = Gauges::default();
    registry.register(name, help, family.clone());
    family
}

fn counters(registry: &mut Registry, name: &str, help: &str) -> Counters {
    let family = Counters::default();
    registry.register(name, help, family.clone());
    family
}

fn of(resource: &str) -> Labels {
    vec![("resource", resource.to_owned())]
}

fn with_health(resource: &str, health: &str) -> Labels {
    vec![("resource", resource.to_owned()), ("health", health.to_owned())]
}

fn by_result(result: &str) -> Labels {
    vec![("result", result.to_owned())]
}

fn set(gauges: &Gauges, labels: Labels, value: usize) {
    gauges
        .get_or_create(&labels)
        .set(i64::try_from(value).unwrap_or(i64::MAX));
}

fn count(counters: &Counters, labels: Labels, more: u32) {
    counters.get_or_create(&labels).inc_by(u64::from(more));
}
