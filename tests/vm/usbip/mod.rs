//! Remote devices, attached by `oci-hotplug usbip` and by containers' requests: those of a server
//! in this process, which misbehaves on command, and those of Debian's usbipd, which exports QEMU's
//! devices.

pub mod bed;
mod bench;
mod breaks;
mod by_hand;
mod hosts;
mod requests;
