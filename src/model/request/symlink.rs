//! Links that follow a USB interface: `usb:0403:6001:00=/dev/gps`.
//!
//! Must not know what a link is made of, nor how a device's ancestors are found.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::device::Device;
use crate::model::plan::named_node::PINS;
use crate::model::quoting::{
    escape, list_elements, plain_list_elements, shown, split_unescaped, trim_unescaped, unescape,
};
use crate::model::request::MAX_TEXT;
use crate::model::request::selector::path::{link_path, normalised};
use crate::model::request::selector::{PathFault, SelectorError, parse_usb_id};

/// The most rules a list may have.
pub const MAX_RULES: usize = 256;

/// How many characters of a rule are echoed.
const SHOWN_RULE: usize = 80;

/// A link to the node of every device of one interface of a USB device.
///
/// `FromStr` and `Display` are each other's inverse, and it is stored as that text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SymlinkRule {
    /// Vendor id, 4 lower-case hex digits.
    pub vendor: String,
    /// Product id, 4 lower-case hex digits.
    pub product: String,
    /// Number of the interface, 2 lower-case hex digits, as bInterfaceNumber has it.
    pub interface: String,
    /// Where the link goes in the container.
    pub path: PathBuf,
}

impl SymlinkRule {
    /// Whether the device has a node and is on this interface. Of several such nodes of one device,
    /// `named_node` chooses. GPIO pins are left out: they exist before the adapter's tty, and the
    /// rule is for the tty.
    ///
    /// Ids and number are udev's properties ID_VENDOR_ID, ID_MODEL_ID and ID_USB_INTERFACE_NUM.
    /// udev has none of them for hidraw, usblp and others; each missing one is read from sysfs:
    /// from the nearest interface and the nearest USB device among `ancestors`, which come nearest
    /// first.
    pub fn matches<'a>(&self, device: &Device, ancestors: impl IntoIterator<Item = &'a Device>) -> bool {
        if device.node.is_none() || device.subsystem.as_deref() == Some(PINS) {
            return false;
        }
        let property = |key: &str| device.properties.get(key).map(String::as_str);
        let [vendor, product, interface] = from_sysfs(ancestors);
        self.is([
            property("ID_VENDOR_ID").or(vendor),
            property("ID_MODEL_ID").or(product),
            property("ID_USB_INTERFACE_NUM").or(interface),
        ])
    }

    fn is(&self, [vendor, product, interface]: [Option<&str>; 3]) -> bool {
        let same =
            |found: Option<&str>, wanted: &str| found.is_some_and(|found| found.eq_ignore_ascii_case(wanted));
        same(vendor, &self.vendor) && same(product, &self.product) && same(interface, &self.interface)
    }
}

/// Vendor, product and interface number, as the nearest USB ancestors have them.
fn from_sysfs<'a>(ancestors: impl IntoIterator<Item = &'a Device>) -> [Option<&'a str>; 3] {
    let mut interface = None;
    for ancestor in ancestors {
        match ancestor.devtype.as_deref() {
            // There is one at most below a USB device.
            Some("usb_interface") => interface = ancestor.attribute("bInterfaceNumber"),
            Some("usb_device") => {
                return [
                    ancestor.attribute("idVendor"),
                    ancestor.attribute("idProduct"),
                    interface,
                ];
            }
            _ => {}
        }
    }
    [None; 3]
}

/// A text that is no list of symlink rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SymlinkError {
    /// No rule at all.
    #[error("symlink rules: no rule: write one, such as usb:0403:6001:00=/dev/gps, or remove the value")]
    Empty,
    /// A comma too many.
    #[error("symlink rule {position} of {count} is empty: remove the extra \",\"")]
    EmptyElement {
        /// Counted from 1.
        position: usize,
        /// How many there are, with the empty ones.
        count: usize,
    },
    /// More than [`MAX_TEXT`].
    #[error("symlink rules: {length} bytes are too many: at most {MAX_TEXT} are read")]
    TooLong {
        /// In bytes.
        length: usize,
    },
    /// More than [`MAX_RULES`].
    #[error("symlink rules: {count} are too many: at most {MAX_RULES} are read")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// One of them is at fault.
    #[error("symlink rule \"{text}\": {fault}")]
    Malformed {
        /// The rule, shortened and made visible.
        text: String,
        /// What is wrong with it, and the hint.
        fault: SymlinkFault,
    },
}

/// What is wrong with one symlink rule, and the hint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SymlinkFault {
    /// Several where one is expected.
    #[error("one rule is expected, but there are {count}: write \"\\,\" where a comma is part of the path")]
    List {
        /// How many there are.
        count: usize,
    },
    /// No `=`, or more than one.
    #[error("there must be one \"=\" between the interface and the path, as in usb:0403:6001:00=/dev/gps")]
    Equals,
    /// Not `usb:VID:PID:IFNUM`.
    #[error("what comes before the \"=\" must be usb:VENDOR:PRODUCT:INTERFACE, such as usb:0403:6001:00")]
    Form,
    /// Not an id.
    #[error(transparent)]
    UsbId(SelectorError),
    /// Not an interface number.
    #[error("interface number must be 1 or 2 hex digits, as bInterfaceNumber has it, such as 00")]
    Interface,
    /// Not an interface number of container-hotplug.
    #[error("interface number must be 1 or 2 digits, such as 00")]
    LowriscInterface,
    /// Not a place for a link.
    #[error("path {0}")]
    Path(PathFault),
    /// `\` at the end.
    #[error("nothing follows the last \"\\\": write \"\\\\\" for a backslash")]
    Dangling,
}

/// Reads `rule *( ( "," / line break ) rule )` of `io.oci-hotplug.symlinks`; white space around
/// each and blank lines are ignored, `\` escapes.
///
/// # Errors
/// [`SymlinkError`]: the list is empty or too long, or the first rule that is at fault and why.
pub fn parse_symlinks(text: &str) -> Result<Vec<SymlinkRule>, SymlinkError> {
    check_length(text)?;
    if trim_unescaped(text).is_empty() {
        return Err(SymlinkError::Empty);
    }
    parse_each(&list_elements(text), parse_rule)
}

/// Reads the value of `org.lowrisc.hotplug.symlinks`: cut at each `,` and line break, nothing
/// trimmed, nothing escaped.
///
/// # Errors
/// As of [`parse_symlinks`].
pub fn parse_lowrisc_symlinks(text: &str) -> Result<Vec<SymlinkRule>, SymlinkError> {
    check_length(text)?;
    if text.is_empty() {
        return Err(SymlinkError::Empty);
    }
    parse_each(&plain_list_elements(text), parse_lowrisc_rule)
}

impl FromStr for SymlinkRule {
    type Err = SymlinkError;

    /// Reads one rule; white space around it is ignored.
    fn from_str(text: &str) -> Result<Self, SymlinkError> {
        check_length(text)?;
        let text = trim_unescaped(text);
        if text.is_empty() {
            return Err(SymlinkError::Empty);
        }
        let count = list_elements(text).len();
        if count > 1 {
            return Err(malformed(text, SymlinkFault::List { count }));
        }
        parse_rule(text).map_err(|fault| malformed(text, fault))
    }
}

fn check_length(text: &str) -> Result<(), SymlinkError> {
    if text.len() > MAX_TEXT {
        return Err(SymlinkError::TooLong { length: text.len() });
    }
    Ok(())
}

fn parse_each(
    texts: &[&str],
    parse: fn(&str) -> Result<SymlinkRule, SymlinkFault>,
) -> Result<Vec<SymlinkRule>, SymlinkError> {
    let count = texts.len();
    if count > MAX_RULES {
        return Err(SymlinkError::TooMany { count });
    }
    let numbered = texts.iter().zip(1..);
    numbered
        .map(|(text, position)| {
            if text.is_empty() {
                return Err(SymlinkError::EmptyElement { position, count });
            }
            parse(text).map_err(|fault| malformed(text, fault))
        })
        .collect()
}

fn malformed(text: &str, fault: SymlinkFault) -> SymlinkError {
    SymlinkError::Malformed {
        text: shown(text, SHOWN_RULE),
        fault,
    }
}

fn parse_rule(text: &str) -> Result<SymlinkRule, SymlinkFault> {
    let [device, path] = split_unescaped(text, '=')[..] else {
        return Err(SymlinkFault::Equals);
    };
    let device = unescape(trim_unescaped(device)).ok_or(SymlinkFault::Dangling)?;
    let path = unescape(trim_unescaped(path)).ok_or(SymlinkFault::Dangling)?;
    let path = link_path(&path).map_err(SymlinkFault::Path)?;
    rule(
        &device,
        path,
        |digit| digit.is_ascii_hexdigit(),
        SymlinkFault::Interface,
    )
}

fn parse_lowrisc_rule(text: &str) -> Result<SymlinkRule, SymlinkFault> {
    let [device, path] = text.split('=').collect::<Vec<_>>()[..] else {
        return Err(SymlinkFault::Equals);
    };
    // Dots are allowed there; here a path is written in one way only.
    let is_absolute = path.starts_with('/') && !path.ends_with('/');
    let path = if is_absolute {
        normalised(path)
    } else {
        path.to_owned()
    };
    let path = link_path(&path).map_err(SymlinkFault::Path)?;
    rule(
        device,
        path,
        |digit| digit.is_ascii_digit(),
        SymlinkFault::LowriscInterface,
    )
}

fn rule(
    device: &str,
    path: PathBuf,
    is_digit: fn(&u8) -> bool,
    not_a_number: SymlinkFault,
) -> Result<SymlinkRule, SymlinkFault> {
    let ["usb", vendor, product, interface] = device.split(':').collect::<Vec<_>>()[..] else {
        return Err(SymlinkFault::Form);
    };
    let vendor = parse_usb_id(vendor, "vendor", "0403").map_err(SymlinkFault::UsbId)?;
    let product = parse_usb_id(product, "product", "6001").map_err(SymlinkFault::UsbId)?;
    if !(1..=2).contains(&interface.len()) || !interface.as_bytes().iter().all(is_digit) {
        return Err(not_a_number);
    }
    Ok(SymlinkRule {
        vendor,
        product,
        interface: format!("{interface:0>2}").to_ascii_lowercase(),
        path,
    })
}

impl fmt::Display for SymlinkRule {
    /// The rule in its grammar, escaped, so that it parses to itself.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            vendor,
            product,
            interface,
            path,
        } = self;
        let path = escape(&path.display().to_string(), &[',', '=']);
        write!(f, "usb:{vendor}:{product}:{interface}={path}")
    }
}

impl Serialize for SymlinkRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SymlinkRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
