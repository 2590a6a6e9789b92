//! The state that a hook reads from its standard input.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use super::container_id::{ContainerId, ContainerIdError};
use super::{Annotations, quoted};

/// The container's state as the runtime passes it to a hook (runtime-spec, runtime.md, "State").
///
/// Known deviations: crun adds `root` and writes `created` instead of `creating`; at poststop, pid
/// is absent, 0 or the old one; Docker passes no annotations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookState {
    pub id: ContainerId,
    /// The pid of the container's init on the host; `None` if absent or 0.
    pub pid: Option<i32>,
    pub bundle: Option<PathBuf>,
    /// The annotations, if the runtime passes any.
    pub annotations: Annotations,
}

/// The relevant fields with arbitrary types; other fields are skipped.
#[derive(Default, Deserialize)]
#[serde(default)]
struct RawState {
    id: Value,
    pid: Value,
    bundle: Value,
    annotations: Value,
}

/// Why a state is unusable.
#[derive(Debug, thiserror::Error)]
pub enum HookStateError {
    /// Empty input or another JSON type.
    #[error(
        "cannot read the container's state from standard input: not a JSON object (this program is an OCI hook, which the runtime starts; operators use oci-hotplug(1))"
    )]
    NoObject,
    #[error(
        "cannot read the container's state from standard input: {} (this program is an OCI hook, which the runtime starts; operators use oci-hotplug(1))",
        quoted(.0)
    )]
    Json(serde_json::Error),
    #[error("cannot read the container's state from standard input: `id` is not a string")]
    NoId,
    #[error("cannot read the container's state from standard input: {0}")]
    Id(#[from] ContainerIdError),
}

impl HookState {
    /// Parses the JSON text of a state. Only `id` is required; a field of an unexpected type counts
    /// as absent.
    ///
    /// # Errors
    /// If the text is not a JSON object, or its id is missing or malformed.
    pub fn parse(json: &[u8]) -> Result<Self, HookStateError> {
        // serde would accept an array as the fields in their order.
        if !json.trim_ascii_start().starts_with(b"{") {
            return Err(HookStateError::NoObject);
        }
        let state: RawState = serde_json::from_slice(json).map_err(HookStateError::Json)?;
        let id = state.id.as_str().ok_or(HookStateError::NoId)?.parse()?;
        let annotations = match state.annotations {
            Value::Object(map) => map
                .into_iter()
                .filter_map(|(key, value)| match value {
                    Value::String(text) => Some((key, text)),
                    _ => None,
                })
                .collect(),
            _ => Annotations::new(),
        };
        Ok(Self {
            id,
            pid: state
                .pid
                .as_i64()
                .and_then(|pid| i32::try_from(pid).ok())
                .filter(|pid| *pid > 0),
            bundle: state.bundle.as_str().map(PathBuf::from),
            annotations,
        })
    }
}
