//! Every production of the selector grammar, every message, and matching on recorded devices.

mod grammar;
mod matching;
pub(in crate::model) mod properties;
mod unprocessed;

use super::*;
use crate::model::device::inventory::Inventory;
use crate::model::device::{Device, SysPath};
use crate::model::oci::ProcessUser;
use crate::model::plan::Planner;
use crate::model::request::entry::{Origin, RequestEntry};

fn selector(text: &str) -> DeviceSelector {
    text.parse()
        .unwrap_or_else(|error| panic!("{text:?} should be a selector: {error}"))
}

/// The kernel names of the devices that a selector names, in the tree's order.
fn matching<'d>(devices: &'d [Device], text: &str) -> Vec<&'d str> {
    let (selector, inventory) = (selector(text), Inventory::new(devices.to_vec()));
    let found = devices.iter().filter(|device| {
        let known = inventory.get(&device.syspath).unwrap();
        selector.names(known, || inventory.chain(known)) == Match::Yes
    });
    found.map(|device| device.syspath.name()).collect()
}

/// The kernel names of the nodes that a container with this request gets.
fn nodes<'d>(devices: &'d [Device], text: &str) -> Vec<&'d str> {
    let inventory = Inventory::new(devices.to_vec());
    let entry = RequestEntry::new(Origin::Root, text.parse().unwrap());
    let mut planner = Planner::new(vec![entry], Vec::new(), ProcessUser::default());
    planner.find_roots(&inventory);
    let candidates = planner.candidates(&inventory);
    let selected: Vec<&SysPath> = candidates
        .iter()
        .map(|candidate| &candidate.device.syspath)
        .collect();
    let nodes = devices
        .iter()
        .filter(|device| selected.contains(&&device.syspath));
    nodes.map(|device| device.syspath.name()).collect()
}

/// Whether a selector matches a device without parents.
fn alone(device: &Device, text: &str) -> Match {
    selector(text).names(device, || Chain::new(&[device], []))
}
