//! Devices of USB/IP servers as units: which entries of a configuration are free, and which a
//! container has.
//!
//! A server lists the devices that no host has imported. An entry whose device is listed is free on
//! every node; an entry whose device is not listed is free on none. An entry that a container has
//! stays healthy even while its connection is broken: its watcher attaches it again, and kubelet
//! rejects a pod with an unhealthy device when it admits the pod again. Pure. Must not know how
//! servers are listed (`usbip_servers`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::names::{ResourceName, cdi_stem, fingerprint, unit_id};
use super::resource::{Format, Resource};
use super::unit::{NodeSpec, Offer, Unit};
use crate::cdi::generate::NewDevice;
use crate::kubernetes::config::{Definition, RemoteEntry, remote};
use crate::kubernetes::snapshot::{PathKind, Snapshot};
use crate::model::device::Device;
use crate::model::remote::address::{BusId, RemoteDevice, UsbIds};

/// The state of each entry, by the id of its unit.
pub(super) type States = BTreeMap<String, State>;

/// The state of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Free: its server lists a device for it.
    Listed,
    /// A container has it, and it is attached.
    Attached,
    /// A container has it, and it is listed but not attached: the container is starting, or its
    /// watcher is about to attach it again.
    Awaited,
    /// A container has it, and it is neither attached nor listed: the server or the network is
    /// down.
    Away,
    /// Not free: no device for it is listed.
    Absent,
}

/// An entry with the id of its unit.
type Entry<'d> = (String, &'d RemoteDevice);

/// The state of each entry of all definitions, by the id of its unit.
///
/// Entries for equal devices get one device each. If there are too few devices, earlier entries
/// have priority, but as many entries as possible get a device.
pub(super) fn states(definitions: &[Definition], snapshot: &Snapshot) -> States {
    let mut all: Vec<Entry<'_>> = Vec::new();
    for (name, entries) in remote(definitions) {
        let devices = entries.iter().map(|entry| &entry.device);
        all.extend(unit_ids(name, entries).into_iter().zip(devices));
    }
    let is_known = |id: &String| snapshot.in_use.contains_key(id);
    let (taken, mut free): (Vec<_>, Vec<_>) = all.into_iter().partition(|(id, _)| is_known(id));
    let [attached, away, released] = find_attached(taken, snapshot);
    free.extend(released);
    let mut states = BTreeMap::new();
    states.extend(attached.into_iter().map(|(id, _)| (id, State::Attached)));
    states.extend(away.iter().map(|(id, _)| (id.clone(), State::Away)));
    states.extend(free.iter().map(|(id, _)| (id.clone(), State::Absent)));
    for (server, exported) in &snapshot.exports {
        let all = away.iter().map(|entry| (entry, State::Awaited));
        let all = all.chain(free.iter().map(|entry| (entry, State::Listed)));
        let of_server: Vec<_> = all.filter(|((_, device), _)| device.server == *server).collect();
        let devices: Vec<&RemoteDevice> = of_server.iter().map(|((_, device), _)| *device).collect();
        let listed = matched(&devices, exported.len(), |device, index| {
            is_export(device, &exported[index])
        });
        for (((id, _), state), is_listed) in of_server.into_iter().zip(listed) {
            if is_listed {
                states.insert(id.clone(), state);
            }
        }
    }
    states
}

/// The entries that containers may have, in three parts: those with an attached device, those whose
/// device is away, and those whose container has ended.
fn find_attached<'d>(mut taken: Vec<Entry<'d>>, snapshot: &Snapshot) -> [Vec<Entry<'d>>; 3] {
    let is_certain = |id: &String| snapshot.in_use.get(id) == Some(&true);
    // Assign an attached device preferably to a container that certainly runs, not to one that may
    // have ended.
    taken.sort_by_key(|(id, _)| !is_certain(id));
    let here = &snapshot.attached;
    let devices: Vec<&RemoteDevice> = taken.iter().map(|(_, device)| *device).collect();
    let has_device = matched(&devices, here.len(), |device, index| {
        is_match(device, &here[index])
    });
    let [mut attached, mut away, mut released] = [(); 3].map(|()| Vec::new());
    for (entry, has_device) in taken.into_iter().zip(has_device) {
        let part = match (has_device, is_certain(&entry.0)) {
            (true, _) => &mut attached,
            (false, true) => &mut away,
            (false, false) => &mut released,
        };
        part.push(entry);
    }
    [attached, away, released]
}

fn is_export(device: &RemoteDevice, (busid, ids): &(BusId, UsbIds)) -> bool {
    let selector = &device.device;
    selector.busid().is_none_or(|wanted| wanted == busid)
        && selector
            .identity()
            .is_none_or(|(wanted, _)| ids.match_pattern(wanted))
}

/// Assigns to as many of `wants` as possible one of `count` things each (augmenting paths). Returns
/// for each want whether it got one.
fn matched<W>(wants: &[W], count: usize, suits: impl Fn(&W, usize) -> bool) -> Vec<bool> {
    fn find<W>(
        want: usize,
        wants: &[W],
        suits: &impl Fn(&W, usize) -> bool,
        owners: &mut [Option<usize>],
        tried: &mut [bool],
    ) -> bool {
        for thing in 0..owners.len() {
            if tried[thing] || !suits(&wants[want], thing) {
                continue;
            }
            tried[thing] = true;
            let is_free = owners[thing].is_none_or(|owner| find(owner, wants, suits, owners, tried));
            if is_free {
                owners[thing] = Some(want);
                return true;
            }
        }
        false
    }
    let mut owners = vec![None; count];
    (0..wants.len())
        .map(|want| find(want, wants, &suits, &mut owners, &mut vec![false; count]))
        .collect()
}

/// Whether an attached device matches. Its bus id at the server is unknown here.
fn is_match(wanted: &RemoteDevice, device: &Device) -> bool {
    let Some((ids, _)) = wanted.device.identity() else {
        return true;
    };
    let id = |name| u16::from_str_radix(device.attribute(name).unwrap_or_default(), 16);
    let (Ok(vendor), Ok(product)) = (id("idVendor"), id("idProduct")) else {
        return false;
    };
    UsbIds { vendor, product }.match_pattern(ids) && wanted.device.matches_serial(device.attribute("serial"))
}

/// The ids of the units of a resource, in the order of its entries.
fn unit_ids(name: &ResourceName, entries: &[RemoteEntry]) -> Vec<String> {
    let mut seen: BTreeMap<&RemoteDevice, u32> = BTreeMap::new();
    let mut ids = Vec::new();
    for RemoteEntry { device, .. } in entries {
        let count = seen.entry(device).or_default();
        ids.push(unit_id(name, &format!("usbip:{device}"), *count));
        *count += 1;
    }
    ids
}

/// The units in use in `snapshot` whose container has ended. Never contains a unit that is no
/// longer configured.
pub(crate) fn released(definitions: &[Definition], snapshot: &Snapshot) -> BTreeSet<String> {
    let states = states(definitions, snapshot);
    let has = |state: &State| matches!(state, State::Attached | State::Awaited | State::Away);
    let is_released = |id: &&String| states.get(*id).is_some_and(|state| !has(state));
    snapshot.in_use.keys().filter(is_released).cloned().collect()
}

/// The resource of a definition, with the units that are free or in use.
pub(super) fn resource(
    name: &ResourceName,
    entries: &[RemoteEntry],
    states: &States,
    snapshot: &Snapshot,
) -> Resource {
    let (mut units, mut cdi_devices) = (BTreeMap::new(), Vec::new());
    for (entry, id) in entries.iter().zip(unit_ids(name, entries)) {
        let cdi_device = cdi_device(name, entry, &id);
        let state = states.get(&id).copied().unwrap_or(State::Absent);
        if state != State::Absent {
            let unit = Unit {
                healthy: true,
                attached: match state {
                    State::Attached | State::Awaited => Some(true),
                    State::Away => Some(false),
                    State::Listed | State::Absent => None,
                },
                numa: None,
                place: entry.device.to_string(),
                offer: Arc::new(Offer {
                    cdi: Some(cdi_device.name.clone()),
                    extra_nodes: extra_nodes(entry, snapshot),
                    ..Offer::default()
                }),
            };
            units.insert(id, unit);
        }
        cdi_devices.push(cdi_device);
    }
    Resource {
        name: name.clone(),
        units,
        cdi_devices,
        hotplug: true,
        format: Format::Usbip,
    }
}

/// The CDI device of an entry. It depends on the configuration alone and must never change: a
/// container that restarts uses its name again.
fn cdi_device(name: &ResourceName, entry: &RemoteEntry, id: &str) -> NewDevice {
    NewDevice {
        name: format!("{}-{}", cdi_stem(name.as_str()), fingerprint(id)),
        devices: entry.requests.iter().map(ToString::to_string).collect(),
        symlinks: Vec::new(),
    }
}

/// The extras that exist independently of the device, such as /dev/net/tun: not the nodes of USB
/// devices.
fn extra_nodes(entry: &RemoteEntry, snapshot: &Snapshot) -> Vec<NodeSpec> {
    let comes_and_goes = |path: &PathBuf| {
        let mut devices = snapshot.inventory.iter();
        devices.any(|device: &Device| {
            let is_node = device.node.as_ref().is_some_and(|node| node.path == *path);
            (is_node || device.links.contains(path)) && device.syspath.as_str().contains("/usb")
        })
    };
    let exists = |path: &PathBuf| {
        matches!(
            snapshot.paths.get(path),
            Some(PathKind::Device | PathKind::Directory)
        )
    };
    let extras = entry.extras.iter();
    let fixed = extras.filter(|extra| exists(&extra.host) && !comes_and_goes(&extra.host));
    fixed
        .map(|extra| NodeSpec {
            host: extra.host.clone(),
            container: extra.container.clone(),
            access: extra.access,
        })
        .collect()
}

#[cfg(test)]
mod tests;
