//! Errors of a watcher.

use std::path::PathBuf;

use crate::host::announcer::AnnouncerError;
use crate::host::container::ContainerError;
use crate::host::container::engine_namespace::EnterError;
use crate::host::container_dev::ContainerDevError;
use crate::host::filter::FilterError;
use crate::host::monitor::MonitorError;
use crate::host::process::ProcessError;
use crate::host::state::control::ControlError;
use crate::host::state::error::RegistryError;
use crate::host::udev_database::UdevDatabaseError;
use crate::model::oci::ContainerId;

/// A watcher cannot run.
#[derive(Debug, thiserror::Error)]
pub enum WatcherError {
    #[error("container {0} has no record in {1} (oci-hotplug-prestart or `oci-hotplug attach` creates it)")]
    NotEnrolled(ContainerId, PathBuf),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Container(#[from] ContainerError),
    #[error(transparent)]
    Enter(#[from] EnterError),
    /// An error about this process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Inside(#[from] EffectError),
    #[error(transparent)]
    Monitor(#[from] MonitorError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("cannot wait for events: {0}")]
    Wait(#[from] nix::errno::Errno),
}

/// A change in a container failed.
#[derive(Debug, thiserror::Error)]
pub enum EffectError {
    #[error(transparent)]
    Container(#[from] ContainerError),
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error(transparent)]
    Dev(#[from] ContainerDevError),
    #[error(transparent)]
    Announcer(#[from] AnnouncerError),
    #[error(transparent)]
    UdevDatabase(#[from] UdevDatabaseError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
}
