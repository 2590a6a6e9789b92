//! What an installation prints.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Result;
use serde_json::json;

use crate::cli::render::json::write_json_list;

/// Each file with what was done with it.
pub(super) type Report = Vec<(PathBuf, &'static str)>;

/// Prints what was done with each file.
pub(super) fn print_report(report: &Report, as_json: bool) -> Result<()> {
    let mut out = io::stdout().lock();
    if as_json {
        let list: Vec<_> = report
            .iter()
            .map(|(path, result)| json!({ "file": path, "result": result }))
            .collect();
        return write_json_list(&mut out, "files", &list);
    }
    for (path, result) in report {
        writeln!(out, "{result} {}", path.display())?;
    }
    Ok(())
}
