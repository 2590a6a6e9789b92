//! `oci-hotplug recover`: gives every running container that requests devices a watcher, and
//! removes what others have left.
//!
//! It starts watchers, which do the work.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::json;

use super::client::status;
use super::enrolled::check_access;
use super::render::json::write_json_list;
use super::render::table::{self, print_line};
use crate::host::spawn::ChildState;
use crate::host::state::error::RegistryError;
use crate::host::state::registry::Registry;
use crate::host::state::{cgroup_owners, leases, leftovers};
use crate::model::oci::ContainerId;
use crate::model::oci::engine::short_id;
use crate::usbip::task::Release;
use crate::usbip::worker;
use crate::watcher::launch::{self, LaunchError};

/// How long a watcher may take to be ready. The previous one may have to finish an attempt first
/// (`handover`).
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// How long the watcher of an ended container may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a watcher may take to respond before it counts as stopped. During many events on a busy
/// host it takes a while.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(8);

/// How long a watcher that is ready may take to respond.
const STATUS_TIMEOUT: Duration = Duration::from_millis(200);

/// How long detaching the remote devices of ended containers may take.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(20);

/// How often a bounded wait checks again.
const CHECK_INTERVAL: Duration = Duration::from_millis(5);

/// What was done for one container.
#[derive(Debug, PartialEq, Eq)]
enum Done {
    /// Nothing: it has a watcher with this pid.
    Watched(i32),
    /// A watcher was started.
    Started(i32),
    /// The watcher was replaced: the pids of the old and the new one.
    Restarted(i32, i32),
    /// Nothing: its hook runs.
    Starting,
    /// The container has ended, and its record is removed.
    Swept,
    /// It could not be recovered, for this reason.
    Failed(String),
}

/// Recovers all containers, and prints what was done for each.
pub(super) fn run(registry: &Registry, restart_watchers: bool, as_json: bool) -> Result<()> {
    check_access(registry)?;
    let mut all = Vec::new();
    for id in registry.ids()? {
        let done = recover(registry, &id, restart_watchers).unwrap_or_else(Done::Failed);
        all.push((id, done));
    }
    leases::sweep(registry.root());
    cgroup_owners::sweep(registry.root());
    worker::release(registry.root(), Release::EndedContainers, RELEASE_TIMEOUT);
    let mut out = std::io::stdout().lock();
    if as_json {
        let list: Vec<_> = all.iter().map(|(id, done)| to_json(id, done)).collect();
        write_json_list(&mut out, "containers", &list)?;
    } else if all.is_empty() {
        print_line!(out, "No container is known here: nothing to recover.")?;
    } else {
        let rows: Vec<[String; 2]> = all
            .iter()
            .map(|(id, done)| [short_id(id.as_str()).to_owned(), done.text()])
            .collect();
        table::write(&mut out, ["CONTAINER", "DONE"], &rows)?;
    }
    let failed = all
        .iter()
        .filter(|(_, done)| matches!(done, Done::Failed(_)))
        .count();
    if failed > 0 {
        bail!("{failed} of {} containers could not be recovered", all.len());
    }
    Ok(())
}

fn recover(registry: &Registry, id: &ContainerId, restart: bool) -> Result<Done, String> {
    let Some(record) = registry.record(id).map_err(text_of)? else {
        return without_record(registry, id).map_err(text_of);
    };
    if !record.is_running() {
        return sweep(registry, id).map_err(text_of);
    }
    if !registry.is_watched(id) {
        return match replace(registry, id, None)? {
            Some(new) => Ok(Done::Started(new)),
            None => sweep(registry, id).map_err(text_of),
        };
    }
    let old = match status(registry, id, RESPONSE_TIMEOUT) {
        Some(status) => status.watcher,
        None if registry.is_watched(id) => return Err(silent(registry, id)),
        // It has just ended.
        None => return recover(registry, id, restart),
    };
    if !restart {
        return Ok(Done::Watched(old));
    }
    match replace(registry, id, Some(old))? {
        Some(new) => Ok(Done::Restarted(old, new)),
        None => sweep(registry, id).map_err(text_of),
    }
}

fn text_of(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The error for a watcher that has the lock and does not respond.
fn silent(registry: &Registry, id: &ContainerId) -> String {
    match registry.watcher(id) {
        Some(watcher) => format!(
            "its watcher, process {pid}, does not answer within {RESPONSE_TIMEOUT:?} (if it is stopped, `kill -CONT {pid}` continues it; or `kill -KILL {pid}`, and run this again)",
            pid = watcher.pid
        ),
        None => {
            format!("a process has its lock and does not answer within {RESPONSE_TIMEOUT:?} (run this again)")
        }
    }
}

/// A hook is enrolling the container, or crashed before it finished.
fn without_record(registry: &Registry, id: &ContainerId) -> Result<Done, RegistryError> {
    match registry.try_lock(id) {
        Ok(Some(lock)) => lock.remove().map(|()| Done::Swept),
        Ok(None) => Ok(Done::Starting),
        Err(error) => absent_is_swept(error),
    }
}

/// Removes the record of a container that has ended. Its watcher, if it has one, notices that
/// itself.
fn sweep(registry: &Registry, id: &ContainerId) -> Result<Done, RegistryError> {
    match registry.lock(id, END_TIMEOUT) {
        Ok(lock) if !leftovers::revoke(&lock) => Ok(Done::Failed(
            "the container has ended, and its access could not be revoked from its cgroup (see the log)"
                .into(),
        )),
        Ok(lock) => {
            leftovers::remove_files(&lock);
            lock.remove().map(|()| Done::Swept)
        }
        Err(error) => absent_is_swept(error),
    }
}

fn absent_is_swept(error: RegistryError) -> Result<Done, RegistryError> {
    match error {
        RegistryError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => Ok(Done::Swept),
        error => Err(error),
    }
}

/// Starts a watcher, in place of `old` if there is one, and waits until it is ready: its process,
/// or nothing when the container has ended meanwhile.
fn replace(registry: &Registry, id: &ContainerId, old: Option<i32>) -> Result<Option<i32>, String> {
    let mut child = launch::launch_successor(registry, id).map_err(text_of)?;
    let deadline = Instant::now() + READY_TIMEOUT;
    loop {
        // It need not be our child: a unit of systemd's may have taken over by now.
        if let Some(status) =
            status(registry, id, STATUS_TIMEOUT).filter(|status| Some(status.watcher) != old)
        {
            return Ok(Some(status.watcher));
        }
        if child.state() == ChildState::Failed {
            return Err(LaunchError::Ended.to_string());
        }
        if !registry.container_dir(id).exists() {
            return Ok(None);
        }
        if Instant::now() >= deadline {
            return Err(LaunchError::Late(READY_TIMEOUT).to_string());
        }
        std::thread::sleep(CHECK_INTERVAL);
    }
}

impl Done {
    fn word(&self) -> &'static str {
        match self {
            Self::Watched(_) => "watched",
            Self::Started(_) => "started",
            Self::Restarted(..) => "restarted",
            Self::Starting => "starting",
            Self::Swept => "swept",
            Self::Failed(_) => "failed",
        }
    }

    fn watcher(&self) -> Option<i32> {
        match self {
            Self::Watched(pid) | Self::Started(pid) | Self::Restarted(_, pid) => Some(*pid),
            Self::Starting | Self::Swept | Self::Failed(_) => None,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Watched(pid) => format!("nothing: process {pid} is its watcher"),
            Self::Started(pid) => format!("watcher started, process {pid}"),
            Self::Restarted(old, new) => format!("watcher restarted, process {new} in place of {old}"),
            Self::Starting => "nothing: a hook is starting it".into(),
            Self::Swept => "the container has ended: its record was removed".into(),
            Self::Failed(reason) => format!("FAILED: {reason}"),
        }
    }
}

fn to_json(id: &ContainerId, done: &Done) -> serde_json::Value {
    let reason = match done {
        Done::Failed(reason) => Some(reason),
        _ => None,
    };
    json!({ "id": id, "result": done.word(), "watcher": done.watcher(), "reason": reason })
}
