//! Which devices expose the same bytes: a disk, its partitions, its SCSI and NVMe control nodes,
//! loop, device-mapper and md devices on top of it; a USB device's raw node and the nodes of its
//! interfaces; a HID device's hidraw node and its inputs.
//!
//! Each device is a set of [`Extent`]s, which are ranges of a medium. A part of a medium has a
//! range inside the range of the whole. A whole thus overlaps with each of its parts, including
//! parts that appear later, and two parts do not overlap. Pure: leases lock these ranges
//! (`host::state::leases`); the policy uses them to find what a device exposes (`policy`).

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

/// How many bits of a range's length one level of parts uses, and how many levels there are. Names
/// that differ only in the number at their end get different ranges, as those of the partitions of
/// a disk. Of two other names the chance to get the same range is one in a million; such parts then
/// exclude each other.
const LEVEL_BITS: u32 = 20;
const LEVELS: u32 = 3;

/// How many devices may be stacked on each other (device mapper on md on loop …). Deeper devices
/// are ignored.
const MAX_STACK: usize = 8;

/// A range of the bytes of a medium. The numbers are not offsets; they only show which ranges
/// overlap.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Extent {
    /// What the range belongs to: a USB device, a SCSI or NVMe unit, a disk, the file of a loop
    /// device, or the device itself.
    pub medium: SysPath,
    /// The first number of the range.
    pub first: u64,
    /// The last number of the range.
    pub last: u64,
}

impl Extent {
    /// All of a medium.
    pub(crate) fn whole(medium: SysPath) -> Self {
        let last = (1 << (LEVEL_BITS * LEVELS)) - 1;
        Self {
            medium,
            first: 0,
            last,
        }
    }

    /// The range of the part with this name. Below the last level, a part has the range of the
    /// whole.
    pub(crate) fn part(self, name: &str) -> Self {
        let length = (self.last - self.first + 1) >> LEVEL_BITS;
        if length == 0 {
            return self;
        }
        let first = self.first + index(name) * length;
        Self {
            first,
            last: first + length - 1,
            ..self
        }
    }

    pub(crate) fn overlaps(&self, other: &Extent) -> bool {
        self.medium == other.medium && self.first <= other.last && other.first <= self.last
    }

    fn covers(&self, other: &Extent) -> bool {
        self.medium == other.medium && self.first <= other.first && other.last <= self.last
    }
}

/// Which of the ranges of the whole the part with this name has.
fn index(name: &str) -> u64 {
    let prefix = name.trim_end_matches(|digit: char| digit.is_ascii_digit());
    let (prefix, number) = match name[prefix.len()..].parse::<u64>() {
        Ok(number) => (prefix, number),
        Err(_) => (name, 0),
    };
    let ranges = 1 << LEVEL_BITS;
    ((mixed(fnv(prefix, 0)) >> (64 - LEVEL_BITS)) + number % ranges) % ranges
}

/// Where a device's bytes are; at least one extent. For a static node, the extents of the device
/// that sysfs has under its number.
pub(crate) fn extents(device: &Device, inventory: &Inventory) -> Vec<Extent> {
    let mut found = extents_of(inventory.real(device), inventory, 0);
    found.sort();
    found.dedup();
    found
}

/// Whether two devices have bytes in common.
pub(crate) fn overlap(one: &[Extent], other: &[Extent]) -> bool {
    one.iter()
        .any(|one| other.iter().any(|other| one.overlaps(other)))
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
        .filter(|it| it.node.is_some())
        .collect();
    let has_blocks = below.iter().any(|it| is_block(it));
    let elsewhere = match subsystem(device) {
        "nvme" => inventory.iter().filter(|it| is_block(it)).collect(),
        _ if has_blocks => {
            let mut blocks = over_others(inventory);
            for lower in made_of(device, inventory) {
                blocks.extend(inventory.at_or_below(&lower.syspath).filter(|it| is_block(it)));
            }
            blocks
        }
        _ => Vec::new(),
    };
    let own = extents(device, inventory);
    let mut exposed: Vec<&Device> = below
        .into_iter()
        .chain(elsewhere)
        .filter(|it| it.syspath != device.syspath && !is_control_node(it))
        .filter(|it| {
            let its = extents(it, inventory);
            its.iter().any(|part| own.iter().any(|whole| whole.covers(part)))
        })
        .collect();
    exposed.sort_by(|one, other| one.syspath.cmp(&other.syspath));
    exposed.dedup_by(|one, other| one.syspath == other.syspath);
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

/// Whether it is a loop, device-mapper or md device, or a part of one.
pub(crate) fn is_virtual_block(device: &SysPath) -> bool {
    device.as_str().starts_with(VIRTUAL_BLOCKS)
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
    let over = |it: &'a Device| {
        let file = file_in_dev(it)?;
        let mut lower = blocks.iter().filter(|block| is_block(block));
        let lower = lower.find(|block| {
            block
                .node
                .as_ref()
                .is_some_and(|node| node.path.as_path() == Path::new(file))
        })?;
        Some((it, *lower))
    };
    inventory.starting_with(VIRTUAL_BLOCKS).filter_map(over).collect()
}

/// The directory of loop, device-mapper and md devices, whatever they are made of.
const VIRTUAL_BLOCKS: &str = "/sys/devices/virtual/block/";

/// Block devices outside the medium's directory that may have bytes of another device, and their
/// partitions: devices made of block devices, and loop devices.
fn over_others(inventory: &Inventory) -> Vec<&Device> {
    let may_be = |it: &&Device| {
        let disk = disk_of(it, inventory);
        disk.attribute(BACKING_FILE).is_some()
            || disk.attribute(SLAVES).is_some_and(|names| !names.is_empty())
    };
    inventory.starting_with(VIRTUAL_BLOCKS).filter(may_be).collect()
}

/// The backing file of a loop device, if the file is in /dev and can thus be a device node.
fn file_in_dev(device: &Device) -> Option<&str> {
    device
        .attribute(BACKING_FILE)
        .filter(|file| file.starts_with("/dev/"))
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

/// The devices that a block device is directly made of.
fn under<'a>(device: &'a Device, inventory: &'a Inventory) -> Vec<&'a Device> {
    if let Some(device) = block_at(device, inventory) {
        return vec![device];
    }
    let Some(names) = device.attribute(SLAVES).filter(|names| !names.is_empty()) else {
        return Vec::new();
    };
    let names: Vec<&str> = names.split(' ').collect();
    let is_one = |it: &&Device| is_block(it) && names.contains(&it.syspath.name());
    inventory.iter().filter(is_one).collect()
}

/// The block device that backs a loop device.
fn block_at<'a>(device: &Device, inventory: &'a Inventory) -> Option<&'a Device> {
    let file = file_in_dev(device)?;
    let is_it = |it: &&Device| {
        it.syspath != device.syspath
            && it
                .node
                .as_ref()
                .is_some_and(|node| node.path.as_path() == Path::new(file))
    };
    inventory.iter().find(is_it)
}

fn disk_of<'a>(device: &'a Device, inventory: &'a Inventory) -> &'a Device {
    if !is_partition(device) {
        return device;
    }
    let parent = device.syspath.parent();
    parent.and_then(|parent| inventory.get(&parent)).unwrap_or(device)
}

fn is_partition(device: &Device) -> bool {
    device.devtype.as_deref() == Some("partition") && subsystem(device) == "block"
}

fn is_block(device: &Device) -> bool {
    device
        .node
        .as_ref()
        .is_some_and(|node| node.num.kind == DevKind::Block)
}

/// Whether the node bypasses the other nodes of its medium and has no bytes itself.
fn is_control_node(device: &Device) -> bool {
    matches!(subsystem(device), "usb" | "nvme" | "scsi_generic" | "bsg")
}

fn subsystem(device: &Device) -> &str {
    device.subsystem.as_deref().unwrap_or_default()
}

/// FNV-1a, 64 bits. It is the same in every build, which the standard library's hasher does not
/// guarantee. `seed` selects one of several hash functions. The kernel names devices, so nobody can
/// choose names that collide.
pub(crate) fn fnv(text: &str, seed: u8) -> u64 {
    [seed]
        .iter()
        .chain(text.as_bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

/// A hash whose high bits depend on all of `hash` (FNV's high bits hardly depend on the last byte
/// of a name): a shortened form of MurmurHash3's 64 bit finalizer.
fn mixed(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53)
}

#[cfg(test)]
mod tests;
