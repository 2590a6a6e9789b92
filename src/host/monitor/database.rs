//! udev's database of devices, through libudev.

use super::error::MonitorError;
use super::message::Properties;

/// A libudev context; it holds nothing, but older versions insist on one.
pub(super) fn context() -> Result<udev::Udev, MonitorError> {
    udev::Udev::new().map_err(MonitorError::Database)
}

/// A libudev device's properties; bytes that are not UTF-8 are replaced.
pub(super) fn properties(device: &udev::Device) -> Properties {
    let text = |bytes: &std::ffi::OsStr| bytes.to_string_lossy().into_owned();
    device
        .properties()
        .map(|entry| (text(entry.name()), text(entry.value())))
        .collect()
}
