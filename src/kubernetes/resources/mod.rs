//! Creates resources and their units from definitions and a snapshot.
//!
//! Pure. Must not know how resources reach kubelet.

pub(crate) mod generic;
pub(crate) mod hostdev;
pub mod names;
pub(crate) mod nodes;
pub(crate) mod own;
pub(crate) mod resource;
pub(crate) mod smarter;
pub(crate) mod unit;
pub(crate) mod usbip;

use std::collections::BTreeMap;

use names::{Names, ResourceName};
use nodes::NUMA_NODE;
use resource::Resource;

use crate::kubernetes::config::{DEV, Definition, GoGlob, Requested};
use crate::kubernetes::snapshot::Snapshot;
use crate::model::request::facts_needed::FactsNeeded;

/// The most units of one resource, of any number of devices (see
/// [`MAX_UNITS`](crate::kubernetes::config::MAX_UNITS)).
const MAX_LISTED: usize = 40_000;

/// The facts about devices that these definitions need.
pub(crate) fn facts_needed(definitions: &[Definition]) -> FactsNeeded {
    let mut needed = FactsNeeded::default();
    for definition in definitions {
        match definition {
            Definition::Requested(requested) => {
                let requests = own::requests(requested);
                needed.merge(&FactsNeeded::of(requests, &requested.requests.symlinks));
                needed.attributes.insert(NUMA_NODE.to_owned(), None);
            }
            Definition::Groups { .. } => {
                if definition.needs_devices() {
                    add_usb_attributes(&mut needed);
                    // sysfs has the NUMA node of a USB device only at its host controller.
                    needed.attributes.insert(NUMA_NODE.to_owned(), None);
                }
                // inotify reports nodes that were created manually.
                let literals = definition.patterns().filter_map(GoGlob::literal);
                needed
                    .static_nodes
                    .extend(literals.filter(|path| path.starts_with(DEV)));
            }
            Definition::Remote { .. } => add_usb_attributes(&mut needed),
            // inotify reports nodes that were created manually.
            Definition::Path { path, .. } if path.starts_with(DEV) => {
                needed.static_nodes.extend([path.clone()])
            }
            Definition::Path { .. } | Definition::Pattern { .. } | Definition::NvidiaGpu { .. } => {}
        }
    }
    needed
}

/// The attributes that selectors of USB devices need.
fn add_usb_attributes(needed: &mut FactsNeeded) {
    for attribute in ["idVendor", "idProduct", "serial"] {
        let only = Some("usb_device".to_owned());
        needed.attributes.entry(attribute.to_owned()).or_insert(only);
    }
}

/// All resources, sorted by name. `names` contains the names that do not come from the
/// configuration.
pub(crate) fn resources(definitions: &[Definition], snapshot: &Snapshot, names: &mut Names) -> Vec<Resource> {
    for definition in definitions {
        if let Definition::Groups { name, .. }
        | Definition::Remote { name, .. }
        | Definition::Requested(Requested { name, .. }) = definition
        {
            names.reserve(name);
        }
    }
    // Entries compete for devices, so evaluate all definitions together.
    let remotes = usbip::states(definitions, snapshot);
    let mut found: BTreeMap<ResourceName, Resource> = BTreeMap::new();
    for definition in definitions {
        let new = match definition {
            Definition::Remote { name, entries } => vec![usbip::resource(name, entries, &remotes, snapshot)],
            _ => of_definition(definition, snapshot, names),
        };
        for resource in new {
            // If several definitions have the same path, the first is used: a resource is
            // registered once.
            found.entry(resource.name.clone()).or_insert(resource);
        }
    }
    for resource in found.values_mut() {
        let surplus = resource.units.keys().nth(MAX_LISTED).cloned();
        if let Some(first) = surplus {
            resource.units.split_off(&first);
            names.note(format!(
                "{} has more units than kubelet accepts in one list: {MAX_LISTED} of them are advertised",
                resource.name
            ));
        }
    }
    found.into_values().collect()
}

fn of_definition(definition: &Definition, snapshot: &Snapshot, names: &mut Names) -> Vec<Resource> {
    match definition {
        Definition::Path { path, access, count } => hostdev::resource(path, *access, *count, snapshot, names)
            .into_iter()
            .collect(),
        Definition::Pattern { pattern, count } => smarter::resources(pattern, *count, snapshot, names),
        Definition::NvidiaGpu { count } => {
            let gpus = snapshot.gpus.iter();
            gpus.filter_map(|gpu| smarter::of_gpu(*gpu, *count, names))
                .collect()
        }
        Definition::Groups { name, groups } => vec![generic::resource(name, groups, snapshot)],
        Definition::Remote { .. } => Vec::new(),
        Definition::Requested(requested) => vec![own::resource(requested, snapshot)],
    }
}

#[cfg(test)]
mod tests;
