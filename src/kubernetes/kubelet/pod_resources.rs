//! Which container has which units, from kubelet's pod-resources service, and when a unit is free
//! again.
//!
//! The service has no events (kubelet's pkg/apis/podresources/v1/api.proto), so it is polled. An
//! allocated unit is not listed before its pod is active, and a starting kubelet lists no pods.
//! Therefore a unit that is no longer listed counts as free only after a grace period. Must not
//! know what the result is used for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::api;
use super::grpc::{CallError, Client};

/// The timeout of a call.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The longest interval between two calls.
const MAX_INTERVAL: Duration = Duration::from_secs(30);

/// The longest interval while devices of USB/IP servers are advertised: other nodes wait for
/// devices that a pod releases.
const SHORT_INTERVAL: Duration = Duration::from_secs(2);

/// Units by resource, and the container (`namespace/pod/container`) that has each.
pub(crate) type Holders = BTreeMap<String, BTreeMap<String, String>>;

/// The units in use: those that kubelet lists now, and those that it has listed within the grace
/// period.
#[derive(Debug, Clone, Default)]
pub(crate) struct UnitsInUse {
    pub now: Holders,
    /// When each unit was last listed, by resource and unit.
    seen: BTreeMap<(String, String), Instant>,
}

impl UnitsInUse {
    /// Applies a new list. Units that have not been listed for `grace` are dropped.
    pub(crate) fn update(&mut self, listed: Holders, now: Instant, grace: Duration) {
        for (resource, units) in &listed {
            for unit in units.keys() {
                self.seen.insert((resource.clone(), unit.clone()), now);
            }
        }
        self.seen.retain(|_, seen| now.duration_since(*seen) < grace);
        self.now = listed;
    }

    /// Drops units that are known to be free.
    pub(crate) fn forget(&mut self, units: &BTreeSet<String>) {
        self.seen.retain(|(_, unit), _| !units.contains(unit));
    }

    /// The units of a resource that are in use.
    pub(crate) fn units(&self, resource: &str) -> BTreeSet<String> {
        let units = self.seen.keys().filter(|(name, _)| name == resource);
        units.map(|(_, unit)| unit.clone()).collect()
    }

    /// The resources of which a unit is in use.
    pub(crate) fn resources(&self) -> BTreeSet<&str> {
        self.seen.keys().map(|(resource, _)| resource.as_str()).collect()
    }

    /// The container that has a unit, in the last list.
    pub(crate) fn holder(&self, resource: &str, unit: &str) -> Option<&str> {
        Some(self.now.get(resource)?.get(unit)?.as_str())
    }
}

/// Lists the holders forever (every 2 s if `often`) and sends each list. If kubelet does not
/// answer, logs it once and sends nothing.
pub(crate) async fn follow(
    socket: PathBuf,
    grace: Duration,
    mut often: watch::Receiver<bool>,
    answers: watch::Sender<Option<Holders>>,
) {
    let mut has_failed = false;
    loop {
        let max_interval = if *often.borrow_and_update() {
            SHORT_INTERVAL
        } else {
            MAX_INTERVAL
        };
        let interval = (grace / 4).clamp(Duration::from_millis(50), max_interval);
        match list(&socket).await {
            Ok(holders) => {
                has_failed = false;
                answers.send_replace(Some(holders));
            }
            Err(error) => {
                if !has_failed {
                    warn!(
                        "cannot list pod resources from kubelet at {}: {error}; treating allocated devices as in use",
                        socket.display()
                    );
                } else {
                    debug!(
                        "cannot list pod resources from kubelet at {}: {error}",
                        socket.display()
                    );
                }
                has_failed = true;
            }
        }
        // A change to frequent polling takes effect at once.
        let _ = timeout(
            interval,
            often.wait_for(|often| *often && max_interval != SHORT_INTERVAL),
        )
        .await;
    }
}

/// Why there is no list.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListError {
    /// kubelet does not run, or rejected the call.
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("no response within {TIMEOUT:?}")]
    Timeout,
}

/// Lists which container has which units.
///
/// # Errors
///
/// If kubelet does not answer.
pub(crate) async fn list(socket: &std::path::Path) -> Result<Holders, ListError> {
    let call = async {
        let client = Client::connect(socket).await?;
        client
            .unary(
                api::pod_resources::LIST,
                api::pod_resources::ListPodResourcesRequest {},
            )
            .await
    };
    let response: api::pod_resources::ListPodResourcesResponse =
        timeout(TIMEOUT, call).await.map_err(|_| ListError::Timeout)??;
    Ok(holders(&response))
}

fn holders(response: &api::pod_resources::ListPodResourcesResponse) -> Holders {
    let mut holders = Holders::new();
    for pod in &response.pod_resources {
        for container in &pod.containers {
            let holder = format!("{}/{}/{}", pod.namespace, pod.name, container.name);
            for devices in &container.devices {
                let units = holders.entry(devices.resource_name.clone()).or_default();
                units.extend(devices.device_ids.iter().map(|id| (id.clone(), holder.clone())));
            }
        }
    }
    holders
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(60);

    fn listed(units: &[&str]) -> Holders {
        let units = units.iter().map(|unit| (unit.to_string(), "a/b/c".to_owned()));
        [("x/y".to_owned(), units.collect())].into()
    }

    #[test]
    fn a_unit_that_is_no_longer_listed_is_in_use_for_the_grace_period() {
        let (mut in_use, start) = (UnitsInUse::default(), Instant::now());
        in_use.update(listed(&["1", "2"]), start, GRACE);
        assert_eq!(in_use.holder("x/y", "1"), Some("a/b/c"));
        in_use.update(listed(&["2"]), start + GRACE / 2, GRACE);
        assert_eq!(in_use.holder("x/y", "1"), None);
        assert_eq!(in_use.units("x/y"), ["1".to_owned(), "2".to_owned()].into());
        in_use.update(listed(&["2"]), start + GRACE, GRACE);
        assert_eq!(in_use.units("x/y"), ["2".to_owned()].into());
        in_use.update(Holders::new(), start + GRACE * 2, GRACE);
        assert!(in_use.resources().is_empty());
    }
}
