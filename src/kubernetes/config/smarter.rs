//! smarter-device-manager's conf.yaml: a list of `devicematch` and `nummaxdevices` (its
//! main.go:39-42, 114-190).

use std::path::Path;

use serde::Deserialize;

use super::definition::{Definition, MAX_UNITS};
use super::error::{ConfigError, Fault};
use super::go_regex::GoRegex;
use crate::model::yaml::{self, Dialect};

/// The domain of its resources.
pub const SMARTER_DOMAIN: &str = "smarter-devices";

/// The keyword for Tegra's GPUs, in place of an expression.
const NVIDIA_GPU: &str = "nvidia-gpu";

/// Unknown keys are ignored, as by that plugin.
#[derive(Debug, Deserialize)]
struct Entry {
    devicematch: String,
    /// Zero if absent: the resource then has no units.
    #[serde(default)]
    nummaxdevices: u64,
}

/// Parses the file. That plugin also exits at a malformed expression (its main.go:187-190).
pub(super) fn parse(
    path: &Path,
    text: &str,
    notes: &mut Vec<String>,
) -> Result<Vec<Definition>, ConfigError> {
    // An empty file is an empty list.
    let entries: Option<Vec<Entry>> =
        yaml::from_str(text, Dialect::Core).map_err(|source| ConfigError::Malformed {
            path: path.to_owned(),
            source,
        })?;
    let mut definitions = Vec::new();
    for (entry, number) in entries.unwrap_or_default().iter().zip(1..) {
        let place = format!("{}, entry {number}", path.display());
        let count = u32::try_from(entry.nummaxdevices).unwrap_or(u32::MAX);
        if count > MAX_UNITS {
            notes.push(format!(
                "{place}: nummaxdevices {} is more than kubelet accepts in one list: using {MAX_UNITS}",
                entry.nummaxdevices
            ));
        }
        let definition = definition(&entry.devicematch, count.min(MAX_UNITS));
        definitions.push(definition.map_err(|fault| ConfigError::Element { place, fault })?);
    }
    Ok(definitions)
}

fn definition(devicematch: &str, count: u32) -> Result<Definition, Fault> {
    if devicematch == NVIDIA_GPU {
        return Ok(Definition::NvidiaGpu { count });
    }
    let pattern = GoRegex::new(devicematch).map_err(|reason| Fault::Regex {
        expression: devicematch.to_owned(),
        reason,
    })?;
    Ok(Definition::Pattern { pattern, count })
}
