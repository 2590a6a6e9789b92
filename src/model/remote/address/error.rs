//! Why an address is invalid.

use crate::model::remote::DEFAULT_PORT;

/// How much of an invalid text a message shows, in characters.
pub(super) const SHOWN: usize = 40;

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
