//! udev's database of devices, through libudev.

use std::fs::symlink_metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use super::error::MonitorError;
use super::message::Properties;
use crate::host::file_system::number_of;
use crate::model::device::{DevNum, Device};
use crate::model::udev_database::DatabaseId;

/// Where udevd stores what it knows of devices: a file for each.
const DATABASE: &str = "/run/udev/data";

/// The database, as libudev reads it.
pub(super) struct Database {
    /// It holds nothing, but older versions insist on one.
    context: udev::Udev,
    /// When this was opened.
    opened: SystemTime,
}

/// What the database has of a device.
pub(super) enum Stored {
    /// The device does not exist any more.
    Gone,
    /// Only what it has of an earlier device with the same number.
    OfAnEarlierDevice,
    /// The device's properties. Those that udevd has not processed have only the kernel's.
    Properties { of_all: Properties, is_processed: bool },
}

impl Database {
    pub(super) fn open() -> Result<Self, MonitorError> {
        Ok(Self {
            context: udev::Udev::new().map_err(MonitorError::Database)?,
            opened: SystemTime::now(),
        })
    }

    /// What the database has of a device now.
    pub(super) fn read(&self, device: &Device) -> Stored {
        let path = device.syspath.as_path();
        let Ok(found) = udev::Device::from_syspath_with_context(self.context.clone(), path) else {
            return Stored::Gone;
        };
        let is_processed = found.is_initialized();
        if is_processed && !is_of_this_device(device, self.opened) {
            return Stored::OfAnEarlierDevice;
        }
        Stored::Properties {
            of_all: properties(&found),
            is_processed,
        }
    }
}

/// A libudev device's properties; bytes that are not UTF-8 are replaced.
fn properties(device: &udev::Device) -> Properties {
    let text = |bytes: &std::ffi::OsStr| bytes.to_string_lossy().into_owned();
    device
        .properties()
        .map(|entry| (text(entry.name()), text(entry.value())))
        .collect()
}

/// Whether the database's entry is of this device, not of an earlier one with the same number.
///
/// udevd removes an entry when it processes the removal, which may be long after another device has
/// the number. So the entry of a device that is newer than `since` counts only if it was written
/// after the kernel had created the node (drivers/base/devtmpfs.c; the time of creation of
/// statx(2), since Linux 6.0). For older devices nothing is compared, because the clock may have
/// been changed after they appeared; nor is it where a time is unknown.
fn is_of_this_device(device: &Device, since: SystemTime) -> bool {
    let Some(node) = &device.node else { return true };
    let created = creation(&node.path, node.num).filter(|created| *created >= since);
    let entry = format!("{DATABASE}/{}", DatabaseId::Number(node.num));
    let entry = symlink_metadata(entry).and_then(|entry| entry.modified());
    match (created, entry) {
        (Some(created), Ok(written)) => written > created,
        _ => true,
    }
}

/// When a node with this number was created.
fn creation(path: &Path, num: DevNum) -> Option<SystemTime> {
    let node = symlink_metadata(path).ok()?;
    let is_it = node.rdev() == number_of(num);
    is_it.then(|| node.created().ok()).flatten()
}
