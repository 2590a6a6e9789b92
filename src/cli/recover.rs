//! `oci-hotplug recover`: every running container that asked has its watcher again, and nothing is left of others.
//!
//! Must not do a watcher's work: it starts watchers, and they find out what is to be done.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::json;

use super::client::status;
use super::enrolled::check_access;
use super::render::json::write_json;
use super::render::table::{self, print_line};
use crate::host::spawn::ChildState;
use crate::host::state::error::RegistryError;
use crate::host::state::registry::Registry;
use crate::host::state::{cgroup_owners, leases, leftovers};
use crate::model::oci::ContainerId;
use crate::usbip::task::Release;
use crate::usbip::worker;
use crate::watcher::launch::{self, LaunchError};

/// How long a watcher may take to be ready. The one before it may be in the middle of something (`succession`).
const READY_PATIENCE: Duration = Duration::from_secs(20);

/// How long the watcher of a container that has ended may take to end, too.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// How long a watcher may take to answer before it counts as stopped: amid a storm of events on a busy host it takes a while.
const SILENCE: Duration = Duration::from_secs(8);

/// How long one may take to answer that is ready.
const ANSWER_PATIENCE: Duration = Duration::from_millis(200);

/// How long detaching the remote devices of ended containers may take.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(20);

/// How often a bounded wait looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What was done about one container.
#[derive(Debug, PartialEq, Eq)]
enum Done {
    /// It has its watcher, this process.
    Watched(i32),
    /// It has one again.
    Started(i32),
    /// It has another one: the one before, and this.
    Restarted(i32, i32),
    /// Its hook is at work.
    Starting,
    /// It is gone, and what was noted of it.
    Swept,
    /// Nothing could be done, and why.
    Failed(String),
}

/// Goes through all containers, and prints what was done about each.
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
        write_json(&mut out, &list)?;
    } else if all.is_empty() {
        print_line!(out, "No container is known here: nothing to recover.")?;
    } else {
        let rows: Vec<[String; 2]> = all
            .iter()
            .map(|(id, done)| [id.to_string(), done.text()])
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
    let Some(record) = registry.record(id).map_err(tell)? else {
        return without_record(registry, id).map_err(tell);
    };
    if !record.is_running() {
        return sweep(registry, id).map_err(tell);
    }
    if !registry.is_watched(id) {
        return match replace(registry, id, None)? {
            Some(new) => Ok(Done::Started(new)),
            None => sweep(registry, id).map_err(tell),
        };
    }
    let old = match status(registry, id, SILENCE) {
        Some(status) => status.watcher,
        None if registry.is_watched(id) => return Err(silent(registry, id)),
        // It ended, or died, just now.
        None => return recover(registry, id, restart),
    };
    if !restart {
        return Ok(Done::Watched(old));
    }
    match replace(registry, id, Some(old))? {
        Some(new) => Ok(Done::Restarted(old, new)),
        None => sweep(registry, id).map_err(tell),
    }
}

fn tell(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Somebody has the lock and says nothing.
fn silent(registry: &Registry, id: &ContainerId) -> String {
    match registry.watcher(id) {
        Some(said) => format!(
            "its watcher, process {pid}, does not answer within {SILENCE:?} (stopped? kill -CONT {pid}, or kill -KILL {pid} and run this again)",
            pid = said.pid
        ),
        None => format!("somebody has its lock, and does not answer within {SILENCE:?}"),
    }
}

/// A hook enrols it right now, or died before it had.
fn without_record(registry: &Registry, id: &ContainerId) -> Result<Done, RegistryError> {
    match registry.try_lock(id) {
        Ok(Some(lock)) => lock.remove().map(|()| Done::Swept),
        Ok(None) => Ok(Done::Starting),
        Err(error) => absent_is_swept(error),
    }
}

/// Removes what is noted of a container that is gone. Its watcher, if it has one, sees that by itself.
fn sweep(registry: &Registry, id: &ContainerId) -> Result<Done, RegistryError> {
    match registry.lock(id, END_PATIENCE) {
        Ok(lock) if !leftovers::revoke(&lock) => Ok(Done::Failed(
            "it is gone, and its access could not be taken back from its cgroup (the log tells why)".into(),
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

/// Starts a watcher, in place of `old` if there is one, and waits until it is ready: its process, or nothing when the
/// container has ended meanwhile.
fn replace(registry: &Registry, id: &ContainerId, old: Option<i32>) -> Result<Option<i32>, String> {
    let mut child = launch::launch_successor(registry, id).map_err(tell)?;
    let deadline = Instant::now() + READY_PATIENCE;
    loop {
        // It need not be our child: a unit of systemd's may have taken over by now.
        if let Some(status) =
            status(registry, id, ANSWER_PATIENCE).filter(|status| Some(status.watcher) != old)
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
            return Err(LaunchError::Late(READY_PATIENCE).to_string());
        }
        std::thread::sleep(LOOK_AGAIN);
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
            Self::Watched(pid) => format!("nothing: process {pid} watches it"),
            Self::Started(pid) => format!("watcher started, process {pid}"),
            Self::Restarted(old, new) => format!("watcher restarted, process {new} in place of {old}"),
            Self::Starting => "nothing: its hook is at work".into(),
            Self::Swept => "it is gone: its record is removed".into(),
            Self::Failed(reason) => format!("FAILED: {reason}"),
        }
    }
}

fn to_json(id: &ContainerId, done: &Done) -> serde_json::Value {
    let reason = match done {
        Done::Failed(reason) => Some(reason),
        _ => None,
    };
    json!({ "id": id, "done": done.word(), "watcher": done.watcher(), "reason": reason })
}
