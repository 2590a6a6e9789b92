//! `oci-hotplug metrics`: the counters of the watchers, in Prometheus' text format.
//!
//! Every container has the same few series: their number grows with the running containers, not
//! with devices or requests.

mod container;
mod families;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

use self::container::Counted;
use self::families::families;
use super::enrolled::Enrolled;
use super::error::Usage;
use super::render::json::versioned;
use super::render::prometheus;
use crate::host::state::atomic_file::{Durability, replace};
use crate::host::state::registry::Registry;

/// The options.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Write the file atomically, for node_exporter's textfile collector; its name must end in
    /// .prom.
    #[arg(long, value_name = "FILE")]
    textfile: Option<PathBuf>,
}

/// The names of all metrics, for the test that compares docs/names.md with them.
#[cfg(test)]
pub(super) fn names() -> Vec<String> {
    let all = families(&[]);
    all.iter()
        .map(|family| format!("oci_hotplug_{}", family.name))
        .collect()
}

/// Prints the metrics of all containers, or writes them into a file.
pub(super) fn run(registry: &Registry, options: &Options, as_json: bool) -> Result<()> {
    if let Some(path) = &options.textfile {
        check_name(path)?;
    }
    let counted: Vec<Counted> = Enrolled::all(registry)?
        .into_iter()
        .map(|container| Counted::of(registry, container))
        .collect();
    let families = families(&counted);
    let text = match as_json {
        true => format!("{:#}\n", versioned(&json!({ "metrics": families }))?),
        false => prometheus::text(&families),
    };
    match &options.textfile {
        // The collector runs as an unprivileged user.
        Some(path) => replace(path, text.as_bytes(), 0o644, Durability::Synced)
            .with_context(|| format!("cannot write {}", path.display())),
        None => Ok(io::stdout().lock().write_all(text.as_bytes())?),
    }
}

/// The collector ignores other names without a message.
fn check_name(path: &Path) -> Result<()> {
    if path.extension().is_some_and(|extension| extension == "prom") && path.file_stem().is_some() {
        return Ok(());
    }
    Err(Usage(format!(
        "--textfile {}: the name must end in .prom, because node_exporter reads no others",
        path.display()
    ))
    .into())
}
