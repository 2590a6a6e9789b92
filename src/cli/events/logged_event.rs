//! One event that a watcher or hook logged, wherever the log is.

use anyhow::Result;
use serde::Serialize;

use super::timestamp::Timestamp;

/// One event of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct LoggedEvent {
    pub(super) time: Timestamp,
    pub(super) container: String,
    pub(super) event: String,
    /// The device's path in sysfs; `None` where the event is about all devices.
    pub(super) device: Option<String>,
    /// The node's path in the container.
    pub(super) node: Option<String>,
    pub(super) message: String,
}

/// Prints an event; fails when the reader of the output has ended.
pub(super) type Show<'a> = &'a mut dyn FnMut(LoggedEvent) -> Result<()>;
