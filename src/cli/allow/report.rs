//! What `oci-hotplug allow` prints of a rule that it wrote or removed.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value, json};

use crate::cli::reload::{self, Reloaded};
use crate::cli::render::json::write_json;
use crate::cli::render::table::print_line;
use crate::model::device::Access;

/// Prints the rule, its file, what was done with it, and the watchers that reloaded.
pub(super) fn report(
    selectors: &[String],
    access: Access,
    file: Option<PathBuf>,
    result: &str,
    reloaded: &[Reloaded],
    as_json: bool,
) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if as_json {
        let containers: Vec<Value> = reloaded.iter().map(Reloaded::to_json).collect();
        let whole = json!({
            "devices": selectors, "access": access.to_string(), "file": file, "result": result,
            "containers": containers,
        });
        write_json(&mut out, &whole)?;
        return Ok(());
    }
    let what = selectors.join(", ");
    match file {
        Some(file) => print_line!(out, "{what}, access {access}: {result} {}", file.display())?,
        None => print_line!(
            out,
            "{what}, access {access}: unchanged, a rule already allows it"
        )?,
    }
    if !reloaded.is_empty() {
        writeln!(out)?;
        reload::write(&mut out, reloaded)?;
    }
    Ok(())
}
