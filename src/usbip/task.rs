//! The tasks of the USB/IP worker `oci-hotplug-usbip` for a watcher, a hook or `oci-hotplug
//! recover`: a task as JSON on standard input, and a reply as JSON on standard output.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::remote::address::RemoteDevice;
use crate::model::remote::binding::{Binding, LastConnection};

/// One task. A worker ends after its reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// The state directory, with the records of attached devices.
    pub state_dir: PathBuf,
    pub work: Work,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    Attach(AttachTask),
    Release(Release),
}

/// A device to attach for a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachTask {
    /// The device that the container requests.
    pub device: RemoteDevice,
    pub container: String,
    /// The previous connection, if it broke.
    pub last: Option<LastConnection>,
    /// The time limit for the whole task.
    pub timeout: Duration,
}

/// Which devices to detach: only devices that were attached for a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Release {
    /// All devices of containers that have ended.
    EndedContainers,
    /// All devices of one container.
    Container(String),
    /// One device of one container.
    Device {
        container: String,
        /// The device as requested.
        device: RemoteDevice,
    },
    /// The devices of one container whose attachment has begun and not finished.
    Unfinished(String),
}

/// The reply to [`Work::Attach`].
pub type AttachReply = Result<AttachedDevice, Failure>;

/// The reply to [`Work::Release`].
pub type ReleaseReply = Result<(), Failure>;

/// A device that a worker has attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedDevice {
    /// The local device.
    pub binding: Binding,
    /// How the attachment differs from an ordinary one, for the log.
    pub note: Option<String>,
}

/// Why a task failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The error, with a hint.
    pub reason: String,
    /// Whether another host or container has the device, and may release it soon.
    pub is_taken: bool,
}
