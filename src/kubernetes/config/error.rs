//! Why a configuration can't be used, and the checks that several formats share.

use std::path::PathBuf;

use super::definition::MAX_UNITS;
use crate::kubernetes::resources::names::{NameError, ResourceName};
use crate::model::device::Access;
use crate::model::remote::AddressError;
use crate::model::request::annotations::AskError;

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No YAML, an unknown key, a value of the wrong kind: with its line.
    #[error("{path}: {source}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        source: serde_yaml::Error,
    },
    /// An element of a list.
    #[error("{place}: {fault}")]
    Element {
        /// Which one, counted from 1 as people do.
        place: String,
        /// What is wrong, and the cure.
        fault: Fault,
    },
}

/// What is wrong with an element, and the cure.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// hostdev: no `:`.
    #[error("write PATH:PERMISSIONS, such as /dev/mem:rwm")]
    NoPermissions,
    /// hostdev: not below /dev.
    #[error("the path must be absolute, such as /dev/mem")]
    Relative,
    /// hostdev: a path once more.
    #[error("{0} is listed before: list it once, with :COUNT behind the permissions for several containers")]
    Again(String),
    /// Permissions.
    #[error("permissions {0:?} must be one to three of the letters r, w and m, each at most once")]
    Permissions(String),
    /// A number of units.
    #[error("{0} must be 1 to {MAX_UNITS}")]
    Count(&'static str),
    /// A regular expression.
    #[error("devicematch {expression:?} is no regular expression: {reason}")]
    Regex {
        /// The expression.
        expression: String,
        /// What the engine says.
        reason: String,
    },
    /// A name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Two of a name.
    #[error("{0} is defined before: give one of them another name")]
    Twice(ResourceName),
    /// A request.
    #[error("request {request:?}: {source}")]
    Request {
        /// The request.
        request: String,
        /// What is wrong with it.
        source: Box<AskError>,
    },
    /// A resource of nothing.
    #[error("it asks for nothing: write requests: [\"usb:0403:6001\"] or groups: [...]")]
    Nothing,
    /// Keys that exclude each other.
    #[error("{0}")]
    Keys(&'static str),
    /// A key at the top of our own file.
    #[error("unknown key {key:?}: write one of {known}")]
    UnknownKey {
        /// The key.
        key: String,
        /// The others.
        known: String,
    },
    /// generic-device-plugin's: a value of the wrong kind.
    #[error("{key} must be {expected}, and is {found}")]
    Kind {
        /// The key, or what has the value.
        key: String,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// usbip-device-plugin: no resources.
    #[error(
        "it names no resource: write resources: {{NAME: [{{target: {{host: HOST}}, selector: {{...}}}}]}}"
    )]
    NoResources,
    /// usbip-device-plugin: an unknown key, a value of the wrong kind.
    #[error("{0}")]
    Entry(serde_yaml::Error),
    /// A number.
    #[error("{what} {value:?} must be a number up to 0xffff, such as 0x0403")]
    Number {
        /// `vendor`, `product` or `port`.
        what: &'static str,
        /// What stands there.
        value: String,
    },
    /// A server, or a device of it.
    #[error(transparent)]
    Remote(#[from] AddressError),
    /// The same, as it stands in a request.
    #[error("{0}")]
    Device(String),
    /// More than can be told apart.
    #[error("more than 255 entries of one server say the same")]
    TooManyAlike,
    /// usbip-device-plugin's extras.
    #[error("the extra {path:?} must be an absolute path, such as /dev/ttyUSB0")]
    Extra {
        /// The path.
        path: String,
    },
    /// A USB id.
    #[error("{what} {value:?} must be up to 4 hexadecimal digits in quotes, without 0x, such as \"1a86\"")]
    UsbId {
        /// `vendor` or `product`.
        what: &'static str,
        /// What stands there.
        value: String,
    },
}

/// Reads `rwm`.
pub(super) fn permissions(text: &str) -> Result<Access, Fault> {
    text.parse().map_err(|_| Fault::Permissions(text.to_owned()))
}

/// Checks a number of units.
pub(super) fn count(what: &'static str, number: u32) -> Result<u32, Fault> {
    if (1..=MAX_UNITS).contains(&number) {
        Ok(number)
    } else {
        Err(Fault::Count(what))
    }
}
