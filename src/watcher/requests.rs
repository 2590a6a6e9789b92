//! Handles requests from the control socket.

use super::Watcher;
use super::error::EffectError;
use super::waiters::Recipient;
use crate::host::state::control::{ControlClient, ControlRequest, ControlResponse};
use crate::model::request::Request;
use crate::model::request::entry::RequestEntry;
use crate::model::request::id::RequestId;
use crate::model::request::symlink::SymlinkRule;

impl Watcher {
    /// Handles one request. A response that has to wait is sent by `reply_to_ready_waiters`.
    pub(super) fn handle_request(&mut self, mut client: ControlClient, request: ControlRequest) {
        self.world.catch_up(&self.planner);
        let response = match request {
            ControlRequest::HandOver => return self.handover.request(client),
            ControlRequest::Reload => match self.reload() {
                Ok(()) => ControlResponse::Done,
                Err(problem) => ControlResponse::Failed(problem),
            },
            ControlRequest::Status => ControlResponse::Status(Box::new(self.status())),
            ControlRequest::Add { container, .. } | ControlRequest::Remove { container, .. }
                if !self.inside.is_of(&container) =>
            {
                ControlResponse::Gone
            }
            ControlRequest::Add {
                entries, symlinks, ..
            } => match self.add(entries, symlinks) {
                Ok(requests) => return self.waiters.add(Recipient::Client(client), requests),
                Err(error) => ControlResponse::Failed(error.to_string()),
            },
            ControlRequest::Remove { entries, .. } => match self.remove(&entries) {
                Ok(()) => ControlResponse::Done,
                Err(error) => ControlResponse::Failed(error.to_string()),
            },
        };
        client.respond(&response);
    }

    /// Adds requests, writes the new ones into the record, and returns the ids of all of `entries`.
    ///
    /// # Errors
    /// When the record cannot be written.
    fn add(
        &mut self,
        entries: Vec<RequestEntry>,
        symlinks: Vec<SymlinkRule>,
    ) -> Result<Vec<RequestId>, EffectError> {
        let mut grown = self.planner.clone();
        let requests: Vec<Request> = entries.iter().map(|entry| entry.request.clone()).collect();
        grown.add(entries, symlinks);
        self.inside.record_requests(&grown)?;
        self.planner = grown;
        self.update_remotes();
        self.world
            .set_facts_needed(&self.planner, self.admission.policy());
        self.try_enumerate();
        self.reconcile();
        let ids = requests.iter().filter_map(|request| self.planner.id_of(request));
        Ok(ids.collect())
    }

    /// Removes requests, and detaches what no other request selects. The remaining ones are written
    /// into the record.
    ///
    /// # Errors
    /// When the record or the notes cannot be written.
    fn remove(&mut self, entries: &[RequestEntry]) -> Result<(), EffectError> {
        let mut shrunk = self.planner.clone();
        let first = shrunk.remove(entries);
        // The notes identify roots by the index of their request in the record. If the watcher
        // crashes between the two writes, no root may be attributed to a wrong request.
        self.inside.note_first_roots(&shrunk, first);
        self.inside.write_notes()?;
        self.inside.record_requests(&shrunk)?;
        self.planner = shrunk;
        self.world
            .set_facts_needed(&self.planner, self.admission.policy());
        // Failures of the removed requests do not matter any more; the others may be tried again
        // now.
        self.retries.clear();
        self.reconcile();
        self.update_remotes();
        self.inside.write_notes()
    }

    /// Reads the configuration again, applies its policy, and tries again what has failed: the
    /// operator may have removed the cause.
    ///
    /// # Errors
    /// The reason why the configuration cannot be used, for the operator. Log and status show it,
    /// too; the previous policy stays in force.
    pub(super) fn reload(&mut self) -> Result<(), String> {
        if let Err(problem) = self.admission.reload(self.inside.state_dir()) {
            tracing::error!(container = %self.inside.id(), "{problem}");
            return Err(problem);
        }
        tracing::info!(container = %self.inside.id(), "the configuration was read again: its policy is in force");
        self.world
            .set_facts_needed(&self.planner, self.admission.policy());
        self.retries.clear();
        self.inside.ensure_database_now();
        self.try_enumerate();
        self.reconcile();
        self.update_remotes();
        Ok(())
    }
}
