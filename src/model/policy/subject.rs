//! The device that a verdict is on, and what lies above and below it.
//!
//! Must not know rules nor what is protected.

use super::host_use::HostUse;
use crate::model::device::inventory::Inventory;
use crate::model::device::same_data;
use crate::model::device::{DevKind, Device, STATIC_NODE, SysPath, UdevState};
use crate::model::request::selector::Chain;

/// One device, with its surroundings.
pub struct Subject<'a> {
    /// The device, and where it is a node that sysfs does not know by path: also the device of that
    /// number. Then what lies above, the nearest first.
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
            chain: inventory.chain(device).strict(),
            inventory,
            host_use,
        }
    }

    /// The same for deny rules, which reach from what a block device is made of up to it, as from a
    /// disk down to its partitions: the devices behind a loop device, under one of the device
    /// mapper's or md's.
    pub fn for_deny(device: &'a Device, inventory: &'a Inventory, host_use: &'a HostUse) -> Self {
        let subject = Self::new(device, inventory, host_use);
        let lower = same_data::made_of(device, inventory);
        let above_lower = lower.iter().flat_map(|lower| inventory.ancestors(&lower.syspath));
        let parents = subject
            .ancestors()
            .iter()
            .copied()
            .chain(lower.iter().copied())
            .chain(above_lower);
        Self {
            chain: Chain::new(subject.own(), parents).strict().with_claims(),
            ..subject
        }
    }

    /// Whether udevd is still expected to process a device of which a fact is unknown.
    pub fn is_awaited(&self, device: &SysPath) -> bool {
        let device = self.inventory.get(device);
        device.is_some_and(|device| device.udev_state == UdevState::Pending)
    }

    /// A device of the chain that udevd is still expected to process, or whose facts nobody has
    /// looked up yet.
    pub fn next_awaited(&self) -> Option<SysPath> {
        let mut chain = self.chain.all().iter();
        let awaited = chain.find(|device| device.udev_state == UdevState::Pending)?;
        Some(awaited.syspath.clone())
    }

    /// The device as sysfs has it.
    pub fn device(&self) -> &'a Device {
        self.chain.own()[self.chain.own().len() - 1]
    }

    /// The device by its own path, and by its number where that is another.
    pub fn own(&self) -> &[&'a Device] {
        self.chain.own()
    }

    /// The device, by all its names, and what lies above it: what a rule's selectors are held
    /// against.
    pub fn chain(&self) -> &Chain<'a> {
        &self.chain
    }

    /// The device that sysfs has under the number, and what lies above it, without the path that a
    /// request gave it. `None` for a node of a number that sysfs does not have: nobody but who
    /// wrote the request says what it is.
    pub fn in_sysfs(&self) -> Option<Chain<'a>> {
        let real = self.device();
        let is_known = real.subsystem.as_deref() != Some(STATIC_NODE);
        is_known.then(|| self.inventory.chain(real).strict())
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
    pub fn blocks(&self) -> Vec<&'a Device> {
        blocks_of(self.device(), self.ancestors(), self.inventory)
    }
}

/// The block devices whose use by the host decides about this device; none where it is no matter.
/// Costs no more than looking below the device.
pub fn blocks_that_decide<'a>(device: &'a Device, inventory: &'a Inventory) -> Vec<&'a Device> {
    let real = inventory.real(device);
    let above: Vec<&Device> = match real.subsystem.as_deref() {
        Some("block" | "scsi_generic" | "bsg") => inventory.ancestors(&real.syspath).collect(),
        _ => Vec::new(),
    };
    blocks_of(real, &above, inventory)
}

/// Its own disk with all partitions, and the disk behind a loop device: that has the bytes of that
/// disk. (A device of the device mapper's has bytes of its own: a volume group whose other volume
/// holds the host's root may give one to a container.)
fn blocks_of<'a>(device: &'a Device, above: &[&'a Device], inventory: &'a Inventory) -> Vec<&'a Device> {
    let mut found: Vec<&Device> = blocks(device, above, inventory).collect();
    if device.subsystem.as_deref() == Some("block") {
        for behind in same_data::behind_loops(device, inventory) {
            let above: Vec<&Device> = inventory.ancestors(&behind.syspath).collect();
            found.extend(blocks(behind, &above, inventory));
        }
    }
    found
}

fn blocks<'a>(
    device: &'a Device,
    above: &[&'a Device],
    inventory: &'a Inventory,
) -> impl Iterator<Item = &'a Device> + use<'a> {
    let subsystem = device.subsystem.as_deref().unwrap_or_default();
    // Above a partition there is its disk; above a disk, no block device.
    let is_disk = |device: &&&Device| device.subsystem.as_deref() == Some("block");
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
    // What is plugged into a hub is not the hub's.
    let is_usb = is_usb_device(device);
    let is_its_own = move |block: &&Device| {
        let mut above = inventory.ancestors(&block.syspath);
        !is_usb
            || above
                .find(|above| is_usb_device(above))
                .is_some_and(|usb| usb.syspath == device.syspath)
    };
    inventory
        .at_or_below(&top.syspath)
        .filter(|device| is_block(device))
        .filter(is_its_own)
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
