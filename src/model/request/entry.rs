//! Requests with their origin and the devices that they select.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::device::SysPath;
use crate::model::request::Request;
use crate::model::request::symlink::SymlinkRule;
use crate::model::udev_database::UdevMode;

/// Where a request was written, which decides whether it is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// An annotation of the container, which any user who may start containers can write.
    Annotation,
    /// A hook argument (config.json, CDI spec) or the operator's tool: written by root.
    Root,
}

/// A request with its origin and the devices that it selects now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestEntry {
    pub origin: Origin,
    pub request: Request,
    /// The class that it is part of, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The CDI device by whose name it was attached, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cdi: Option<String>,
    /// The devices that it selected when last evaluated: the container gets the devices at or below
    /// them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub roots: BTreeSet<SysPath>,
    /// The other halves of roots that are USB 3 hubs, by root: the container also gets the devices
    /// at or below them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub companions: BTreeMap<SysPath, SysPath>,
    /// The roots that selectors without `parent-of:` selected, and no selector with it: these are
    /// roots only as long as they are selected. A parent remains a root after the device that led
    /// to it is gone. `None` after a restart of the watcher, when this is unknown.
    #[serde(skip)]
    pub named: Option<BTreeSet<SysPath>>,
}

impl RequestEntry {
    /// A request that has not been evaluated.
    pub fn new(origin: Origin, request: Request) -> Self {
        Self {
            origin,
            request,
            class: None,
            cdi: None,
            roots: BTreeSet::new(),
            companions: BTreeMap::new(),
            named: None,
        }
    }

    /// The roots, each with the paths at and below which its devices are: its own, and that of the
    /// other half of a USB 3 hub. A root that is the other half of another root is part of that.
    pub fn groups(&self) -> impl Iterator<Item = (&SysPath, impl Iterator<Item = &SysPath>)> {
        let is_other_half = |root: &&SysPath| self.companions.values().any(|other| other == *root);
        let roots = self.roots.iter().filter(move |root| !is_other_half(root));
        roots.map(|root| (root, std::iter::once(root).chain(self.companions.get(root))))
    }

    /// The roots and the other halves of USB 3 hubs: all paths at and below which devices are.
    pub fn places(&self) -> impl Iterator<Item = &SysPath> {
        self.roots.iter().chain(self.companions.values())
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

    /// The name of its class or CDI device, or else its text.
    pub fn display_name(&self) -> String {
        match (&self.class, &self.cdi) {
            (Some(class), _) => format!("class:{class}"),
            (None, Some(device)) => device.clone(),
            (None, None) => self.request.to_string(),
        }
    }

    /// The same request, not evaluated.
    pub fn without_roots(&self) -> Self {
        Self {
            roots: BTreeSet::new(),
            companions: BTreeMap::new(),
            named: None,
            ..self.clone()
        }
    }
}

/// The requests and rules for links of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requests {
    pub entries: Vec<RequestEntry>,
    pub symlinks: Vec<SymlinkRule>,
    /// Whether the container gets a udev database; `None`: as the configuration says.
    pub udev: Option<UdevMode>,
}

impl Requests {
    /// Whether no device is requested. Rules for links request none by themselves.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds all requests and rules of another value.
    pub fn extend(&mut self, other: Self) {
        self.entries.extend(other.entries);
        self.symlinks.extend(other.symlinks);
        self.udev = other.udev.or(self.udev);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> RequestEntry {
        RequestEntry::new(Origin::Annotation, "usb:0403;access=r".parse().unwrap())
    }

    #[test]
    fn a_request_is_called_by_its_class_or_cdi_device_or_else_by_its_text() {
        assert_eq!(entry().display_name(), "usb:0403;access=r");
        let of_device = RequestEntry {
            cdi: Some("oci-hotplug.dev/lab=board".to_owned()),
            ..entry()
        };
        assert_eq!(of_device.display_name(), "oci-hotplug.dev/lab=board");
        assert_eq!(of_device.of_class("board").display_name(), "class:board");
    }

    #[test]
    fn a_request_without_roots_is_as_before_its_evaluation() {
        let root = SysPath::new("/sys/devices/usb1/1-1");
        let looked_at = RequestEntry {
            roots: [root.clone()].into(),
            companions: [(root.clone(), root.clone())].into(),
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
