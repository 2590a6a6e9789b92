//! Our own format: resources of the devices that requests select.
//!
//! Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::names::{ResourceName, cdi_name, unit_id};
use super::nodes::{node_spec, numa};
use super::resource::{Format, Resource};
use super::unit::{NodeSpec, Offer, Unit};
use crate::cdi::generate::NewDevice;
use crate::kubernetes::config::{Definition, Mode, Requested};
use crate::kubernetes::snapshot::Snapshot;
use crate::model::device::inventory::Inventory;
use crate::model::device::{STATIC_NODE, SysPath};
use crate::model::oci::ProcessUser;
use crate::model::plan::Planner;
use crate::model::plan::attachment::Attachments;
use crate::model::plan::named_node;
use crate::model::plan::node_names::NodePaths;
use crate::model::request::entry::RequestEntry;
use crate::model::request::selector::{self, DeviceSelector, Selector};
use crate::model::request::{MAX_ALTERNATIVES, NodePath, Options, Request};

/// Whether the devices of a resource may change their ids: several requests select them, so a
/// device that is unplugged may come back with other ids.
pub(crate) fn ids_may_change(definitions: &[Definition], resource: &ResourceName) -> bool {
    definitions.iter().any(|definition| match definition {
        Definition::Requested(requested) => {
            let requests = requested.requests.entries.iter().map(|asked| &asked.request);
            let several = requests.flat_map(Request::selectors).nth(1).is_some();
            requested.name == *resource && requested.mode != Mode::Hotplug && several
        }
        _ => false,
    })
}

/// The requests of a resource.
pub(super) fn requests(requested: &Requested) -> impl Iterator<Item = &Request> {
    requested.requests.entries.iter().map(|asked| &asked.request)
}

/// The resource of these requests.
pub(super) fn resource(requested: &Requested, snapshot: &Snapshot) -> Resource {
    let inventory = &snapshot.inventory;
    let user = ProcessUser { uid: 0, gid: 0 };
    let mut planner = Planner::new(requested.requests.entries.clone(), Vec::new(), user);
    planner.find_roots(inventory);
    match requested.mode {
        Mode::Hotplug => slots(requested, planner.entries(), inventory),
        Mode::Present | Mode::Static => units_of_places(requested, planner.entries(), snapshot),
    }
}

/// A fixed number of slots, always healthy: a container must be able to restart while its device is
/// unplugged.
fn slots(requested: &Requested, asked: &[RequestEntry], inventory: &Inventory) -> Resource {
    let name = &requested.name;
    let cdi_device = NewDevice {
        name: cdi_name(name, None),
        devices: requests(requested).map(Request::to_string).collect(),
        symlinks: symlinks(requested),
    };
    let nodes = asked
        .iter()
        .flat_map(|asked| {
            asked
                .roots
                .iter()
                .flat_map(|root| nodes_of(asked, root, inventory))
        })
        .collect();
    let offer = Arc::new(Offer {
        cdi: Some(cdi_device.name.clone()),
        nodes,
        ..Offer::default()
    });
    let unit = |number: u32| Unit {
        healthy: true,
        attached: None,
        numa: None,
        // Slots are equal; lower numbers are preferred.
        place: format!("{number:05}"),
        offer: Arc::clone(&offer),
    };
    Resource {
        name: name.clone(),
        units: (0..requested.count)
            .map(|number| (unit_id(name, "slot", number), unit(number)))
            .collect(),
        cdi_devices: vec![cdi_device.clone()],
        hotplug: true,
        format: Format::Other,
    }
}

/// One unit, or `count` units, for each place of a device; the unit includes everything below the
/// place.
///
/// The place of a USB device is its socket, on either bus: a device that comes back with other ids
/// (loaded firmware, a bootloader) or at another speed is the same unit if one of the resource's
/// requests selects it.
fn units_of_places(requested: &Requested, asked: &[RequestEntry], snapshot: &Snapshot) -> Resource {
    let (name, inventory) = (&requested.name, &snapshot.inventory);
    let mut resource = Resource::without_hooks(name.clone(), BTreeMap::new());
    let mut places: BTreeMap<&SysPath, Roots<'_>> = BTreeMap::new();
    for asked in asked {
        for root in &asked.roots {
            if !is_node_of_other_root(asked, root, inventory)
                && nodes_of(asked, root, inventory).next().is_some()
            {
                places
                    .entry(snapshot.socket(root))
                    .or_default()
                    .push((asked, root));
            }
        }
    }
    for (place, roots) in places {
        let mut nodes = Vec::new();
        let mut seen = BTreeSet::new();
        for (asked, root) in &roots {
            if seen.insert(*root) {
                nodes.extend(nodes_of(asked, root, inventory));
            }
        }
        let mut offer = Offer {
            nodes,
            ..Offer::default()
        };
        if requested.mode == Mode::Present {
            let cdi_device = NewDevice {
                name: cdi_name(name, Some(place)),
                devices: requests_of_place(requested, place, &roots, snapshot),
                symlinks: symlinks(requested),
            };
            offer.cdi = Some(cdi_device.name.clone());
            resource.cdi_devices.push(cdi_device);
        }
        let unit = Unit {
            healthy: true,
            attached: None,
            numa: numa(roots[0].1, inventory),
            place: place.to_string(),
            offer: Arc::new(offer),
        };
        let units = (0..requested.count).map(|number| (unit_id(name, place.as_str(), number), unit.clone()));
        resource.units.extend(units);
    }
    resource
}

/// The roots at a place, each with a request that selects it.
type Roots<'a> = Vec<(&'a RequestEntry, &'a SysPath)>;

/// The rules for links, as text for a CDI device.
fn symlinks(requested: &Requested) -> Vec<String> {
    let rules = requested.requests.symlinks.iter();
    rules.map(ToString::to_string).collect()
}

/// All requests of the resource, limited to one place. Each has alternatives for the socket's port
/// on either bus, so that a device that comes back on the other bus does not count as removed.
///
/// `required` is kept only in requests that select a present device: if several devices take turns
/// at a place, only one of them is present.
fn requests_of_place(
    requested: &Requested,
    place: &SysPath,
    roots: &Roots<'_>,
    snapshot: &Snapshot,
) -> Vec<String> {
    let mut devices = Vec::new();
    for asked in &requested.requests.entries {
        let request = &asked.request;
        let mut own = roots.iter().filter(|(known, _)| known.request == *request);
        let root = own.next().map(|(_, root)| *root);
        // If only its path were added, the selector `parent-of:` would match any device at the
        // place.
        let is_vague = request
            .selectors()
            .any(|selector| selector.parents() > 0 || selector.remote().is_some());
        let sides: Vec<&SysPath> = match (is_vague, root) {
            (true, None) => continue,
            (true, Some(root)) => vec![root],
            (false, _) => std::iter::once(place).chain(snapshot.peers.get(place)).collect(),
        };
        let mut request = request.clone();
        request.options.required &= root.is_some();
        // If a request would have too many alternatives, each bus gets its own request.
        let is_single = request.selectors().count() * sides.len() <= 1 + MAX_ALTERNATIVES;
        let all = match is_single {
            true => vec![request_of_places(&request, &sides)],
            false => sides
                .iter()
                .map(|side| request_of_places(&request, &[*side]))
                .collect(),
        };
        for text in all {
            if !devices.contains(&text) {
                devices.push(text);
            }
        }
    }
    devices
}

/// Whether a root is a static node that no `node:` selector of the request names: the device with
/// this number is a separate root.
fn is_node_of_other_root(asked: &RequestEntry, root: &SysPath, inventory: &Inventory) -> bool {
    let is_static = inventory
        .get(root)
        .is_some_and(|device| device.subsystem.as_deref() == Some(STATIC_NODE));
    let mut terms = asked.request.selectors().flat_map(|selector| selector.terms());
    is_static && !terms.any(|term| matches!(term.selector, Selector::Node(_)))
}

/// The request for the devices at these places that an alternative of `request` selects. The device
/// of `parent-of:` is selected only by its path, because the other terms match its child.
fn request_of_places(request: &Request, places: &[&SysPath]) -> String {
    let here = |selector: &DeviceSelector, place: &SysPath| {
        let path = Selector::SysPath(place.as_path().to_owned());
        match selector.parents() {
            0 => format!("{selector}&{path}"),
            _ => path.to_string(),
        }
    };
    let mut all: Vec<String> = Vec::new();
    for place in places {
        all.extend(request.selectors().map(|selector| here(selector, place)));
    }
    let options = Options {
        or: Vec::new(),
        ..request.options.clone()
    };
    let (first, others) = all
        .split_first()
        .map_or(("", &[][..]), |(first, others)| (first, others));
    let or = others.iter().map(|or| format!(";or={or}"));
    format!("{first}{options}{}", or.collect::<String>())
}

/// The nodes at or below a root, with their paths in the container. `path=` applies to the node
/// that is named for the root, or as a directory to all nodes.
fn nodes_of<'a>(
    asked: &'a RequestEntry,
    root: &'a SysPath,
    inventory: &'a Inventory,
) -> impl Iterator<Item = NodeSpec> + use<'a> {
    let options = &asked.request.options;
    let admitted = move || {
        let places = std::iter::once(root).chain(asked.companions.get(root));
        let below = places.flat_map(|place| inventory.at_or_below(place));
        below.filter(|device| asked.request.gives(root, device, inventory) == selector::Match::Yes)
    };
    let named = named_node::of_request(&asked.request, admitted(), inventory).map(|device| &device.syspath);
    let none = Attachments::default();
    let mut paths = NodePaths::new(inventory, &none);
    let nodes = admitted().filter_map(|device| {
        let has_own_path = match &options.path {
            Some(NodePath::Node(_)) => named == Some(&device.syspath),
            Some(NodePath::Directory(_)) => true,
            None => false,
        };
        let place = has_own_path.then(|| paths.path_of(&asked.request, device));
        node_spec(device, place.as_deref(), options.access)
    });
    nodes.collect::<Vec<_>>().into_iter()
}
