//! Errors in a configuration, and checks that several formats share.

use std::path::PathBuf;

use super::definition::MAX_UNITS;
use crate::kubernetes::resources::names::{NameError, ResourceName};
use crate::model::device::Access;
use crate::model::remote::address::AddressError;
use crate::model::request::annotations::RequestListError;
use crate::model::yaml;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The text is not YAML, has an unknown key, or a value of the wrong type.
    #[error("{path}: {source}", path = path.display())]
    Malformed { path: PathBuf, source: yaml::Error },
    /// An element of a list is invalid.
    #[error("{place}: {fault}")]
    Element {
        /// The file and the element, counted from 1.
        place: String,
        fault: Fault,
    },
}

/// The error in an element, with a hint.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// hostdev: the element has no `:`.
    #[error("write PATH:PERMISSIONS, such as /dev/mem:rwm")]
    NoPermissions,
    /// hostdev: the path is not absolute.
    #[error("the path must be absolute, such as /dev/mem")]
    Relative,
    /// hostdev: a path is listed twice.
    #[error("{0} is listed twice: list it once, with :COUNT behind the permissions for several containers")]
    ListedTwice(String),
    /// The permissions are invalid.
    #[error("permissions {0:?} must be one to three of the letters r, w and m, each at most once")]
    Permissions(String),
    /// A number of units is out of range.
    #[error("{0} must be 1 to {MAX_UNITS}")]
    Count(&'static str),
    /// A regular expression is invalid.
    #[error("devicematch {expression:?} is not a regular expression of Go: {reason}")]
    Regex { expression: String, reason: String },
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("{0} is defined twice: give one of them another name")]
    DefinedTwice(ResourceName),
    /// A request is invalid; the error names it.
    #[error(transparent)]
    Request(#[from] Box<RequestListError>),
    /// A resource has neither requests nor groups.
    #[error("the resource selects no device: write requests: [\"usb:0403:6001\"] or groups: [...]")]
    SelectsNothing,
    /// Keys exclude each other.
    #[error("{0}")]
    Keys(&'static str),
    /// A key at the top level of our own format is unknown.
    #[error("unknown key {key:?}: write one of {known}")]
    UnknownKey { key: String, known: String },
    /// generic-device-plugin: a value has the wrong type.
    #[error("{key} must be {expected}, not {found}")]
    Kind {
        /// The key, or the element.
        key: String,
        expected: &'static str,
        found: &'static str,
    },
    /// usbip-device-plugin: the file has no resources.
    #[error(
        "the file has no resource: write resources: {{NAME: [{{target: {{host: HOST}}, selector: {{...}}}}]}}"
    )]
    NoResources,
    /// usbip-device-plugin: a key is unknown, or a value has the wrong type.
    #[error("{0}")]
    Entry(yaml::Error),
    /// A number is out of range.
    #[error("{what} {value:?} must be a number up to 0xffff, such as 0x0403")]
    Number {
        /// `vendor`, `product` or `port`.
        what: &'static str,
        value: String,
    },
    /// The address of a server or of its device is invalid.
    #[error(transparent)]
    Remote(#[from] AddressError),
    /// The device cannot be written as a request.
    #[error("{0}")]
    Device(String),
    #[error("more than 255 entries of one server are equal: give each a serial")]
    TooManyEqual,
    /// usbip-device-plugin: an extra is invalid.
    #[error("the extra {path:?} must be an absolute path, such as /dev/ttyUSB0")]
    Extra { path: String },
    /// A USB id is invalid.
    #[error("{what} {value:?} must be up to 4 hexadecimal digits in quotes, without 0x, such as \"1a86\"")]
    UsbId {
        /// `vendor` or `product`.
        what: &'static str,
        value: String,
    },
}

/// Parses `rwm`.
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
