//! A device of a server, by ids, by bus id, or by both.

use std::fmt;
use std::str::FromStr;

use super::error::{AddressError, SHOWN};
use super::usb_ids::UsbIdPattern;
use crate::model::device::serial::{self, as_udev_spells};
use crate::model::quoting::shown;

/// The longest bus id: its field in the protocol has 32 bytes, the last of which is NUL.
const MAX_BUSID: usize = 31;
/// The longest serial number: a string descriptor has at most 126 UTF-16 units (USB 2.0, 9.6.7),
/// each at most 3 bytes in UTF-8.
const MAX_SERIAL: usize = 378;

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
