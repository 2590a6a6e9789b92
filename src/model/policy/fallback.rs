//! What untrusted requests get when no rule matches.

use serde::Deserialize;

/// The policy's `default`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fallback {
    /// USB devices that are not protected.
    #[default]
    Removable,
    Nothing,
    /// Every device that is not protected.
    Anything,
}

impl Fallback {
    /// The word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Removable => "removable",
            Self::Nothing => "nothing",
            Self::Anything => "anything",
        }
    }
}
