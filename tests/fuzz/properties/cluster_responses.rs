//! What kubelet, the container engine and the API server answer to the device plugin.

use oci_hotplug::kubernetes::api_server::client::message_in;
use oci_hotplug::kubernetes::engine;
use oci_hotplug::kubernetes::kubelet::checkpoint;

/// The message of a rejection is short and harmless in a log; a uid is in the record; an engine's
/// configuration that cannot be understood does not decide.
pub fn hold(input: &[u8]) {
    let message = message_in(input);
    assert!(message.chars().count() <= 501, "{message:?}");
    assert!(!message.chars().any(char::is_control), "{message:?}");
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Some(uid) = checkpoint::uid(text, "example.com/serial", "a", "app") {
        super::is_no_larger_than(uid.len(), text.len());
    }
    let _ = engine::judge("containerd", text, None);
    let by_version = engine::judge("containerd", "v2.1.4", None);
    let judged = engine::judge("containerd", "v2.1.4", Some(text));
    assert!(judged == by_version || text.contains("enableCDI") || text.contains("\\u"));
}
