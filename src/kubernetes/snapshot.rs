//! The host at one moment: devices, paths below /dev, and Tegra's GPUs.
//!
//! Reads `/dev` as smarter-device-manager does: to a depth of 10, including directories and links
//! to directories. Opens no device node. Must not know how resources are made from it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::config::{DEV, Definition, GoGlob, Part};
use crate::host::monitor::DeviceMonitor;
use crate::model::device::inventory::Inventory;
use crate::model::device::{Device, SysPath};
use crate::model::remote::address::{BusId, Server, UsbIds};
use crate::model::remote::reservation::{Reservation, ReservedDevice, is_reserved};
use crate::model::remote::vhci;
use crate::usbip::records;

/// The depth to which /dev is read (smarter-device-manager's main.go:58-93).
const MAX_DEPTH: usize = 10;

/// The type of a path after following links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathKind {
    Device,
    Directory,
    /// A file or a socket: not usable as a device.
    Other,
}

/// For each server that answered, the exported devices that no host has imported.
pub(super) type Exports = BTreeMap<Server, Vec<(BusId, UsbIds)>>;

/// The host at one moment, as far as definitions need it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    /// The devices that the kernel and udev know, except for remote devices that are attached for
    /// one container or are being attached: no other container may have them.
    pub inventory: Inventory,
    /// The attached remote USB devices, for whichever container.
    pub attached: Vec<Device>,
    /// All absolute paths below /dev, except for those of devices that `inventory` omits; and the
    /// paths outside /dev that a definition names.
    pub paths: BTreeMap<PathBuf, PathKind>,
    /// The places of USB devices that share a socket with a place on the other bus, in both
    /// directions.
    pub peers: BTreeMap<SysPath, SysPath>,
    /// The numbers of Tegra's GPUs.
    pub gpus: BTreeSet<u32>,
    pub exports: Exports,
    /// Units of remote devices that a container has or had a moment ago, and whether it certainly
    /// still has them.
    pub in_use: BTreeMap<String, bool>,
}

impl Snapshot {
    /// Takes a snapshot, as far as the definitions need it. `exports` and `in_use` stay empty.
    ///
    /// # Errors
    ///
    /// If sysfs cannot be listed.
    pub(crate) fn take(
        definitions: &[Definition],
        monitor: &DeviceMonitor,
        state_dir: &Path,
    ) -> Result<Self> {
        let reservations = records::reservations(state_dir);
        let mut snapshot = Self::default();
        if !reservations.is_empty() || definitions.iter().any(Definition::needs_devices) {
            let devices = monitor.enumerate().context("cannot list the host's devices")?;
            snapshot.inventory.replace(devices);
        }
        if definitions.iter().any(Definition::needs_paths) {
            snapshot.paths = paths_below_dev();
        }
        snapshot.paths.extend(paths_outside_dev(definitions));
        for definition in definitions {
            match definition {
                // The path may be outside /dev, or deeper than MAX_DEPTH.
                Definition::Path { path, .. } => snapshot.add_path(path),
                Definition::Remote { entries, .. } => {
                    let extras = entries.iter().flat_map(|entry| &entry.extras);
                    extras.for_each(|extra| snapshot.add_path(&extra.host));
                }
                Definition::NvidiaGpu { .. } => snapshot.gpus = gpus(),
                Definition::Pattern { .. } | Definition::Groups { .. } | Definition::Requested(_) => {}
            }
        }
        snapshot.set_reserved_apart(&reservations);
        let is_requested = |definition: &Definition| matches!(definition, Definition::Requested(_));
        if definitions.iter().any(is_requested) {
            snapshot.find_peers();
        }
        Ok(snapshot)
    }

    /// Removes remote devices that are reserved for one container from the inventory.
    pub(crate) fn set_reserved_apart(&mut self, reservations: &[Reservation]) {
        self.attached = self
            .inventory
            .iter()
            .filter(|device| is_remote(device))
            .cloned()
            .collect();
        let reserved: Vec<ReservedDevice> = reservations
            .iter()
            .filter_map(|reservation| reservation.against("", &self.inventory))
            .collect();
        let is_reserved = |device: &Device| is_reserved(&reserved, device, &self.inventory);
        let (others, free): (Vec<Device>, Vec<Device>) =
            self.inventory.iter().cloned().partition(is_reserved);
        for device in &others {
            let node = device.node.as_ref().map(|node| &node.path);
            for path in node.into_iter().chain(&device.links) {
                self.paths.remove(path);
            }
        }
        self.inventory.replace(free);
    }

    /// The common place of a socket, whichever bus its device is on: a socket has one port for low,
    /// full and high speed and another port for higher speeds.
    pub(crate) fn socket<'a>(&'a self, place: &'a SysPath) -> &'a SysPath {
        self.peers.get(place).map_or(place, |peer| place.min(peer))
    }

    /// Finds the places that share a socket.
    pub(crate) fn find_peers(&mut self) {
        for device in self.inventory.iter() {
            if device.devtype.as_deref() == Some("usb_device") {
                if let Some(peer) = peer(&device.syspath) {
                    self.peers.insert(peer.clone(), device.syspath.clone());
                    self.peers.insert(device.syspath.clone(), peer);
                }
            }
        }
    }

    fn add_path(&mut self, path: &Path) {
        self.paths
            .extend(look(path).map(|found| (path.to_owned(), found)));
    }
}

/// Whether it is a remote USB device. The root hub of a virtual controller is not: its name
/// (`usb3`) contains no port, unlike `3-1`.
pub(super) fn is_remote(device: &Device) -> bool {
    device.devtype.as_deref() == Some("usb_device")
        && vhci::includes(&device.syspath)
        && device.syspath.name().contains('-')
}

/// The paths outside /dev that match patterns of groups.
pub(super) fn paths_outside_dev(definitions: &[Definition]) -> BTreeMap<PathBuf, PathKind> {
    let patterns = definitions.iter().flat_map(Definition::patterns_outside_dev);
    patterns.flat_map(glob).collect()
}

/// The paths that a pattern matches on the host; a link that leads nowhere is not a match.
fn glob(pattern: &GoGlob) -> BTreeMap<PathBuf, PathKind> {
    let mut paths = vec![PathBuf::from("/")];
    for part in pattern.parts() {
        paths = match part {
            Part::Name(name) => paths.into_iter().map(|path| path.join(name)).collect(),
            Part::Tokens(_) => paths.iter().flat_map(|path| matching(path, part)).collect(),
        };
    }
    let found = paths
        .into_iter()
        .filter_map(|path| Some((path.clone(), look(&path)?)));
    found.collect()
}

/// The entries of a directory whose name matches.
fn matching(directory: &Path, part: &Part) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().to_str().is_some_and(|name| part.is_match(name)));
    named.map(|entry| entry.path()).collect()
}

/// The place of the device on the other bus of its socket: sysfs has a link from the device to its
/// `port`, and from the port to its `peer`, if the kernel knows it
/// (Documentation/ABI/testing/sysfs-bus-usb).
fn peer(device: &SysPath) -> Option<SysPath> {
    let port = fs::canonicalize(device.as_path().join("port/peer")).ok()?;
    device_at(&port)
}

/// The device at a port, such as `…/usb2/2-4` at `…/usb2/2-0:1.0/usb2-port4`, and `…/2-1/2-1.3` at
/// `…/2-1/2-1:1.0/2-1-port3` (the kernel's drivers/usb/core/port.c, usb_hub_create_port_device).
fn device_at(port: &Path) -> Option<SysPath> {
    let (hub, number) = port.file_name()?.to_str()?.rsplit_once("-port")?;
    let name = match hub.strip_prefix("usb") {
        Some(bus) => format!("{bus}-{number}"),
        None => format!("{hub}.{number}"),
    };
    let path = port.parent()?.parent()?.join(name);
    Some(SysPath::new(path.to_str()?))
}

/// All paths below /dev. Unreadable directories count as absent.
fn paths_below_dev() -> BTreeMap<PathBuf, PathKind> {
    let mut paths = BTreeMap::new();
    walk(Path::new(DEV), 0, &mut paths);
    paths
}

fn walk(directory: &Path, depth: usize, paths: &mut BTreeMap<PathBuf, PathKind>) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let Some(found) = look(&path) else { continue };
        // Do not follow a link out of /dev (/dev/fd leads to /proc).
        let leads_on = found == PathKind::Directory
            && depth < MAX_DEPTH
            && fs::canonicalize(&path).is_ok_and(|real| real.starts_with(DEV));
        if leads_on {
            walk(&path, depth + 1, paths);
        }
        paths.insert(path, found);
    }
}

/// The type of a path; `None` if it does not exist.
fn look(path: &Path) -> Option<PathKind> {
    let kind = fs::metadata(path).ok()?.file_type();
    Some(if kind.is_char_device() || kind.is_block_device() {
        PathKind::Device
    } else if kind.is_dir() {
        PathKind::Directory
    } else {
        PathKind::Other
    })
}

/// The GPUs that Tegra kernels show as `gpu.0` in /sys/devices or one directory below.
fn gpus() -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
    let number = |name: &std::ffi::OsStr| name.to_str()?.strip_prefix("gpu.")?.parse::<u32>().ok();
    for entry in entries(Path::new("/sys/devices")) {
        found.extend(number(&entry.file_name()));
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(entries(&entry.path()).filter_map(|below| number(&below.file_name())));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ports_device_is_named_for_its_hub() {
        const XHCI: &str = "/sys/devices/pci0000:00/0000:00:14.0";
        for (port, device) in [
            ("usb2/2-0:1.0/usb2-port4", "usb2/2-4"),
            ("usb1/1-0:1.0/usb1-port12", "usb1/1-12"),
            ("usb1/1-1/1-1:1.0/1-1-port3", "usb1/1-1/1-1.3"),
            ("usb1/1-1/1-1.3/1-1.3:1.0/1-1.3-port2", "usb1/1-1/1-1.3/1-1.3.2"),
        ] {
            let found = device_at(Path::new(&format!("{XHCI}/{port}")));
            assert_eq!(found, Some(SysPath::new(format!("{XHCI}/{device}"))));
        }
        assert_eq!(device_at(Path::new("/sys/devices/x")), None);
    }

    /// The layout of the kernel: `port` among the device's attributes, `peer` in the port.
    #[test]
    fn the_peer_of_a_device_is_where_the_links_of_sysfs_lead() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        for directory in [
            "usb1/1-4",
            "usb1/1-0:1.0/usb1-port4",
            "usb2/2-0:1.0/usb2-port2",
            "usb1/1-5",
        ] {
            fs::create_dir_all(path(directory)).unwrap();
        }
        let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, path(name)).unwrap();
        link("../1-0:1.0/usb1-port4", "usb1/1-4/port");
        link("../../../usb2/2-0:1.0/usb2-port2", "usb1/1-0:1.0/usb1-port4/peer");
        let place = |name: &str| SysPath::new(path(name).to_str().unwrap());
        let mut snapshot = Snapshot::default();
        let device = |name: &str| {
            let mut device = Device::new(place(name));
            device.devtype = Some("usb_device".into());
            device
        };
        snapshot
            .inventory
            .replace(vec![device("usb1/1-4"), device("usb1/1-5")]);
        snapshot.find_peers();
        let (high, superspeed) = (place("usb1/1-4"), place("usb2/2-2"));
        assert_eq!(snapshot.socket(&superspeed), &high);
        assert_eq!(snapshot.socket(&high), &high);
        assert_eq!(snapshot.peers.len(), 2);
        assert_eq!(snapshot.socket(&place("usb1/1-5")), &place("usb1/1-5"));
    }
}
