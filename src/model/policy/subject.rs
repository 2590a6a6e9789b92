//! The device that a verdict is on, and what lies above and below it.
//!
//! Must not know rules nor what is protected.

use super::host_use::HostUse;
use crate::model::device::{DevKind, Device};
use crate::model::inventory::Inventory;
use crate::model::selector::Chain;

/// One device, with its surroundings.
pub struct Subject<'a> {
    /// The device, and where it is a node that sysfs does not know by path: also the device of that number. Then
    /// what lies above, the nearest first.
    chain: Chain<'a>,
    /// All devices.
    pub inventory: &'a Inventory,
    /// What the host uses.
    pub host_use: &'a HostUse,
}

impl<'a> Subject<'a> {
    /// A device in its surroundings.
    pub fn new(device: &'a Device, inventory: &'a Inventory, host_use: &'a HostUse) -> Self {
        Self {
            chain: inventory.chain(device),
            inventory,
            host_use,
        }
    }

    /// The device as sysfs has it.
    pub fn device(&self) -> &'a Device {
        self.chain.own()[self.chain.own().len() - 1]
    }

    /// The device by its own path, and by its number where that is another.
    pub fn own(&self) -> &[&'a Device] {
        self.chain.own()
    }

    /// The device, by all its names, and what lies above it: what a rule's selectors are held against.
    pub fn chain(&self) -> &Chain<'a> {
        &self.chain
    }

    /// What lies above, the nearest first.
    pub fn ancestors(&self) -> &[&'a Device] {
        self.chain.parents()
    }

    /// Whether it is a USB device or belongs to one. A root hub (`usb1`) is a part of the host.
    pub fn is_removable(&self) -> bool {
        self.chain
            .all()
            .iter()
            .any(|device| is_usb_device(device) && !device.syspath.name().starts_with("usb"))
    }

    /// The block devices whose use by the host decides about this device.
    pub fn blocks(&self) -> impl Iterator<Item = &'a Device> + use<'a> {
        blocks(self.device(), self.ancestors(), self.inventory)
    }
}

/// The block devices whose use by the host decides about this device; none where it is no matter. Costs no more
/// than looking below the device.
pub fn blocks_that_decide<'a>(device: &'a Device, inventory: &'a Inventory) -> Vec<&'a Device> {
    let real = inventory.real(device);
    let above: Vec<&Device> = match real.subsystem.as_deref() {
        Some("block" | "scsi_generic" | "bsg") => inventory.ancestors(&real.syspath).collect(),
        _ => Vec::new(),
    };
    blocks(real, &above, inventory).collect()
}

fn blocks<'a>(
    device: &'a Device,
    above: &[&'a Device],
    inventory: &'a Inventory,
) -> impl Iterator<Item = &'a Device> + use<'a> {
    let subsystem = device.subsystem.as_deref().unwrap_or_default();
    let is_disk = |device: &&&Device| {
        device.devtype.as_deref() == Some("disk") && device.subsystem.as_deref() == Some("block")
    };
    let top = match subsystem {
        "block" => above.iter().find(is_disk).copied().unwrap_or(device),
        // Commands go past the disk's own node to what the two have in common.
        "scsi_generic" | "bsg" => above.first().copied().unwrap_or(device),
        _ => device,
    };
    // A controller and its namespaces may lie apart in sysfs (nvme-subsystem): all of them count.
    let nvme = subsystem.starts_with("nvme").then(|| {
        inventory
            .iter()
            .filter(|device| is_block(device) && device.syspath.name().starts_with("nvme"))
    });
    inventory
        .at_or_below(&top.syspath)
        .filter(|device| is_block(device))
        .chain(nvme.into_iter().flatten())
}

/// A device and not one of its interfaces, which are of the same subsystem.
pub fn is_usb_device(device: &Device) -> bool {
    device.subsystem.as_deref() == Some("usb") && device.devtype.as_deref() == Some("usb_device")
}

fn is_block(device: &Device) -> bool {
    device
        .node
        .as_ref()
        .is_some_and(|node| node.num.kind == DevKind::Block)
}
