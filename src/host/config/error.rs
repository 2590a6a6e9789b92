//! Errors of the configuration.

use std::path::PathBuf;

use crate::model::policy::RuleError;
use crate::model::request::class::ClassError;

/// A configuration that cannot be used. No default takes its place.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}", path = path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// The file is not TOML, has an unknown key, or a value of the wrong kind.
    #[error("cannot read the configuration {path}: {place}{message}", path = path.display())]
    Malformed {
        path: PathBuf,
        /// Line and column, formatted as the start of the message.
        place: String,
        /// The parser's message in one line.
        message: String,
    },
    /// An error in another file of `config.d`.
    #[error("{0}")]
    Broken(String),
    /// A definition of a class is wrong.
    #[error("cannot read the configuration {path}: {source}", path = path.display())]
    Class { path: PathBuf, source: Box<ClassError> },
    /// A rule of the policy is wrong.
    #[error("cannot read the configuration: {0}")]
    Rule(#[from] RuleError),
    /// A value is out of range.
    #[error("cannot read the configuration {path}: {fault}", path = path.display())]
    OutOfRange {
        path: PathBuf,
        /// What is wrong, and which values are valid.
        fault: &'static str,
    },
}
