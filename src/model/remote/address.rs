//! The address of a USB device of another host: `HOST[:PORT]/VID:PID[:SERIAL]` or
//! `HOST[:PORT]/busid:BUSID`.
//!
//! Either id may be `*`. `nth:2:VID:PID` is a second device with the same ids, for a further
//! request. `busid:BUSID:VID:PID` is the device at that port of the server, if it has these ids.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::model::device::serial::{self, as_udev_spells};
use crate::model::quoting::shown;

/// The port of usbipd(8).
pub const DEFAULT_PORT: u16 = 3240;

/// The longest host name in the domain name system (RFC 1035), in bytes.
const MAX_HOST: usize = 253;
/// The longest bus id: its field in the protocol has 32 bytes, the last of which is NUL.
const MAX_BUSID: usize = 31;
/// The longest serial number: a string descriptor has at most 126 UTF-16 units (USB 2.0, 9.6.7),
/// each at most 3 bytes in UTF-8.
const MAX_SERIAL: usize = 378;
/// How much of an invalid text a message shows, in characters.
const SHOWN: usize = 40;

/// Why the address of a remote device is invalid, with a hint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error(
        "no device is named behind the host: write HOST/VID:PID, such as lab:3240/0403:6001, or HOST/busid:BUSID"
    )]
    NoDevice,
    #[error(
        "\"{host}\" is not a host: write a name, an IPv4 address, or an IPv6 address in brackets, such as [fd00::1]"
    )]
    Host { host: String },
    /// An IPv6 address without brackets, whose end cannot be distinguished from a port.
    #[error("an IPv6 address needs brackets: write [{host}]")]
    BareIpv6 { host: String },
    #[error("\"{port}\" is not a port: write a number from 1 to 65535, or leave it out for {DEFAULT_PORT}")]
    Port { port: String },
    /// Neither ids nor a bus id.
    #[error(
        "\"{device}\" does not name a device: write VID:PID or VID:PID:SERIAL, such as 0403:6001, or busid:1-1.4"
    )]
    Device { device: String },
    /// The number behind `nth:` is invalid.
    #[error(
        "\"{number}\" is not a number: write nth:N:VID:PID with N from 1 to 255, such as nth:2:0403:6001"
    )]
    Number { number: String },
    #[error("{which} id must be 4 hex digits, such as {example}, or * for any")]
    UsbId {
        /// `vendor` or `product`.
        which: &'static str,
        /// A valid id.
        example: &'static str,
    },
    /// A serial number that no device can have.
    #[error(
        "the serial number is empty, too long, or has control characters: leave it out, with its colon, for any"
    )]
    Serial,
    #[error(
        "\"{busid}\" is not a bus id: it has 1 to 31 letters, digits, \"-\", \".\" and \"_\", such as 1-1.4"
    )]
    BusId { busid: String },
}

/// A USB/IP server. `FromStr` and `Display` are inverse; both omit the default port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Server {
    host: String,
    port: u16,
}

impl Server {
    /// A name or an address, in lower case, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for Server {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError::Host {
            host: shown(text, SHOWN),
        };
        let (host, port) = if let Some(inner) = text.strip_prefix('[') {
            let (host, rest) = inner.split_once(']').ok_or_else(wrong)?;
            let port = match rest.strip_prefix(':') {
                Some(port) => Some(port),
                None if rest.is_empty() => None,
                None => return Err(wrong()),
            };
            (ipv6(host).ok_or_else(wrong)?, port)
        } else {
            if ipv6(text).is_some() {
                return Err(AddressError::BareIpv6 {
                    host: shown(text, SHOWN),
                });
            }
            let (host, port) = match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            };
            (name(host).ok_or_else(wrong)?, port)
        };
        Ok(Self {
            host,
            port: port.map_or(Ok(DEFAULT_PORT), parse_port)?,
        })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        if self.port != DEFAULT_PORT {
            write!(f, ":{}", self.port)?;
        }
        Ok(())
    }
}

/// The canonical form of an IPv6 address, with a zone (`fe80::1%eth0`) or without.
fn ipv6(text: &str) -> Option<String> {
    let (address, zone) = match text.split_once('%') {
        Some((address, zone)) => (address, Some(zone)),
        None => (text, None),
    };
    let address: Ipv6Addr = address.parse().ok()?;
    let is_plain = |zone: &str| {
        (1..=15).contains(&zone.len())
            && zone
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    match zone {
        None => Some(address.to_string()),
        Some(zone) => is_plain(zone).then(|| format!("{address}%{zone}")),
    }
}

/// A host name, or an IPv4 address, which has the form of one.
fn name(text: &str) -> Option<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_name = (1..=MAX_HOST).contains(&text.len())
        && text.bytes().all(is_plain)
        && !text.starts_with(['-', '.'])
        && !text.contains("..");
    is_name.then(|| text.to_ascii_lowercase())
}

fn parse_port(text: &str) -> Result<u16, AddressError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port > 0 => Ok(port),
        _ => Err(AddressError::Port {
            port: shown(text, SHOWN),
        }),
    }
}

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

/// The server's name for a device: the port that it is plugged into, such as `1-1.4`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BusId(Box<str>);

impl BusId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BusId {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if (1..=MAX_BUSID).contains(&text.len()) && text.bytes().all(is_plain) {
            return Ok(Self(text.into()));
        }
        Err(AddressError::BusId {
            busid: shown(text, SHOWN),
        })
    }
}

impl fmt::Display for BusId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A device of a server, as a request names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServerDevice {
    /// A device with these ids, at any port of the server.
    Ids {
        /// From 1. Several requests for devices with the same ids number them, so that each gets
        /// its own device.
        number: u8,
        ids: UsbIdPattern,
        /// The serial number in the descriptor; case-sensitive.
        serial: Option<Box<str>>,
    },
    /// Any device at this port of the server.
    BusId(BusId),
    /// The device at this port of the server, if it has these ids.
    Both {
        busid: BusId,
        ids: UsbIdPattern,
        /// The serial number in the descriptor.
        serial: Option<Box<str>>,
    },
}

impl ServerDevice {
    /// The bus id, if the request names one.
    pub fn busid(&self) -> Option<&BusId> {
        match self {
            Self::Ids { .. } => None,
            Self::BusId(busid) | Self::Both { busid, .. } => Some(busid),
        }
    }

    /// Ids and serial number, as far as the request names them.
    pub fn identity(&self) -> Option<(UsbIdPattern, Option<&str>)> {
        match self {
            Self::BusId(_) => None,
            Self::Ids { ids, serial, .. } | Self::Both { ids, serial, .. } => Some((*ids, serial.as_deref())),
        }
    }

    /// Whether a device with this serial number matches the requested one, in the device's own
    /// spelling or in udev's. True if no serial number was requested.
    pub fn matches_serial(&self, serial: Option<&str>) -> bool {
        let wanted = self.identity().and_then(|(_, serial)| serial);
        wanted.is_none_or(|wanted| serial.is_some_and(|serial| serial::same(serial, wanted)))
    }

    /// Whether this covers every device that `requested` names.
    pub fn covers(&self, requested: &ServerDevice) -> bool {
        let is_there = self.busid().is_none_or(|busid| requested.busid() == Some(busid));
        let is_it = self.identity().is_none_or(|(ids, serial)| {
            requested.identity().is_some_and(|(its_ids, its_serial)| {
                let is_its = |serial| its_serial.is_some_and(|its| serial::same(its, serial));
                its_ids.is_covered_by(ids) && serial.is_none_or(is_its)
            })
        });
        is_there && is_it
    }

    /// Whether `requested` may name a device that this names, too: false only if both name a bus
    /// id, an id or a serial number, and the two differ.
    pub fn may_overlap(&self, requested: &ServerDevice) -> bool {
        fn agree<T: PartialEq>(one: Option<T>, other: Option<T>) -> bool {
            one.is_none() || other.is_none() || one == other
        }
        let identity = |device: &ServerDevice| {
            let (ids, serial) = device.identity()?;
            // udev's spelling of a serial number and the original name the same device.
            Some((ids.vendor, ids.product, serial.map(as_udev_spells)))
        };
        let (own, its) = (identity(self), identity(requested));
        let is_it = match (own, its) {
            (Some(own), Some(its)) => agree(own.0, its.0) && agree(own.1, its.1) && agree(own.2, its.2),
            _ => true,
        };
        agree(self.busid(), requested.busid()) && is_it
    }
}

impl FromStr for ServerDevice {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(place) = text.strip_prefix("busid:") {
            return match place.split_once(':') {
                None => place.parse().map(Self::BusId),
                Some((busid, device)) => {
                    let (busid, (ids, serial)) = (busid.parse()?, parse_device(device)?);
                    Ok(Self::Both { busid, ids, serial })
                }
            };
        }
        let (number, device) = match text.strip_prefix("nth:") {
            Some(rest) => {
                let (number, device) = rest.split_once(':').unwrap_or((rest, ""));
                (parse_number(number)?, device)
            }
            None => (1, text),
        };
        let (ids, serial) = parse_device(device)?;
        Ok(Self::Ids { number, ids, serial })
    }
}

/// Parses `VID:PID[:SERIAL]`.
fn parse_device(text: &str) -> Result<(UsbIdPattern, Option<Box<str>>), AddressError> {
    let (ids, serial) = match text.match_indices(':').nth(1) {
        Some((at, _)) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let ids = ids.parse()?;
    let is_serial = |serial: &str| {
        !serial.trim().is_empty() && serial.len() <= MAX_SERIAL && !serial.contains(char::is_control)
    };
    match serial {
        Some(serial) if !is_serial(serial) => Err(AddressError::Serial),
        serial => Ok((ids, serial.map(Into::into))),
    }
}

impl fmt::Display for ServerDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ids { number, .. } if *number > 1 => write!(f, "nth:{number}:")?,
            Self::Ids { .. } => {}
            Self::BusId(busid) => return write!(f, "busid:{busid}"),
            Self::Both { busid, .. } => write!(f, "busid:{busid}:")?,
        }
        match self.identity() {
            Some((ids, Some(serial))) => write!(f, "{ids}:{serial}"),
            Some((ids, None)) => write!(f, "{ids}"),
            None => Ok(()),
        }
    }
}

fn parse_number(text: &str) -> Result<u8, AddressError> {
    let digits = text.bytes().all(|digit| digit.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits && number > 0 => Ok(number),
        _ => Err(AddressError::Number {
            number: shown(text, SHOWN),
        }),
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

/// The address of a device of another host. `FromStr` and `Display` are inverse.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RemoteDevice {
    /// The server.
    pub server: Server,
    /// The device of the server.
    pub device: ServerDevice,
}

impl FromStr for RemoteDevice {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        // Split at the first slash: a serial number may contain further ones, a host none.
        let (server, device) = text.split_once('/').ok_or(AddressError::NoDevice)?;
        Ok(Self {
            server: server.parse()?,
            device: device.parse()?,
        })
    }
}

impl fmt::Display for RemoteDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.server, self.device)
    }
}

impl TryFrom<String> for RemoteDevice {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<RemoteDevice> for String {
    fn from(device: RemoteDevice) -> Self {
        device.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::any_text::any_text;
    use proptest::prelude::*;

    #[test]
    fn a_remote_device_is_named_by_host_port_and_ids_or_bus_id() {
        for (text, host, port) in [
            ("lab/0403:6001", "lab", 3240),
            ("lab.example:3241/0403:6001:FT 0/0,42", "lab.example", 3241),
            ("10.0.0.7/busid:1-1.4", "10.0.0.7", 3240),
            ("[fd00::1]/0403:6001", "fd00::1", 3240),
            ("[fe80::1%eth0]:99/busid:0-0-0", "fe80::1%eth0", 99),
            ("lab/nth:2:0403:6001:FT:1", "lab", 3240),
            ("lab/0403:*", "lab", 3240),
            ("lab/*:*:FT1", "lab", 3240),
            ("lab/busid:1-1.4:0403:*:FT1", "lab", 3240),
        ] {
            let device: RemoteDevice = text.parse().unwrap();
            assert_eq!(
                (device.server.host(), device.server.port()),
                (host, port),
                "{text}"
            );
            assert_eq!(device.to_string(), text);
            assert_eq!(String::from(device), text);
        }
        assert_eq!(
            "LAB:3240/0403:6001".parse::<RemoteDevice>().unwrap().to_string(),
            "lab/0403:6001"
        );
        assert_eq!("[FD00:0::1]".parse::<Server>().unwrap().to_string(), "[fd00::1]");
    }

    #[test]
    fn an_error_says_what_is_wrong_and_how_to_fix_it() {
        for (text, fault) in [
            (
                "lab",
                "no device is named behind the host: write HOST/VID:PID, such as lab:3240/0403:6001, or HOST/busid:BUSID",
            ),
            (
                "/0403:6001",
                "\"\" is not a host: write a name, an IPv4 address, or an IPv6 address in brackets, such as [fd00::1]",
            ),
            (
                "fd00::1/0403:6001",
                "an IPv6 address needs brackets: write [fd00::1]",
            ),
            (
                "[fd00::1/0403:6001",
                "\"[fd00::1\" is not a host: write a name, an IPv4 address, or an IPv6 address in brackets, such as [fd00::1]",
            ),
            (
                "lab:0/0403:6001",
                "\"0\" is not a port: write a number from 1 to 65535, or leave it out for 3240",
            ),
            (
                "lab:+7/0403:6001",
                "\"+7\" is not a port: write a number from 1 to 65535, or leave it out for 3240",
            ),
            (
                "lab/1-1",
                "\"1-1\" does not name a device: write VID:PID or VID:PID:SERIAL, such as 0403:6001, or busid:1-1.4",
            ),
            (
                "lab/403:6001",
                "vendor id must be 4 hex digits, such as 0403, or * for any",
            ),
            (
                "lab/0403:+600",
                "product id must be 4 hex digits, such as 6001, or * for any",
            ),
            (
                "lab/nth:0:0403:6001",
                "\"0\" is not a number: write nth:N:VID:PID with N from 1 to 255, such as nth:2:0403:6001",
            ),
            (
                "lab/0403:6001:",
                "the serial number is empty, too long, or has control characters: leave it out, with its colon, for any",
            ),
            (
                "lab/busid:a b",
                "\"a b\" is not a bus id: it has 1 to 31 letters, digits, \"-\", \".\" and \"_\", such as 1-1.4",
            ),
        ] {
            assert_eq!(
                text.parse::<RemoteDevice>().unwrap_err().to_string(),
                fault,
                "{text}"
            );
        }
    }

    #[test]
    fn an_address_followed_by_other_text_is_not_a_host() {
        for text in [
            "[fd00::1]x",
            "[fd00::1]3240",
            "[fe80::1%]",
            "[fe80::1%a b]",
            "[fe80::1%sixteen-letters-]",
            "[lab]",
        ] {
            let error = text.parse::<Server>().unwrap_err();
            assert!(matches!(error, AddressError::Host { .. }), "{text}: {error}");
        }
    }

    #[test]
    fn ids_and_serial_number_of_a_device_are_compared_with_the_requested_ones() {
        let ids = UsbIds {
            vendor: 0x403,
            product: 0x6001,
        };
        assert_eq!(ids.to_string(), "0403:6001");
        for (wanted, are_wanted) in [("0403:6001", true), ("*:6001", true), ("0403:6010", false)] {
            assert_eq!(ids.match_pattern(wanted.parse().unwrap()), are_wanted, "{wanted}");
        }
        for (wanted, serial, is_wanted) in [
            ("0403:6001", None, true),
            ("0403:6001", Some("A"), true),
            ("busid:1-1", None, true),
            ("0403:6001:A", Some("A"), true),
            ("0403:6001:A_B", Some("A B"), true),
            ("0403:6001:A", Some("B"), false),
            ("busid:1-1:0403:6001:A", None, false),
        ] {
            let device: ServerDevice = wanted.parse().unwrap();
            assert_eq!(device.matches_serial(serial), is_wanted, "{wanted} {serial:?}");
        }
        assert_eq!("1-1.4".parse::<BusId>().unwrap().as_str(), "1-1.4");
    }

    #[test]
    fn a_rule_that_covers_a_request_overlaps_with_it() {
        for (rule, asked, is_covered, may_be) in [
            ("0403:*", "nth:2:0403:6001:FT1", true, true),
            ("0403:6001", "0403:*", false, true),
            ("0403:6001", "*:6001", false, true),
            ("0403:6001", "*:*:FT1", false, true),
            ("0403:6001", "0403:6010", false, false),
            ("0403:6001:FT1", "0403:6001", false, true),
            ("0403:6001:FT2", "0403:6001:FT1", false, false),
            // Case README 6: the first is udev's spelling, the second the device's own.
            ("0403:6001:My_Board", "0403:6001:My Board", true, true),
            ("0403:6001:My Board", "0403:6001:My_Board", false, true),
            ("0403:6001", "busid:1-1:0403:6001", true, true),
            ("0403:6001", "busid:1-1:0403:6010", false, false),
            ("0403:6001", "busid:1-1", false, true),
            ("busid:1-1", "busid:1-1:0403:6001", true, true),
            ("busid:1-1", "busid:1-2", false, false),
            ("busid:1-1", "0403:6001", false, true),
            ("busid:1-1:0403:6001", "busid:1-1", false, true),
            ("busid:1-1:0403:6001", "nth:2:0403:6001", false, true),
            ("*:*", "busid:1-1", false, true),
        ] {
            let (rule, asked): (ServerDevice, ServerDevice) = (rule.parse().unwrap(), asked.parse().unwrap());
            let found = (rule.covers(&asked), rule.may_overlap(&asked));
            assert_eq!(found, (is_covered, may_be), "{rule} {asked}");
        }
    }

    proptest! {
        #[test]
        fn an_address_survives_formatting_and_parsing(
            text in r"(\[[0-9a-f:%]{2,12}\]|[a-zA-Z0-9.-]{1,12})(:[0-9]{1,5})?/((nth:[0-9]{1,3}:|busid:[0-9.-]{1,8}:)?([0-9a-fA-F]{4}|\*):([0-9a-f]{4}|\*)(:\PC{1,8})?|busid:[0-9.-]{1,12})",
        ) {
            if let Ok(device) = text.parse::<RemoteDevice>() {
                prop_assert_eq!(device.to_string().parse(), Ok(device));
            }
        }

        #[test]
        fn any_text_is_parsed_or_refused_with_one_short_line(text in any_text()) {
            if let Err(error) = text.parse::<RemoteDevice>() {
                let message = error.to_string();
                prop_assert!(message.chars().count() < 200 && !message.contains('\n'), "{}", message);
            }
        }
    }
}
