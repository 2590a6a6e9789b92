//! Which messages a reader can do without, by the subsystem and the path of their device.

use super::nodeless::is_nodeless;
use super::received::ReceivedUevent;

/// How the DEVPATH of virtual block devices begins: loop, device-mapper, md, network block devices.
/// Below a disk there are only its partitions (block/genhd.c, block/partitions/core.c).
pub(crate) const VIRTUAL_BLOCKS: &str = "/devices/virtual/block/";

/// Groups of devices whose messages are dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Unneeded {
    /// Devices that never have a node ([`super::nodeless`]).
    pub nodeless: bool,
    /// Block devices at [`VIRTUAL_BLOCKS`].
    pub virtual_blocks: bool,
}

impl Unneeded {
    /// Whether a message is about a device of these groups. A move is not: it moves all devices
    /// below, too.
    pub(crate) fn includes(self, message: &ReceivedUevent<'_>) -> bool {
        (self.nodeless && is_nodeless(message)) || (self.virtual_blocks && is_of_virtual_block(message))
    }
}

fn is_of_virtual_block(message: &ReceivedUevent<'_>) -> bool {
    let is_below = |path: &[u8]| path.starts_with(VIRTUAL_BLOCKS.as_bytes());
    message.property("DEVPATH").is_some_and(is_below) && message.property("ACTION") != Some(b"move")
}
