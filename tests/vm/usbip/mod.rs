//! Devices of other hosts, attached by `oci-hotplug usbip` and by containers' requests: those of a
//! server in this process, which misbehaves on command, and those of Debian's usbipd, which
//! exports what QEMU plugs in.

pub mod bed;
mod bench;
mod breaks;
mod by_hand;
mod hosts;
mod requests;
