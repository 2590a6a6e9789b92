//! Those who wait until the devices that are present are in place, and what they are told.

use std::io::Write;
use std::time::{Duration, Instant};

use super::{Recipient, Waiter, Watcher};
use crate::host::state::control::{ControlClient, ControlRequest, ControlResponse};
use crate::model::plan::{NotAttached, Reason};
use crate::model::request::Request;
use crate::model::request::id::RequestId;

impl Waiter {
    /// Somebody who waits from now on, for these requests.
    pub(super) fn new(recipient: Recipient, requests: Vec<RequestId>, timeout: Duration) -> Self {
        Self {
            recipient,
            since: Instant::now(),
            until: Instant::now() + timeout,
            requests,
        }
    }

    fn reply(self, response: &ControlResponse) {
        match self.recipient {
            Recipient::ControlClient(mut client) => client.answer(response),
            Recipient::Starter(mut pipe) => {
                let Ok(mut text) = serde_json::to_vec(response) else {
                    return;
                };
                text.push(b'\n');
                if let Err(error) = pipe.write_all(&text) {
                    tracing::warn!("the hook did not take its answer: {error}");
                }
            }
        }
    }
}

impl Watcher {
    /// Answers those whose devices are in place, or who have waited long enough. The answer to the hook that
    /// started us is returned, because a failure ends us.
    pub(super) fn reply_to_ready_waiters(&mut self) -> Option<ControlResponse> {
        let mut to_starter = None;
        let settled = self.last_plan.pending.is_empty() && self.last_plan.unconfirmed_links.is_empty();
        let now = Instant::now();
        for waiter in std::mem::take(&mut self.waiters) {
            let awaited = self.remotes_awaited(&waiter.requests, waiter.since, waiter.until);
            if (!settled && now < waiter.until) || awaited.is_some_and(|until| now < until) {
                self.waiters.push(waiter);
                continue;
            }
            let answer = self.verdict(&waiter.requests);
            if matches!(waiter.recipient, Recipient::Starter(_)) {
                if matches!(answer, ControlResponse::Failed(_) | ControlResponse::Refused(_)) {
                    // Before it hears of that: then it removes the notes.
                    self.remove_all();
                }
                to_starter = Some(answer.clone());
            }
            waiter.reply(&answer);
        }
        to_starter
    }

    /// When the next waiter's time is over, or a device of another host is to be sought.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let awaited = |waiter: &Waiter| {
            let remotes = self.remotes_awaited(&waiter.requests, waiter.since, waiter.until);
            remotes.unwrap_or(waiter.until)
        };
        let timeout = self.waiters.iter().map(awaited);
        timeout
            .chain(self.next_attempt())
            .chain(self.removals.next())
            .min()
    }

    /// Whether these requests have what they need for a start.
    fn verdict(&self, requests: &[RequestId]) -> ControlResponse {
        if let Some(reason) = self.refused_at_start(requests) {
            return ControlResponse::Refused(reason);
        }
        if let Some(reason) = &self.access_problem {
            return ControlResponse::Failed(reason.clone());
        }
        if let Some(reason) = self.required_and_remote(requests) {
            return ControlResponse::Failed(reason);
        }
        let absent: Vec<String> = self
            .planner
            .required_and_absent()
            .filter(|(id, _)| requests.contains(id))
            .map(|(id, request)| self.describe_absent(id, request))
            .collect();
        if !absent.is_empty() {
            return ControlResponse::Failed(absent.join("; "));
        }
        if let Some(reason) = self.required_and_waiting(requests) {
            return ControlResponse::Failed(reason);
        }
        let required = self
            .planner
            .entries()
            .iter()
            .any(|entry| entry.request.options.required);
        match self.retries.values().next() {
            Some(retry) if required => ControlResponse::Failed(retry.reason.clone()),
            _ => ControlResponse::Done,
        }
    }

    /// Why nothing is there of a request, for whoever requires it.
    fn describe_absent(&self, id: RequestId, request: &Request) -> String {
        let mut not_attached = self.last_plan.not_attached.iter();
        let is_reserved = |it: &&NotAttached| it.request == id && matches!(it.reason, Reason::Reserved(_));
        let reason = match not_attached.find(is_reserved) {
            Some(reserved) => format!("{} is not for it: {reserved}", reserved.path.display()),
            None => "no such device is present".to_owned(),
        };
        let request = request.to_string();
        format!(
            "device request {request:?}: {reason}, and it is required (plug it in, or leave out `;required` to have it when it comes)"
        )
    }

    /// Deals with one question; an answer that has to wait is given by `reply_to_ready_waiters`.
    pub(super) fn handle_request(&mut self, mut client: ControlClient, request: ControlRequest) {
        match request {
            ControlRequest::HandOver => self.successor = Some(client),
            ControlRequest::Reload => client.answer(&match self.reload() {
                Ok(()) => ControlResponse::Done,
                Err(problem) => ControlResponse::Failed(problem),
            }),
            ControlRequest::Status => client.answer(&ControlResponse::Status(Box::new(self.status()))),
            ControlRequest::Add {
                container,
                entries,
                symlinks,
            } => {
                if !self.record.is_of(&container) {
                    client.answer(&ControlResponse::Gone);
                    return;
                }
                match self.add(entries, symlinks) {
                    Ok(requests) => self.waiters.push(Waiter::new(
                        Recipient::ControlClient(client),
                        requests,
                        self.ready_timeout,
                    )),
                    Err(error) => client.answer(&ControlResponse::Failed(error.to_string())),
                }
            }
            ControlRequest::Remove { container, entries } => {
                let answer = if !self.record.is_of(&container) {
                    ControlResponse::Gone
                } else {
                    match self.remove(&entries) {
                        Ok(()) => ControlResponse::Done,
                        Err(error) => ControlResponse::Failed(error.to_string()),
                    }
                };
                client.answer(&answer);
            }
        }
    }
}
