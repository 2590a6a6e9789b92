//! Devices as sysfs has them at this moment: all with nodes and what is above them, or one.
//!
//! Must not know events nor udev. Reads no more than is requested: listing must cost a few
//! milliseconds.

mod listed;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirEntry};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{self, OFlag};
use nix::sys::stat::Mode;
use nix::unistd;

use super::error::MonitorError;
use super::message::{Properties, from_uevent, parse_uevent};
use crate::host::file_system::open_directory;
use crate::model::device::hid_usages::HidUsages;
use crate::model::device::input_capabilities::InputCapabilities;
use crate::model::device::same_data::SLAVES;
use crate::model::device::usb_classes::UsbClasses;
use crate::model::device::{DevKind, Device, SysPath};
use crate::model::remote::vhci;
use crate::model::request::facts_needed::{CAPABILITIES, DESCRIPTORS, REPORT_DESCRIPTOR};

/// No attribute (nor uevent file) is read further than this, in bytes: a page is all that sysfs
/// text can have.
const ATTRIBUTE_LIMIT: usize = 4096;

/// The longest binary attribute that is read, in bytes: a device descriptor of 18 bytes, and at
/// most 8 configurations of 65535 (drivers/usb/core/config.c, USB_MAXCONFIG). Cameras and docks
/// have more than a page of them.
const DESCRIPTORS_LIMIT: u64 = 18 + 8 * 65535;

/// The attributes to read: names, each for devices of one DEVTYPE or (`None`) for all.
pub(super) type Attributes = BTreeMap<String, Option<String>>;

/// A sysfs: `/sys`, or one that a test recorded.
pub(super) struct SysFs {
    root: PathBuf,
    /// `devices` below the root: short relative paths make the many small reads cheap.
    devices: OwnedFd,
}

impl SysFs {
    /// Opens the sysfs that is mounted at `root`.
    pub(super) fn open(root: impl Into<PathBuf>) -> Result<Self, MonitorError> {
        let root = root.into();
        let path = root.join("devices");
        match open_directory(&path) {
            Ok(devices) => Ok(Self { root, devices }),
            Err(source) => Err(MonitorError::SysFs {
                path,
                source: source.into(),
            }),
        }
    }

    /// Whether the device is there now.
    pub(super) fn has(&self, syspath: &SysPath) -> bool {
        place_of(syspath).is_some_and(|place| self.has_file(&format!("{place}/uevent")))
    }

    /// Whether a path below `devices` exists; a link counts by itself.
    pub(super) fn has_file(&self, path: &str) -> bool {
        let flags = fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
        nix::sys::stat::fstatat(&self.devices, path, flags).is_ok()
    }

    /// The names in a directory, sorted; none if there is no such directory.
    pub(super) fn names_at(&self, place: &str) -> Vec<String> {
        let entries = self.entries_at(place).into_iter();
        entries.map(|(name, _)| name).collect()
    }

    /// The names in a directory, sorted, and whether each is a directory, not a link to one.
    pub(super) fn entries_at(&self, place: &str) -> Vec<(String, bool)> {
        let entries = fs::read_dir(self.devices_path().join(place));
        let entries = entries.into_iter().flatten().flatten();
        // sysfs lists the types with the names, so they cost no further call.
        let is_directory = |entry: &DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        let mut found: Vec<(String, bool)> = entries
            .filter_map(|entry| Some((entry.file_name().into_string().ok()?, is_directory(&entry))))
            .collect();
        found.sort();
        found
    }

    pub(super) fn devices_path(&self) -> PathBuf {
        self.root.join("devices")
    }

    /// Whether the device is there now, under the same number. What udevd says late may be of a
    /// device that was there before, and its number another device's by now; of an earlier life
    /// that nobody here has seen, no removal tells.
    pub(super) fn is_same(&self, device: &Device) -> bool {
        let (Some(node), Some(place)) = (&device.node, place_of(&device.syspath)) else {
            return self.has(&device.syspath);
        };
        let kind = match node.num.kind {
            DevKind::Block => "block",
            DevKind::Char => "char",
        };
        // The kernel links each number to the device that has it (Documentation/ABI/testing/
        // sysfs-dev).
        let link = format!("../dev/{kind}/{}:{}", node.num.major, node.num.minor);
        let target = fcntl::readlinkat(&self.devices, link.as_str());
        target.is_ok_and(|target| place_of_link(Path::new(&target)) == Some(place))
    }

    /// Adds to the snapshot that an event gave what only sysfs knows: the driver bound now, and
    /// attributes. What is gone already stays as the event told it.
    pub(super) fn complete(&self, device: &mut Device, attributes: &Attributes) {
        let Some(place) = place_of(&device.syspath).map(str::to_owned) else {
            return;
        };
        let is_of_class = device.subsystem.as_deref().is_some_and(is_class);
        match (!is_of_class).then(|| self.link_name(&place, "driver")) {
            Some(Ok(driver)) => device.driver = Some(driver),
            // The event may be older than the last unbind: a device that is there without the link
            // has no driver.
            Some(Err(Errno::ENOENT)) if self.has(&device.syspath) => device.driver = None,
            Some(Err(_)) | None => {}
        }
        if device.subsystem.is_none() {
            device.subsystem = self.link_name(&place, "subsystem").ok();
        }
        device.attributes = self.attributes(&place, device.devtype.as_deref(), attributes);
        device.companion = self.companion(device);
    }

    /// One device; `None` if it does not exist.
    pub(super) fn device(&self, syspath: &SysPath, attributes: &Attributes) -> Option<Device> {
        self.read(place_of(syspath)?, attributes)
    }

    /// One device by its place; `None` if it does not exist.
    pub(super) fn read(&self, place: &str, attributes: &Attributes) -> Option<Device> {
        let syspath = SysPath::new(format!("/sys/devices/{place}"));
        let uevent = self.file(&format!("{place}/uevent"))?;
        let subsystem = subsystem_of_virtual(place)
            .map(str::to_owned)
            .or_else(|| self.link_name(place, "subsystem").ok());
        Some(self.of_uevent(syspath, place, subsystem, parse_uevent(&uevent), attributes))
    }

    fn of_uevent(
        &self,
        syspath: SysPath,
        place: &str,
        subsystem: Option<String>,
        mut properties: Properties,
        attributes: &Attributes,
    ) -> Device {
        // As every message and udev's database have them.
        properties.insert("DEVPATH".to_owned(), format!("/devices/{place}"));
        if let Some(subsystem) = &subsystem {
            properties.insert("SUBSYSTEM".to_owned(), subsystem.clone());
        }
        let mut device = from_uevent(syspath, subsystem, properties);
        device.attributes = self.attributes(place, device.devtype.as_deref(), attributes);
        device.companion = self.companion(&device);
        device
    }

    fn attributes(
        &self,
        place: &str,
        devtype: Option<&str>,
        wanted: &Attributes,
    ) -> BTreeMap<String, String> {
        let for_this = |only: &Option<String>| only.is_none() || only.as_deref() == devtype;
        wanted
            .iter()
            .filter(|(name, only)| for_this(only) && is_below(name) && !may_block(place, name))
            .filter_map(|(name, _)| Some((name.clone(), self.attribute(place, name)?)))
            .collect()
    }

    /// One attribute; from its snapshot if it is not text.
    fn attribute(&self, place: &str, name: &str) -> Option<String> {
        let file = |name: &str| self.file(&format!("{place}/{name}"));
        let whole = |name: &str| self.whole_file(&format!("{place}/{name}"));
        let text = |name: &str| Some(String::from_utf8_lossy(&file(name)?).trim_end().to_owned());
        match name {
            DESCRIPTORS => Some(UsbClasses::in_descriptors(&whole(name)?)?.to_text()),
            REPORT_DESCRIPTOR if !is_named_as_hid(place) => None,
            REPORT_DESCRIPTOR => Some(HidUsages::in_report_descriptor(&whole(name)?).to_text()),
            CAPABILITIES if !is_named_as_input(place) => None,
            CAPABILITIES => {
                let keys = text("capabilities/key")?;
                Some(InputCapabilities::in_bitmaps(&keys, &text("properties")?)?.to_text())
            }
            SLAVES if is_loop(place) => None,
            SLAVES => self.names_in(&format!("{place}/{name}")),
            _ => text(name),
        }
    }

    /// The names in a directory, in their order; `None` where there is none.
    fn names_in(&self, place: &str) -> Option<String> {
        let entries = fs::read_dir(self.root.join("devices").join(place)).ok()?;
        let names = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned());
        let names: BTreeSet<String> = names.collect();
        let text = names.into_iter().collect::<Vec<_>>().join(" ");
        (!text.is_empty()).then_some(text)
    }

    /// Reads a small file. None of sysfs' files blocks (but see [`may_block`]); O_NONBLOCK and
    /// O_NOCTTY keep a recorded tree harmless too.
    pub(super) fn file(&self, path: &str) -> Option<Vec<u8>> {
        let file = self.open_file(path)?;
        let mut buffer = [0; ATTRIBUTE_LIMIT];
        let length = unistd::read(&file, &mut buffer).ok()?;
        Some(buffer[..length].to_vec())
    }

    /// Reads a binary file, of which the kernel gives at most a page at a time.
    pub(super) fn whole_file(&self, path: &str) -> Option<Vec<u8>> {
        let file = fs::File::from(self.open_file(path)?);
        let mut bytes = Vec::new();
        file.take(DESCRIPTORS_LIMIT).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    fn open_file(&self, path: &str) -> Option<OwnedFd> {
        let flags =
            OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_NOFOLLOW;
        fcntl::openat(&self.devices, path, flags, Mode::empty()).ok()
    }

    /// The last component of where a link in a device's directory leads.
    fn link_name(&self, place: &str, link: &str) -> Result<String, Errno> {
        let target = fcntl::readlinkat(&self.devices, format!("{place}/{link}").as_str())?;
        let name = Path::new(&target).file_name().ok_or(Errno::EINVAL)?;
        Ok(name.to_string_lossy().into_owned())
    }
}

/// A device's place: its path below `/sys/devices`.
pub(super) fn place_of(syspath: &SysPath) -> Option<&str> {
    syspath
        .as_str()
        .strip_prefix("/sys/devices/")
        .filter(|place| is_below(place))
}

/// The subsystem of a device that has no parent, such as `virtual/tty/tty7`: the directory above it
/// is its class or bus (drivers/base/core.c, get_device_parent; subsys_virtual_register). Most
/// devices of a host are such ones, and this saves a system call for each.
fn subsystem_of_virtual(place: &str) -> Option<&str> {
    let (subsystem, name) = place.strip_prefix("virtual/")?.split_once('/')?;
    (!name.contains('/')).then_some(subsystem)
}

/// Whether a subsystem is one of the classes that devices with nodes often have. A driver is bound
/// to a device of a bus, never to one of a class (drivers/base/core.c, device_add;
/// drivers/base/bus.c, bus_probe_device).
fn is_class(subsystem: &str) -> bool {
    CLASSES.contains(&subsystem)
}

const CLASSES: [&str; 9] = [
    "block",
    "dvb",
    "hidraw",
    "input",
    "misc",
    "sound",
    "tty",
    "usbmisc",
    "video4linux",
];

/// The place that a link such as `../../devices/virtual/mem/null` leads to.
pub(super) fn place_of_link(target: &Path) -> Option<&str> {
    let place = target
        .to_str()?
        .trim_start_matches("../")
        .strip_prefix("devices/")?;
    is_below(place).then_some(place)
}

/// Whether reading an attribute may take as long as a USB/IP server takes to answer: the kernel
/// locks a hub to read a string of its descriptors (drivers/usb/core/sysfs.c, usb_string_attr), and
/// holds the same lock while a device is attached to a root hub of vhci_hcd. No request needs the
/// strings of such a hub.
fn may_block(place: &str, attribute: &str) -> bool {
    let hub = place.rsplit_once('/').filter(|(_, name)| name.starts_with("usb"));
    let controller = hub.and_then(|(controller, _)| controller.rsplit('/').next());
    let is_virtual = controller.is_some_and(vhci::is_controller);
    is_virtual && ["serial", "product", "manufacturer"].contains(&attribute)
}

/// Whether a device has the name of a HID device, `0003:046D:C215.0002` (drivers/hid/hid-core.c,
/// hid_add_device). No other is looked at for a report descriptor: of hundreds of devices that
/// would cost hundreds of attempts.
fn is_named_as_hid(place: &str) -> bool {
    let name = place.rsplit('/').next().unwrap_or_default().as_bytes();
    matches!(name, [_, _, _, _, b':', _, _, _, _, b':', _, _, _, _, b'.', ..])
}

/// Whether a device is a loop device, which is over a file and not over other block devices
/// (drivers/block/loop.c). There may be dozens of them.
fn is_loop(place: &str) -> bool {
    let number = place.strip_prefix("virtual/block/loop");
    number.is_some_and(|number| number.bytes().all(|digit| digit.is_ascii_digit()))
}

/// Whether a device has the name of an input device, `input7` (drivers/input/input.c,
/// input_allocate_device).
fn is_named_as_input(place: &str) -> bool {
    let number = place
        .rsplit('/')
        .next()
        .and_then(|name| name.strip_prefix("input"));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()))
}

/// Whether a relative path stays below where it starts.
///
/// Names of attributes come from requests: `../../../etc/shadow` would make `attr:` a way to guess
/// at files.
fn is_below(path: &str) -> bool {
    path.split('/').all(|name| !matches!(name, "" | "." | ".."))
}

#[cfg(test)]
mod tests;
