//! What programs of ours write for each other: record.json, and the control socket's lines. The
//! notes of watchers are in journal.rs.

use oci_hotplug::host::state::control::{ControlRequest, ControlResponse};
use oci_hotplug::host::state::record::Record;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::is_no_larger_than;

/// What is understood says the same when it is written and read again.
pub fn hold(input: &[u8]) {
    is_kept::<Record>(input);
    is_kept::<ControlRequest>(input);
    is_kept::<ControlResponse>(input);
}

fn is_kept<T: Serialize + DeserializeOwned>(input: &[u8]) {
    let Ok(read) = serde_json::from_slice::<T>(input) else {
        return;
    };
    let written = serde_json::to_vec(&read).expect("it came from JSON");
    is_no_larger_than(written.len(), input.len());
    let again: T = serde_json::from_slice(&written).expect("what we write we can read");
    assert_eq!(serde_json::to_vec(&again).ok(), Some(written));
}
