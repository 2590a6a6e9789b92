//! Lists the exports of USB/IP servers periodically.
//!
//! The protocol has no events. Each server has its own task, and each list a deadline, so a server
//! that is down or hangs delays nothing else. Must not know which devices are requested.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::snapshot::Exports;
use crate::host::backoff::{Backoff, jittered};
use crate::model::remote::address::{BusId, Server, UsbIds};
use crate::usbip::client::{self, ClientError};

/// The interval between two lists of a server.
const INTERVAL: Duration = Duration::from_secs(2);
/// The interval after the first failure: each is twice the one before.
const MIN_BACKOFF: Duration = Duration::from_secs(1);

/// The longest interval after a list that failed.
const MAX_INTERVAL: Duration = Duration::from_secs(10);
/// The timeout of a list.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The exported devices of a server that no host has imported.
pub(super) type ListResult = Result<Vec<(BusId, UsbIds)>, ClientError>;

/// The known state of the servers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// The exports of the servers whose last list succeeded.
    pub exports: Exports,
    /// The servers whose last list failed.
    failed: BTreeSet<Server>,
}

pub(super) struct Servers {
    tasks: BTreeMap<Server, Task>,
    known: watch::Sender<Known>,
}

/// A task that ends when this is dropped.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Servers {
    /// Lists no server.
    pub(super) fn none() -> Self {
        Self {
            tasks: BTreeMap::new(),
            known: watch::Sender::new(Known::default()),
        }
    }

    /// Lists exactly these servers from now on.
    pub(super) fn follow(&mut self, servers: BTreeSet<Server>) {
        self.tasks.retain(|server, _| servers.contains(server));
        self.known.send_if_modified(|known| {
            let before = known.exports.len();
            known.exports.retain(|server, _| servers.contains(server));
            known.failed.retain(|server| servers.contains(server));
            known.exports.len() < before
        });
        for server in servers {
            let start = || Task(tokio::spawn(poll(server.clone(), self.known.clone())));
            self.tasks.entry(server.clone()).or_insert_with(start);
        }
    }

    /// The state of the servers, and each change of it.
    pub(super) fn known(&self) -> watch::Receiver<Known> {
        self.known.subscribe()
    }

    /// Waits until each server has been listed once, but at most `at_most`.
    pub(super) async fn first_lists(&self, at_most: Duration) {
        let mut known = self.known();
        let all = known.wait_for(|known| known.exports.len() + known.failed.len() >= self.tasks.len());
        // The timeout is not an error: the remaining servers count as failed.
        let _ = timeout(at_most, all).await;
    }
}

/// Lists a server once.
///
/// # Errors
///
/// If it does not answer in time.
fn list(server: &Server) -> ListResult {
    let exported = client::list(server, Instant::now() + TIMEOUT)?;
    Ok(exported
        .into_iter()
        .map(|device| (device.busid, device.ids))
        .collect())
}

/// Lists all servers at the same time.
pub(super) fn list_all(servers: &BTreeSet<Server>) -> Vec<(&Server, ListResult)> {
    thread::scope(|scope| {
        let threads: Vec<_> = servers
            .iter()
            .map(|server| (server, scope.spawn(|| list(server))))
            .collect();
        let threads = threads.into_iter();
        threads
            .map(|(server, thread)| (server, thread.join().expect("listing does not panic")))
            .collect()
    })
}

/// Lists a server forever. Logs an error only once.
async fn poll(server: Server, known: watch::Sender<Known>) {
    let (mut backoff, mut logged) = (Backoff::new(MIN_BACKOFF), String::new());
    loop {
        let target = server.clone();
        let result = match spawn_blocking(move || list(&target)).await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let interval = match &result {
            Ok(_) => {
                if !std::mem::take(&mut logged).is_empty() {
                    info!("usbip server {server} answers again");
                }
                backoff.reset();
                INTERVAL
            }
            Err(error) => {
                if *error != logged {
                    warn!("{error}; its devices are withdrawn, except those that pods have");
                    logged.clone_from(error);
                }
                backoff.failed(MAX_INTERVAL)
            }
        };
        known.send_if_modified(|known| update(known, &server, result.ok()));
        sleep(jittered(interval)).await;
    }
}

/// Applies the result of a list (`None`: it failed). Returns whether anything changed.
fn update(known: &mut Known, server: &Server, result: Option<Vec<(BusId, UsbIds)>>) -> bool {
    let before = (known.exports.get(server).cloned(), known.failed.contains(server));
    match result {
        Some(exported) => {
            known.failed.remove(server);
            known.exports.insert(server.clone(), exported);
        }
        None => {
            known.exports.remove(server);
            known.failed.insert(server.clone());
        }
    }
    before != (known.exports.get(server).cloned(), known.failed.contains(server))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_wake_the_daemon() {
        let (mut known, server) = (Known::default(), "lab".parse().unwrap());
        let device: (BusId, UsbIds) = (
            "1-1".parse().unwrap(),
            UsbIds {
                vendor: 1,
                product: 2,
            },
        );
        for (result, is_change) in [
            (None, true),
            (None, false),
            (Some(vec![device.clone()]), true),
            (Some(vec![device]), false),
            (Some(vec![]), true),
            (None, true),
        ] {
            assert_eq!(update(&mut known, &server, result), is_change);
        }
    }
}
