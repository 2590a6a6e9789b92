//! The USB/IP protocol up to the point where the kernel takes over: listing and importing devices.
//!
//! The kernel's Documentation/usb/usbip_protocol.rst and tools/usb/usbip/src/usbip_network.h
//! describe it. All numbers are big endian; texts are padded with NUL. Data from the server is
//! untrusted: bounded, checked, and read to the exact byte, because everything after the reply to
//! an import is for the kernel. Must not know sockets or time.

use std::fmt;
use std::io::{self, Read};

use crate::model::remote::address::{BusId, UsbIds};

/// The only version of the protocol.
pub(crate) const VERSION: u16 = 0x0111;
/// The most devices in a list. A host has at most 127 USB devices per bus.
pub const MAX_DEVICES: u32 = 1024;

const REQ_DEVLIST: u16 = 0x8005;
const REP_DEVLIST: u16 = 0x0005;
const REQ_IMPORT: u16 = 0x8003;
const REP_IMPORT: u16 = 0x0003;

const BUSID_LEN: usize = 32;
const DEVICE_LEN: usize = 312;

pub(crate) fn devlist_request() -> [u8; 8] {
    header(REQ_DEVLIST)
}

pub(crate) fn import_request(busid: &BusId) -> [u8; 40] {
    let mut request = [0; 8 + BUSID_LEN];
    request[..8].copy_from_slice(&header(REQ_IMPORT));
    request[8..8 + busid.as_str().len()].copy_from_slice(busid.as_str().as_bytes());
    request
}

fn header(code: u16) -> [u8; 8] {
    let [v0, v1] = VERSION.to_be_bytes();
    let [c0, c1] = code.to_be_bytes();
    [v0, v1, c0, c1, 0, 0, 0, 0]
}

/// Why a reply is not an answer to the request.
#[derive(Debug, thiserror::Error)]
pub enum ReplyError {
    /// It could not be read completely.
    #[error(transparent)]
    Read(#[from] io::Error),
    #[error("{0}")]
    Refused(Refusal),
    /// It is not USB/IP, or has another version.
    #[error("it answers in protocol version {found:#06x} instead of {VERSION:#06x} (is it a usbip server?)")]
    Version { found: u16 },
    /// It answers another request.
    #[error("it answers with code {found:#06x} instead of {expected:#06x} (is it a usbip server?)")]
    Code { found: u16, expected: u16 },
    #[error("it claims to export {count} devices, and at most {MAX_DEVICES} are accepted")]
    TooMany { count: u32 },
    /// A field has an impossible value.
    #[error("it describes a device with an impossible {field} ({value})")]
    Field {
        field: &'static str,
        /// The value, escaped for display.
        value: String,
    },
    /// It has another device than the requested one.
    #[error("it gave device {given} instead of {requested}")]
    OtherDevice { requested: BusId, given: BusId },
}

/// Why a server refuses: `status` of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// 1: failed. Older servers, and servers other than usbipd, use this for every reason.
    Failed,
    /// 2: another host has imported it.
    Busy,
    /// 3: it is in an error state.
    Broken,
    /// 4: it is not exported.
    NoDevice,
    /// A status without a defined meaning.
    Other(u32),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed => f.write_str(
                "the server refuses it without a reason (status 1): it is in use, or not exported",
            ),
            Self::Busy => f.write_str("another host has imported it"),
            Self::Broken => {
                f.write_str("it is in an error state there (bind it again: usbip unbind, usbip bind)")
            }
            Self::NoDevice => f.write_str("it is not exported there (usbip bind)"),
            Self::Other(status) => write!(f, "the server refuses it with status {status}"),
        }
    }
}

/// The speed of a device: the kernel's `enum usb_device_speed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Speed(u8);

impl Speed {
    /// Only the numbers that the kernel accepts for a remote device
    /// (drivers/usb/usbip/vhci_sysfs.c, valid_args).
    pub fn new(number: u32) -> Option<Self> {
        matches!(number, 1..=6).then_some(Self(number as u8))
    }

    /// The kernel's number.
    pub fn number(self) -> u32 {
        u32::from(self.0)
    }

    /// The speed to give to the kernel. Before Linux 6.12, vhci_hcd answers EINVAL to SuperSpeed+
    /// (vhci_sysfs.c, valid_args). All its SuperSpeed hubs have 5 Gbit/s, so nothing is lost.
    #[must_use]
    pub fn for_kernel(self) -> Self {
        Self(self.0.min(5))
    }

    /// Whether the device appears at the kernel's SuperSpeed hub; the kernel decides by the speed,
    /// not by the port.
    pub fn is_super(self) -> bool {
        self.0 >= 5
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            1 => "low",
            2 => "full",
            3 => "high",
            4 => "wireless",
            5 => "super",
            _ => "super+",
        })
    }
}

/// A device as its server describes it, which may be wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Its path in the server's sysfs, escaped for display.
    pub path: String,
    pub busid: BusId,
    pub busnum: u16,
    pub devnum: u16,
    /// `None` if the server does not know it.
    pub speed: Option<Speed>,
    pub ids: UsbIds,
    /// Class, subclass and protocol of the device.
    pub class: [u8; 3],
    /// Class, subclass and protocol of each interface; may be empty if the server has unbound the
    /// device's drivers.
    pub interfaces: Vec<[u8; 3]>,
}

impl Exported {
    /// Bus and number at the server in one number, as the kernel expects and shows them.
    pub fn devid(&self) -> u32 {
        u32::from(self.busnum) << 16 | u32::from(self.devnum)
    }

    /// The device, and the number of its interfaces according to the server.
    fn parse(bytes: &[u8; DEVICE_LEN]) -> Result<(Self, u8), ReplyError> {
        let u32_at = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u16_at = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let small = |field, at| {
            let value = u32_at(at);
            u16::try_from(value).map_err(|_| wrong(field, value.to_string()))
        };
        let busid = text(&bytes[256..256 + BUSID_LEN]);
        let speed = u32_at(296);
        let device = Self {
            path: text(&bytes[..256]).escape_ascii().to_string(),
            busid: std::str::from_utf8(busid)
                .ok()
                .and_then(|busid| busid.parse().ok())
                .ok_or_else(|| wrong("bus id", busid.escape_ascii().to_string()))?,
            busnum: small("bus number", 288)?,
            devnum: small("device number", 292)?,
            speed: match (speed, Speed::new(speed)) {
                (0, _) => None,
                (_, Some(speed)) => Some(speed),
                (_, None) => return Err(wrong("speed", speed.to_string())),
            },
            ids: UsbIds {
                vendor: u16_at(300),
                product: u16_at(302),
            },
            class: [bytes[306], bytes[307], bytes[308]],
            interfaces: Vec::new(),
        };
        Ok((device, bytes[311]))
    }
}

fn wrong(field: &'static str, value: String) -> ReplyError {
    ReplyError::Field { field, value }
}

/// The text before the first NUL, if there is one.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Reads the reply to [`devlist_request`].
///
/// # Errors
/// If it is incomplete, invalid, or longer than a list can be.
pub fn read_devlist(from: &mut impl Read) -> Result<Vec<Exported>, ReplyError> {
    read_header(from, REP_DEVLIST)?;
    let count = u32::from_be_bytes(read(from)?);
    if count > MAX_DEVICES {
        return Err(ReplyError::TooMany { count });
    }
    let mut devices = Vec::new();
    for _ in 0..count {
        let (mut device, interfaces) = Exported::parse(&read(from)?)?;
        for _ in 0..interfaces {
            let [class, subclass, protocol, _] = read(from)?;
            device.interfaces.push([class, subclass, protocol]);
        }
        devices.push(device);
    }
    Ok(devices)
}

/// Reads exactly the reply to [`import_request`] for this device.
///
/// # Errors
/// If it is incomplete or invalid, a refusal, or about another device.
pub fn read_import(from: &mut impl Read, requested: &BusId) -> Result<Exported, ReplyError> {
    read_header(from, REP_IMPORT)?;
    let (device, _) = Exported::parse(&read(from)?)?;
    if device.busid != *requested {
        return Err(ReplyError::OtherDevice {
            requested: requested.clone(),
            given: device.busid,
        });
    }
    Ok(device)
}

fn read_header(from: &mut impl Read, expected: u16) -> Result<(), ReplyError> {
    let [v0, v1, c0, c1, s0, s1, s2, s3] = read(from)?;
    let (version, code) = (u16::from_be_bytes([v0, v1]), u16::from_be_bytes([c0, c1]));
    if version != VERSION {
        return Err(ReplyError::Version { found: version });
    }
    if code != expected {
        return Err(ReplyError::Code {
            found: code,
            expected,
        });
    }
    let refusal = match u32::from_be_bytes([s0, s1, s2, s3]) {
        0 => return Ok(()),
        1 => Refusal::Failed,
        2 => Refusal::Busy,
        3 => Refusal::Broken,
        4 => Refusal::NoDevice,
        status => Refusal::Other(status),
    };
    Err(ReplyError::Refused(refusal))
}

fn read<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
