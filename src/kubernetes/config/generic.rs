//! generic-device-plugin's groups of paths and of USB devices (its deviceplugin/path.go, usb.go).

use glob::Pattern;
use serde::Deserialize;

use super::{Fault, count, permissions};
use crate::model::device::Access;
use crate::model::selector::Selector;

/// The domain of its resources when its file names none.
pub(super) const GENERIC_DOMAIN: &str = "squat.ai";

/// One group: all its paths together are a unit, or each USB device is one.
#[derive(Debug, Clone)]
pub enum Group {
    /// Files and devices.
    Paths {
        /// The paths.
        paths: Vec<PathInGroup>,
        /// How many containers can have each.
        count: u32,
    },
    /// USB devices: their own nodes below /dev/bus/usb.
    Usb {
        /// Which, each a `usb:`.
        devices: Vec<Selector>,
        /// How many containers can have each.
        count: u32,
    },
}

/// One path of a group.
#[derive(Debug, Clone)]
pub struct PathInGroup {
    /// Which paths it stands for.
    pub pattern: Pattern,
    /// Where it goes in the container, if not to where it is on the host.
    pub mount_path: Option<String>,
    /// What the container may do.
    pub access: Access,
    /// How it goes there.
    pub kind: PathType,
    /// Whether a mount can only be read.
    pub read_only: bool,
    /// How often a match can serve where another path has more matches.
    pub limit: u32,
    /// Whether the group does without it.
    pub optional: bool,
}

/// How a path goes into a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum PathType {
    /// As a device node.
    #[default]
    Device,
    /// As a mount.
    Mount,
}

/// A group as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupText {
    count: Option<u32>,
    #[serde(default)]
    paths: Vec<PathText>,
    #[serde(default)]
    usb: Vec<UsbText>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PathText {
    path: String,
    mount_path: Option<String>,
    permissions: Option<String>,
    #[serde(rename = "type", default)]
    kind: PathType,
    #[serde(default)]
    read_only: bool,
    limit: Option<u32>,
    #[serde(default)]
    optional: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UsbText {
    vendor: UsbIdText,
    product: UsbIdText,
    serial: Option<String>,
}

/// Hex digits, quoted or not: YAML makes a number of `7523`, whose digits are meant, and of `0x7523`, whose value is.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum UsbIdText {
    Digits(u64),
    Text(String),
}

impl GroupText {
    pub(super) fn into_group(self) -> Result<Group, Fault> {
        let units = count("count", self.count.unwrap_or(1))?;
        match (self.paths.is_empty(), self.usb.is_empty()) {
            (true, true) => Err(Fault::Keys("a group needs paths or usb")),
            (false, false) => Err(Fault::Keys(
                "a group has paths or usb, and not both: make two groups of it",
            )),
            (false, true) => Ok(Group::Paths {
                paths: self.paths.into_iter().map(path).collect::<Result<_, _>>()?,
                count: units,
            }),
            (true, false) => Ok(Group::Usb {
                devices: self.usb.into_iter().map(usb).collect::<Result<_, _>>()?,
                count: units,
            }),
        }
    }
}

fn path(text: PathText) -> Result<PathInGroup, Fault> {
    let fault = |reason: &str| Fault::Glob {
        path: text.path.clone(),
        reason: reason.to_owned(),
    };
    if !text.path.starts_with('/') {
        return Err(fault("it must be absolute, such as /dev/ttyUSB*"));
    }
    let pattern = Pattern::new(&text.path).map_err(|error| fault(error.msg))?;
    Ok(PathInGroup {
        pattern,
        access: text.permissions.as_deref().map_or(Ok(Access::ALL), permissions)?,
        mount_path: text.mount_path.filter(|path| !path.is_empty()),
        kind: text.kind,
        read_only: text.read_only,
        limit: count("limit", text.limit.unwrap_or(1))?,
        optional: text.optional,
    })
}

fn usb(text: UsbText) -> Result<Selector, Fault> {
    Ok(Selector::Usb {
        vendor: usb_id("vendor", text.vendor)?,
        product: Some(usb_id("product", text.product)?),
        serial: text.serial.filter(|serial| !serial.is_empty()),
    })
}

fn usb_id(what: &'static str, id: UsbIdText) -> Result<String, Fault> {
    let text = match id {
        UsbIdText::Digits(digits) => digits.to_string(),
        UsbIdText::Text(text) => text,
    };
    let digits = text.strip_prefix("0x").unwrap_or(&text).to_ascii_lowercase();
    if digits.is_empty() || digits.len() > 4 || !digits.chars().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(Fault::UsbId { what, value: text });
    }
    Ok(format!("{digits:0>4}"))
}
