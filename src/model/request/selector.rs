//! Which devices a container requests: `usb:0403:6001&!driver:ftdi_sio`,
//! `parent-of:devnode:/dev/ttyUSB0`.
//!
//! Must not know what happens with a selected device (`request`) or how its facts are read
//! (`host`).

mod error;
mod evaluation;
mod glob;
mod grammar;
mod matching;
mod memo;
pub(super) mod path;
mod path_regex;
mod pattern;
mod relevance;

use std::fmt;
use std::path::PathBuf;

pub use error::{MAX_PARENTS, MAX_TERMS, SelectorError};
pub(super) use error::{did_you_mean, did_you_mean_owned};
pub use evaluation::{Chain, Match};
pub use glob::Glob;
pub(super) use grammar::{lowrisc_selector, parse_usb_id};
pub use path::PathFault;
pub use path_regex::PathRegex;

use crate::model::quoting::escape;
use crate::model::remote::address::{RemoteDevice, Server, ServerDevice};

/// The kinds of selectors, for tests that compare documents with them.
#[cfg(test)]
pub(crate) fn kinds() -> Vec<&'static str> {
    error::KINDS.to_vec()
}

/// The characters that need a `\` in a selector, because they would end it.
const SPECIAL: [char; 3] = [',', ';', '&'];

/// One condition on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// `usb:VID[:PID[:SERIAL]]`: a USB device (not one of its interfaces).
    Usb {
        /// Vendor id, 4 lower-case hex digits.
        vendor: String,
        /// Product id, 4 lower-case hex digits.
        product: Option<String>,
        /// The serial number in the device's descriptor, or as udev spells it; case-sensitive.
        serial: Option<String>,
    },
    /// `devnode:PATH`: the device whose node, or a link to whose node, is at this path on the host.
    DevNode(PathBuf),
    /// `syspath:PATH`: the device at this path in sysfs, or the device that the path leads to after
    /// following links.
    SysPath(PathBuf),
    /// `glob:PATTERN`: the path of the node, or of one of udev's links to it, matches.
    Glob(Glob),
    /// `regex:RE`: the path below `/dev` of the node, or of one of udev's links to it, matches.
    Regex(PathRegex),
    /// `subsystem:NAME`
    Subsystem(String),
    /// `driver:NAME`: the driver bound to the device itself.
    Driver(String),
    /// `tag:NAME`: one of udev's tags.
    Tag(String),
    /// `property:KEY=GLOB`: one of udev's properties.
    Property {
        /// The name, such as `ID_BUS`.
        key: String,
        /// The pattern for the whole value.
        pattern: Glob,
    },
    /// `attr:NAME=GLOB`: a sysfs attribute of the device itself.
    Attr {
        /// The name, such as `power/control`.
        name: String,
        /// The pattern for the whole value.
        pattern: Glob,
    },
    /// `port:BUSPORT`: any USB device that is plugged in at this port, such as `1-1.4`; `usb1` is a
    /// root hub.
    Port(String),
    /// `pci:ADDRESS`: a PCI function, in lower case and with its domain: `0000:02:00.0`.
    Pci(String),
    /// `node:PATH`: a static node, which udev does not know. The monitor makes a device of it.
    Node(PathBuf),
    /// `usbip:HOST[:PORT]/WHICH`: a USB device of another host, which is attached for the container
    /// that requests it. In rules, `usbip:HOST[:PORT]` means all devices of that host. No fact of a
    /// local device shows which remote device it is.
    Usbip {
        server: Server,
        /// The device of that host; `None` means all (in rules only).
        device: Option<ServerDevice>,
    },
}

impl fmt::Display for Selector {
    /// The selector in the grammar of requests, escaped, so that parsing it yields the same
    /// selector.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, value) = match self {
            Self::Usb {
                vendor,
                product,
                serial,
            } => ("usb", usb_value(vendor, product, serial)),
            Self::DevNode(path) => ("devnode", path.display().to_string()),
            Self::SysPath(path) => ("syspath", path.display().to_string()),
            Self::Glob(pattern) => ("glob", pattern.to_string()),
            Self::Regex(expression) => ("regex", expression.to_string()),
            Self::Subsystem(name) => ("subsystem", name.clone()),
            Self::Driver(name) => ("driver", name.clone()),
            Self::Tag(name) => ("tag", name.clone()),
            Self::Property { key, pattern } => ("property", format!("{key}={pattern}")),
            Self::Attr { name, pattern } => ("attr", format!("{name}={pattern}")),
            Self::Port(port) => ("port", port.clone()),
            Self::Pci(address) => ("pci", address.clone()),
            Self::Node(path) => ("node", path.display().to_string()),
            Self::Usbip { server, device: None } => ("usbip", server.to_string()),
            Self::Usbip {
                server,
                device: Some(device),
            } => ("usbip", format!("{server}/{device}")),
        };
        write!(f, "{kind}:{}", escape(&value, &SPECIAL))
    }
}

fn usb_value(vendor: &str, product: &Option<String>, serial: &Option<String>) -> String {
    let ids = [Some(vendor), product.as_deref(), serial.as_deref()];
    ids.into_iter().flatten().collect::<Vec<_>>().join(":")
}

/// A selector, possibly negated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// Whether a `!` stands before it.
    pub negated: bool,
    pub selector: Selector,
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not = if self.negated { "!" } else { "" };
        write!(f, "{not}{}", self.selector)
    }
}

/// The root devices: those that match all terms (see [`DeviceSelector::names`]), or their parents
/// as many levels up as there are `parent-of:`.
///
/// `FromStr` and `Display` are inverse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceSelector {
    parents: usize,
    terms: Vec<Term>,
}

impl DeviceSelector {
    /// The number of leading `parent-of:`: how many levels the root is above the matching device.
    pub fn parents(&self) -> usize {
        self.parents
    }

    /// The remote device that this selects; `None` if it selects local devices.
    pub fn remote(&self) -> Option<RemoteDevice> {
        match &self.terms.first()?.selector {
            Selector::Usbip {
                server,
                device: Some(device),
            } => Some(RemoteDevice {
                server: server.clone(),
                device: device.clone(),
            }),
            _ => None,
        }
    }

    /// The remote host that a rule with this selector names, and the device; without a device, the
    /// rule is for all of the host's.
    pub fn named_remote(&self) -> Option<(&Server, Option<&ServerDevice>)> {
        match &self.terms[..] {
            [
                Term {
                    selector: Selector::Usbip { server, device },
                    ..
                },
            ] => Some((server, device.as_ref())),
            _ => None,
        }
    }

    /// The terms in order; the first is not negated.
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }
}

impl fmt::Display for DeviceSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&"parent-of:".repeat(self.parents))?;
        for (index, term) in self.terms.iter().enumerate() {
            let and = if index == 0 { "" } else { "&" };
            write!(f, "{and}{term}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests;
