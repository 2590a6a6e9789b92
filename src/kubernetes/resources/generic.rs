//! generic-device-plugin: one resource of several groups of paths and of USB devices.
//!
//! Pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::names::{ResourceName, unit_id};
use super::nodes::{node_spec, numa};
use super::resource::{Format, Resource};
use super::unit::{MountSpec, NodeSpec, Offer, Unit};
use crate::kubernetes::config::{GoGlob, Group, PathInGroup, PathType};
use crate::kubernetes::snapshot::Snapshot;
use crate::model::device::{Access, Device};
use crate::model::request::selector::Selector;

/// The resource of these groups.
pub(super) fn resource(name: &ResourceName, groups: &[Group], snapshot: &Snapshot) -> Resource {
    let mut units = BTreeMap::new();
    for group in groups {
        let (offers, count) = match group {
            Group::Paths { paths, count } => (path_offers(paths, snapshot), *count),
            Group::Usb { devices, count } => (usb_offer(devices, snapshot).into_iter().collect(), *count),
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
        format: Format::Generic,
        ..Resource::without_hooks(name.clone(), units)
    }
}

/// What one unit of a group offers.
struct OfferOfGroup {
    /// Identifies it within the resource.
    what: String,
    /// The place of its devices.
    place: String,
    numa: Option<i64>,
    offer: Offer,
}

/// All USB devices of a group together, in the group's order, with the access `rw`
/// (generic-device-plugin's deviceplugin/usb.go:262-300). The unit is the same whichever of them
/// are present.
fn usb_offer(selectors: &[Selector], snapshot: &Snapshot) -> Option<OfferOfGroup> {
    let mut found: Vec<&Device> = Vec::new();
    for selector in selectors {
        for device in snapshot.inventory.iter() {
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
        numa: numa(&first.syspath, &snapshot.inventory),
        offer: Offer {
            nodes,
            ..Offer::default()
        },
    })
}

/// The combinations of a group: the first match of each path, then the second of each, as long as
/// every path has one (generic-device-plugin's deviceplugin/path.go).
fn path_offers(paths: &[PathInGroup], snapshot: &Snapshot) -> Vec<OfferOfGroup> {
    let columns: Vec<(&PathInGroup, Vec<&Path>)> = paths
        .iter()
        .map(|path| (path, matches(&path.pattern, snapshot)))
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
            let container = container_path(path.mount_path.as_deref(), &host);
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
            // With a limit, a match is used several times: the row distinguishes the units.
            what: format!("{place}#{row}"),
            place,
            numa: None,
            offer,
        });
    }
    offers
}

/// The path in the container: a mount path that ends with `/` is a directory, in which the file
/// keeps its name.
fn container_path(mount_path: Option<&str>, host: &Path) -> PathBuf {
    match mount_path {
        None => host.to_owned(),
        Some(directory) if directory.ends_with('/') => {
            let name = host.file_name().unwrap_or_default();
            Path::new(directory).join(name)
        }
        Some(path) => PathBuf::from(path),
    }
}

/// The paths that match a pattern, in the order of their names.
fn matches<'s>(pattern: &GoGlob, snapshot: &'s Snapshot) -> Vec<&'s Path> {
    if let Some(path) = pattern.literal() {
        let found = snapshot.paths.get_key_value(&path);
        return found.map(|(path, _)| path.as_path()).into_iter().collect();
    }
    let found = snapshot.paths.keys().map(PathBuf::as_path);
    found.filter(|path| pattern.is_match(path)).collect()
}
