//! A watcher that `attach` has started: it must not end with the service that `attach` runs in.

use std::time::{Duration, Instant};

use super::target::Target;
use crate::cli::client::service_of;
use crate::cli::error::warn;
use crate::host::config::Config;
use crate::host::state::registry::Registry;
use crate::host::systemd::Manager;
use crate::watcher::systemd_unit::{manager, unit_uses};

/// How long systemd may take to start the watcher's unit. The watcher starts it several times
/// (`watcher::systemd_unit`).
const PATIENCE: Duration = Duration::from_secs(10);

const INTERVAL: Duration = Duration::from_millis(20);

/// Waits until the container's watcher is in a separate unit, if it is in the same service of
/// systemd as this process. Systemd ends all processes of a service with it (systemd.kill(5),
/// `KillMode=control-group`), and the watcher's unit takes over only when the watcher is idle.
///
/// Warns if that does not happen.
pub(super) fn wait_for_separate_unit(target: &Target, registry: &Registry, config: &Config) {
    let Some(service) = service_of("self") else {
        return;
    };
    let has_separate_unit = manager(config).is_some_and(Manager::has_unit) && unit_uses(&config.state_dir);
    let deadline = Instant::now() + PATIENCE;
    while is_watched_in(&service, target, registry) {
        if !has_separate_unit || Instant::now() >= deadline {
            return warn(&format!(
                "the watcher of container {} is in {service}, and ends with it, unless that has KillMode=process: then devices stay as they are until the container stops (`oci-hotplug recover` starts the watcher again)",
                target.short_id()
            ));
        }
        std::thread::sleep(INTERVAL);
    }
}

fn is_watched_in(service: &str, target: &Target, registry: &Registry) -> bool {
    target
        .watched_status(registry)
        .and_then(|status| service_of(status.watcher))
        .is_some_and(|other| other == service)
}
