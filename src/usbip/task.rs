//! What the USB/IP worker `oci-hotplug-usbip` does for a watcher, a hook or `oci-hotplug recover`:
//! a task as JSON on its standard input, and a reply as JSON on its standard output.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::remote::address::RemoteDevice;
use crate::model::remote::binding::{Binding, LastConnection};

/// One task of a worker. A worker ends after its reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// The state directory, with the records of attached devices.
    pub state_dir: PathBuf,
    /// What to do.
    pub work: Work,
}

/// What a worker does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// Attach a device for a container.
    Attach(AttachTask),
    /// Detach devices that were attached for containers.
    Release(Release),
}

/// A device to attach for a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachTask {
    /// The device that the container requests.
    pub device: RemoteDevice,
    /// The container that the device is reserved for.
    pub container: String,
    /// The connection that broke.
    pub last: Option<LastConnection>,
    /// The time for all of it.
    pub timeout: Duration,
}

/// Which devices are detached: only such as were attached for a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Release {
    /// Those of all containers that have ended.
    EndedContainers,
    /// Those of one container.
    Container(String),
    /// One device of one container.
    Device {
        /// The container.
        container: String,
        /// The device that it requested.
        device: RemoteDevice,
    },
    /// Those of one container whose attachment was begun and not finished.
    Unfinished(String),
}

/// The reply to [`Work::Attach`].
pub type AttachReply = Result<AttachedDevice, Failure>;

/// The reply to [`Work::Release`].
pub type ReleaseReply = Result<(), Failure>;

/// A device that a worker has attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedDevice {
    /// The device of this host.
    pub binding: Binding,
    /// How it differs from an ordinary attachment, for the log.
    pub note: Option<String>,
}

/// Why a task failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The error, with a hint.
    pub reason: String,
    /// Whether someone else has the device, and may release it soon.
    pub is_taken: bool,
}
