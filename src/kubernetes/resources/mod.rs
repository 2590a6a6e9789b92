//! From what is wanted and what there is to resources with their units.
//!
//! Pure. Must not know how resources reach kubelet.

pub mod resource;
pub mod usbip;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cdi::generate::Wish;
use crate::kubernetes::config::{
    Definition, GoGlob, Group, HOSTDEV_DOMAIN, Mode, PathInGroup, PathType, Requested, SMARTER_DOMAIN,
};
use crate::kubernetes::snapshot::{DEV, Found, Sight};
use crate::model::device::inventory::Inventory;
use crate::model::device::{Access, Device, STATIC_NODE, SysPath};
use crate::model::plan::named_node;
use crate::model::plan::{ProcessUser, Reconciler};
use crate::model::request::entry::RequestEntry;
use crate::model::request::facts_needed::FactsNeeded;
use crate::model::request::selector::{self, DeviceSelector, Selector};
use crate::model::request::{MAX_ALTERNATIVES, Options, Request};
use resource::{
    MAX_ID, Metrics, MountSpec, Names, NodeSpec, Offer, Resource, ResourceName, Unit, fingerprint, unit_id,
};

/// The sysfs attribute that tells a device's NUMA node, and the USB attributes that groups look at.
const NUMA_NODE: &str = "numa_node";

/// Whether the devices of a resource may change their ids: several requests select them. Then one that goes may come back
/// in a moment as another.
pub fn takes_turns(definitions: &[Definition], resource: &ResourceName) -> bool {
    definitions.iter().any(|definition| match definition {
        Definition::Requested(requested) => {
            let requests = requested.asks.entries.iter().map(|asked| &asked.request);
            let several = requests.flat_map(Request::selectors).nth(1).is_some();
            requested.name == *resource && requested.mode != Mode::Hotplug && several
        }
        _ => false,
    })
}

/// The most units of one resource, of however many devices (see [`MAX_UNITS`](crate::kubernetes::config::MAX_UNITS)).
const MAX_LISTED: usize = 40_000;

/// What the names of all our resources' CDI devices begin with.
pub const CDI_PREFIX: &str = "k8s-";

/// What must be read of the host's devices for these definitions.
pub fn wanted(definitions: &[Definition]) -> FactsNeeded {
    let mut wanted = FactsNeeded::default();
    for definition in definitions {
        match definition {
            Definition::Requested(requested) => {
                let requests: Vec<Request> = requests(requested).cloned().collect();
                wanted.merge(&FactsNeeded::of(&requests, &requested.asks.symlinks));
                wanted.attributes.insert(NUMA_NODE.to_owned(), None);
            }
            Definition::Groups { groups, .. } => {
                if groups.iter().any(|group| matches!(group, Group::Usb { .. })) {
                    want_usb_devices(&mut wanted);
                    // The host controller's: USB devices have none.
                    wanted.attributes.insert(NUMA_NODE.to_owned(), None);
                }
                // inotify tells of nodes that somebody made by hand.
                let literals = patterns(groups).filter_map(GoGlob::literal);
                wanted.nodes.extend(literals.filter(|path| path.starts_with(DEV)));
            }
            Definition::Remote { .. } => want_usb_devices(&mut wanted),
            // inotify tells of nodes that somebody made by hand.
            Definition::Path { path, .. } if path.starts_with(DEV) => wanted.nodes.extend([path.clone()]),
            Definition::Path { .. } | Definition::Pattern { .. } | Definition::NvidiaGpu { .. } => {}
        }
    }
    wanted
}

/// The patterns of all paths of these groups.
pub fn patterns(groups: &[Group]) -> impl Iterator<Item = &GoGlob> {
    groups
        .iter()
        .flat_map(|group| match group {
            Group::Paths { paths, .. } => paths.as_slice(),
            Group::Usb { .. } => &[],
        })
        .map(|path| &path.pattern)
}

/// Which vendor's, which product, which one.
fn want_usb_devices(wanted: &mut FactsNeeded) {
    for attribute in ["idVendor", "idProduct", "serial"] {
        let only = Some("usb_device".to_owned());
        wanted.attributes.entry(attribute.to_owned()).or_insert(only);
    }
}

/// Whether the definitions look at the host's devices, and whether at the paths below /dev.
pub fn looks_at(definitions: &[Definition]) -> (bool, bool) {
    let devices = definitions.iter().any(|definition| match definition {
        Definition::Requested(_) | Definition::Remote { .. } => true,
        Definition::Groups { groups, .. } => groups.iter().any(|group| matches!(group, Group::Usb { .. })),
        _ => false,
    });
    let paths = definitions
        .iter()
        .any(|definition| !matches!(definition, Definition::Requested(_) | Definition::Remote { .. }));
    (devices, paths)
}

/// All resources, in the order of their names. What needs a name is given one by `names`.
pub fn resources(definitions: &[Definition], sight: &Sight, names: &mut Names) -> Vec<Resource> {
    for definition in definitions {
        if let Definition::Groups { name, .. }
        | Definition::Remote { name, .. }
        | Definition::Requested(Requested { name, .. }) = definition
        {
            names.reserve(name);
        }
    }
    // One takes what another can't have then.
    let remotes = usbip::states(definitions, sight);
    let mut found: BTreeMap<ResourceName, Resource> = BTreeMap::new();
    for definition in definitions {
        let of_it = match definition {
            Definition::Remote { name, entries } => vec![usbip::resource(name, entries, &remotes, sight)],
            _ => of_definition(definition, sight, names),
        };
        for resource in of_it {
            // Of several definitions of one path the first counts: a resource is registered once.
            found.entry(resource.name.clone()).or_insert(resource);
        }
    }
    for resource in found.values_mut() {
        let surplus = resource.units.keys().nth(MAX_LISTED).cloned();
        if let Some(first) = surplus {
            resource.units.split_off(&first);
            names.note(format!(
                "{} has more units than kubelet takes in one list: {MAX_LISTED} of them are advertised",
                resource.name
            ));
        }
    }
    found.into_values().collect()
}

fn of_definition(definition: &Definition, sight: &Sight, names: &mut Names) -> Vec<Resource> {
    match definition {
        Definition::Path { path, access, count } => {
            of_path(path, *access, *count, sight, names).into_iter().collect()
        }
        Definition::Pattern { pattern, count } => sight
            .paths
            .iter()
            .filter(|(_, found)| **found != Found::Other)
            .filter_map(|(path, _)| {
                let below = path.strip_prefix(DEV).ok()?.to_str()?;
                let is_meant = pattern.is_match(below);
                is_meant.then(|| of_match(path, below, *count, names)).flatten()
            })
            .collect(),
        Definition::NvidiaGpu { count } => sight
            .gpus
            .iter()
            .filter_map(|gpu| of_gpu(*gpu, *count, names))
            .collect(),
        Definition::Groups { name, groups } => vec![of_groups(name, groups, sight)],
        Definition::Remote { .. } => Vec::new(),
        Definition::Requested(requested) => vec![of_requests(requested, sight)],
    }
}

/// A resource without hooks, of these units.
fn static_resource(name: ResourceName, units: BTreeMap<String, Unit>) -> Resource {
    Resource {
        name,
        units,
        wishes: Vec::new(),
        hotplug: false,
        metrics: Metrics::Ours,
    }
}

fn node_offer(nodes: Vec<NodeSpec>) -> Arc<Offer> {
    Arc::new(Offer {
        nodes,
        ..Offer::default()
    })
}

/// hostdev: `/dev/xx/yy` is `dev_xx_yy`, and its id the path (its server.go:185-201).
fn of_path(path: &Path, access: Access, count: u32, sight: &Sight, names: &mut Names) -> Option<Resource> {
    let text = path.to_str()?;
    let name = names.name(
        HOSTDEV_DOMAIN,
        text,
        &text.trim_start_matches('/').replace('/', "_"),
    )?;
    let found = sight.paths.get(path);
    if found == Some(&Found::Other) {
        names.note(format!(
            "{text} is neither a device nor a directory: {name} stays unhealthy"
        ));
    }
    let healthy = matches!(found, Some(Found::Device | Found::Directory));
    let id = |number: u32| match count {
        1 if text.len() <= MAX_ID => text.to_owned(),
        _ => unit_id(&name, text, number),
    };
    let unit = Unit {
        healthy,
        attached: None,
        numa: None,
        place: text.to_owned(),
        offer: node_offer(vec![NodeSpec {
            host: path.to_owned(),
            container: path.to_owned(),
            access,
        }]),
    };
    let units = (0..count).map(|number| (id(number), unit.clone())).collect();
    Some(static_resource(name.clone(), units))
}

/// smarter-device-manager: what is none of `A-Z a-z 0-9 _ -` becomes `_` (its main.go:95-112); always `rw`.
fn of_match(path: &Path, below: &str, count: u32, names: &mut Names) -> Option<Resource> {
    let plain: String = below
        .chars()
        .map(|letter| match letter {
            letter if letter.is_ascii_alphanumeric() || "-_".contains(letter) => letter,
            _ => '_',
        })
        .collect();
    let name = names.name(SMARTER_DOMAIN, &path.to_string_lossy(), &plain)?;
    let unit = Unit {
        healthy: true,
        attached: None,
        numa: None,
        place: path.to_string_lossy().into_owned(),
        offer: node_offer(vec![NodeSpec {
            host: path.to_owned(),
            container: path.to_owned(),
            access: Access::READ | Access::WRITE,
        }]),
    };
    let units = (0..count)
        .map(|number| (unit_id(&name, below, number), unit.clone()))
        .collect();
    Some(static_resource(name.clone(), units))
}

/// smarter-device-manager: the container's NVIDIA runtime does the rest (its nvidia-server.go:157-175).
fn of_gpu(gpu: u32, count: u32, names: &mut Names) -> Option<Resource> {
    let what = format!("nvidia-gpu{gpu}");
    let name = names.name(SMARTER_DOMAIN, &what, &what)?;
    let unit = Unit {
        healthy: true,
        attached: None,
        numa: None,
        place: what.clone(),
        offer: Arc::new(Offer {
            env: [("NVIDIA_VISIBLE_DEVICES".to_owned(), gpu.to_string())].into(),
            ..Offer::default()
        }),
    };
    let units = (0..count)
        .map(|number| (unit_id(&name, &what, number), unit.clone()))
        .collect();
    Some(static_resource(name.clone(), units))
}

fn of_groups(name: &ResourceName, groups: &[Group], sight: &Sight) -> Resource {
    let mut units = BTreeMap::new();
    for group in groups {
        let (offers, count) = match group {
            Group::Paths { paths, count } => (path_offers(paths, sight), *count),
            Group::Usb { devices, count } => (usb_offer(devices, sight).into_iter().collect(), *count),
        };
        for OfferOfGroup {
            what,
            place,
            numa,
            offer,
        } in offers
        {
            let unit = Unit {
                healthy: true,
                attached: None,
                numa,
                place,
                offer: Arc::new(offer),
            };
            units.extend((0..count).map(|number| (unit_id(name, &what, number), unit.clone())));
        }
    }
    Resource {
        metrics: Metrics::Generic,
        ..static_resource(name.clone(), units)
    }
}

/// What a group has to give.
struct OfferOfGroup {
    /// What tells it from the others.
    what: String,
    /// Where it is.
    place: String,
    /// The NUMA node it is at.
    numa: Option<i64>,
    /// What the container gets.
    offer: Offer,
}

/// All USB devices of a group together, in the order in which it names them; `rw`, as there (generic-device-plugin's
/// deviceplugin/usb.go:262-300). The unit stays the same whichever of them are there.
fn usb_offer(selectors: &[Selector], sight: &Sight) -> Option<OfferOfGroup> {
    let mut found: Vec<&Device> = Vec::new();
    for selector in selectors {
        for device in sight.inventory.iter() {
            let is_new = !found.iter().any(|known| known.syspath == device.syspath);
            if is_new && selector.matches(device) {
                found.push(device);
            }
        }
    }
    let nodes: Vec<NodeSpec> = found
        .iter()
        .filter_map(|device| node_spec(device, None, Access::READ | Access::WRITE))
        .collect();
    let first = found.first().filter(|_| !nodes.is_empty())?;
    let names: Vec<String> = selectors.iter().map(ToString::to_string).collect();
    let places: Vec<&str> = found.iter().map(|device| device.syspath.as_str()).collect();
    Some(OfferOfGroup {
        what: names.join(" "),
        place: places.join(" "),
        numa: numa(&first.syspath, &sight.inventory),
        offer: Offer {
            nodes,
            ..Offer::default()
        },
    })
}

/// The combinations of a group: the first match of each path together, then the second, as far as every path has one
/// (generic-device-plugin's deviceplugin/path.go).
fn path_offers(paths: &[PathInGroup], sight: &Sight) -> Vec<OfferOfGroup> {
    let columns: Vec<(&PathInGroup, Vec<&Path>)> = paths
        .iter()
        .map(|path| (path, matches(&path.pattern, sight)))
        .filter(|(path, found)| !(path.optional && found.is_empty()))
        .collect();
    let longest = columns.iter().map(|(_, found)| found.len()).max().unwrap_or(0);
    let usable = columns
        .iter()
        .map(|(path, found)| found.len() * path.limit as usize);
    let rows = longest.min(usable.min().unwrap_or(0));
    let mut offers = Vec::new();
    for row in 0..rows {
        let (mut offer, mut place) = (Offer::default(), Vec::new());
        for (path, found) in &columns {
            let host = found[row % found.len()].to_owned();
            let container = place_in_container(path.mount_path.as_deref(), &host);
            place.push(host.to_string_lossy().into_owned());
            match path.kind {
                PathType::Device => offer.nodes.push(NodeSpec {
                    host,
                    container,
                    access: path.access,
                }),
                PathType::Mount => offer.mounts.push(MountSpec {
                    host,
                    container,
                    read_only: path.read_only,
                }),
                PathType::Nothing => {}
            }
        }
        let place = place.join(" ");
        offers.push(OfferOfGroup {
            // Limits let a match serve twice: the row is part of what tells one unit from another.
            what: format!("{place}#{row}"),
            place,
            numa: None,
            offer,
        });
    }
    offers
}

/// Where a path goes: a place with a `/` at its end is a directory, in which it keeps its name.
fn place_in_container(place: Option<&str>, host: &Path) -> PathBuf {
    match place {
        None => host.to_owned(),
        Some(directory) if directory.ends_with('/') => {
            let name = host.file_name().unwrap_or_default();
            Path::new(directory).join(name)
        }
        Some(path) => PathBuf::from(path),
    }
}

/// The paths that a pattern means, in the order of their names.
fn matches<'s>(pattern: &GoGlob, sight: &'s Sight) -> Vec<&'s Path> {
    if let Some(path) = pattern.literal() {
        let found = sight.paths.get_key_value(&path);
        return found.map(|(path, _)| path.as_path()).into_iter().collect();
    }
    let found = sight.paths.keys().map(PathBuf::as_path);
    found.filter(|path| pattern.is_match(path)).collect()
}

fn requests(requested: &Requested) -> impl Iterator<Item = &Request> {
    requested.asks.entries.iter().map(|asked| &asked.request)
}

fn of_requests(requested: &Requested, sight: &Sight) -> Resource {
    let inventory = &sight.inventory;
    let nobody = ProcessUser { uid: 0, gid: 0 };
    let mut reconciler = Reconciler::new(requested.asks.entries.clone(), Vec::new(), nobody);
    reconciler.find_roots(inventory);
    match requested.mode {
        Mode::Hotplug => slots(requested, reconciler.entries(), inventory),
        Mode::Present | Mode::Static => units_of_places(requested, reconciler.entries(), sight),
    }
}

/// Always the same places, healthy whatever is there: a container that restarts while its device is away must start.
fn slots(requested: &Requested, asked: &[RequestEntry], inventory: &Inventory) -> Resource {
    let name = &requested.name;
    let wish = Wish {
        name: cdi_name(name, None),
        devices: requests(requested).map(Request::to_string).collect(),
        symlinks: requested.asks.symlinks.iter().map(ToString::to_string).collect(),
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
        cdi: Some(wish.name.clone()),
        nodes,
        ..Offer::default()
    });
    let unit = |number: u32| Unit {
        healthy: true,
        attached: None,
        numa: None,
        // Slots are alike: the lowest numbers first.
        place: format!("{number:05}"),
        offer: Arc::clone(&offer),
    };
    Resource {
        name: name.clone(),
        units: (0..requested.count)
            .map(|number| (unit_id(name, "slot", number), unit(number)))
            .collect(),
        wishes: vec![wish.clone()],
        hotplug: true,
        metrics: Metrics::Ours,
    }
}

/// A unit for each place where a device is (with everything at or below it), as often as containers can have it.
///
/// The place of a USB device is its socket, on whichever bus: a device that comes back with other ids (firmware that is
/// loaded, a bootloader) or at another speed is the same unit, if one of the resource's requests selects it.
fn units_of_places(requested: &Requested, asked: &[RequestEntry], sight: &Sight) -> Resource {
    let (name, inventory) = (&requested.name, &sight.inventory);
    let mut resource = static_resource(name.clone(), BTreeMap::new());
    let mut places: BTreeMap<&SysPath, Roots<'_>> = BTreeMap::new();
    for asked in asked {
        for root in &asked.roots {
            if !is_other_words(asked, root, inventory) && nodes_of(asked, root, inventory).next().is_some() {
                places.entry(sight.socket(root)).or_default().push((asked, root));
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
            let wish = Wish {
                name: cdi_name(name, Some(place)),
                devices: requests_of_place(requested, place, &roots, sight),
                symlinks: requested.asks.symlinks.iter().map(ToString::to_string).collect(),
            };
            offer.cdi = Some(wish.name.clone());
            resource.wishes.push(wish);
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

/// The devices of a place, each with a request that selects it.
type Roots<'a> = Vec<(&'a RequestEntry, &'a SysPath)>;

/// All of the resource's requests, for this place alone: each selects by its alternatives what is at the socket's port of
/// either bus, so that a device which comes back at the other one was never removed.
///
/// `required` stays with those that select what is there now: of several devices that take turns at a place only one is
/// ever there.
fn requests_of_place(
    requested: &Requested,
    place: &SysPath,
    roots: &Roots<'_>,
    sight: &Sight,
) -> Vec<String> {
    let mut devices = Vec::new();
    for asked in &requested.asks.entries {
        let request = &asked.request;
        let mut own = roots.iter().filter(|(known, _)| known.request == *request);
        let root = own.next().map(|(_, root)| *root);
        // By its path alone, what `parent-of:` leads to is any device at that place.
        let is_vague = request
            .selectors()
            .any(|selector| selector.parents() > 0 || selector.remote().is_some());
        let sides: Vec<&SysPath> = match (is_vague, root) {
            (true, None) => continue,
            (true, Some(root)) => vec![root],
            (false, _) => std::iter::once(place).chain(sight.peers.get(place)).collect(),
        };
        let mut request = request.clone();
        request.options.required &= root.is_some();
        // Where there would be more alternatives than a request may have, each side has a request of its own.
        let is_one = request.selectors().count() * sides.len() <= 1 + MAX_ALTERNATIVES;
        let all = match is_one {
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

/// Whether a root is the node of a path that something else names (`node:`, or hostdev's list): a device that has this
/// node is a root of its own.
fn is_other_words(asked: &RequestEntry, root: &SysPath, inventory: &Inventory) -> bool {
    let is_static = inventory
        .get(root)
        .is_some_and(|device| device.subsystem.as_deref() == Some(STATIC_NODE));
    let mut terms = asked.request.selectors().flat_map(|selector| selector.terms());
    is_static && !terms.any(|term| matches!(term.selector, Selector::Node(_)))
}

/// The name behind the `=` of the CDI device of a resource's slots, or of one of its devices. The same for ever:
/// kubelet asks for it again whenever a container of the pod restarts.
fn cdi_name(resource: &ResourceName, root: Option<&SysPath>) -> String {
    let own = root.map_or_else(String::new, |root| format!("-{}", fingerprint(root.as_str())));
    format!("{}{own}", cdi_stem(resource.as_str()))
}

/// What the names of all CDI devices of a resource begin with, and those of no other.
pub fn cdi_stem(resource: &str) -> String {
    let short = resource.split_once('/').map_or("", |(_, name)| name);
    format!("{CDI_PREFIX}{short}-{}", &fingerprint(resource)[..8])
}

/// The request for what is at these places of all that `request` selects, by each of its alternatives. The device that
/// `parent-of:` leads to is named by its path alone: terms speak of its child.
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

/// The nodes at or below a root, each where it goes: `path=` is for the one that the root is named for.
fn nodes_of<'a>(
    asked: &'a RequestEntry,
    root: &'a SysPath,
    inventory: &'a Inventory,
) -> impl Iterator<Item = NodeSpec> + use<'a> {
    let options = &asked.request.options;
    let admitted = move || {
        let below = inventory.at_or_below(root);
        below.filter(|device| asked.request.gives(root, device, inventory) == selector::Found::Yes)
    };
    let named = named_node::of_request(&asked.request, admitted(), inventory).map(|device| &device.syspath);
    admitted().filter_map(move |device| {
        let place = options.path.as_deref().filter(|_| named == Some(&device.syspath));
        node_spec(device, place, options.access)
    })
}

fn node_spec(device: &Device, place: Option<&Path>, access: Access) -> Option<NodeSpec> {
    let host = device.node.as_ref()?.path.clone();
    Some(NodeSpec {
        container: place.map_or_else(|| host.clone(), Path::to_owned),
        host,
        access,
    })
}

/// The NUMA node of the device, or of the nearest above that has one; -1 is the kernel's word for none.
fn numa(root: &SysPath, inventory: &Inventory) -> Option<i64> {
    let own = inventory.get(root).into_iter();
    let node = |device: &Device| device.attribute(NUMA_NODE)?.trim().parse::<i64>().ok();
    own.chain(inventory.ancestors(root))
        .find_map(node)
        .filter(|node| *node >= 0)
}

#[cfg(test)]
mod tests;
