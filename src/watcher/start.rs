//! Decides whether a container has what it needs for its start, and responds to the waiting
//! clients.

use std::time::Instant;

use super::Watcher;
use super::holders::Holders;
use super::waiters::Waiter;
use crate::host::state::control::ControlResponse;
use crate::model::device::SysPath;
use crate::model::plan::{NotAttached, Reason};
use crate::model::policy::Denial;
use crate::model::request::Request;
use crate::model::request::entry::RequestEntry;
use crate::model::request::id::RequestId;
use crate::model::request::selector::Match;

impl Watcher {
    /// Replies to the clients whose devices are attached, or whose time is over. Returns false if
    /// the container may not start.
    pub(super) fn reply_to_ready_waiters(&mut self) -> bool {
        if self.waiters.is_empty() {
            return true;
        }
        let now = Instant::now();
        let is_settled = self.world.is_settled();
        let is_ready = |waiter: &Waiter| {
            let awaits_remotes = self.awaits_remotes_until(waiter).is_some_and(|until| now < until);
            (is_settled || now >= waiter.until()) && !awaits_remotes
        };
        let ready: Vec<bool> = self.waiters.iter().map(is_ready).collect();
        let mut may_start = true;
        for waiter in self.waiters.take(&ready) {
            let response = self.response_to_start(waiter.requests());
            let is_failure = matches!(response, ControlResponse::Failed(_) | ControlResponse::Refused(_));
            if waiter.is_starter() && is_failure {
                // Before the hook gets the response, because then it removes the notes.
                self.inside.remove_all();
                may_start = false;
            }
            waiter.reply(&response);
        }
        may_start
    }

    /// Whether these requests have what they need for a start.
    fn response_to_start(&self, requests: &[RequestId]) -> ControlResponse {
        if let Some(reason) = self.denied_at_start(requests) {
            return ControlResponse::Refused(reason);
        }
        if let Some(reason) = self.retries.access_problem() {
            return ControlResponse::Failed(reason.to_owned());
        }
        if let Some(reason) = self.remotes.missing_at_start(requests, &self.planner) {
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
        let mut entries = self.planner.entries().iter();
        let is_any_required = entries.any(|entry| entry.request.options.required);
        match self.retries.first_reason() {
            Some(reason) if is_any_required => ControlResponse::Failed(reason.to_owned()),
            _ => ControlResponse::Done,
        }
    }

    /// The reason if the container may not start because the policy denies everything that one of
    /// these requests selects now.
    fn denied_at_start(&self, requests: &[RequestId]) -> Option<String> {
        let mut meant = self.planner.requests().filter(|(id, _)| requests.contains(id));
        let (entry, denial) = meant.find_map(|(id, entry)| Some((entry, self.denial_of_all(id, entry)?)))?;
        Some(format!(
            "device request {:?}: {denial}",
            entry.request.to_string()
        ))
    }

    /// The policy's denial, if it denies all devices that a request selects now.
    fn denial_of_all(&self, id: RequestId, entry: &RequestEntry) -> Option<&Denial> {
        let inventory = self.world.inventory();
        let candidates = self.planner.candidates(inventory);
        let mut selected = candidates
            .iter()
            .filter(|candidate| std::ptr::eq(candidate.entry, entry));
        if selected.any(|candidate| self.denial_of(id, &candidate.device.syspath).is_none()) {
            return None;
        }
        let has_node = |root: &&SysPath| {
            inventory.get(root).is_some_and(|device| {
                device.node.is_some() && entry.request.gives(root, device, inventory) != Match::No
            })
        };
        let roots = entry.roots.iter().filter(has_node);
        let denials: Option<Vec<&Denial>> = roots.map(|root| self.denial_of(id, root)).collect();
        denials?.into_iter().find(|denial| denial.refuses_start())
    }

    fn denial_of(&self, request: RequestId, device: &SysPath) -> Option<&Denial> {
        let mut not_attached = self.admission.not_attached().iter();
        not_attached.find_map(|not_attached| match &not_attached.reason {
            Reason::Denied(denial) if not_attached.request == request && not_attached.device == *device => {
                Some(denial)
            }
            _ => None,
        })
    }

    /// The reason if a container that starts lacks a required device because another container has
    /// it.
    fn required_and_waiting(&self, requests: &[RequestId]) -> Option<String> {
        let waiting = self.admission.not_attached().iter();
        let mut required = waiting.filter_map(|not_attached| {
            let Reason::Waiting(reason) = &not_attached.reason else {
                return None;
            };
            let request = self.planner.request(not_attached.request)?;
            let is_required = request.options.required && requests.contains(&not_attached.request);
            is_required.then_some((request, &not_attached.device, reason))
        });
        let (request, device, reason) = required.next()?;
        let holders = Holders::new(&self.inside, self.world.inventory());
        Some(format!(
            "device request {:?}: {reason}{}; the request is `required` (remove `;required` to start without the device and get it when it is released)",
            request.to_string(),
            holders.of(device)
        ))
    }

    /// Why a required request has no device.
    fn describe_absent(&self, id: RequestId, request: &Request) -> String {
        let mut not_attached = self.admission.not_attached().iter();
        let is_reserved = |not_attached: &&NotAttached| {
            not_attached.request == id && matches!(not_attached.reason, Reason::Reserved(_))
        };
        let reason = match not_attached.find(is_reserved) {
            Some(reserved) => format!("{}: {reserved}", reserved.path.display()),
            None => "no such device is present".to_owned(),
        };
        let request = request.to_string();
        format!(
            "device request {request:?}: {reason}; the request is `required` (plug the device in, or remove `;required` to start without it and get it later)"
        )
    }
}
