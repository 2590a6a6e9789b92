//! Devices that never have a node, whose events a reader can do without.
//!
//! A host that starts containers creates and removes network interfaces all the time: each pair of
//! interfaces sends 20 events in each of the two forms.

use super::received::ReceivedUevent;

/// Subsystems without nodes. No fact of their devices decides about a device with a node, unless a
/// selector can match them ([`Selector::can_match_nodeless`]).
///
/// * `net`: network interfaces, if they are virtual: those of hardware are announced to containers
///   that have the hardware. (Below a macvtap interface is a device with a node, in the subsystem
///   `macvtap`.)
/// * `queues`: the queues of network interfaces.
/// * `bdi`: backing devices of file systems.
///
/// [`Selector::can_match_nodeless`]: crate::model::request::selector::Selector::can_match_nodeless
pub(crate) const SUBSYSTEMS: [&str; 3] = [INTERFACES, "queues", "bdi"];

/// The subsystem of which only virtual devices are left out.
pub(super) const INTERFACES: &str = "net";

/// How the DEVPATH of virtual network interfaces begins.
const VIRTUAL_INTERFACES: &str = "/devices/virtual/net/";

/// Subsystems whose devices belong to a network namespace: the kernel sends their events only
/// there (net/core/net-sysfs.c, net/wireless/sysfs.c).
const OF_NETWORK_NAMESPACE: [&str; 2] = [INTERFACES, "ieee80211"];

/// Whether events of such a device are not received. `devpath` is the path in sysfs without `/sys`.
pub(crate) fn is_never_received(subsystem: &str, devpath: &str) -> bool {
    SUBSYSTEMS.contains(&subsystem) && (subsystem != INTERFACES || devpath.starts_with(VIRTUAL_INTERFACES))
}

/// Whether a message is about such a device. A move is not: it moves all devices below, too.
pub(crate) fn is_nodeless(message: &ReceivedUevent<'_>) -> bool {
    let text = |key| std::str::from_utf8(message.property(key).unwrap_or_default()).unwrap_or_default();
    is_never_received(text("SUBSYSTEM"), text("DEVPATH")) && text("ACTION") != "move"
}

/// Whether the kernel sends the events of a device to each network namespace that the initial user
/// namespace owns (lib/kobject_uevent.c, uevent_net_broadcast_untagged).
pub(crate) fn is_broadcast(subsystem: &str) -> bool {
    !OF_NETWORK_NAMESPACE.contains(&subsystem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_network_devices_belong_to_a_network_namespace() {
        assert!(is_broadcast("tty") && is_broadcast("usb") && is_broadcast("queues"));
        assert!(!is_broadcast("net") && !is_broadcast("ieee80211"));
    }
}
