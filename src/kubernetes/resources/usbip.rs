//! Devices of USB/IP servers as units: which of a configuration's entries can be had now, and which a container has.
//!
//! A server lists what nobody has imported: so an entry whose device is listed can be had on every node, and one that is
//! not listed on none, but where a container has it. That one stays healthy even while its connection is broken: its
//! watcher attaches it again, and kubelet refuses a pod that it admits anew if what the pod has is unhealthy.
//! Pure. Must not know how a server is asked (`servers`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::names::{ResourceName, cdi_stem, fingerprint, unit_id};
use super::resource::{Metrics, Resource};
use super::unit::{NodeSpec, Offer, Unit};
use crate::cdi::generate::Wish;
use crate::kubernetes::config::{Definition, RemoteEntry, remote};
use crate::kubernetes::snapshot::{Found, Snapshot};
use crate::model::device::Device;
use crate::model::remote::{RemoteDevice, UsbIds};

/// How each entry is, by the id of its unit.
pub(super) type States = BTreeMap<String, State>;

/// How an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Its server lists a device for it.
    Listed,
    /// A container has it, and it is attached.
    Attached,
    /// A container has it, and it is not attached, but listed: the container starts, perhaps anew, or its watcher is about
    /// to attach it again.
    Awaited,
    /// A container has it, and it is neither attached nor listed: its server or the way to it is broken.
    Away,
    /// It can't be had.
    Absent,
}

/// The state of each entry of all definitions, by the id of its unit.
///
/// Of several entries for devices that are alike each has one of its own; an earlier entry comes first where there are
/// not enough, and none is left out that could be had if another took another.
pub(super) fn states(definitions: &[Definition], snapshot: &Snapshot) -> States {
    let mut all: Vec<(String, &RemoteDevice)> = Vec::new();
    for (name, entries) in remote(definitions) {
        let devices = entries.iter().map(|entry| &entry.device);
        all.extend(unit_ids(name, entries).into_iter().zip(devices));
    }
    let is_known = |id: &String| snapshot.held.contains_key(id);
    let (mut taken, free): (Vec<_>, Vec<_>) = all.into_iter().partition(|(id, _)| is_known(id));
    // What is attached is rather that of a container that surely runs than that of one that may have ended.
    taken.sort_by_key(|(id, _)| snapshot.held.get(id) != Some(&true));
    let mut states = BTreeMap::new();

    let here = &snapshot.attached;
    let devices: Vec<&RemoteDevice> = taken.iter().map(|(_, device)| *device).collect();
    let attached = matched(&devices, here.len(), |device, index| is_one(device, &here[index]));
    let (mut free, mut away) = (free, Vec::new());
    for ((id, device), is_attached) in taken.into_iter().zip(attached) {
        let is_sure = snapshot.held.get(&id) == Some(&true);
        match (is_attached, is_sure) {
            (true, _) => {
                states.insert(id, State::Attached);
            }
            (false, true) => away.push((id, device)),
            // Whoever had it has ended.
            (false, false) => free.push((id, device)),
        }
    }
    states.extend(away.iter().map(|(id, _)| (id.clone(), State::Away)));
    states.extend(free.iter().map(|(id, _)| (id.clone(), State::Absent)));
    for (server, exported) in &snapshot.exports {
        let all = away.iter().map(|one| (one, State::Awaited, State::Away));
        let all = all.chain(free.iter().map(|one| (one, State::Listed, State::Absent)));
        let of_it: Vec<_> = all.filter(|((_, device), ..)| device.server == *server).collect();
        let devices: Vec<&RemoteDevice> = of_it.iter().map(|((_, device), ..)| *device).collect();
        let listed = matched(&devices, exported.len(), |device, index| {
            let (busid, ids) = &exported[index];
            let is_there = device.which.busid().is_none_or(|wanted| wanted == busid);
            is_there && device.which.identity().is_none_or(|(wanted, _)| ids.are(wanted))
        });
        for (((id, _), with, without), is_listed) in of_it.into_iter().zip(listed) {
            states.insert(id.clone(), if is_listed { with } else { without });
        }
    }
    states
}

/// For each who wants one of `count` things whether he has one to himself, as many as can be (augmenting paths).
fn matched<W>(wants: &[W], count: usize, suits: impl Fn(&W, usize) -> bool) -> Vec<bool> {
    fn find<W>(
        who: usize,
        wants: &[W],
        suits: &impl Fn(&W, usize) -> bool,
        owners: &mut [Option<usize>],
        tried: &mut [bool],
    ) -> bool {
        for thing in 0..owners.len() {
            if tried[thing] || !suits(&wants[who], thing) {
                continue;
            }
            tried[thing] = true;
            let is_free = owners[thing].is_none_or(|owner| find(owner, wants, suits, owners, tried));
            if is_free {
                owners[thing] = Some(who);
                return true;
            }
        }
        false
    }
    let mut owners = vec![None; count];
    (0..wants.len())
        .map(|who| find(who, wants, &suits, &mut owners, &mut vec![false; count]))
        .collect()
}

/// Whether a device of this host may be that one. Its name at its server is not to be seen here.
fn is_one(wanted: &RemoteDevice, device: &Device) -> bool {
    let Some((ids, _)) = wanted.which.identity() else {
        return true;
    };
    let id = |name| u16::from_str_radix(device.attribute(name).unwrap_or_default(), 16);
    let (Ok(vendor), Ok(product)) = (id("idVendor"), id("idProduct")) else {
        return false;
    };
    UsbIds { vendor, product }.are(ids) && wanted.which.is_serial(device.attribute("serial"))
}

/// The ids of the units of a resource, as its entries follow one another.
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

/// The units whose container has ended, of those that `snapshot` knows of as held. Of a unit that is configured no more nothing
/// is known here.
pub fn given_back(definitions: &[Definition], snapshot: &Snapshot) -> BTreeSet<String> {
    let states = states(definitions, snapshot);
    let has = |state: &State| matches!(state, State::Attached | State::Awaited | State::Away);
    let is_back = |id: &&String| states.get(*id).is_some_and(|state| !has(state));
    snapshot.held.keys().filter(is_back).cloned().collect()
}

/// The resource of a definition, with the units that can be had or are.
pub(super) fn resource(
    name: &ResourceName,
    entries: &[RemoteEntry],
    states: &States,
    snapshot: &Snapshot,
) -> Resource {
    let (mut units, mut wishes) = (BTreeMap::new(), Vec::new());
    for (entry, id) in entries.iter().zip(unit_ids(name, entries)) {
        let wish = wish(name, entry, &id);
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
                    cdi: Some(wish.name.clone()),
                    beside: beside(entry, snapshot),
                    ..Offer::default()
                }),
            };
            units.insert(id, unit);
        }
        wishes.push(wish);
    }
    Resource {
        name: name.clone(),
        units,
        wishes,
        hotplug: true,
        metrics: Metrics::Usbip,
    }
}

/// What brings an entry's device. All of it is the configuration's: the same for ever, as a container that starts again
/// asks for it by its name.
fn wish(name: &ResourceName, entry: &RemoteEntry, id: &str) -> Wish {
    Wish {
        name: format!("{}-{}", cdi_stem(name.as_str()), fingerprint(id)),
        devices: entry.requests.iter().map(ToString::to_string).collect(),
        symlinks: Vec::new(),
    }
}

/// Those of the extras that are there whether the device is or not, such as /dev/net/tun: no node of a USB device's.
fn beside(entry: &RemoteEntry, snapshot: &Snapshot) -> Vec<NodeSpec> {
    let comes_and_goes = |path: &PathBuf| {
        let mut devices = snapshot.inventory.iter();
        devices.any(|device: &Device| {
            let is_its = device.node.as_ref().is_some_and(|node| node.path == *path);
            (is_its || device.links.contains(path)) && device.syspath.as_str().contains("/usb")
        })
    };
    let is_there =
        |path: &PathBuf| matches!(snapshot.paths.get(path), Some(Found::Device | Found::Directory));
    let extras = entry.extras.iter();
    let fixed = extras.filter(|extra| is_there(&extra.host) && !comes_and_goes(&extra.host));
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
