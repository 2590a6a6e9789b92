//! `oci-hotplug reload`: every watcher reads the configuration again.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::client;
use super::enrolled::Enrolled;
use super::render::json::write_json_list;
use super::render::table::{self, print_line};
use crate::host::state::control::{Problem, Status};
use crate::host::state::registry::Registry;

/// How long a watcher may take: it enumerates all devices of the host.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The result for one container.
pub(super) struct Reloaded {
    id: String,
    name: String,
    /// The nodes that were attached.
    attached: Vec<PathBuf>,
    /// The nodes that were detached.
    detached: Vec<PathBuf>,
    /// The number of problems after the reload, as `inspect` shows them: equal reasons are one.
    problems: usize,
    /// Why the watcher keeps its previous policy.
    failure: Option<String>,
}

/// Reloads all watchers, and prints the results.
pub(super) fn run(registry: &Registry, as_json: bool) -> Result<()> {
    let all = all(registry)?;
    let mut out = std::io::stdout().lock();
    if as_json {
        let list: Vec<Value> = all.iter().map(Reloaded::to_json).collect();
        write_json_list(&mut out, "containers", &list)?;
    } else if all.is_empty() {
        print_line!(out, "No container has a watcher: nothing to reload.")?;
    } else {
        write(&mut out, &all)?;
    }
    failures(&all)
}

/// Makes every watcher read the configuration again.
///
/// # Errors
/// When the state directory can't be read.
pub(super) fn all(registry: &Registry) -> Result<Vec<Reloaded>> {
    let containers = Enrolled::all(registry)?;
    let with_watcher = containers
        .iter()
        .filter(|container| container.status.is_some() || container.silent.is_some());
    Ok(with_watcher
        .map(|container| reload(registry, container))
        .collect())
}

fn reload(registry: &Registry, container: &Enrolled) -> Reloaded {
    let failure = client::reload(registry, &container.id, TIMEOUT).err();
    let after = client::status(registry, &container.id, TIMEOUT);
    let nodes = |status: Option<&Status>| -> BTreeSet<PathBuf> {
        let attached = status.iter().flat_map(|status| status.attached.iter());
        attached.map(|(path, _)| path.to_owned()).collect()
    };
    let (old, new) = (nodes(container.status.as_ref()), nodes(after.as_ref()));
    Reloaded {
        id: container.id.to_string(),
        name: container.display_name(),
        attached: new.difference(&old).cloned().collect(),
        detached: old.difference(&new).cloned().collect(),
        problems: after.map_or(0, |status| Problem::grouped(&status.problems).len()),
        failure,
    }
}

/// Prints a line for each container.
///
/// # Errors
/// As the writer.
pub(super) fn write(out: &mut impl Write, all: &[Reloaded]) -> std::io::Result<()> {
    let rows: Vec<[String; 2]> = all
        .iter()
        .map(|reloaded| [reloaded.name.clone(), reloaded.text()])
        .collect();
    table::write(out, ["CONTAINER", "RESULT"], &rows)
}

/// # Errors
/// When a watcher keeps its previous policy.
pub(super) fn failures(all: &[Reloaded]) -> Result<()> {
    let failed = all.iter().filter(|reloaded| reloaded.failure.is_some()).count();
    if failed > 0 {
        bail!(
            "{failed} of {} watchers could not reload the configuration",
            all.len()
        );
    }
    Ok(())
}

impl Reloaded {
    fn text(&self) -> String {
        if let Some(reason) = &self.failure {
            return format!("FAILED: {reason}");
        }
        let list = |word: &str, paths: &[PathBuf]| {
            let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
            (!paths.is_empty()).then(|| format!("{word} {}", paths.join(" ")))
        };
        let mut parts = Vec::new();
        parts.extend(list("attached", &self.attached));
        parts.extend(list("detached", &self.detached));
        if parts.is_empty() {
            parts.push("no change".into());
        }
        match self.problems {
            0 => {}
            1 => parts.push(format!("1 problem (oci-hotplug inspect {})", self.name)),
            count => parts.push(format!("{count} problems (oci-hotplug inspect {})", self.name)),
        }
        parts.join(", ")
    }

    /// For `--json`.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "id": self.id, "result": if self.failure.is_none() { "reloaded" } else { "failed" },
            "attached": self.attached, "detached": self.detached, "problems": self.problems, "reason": self.failure,
        })
    }
}
