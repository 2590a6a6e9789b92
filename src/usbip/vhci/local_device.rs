//! The devices at the ports.

use std::path::PathBuf;

use super::attributes::{attribute, write_at_once};
use super::error::{VhciError, failed};
use crate::model::device::{DevKind, DevNum};
use crate::model::remote::address::UsbIds;

/// The kernel's major number for the nodes of USB devices, and the number of minors per bus
/// (drivers/usb/core/usb.h).
const USB_MAJOR: u32 = 189;
const NODES_OF_A_BUS: u32 = 128;

/// A remote device as this host's kernel sees it: by its descriptors, not by its server's
/// description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalDevice {
    /// The directory in sysfs.
    pub dir: PathBuf,
    /// The name in sysfs, such as `3-1`.
    pub name: String,
    /// The number on its bus: a bus does not give two devices in a row the same number.
    pub devnum: u32,
    pub ids: UsbIds,
}

impl LocalDevice {
    /// `None` until the kernel has created the whole directory: it adds one attribute after
    /// another, `dev` behind all that describe the device, and then sends the event
    /// (drivers/base/core.c, device_add). Without this, a device would seem to have no serial
    /// number.
    pub(super) fn read(dir: PathBuf) -> Option<Self> {
        attribute(&dir, "dev")?;
        let id = |name| u16::from_str_radix(&attribute(&dir, name)?, 16).ok();
        Some(Self {
            name: dir.file_name()?.to_str()?.to_owned(),
            devnum: attribute(&dir, "devnum")?.parse().ok()?,
            ids: UsbIds {
                vendor: id("idVendor")?,
                product: id("idProduct")?,
            },
            dir,
        })
    }

    /// The number of its raw node in /dev/bus/usb.
    pub fn raw_node(&self) -> Option<DevNum> {
        raw_node(&self.name, self.devnum)
    }

    /// The serial number, if it has one. Reading it waits for the lock of the device
    /// (drivers/usb/core/sysfs.c, usb_string_attr), which the kernel holds while it configures the
    /// device: a server that hangs then would block the reader.
    pub fn serial(&self) -> Option<String> {
        attribute(&self.dir, "serial")
    }

    /// Lets the kernel configure the device and bind drivers. Takes as long as the device needs to
    /// answer: if its server hangs, until the device is detached.
    ///
    /// # Errors
    /// If the kernel refuses, or the device is gone.
    pub fn authorize(&self) -> Result<(), VhciError> {
        let path = self.dir.join("authorized");
        write_at_once(&path, "1").map_err(|error| failed("authorize a device by writing to", &path, error))
    }
}

/// The number of the raw node of the device with this name in sysfs, such as `3-1`, and this number
/// on its bus.
pub(in crate::usbip) fn raw_node(name: &str, devnum: u32) -> Option<DevNum> {
    let bus: u32 = name.split_once('-')?.0.parse().ok()?;
    Some(DevNum {
        kind: DevKind::Char,
        major: USB_MAJOR,
        minor: bus.checked_sub(1)? * NODES_OF_A_BUS + devnum.checked_sub(1)?,
    })
}
