//! Block devices: partitions, and which devices are made of which.

use std::path::Path;

use crate::model::device::inventory::Inventory;
use crate::model::device::{DevKind, Device, SysPath};

/// The attribute of a loop device that names its file (Documentation/ABI:
/// /sys/block/loopN/loop/backing_file). The kernel shows the resolved path as it was when the
/// device was set up (drivers/block/loop.c, loop_attr_backing_file_show).
pub(crate) const BACKING_FILE: &str = "loop/backing_file";

/// The directory that lists the devices that a block device is made of
/// (Documentation/ABI/stable/sysfs-block). Its snapshot is the names, separated by spaces.
pub(crate) const SLAVES: &str = "slaves";

/// How many devices may be stacked on each other (device mapper on md on loop …). Deeper devices
/// are ignored.
pub(super) const MAX_STACK: usize = 8;

/// The directory of loop, device-mapper and md devices, whatever they are made of.
const VIRTUAL_BLOCKS: &str = "/sys/devices/virtual/block/";

/// Whether it is a loop, device-mapper or md device, or a part of one.
pub(crate) fn is_virtual_block(device: &SysPath) -> bool {
    device.as_str().starts_with(VIRTUAL_BLOCKS)
}

/// The virtual block devices of an inventory.
pub(crate) fn virtual_blocks(inventory: &Inventory) -> impl Iterator<Item = &Device> {
    inventory.starting_with(VIRTUAL_BLOCKS)
}

/// All devices that a block device is made of, directly or indirectly: the device behind a loop
/// device, the devices under a device-mapper or md device; none for other devices. For a partition,
/// the devices that its disk is made of.
pub(crate) fn made_of<'a>(device: &'a Device, inventory: &'a Inventory) -> Vec<&'a Device> {
    let mut found: Vec<&Device> = Vec::new();
    let mut next = vec![inventory.real(device)];
    for _ in 0..MAX_STACK {
        let below: Vec<&Device> = next
            .iter()
            .flat_map(|device| under(disk_of(device, inventory), inventory))
            .filter(|device| !found.iter().any(|known| known.syspath == device.syspath))
            .collect();
        if below.is_empty() {
            break;
        }
        found.extend(&below);
        next = below;
    }
    found
}

/// The devices that back a loop device, followed through further loop devices.
pub(crate) fn behind_loops<'a>(device: &'a Device, inventory: &'a Inventory) -> Vec<&'a Device> {
    let behind = |device: &&'a Device| block_at(disk_of(device, inventory), inventory);
    std::iter::successors(behind(&device), behind)
        .take(MAX_STACK)
        .collect()
}

/// The loop devices that are backed by one of these block devices, each with that device. (The
/// kernel lists device-mapper and md devices in the `holders` of a device, but not loop devices.)
pub(crate) fn loops_over<'a>(
    blocks: &[&'a Device],
    inventory: &'a Inventory,
) -> Vec<(&'a Device, &'a Device)> {
    let over = |device: &'a Device| {
        let file = file_in_dev(device)?;
        let mut lower = blocks.iter().filter(|block| is_block(block));
        let lower = lower.find(|block| {
            block
                .node
                .as_ref()
                .is_some_and(|node| node.path.as_path() == Path::new(file))
        })?;
        Some((device, *lower))
    };
    virtual_blocks(inventory).filter_map(over).collect()
}

/// Block devices outside the medium's directory that may have bytes of another device, and their
/// partitions: devices made of block devices, and loop devices.
pub(super) fn over_others(inventory: &Inventory) -> Vec<&Device> {
    let may_have_bytes = |device: &&Device| {
        let disk = disk_of(device, inventory);
        disk.attribute(BACKING_FILE).is_some()
            || disk.attribute(SLAVES).is_some_and(|names| !names.is_empty())
    };
    virtual_blocks(inventory).filter(may_have_bytes).collect()
}

/// The devices that a block device is directly made of.
pub(super) fn under<'a>(device: &'a Device, inventory: &'a Inventory) -> Vec<&'a Device> {
    if let Some(device) = block_at(device, inventory) {
        return vec![device];
    }
    let Some(names) = device.attribute(SLAVES).filter(|names| !names.is_empty()) else {
        return Vec::new();
    };
    let names: Vec<&str> = names.split(' ').collect();
    let is_named = |lower: &&Device| is_block(lower) && names.contains(&lower.syspath.name());
    inventory.iter().filter(is_named).collect()
}

/// The block device that backs a loop device.
pub(super) fn block_at<'a>(device: &Device, inventory: &'a Inventory) -> Option<&'a Device> {
    let file = file_in_dev(device)?;
    let is_behind = |lower: &&Device| {
        lower.syspath != device.syspath
            && lower
                .node
                .as_ref()
                .is_some_and(|node| node.path.as_path() == Path::new(file))
    };
    inventory.iter().find(is_behind)
}

/// The backing file of a loop device, if the file is in /dev and can thus be a device node.
fn file_in_dev(device: &Device) -> Option<&str> {
    device
        .attribute(BACKING_FILE)
        .filter(|file| file.starts_with("/dev/"))
}

pub(super) fn disk_of<'a>(device: &'a Device, inventory: &'a Inventory) -> &'a Device {
    if !is_partition(device) {
        return device;
    }
    let parent = device.syspath.parent();
    parent.and_then(|parent| inventory.get(&parent)).unwrap_or(device)
}

pub(super) fn is_partition(device: &Device) -> bool {
    device.devtype.as_deref() == Some("partition") && device.subsystem.as_deref() == Some("block")
}

pub(super) fn is_block(device: &Device) -> bool {
    device
        .node
        .as_ref()
        .is_some_and(|node| node.num.kind == DevKind::Block)
}
