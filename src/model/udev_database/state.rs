//! Whether a container has its udev database, for display.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The state of a container's udev database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum DatabaseState {
    /// Mounted on the container's `/run/udev`.
    Placed,
    /// The engine or the container has mounted something else there.
    Mounted,
    /// The image has files there.
    Image,
    /// A program inside may run its own udevd, which writes its own database.
    WritableSys,
    /// Configuration, annotation or hook argument say so.
    Never,
    /// It cannot be mounted, for this reason; it is tried again.
    Failed { reason: String },
}

impl fmt::Display for DatabaseState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Placed => f.write_str("placed on /run/udev"),
            Self::Mounted => f.write_str("not ours: /run/udev is another mount"),
            Self::Image => f.write_str("not ours: /run/udev is not empty"),
            Self::WritableSys => {
                f.write_str("none: /sys is writable, so the container can run its own udevd")
            }
            Self::Never => f.write_str("none: udev = \"never\""),
            Self::Failed { reason } => write!(f, "none: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_names_its_reason() {
        let failed = DatabaseState::Failed {
            reason: "mount: EPERM".into(),
        };
        for (state, expected) in [
            (DatabaseState::Placed, "placed on /run/udev"),
            (DatabaseState::Image, "not ours: /run/udev is not empty"),
            (DatabaseState::Never, "none: udev = \"never\""),
            (failed, "none: mount: EPERM"),
        ] {
            assert_eq!(state.to_string(), expected);
        }
    }
}
