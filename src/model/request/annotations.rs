//! The annotations that request devices and links, and their content.

use serde::Deserialize;

use crate::model::oci::Annotations;
use crate::model::quoting::{nearest, shown};
use crate::model::request::class::{ClassUseError, Classes};
use crate::model::request::entry::{Origin, RequestEntry, Requests};
use crate::model::request::symlink::{SymlinkError, parse_lowrisc_symlinks, parse_symlinks};
use crate::model::request::{
    OnRemoval, Request, RequestError, check_untrusted, parse_lowrisc_devices, parse_request_list,
};
use crate::model::udev_database::{UdevMode, UdevModeError};

/// The prefix of oci-hotplug's annotations. An unknown annotation with it is an error, because no
/// other program reads it.
const PREFIX: &str = "io.oci-hotplug.";
/// How many characters of a key are shown.
const MAX_KEY: usize = 80;

/// oci-hotplug's requests.
pub const DEVICES: &str = "io.oci-hotplug.devices";
/// oci-hotplug's rules for further links.
pub const SYMLINKS: &str = "io.oci-hotplug.symlinks";
/// Whether the container gets a udev database: `auto` or `never`.
pub const UDEV: &str = "io.oci-hotplug.udev";
/// All annotations of oci-hotplug.
pub(crate) const OWN: [&str; 3] = [DEVICES, SYMLINKS, UDEV];
/// container-hotplug's requests.
pub const LOWRISC_DEVICES: &str = "org.lowrisc.hotplug.devices";
/// container-hotplug's requests in the spelling of older documents; if both are present, the plural
/// overrides this one.
pub const LOWRISC_DEVICE: &str = "org.lowrisc.hotplug.device";
/// container-hotplug's rules for links.
pub const LOWRISC_SYMLINKS: &str = "org.lowrisc.hotplug.symlinks";

/// Options of requests in container-hotplug's annotations, whose grammar cannot express them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct LowriscLifecycle {
    /// Whether a container is refused if a device is absent at its start, as with
    /// container-hotplug.
    pub required: bool,
    /// What happens when the device is removed; container-hotplug kills the container.
    pub on_removal: OnRemoval,
    /// Whether the nodes have the mode of the host's nodes, and not container-hotplug's: those of
    /// rootless engines are the host's own.
    #[serde(skip)]
    pub has_host_mode: bool,
}

impl Default for LowriscLifecycle {
    fn default() -> Self {
        Self {
            required: false,
            on_removal: OnRemoval::Keep,
            has_host_mode: false,
        }
    }
}

/// A request or rule that cannot be parsed or is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestListError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Symlink(#[from] SymlinkError),
    #[error(transparent)]
    Class(#[from] ClassUseError),
    #[error(transparent)]
    Udev(#[from] UdevModeError),
}

impl RequestListError {
    /// Whether it is well-formed but refused.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Class(ClassUseError::Wider { .. }))
    }

    /// Whether the configuration is wrong, not the request.
    pub fn is_of_configuration(&self) -> bool {
        matches!(self, Self::Class(ClassUseError::Unreadable { .. }))
    }
}

/// An annotation with an invalid request or key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnnotationError {
    /// The value is invalid.
    #[error("{source} (annotation {annotation})")]
    Value {
        /// The annotation's key.
        annotation: &'static str,
        /// The error in the value.
        source: RequestListError,
    },
    /// The key has oci-hotplug's prefix but is unknown.
    #[error("annotation \"{shown}\": unknown annotation ({hint})")]
    Key {
        /// The key, escaped for display.
        shown: String,
        hint: String,
    },
}

impl AnnotationError {
    /// Whether it is well-formed but refused.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Value { source, .. } if source.is_refusal())
    }

    fn of_key(key: &str) -> Self {
        let names = OWN.map(|known| known.strip_prefix(PREFIX).unwrap_or(known));
        let name = key.strip_prefix(PREFIX).unwrap_or(key);
        let hint = match nearest(name, &names) {
            Some(near) => format!("did you mean {PREFIX}{near}?"),
            None => format!("write {}", OWN.join(", ")),
        };
        Self::Key {
            shown: shown(key, MAX_KEY),
            hint,
        }
    }
}

/// Whether an annotation with this key contains requests or rules, or was probably meant to.
pub fn is_ours(key: &str) -> bool {
    key.starts_with(PREFIX) || [LOWRISC_DEVICES, LOWRISC_DEVICE, LOWRISC_SYMLINKS].contains(&key)
}

/// Parses all annotations of oci-hotplug and of container-hotplug and combines their requests;
/// ignores all others.
///
/// # Errors
/// If a value is malformed or names an unknown class, or a key with oci-hotplug's prefix is
/// unknown; nothing is returned then.
pub fn read(
    annotations: &Annotations,
    lowrisc: &LowriscLifecycle,
    classes: &Classes,
) -> Result<Requests, AnnotationError> {
    let is_unknown = |key: &&String| key.starts_with(PREFIX) && !OWN.contains(&key.as_str());
    if let Some(key) = annotations.keys().find(is_unknown) {
        return Err(AnnotationError::of_key(key));
    }
    let mut requests = Requests::default();
    if let Some(ours) = parsed(annotations, DEVICES, |text| {
        read_list(Origin::Annotation, text, classes)
    })? {
        requests.extend(ours);
    }
    if let Some(rules) = parsed(annotations, SYMLINKS, parse_symlinks)? {
        requests.symlinks.extend(rules);
    }
    requests.udev = udev_mode(annotations)?;
    let key = if annotations.contains_key(LOWRISC_DEVICES) {
        LOWRISC_DEVICES
    } else {
        LOWRISC_DEVICE
    };
    if let Some(lowrisc_requests) = parsed(annotations, key, parse_lowrisc_devices)? {
        requests.entries.extend(
            lowrisc_requests
                .into_iter()
                .map(|request| RequestEntry::new(Origin::Annotation, with_lifecycle(request, lowrisc))),
        );
    }
    if let Some(rules) = parsed(annotations, LOWRISC_SYMLINKS, parse_lowrisc_symlinks)? {
        requests.symlinks.extend(rules);
    }
    let entries = requests.entries.iter();
    check_untrusted(entries.map(|entry| (&entry.request, entry.class.is_some()))).map_err(|source| {
        AnnotationError::Value {
            annotation: DEVICES,
            source: source.into(),
        }
    })?;
    Ok(requests)
}

/// The annotation [`UDEV`]; `None` if it is absent.
///
/// # Errors
/// If its value is invalid.
pub fn udev_mode(annotations: &Annotations) -> Result<Option<UdevMode>, AnnotationError> {
    parsed(annotations, UDEV, str::parse::<UdevMode>)
}

/// Parses one list of requests and expands the classes in it.
///
/// # Errors
/// If it is malformed or names an unknown class.
pub fn read_list(origin: Origin, text: &str, classes: &Classes) -> Result<Requests, RequestListError> {
    Ok(classes.expand(origin, parse_request_list(text)?)?)
}

fn parsed<T, E: Into<RequestListError>>(
    annotations: &Annotations,
    annotation: &'static str,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Option<T>, AnnotationError> {
    annotations
        .get(annotation)
        .map(|value| {
            parse(value).map_err(|source| AnnotationError::Value {
                annotation,
                source: source.into(),
            })
        })
        .transpose()
}

fn with_lifecycle(mut request: Request, lowrisc: &LowriscLifecycle) -> Request {
    request.options.required = lowrisc.required;
    request.options.on_removal = lowrisc.on_removal.clone();
    if lowrisc.has_host_mode {
        request.options.mode = None;
    }
    request
}

#[cfg(test)]
mod tests;
