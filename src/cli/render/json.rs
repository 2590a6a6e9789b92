//! JSON documents, as every verb prints them: an object with the version of its schema, which
//! docs/schema/cli-v1.json describes.

use std::io::Write;

use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};

/// The version of the documents. Within a version, fields are added, and not changed or removed.
pub(in crate::cli) const SCHEMA_VERSION: u32 = 1;

/// Writes one document, indented, and a line feed.
///
/// # Errors
/// As the writer.
pub(in crate::cli) fn write_json(out: &mut impl Write, document: &impl Serialize) -> Result<()> {
    Ok(writeln!(out, "{:#}", versioned(document)?)?)
}

/// Writes one document in one line: verbs that follow events print one for each.
///
/// # Errors
/// As the writer.
pub(in crate::cli) fn write_json_line(out: &mut impl Write, document: &impl Serialize) -> Result<()> {
    Ok(writeln!(out, "{}", versioned(document)?)?)
}

/// Writes a document with one list.
///
/// # Errors
/// As the writer.
pub(in crate::cli) fn write_json_list(out: &mut impl Write, name: &str, list: &impl Serialize) -> Result<()> {
    write_json(out, &json!({ name: list }))
}

/// The document, an object, with its version.
pub(in crate::cli) fn versioned(document: &impl Serialize) -> Result<Value> {
    let mut document = serde_json::to_value(document)?;
    document["schema_version"] = SCHEMA_VERSION.into();
    Ok(document)
}
