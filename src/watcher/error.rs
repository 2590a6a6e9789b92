//! Why a watcher can't work.

use std::path::PathBuf;

use crate::host::announcer::AnnouncerError;
use crate::host::container::ContainerError;
use crate::host::container_dev::ContainerDevError;
use crate::host::filter::FilterError;
use crate::host::monitor::MonitorError;
use crate::host::process::ProcessError;
use crate::host::state::control::ControlError;
use crate::host::state::error::RegistryError;
use crate::model::oci::ContainerId;

/// Why a watcher could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum WatcherError {
    /// There is nothing to watch.
    #[error("container {0} has no record in {1} (its hook enrolls it)")]
    NotEnrolled(ContainerId, PathBuf),
    /// The state directory.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The container.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// This process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Access, nodes or journal.
    #[error(transparent)]
    Inside(#[from] EffectError),
    /// Devices and events.
    #[error(transparent)]
    Monitor(#[from] MonitorError),
    /// The control socket.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The event loop.
    #[error("waiting for events: {0}")]
    Wait(#[from] nix::errno::Errno),
}

/// What can go wrong in a container.
#[derive(Debug, thiserror::Error)]
pub enum EffectError {
    /// The container itself.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// The device cgroup.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// Nodes and links.
    #[error(transparent)]
    Dev(#[from] ContainerDevError),
    /// Uevents.
    #[error(transparent)]
    Announcer(#[from] AnnouncerError),
    /// The notes.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}
