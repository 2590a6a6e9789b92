//! What the administrator wants advertised, in any of the formats, as one list of definitions.
//!
//! Must not know what devices there are, nor who asks for them. Texts in, values out: files are read by `run`.

mod generic;
mod go_glob;
mod go_regex;
mod go_yaml;
mod hostdev;
mod own;
mod smarter;
mod usbip;

use std::path::PathBuf;

pub use generic::{GENERIC_DEFAULTS, Group, PathInGroup, PathType, Settings, is_generic, settings};
pub use go_glob::{GoGlob, Part};
pub use go_regex::GoRegex;
pub use hostdev::HOSTDEV_DOMAIN;
pub use own::Mode;
pub use smarter::SMARTER_DOMAIN;
pub use usbip::{Extra, RemoteEntry, USBIP_DOMAIN, is_usbips};

use super::resource::{NameError, ResourceName};
use crate::model::device::Access;
use crate::model::remote::AddressError;
use crate::model::request::annotations::{AskError, Requests};
use crate::model::request::class::Classes;

/// The domain of resources of ours that are given none.
pub const DEFAULT_DOMAIN: &str = "oci-hotplug.dev";

/// The most units of one device. Each message to kubelet lists all of a resource with some 80 bytes each, and kubelet takes
/// no more than 4 MiB (gRPC's default), which is some 50,000.
pub const MAX_UNITS: u32 = 20_000;

/// Something to be advertised.
#[derive(Debug, Clone)]
pub enum Definition {
    /// hostdev: one path, always advertised, healthy while it is there.
    Path {
        /// The path on the host.
        path: PathBuf,
        /// What containers may do.
        access: Access,
        /// How many containers can have it.
        count: u32,
    },
    /// smarter-device-manager: each path below /dev that matches is a resource of its own.
    Pattern {
        /// Run on the path below /dev.
        pattern: GoRegex,
        /// How many containers can have each.
        count: u32,
    },
    /// smarter-device-manager's `nvidia-gpu`.
    NvidiaGpu {
        /// How many containers can have each.
        count: u32,
    },
    /// generic-device-plugin's.
    Groups {
        /// The resource.
        name: ResourceName,
        /// Each is a source of units.
        groups: Vec<Group>,
    },
    /// usbip-device-plugin's: devices of USB/IP servers.
    Remote {
        /// The resource.
        name: ResourceName,
        /// Each is a unit.
        entries: Vec<RemoteEntry>,
    },
    /// Ours.
    Requested(Requested),
}

/// A resource in our own words.
#[derive(Debug, Clone)]
pub struct Requested {
    /// The resource.
    pub name: ResourceName,
    /// Which devices, and how a container wants them.
    pub asks: Requests,
    /// How they are offered.
    pub mode: Mode,
    /// How many containers can have it.
    pub count: u32,
}

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

/// The texts that make up a configuration; what is not given is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Texts {
    /// hostdev's `--devs`.
    pub devs: Option<String>,
    /// smarter-device-manager's file.
    pub smarter: Option<(PathBuf, String)>,
    /// generic-device-plugin's arguments `--device`.
    pub devices: Vec<String>,
    /// Our own file, or one of another's.
    pub own: Option<(PathBuf, String)>,
    /// usbip-device-plugin's file.
    pub usbip: Option<(PathBuf, String)>,
    /// The domain of resources that have none, instead of the files' own.
    pub domain: Option<String>,
}

/// What the texts say.
#[derive(Debug, Clone, Default)]
pub struct Configuration {
    /// What is to be advertised.
    pub definitions: Vec<Definition>,
    /// What can't be done as it is written, and what is done instead.
    pub notes: Vec<String>,
}

/// Reads all that is given; the sources add up.
///
/// # Errors
/// At the first element that ends the program whose format it is, or can't be used in ours.
pub fn read(texts: &Texts, classes: &Classes) -> Result<Configuration, ConfigError> {
    let (mut definitions, mut notes) = (Vec::new(), Vec::new());
    if let Some(devs) = &texts.devs {
        definitions.extend(hostdev::parse(devs)?);
    }
    if let Some((path, text)) = &texts.smarter {
        definitions.extend(smarter::parse(path, text, &mut notes)?);
    }
    let own = texts.own.as_ref().filter(|(_, text)| !is_usbips(text));
    let own_domain = own.and_then(|(_, text)| settings(text).domain);
    let domain = texts.domain.as_deref();
    let arguments_domain = domain.or(own_domain.as_deref());
    definitions.extend(generic::arguments(
        &texts.devices,
        arguments_domain.unwrap_or(generic::GENERIC_DOMAIN),
        &mut notes,
    )?);
    if let Some((path, text)) = &texts.own {
        definitions.extend(match own {
            None => usbip::parse(path, text, domain)?,
            Some(_) => own::parse(path, text, classes, domain, texts.devices.is_empty(), &mut notes)?,
        });
    }
    if let Some((path, text)) = &texts.usbip {
        definitions.extend(usbip::parse(path, text, domain)?);
    }
    for definition in &definitions {
        if let Definition::Remote { name, entries } = definition {
            let of_it = entries.iter().flat_map(|entry| &entry.notes);
            notes.extend(of_it.map(|note| format!("{name}: {note}")));
        }
    }
    Ok(Configuration { definitions, notes })
}

fn permissions(text: &str) -> Result<Access, Fault> {
    text.parse().map_err(|_| Fault::Permissions(text.to_owned()))
}

fn count(what: &'static str, number: u32) -> Result<u32, Fault> {
    if (1..=MAX_UNITS).contains(&number) {
        Ok(number)
    } else {
        Err(Fault::Count(what))
    }
}

#[cfg(test)]
mod tests;
