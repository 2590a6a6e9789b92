//! The annotations by which a container asks, and what they ask for.

use serde::Deserialize;

use crate::model::oci::Annotations;
use crate::model::quoting::{nearest, shown};
use crate::model::request::class::{ClassUseError, Classes};
use crate::model::request::entry::{Origin, RequestEntry, Requests};
use crate::model::request::symlink::{SymlinkError, parse_lowrisc_symlinks, parse_symlinks};
use crate::model::request::{
    OnRemoval, Request, RequestError, check_untrusted, parse_lowrisc_devices, parse_request_list,
};

/// What our annotations begin with; an unknown one that does is an error, as nobody else reads it.
const PREFIX: &str = "io.oci-hotplug.";
/// How many characters of a key are shown.
const MAX_KEY: usize = 80;

/// Our requests.
pub const DEVICES: &str = "io.oci-hotplug.devices";
/// Our rules for further links.
pub const SYMLINKS: &str = "io.oci-hotplug.symlinks";
/// container-hotplug's requests.
pub const LOWRISC_DEVICES: &str = "org.lowrisc.hotplug.devices";
/// container-hotplug's requests as older documents write them; the plural wins.
pub const LOWRISC_DEVICE: &str = "org.lowrisc.hotplug.device";
/// container-hotplug's rules for links.
pub const LOWRISC_SYMLINKS: &str = "org.lowrisc.hotplug.symlinks";

/// What becomes of requests in container-hotplug's annotations, which cannot say it themselves.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct LowriscLifecycle {
    /// Whether the container is refused when a device is absent at its start, as container-hotplug
    /// does.
    pub required: bool,
    /// What happens when the device goes; container-hotplug kills.
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

/// A request or rule that can't be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestListError {
    /// A request.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A rule for links.
    #[error(transparent)]
    Symlink(#[from] SymlinkError),
    /// A class.
    #[error(transparent)]
    Class(#[from] ClassUseError),
}

impl RequestListError {
    /// Whether it is understood, and refused.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Class(ClassUseError::Wider { .. }))
    }

    /// Whether the configuration is at fault, and not the request.
    pub fn is_of_configuration(&self) -> bool {
        matches!(self, Self::Class(ClassUseError::Unreadable { .. }))
    }
}

/// An annotation that asks in a way that can't be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnnotationError {
    /// Its value.
    #[error("{source} (annotation {annotation})")]
    Value {
        /// The annotation's key.
        annotation: &'static str,
        /// What is wrong with its value.
        source: RequestListError,
    },
    /// Its key: our prefix, and no annotation of ours.
    #[error("annotation \"{shown}\": there is no such annotation ({hint})")]
    Key {
        /// The key, made visible.
        shown: String,
        /// How to fix it.
        hint: String,
    },
}

impl AnnotationError {
    /// Whether it is understood, and refused.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Value { source, .. } if source.is_refusal())
    }

    fn of_key(key: &str) -> Self {
        let known = [DEVICES, SYMLINKS];
        let names = known.map(|known| known.strip_prefix(PREFIX).unwrap_or(known));
        let name = key.strip_prefix(PREFIX).unwrap_or(key);
        let hint = match nearest(name, &names) {
            Some(near) => format!("did you mean {PREFIX}{near}?"),
            None => format!("write {}", known.join(" or ")),
        };
        Self::Key {
            shown: shown(key, MAX_KEY),
            hint,
        }
    }
}

/// Whether an annotation of this key is a request, or was meant as one.
pub fn is_ours(key: &str) -> bool {
    key.starts_with(PREFIX) || [LOWRISC_DEVICES, LOWRISC_DEVICE, LOWRISC_SYMLINKS].contains(&key)
}

/// Reads all annotations of ours and of container-hotplug; others are not looked at. What they ask
/// adds up.
///
/// # Errors When a value is malformed or names a class that there is not, or a key of our prefix is
/// unknown; nothing is taken then.
pub fn read(
    annotations: &Annotations,
    lowrisc: &LowriscLifecycle,
    classes: &Classes,
) -> Result<Requests, AnnotationError> {
    let is_unknown = |key: &&String| key.starts_with(PREFIX) && ![DEVICES, SYMLINKS].contains(&key.as_str());
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

/// Reads one list of requests, with what each class in it stands for.
///
/// # Errors
/// When it is malformed or names a class that there is not.
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
    fn no_annotation_of_ours_asks_for_nothing() {
        let read_requests = read(
            &annotations(&[("other", "usb:0403")]),
            &LowriscLifecycle::default(),
            &Classes::default(),
        )
        .unwrap();
        assert!(read_requests.is_empty());
    }

    #[test]
    fn ours_and_container_hotplugs_add_up() {
        let got = entry(&[
            (DEVICES, "usb:0403:6001, usb:1050"),
            (LOWRISC_DEVICES, "parent-of:usb:0bda"),
        ]);
        assert_eq!(got, ["usb:0403:6001", "usb:1050", "parent-of:usb:0bda"]);
    }

    #[test]
    fn a_rule_for_links_asks_for_no_device() {
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
    fn our_annotations_are_those_of_our_prefix_and_three_of_container_hotplug() {
        for key in [
            DEVICES,
            SYMLINKS,
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
    fn more_than_a_class_gives_is_refused_and_a_class_in_a_broken_file_is_the_configurations_fault() {
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
    fn container_hotplugs_plural_wins_over_its_singular() {
        assert_eq!(entry(&[(LOWRISC_DEVICE, "usb:0403")]), ["usb:0403"]);
        assert_eq!(
            entry(&[(LOWRISC_DEVICE, "usb:0403"), (LOWRISC_DEVICES, "usb:1050")]),
            ["usb:1050"]
        );
    }

    #[test]
    fn container_hotplugs_lifecycle_is_set_by_the_configuration() {
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
    fn an_error_names_the_annotation_the_value_the_fault_and_the_hint() {
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
    fn an_unknown_key_of_our_prefix_is_an_error_with_the_one_that_was_meant() {
        for (key, hint) in [
            ("io.oci-hotplug.device", "(did you mean io.oci-hotplug.devices?)"),
            (
                "io.oci-hotplug.symlink",
                "(did you mean io.oci-hotplug.symlinks?)",
            ),
            ("io.oci-hotplug.Devices", "(did you mean io.oci-hotplug.devices?)"),
            (
                "io.oci-hotplug.only",
                "(write io.oci-hotplug.devices or io.oci-hotplug.symlinks)",
            ),
            (
                "io.oci-hotplug.",
                "(write io.oci-hotplug.devices or io.oci-hotplug.symlinks)",
            ),
        ] {
            let given = annotations(&[(key, "usb:0403"), (DEVICES, "usb:0403")]);
            let error = read(&given, &LowriscLifecycle::default(), &Classes::default()).unwrap_err();
            let text = error.to_string();
            assert_eq!(
                text,
                format!("annotation \"{key}\": there is no such annotation {hint}")
            );
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
        // container-hotplug passes over keys that it does not know.
        assert_eq!(
            entry(&[("org.lowrisc.hotplug.x", "usb:0403"), ("io.oci-hotplugx", "")]),
            [""; 0]
        );
    }

    #[test]
    fn a_class_that_there_is_not_is_an_error_of_its_annotation() {
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
