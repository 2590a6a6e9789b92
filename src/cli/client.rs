//! The watchers as the operator's tool talks to them, through the control socket of each container.

use std::fmt::Display;
use std::time::{Duration, Instant};

use crate::host::state::control::{self, ControlError, ControlRequest, ControlResponse, Status};
use crate::host::state::registry::Registry;
use crate::host::systemd;
use crate::model::oci::ContainerId;

/// The pause between two requests to a watcher that is starting or ending.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// Sends a request to a container's watcher, and again to the next watcher if one is starting or
/// taking over.
///
/// # Errors
/// When the container has no watcher, or the watcher does not respond before the timeout.
pub(super) fn ask(
    registry: &Registry,
    id: &ContainerId,
    request: &ControlRequest,
    timeout: Duration,
) -> Result<ControlResponse, ControlError> {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline
            .saturating_duration_since(Instant::now())
            .max(RETRY_INTERVAL);
        match control::send_request(&registry.container_dir(id), request, left) {
            Err(error) if error.is_ended() && left > RETRY_INTERVAL && registry.is_watched(id) => {
                std::thread::sleep(RETRY_INTERVAL);
            }
            response => return response,
        }
    }
}

/// The watcher's status; `None` when the container has no watcher, or the watcher does not answer
/// before the timeout.
pub(super) fn status(registry: &Registry, id: &ContainerId, timeout: Duration) -> Option<Status> {
    match ask(registry, id, &ControlRequest::Status, timeout) {
        Ok(ControlResponse::Status(status)) => Some(*status),
        _ => None,
    }
}

/// Makes a watcher read the configuration again.
///
/// # Errors
/// Why the watcher keeps its previous policy.
pub(super) fn reload(registry: &Registry, id: &ContainerId, timeout: Duration) -> Result<(), String> {
    match ask(registry, id, &ControlRequest::Reload, timeout) {
        Ok(ControlResponse::Done) => Ok(()),
        Ok(ControlResponse::Failed(reason)) => Err(reason),
        Ok(_) => Err(
            "unexpected response of the watcher, which may be of another version (`oci-hotplug recover --restart-watchers` replaces it)"
                .into(),
        ),
        Err(error) => Err(error.to_string()),
    }
}

/// The systemd unit of a watcher.
pub(super) fn unit_of(status: &Status) -> Option<String> {
    systemd::unit_in(&cgroups_of(status.watcher)?).map(str::to_owned)
}

/// The service of systemd that a process is in.
pub(super) fn service_of(process: impl Display) -> Option<String> {
    systemd::service_in(&cgroups_of(process)?).map(str::to_owned)
}

fn cgroups_of(process: impl Display) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{process}/cgroup")).ok()
}
