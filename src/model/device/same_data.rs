//! Which devices expose the same bytes: a disk, its partitions, its SCSI and NVMe control nodes,
//! loop, device-mapper and md devices on top of it; a USB device's raw node and the nodes of its
//! interfaces; a HID device's hidraw node and its inputs.
//!
//! Each device is a set of [`Extent`]s, which are ranges of a medium. A part of a medium has a
//! range inside the range of the whole. A whole thus overlaps with each of its parts, including
//! parts that appear later, and two parts do not overlap. Pure: leases lock these ranges
//! (`host::state::leases`); the policy uses them to find what a device exposes (`policy`).

mod blocks;
mod extent;

pub(crate) use blocks::{
    BACKING_FILE, SLAVES, behind_loops, is_virtual_block, loops_over, made_of, virtual_blocks,
};
use blocks::{MAX_STACK, block_at, disk_of, is_block, is_partition, over_others, under};
pub(crate) use extent::{Extent, fnv, overlap};

use crate::model::device::inventory::Inventory;
use crate::model::device::{Device, SysPath};

/// Where a device's bytes are; at least one extent. For a static node, the extents of the device
/// that sysfs has under its number.
pub(crate) fn extents(device: &Device, inventory: &Inventory) -> Vec<Extent> {
    let mut found = extents_of(inventory.real(device), inventory, 0);
    found.sort();
    found.dedup();
    found
}

/// The other devices whose bytes this device exposes: a process that can open this device can
/// access them. Excludes the devices that this one is a part of, and control nodes, which lead to
/// bytes but have none.
pub(crate) fn exposed<'a>(device: &'a Device, inventory: &'a Inventory) -> Vec<&'a Device> {
    let device = inventory.real(device);
    let Some(place) = medium_directory(device) else {
        return Vec::new();
    };
    let below: Vec<&Device> = inventory
        .at_or_below(&place)
        .filter(|device| device.node.is_some())
        .collect();
    let has_blocks = below.iter().any(|device| is_block(device));
    let elsewhere = match subsystem(device) {
        "nvme" => inventory.iter().filter(|device| is_block(device)).collect(),
        _ if has_blocks => {
            let mut blocks = over_others(inventory);
            for lower in made_of(device, inventory) {
                blocks.extend(
                    inventory
                        .at_or_below(&lower.syspath)
                        .filter(|device| is_block(device)),
                );
            }
            blocks
        }
        _ => Vec::new(),
    };
    let own = extents(device, inventory);
    let mut exposed: Vec<&Device> = below
        .into_iter()
        .chain(elsewhere)
        .filter(|other| other.syspath != device.syspath && !is_control_node(other))
        .filter(|other| {
            let parts = extents(other, inventory);
            parts
                .iter()
                .any(|part| own.iter().any(|whole| whole.covers(part)))
        })
        .collect();
    exposed.sort_by_key(|device| &device.syspath);
    exposed.dedup_by_key(|device| &device.syspath);
    exposed
}

/// Whether it can depend on virtual block devices which bytes this device exposes, and whether the
/// host uses them. Only then do [`extents`], [`exposed`], [`made_of`] and [`loops_over`] evaluate
/// virtual block devices.
pub(crate) fn depends_on_virtual_blocks(device: &Device, inventory: &Inventory) -> bool {
    let device = inventory.real(device);
    let has_blocks = |place: &SysPath| inventory.at_or_below(place).any(is_block);
    is_block(device)
        || subsystem(device).starts_with("nvme")
        || has_blocks(&device.syspath)
        || medium_directory(device).is_some_and(|place| has_blocks(&place))
}

fn extents_of(device: &Device, inventory: &Inventory, depth: usize) -> Vec<Extent> {
    if is_partition(device) {
        let disk = disk_of(device, inventory);
        if disk.syspath != device.syspath {
            let of_disk = extents_of(disk, inventory, depth);
            return of_disk
                .into_iter()
                .map(|extent| extent.part(device.syspath.name()))
                .collect();
        }
    }
    let mut found = vec![own_extent(device, inventory)];
    if subsystem(device) == "nvme" && has_namespaces_elsewhere(inventory) {
        found.push(Extent::whole(SysPath::new(NVME_SUBSYSTEMS)));
    }
    if let Some(file) = device
        .attribute(BACKING_FILE)
        .filter(|_| block_at(device, inventory).is_none())
    {
        found.push(Extent::whole(SysPath::new(format!(
            "/sys/devices/loop-file{file}"
        ))));
    }
    if depth < MAX_STACK {
        let is_loop = device.attribute(BACKING_FILE).is_some();
        for lower in under(device, inventory) {
            let of_lower = extents_of(lower, inventory, depth + 1).into_iter();
            found.extend(of_lower.map(|extent| match is_loop {
                true => extent,
                false => extent.part(device.syspath.name()),
            }));
        }
    }
    found
}

/// Where the kernel puts NVMe namespaces that several controllers may lead to
/// (CONFIG_NVME_MULTIPATH).
const NVME_SUBSYSTEMS: &str = "/sys/devices/virtual/nvme-subsystem";

fn has_namespaces_elsewhere(inventory: &Inventory) -> bool {
    inventory.starting_with(NVME_SUBSYSTEMS).any(is_block)
}

/// The extent of a device that is not a partition, by its position in sysfs.
fn own_extent(device: &Device, inventory: &Inventory) -> Extent {
    let mut usb = None;
    let mut unit = None;
    let mut hid = None;
    let mut input = None;
    for above in std::iter::once(device).chain(inventory.ancestors(&device.syspath)) {
        match (subsystem(above), above.devtype.as_deref()) {
            ("usb", Some("usb_device")) => {
                usb = Some(&above.syspath);
                break;
            }
            // All nodes of one unit lead to the same bytes: sda, sg0, bsg/0:0:0:0; st0, nst0; sr0.
            ("scsi", Some("scsi_device")) => unit = Some(&above.syspath),
            ("hid", _) => hid = Some(&above.syspath),
            // event7, js0 and mouse0 report the same events; the topmost input device is their
            // medium.
            ("input", _) => input = Some(&above.syspath),
            ("nvme", _) => {
                let medium = Extent::whole(above.syspath.clone());
                return match above.syspath == device.syspath {
                    true => medium,
                    false => medium.part(namespace(device.syspath.name())),
                };
            }
            _ => {}
        }
    }
    if device.syspath.as_str().starts_with(NVME_SUBSYSTEMS) {
        return Extent::whole(SysPath::new(NVME_SUBSYSTEMS)).part(namespace(device.syspath.name()));
    }
    match (usb, unit, hid, input) {
        (Some(usb), _, _, _) if *usb == device.syspath => Extent::whole(usb.clone()),
        (Some(usb), Some(unit), _, _) => Extent::whole(usb.clone()).part(unit.as_str()),
        (usb, _, hid, input) if hid.is_some() || input.is_some() => {
            let parts = [usb, hid, input].into_iter().flatten();
            let mut parts = parts.map(SysPath::as_str);
            // There is always at least one part.
            let medium = parts.next().unwrap_or_default();
            parts.fold(Extent::whole(SysPath::new(medium)), Extent::part)
        }
        (Some(usb), ..) => Extent::whole(usb.clone()).part(device.syspath.as_str()),
        (None, Some(unit), ..) => Extent::whole(unit.clone()),
        _ => Extent::whole(device.syspath.clone()),
    }
}

/// `nvme0n1` and its character node `ng0n1` are one namespace.
fn namespace(name: &str) -> &str {
    let instance = name.strip_prefix("nvme").or(name.strip_prefix("ng"));
    instance.unwrap_or(name)
}

/// The directory of sysfs that contains the other nodes that a device's node may expose; `None` for
/// a device that exposes no other node.
fn medium_directory(device: &Device) -> Option<SysPath> {
    let path = &device.syspath;
    match subsystem(device) {
        "usb" | "nvme" | "block" => Some(path.clone()),
        // The parent directory is that of the class; above it is the unit or the HID device.
        "hidraw" | "input" | "scsi_generic" | "bsg" | "scsi_tape" => path.ancestors().nth(1),
        _ => None,
    }
}

/// Whether the node bypasses the other nodes of its medium and has no bytes itself.
fn is_control_node(device: &Device) -> bool {
    matches!(subsystem(device), "usb" | "nvme" | "scsi_generic" | "bsg")
}

fn subsystem(device: &Device) -> &str {
    device.subsystem.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests;
