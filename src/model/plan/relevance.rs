//! Whether a uevent can concern a container, judged by its message alone.
//!
//! Of all other events only the device's path is stored, and the device is read before the next
//! plan. So a message that is judged wrongly as irrelevant delays a device, and loses nothing.

use std::collections::BTreeSet;
use std::path::Path;

use crate::model::device::inventory::Inventory;
use crate::model::device::{DevNum, Device, SysPath};
use crate::model::plan::Planner;
use crate::model::request::entry::RequestEntry;
use crate::model::request::selector::{DeviceSelector, Match};
use crate::model::uevent::facts::{JudgeUevents, UeventFacts};

/// The DEVTYPE of a USB device.
const USB_DEVICE: &str = "usb_device";

/// What decides which uevents concern a container now.
pub(crate) struct Relevance<'a> {
    planner: &'a Planner,
    inventory: &'a Inventory,
    /// An event of these devices, or of one above or below them, is relevant.
    near: Vec<&'a SysPath>,
    /// The numbers of static nodes: facts of the device with the same number count for them.
    numbers: Vec<DevNum>,
    /// Whether a USB device is near: the other half of a USB 3 hub may appear, and what is plugged
    /// into it.
    is_usb_near: bool,
    /// Devices of relevant messages, without `/sys`: what is below them may be below a root that is
    /// not known yet.
    recent: BTreeSet<String>,
}

impl<'a> Relevance<'a> {
    /// `awaited` are further devices whose events are relevant, such as attached ones and those
    /// that udevd must process.
    pub(crate) fn new(
        planner: &'a Planner,
        inventory: &'a Inventory,
        awaited: impl IntoIterator<Item = &'a SysPath>,
    ) -> Self {
        let mut near: Vec<&SysPath> = awaited.into_iter().collect();
        near.extend(planner.entries().iter().flat_map(RequestEntry::places));
        near.extend(planner.bound().iter().map(|(_, bound)| &bound.syspath));
        near.extend(planner.reserved().iter().map(|reserved| &reserved.syspath));
        let selectors = planner
            .entries()
            .iter()
            .flat_map(|entry| entry.request.selectors());
        for selector in selectors.filter(|selector| depends_on_others(selector)) {
            let devices = inventory.iter().filter(|device| may_be_named(selector, device));
            near.extend(devices.map(|device| &device.syspath));
        }
        near.sort_unstable();
        near.dedup();
        let mut known = near.iter().filter_map(|device| inventory.get(device));
        let is_usb_near = known.any(|device| device.devtype.as_deref() == Some(USB_DEVICE));
        let nodes = inventory.static_nodes().filter_map(|device| device.node.as_ref());
        Self {
            planner,
            inventory,
            near,
            is_usb_near,
            numbers: nodes.map(|node| node.num).collect(),
            recent: BTreeSet::new(),
        }
    }

    fn may_be_selected(&self, facts: &UeventFacts<'_>) -> bool {
        let mut selectors = self
            .planner
            .entries()
            .iter()
            .flat_map(|entry| entry.request.selectors());
        selectors.any(|selector| selector.may_match(facts))
    }

    fn is_below_recent(&self, devpath: &str) -> bool {
        let mut above = std::iter::successors(Some(devpath), |path| Some(path.rsplit_once('/')?.0));
        !self.recent.is_empty() && above.any(|path| self.recent.contains(path))
    }

    fn has_number_of_static_node(&self, facts: &UeventFacts<'_>) -> bool {
        let (major, minor) = facts.number;
        let is_its = |num: &DevNum| major.parse() == Ok(num.major) && minor.parse() == Ok(num.minor);
        self.numbers.iter().any(is_its)
    }
}

impl JudgeUevents for Relevance<'_> {
    /// Whether the event can change what the container gets. A move changes which devices the
    /// paths of later events mean.
    fn concerns(&mut self, facts: &UeventFacts<'_>) -> bool {
        let is_relevant = facts.action == "move"
            || self.near.iter().any(|device| is_in_line(facts.devpath, device))
            || (self.is_usb_near && facts.devtype == USB_DEVICE)
            || self.is_below_recent(facts.devpath)
            || self.has_number_of_static_node(facts)
            || self.may_be_selected(facts);
        if is_relevant {
            self.recent.insert(facts.devpath.to_owned());
        }
        is_relevant
    }

    /// Whether udevd has moved a link that a known device claims: the message names it, or some
    /// device waits for a link that another one has (udevd then only stops naming it).
    fn may_move_links(&self, facts: &UeventFacts<'_>) -> bool {
        if self.inventory.lost_links().next().is_some() {
            return true;
        }
        if facts.links.is_empty() {
            return false;
        }
        let followed = self.planner.followed_links(self.inventory);
        let mut links = facts.links.split_whitespace().map(Path::new);
        links.any(|link| followed.iter().any(|known| known.as_path() == link))
    }
}

/// Whether events of other devices can make a device a root by this selector, although they do not
/// match it: a negated term that stops matching, or a parent that appears.
fn depends_on_others(selector: &DeviceSelector) -> bool {
    selector.parents() > 0 || selector.terms().iter().any(|term| term.negated)
}

fn may_be_named(selector: &DeviceSelector, device: &Device) -> bool {
    selector.names_itself(device) != Match::No
}

/// Whether a path without `/sys` is that of a device, or of one above or below it.
fn is_in_line(devpath: &str, device: &SysPath) -> bool {
    let device = device.as_str().strip_prefix("/sys").unwrap_or(device.as_str());
    let (longer, shorter) = if devpath.len() < device.len() {
        (device, devpath)
    } else {
        (devpath, device)
    };
    let rest = longer.strip_prefix(shorter);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests;
