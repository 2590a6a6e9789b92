//! The address of a USB device of another host: `HOST[:PORT]/VID:PID[:SERIAL]` or
//! `HOST[:PORT]/busid:BUSID`.
//!
//! Either id may be `*`. `nth:2:VID:PID` is a second device with the same ids, for a further
//! request. `busid:BUSID:VID:PID` is the device at that port of the server, if it has these ids.

mod error;
mod server;
mod server_device;
mod usb_ids;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use error::AddressError;
pub use server::Server;
pub use server_device::{BusId, ServerDevice};
pub use usb_ids::{UsbIdPattern, UsbIds};

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
mod tests;
