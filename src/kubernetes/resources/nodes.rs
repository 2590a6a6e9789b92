//! Nodes and NUMA nodes of devices, for all formats.
//!
//! Pure.

use std::path::Path;
use std::sync::Arc;

use super::unit::{NodeSpec, Offer};
use crate::model::device::inventory::Inventory;
use crate::model::device::{Access, Device, SysPath};

/// The sysfs attribute with a device's NUMA node.
pub(super) const NUMA_NODE: &str = "numa_node";

/// An offer of these nodes only.
pub(super) fn node_offer(nodes: Vec<NodeSpec>) -> Arc<Offer> {
    Arc::new(Offer {
        nodes,
        ..Offer::default()
    })
}

/// The node of a device, with its host's path or with `place` in the container.
pub(super) fn node_spec(device: &Device, place: Option<&Path>, access: Access) -> Option<NodeSpec> {
    let host = device.node.as_ref()?.path.clone();
    Some(NodeSpec {
        container: place.map_or_else(|| host.clone(), Path::to_owned),
        host,
        access,
    })
}

/// The NUMA node of the device, or of the nearest parent that has one; the kernel reports -1 for
/// none.
pub(super) fn numa(root: &SysPath, inventory: &Inventory) -> Option<i64> {
    let own = inventory.get(root).into_iter();
    let node = |device: &Device| device.attribute(NUMA_NODE)?.trim().parse::<i64>().ok();
    own.chain(inventory.ancestors(root))
        .find_map(node)
        .filter(|node| *node >= 0)
}
