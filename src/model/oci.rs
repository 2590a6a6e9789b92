//! What a hook learns from the runtime: the state on standard input, and the relevant parts of the
//! bundle's config.json. Parsing is lenient, because no two runtimes write the same state.

mod bundle_argument;
mod bundle_config;
mod container_id;
pub(crate) mod engine;
pub mod engine_files;
pub(crate) mod go_json;
mod hook_state;

use std::collections::BTreeMap;

pub use bundle_argument::bundle_argument;
pub use bundle_config::{BundleConfig, BundleConfigError, ProcessUser};
pub use container_id::{ContainerId, ContainerIdError};
pub use hook_state::{HookState, HookStateError};

use crate::model::quoting::shown;

/// How many characters of a JSON parser's message are shown.
const MAX_FAULT: usize = 200;

/// Annotations by key.
pub type Annotations = BTreeMap<String, String>;

/// The parser's message, shortened: it may quote text of any length.
fn quoted(error: &serde_json::Error) -> String {
    shown(&error.to_string(), MAX_FAULT)
}

#[cfg(test)]
mod tests;
