//! USB/IP servers, asked again and again what they have to give.
//!
//! The protocol has no events. Each server has a task of its own, and each question a deadline for the whole of it: one
//! that is dead, or hangs, holds up no other, nor anything else here. Must not know what is wanted of them.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::snapshot::Exports;
use crate::model::remote::{BusId, Server, UsbIds};
use crate::usbip::client::{self, ClientError};

/// The interval between two lists of a server.
const INTERVAL: Duration = Duration::from_secs(2);
/// The longest interval after a list that failed.
const MAX_INTERVAL: Duration = Duration::from_secs(10);
/// The timeout of a list.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What a server exports that nobody has.
pub type Answer = Result<Vec<(BusId, UsbIds)>, ClientError>;

/// What is known of the servers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// What those export that answered when they were asked last.
    pub exports: Exports,
    /// Those that did not answer.
    silent: BTreeSet<Server>,
}

/// The servers that are asked.
pub struct Servers {
    asked: BTreeMap<Server, Asking>,
    known: watch::Sender<Known>,
}

/// A task that ends with this.
struct Asking(JoinHandle<()>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Servers {
    /// None so far.
    pub fn none() -> Self {
        Self {
            asked: BTreeMap::new(),
            known: watch::Sender::new(Known::default()),
        }
    }

    /// From now on these are asked, and no others.
    pub fn want(&mut self, servers: BTreeSet<Server>) {
        self.asked.retain(|server, _| servers.contains(server));
        self.known.send_if_modified(|known| {
            let before = known.exports.len();
            known.exports.retain(|server, _| servers.contains(server));
            known.silent.retain(|server| servers.contains(server));
            known.exports.len() < before
        });
        for server in servers {
            let asking = || Asking(tokio::spawn(follow(server.clone(), self.known.clone())));
            self.asked.entry(server.clone()).or_insert_with(asking);
        }
    }

    /// What is known, and each change of it.
    pub fn known(&self) -> watch::Receiver<Known> {
        self.known.subscribe()
    }

    /// Waits until each was asked once, but not for long.
    pub async fn heard(&self, at_most: Duration) {
        let mut known = self.known();
        let heard = known.wait_for(|known| known.exports.len() + known.silent.len() >= self.asked.len());
        // What is known by then is what there is.
        let _ = timeout(at_most, heard).await;
    }
}

/// Requests one.
///
/// # Errors
/// When it does not answer in time.
fn ask(server: &Server) -> Answer {
    let exported = client::list(server, Instant::now() + TIMEOUT)?;
    Ok(exported
        .into_iter()
        .map(|device| (device.busid, device.ids))
        .collect())
}

/// Requests all at once.
pub fn ask_all(servers: &BTreeSet<Server>) -> Vec<(&Server, Answer)> {
    thread::scope(|scope| {
        let asked: Vec<_> = servers
            .iter()
            .map(|server| (server, scope.spawn(|| ask(server))))
            .collect();
        let answers = asked.into_iter();
        answers
            .map(|(server, asked)| (server, asked.join().expect("asking does not panic")))
            .collect()
    })
}

/// Requests a server for as long as this runs. What it does wrong is said once.
async fn follow(server: Server, known: watch::Sender<Known>) {
    let (mut failures, mut said) = (0, String::new());
    loop {
        let asked = server.clone();
        let answer = match spawn_blocking(move || ask(&asked)).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match &answer {
            Ok(_) => {
                if !std::mem::take(&mut said).is_empty() {
                    info!("usbip server {server} answers again");
                }
                failures = 0;
            }
            Err(error) => {
                if *error != said {
                    warn!("{error}; what it exports is withdrawn, but for what pods have");
                    said.clone_from(error);
                }
                failures += 1;
            }
        }
        known.send_if_modified(|known| note(known, &server, answer.ok()));
        sleep(interval(failures, &server)).await;
    }
}

/// Takes in an answer; whether it says something else than the one before.
fn note(known: &mut Known, server: &Server, answer: Option<Vec<(BusId, UsbIds)>>) -> bool {
    let before = (known.exports.get(server).cloned(), known.silent.contains(server));
    match answer {
        Some(exported) => {
            known.silent.remove(server);
            known.exports.insert(server.clone(), exported);
        }
        None => {
            known.exports.remove(server);
            known.silent.insert(server.clone());
        }
    }
    before != (known.exports.get(server).cloned(), known.silent.contains(server))
}

/// The interval after so many failures: longer each time, with a jitter so that a cluster's nodes do not connect all at
/// once.
fn interval(failures: u32, server: &Server) -> Duration {
    let interval = match failures {
        0 => INTERVAL,
        _ => Duration::from_secs(1 << (failures - 1).min(8)).min(MAX_INTERVAL),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let jitter = (now.subsec_nanos() ^ std::process::id() ^ u32::from(server.port())) % 512;
    interval.mul_f32(0.75 + jitter as f32 / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_server_is_asked_ever_more_seldom_and_never_in_step() {
        let server: Server = "lab".parse().unwrap();
        for (failures, about) in [
            (0, 2.0),
            (1, 1.0),
            (2, 2.0),
            (3, 4.0),
            (4, 8.0),
            (5, 10.0),
            (99, 10.0),
        ] {
            let interval = interval(failures, &server).as_secs_f32();
            assert!(
                (about * 0.74..about * 1.26).contains(&interval),
                "{failures}: {interval}"
            );
        }
    }

    #[test]
    fn only_news_wake() {
        let (mut known, server) = (Known::default(), "lab".parse().unwrap());
        let device: (BusId, UsbIds) = (
            "1-1".parse().unwrap(),
            UsbIds {
                vendor: 1,
                product: 2,
            },
        );
        for (answer, is_news) in [
            (None, true),
            (None, false),
            (Some(vec![device.clone()]), true),
            (Some(vec![device]), false),
            (Some(vec![]), true),
            (None, true),
        ] {
            assert_eq!(note(&mut known, &server, answer), is_news);
        }
    }
}
