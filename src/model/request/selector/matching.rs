//! Whether a selector matches a device, and from which udev state on that is certain.
//!
//! Must not know the grammar (`grammar`).

use std::path::Path;

use super::Selector;
use crate::model::device::serial;
use crate::model::device::{Device, UdevState};
use crate::model::uevent::nodeless::SUBSYSTEMS;

/// The subsystem and class of disks and partitions.
const BLOCK: &str = "block";

impl Selector {
    /// Whether this matches the device itself, as far as its facts are known.
    pub fn matches(&self, device: &Device) -> bool {
        self.decided_by(device).is_some()
    }

    /// Whether this depends on facts that only udev knows (properties, tags, links).
    pub fn needs_udev(&self) -> bool {
        match self {
            Self::DevNode(_) | Self::Glob(_) | Self::Regex(_) | Self::Tag(_) | Self::Property { .. } => true,
            Self::Usb { .. }
            | Self::SysPath(_)
            | Self::Subsystem(_)
            | Self::Driver(_)
            | Self::Attr { .. }
            | Self::Port(_)
            | Self::Pci(_)
            | Self::Node(_)
            | Self::Usbip { .. } => false,
        }
    }

    /// Whether this can be true of a device that never has a node ([`nodeless`]).
    ///
    /// [`nodeless`]: crate::model::uevent::nodeless
    pub fn can_match_nodeless(&self) -> bool {
        match self {
            Self::Subsystem(name) => SUBSYSTEMS.contains(&name.as_str()),
            Self::SysPath(path) => !leads_elsewhere(path),
            Self::Tag(_) | Self::Property { .. } | Self::Attr { .. } => true,
            // They have neither a node, nor a link to it, nor a driver, and are not on a bus.
            Self::Usb { .. }
            | Self::DevNode(_)
            | Self::Glob(_)
            | Self::Regex(_)
            | Self::Driver(_)
            | Self::Port(_)
            | Self::Pci(_)
            | Self::Node(_)
            | Self::Usbip { .. } => false,
        }
    }

    /// Whether this can be true of a virtual block device ([`VIRTUAL_BLOCKS`]) or of its disk.
    ///
    /// [`VIRTUAL_BLOCKS`]: crate::model::uevent::unneeded::VIRTUAL_BLOCKS
    pub fn can_match_virtual_block(&self) -> bool {
        match self {
            Self::Subsystem(name) => name == BLOCK,
            Self::SysPath(path) => !leads_elsewhere(path) || path.iter().any(|name| name == BLOCK),
            // Every device can have a link of any name (SYMLINK of udev's rules).
            Self::DevNode(_) | Self::Glob(_) | Self::Regex(_) | Self::Node(_) => true,
            Self::Tag(_) | Self::Property { .. } | Self::Attr { .. } => true,
            // They are not on a bus, and have no driver.
            Self::Usb { .. } | Self::Driver(_) | Self::Port(_) | Self::Pci(_) | Self::Usbip { .. } => false,
        }
    }

    /// The earliest state whose facts suffice to say that this device matches; `None` if it does
    /// not match.
    pub fn decided_by(&self, device: &Device) -> Option<UdevState> {
        match self {
            Self::DevNode(path) => by_path(device, |node| node == path)
                // Until udevd has processed the device, the link can be left from a removed device
                // with the same node name.
                .or_else(|| when(device.aliases.contains(path), UdevState::Processed)),
            Self::Glob(pattern) => by_path(device, |path| pattern.matches_path(path)),
            Self::Regex(expression) => by_path(device, |path| expression.matches_path(path)),
            Self::Tag(name) => when(device.tags.contains(name), UdevState::Processed),
            Self::Property { key, pattern } => {
                let value = device.properties.get(key);
                when(
                    value.is_some_and(|value| pattern.matches_value(value)),
                    UdevState::Processed,
                )
            }
            _ => when(self.is_true_in_sysfs(device), UdevState::Pending),
        }
    }

    /// Evaluates selectors for which the kernel's facts suffice.
    fn is_true_in_sysfs(&self, device: &Device) -> bool {
        match self {
            Self::Usb {
                vendor,
                product,
                serial,
            } => {
                is_usb_device(device)
                    && has_hex(device, "idVendor", Some(vendor))
                    && has_hex(device, "idProduct", product.as_deref())
                    && has_serial(device, serial.as_deref())
            }
            Self::SysPath(path) => device.syspath.as_path() == path || device.aliases.contains(path),
            Self::Subsystem(name) => device.subsystem.as_ref() == Some(name),
            Self::Driver(name) => device.driver.as_ref() == Some(name),
            Self::Attr { name, pattern } => device
                .attribute(name)
                .is_some_and(|value| pattern.matches_value(value)),
            Self::Port(port) => is_usb_device(device) && device.syspath.name() == port,
            Self::Pci(address) => {
                device.subsystem.as_deref() == Some("pci") && device.syspath.name() == address
            }
            Self::Node(path) => device.node.as_ref().is_some_and(|node| node.path == *path),
            _ => false,
        }
    }
}

/// Whether a path of sysfs certainly does not lead to a device of [`SUBSYSTEMS`]: it names a device
/// of a bus or of another class, or the place of a USB device.
fn leads_elsewhere(path: &Path) -> bool {
    let Some(path) = path.to_str() else { return false };
    let names: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let is_plain = names.iter().all(|name| !matches!(*name, "" | "." | ".."));
    let is_below_nodeless = names.iter().any(|name| SUBSYSTEMS.contains(name));
    let is_elsewhere = match names[..] {
        ["sys", "bus", _, "devices", _] | ["sys", "block", _] => true,
        ["sys", "class", class, _] => !SUBSYSTEMS.contains(&class),
        ["sys", "devices", .., name] => is_usb_port(name),
        _ => false,
    };
    is_plain && !is_below_nodeless && is_elsewhere
}

/// Whether a device has the name of one on USB: `usb1`, `1-1.4` (drivers/usb/core/usb.c,
/// usb_alloc_dev). No link in a device's directory is named so; an interface can be (`net/usb0`).
fn is_usb_port(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    match name.split_once('-') {
        Some((bus, ports)) => is_number(bus) && ports.split('.').all(is_number),
        None => name.strip_prefix("usb").is_some_and(is_number),
    }
}

/// The kernel chooses the node's own path, udev the links to it.
fn by_path(device: &Device, is_it: impl Fn(&Path) -> bool) -> Option<UdevState> {
    let own = device.node.as_ref().is_some_and(|node| is_it(&node.path));
    let linked = || device.links.iter().any(|link| is_it(link));
    when(own, UdevState::Pending).or_else(|| when(linked(), UdevState::Processed))
}

fn when(is_so: bool, decided: UdevState) -> Option<UdevState> {
    is_so.then_some(decided)
}

/// Whether it is a device, not an interface; both are of the subsystem usb.
fn is_usb_device(device: &Device) -> bool {
    device.subsystem.as_deref() == Some("usb") && device.devtype.as_deref() == Some("usb_device")
}

fn has_hex(device: &Device, attribute: &str, wanted: Option<&str>) -> bool {
    wanted.is_none_or(|wanted| {
        device
            .attribute(attribute)
            .is_some_and(|id| id.eq_ignore_ascii_case(wanted))
    })
}

fn has_serial(device: &Device, wanted: Option<&str>) -> bool {
    wanted.is_none_or(|wanted| {
        device
            .attribute("serial")
            .is_some_and(|actual| serial::same(actual, wanted))
    })
}
