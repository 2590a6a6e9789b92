//! Clients that wait until the devices that are present are attached.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use crate::host::state::control::{ControlClient, ControlResponse};
use crate::model::request::id::RequestId;

pub(super) struct Waiter {
    recipient: Recipient,
    since: Instant,
    until: Instant,
    /// The requests that the client waits for: the required ones must have their devices.
    requests: Vec<RequestId>,
}

/// Where the response goes.
pub(super) enum Recipient {
    /// To the hook that started this watcher, through the watcher's former standard output.
    Starter(File),
    /// To a client of the control socket.
    Client(ControlClient),
}

pub(super) struct Waiters {
    waiters: Vec<Waiter>,
    timeout: Duration,
}

impl Waiters {
    /// Without waiters. Each waiter gets its response after `timeout` at the latest.
    pub(super) fn new(timeout: Duration) -> Self {
        Self {
            waiters: Vec::new(),
            timeout,
        }
    }

    /// Adds a client that waits for these requests from now on.
    pub(super) fn add(&mut self, recipient: Recipient, requests: Vec<RequestId>) {
        self.waiters.push(Waiter {
            recipient,
            since: Instant::now(),
            until: Instant::now() + self.timeout,
            requests,
        });
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Whether a container start waits.
    pub(super) fn has_starter(&self) -> bool {
        self.waiters.iter().any(Waiter::is_starter)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Waiter> {
        self.waiters.iter()
    }

    /// Removes and returns the waiters that are ready; `ready` has the order of [`Waiters::iter`].
    pub(super) fn take(&mut self, ready: &[bool]) -> Vec<Waiter> {
        let mut taken = Vec::new();
        for (waiter, is_ready) in std::mem::take(&mut self.waiters).into_iter().zip(ready) {
            if *is_ready {
                taken.push(waiter);
            } else {
                self.waiters.push(waiter);
            }
        }
        taken
    }
}

impl Waiter {
    pub(super) fn is_starter(&self) -> bool {
        matches!(self.recipient, Recipient::Starter(_))
    }

    pub(super) fn requests(&self) -> &[RequestId] {
        &self.requests
    }

    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// The time at which the waiter gets its response at the latest.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    pub(super) fn reply(self, response: &ControlResponse) {
        match self.recipient {
            Recipient::Client(mut client) => client.respond(response),
            Recipient::Starter(mut pipe) => {
                let Ok(mut text) = serde_json::to_vec(response) else {
                    return;
                };
                text.push(b'\n');
                if let Err(error) = pipe.write_all(&text) {
                    tracing::warn!("cannot send the response to the hook: {error}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek};

    #[test]
    fn ready_waiters_get_their_response_in_order() {
        let files = [(); 3].map(|()| tempfile::tempfile().unwrap());
        let mut waiters = Waiters::new(Duration::from_secs(3));
        let mut id = RequestId::FIRST;
        for file in &files {
            waiters.add(Recipient::Starter(file.try_clone().unwrap()), vec![id]);
            id = id.next();
        }
        assert!(waiters.has_starter());
        let ready = waiters.take(&[true, false, true]);
        let requests: Vec<RequestId> = ready
            .iter()
            .flat_map(|waiter| waiter.requests().to_vec())
            .collect();
        assert_eq!(requests, [RequestId::FIRST, RequestId::FIRST.next().next()]);
        assert_eq!(waiters.iter().count(), 1);
        let waiter = waiters.iter().next().unwrap();
        assert_eq!(waiter.until().duration_since(waiter.since()).as_secs(), 3);
        for waiter in ready {
            waiter.reply(&ControlResponse::Done);
        }
        for (mut file, expected) in files.into_iter().zip(["\"done\"\n", "", "\"done\"\n"]) {
            let mut text = String::new();
            file.rewind().unwrap();
            file.read_to_string(&mut text).unwrap();
            assert_eq!(text, expected);
        }
    }
}
