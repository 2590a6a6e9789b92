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
}

impl Default for LowriscLifecycle {
    fn default() -> Self {
        Self {
            required: false,
            on_removal: OnRemoval::Keep,
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
    request
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::request::class::Definition;

    fn annotations(pairs: &[(&str, &str)]) -> Annotations {
        pairs
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect()
    }

    fn entry(pairs: &[(&str, &str)]) -> Vec<String> {
        let read_requests = read(
            &annotations(pairs),
            &LowriscLifecycle::default(),
            &Classes::default(),
        )
        .unwrap();
        read_requests
            .entries
            .iter()
            .map(|entry| entry.request.selector.to_string())
            .collect()
    }

    #[test]
    fn other_annotations_request_nothing() {
        let read_requests = read(
            &annotations(&[("other", "usb:0403")]),
            &LowriscLifecycle::default(),
            &Classes::default(),
        )
        .unwrap();
        assert!(read_requests.is_empty());
    }

    #[test]
    fn requests_of_oci_hotplug_and_container_hotplug_are_combined() {
        let got = entry(&[
            (DEVICES, "usb:0403:6001, usb:1050"),
            (LOWRISC_DEVICES, "parent-of:usb:0bda"),
        ]);
        assert_eq!(got, ["usb:0403:6001", "usb:1050", "parent-of:usb:0bda"]);
    }

    #[test]
    fn a_rule_for_links_requests_no_device() {
        let read = |pairs: &[(&str, &str)]| {
            read(
                &annotations(pairs),
                &LowriscLifecycle::default(),
                &Classes::default(),
            )
            .unwrap()
        };
        let rule = (SYMLINKS, "usb:0403:6001:0=/dev/ttyBOARD");
        assert!(read(&[rule]).is_empty());
        assert!(!read(&[rule, (DEVICES, "usb:0403")]).is_empty());
    }

    #[test]
    fn whether_there_is_a_udev_database_is_an_annotation_that_requests_no_device() {
        let read = |value: &str| {
            let given = annotations(&[(UDEV, value)]);
            read(&given, &LowriscLifecycle::default(), &Classes::default())
        };
        let requests = read("never").unwrap();
        assert!(requests.is_empty());
        assert_eq!(requests.udev, Some(UdevMode::Never));
        let error = read("yes").unwrap_err();
        assert!(!error.is_refusal());
        assert_eq!(
            error.to_string(),
            "udev database \"yes\": must be \"auto\" or \"never\" (annotation io.oci-hotplug.udev)"
        );
    }

    #[test]
    fn annotations_of_oci_hotplug_are_those_with_its_prefix_and_three_of_container_hotplug() {
        for key in [
            DEVICES,
            SYMLINKS,
            UDEV,
            "io.oci-hotplug.typo",
            LOWRISC_DEVICES,
            LOWRISC_DEVICE,
            LOWRISC_SYMLINKS,
        ] {
            assert!(is_ours(key), "{key}");
        }
        for key in ["other", "io.oci-hotplugx", "org.lowrisc.hotplug.x", ""] {
            assert!(!is_ours(key), "{key}");
        }
    }

    #[test]
    fn exceeding_a_class_is_refused_and_a_class_in_an_invalid_file_is_an_error_of_the_configuration() {
        let definition = Definition {
            devices: vec!["usb:0403;access=r".to_owned()],
            ..Definition::default()
        };
        let file = Path::new("/etc/oci-hotplug/config.toml");
        let mut classes = Classes::parse(file, &[("lab".to_owned(), definition)].into()).unwrap();
        let error = |classes: &Classes, text: &str| {
            let given = annotations(&[(DEVICES, text)]);
            let of_all = read(&given, &LowriscLifecycle::default(), classes).unwrap_err();
            let of_list = read_list(Origin::Annotation, text, classes).unwrap_err();
            assert_eq!(of_all.is_refusal(), of_list.is_refusal());
            (of_list.is_refusal(), of_list.is_of_configuration())
        };
        assert_eq!(error(&classes, "class:lab;access=w"), (true, false));
        assert_eq!(error(&classes, "class:nope"), (false, false));
        assert_eq!(error(&classes, "usb:x"), (false, false));
        classes.set_aside(None, "line 7: expected a table".to_owned());
        assert_eq!(error(&classes, "class:lab"), (false, true));
    }

    #[test]
    fn the_plural_of_container_hotplug_overrides_its_singular() {
        assert_eq!(entry(&[(LOWRISC_DEVICE, "usb:0403")]), ["usb:0403"]);
        assert_eq!(
            entry(&[(LOWRISC_DEVICE, "usb:0403"), (LOWRISC_DEVICES, "usb:1050")]),
            ["usb:1050"]
        );
    }

    #[test]
    fn the_lifecycle_of_container_hotplugs_requests_is_configurable() {
        let lifecycle = LowriscLifecycle {
            required: true,
            on_removal: OnRemoval::Kill,
        };
        let given = annotations(&[(LOWRISC_DEVICES, "usb:0403"), (DEVICES, "usb:1050")]);
        let read_requests = read(&given, &lifecycle, &Classes::default()).unwrap();
        let options: Vec<_> = read_requests
            .entries
            .iter()
            .map(|entry| entry.request.options.required)
            .collect();
        assert_eq!(options, [false, true]);
        assert_eq!(
            read_requests.entries[1].request.options.on_removal,
            OnRemoval::Kill
        );
    }

    #[test]
    fn an_error_names_annotation_value_fault_and_hint() {
        let error = read(
            &annotations(&[(DEVICES, "usb:12345:6001")]),
            &LowriscLifecycle::default(),
            &Classes::default(),
        )
        .unwrap_err();
        let text = error.to_string();
        for part in [
            "device request \"usb:12345:6001\"",
            "vendor id must be 4 hex digits",
            "(annotation io.oci-hotplug.devices)",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    /// Case newcomer: typos in keys.
    #[test]
    fn an_unknown_key_with_the_prefix_is_an_error_that_suggests_a_key() {
        for (key, hint) in [
            ("io.oci-hotplug.device", "(did you mean io.oci-hotplug.devices?)"),
            (
                "io.oci-hotplug.symlink",
                "(did you mean io.oci-hotplug.symlinks?)",
            ),
            ("io.oci-hotplug.Devices", "(did you mean io.oci-hotplug.devices?)"),
            (
                "io.oci-hotplug.only",
                "(write io.oci-hotplug.devices, io.oci-hotplug.symlinks, io.oci-hotplug.udev)",
            ),
            (
                "io.oci-hotplug.",
                "(write io.oci-hotplug.devices, io.oci-hotplug.symlinks, io.oci-hotplug.udev)",
            ),
        ] {
            let given = annotations(&[(key, "usb:0403"), (DEVICES, "usb:0403")]);
            let error = read(&given, &LowriscLifecycle::default(), &Classes::default()).unwrap_err();
            let text = error.to_string();
            assert_eq!(text, format!("annotation \"{key}\": unknown annotation {hint}"));
            assert!(is_ours(key) && !error.is_refusal());
        }
        let odd = format!("io.oci-hotplug.{}\n", "x".repeat(1000));
        let error = read(
            &annotations(&[(&odd, "")]),
            &LowriscLifecycle::default(),
            &Classes::default(),
        );
        let text = error.unwrap_err().to_string();
        assert!(text.len() < 250 && !text.contains('\n'), "{text}");
        // container-hotplug ignores unknown keys.
        assert_eq!(
            entry(&[("org.lowrisc.hotplug.x", "usb:0403"), ("io.oci-hotplugx", "")]),
            [""; 0]
        );
    }

    #[test]
    fn an_unknown_class_is_an_error_of_its_annotation() {
        let given = annotations(&[(DEVICES, "class:lab")]);
        let error = read(&given, &LowriscLifecycle::default(), &Classes::default()).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("\"class:lab\"") && text.ends_with("(annotation io.oci-hotplug.devices)"),
            "{text}"
        );
        // container-hotplug's grammar has no classes.
        let given = annotations(&[(LOWRISC_DEVICES, "class:lab")]);
        assert!(read(&given, &LowriscLifecycle::default(), &Classes::default()).is_err());
    }
}
