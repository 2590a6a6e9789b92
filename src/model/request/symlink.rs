//! Links for a USB interface: `usb:0403:6001:00=/dev/gps`.
//!
//! Must not know how a link is created or how a device's ancestors are found.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::device::Device;
use crate::model::quoting::{
    escape, list_elements, plain_list_elements, shown, split_unescaped, trim_unescaped, unescape,
};
use crate::model::request::MAX_TEXT;
use crate::model::request::selector::path::{link_path, normalised};
use crate::model::request::selector::{PathFault, SelectorError, parse_usb_id};

/// The most rules a list may have.
pub const MAX_RULES: usize = 256;

/// How many characters of a rule a message shows.
const SHOWN_RULE: usize = 80;

/// A link to the node of each device that belongs to one interface of a USB device.
///
/// `FromStr` and `Display` are inverse, and the text is also the stored form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SymlinkRule {
    /// Vendor id, 4 lower-case hex digits.
    pub vendor: String,
    /// Product id, 4 lower-case hex digits.
    pub product: String,
    /// Number of the interface, 2 lower-case hex digits, as in bInterfaceNumber.
    pub interface: String,
    /// The path of the link in the container.
    pub path: PathBuf,
}

impl SymlinkRule {
    /// Whether the device has a node and belongs to this interface. If a device has several such
    /// nodes, `named_node` chooses one of those that a rule can name.
    ///
    /// Ids and number are udev's properties ID_VENDOR_ID, ID_MODEL_ID and ID_USB_INTERFACE_NUM.
    /// udev has none of them for hidraw, usblp and others. Each missing one is read from sysfs:
    /// from the nearest interface and the nearest USB device among `ancestors`, which are sorted
    /// from the nearest to the farthest.
    pub fn matches<'a>(&self, device: &Device, ancestors: impl IntoIterator<Item = &'a Device>) -> bool {
        if device.node.is_none() {
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

/// Vendor, product and interface number of the nearest USB ancestors.
fn from_sysfs<'a>(ancestors: impl IntoIterator<Item = &'a Device>) -> [Option<&'a str>; 3] {
    let mut interface = None;
    for ancestor in ancestors {
        match ancestor.devtype.as_deref() {
            // There is at most one below a USB device.
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

/// A text that is not a list of symlink rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SymlinkError {
    /// There is no rule at all.
    #[error("symlink rules: no rule: write one, such as usb:0403:6001:00=/dev/gps, or remove the value")]
    Empty,
    /// There is an extra comma.
    #[error("symlink rule {position} of {count} is empty: remove the extra \",\"")]
    EmptyElement {
        /// Counted from 1.
        position: usize,
        /// The number of elements, including empty ones.
        count: usize,
    },
    /// The list is longer than [`MAX_TEXT`].
    #[error("symlink rules: {length} bytes are too many: at most {MAX_TEXT} are read")]
    TooLong {
        /// In bytes.
        length: usize,
    },
    /// The list has more than [`MAX_RULES`] rules.
    #[error("symlink rules: {count} are too many: at most {MAX_RULES} are read")]
    TooMany { count: usize },
    /// One rule is invalid.
    #[error("symlink rule \"{text}\": {fault}")]
    Malformed {
        /// The rule, shortened and escaped.
        text: String,
        /// The error with its hint.
        fault: SymlinkFault,
    },
}

/// The error in one symlink rule, with its hint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SymlinkFault {
    /// Several rules where one is expected.
    #[error("one rule is expected, but there are {count}: write \"\\,\" where a comma is part of the path")]
    List { count: usize },
    /// There is no `=`, or more than one.
    #[error("there must be one \"=\" between the interface and the path, as in usb:0403:6001:00=/dev/gps")]
    Equals,
    /// The text before the `=` is not `usb:VID:PID:IFNUM`.
    #[error("what comes before the \"=\" must be usb:VENDOR:PRODUCT:INTERFACE, such as usb:0403:6001:00")]
    Form,
    #[error(transparent)]
    UsbId(SelectorError),
    #[error("interface number must be 1 or 2 hex digits, as bInterfaceNumber has it, such as 00")]
    Interface,
    /// The number is invalid in container-hotplug's grammar.
    #[error("interface number must be 1 or 2 digits, such as 00")]
    LowriscInterface,
    /// The path is invalid for a link.
    #[error("path {0}")]
    Path(PathFault),
    /// `\` at the end.
    #[error("nothing follows the last \"\\\": write \"\\\\\" for a backslash")]
    Dangling,
}

/// Parses `rule *( ( "," / line break ) rule )` of `io.oci-hotplug.symlinks`; white space around
/// rules and blank lines are ignored, `\` escapes.
///
/// # Errors
/// [`SymlinkError`]: the list is empty or too long, or the first invalid rule.
pub fn parse_symlinks(text: &str) -> Result<Vec<SymlinkRule>, SymlinkError> {
    check_length(text)?;
    if trim_unescaped(text).is_empty() {
        return Err(SymlinkError::Empty);
    }
    parse_each(&list_elements(text), parse_rule)
}

/// Parses the value of `org.lowrisc.hotplug.symlinks`: split at each `,` and line break, without
/// trimming and escapes.
///
/// # Errors
/// As for [`parse_symlinks`].
pub fn parse_lowrisc_symlinks(text: &str) -> Result<Vec<SymlinkRule>, SymlinkError> {
    check_length(text)?;
    if text.is_empty() {
        return Err(SymlinkError::Empty);
    }
    parse_each(&plain_list_elements(text), parse_lowrisc_rule)
}

impl FromStr for SymlinkRule {
    type Err = SymlinkError;

    /// Parses one rule; white space around it is ignored.
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
    // That grammar allows `.` and `..`; here each path has only one spelling.
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
    /// The rule in its grammar, escaped, so that parsing it yields the same rule.
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
