//! `oci-hotplug attach` and `detach`: change the requests of a running container.
//!
//! ```text
//! arguments ──> requests (also of classes, CDI devices) ──> target (the container, with a watcher)
//!           ──> Add | Remove ──> the watcher is in a separate unit ──> report
//! ```
//! Only the watcher changes anything inside.

mod report;
mod resolved;
mod separate_unit;
mod target;

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use self::resolved::ResolvedRequests;
use self::separate_unit::wait_for_separate_unit;
use self::target::{PATIENCE, Target};
use super::error::{Denied, Usage};
use super::request_word::request_text;
use crate::cdi::directories::{DEFAULT_DIRECTORIES, Specs};
use crate::host::config::Config;
use crate::host::rootless::rootless;
use crate::host::rootless_check::check_request;
use crate::host::state::control::{ControlRequest, ControlResponse, Status};
use crate::host::state::registry::Registry;
use crate::model::request::entry::{RequestEntry, Requests};

/// The container and what it is to get.
#[derive(Debug, Args)]
#[command(override_usage = "oci-hotplug attach [OPTIONS] <ID | --pid PID> REQUEST...")]
pub(super) struct Attach {
    /// The container (its id, the beginning of it, its name, or the name of its pod), and then
    /// requests as in the annotation io.oci-hotplug.devices, classes (class:NAME), or CDI devices
    /// (VENDOR/CLASS=NAME).
    #[arg(value_names = ["ID", "REQUEST"], num_args = 1.., required = true)]
    words: Vec<String>,
    /// The container that this process of the host is in, instead of ID.
    #[arg(long, value_name = "PID")]
    pid: Option<i32>,
    /// Another directory in which a runtime keeps its containers (its --root): ID is looked up
    /// there as well; can be given more than once.
    #[arg(long, value_name = "DIR")]
    runtime_root: Vec<PathBuf>,
    /// A directory with CDI specs; can be given more than once; later ones have precedence
    /// [default: /etc/cdi and /var/run/cdi].
    #[arg(long, value_name = "DIR")]
    cdi_dir: Vec<PathBuf>,
}

/// The container and what it is to lose.
#[derive(Debug, Args)]
pub(super) struct Detach {
    /// The container's id, the beginning of it, its name, or the name of its pod.
    #[arg(value_name = "ID")]
    id: String,
    /// What it requests, as `oci-hotplug inspect` shows it: requests or their selectors, classes
    /// (class:NAME), or CDI devices.
    #[arg(value_name = "REQUEST", required_unless_present = "all")]
    requests: Vec<String>,
    /// Remove all requests of the container.
    #[arg(long, conflicts_with = "requests")]
    all: bool,
}

/// Adds requests to those of a container, and prints what is attached for them.
pub(super) fn attach(arguments: &Attach, config: &Config, registry: &Registry, as_json: bool) -> Result<()> {
    let (id, requests) = arguments.id_and_requests()?;
    let resolved = arguments.resolve(&requests, config)?;
    let target = match (id, arguments.pid) {
        (_, Some(pid)) => Target::of_process(pid, registry, &arguments.runtime_root)?,
        (Some(id), None) => Target::named(&id, registry, &arguments.runtime_root)?,
        (None, None) => {
            bail!("no container is given: name its id or name, or --pid PID (oci-hotplug attach --help)")
        }
    };
    let before = target.watched_status(registry);
    match target.add(registry, config, resolved.requests.clone())? {
        ControlResponse::Done => {}
        refusal => {
            withdraw(&target, registry, &resolved.requests, before.as_ref());
            return Err(match refusal {
                ControlResponse::Refused(reason) => Denied(reason).into(),
                ControlResponse::Failed(reason) => anyhow::anyhow!("{reason} (nothing was attached)"),
                _ => anyhow::anyhow!(
                    "container {} has ended, and nothing was changed",
                    target.short_id()
                ),
            });
        }
    }
    wait_for_separate_unit(&target, registry, config);
    report::attached(
        &target,
        &target.status(registry)?,
        before.as_ref(),
        &resolved,
        as_json,
    )
}

impl Attach {
    /// The id, unless a process is named instead, and the requests; at least one.
    fn id_and_requests(&self) -> Result<(Option<String>, Vec<String>)> {
        let mut words = self.words.iter().map(|word| request_text(word));
        let id = match self.pid {
            Some(_) => None,
            None => words.next(),
        };
        let requests: Vec<String> = words.collect();
        if requests.is_empty() {
            return Err(Usage(
                "no request is given: name at least one after the container (oci-hotplug attach --help)"
                    .to_owned(),
            )
            .into());
        }
        Ok((id, requests))
    }

    fn resolve(&self, requests: &[String], config: &Config) -> Result<ResolvedRequests> {
        let specs = || {
            let directories = match &self.cdi_dir[..] {
                [] => DEFAULT_DIRECTORIES.map(PathBuf::from).to_vec(),
                named => named.to_vec(),
            };
            Specs::scan(&directories)
        };
        let resolved = ResolvedRequests::read(requests, &config.usable_classes(), specs)?;
        if rootless().is_some() {
            let mut entries = resolved.requests.entries.iter();
            entries.try_for_each(|entry| check_request(&entry.request))?;
        }
        Ok(resolved)
    }
}

/// Removes the requests that were just added and cannot be served.
fn withdraw(target: &Target, registry: &Registry, requests: &Requests, before: Option<&Status>) {
    let had = |entry: &&RequestEntry| {
        before.is_some_and(|before| before.requests.iter().any(|old| old.without_roots() == **entry))
    };
    let new: Vec<RequestEntry> = requests
        .entries
        .iter()
        .filter(|entry| !had(entry))
        .cloned()
        .collect();
    // A watcher that was started for this has ended, and taken everything back, by itself.
    let _ = target.ask(registry, &remove(target, new), PATIENCE);
}

fn remove(target: &Target, entries: Vec<RequestEntry>) -> ControlRequest {
    ControlRequest::Remove {
        container: target.facts().clone(),
        entries,
    }
}

/// Removes requests of a container, and prints which nodes are removed.
pub(super) fn detach(arguments: &Detach, registry: &Registry, as_json: bool) -> Result<()> {
    let target = Target::enrolled(&arguments.id, registry)?;
    let before = target.status(registry)?;
    let mut going: Vec<RequestEntry> = Vec::new();
    if arguments.all {
        going.extend(before.requests.iter().map(RequestEntry::without_roots));
    }
    for word in &arguments.requests {
        going.extend(resolved::named(&request_text(word), &before.requests)?);
    }
    match target.ask(registry, &remove(&target, going.clone()), PATIENCE)? {
        ControlResponse::Done => {}
        ControlResponse::Failed(reason) => bail!("{reason}"),
        _ => bail!(
            "container {} has ended, and nothing was changed",
            target.short_id()
        ),
    }
    report::detached(&target, &before, &target.status(registry)?, &going, as_json)
}
