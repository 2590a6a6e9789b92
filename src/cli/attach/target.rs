//! The container that is meant: one that is enrolled, or one that runs without us and is enrolled
//! now.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cli::client;
use crate::cli::engine_name::name_of;
use crate::cli::enrolled::{Enrolled, check_access, find_id};
use crate::host::config::Config;
use crate::host::container::ContainerFacts;
use crate::host::runtime_state::{self, RunningContainer};
use crate::host::state::control::{ControlError, ControlRequest, ControlResponse, Status};
use crate::host::state::record::Record;
use crate::host::state::registry::Registry;
use crate::model::oci::ContainerId;
use crate::model::oci::engine::short_id;
use crate::model::request::annotations;
use crate::model::request::entry::Requests;
use crate::watcher::enroll::{EnrollError, Enroller, enroll};

/// How long a watcher may take to answer. No container's start waits for us, as it does for a hook;
/// and the watcher may have many to serve before it comes to our question.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A container that runs.
pub(super) struct Target {
    id: ContainerId,
    running: RunningContainer,
}

impl Target {
    /// The container with this id or name, whether it is enrolled or not.
    pub(super) fn named(id: &str, registry: &Registry, runtime_roots: &[PathBuf]) -> Result<Self> {
        check_access(registry)?;
        // Another attach may be enrolling it, so that it has no record yet: ask the runtime.
        if let Some(enrolled) = Enrolled::search(registry, id)?.filter(|enrolled| enrolled.record.is_some()) {
            return Self::of_record(enrolled);
        }
        let roots = runtime_state::roots(runtime_roots);
        let all = runtime_state::running(&roots);
        let names: Vec<(ContainerId, Option<String>)> = all
            .iter()
            .filter_map(|running| {
                let id = running.facts.id.parse().ok()?;
                Some((id, name_of(&record_of(running.clone()))))
            })
            .collect();
        let Some(found) = find_id(&names, id)? else {
            let looked = match &roots[..] {
                [] => "no directory of a runtime exists here".to_owned(),
                roots => {
                    let roots: Vec<String> = roots.iter().map(|root| root.display().to_string()).collect();
                    format!("looked in {}", roots.join(", "))
                }
            };
            bail!(
                "no running container {id:?} is known to oci-hotplug, nor to runc, crun or youki ({looked}; --runtime-root names another directory, --pid a process of the container; for a rootless engine, run this as its user)"
            );
        };
        let running = all.into_iter().find(|running| running.facts.id == found.as_str());
        Ok(Self {
            running: running.with_context(|| format!("container {found} has ended"))?,
            id: found,
        })
    }

    /// The container that a process is in.
    pub(super) fn of_process(pid: i32, registry: &Registry, runtime_roots: &[PathBuf]) -> Result<Self> {
        check_access(registry)?;
        let process = runtime_state::of_process(pid)?;
        let is_it = |facts: &ContainerFacts| {
            (facts.pid, facts.start_time) == (process.facts.pid, process.facts.start_time)
        };
        let records = registry
            .ids()?
            .into_iter()
            .filter_map(|id| registry.record(&id).ok()?);
        let enrolled = records
            .map(|record| RunningContainer {
                facts: record.container,
                traits: record.traits,
            })
            .find(|running| is_it(&running.facts));
        let known = || {
            runtime_state::running(&runtime_state::roots(runtime_roots))
                .into_iter()
                .find(|running| is_it(&running.facts))
        };
        let running = enrolled.or_else(known).unwrap_or(process);
        Ok(Self {
            id: running.facts.id.parse()?,
            running,
        })
    }

    /// The enrolled container with this id or name.
    pub(super) fn enrolled(id: &str, registry: &Registry) -> Result<Self> {
        Self::of_record(Enrolled::find(registry, id)?)
    }

    fn of_record(enrolled: Enrolled) -> Result<Self> {
        let name = enrolled.display_name();
        let record = enrolled.record.with_context(|| {
            format!("container {name} is starting or has ended: it has no record (`oci-hotplug list` shows the others)")
        })?;
        if !record.is_running() {
            bail!(
                "container {name} has ended: its process {} does not exist any more",
                record.container.pid
            );
        }
        Ok(Self {
            id: enrolled.id,
            running: RunningContainer {
                facts: record.container,
                traits: record.traits,
            },
        })
    }

    pub(super) fn id(&self) -> &ContainerId {
        &self.id
    }

    /// The id as engines print it.
    pub(super) fn short_id(&self) -> &str {
        short_id(self.id.as_str())
    }

    pub(super) fn facts(&self) -> &ContainerFacts {
        &self.running.facts
    }

    /// The status, if it has a watcher.
    pub(super) fn watched_status(&self, registry: &Registry) -> Option<Status> {
        self.status(registry).ok()
    }

    /// The status.
    pub(super) fn status(&self, registry: &Registry) -> Result<Status> {
        match self.ask(registry, &ControlRequest::Status, PATIENCE)? {
            ControlResponse::Status(status) => Ok(*status),
            _ => bail!(
                "unexpected response of the watcher of container {}, which may be of another version (`oci-hotplug recover --restart-watchers` replaces it)",
                self.short_id()
            ),
        }
    }

    /// Requests its watcher.
    pub(super) fn ask(
        &self,
        registry: &Registry,
        question: &ControlRequest,
        patience: Duration,
    ) -> Result<ControlResponse> {
        match client::ask(registry, &self.id, question, patience) {
            Err(ControlError::Connect { .. }) if !registry.is_watched(&self.id) => {
                Err(EnrollError::Unwatched(self.id.clone()).into())
            }
            answer => Ok(answer?),
        }
    }

    /// Adds requests to those of the container. A container without a watcher gets one.
    pub(super) fn add(
        &self,
        registry: &Registry,
        config: &Config,
        mut requests: Requests,
    ) -> Result<ControlResponse, EnrollError> {
        let RunningContainer { facts, traits } = self.running.clone();
        let annotated = annotations::udev_mode(&traits.annotations);
        requests.udev = annotated.ok().flatten().or(Some(config.udev));
        let record = Record::new(facts, requests, traits, config.named.clone());
        let deadline = Instant::now() + PATIENCE;
        enroll(registry, &self.id, &record, config, Enroller::Operator, deadline)
    }
}

/// The record of a container without requests.
fn record_of(running: RunningContainer) -> Record {
    Record::new(running.facts, Requests::default(), running.traits, None)
}
