//! Files of engines and runtimes. A user can change those of rootless engines.

use oci_hotplug::model::oci::engine_files::{RuntimeState, name_in_docker, name_in_storage};

/// A state names one process, and a name is harmless on a terminal.
pub fn hold(input: &[u8]) {
    if let Some(state) = RuntimeState::parse(input) {
        assert!(state.pid > 0, "{state:?}");
        super::is_no_larger_than(state.bundle.as_os_str().len(), input.len());
    }
    for name in [name_in_storage(input, "0a1b"), name_in_docker(input)]
        .into_iter()
        .flatten()
    {
        // 80 characters and the mark of what was left out.
        assert!((1..=81).contains(&name.chars().count()), "{name:?}");
        assert!(!name.chars().any(char::is_control), "{name:?}");
    }
}
