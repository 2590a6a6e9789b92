//! What `oci-hotplug allow` prints of rules that it wrote or removed.

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
        let whole = json!({
            "devices": selectors, "access": access.to_string(), "file": file, "result": result,
            "containers": containers(reloaded),
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
    write_reloaded(&mut out, reloaded)
}

/// Prints the removed files, each with the access that its rule allowed, and the watchers that
/// reloaded.
pub(super) fn removed(
    selectors: &[String],
    files: &[(PathBuf, Access)],
    reloaded: &[Reloaded],
    as_json: bool,
) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if as_json {
        let file = |(file, access): &(PathBuf, Access)| json!({ "file": file, "access": access.to_string() });
        let whole = json!({
            "devices": selectors, "files": files.iter().map(file).collect::<Vec<_>>(), "result": "removed",
            "containers": containers(reloaded),
        });
        write_json(&mut out, &whole)?;
        return Ok(());
    }
    let what = selectors.join(", ");
    for (file, access) in files {
        print_line!(out, "{what}, access {access}: removed {}", file.display())?;
    }
    write_reloaded(&mut out, reloaded)
}

fn containers(reloaded: &[Reloaded]) -> Vec<Value> {
    reloaded.iter().map(Reloaded::to_json).collect()
}

fn write_reloaded(out: &mut impl Write, reloaded: &[Reloaded]) -> Result<()> {
    if !reloaded.is_empty() {
        writeln!(out)?;
        reload::write(out, reloaded)?;
    }
    Ok(())
}
