//! Vendor and product of USB devices.

use std::fmt;
use std::str::FromStr;

use super::error::{AddressError, SHOWN};
use crate::model::quoting::shown;

/// Vendor and product of a USB device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UsbIds {
    pub vendor: u16,
    pub product: u16,
}

impl fmt::Display for UsbIds {
    /// The format of lsusb(8).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:04x}", self.vendor, self.product)
    }
}

impl UsbIds {
    pub fn match_pattern(self, pattern: UsbIdPattern) -> bool {
        UsbIdPattern::from(self).is_covered_by(pattern)
    }
}

/// The ids that a request names; `None` matches any id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UsbIdPattern {
    pub vendor: Option<u16>,
    pub product: Option<u16>,
}

impl UsbIdPattern {
    /// Whether all devices that match this pattern match `wider`.
    pub fn is_covered_by(self, wider: UsbIdPattern) -> bool {
        let is_among = |own: Option<u16>, wider: Option<u16>| wider.is_none() || own == wider;
        is_among(self.vendor, wider.vendor) && is_among(self.product, wider.product)
    }
}

impl From<UsbIds> for UsbIdPattern {
    fn from(ids: UsbIds) -> Self {
        Self {
            vendor: Some(ids.vendor),
            product: Some(ids.product),
        }
    }
}

impl FromStr for UsbIdPattern {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (vendor, product) = text.split_once(':').ok_or_else(|| AddressError::Device {
            device: shown(text, SHOWN),
        })?;
        Ok(Self {
            vendor: parse_id(vendor, "vendor", "0403")?,
            product: parse_id(product, "product", "6001")?,
        })
    }
}

impl fmt::Display for UsbIdPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let write = |f: &mut fmt::Formatter<'_>, id| match id {
            Some(id) => write!(f, "{id:04x}"),
            None => f.write_str("*"),
        };
        write(f, self.vendor)?;
        f.write_str(":")?;
        write(f, self.product)
    }
}

fn parse_id(text: &str, which: &'static str, example: &'static str) -> Result<Option<u16>, AddressError> {
    if text == "*" {
        return Ok(None);
    }
    let digits = text.len() == 4 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    u16::from_str_radix(text, 16)
        .ok()
        .filter(|_| digits)
        .map(Some)
        .ok_or(AddressError::UsbId { which, example })
}
