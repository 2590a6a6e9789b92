//! Explanations why a selector selects nothing.
//!
//! Must not know the options of requests.

use crate::model::device::Device;
use crate::model::device::inventory::Inventory;
use crate::model::quoting::shown;
use crate::model::request::selector::{Chain, DeviceSelector, Match, Selector, Term};

/// How many characters of a serial number are shown.
const SHOWN_SERIAL: usize = 64;

/// How many devices are listed with their serial numbers.
const SHOWN_DEVICES: usize = 8;

impl DeviceSelector {
    /// Why the terms do not match a device with these parents; `None` if they do. One line.
    pub fn why_not(&self, chain: &Chain<'_>) -> Option<String> {
        let failing: Vec<String> = self
            .terms()
            .iter()
            .filter_map(|term| term.why_not(chain))
            .collect();
        (!failing.is_empty()).then(|| failing.join("; "))
    }

    /// Why the selector has no root now; `None` if it has one, or if there is nothing to add. One
    /// line.
    pub fn why_nothing(&self, inventory: &Inventory) -> Option<String> {
        let positive = || self.terms().iter().filter(|term| !term.negated);
        let is_had = |term: &&Term| {
            inventory
                .iter()
                .any(|device| term.selector.found(device) != Match::No)
        };
        let absent: Vec<String> = positive()
            .filter(|term| !is_had(term))
            .map(|term| format!("{term}{}", near_miss(&term.selector, inventory)))
            .collect();
        if !absent.is_empty() {
            let is_said = self.terms().len() == 1 && absent[0] == self.terms()[0].to_string();
            return (!is_said).then(|| format!("no device matches {}", absent.join(" or ")));
        }
        // Of all devices that match one of the terms, the one with the fewest failing terms.
        let failing = |device: &&Device| {
            let chain = inventory.chain(device);
            let failing = self
                .terms()
                .iter()
                .filter(|term| term.found(&chain) != Match::Yes);
            failing.count()
        };
        let device = inventory
            .iter()
            .filter(|device| self.names_itself(device) != Match::No)
            .min_by_key(failing)?;
        Some(match self.why_not(&inventory.chain(device)) {
            Some(reason) => format!("the nearest is {}: {reason}", device.syspath),
            None => format!(
                "{} matches, but has no parent {} above it",
                device.syspath,
                match self.parents() {
                    1 => "device".to_owned(),
                    levels => format!("{levels} levels"),
                }
            ),
        })
    }
}

impl Term {
    fn why_not(&self, chain: &Chain<'_>) -> Option<String> {
        match (self.found(chain), self.negated) {
            (Match::Yes, _) => None,
            (Match::Unknown(whose), _) => Some(format!(
                "{self} is not decided: udevd has not processed {whose} yet"
            )),
            (Match::No, false) => Some(format!("{self} does not match the device or any of its parents")),
            (Match::No, true) => {
                let selector = &self.selector;
                let is_it = |device: &&&Device| selector.found(device) == Match::Yes;
                let parent = chain.parents().iter().find(is_it);
                Some(
                    match chain
                        .own()
                        .iter()
                        .find(is_it)
                        .is_none()
                        .then_some(parent)
                        .flatten()
                    {
                        Some(parent) => format!("{self}: {selector} matches its parent {}", parent.syspath),
                        None => format!("{self}: {selector} matches the device"),
                    },
                )
            }
        }
    }
}

/// The USB devices with the same ids and other serial numbers; empty if there are none.
fn near_miss(selector: &Selector, inventory: &Inventory) -> String {
    let Selector::Usb {
        vendor,
        product,
        serial: Some(_),
    } = selector
    else {
        return String::new();
    };
    let without_serial = Selector::Usb {
        vendor: vendor.clone(),
        product: product.clone(),
        serial: None,
    };
    let there: Vec<String> = inventory
        .iter()
        .filter(|device| without_serial.matches(device))
        .map(|device| match device.attribute("serial") {
            Some(serial) => format!(
                "{} has \"{}\"",
                device.syspath.name(),
                shown(serial, SHOWN_SERIAL)
            ),
            None => format!("{} has none", device.syspath.name()),
        })
        .take(SHOWN_DEVICES)
        .collect();
    if there.is_empty() {
        return String::new();
    }
    format!(" (another serial number: {})", there.join(", "))
}
