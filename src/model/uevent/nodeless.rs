//! Devices that never have a node, whose events a reader can do without.
//!
//! A host that starts containers creates and removes network interfaces all the time: each pair of
//! interfaces sends 20 events in each of the two forms.

use super::received::ReceivedUevent;

/// Subsystems without nodes. No fact of their devices decides about a device with a node, unless a
/// selector can match them ([`Selector::can_match_nodeless`]).
///
/// * `net`, `queues`: network interfaces and their queues. (Below a macvtap interface is a device
///   with a node, in the subsystem `macvtap`.)
/// * `bdi`: backing devices of file systems.
///
/// [`Selector::can_match_nodeless`]: crate::model::request::selector::Selector::can_match_nodeless
pub const SUBSYSTEMS: [&str; 3] = ["net", "queues", "bdi"];

/// Whether a message is about such a device. A move is not: it moves all devices below, too.
pub fn is_nodeless(message: &ReceivedUevent<'_>) -> bool {
    let subsystem = message.property("SUBSYSTEM");
    let mut nodeless = SUBSYSTEMS.iter();
    let is_one = nodeless.any(|name| subsystem == Some(name.as_bytes()));
    is_one && message.property("ACTION") != Some(b"move")
}
