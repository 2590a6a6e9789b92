//! The annotations by which a container asks, and what they ask for.

use serde::Deserialize;

use super::asked::{Asked, Origin};
use super::class::{ClassUseError, Classes};
use super::oci::Annotations;
use super::request::{OnRemoval, Request, RequestError, parse_asks, parse_lowrisc_devices};
use super::symlink::{SymlinkError, SymlinkRule, parse_lowrisc_symlinks, parse_symlinks};

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

/// What a container asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asks {
    /// Devices.
    pub asked: Vec<Asked>,
    /// Further links.
    pub symlinks: Vec<SymlinkRule>,
}

impl Asks {
    /// Whether no device is asked for. A rule for links asks for none by itself.
    pub fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    /// Adds all of another.
    pub fn extend(&mut self, other: Self) {
        self.asked.extend(other.asked);
        self.symlinks.extend(other.symlinks);
    }
}

/// What becomes of requests in container-hotplug's annotations, which cannot say it themselves.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct LowriscLifecycle {
    /// Whether the container is refused when a device is absent at its start, as container-hotplug does.
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
pub enum AskError {
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

impl AskError {
    /// Whether it is understood, and refused.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Class(ClassUseError::Wider { .. }))
    }
}

/// An annotation that asks in a way that can't be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{source} (annotation {annotation})")]
pub struct AnnotationError {
    /// The annotation's key.
    pub annotation: &'static str,
    /// What is wrong with its value.
    pub source: AskError,
}

/// Reads all annotations of ours and of container-hotplug; others are not looked at. What they ask adds up.
///
/// # Errors
/// When a value is malformed or names a class that there is not; nothing is taken then.
pub fn read(
    annotations: &Annotations,
    lowrisc: &LowriscLifecycle,
    classes: &Classes,
) -> Result<Asks, AnnotationError> {
    let mut asks = Asks::default();
    if let Some(ours) = parsed(annotations, DEVICES, |text| {
        read_list(Origin::Annotation, text, classes)
    })? {
        asks.extend(ours);
    }
    if let Some(rules) = parsed(annotations, SYMLINKS, parse_symlinks)? {
        asks.symlinks.extend(rules);
    }
    let key = if annotations.contains_key(LOWRISC_DEVICES) {
        LOWRISC_DEVICES
    } else {
        LOWRISC_DEVICE
    };
    if let Some(requests) = parsed(annotations, key, parse_lowrisc_devices)? {
        asks.asked.extend(
            requests
                .into_iter()
                .map(|request| Asked::new(Origin::Annotation, with_lifecycle(request, lowrisc))),
        );
    }
    if let Some(rules) = parsed(annotations, LOWRISC_SYMLINKS, parse_lowrisc_symlinks)? {
        asks.symlinks.extend(rules);
    }
    Ok(asks)
}

/// Reads one list of requests, with what each class in it stands for.
///
/// # Errors
/// When it is malformed or names a class that there is not.
pub fn read_list(origin: Origin, text: &str, classes: &Classes) -> Result<Asks, AskError> {
    Ok(classes.expand(origin, parse_asks(text)?)?)
}

fn parsed<T, E: Into<AskError>>(
    annotations: &Annotations,
    annotation: &'static str,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Option<T>, AnnotationError> {
    annotations
        .get(annotation)
        .map(|value| {
            parse(value).map_err(|source| AnnotationError {
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
    use super::*;

    fn annotations(pairs: &[(&str, &str)]) -> Annotations {
        pairs
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect()
    }

    fn asked(pairs: &[(&str, &str)]) -> Vec<String> {
        let asks = read(
            &annotations(pairs),
            &LowriscLifecycle::default(),
            &Classes::default(),
        )
        .unwrap();
        asks.asked
            .iter()
            .map(|asked| asked.request.selector.to_string())
            .collect()
    }

    #[test]
    fn no_annotation_of_ours_asks_for_nothing() {
        let asks = read(
            &annotations(&[("other", "usb:0403")]),
            &LowriscLifecycle::default(),
            &Classes::default(),
        )
        .unwrap();
        assert!(asks.is_empty());
    }

    #[test]
    fn ours_and_container_hotplugs_add_up() {
        let got = asked(&[
            (DEVICES, "usb:0403:6001, usb:1050"),
            (LOWRISC_DEVICES, "parent-of:usb:0bda"),
        ]);
        assert_eq!(got, ["usb:0403:6001", "usb:1050", "parent-of:usb:0bda"]);
    }

    #[test]
    fn container_hotplugs_plural_wins_over_its_singular() {
        assert_eq!(asked(&[(LOWRISC_DEVICE, "usb:0403")]), ["usb:0403"]);
        assert_eq!(
            asked(&[(LOWRISC_DEVICE, "usb:0403"), (LOWRISC_DEVICES, "usb:1050")]),
            ["usb:1050"]
        );
    }

    #[test]
    fn container_hotplugs_lifecycle_is_the_administrators_choice() {
        let lifecycle = LowriscLifecycle {
            required: true,
            on_removal: OnRemoval::Kill,
        };
        let given = annotations(&[(LOWRISC_DEVICES, "usb:0403"), (DEVICES, "usb:1050")]);
        let asks = read(&given, &lifecycle, &Classes::default()).unwrap();
        let options: Vec<_> = asks
            .asked
            .iter()
            .map(|asked| asked.request.options.required)
            .collect();
        assert_eq!(options, [false, true]);
        assert_eq!(asks.asked[1].request.options.on_removal, OnRemoval::Kill);
    }

    #[test]
    fn an_error_names_the_annotation_the_value_the_fault_and_the_cure() {
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
