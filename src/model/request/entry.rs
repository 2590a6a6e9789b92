//! Requests with where they came from and which devices they select.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::model::device::SysPath;
use crate::model::request::Request;
use crate::model::request::symlink::SymlinkRule;

/// Where a request came from, which decides how far it is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// An annotation of the container: whoever may start containers can write it.
    Annotation,
    /// A hook argument (config.json, CDI spec) or the operator's tool: root wrote it.
    Root,
}

/// A request with its origin and the devices that it selects now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestEntry {
    /// Where it came from.
    pub origin: Origin,
    /// The selectors and options.
    pub request: Request,
    /// The class that it is part of, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The CDI device by whose name it was attached, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cdi: Option<String>,
    /// The devices that it selected when last looked at: the container gets what is at or below
    /// them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub roots: BTreeSet<SysPath>,
    /// Those of them that a selector without `parent-of:` selected, and none with it: they are
    /// roots as long as it selects them. A parent stays one when the device that led to it is gone.
    /// `None` when the watcher was restarted: it is not known.
    #[serde(skip)]
    pub named: Option<BTreeSet<SysPath>>,
}

impl RequestEntry {
    /// A request that was not evaluated yet.
    pub fn new(origin: Origin, request: Request) -> Self {
        Self {
            origin,
            request,
            class: None,
            cdi: None,
            roots: BTreeSet::new(),
            named: None,
        }
    }

    /// Whether root wrote the request: in a hook argument, in a class, or with the operator's tool.
    pub fn is_trusted(&self) -> bool {
        self.origin == Origin::Root || self.class.is_some()
    }

    /// The same, as part of a class.
    pub fn of_class(self, class: &str) -> Self {
        Self {
            class: Some(class.to_owned()),
            ..self
        }
    }

    /// The name of its class or CDI device, else its text.
    pub fn called(&self) -> String {
        match (&self.class, &self.cdi) {
            (Some(class), _) => format!("class:{class}"),
            (None, Some(device)) => device.clone(),
            (None, None) => self.request.to_string(),
        }
    }

    /// The same, not evaluated yet.
    pub fn without_roots(&self) -> Self {
        Self {
            roots: BTreeSet::new(),
            named: None,
            ..self.clone()
        }
    }
}

/// What a container asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requests {
    /// Devices.
    pub entries: Vec<RequestEntry>,
    /// Further links.
    pub symlinks: Vec<SymlinkRule>,
}

impl Requests {
    /// Whether no device is asked for. A rule for links asks for none by itself.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds all of another.
    pub fn extend(&mut self, other: Self) {
        self.entries.extend(other.entries);
        self.symlinks.extend(other.symlinks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> RequestEntry {
        RequestEntry::new(Origin::Annotation, "usb:0403;access=r".parse().unwrap())
    }

    #[test]
    fn a_request_is_called_by_its_class_else_its_cdi_device_else_its_text() {
        assert_eq!(entry().called(), "usb:0403;access=r");
        let of_device = RequestEntry {
            cdi: Some("oci-hotplug.dev/lab=board".to_owned()),
            ..entry()
        };
        assert_eq!(of_device.called(), "oci-hotplug.dev/lab=board");
        assert_eq!(of_device.of_class("board").called(), "class:board");
    }

    #[test]
    fn a_request_without_roots_is_as_it_was_before_any_device_was_looked_at() {
        let root = SysPath::new("/sys/devices/usb1/1-1");
        let looked_at = RequestEntry {
            roots: [root.clone()].into(),
            named: Some([root].into()),
            ..entry()
        };
        assert_eq!(looked_at.without_roots(), entry());
    }

    #[test]
    fn requests_of_hook_arguments_and_classes_are_trusted() {
        assert!(!entry().is_trusted());
        assert!(entry().of_class("board").is_trusted());
        assert!(RequestEntry::new(Origin::Root, entry().request).is_trusted());
    }
}
