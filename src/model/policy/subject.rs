//! The device that a verdict is about, with the devices above and below it.
//!
//! Must not know rules or what is protected.

use super::host_use::HostUse;
use crate::model::device::inventory::Inventory;
use crate::model::device::same_data;
use crate::model::device::usb_classes::UsbClasses;
use crate::model::device::{DevKind, Device, STATIC_NODE, SysPath, UdevState};
use crate::model::request::facts_needed::DESCRIPTORS;
use crate::model::request::selector::Chain;

pub struct Subject<'a> {
    /// The device; for a static node also the device that sysfs has under its number. Then the
    /// devices above, the nearest first.
    chain: Chain<'a>,
    pub inventory: &'a Inventory,
    pub host_use: &'a HostUse,
}

impl<'a> Subject<'a> {
    pub fn new(device: &'a Device, inventory: &'a Inventory, host_use: &'a HostUse) -> Self {
        Self {
            chain: inventory.chain(device).strict(),
            inventory,
            host_use,
        }
    }

    /// The same for deny rules, which apply not only to the parts of a named device, such as
    /// partitions, but also to block devices made of it: loop, device-mapper and md devices. The
    /// chain therefore includes what the device is made of.
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

    /// Whether udevd is still expected to process a device with unknown facts.
    pub fn is_awaited(&self, device: &SysPath) -> bool {
        let device = self.inventory.get(device);
        device.is_some_and(|device| device.udev_state == UdevState::Pending)
    }

    /// A device of the chain that udevd is still expected to process, or whose facts have not been
    /// read yet.
    pub fn next_awaited(&self) -> Option<SysPath> {
        let mut chain = self.chain.all().iter();
        let awaited = chain.find(|device| device.udev_state == UdevState::Pending)?;
        Some(awaited.syspath.clone())
    }

    /// The device as known to sysfs.
    pub fn device(&self) -> &'a Device {
        self.chain.own()[self.chain.own().len() - 1]
    }

    /// The device under its own path and, for a static node, the device that sysfs has under its
    /// number.
    pub fn own(&self) -> &[&'a Device] {
        self.chain.own()
    }

    /// The device under all its names and the devices above it: what the selectors of rules are
    /// evaluated on.
    pub fn chain(&self) -> &Chain<'a> {
        &self.chain
    }

    /// The device that sysfs has under the number, and the devices above it, without the path from
    /// the request. `None` for a node with a number that sysfs does not have: only the request says
    /// what that node is.
    pub fn in_sysfs(&self) -> Option<Chain<'a>> {
        let real = self.device();
        let is_known = real.subsystem.as_deref() != Some(STATIC_NODE);
        is_known.then(|| self.inventory.chain(real).strict())
    }

    /// The devices above, the nearest first.
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

/// The block devices whose use by the host decides about this device; none for devices unrelated to
/// disks. Costs no more than listing the devices below.
pub fn blocks_that_decide<'a>(device: &'a Device, inventory: &'a Inventory) -> Vec<&'a Device> {
    let real = inventory.real(device);
    let above: Vec<&Device> = match real.subsystem.as_deref() {
        Some("block" | "scsi_generic" | "bsg") => inventory.ancestors(&real.syspath).collect(),
        _ => Vec::new(),
    };
    blocks_of(real, &above, inventory)
}

/// The device's own disk with all partitions, and the disk that backs a loop device, which has the
/// same bytes. (A device-mapper device has its own bytes: a volume may be given to a container
/// although another volume of its group holds the host's root.)
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
    // Above a partition is its disk; above a disk, there is no block device.
    let is_disk = |device: &&&Device| device.subsystem.as_deref() == Some("block");
    let top = match subsystem {
        "block" => above.iter().find(is_disk).copied().unwrap_or(device),
        // Commands to a control node bypass the disk's own node and reach the device above both.
        "scsi_generic" | "bsg" => above.first().copied().unwrap_or(device),
        _ => device,
    };
    // A controller and its namespaces may be in different directories of sysfs (nvme-subsystem):
    // all of them count.
    let nvme = subsystem.starts_with("nvme").then(|| {
        inventory
            .iter()
            .filter(|device| is_block(device) && device.syspath.name().starts_with("nvme"))
    });
    // Devices that are plugged into a hub are not a part of the hub.
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

/// Whether it is a device, not an interface; both are of the subsystem usb.
pub(super) fn is_usb_device(device: &Device) -> bool {
    device.subsystem.as_deref() == Some("usb") && device.devtype.as_deref() == Some("usb_device")
}

/// What the descriptors of a USB device say it is; `None` if they are unreadable.
pub(super) fn usb_classes(device: &Device) -> Option<UsbClasses> {
    UsbClasses::from_text(device.attribute(DESCRIPTORS)?)
}

fn is_block(device: &Device) -> bool {
    device
        .node
        .as_ref()
        .is_some_and(|node| node.num.kind == DevKind::Block)
}
