//! ServerDevice devices a container means: `usb:0403:6001&!driver:ftdi_sio`,
//! `parent-of:devnode:/dev/ttyUSB0`.
//!
//! Must not know what is done with a device that was selected (`request`), nor how its facts are
//! read (`host`).

mod error;
mod evaluation;
mod grammar;
mod matching;
mod memo;
pub(super) mod path;
mod pattern;

use std::fmt;
use std::path::PathBuf;

pub use error::{MAX_PARENTS, MAX_TERMS, SelectorError};
pub(super) use error::{did_you_mean, did_you_mean_owned};
pub use evaluation::{Chain, Found};
pub(super) use grammar::{lowrisc_selector, parse_usb_id};
pub use path::PathFault;
pub use pattern::{Glob, PathRegex};

use crate::model::quoting::escape;
use crate::model::remote::address::{RemoteDevice, Server, ServerDevice};

/// The kinds of selectors, for tests that hold documents to them.
#[cfg(test)]
pub(crate) fn kinds() -> Vec<&'static str> {
    error::KINDS.to_vec()
}

/// What a `\` must stand before in a selector, so that it does not end there.
const SPECIAL: [char; 3] = [',', ';', '&'];

/// One thing that can be said of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// `usb:VID[:PID[:SERIAL]]`: a USB device (not one of its interfaces).
    Usb {
        /// Vendor id, 4 lower-case hex digits.
        vendor: String,
        /// Product id, 4 lower-case hex digits.
        product: Option<String>,
        /// The serial number in the device's descriptor, or as udev spells it; its case counts.
        serial: Option<String>,
    },
    /// `devnode:PATH`: the device whose node, or a link to whose node, is at this path on the host.
    DevNode(PathBuf),
    /// `syspath:PATH`: the device at this path of sysfs, or that this path leads to once links are
    /// followed.
    SysPath(PathBuf),
    /// `glob:PATTERN`: the path of the node, or of a link of udev's to it, matches.
    Glob(Glob),
    /// `regex:RE`: the path of the node below `/dev`, or of a link of udev's to it, matches.
    Regex(PathRegex),
    /// `subsystem:NAME`.
    Subsystem(String),
    /// `driver:NAME`: the driver bound to the device itself.
    Driver(String),
    /// `tag:NAME`: one of udev's tags.
    Tag(String),
    /// `property:KEY=GLOB`: one of udev's properties.
    Property {
        /// Its name, such as `ID_BUS`.
        key: String,
        /// What its whole value must match.
        pattern: Glob,
    },
    /// `attr:NAME=GLOB`: a sysfs attribute of the device itself.
    Attr {
        /// Its name, such as `power/control`.
        name: String,
        /// What its whole value must match.
        pattern: Glob,
    },
    /// `port:BUSPORT`: whatever USB device is plugged in there, such as `1-1.4`; `usb1` is a root
    /// hub.
    Port(String),
    /// `pci:ADDRESS`: a PCI function, lower-case, with its domain: `0000:02:00.0`.
    Pci(String),
    /// `node:PATH`: a node that udev does not know of. The monitor makes a device of it.
    Node(PathBuf),
    /// `usbip:HOST[:PORT]/WHICH`: a USB device of another host, which is attached for who asks for
    /// it. In rules, `usbip:HOST[:PORT]` stands for all devices of that host. ServerDevice of this
    /// host's devices it is, no fact of that device tells.
    Usbip {
        /// The other host.
        server: Server,
        /// ServerDevice of its devices.
        device: Option<ServerDevice>,
    },
}

impl fmt::Display for Selector {
    /// The selector in the grammar of requests, escaped, so that it parses to itself.
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

/// A selector, or its contrary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// Whether `!` stands before it.
    pub negated: bool,
    /// What is said of the device.
    pub selector: Selector,
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not = if self.negated { "!" } else { "" };
        write!(f, "{not}{}", self.selector)
    }
}

/// ServerDevice devices: those of which all terms are true (see [`DeviceSelector::names`]), and
/// from there so many parents up.
///
/// `FromStr` and `Display` are each other's inverse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceSelector {
    parents: usize,
    terms: Vec<Term>,
}

impl DeviceSelector {
    /// How many `parent-of:` stand in front: how far up from a device that matches the root is.
    pub fn parents(&self) -> usize {
        self.parents
    }

    /// The device of another host that this selects; `None` where it selects this host's.
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

    /// The host of which a rule with this selector speaks, and which of its devices; all if none is
    /// named.
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

    /// The terms in their order; the first is not negated.
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
