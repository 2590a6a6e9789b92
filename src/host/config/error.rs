//! Why a configuration cannot be used.

use std::path::PathBuf;

use crate::model::policy::RuleError;
use crate::model::request::class::ClassError;

/// A configuration that cannot be used. No default takes its place.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("reading the configuration {path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML, has an unknown key, or a value of the wrong kind.
    #[error("reading the configuration {path}: {place}{message}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Line and column, as a beginning of the message.
        place: String,
        /// What is wrong, in one line.
        message: String,
    },
    /// A file of `config.d` that was set aside.
    #[error("{0}")]
    Broken(String),
    /// A class that is defined wrongly.
    #[error("reading the configuration {path}: {source}", path = path.display())]
    Class {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<ClassError>,
    },
    /// A rule of the policy.
    #[error("reading the configuration: {0}")]
    Rule(#[from] RuleError),
    /// A value that is out of range.
    #[error("reading the configuration {path}: {fault}", path = path.display())]
    OutOfRange {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what would be right.
        fault: &'static str,
    },
}
