//! The id of a container.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

/// The longest id: it becomes the name of a directory (NAME_MAX, limits.h).
const MAX_ID: usize = 255;

/// A container's id, which is safe as a file name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ContainerId(String);

/// A text that is not a container id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "container id {shown:?}: must be 1 to {MAX_ID} letters, digits and the characters `_`, `+`, `-` and `.`, and not `.` or `..`"
)]
pub struct ContainerIdError {
    shown: String,
}

impl ContainerId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerId {
    type Err = ContainerIdError;

    /// Accepts the ids that runc accepts (libcontainer/factory_linux.go, validateID).
    fn from_str(text: &str) -> Result<Self, ContainerIdError> {
        let fits = (1..=MAX_ID).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte))
            && text != "."
            && text != "..";
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(ContainerIdError {
                shown: text.chars().take(80).collect(),
            })
        }
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ContainerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}
