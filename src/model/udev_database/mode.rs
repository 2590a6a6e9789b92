//! Whether a container gets a udev database.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::model::quoting::shown;

/// How many characters of an invalid value are shown.
const MAX_SHOWN: usize = 40;

/// The setting `udev` of the configuration, and the annotation `io.oci-hotplug.udev`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UdevMode {
    /// A container gets a database unless it has its own.
    #[default]
    Auto,
    Never,
}

/// A text that is not a mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("udev database \"{0}\": must be \"auto\" or \"never\"")]
pub struct UdevModeError(String);

impl FromStr for UdevMode {
    type Err = UdevModeError;

    fn from_str(text: &str) -> Result<Self, UdevModeError> {
        match text.trim() {
            "auto" => Ok(Self::Auto),
            "never" => Ok(Self::Never),
            other => Err(UdevModeError(shown(other, MAX_SHOWN))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_auto_or_never() {
        assert_eq!("auto".parse(), Ok(UdevMode::Auto));
        assert_eq!(" never ".parse(), Ok(UdevMode::Never));
        let error = "yes\n".parse::<UdevMode>().unwrap_err().to_string();
        assert_eq!(error, "udev database \"yes\": must be \"auto\" or \"never\"");
        assert!(
            "x".repeat(1000)
                .parse::<UdevMode>()
                .unwrap_err()
                .to_string()
                .len()
                < 150
        );
    }
}
