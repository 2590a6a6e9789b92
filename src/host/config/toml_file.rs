//! Parses a TOML file and reports where an error is.

use std::path::Path;

use serde::de::DeserializeOwned;

use super::error::ConfigError;

/// Parses the text of a file.
///
/// # Errors
/// [`ConfigError::Malformed`], with line and column.
pub(super) fn from_toml<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error: toml::de::Error| ConfigError::Malformed {
        path: path.to_owned(),
        place: error
            .span()
            .map_or_else(String::new, |span| place_of(text, span.start)),
        message: error.message().replace('\n', ", "),
    })
}

/// The line and column of an offset, counted from 1 as editors do.
fn place_of(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {}, column {column}: ", line_of(text, offset))
}

/// The line of an offset, counted from 1 as editors do.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()
        .iter()
        .take(offset)
        .filter(|byte| **byte == b'\n')
        .count()
        + 1
}
