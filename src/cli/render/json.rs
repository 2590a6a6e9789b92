//! JSON documents, as every verb prints them.

use std::io::Write;

use anyhow::Result;
use serde::Serialize;

/// Writes one document, indented, and a line feed.
///
/// # Errors
/// As the writer.
pub(in crate::cli) fn write_json(out: &mut impl Write, document: &impl Serialize) -> Result<()> {
    Ok(writeln!(out, "{}", serde_json::to_string_pretty(document)?)?)
}
