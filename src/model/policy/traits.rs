//! The properties of a container that conditions of rules are evaluated on.

use serde::{Deserialize, Serialize};

use crate::model::oci::Annotations;

/// The longest value of an annotation that rules can match, in bytes; longer values are not kept.
const MAX_ANNOTATION: usize = 4096;

/// What the conditions of rules are evaluated on: properties of the container, fixed when its
/// engine creates it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct ContainerTraits {
    /// The annotations of the engine and of the user who started the container.
    pub annotations: Annotations,
    /// Whether the container has its own user namespace.
    pub user_namespace: bool,
    /// Whether its engine gave it every device (`--privileged`).
    pub privileged: bool,
}

impl ContainerTraits {
    /// The traits of a container, without annotation values longer than 4096 bytes.
    pub fn new(annotations: Annotations, user_namespace: bool, privileged: bool) -> Self {
        let mut annotations = annotations;
        annotations.retain(|_, value| value.len() <= MAX_ANNOTATION);
        Self {
            annotations,
            user_namespace,
            privileged,
        }
    }
}
