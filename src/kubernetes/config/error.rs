//! Why a configuration can't be used; checks that several formats share.

use std::path::PathBuf;

use super::definition::MAX_UNITS;
use crate::kubernetes::resources::names::{NameError, ResourceName};
use crate::model::device::Access;
use crate::model::remote::address::AddressError;
use crate::model::request::annotations::RequestListError;
use crate::model::yaml;

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not YAML, an unknown key, or a value of the wrong type; with its line.
    #[error("{path}: {source}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The error and its position.
        source: yaml::Error,
    },
    /// An element of a list.
    #[error("{place}: {fault}")]
    Element {
        /// The file and the element, counted from 1.
        place: String,
        /// The error, with a hint.
        fault: Fault,
    },
}

/// What is wrong with an element, with a hint.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// hostdev: no `:`.
    #[error("write PATH:PERMISSIONS, such as /dev/mem:rwm")]
    NoPermissions,
    /// hostdev: not below /dev.
    #[error("the path must be absolute, such as /dev/mem")]
    Relative,
    /// hostdev: a path is listed twice.
    #[error("{0} is listed twice: list it once, with :COUNT behind the permissions for several containers")]
    ListedTwice(String),
    /// Permissions.
    #[error("permissions {0:?} must be one to three of the letters r, w and m, each at most once")]
    Permissions(String),
    /// A number of units.
    #[error("{0} must be 1 to {MAX_UNITS}")]
    Count(&'static str),
    /// A regular expression.
    #[error("devicematch {expression:?} is not a regular expression: {reason}")]
    Regex {
        /// The expression.
        expression: String,
        /// The parser's error.
        reason: String,
    },
    /// A name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A name is used twice.
    #[error("{0} is defined twice: give one of them another name")]
    DefinedTwice(ResourceName),
    /// A request.
    #[error("request {request:?}: {source}")]
    Request {
        /// The request.
        request: String,
        /// The error.
        source: Box<RequestListError>,
    },
    /// A resource without requests and groups.
    #[error("the resource selects no device: write requests: [\"usb:0403:6001\"] or groups: [...]")]
    SelectsNothing,
    /// Keys that exclude each other.
    #[error("{0}")]
    Keys(&'static str),
    /// A key at the top of our own file.
    #[error("unknown key {key:?}: write one of {known}")]
    UnknownKey {
        /// The key.
        key: String,
        /// The known keys.
        known: String,
    },
    /// generic-device-plugin: a value of the wrong type.
    #[error("{key} must be {expected}, not {found}")]
    Kind {
        /// The key, or the element.
        key: String,
        /// The expected type.
        expected: &'static str,
        /// The type of the value.
        found: &'static str,
    },
    /// usbip-device-plugin: no resources.
    #[error(
        "the file has no resource: write resources: {{NAME: [{{target: {{host: HOST}}, selector: {{...}}}}]}}"
    )]
    NoResources,
    /// usbip-device-plugin: an unknown key, or a value of the wrong type.
    #[error("{0}")]
    Entry(yaml::Error),
    /// A number.
    #[error("{what} {value:?} must be a number up to 0xffff, such as 0x0403")]
    Number {
        /// `vendor`, `product` or `port`.
        what: &'static str,
        /// The text.
        value: String,
    },
    /// A server, or a device of it.
    #[error(transparent)]
    Remote(#[from] AddressError),
    /// The device can't be written as a request.
    #[error("{0}")]
    Device(String),
    /// Too many equal entries.
    #[error("more than 255 entries of one server are equal")]
    TooManyEqual,
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
        /// The text.
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
