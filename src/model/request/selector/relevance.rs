//! Whether a selector can match the device of a uevent, as far as the message alone shows.
//!
//! Must not know requests (`model::plan::relevance`), nor read anything of the host.

use std::path::Path;

use super::{DeviceSelector, Selector};
use crate::model::uevent::UeventForm;
use crate::model::uevent::facts::UeventFacts;

impl DeviceSelector {
    /// Whether the device itself may match a term that is not negated, now or after further facts
    /// are read. If not, no event of this device makes a device a root that was none before: each
    /// term that begins to match does so for the device of the event.
    pub fn may_match(&self, facts: &UeventFacts<'_>) -> bool {
        let mut positive = self.terms().iter().filter(|term| !term.negated);
        positive.any(|term| term.selector.may_match(facts))
    }

    /// Whether this can select a virtual block device, or what a virtual block device is below:
    /// each term that is not negated matches it or its disk, which has no parent.
    pub fn can_select_virtual_block(&self) -> bool {
        let mut positive = self.terms().iter().filter(|term| !term.negated);
        positive.all(|term| term.selector.can_match_virtual_block())
    }
}

impl Selector {
    /// Whether this may match the device itself. True for everything that the message does not
    /// show: attributes, and what udevd adds to the kernel's message.
    pub fn may_match(&self, facts: &UeventFacts<'_>) -> bool {
        let is_usb_device = || facts.subsystem == "usb" && facts.devtype == "usb_device";
        match self {
            Self::Usb { .. } => is_usb_device(),
            Self::Port(port) => is_usb_device() && facts.name() == port,
            Self::Pci(address) => facts.subsystem == "pci" && facts.name() == address,
            Self::Subsystem(name) => facts.subsystem == name,
            Self::Driver(name) => facts.driver == name,
            Self::DevNode(path) => {
                facts.is_node_at(path) || facts.links.split_whitespace().any(|link| Path::new(link) == path)
            }
            Self::Glob(pattern) => facts.has_path(|path| pattern.matches_path(path)),
            Self::Regex(expression) => facts.has_path(|path| expression.matches_path(path)),
            Self::SysPath(path) => may_lead_to(path, facts),
            Self::Attr { .. } | Self::Tag(_) => true,
            Self::Property { key, pattern } => match facts.form {
                UeventForm::Kernel => true,
                UeventForm::Udev => facts
                    .message
                    .property(key)
                    .is_some_and(|value| pattern.matches_value(&String::from_utf8_lossy(value))),
            },
            // A static node is not a device of a message, and no local fact shows a remote device.
            Self::Node(_) | Self::Usbip { .. } => false,
        }
    }
}

/// Whether a path of sysfs may lead to the device: the last component is its name, as with all
/// links of classes and buses, or its number, or cannot be compared. A link that exists already is
/// recognized by where it leads (`host::monitor`).
fn may_lead_to(path: &Path, facts: &UeventFacts<'_>) -> bool {
    let Some(last) = path
        .to_str()
        .and_then(|path| path.trim_end_matches('/').rsplit('/').next())
    else {
        return true;
    };
    let is_number = || last.split_once(':') == Some(facts.number);
    matches!(last, "" | "." | "..") || last == facts.name() || is_number()
}
