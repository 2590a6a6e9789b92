//! smarter-device-manager's conf.yaml: a list of `devicematch` and `nummaxdevices` (its main.go:39-42, 114-190).

use std::path::Path;

use regex_lite::Regex;
use serde::Deserialize;

use super::{ConfigError, Definition, Fault, MAX_UNITS};

/// The domain of its resources.
pub const SMARTER_DOMAIN: &str = "smarter-devices";

/// The word that stands for Tegra's GPUs instead of an expression.
const NVIDIA_GPU: &str = "nvidia-gpu";

/// Unknown keys are passed over, as there.
#[derive(Debug, Deserialize)]
struct Entry {
    devicematch: String,
    /// Without it there are no units.
    #[serde(default)]
    nummaxdevices: u32,
}

/// Reads the file.
pub(super) fn parse(path: &Path, text: &str) -> Result<Vec<Definition>, ConfigError> {
    // An empty file is an empty list.
    let entries: Option<Vec<Entry>> =
        serde_yaml::from_str(text).map_err(|source| ConfigError::Malformed {
            path: path.to_owned(),
            source,
        })?;
    let mut definitions = Vec::new();
    for (entry, number) in entries.unwrap_or_default().iter().zip(1..) {
        let definition = definition(entry).map_err(|fault| ConfigError::Element {
            place: format!("{}, entry {number}", path.display()),
            fault,
        })?;
        definitions.push(definition);
    }
    Ok(definitions)
}

fn definition(entry: &Entry) -> Result<Definition, Fault> {
    let count = entry.nummaxdevices;
    if count > MAX_UNITS {
        return Err(Fault::Count("nummaxdevices"));
    }
    if entry.devicematch == NVIDIA_GPU {
        return Ok(Definition::NvidiaGpu { count });
    }
    let pattern = Regex::new(&entry.devicematch).map_err(|error| Fault::Regex {
        expression: entry.devicematch.clone(),
        reason: error.to_string(),
    })?;
    Ok(Definition::Pattern { pattern, count })
}
