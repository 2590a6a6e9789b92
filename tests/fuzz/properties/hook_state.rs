//! The state that a runtime writes to a hook's standard input.

use std::path::Component;

use oci_hotplug::model::oci::{ContainerId, HookState};

use super::is_fit_for_a_log;

/// What is understood has an id that is harmless as a file name, and no pid that could mean several
/// processes.
pub fn hold(input: &[u8]) {
    match HookState::parse(input) {
        Ok(state) => {
            is_harmless(&state.id);
            assert!(state.pid.is_none_or(|pid| pid > 0), "{:?}", state.pid);
            let kept: usize = state
                .annotations
                .iter()
                .map(|(key, value)| key.len() + value.len())
                .sum();
            assert!(
                kept <= 3 * input.len(),
                "{kept} bytes are kept of {}",
                input.len()
            );
        }
        Err(error) => is_fit_for_a_log(&error),
    }
    if let Ok(text) = std::str::from_utf8(input) {
        match text.parse::<ContainerId>() {
            Ok(id) => is_harmless(&id),
            Err(error) => is_fit_for_a_log(&error),
        }
    }
}

fn is_harmless(id: &ContainerId) {
    let path = std::path::Path::new(id.as_str());
    let parts: Vec<Component> = path.components().collect();
    assert!(
        matches!(parts[..], [Component::Normal(name)] if name == id.as_str()),
        "{id:?}"
    );
    assert!(id.as_str().len() <= 255);
}
