//! Which container has what, from kubelet's pod-resources service; and when something is nobody's any more.
//!
//! The service can only be asked (kubelet's pkg/apis/podresources/v1/api.proto): now and then it is. A device that
//! Allocate gave is not listed before its pod is active, and kubelet lists nobody while it starts: what is listed no more
//! counts as free only after a grace period. Must not know what is done with that.

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

/// The longest interval while devices of USB/IP servers are advertised: other nodes wait for devices that a pod gives back.
const SHORT_INTERVAL: Duration = Duration::from_secs(2);

/// Units by resource, and the container (`namespace/pod/container`) that has each.
pub type Holders = BTreeMap<String, BTreeMap<String, String>>;

/// What is known of who has what.
#[derive(Debug, Clone, Default)]
pub struct Held {
    /// The last answer.
    pub now: Holders,
    /// When something was listed last, or first heard of: units by resource.
    seen: BTreeMap<(String, String), Instant>,
}

impl Held {
    /// Takes a new answer in; what has not been listed for longer than `grace` is forgotten.
    pub fn update(&mut self, listed: Holders, now: Instant, grace: Duration) {
        for (resource, units) in &listed {
            for unit in units.keys() {
                self.seen.insert((resource.clone(), unit.clone()), now);
            }
        }
        self.seen.retain(|_, seen| now.duration_since(*seen) < grace);
        self.now = listed;
    }

    /// Nobody has these units any more, as others know.
    pub fn forget(&mut self, units: &BTreeSet<String>) {
        self.seen.retain(|(_, unit), _| !units.contains(unit));
    }

    /// The units of a resource that a container has, or had until a moment ago.
    pub fn units(&self, resource: &str) -> BTreeSet<String> {
        let of_it = self.seen.keys().filter(|(name, _)| name == resource);
        of_it.map(|(_, unit)| unit.clone()).collect()
    }

    /// The resources of which a container has something, or had until a moment ago.
    pub fn resources(&self) -> BTreeSet<&str> {
        self.seen.keys().map(|(resource, _)| resource.as_str()).collect()
    }

    /// Who has a unit.
    pub fn holder(&self, resource: &str, unit: &str) -> Option<&str> {
        Some(self.now.get(resource)?.get(unit)?.as_str())
    }
}

/// Requests again and again (every few seconds if `often`), and tells each answer. A kubelet that does not answer is said once; nothing is concluded then.
pub async fn follow(
    socket: PathBuf,
    grace: Duration,
    mut often: watch::Receiver<bool>,
    answers: watch::Sender<Option<Holders>>,
) {
    let mut said = false;
    loop {
        let max_interval = if *often.borrow_and_update() {
            SHORT_INTERVAL
        } else {
            MAX_INTERVAL
        };
        let interval = (grace / 4).clamp(Duration::from_millis(50), max_interval);
        match list(&socket).await {
            Ok(holders) => {
                said = false;
                answers.send_replace(Some(holders));
            }
            Err(error) => {
                if !said {
                    warn!(
                        "asking kubelet at {} who has what: {error}; until it answers, what was given counts as taken",
                        socket.display()
                    );
                } else {
                    debug!("asking kubelet at {}: {error}", socket.display());
                }
                said = true;
            }
        }
        // Who begins to wait for the answers is not to wait as long as those before him.
        let _ = timeout(
            interval,
            often.wait_for(|often| *often && max_interval != SHORT_INTERVAL),
        )
        .await;
    }
}

/// Why kubelet does not say.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// It refuses, or is away.
    #[error(transparent)]
    Call(#[from] CallError),
    /// It hangs.
    #[error("no answer within {TIMEOUT:?}")]
    NoAnswer,
}

/// Who has what now.
///
/// # Errors
/// When kubelet does not answer.
pub async fn list(socket: &std::path::Path) -> Result<Holders, ListError> {
    let asked = async {
        let client = Client::connect(socket).await?;
        client
            .unary(api::LIST_PODS, api::ListPodResourcesRequest {})
            .await
    };
    let answer: api::ListPodResourcesResponse =
        timeout(TIMEOUT, asked).await.map_err(|_| ListError::NoAnswer)??;
    Ok(holders(&answer))
}

fn holders(answer: &api::ListPodResourcesResponse) -> Holders {
    let mut holders = Holders::new();
    for pod in &answer.pod_resources {
        for container in &pod.containers {
            let who = format!("{}/{}/{}", pod.namespace, pod.name, container.name);
            for devices in &container.devices {
                let units = holders.entry(devices.resource_name.clone()).or_default();
                units.extend(devices.device_ids.iter().map(|id| (id.clone(), who.clone())));
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
    fn what_is_listed_no_more_is_held_for_a_grace_period() {
        let (mut held, start) = (Held::default(), Instant::now());
        held.update(listed(&["1", "2"]), start, GRACE);
        assert_eq!(held.holder("x/y", "1"), Some("a/b/c"));
        held.update(listed(&["2"]), start + GRACE / 2, GRACE);
        assert_eq!(held.holder("x/y", "1"), None);
        assert_eq!(held.units("x/y"), ["1".to_owned(), "2".to_owned()].into());
        held.update(listed(&["2"]), start + GRACE, GRACE);
        assert_eq!(held.units("x/y"), ["2".to_owned()].into());
        held.update(Holders::new(), start + GRACE * 2, GRACE);
        assert!(held.resources().is_empty());
    }
}
