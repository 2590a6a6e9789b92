//! What to advertise: converts all formats into one list of definitions.
//!
//! Pure: texts in, values out. `options` reads the files. Must not know which devices exist or
//! which containers use them.

mod definition;
mod error;
mod generic;
mod go_glob;
mod go_regex;
mod go_yaml;
mod hostdev;
mod own;
mod smarter;
mod usbip;

use std::path::PathBuf;

pub use definition::{
    DEV, Definition, Group, MAX_UNITS, Mode, PathInGroup, PathType, RemoteEntry, Requested, remote, servers,
};
pub use error::ConfigError;
pub use generic::{GENERIC_DEFAULTS, Settings, is_generic, settings};
pub use go_glob::{GoGlob, Part};
pub use go_regex::GoRegex;
pub use hostdev::HOSTDEV_DOMAIN;
pub use smarter::SMARTER_DOMAIN;
pub use usbip::is_usbip;

use crate::model::request::class::Classes;

/// The texts of a configuration; an absent part is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Texts {
    /// hostdev's `--devs`.
    pub devs: Option<String>,
    /// smarter-device-manager's file.
    pub smarter: Option<(PathBuf, String)>,
    /// generic-device-plugin's arguments `--device`.
    pub devices: Vec<String>,
    /// A file in our own format, or generic-device-plugin's, or usbip-device-plugin's.
    pub own: Option<(PathBuf, String)>,
    /// usbip-device-plugin's file.
    pub usbip: Option<(PathBuf, String)>,
    /// The domain of resources without one; it overrides the files' own.
    pub domain: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub struct Configuration {
    /// What to advertise.
    pub definitions: Vec<Definition>,
    /// Differences between the configuration and what the plugin does.
    pub notes: Vec<String>,
}

/// Parses all parts and combines their definitions.
///
/// # Errors
///
/// The first element at which the plugin of its format would exit, or that our own format does not
/// allow.
pub fn read(texts: &Texts, classes: &Classes) -> Result<Configuration, ConfigError> {
    let (mut definitions, mut notes) = (Vec::new(), Vec::new());
    if let Some(devs) = &texts.devs {
        definitions.extend(hostdev::parse(devs)?);
    }
    if let Some((path, text)) = &texts.smarter {
        definitions.extend(smarter::parse(path, text, &mut notes)?);
    }
    let own = texts.own.as_ref().filter(|(_, text)| !is_usbip(text));
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
            let new = entries.iter().flat_map(|entry| &entry.notes);
            notes.extend(new.map(|note| format!("{name}: {note}")));
        }
    }
    Ok(Configuration { definitions, notes })
}

#[cfg(test)]
mod tests;
