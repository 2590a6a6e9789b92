//! The names of a device's nodes in a directory of the container: `path=` that ends in `/`.
//!
//! The kernel numbers nodes over the whole host, by the lowest free number: an adapter that was
//! `ttyUSB0` may return as `ttyUSB2`, and a sound card's `pcmC1D0p` as `pcmC2D0p`. In the directory
//! this number counts only the nodes of the same physical device, in the order of their places in
//! it. Numbers that the device itself has (a sound card's PCM, a partition, a namespace) stay.
//! requests(7) documents it.
//!
//! A name therefore depends on the device's own nodes alone: not on the request, the policy, or
//! other devices. An attached node keeps its name, also when a node before it goes or comes.
//!
//! Must not know which nodes a container gets (`plan::desired`).

mod host_name;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use self::host_name::HostName;
use crate::model::device::inventory::Inventory;
use crate::model::device::{Device, SysPath};
use crate::model::plan::attachment::Attachments;
use crate::model::plan::named_node::{is_in_directory, unit_of};
use crate::model::request::{NodePath, Request};

/// The paths of nodes in a container, for the requests of one plan.
pub(crate) struct NodePaths<'a> {
    inventory: &'a Inventory,
    attachments: &'a Attachments,
    /// The names in each directory, by the physical device.
    directories: BTreeMap<(PathBuf, SysPath), Names<'a>>,
}

/// The names of the nodes of one physical device.
type Names<'a> = BTreeMap<&'a SysPath, String>;

impl<'a> NodePaths<'a> {
    /// For a container with these attachments, whose names stay.
    pub(crate) fn new(inventory: &'a Inventory, attachments: &'a Attachments) -> Self {
        Self {
            inventory,
            attachments,
            directories: BTreeMap::new(),
        }
    }

    /// The path that the node of a device gets if the request names it. Of a device without a node,
    /// its path in sysfs.
    pub(crate) fn path_of(&mut self, request: &Request, device: &Device) -> PathBuf {
        let host = device.node.as_ref().map(|node| node.path.clone());
        let host = host.unwrap_or_else(|| device.syspath.as_path().to_owned());
        match &request.options.path {
            Some(NodePath::Node(path)) => path.clone(),
            Some(NodePath::Directory(directory)) if is_in_directory(request, device) => {
                let name = self.name_in(directory, device);
                name.map_or(host, |name| directory.join(name))
            }
            Some(NodePath::Directory(_)) | None => host,
        }
    }

    fn name_in(&mut self, directory: &Path, device: &Device) -> Option<&str> {
        let (inventory, attachments) = (self.inventory, self.attachments);
        let unit = unit_of(device, inventory);
        let key = (directory.to_owned(), unit);
        let names = self.directories.entry(key).or_insert_with_key(|(_, unit)| {
            let in_directory = attachments.iter().filter_map(|(path, attachment)| {
                let name = path.strip_prefix(directory).ok()?.to_str()?;
                Some((&attachment.device.syspath, name))
            });
            names_of(&nodes_of(unit, inventory), &in_directory.collect())
        });
        names.get(&device.syspath).map(String::as_str)
    }
}

/// The devices with nodes that are part of a physical device, in the order of their places in it.
fn nodes_of<'a>(unit: &SysPath, inventory: &'a Inventory) -> Vec<&'a Device> {
    let below = inventory.at_or_below(unit);
    let mut nodes: Vec<&Device> = below
        .filter(|device| device.node.is_some() && unit_of(device, inventory) == *unit)
        .collect();
    let place = |device: &'a Device| in_natural_order(&device.syspath.as_str()[unit.as_str().len()..]);
    nodes.sort_by_cached_key(|device| place(device));
    nodes
}

/// Runs of digits compare as numbers: interface `1-1:1.9` is before `1-1:1.10`. Of other runs, the
/// shorter one is first: `sdb` is before `sdaa`.
fn in_natural_order(path: &str) -> Vec<(u64, usize, &str)> {
    let mut parts = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        let is_digit = |letter: char| letter.is_ascii_digit();
        let (text, from_number) = rest.split_at(rest.find(is_digit).unwrap_or(rest.len()));
        let end = from_number.find(|letter| !is_digit(letter));
        let (number, after) = from_number.split_at(end.unwrap_or(from_number.len()));
        parts.push((0, text.len(), text));
        if !number.is_empty() {
            parts.push((number.parse().unwrap_or(u64::MAX), 0, number));
        }
        rest = after;
    }
    parts
}

/// The names of these nodes. `attached` has the names that stay.
fn names_of<'a>(nodes: &[&'a Device], attached: &BTreeMap<&SysPath, &str>) -> Names<'a> {
    let hosts: Vec<(&'a SysPath, HostName<'a>)> = nodes
        .iter()
        .filter_map(|device| Some((&device.syspath, HostName::of(device)?)))
        .collect();
    let mut numbers = OwnNumbers::default();
    for (syspath, host) in &hosts {
        let name = attached.get(syspath);
        if let Some(number) = name.and_then(|name| host.number_in(name)) {
            numbers.keep(host, number);
        }
    }
    let names = hosts.iter();
    names
        .map(|(syspath, host)| (*syspath, host.with_number(numbers.of(host))))
        .collect()
}

/// A number that counts over the whole host; nodes in another directory are counted separately.
type HostNumber<'a> = (&'a Path, Option<u64>);

/// For each series of names, the device's own numbers.
#[derive(Default)]
struct OwnNumbers<'a> {
    numbers: BTreeMap<(&'a str, HostNumber<'a>), u64>,
    taken: BTreeSet<(&'a str, u64)>,
}

impl<'a> OwnNumbers<'a> {
    fn keep(&mut self, host: &HostName<'a>, number: u64) {
        let key = (host.series, (host.directory, host.number));
        if !self.numbers.contains_key(&key) && self.taken.insert((host.series, number)) {
            self.numbers.insert(key, number);
        }
    }

    /// The number that is known, or else the lowest free one.
    fn of(&mut self, host: &HostName<'a>) -> u64 {
        let key = (host.series, (host.directory, host.number));
        if let Some(number) = self.numbers.get(&key) {
            return *number;
        }
        let mut number = 0;
        while !self.taken.insert((host.series, number)) {
            number += 1;
        }
        self.numbers.insert(key, number);
        number
    }
}

#[cfg(test)]
mod tests;
