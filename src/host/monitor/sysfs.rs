//! Devices as sysfs has them at this moment: all with nodes and what is above them, or one.
//!
//! Must not know events nor udev. Reads no more than is requested: listing must cost a few
//! milliseconds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{self, OFlag};
use nix::sys::stat::{Mode, SFlag};
use nix::unistd;

use super::error::MonitorError;
use super::message::{from_uevent, parse_uevent};
use crate::model::device::hid_usages::HidUsages;
use crate::model::device::input_capabilities::InputCapabilities;
use crate::model::device::same_data::SLAVES;
use crate::model::device::usb_classes::UsbClasses;
use crate::model::device::{Device, SysPath};
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
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, MonitorError> {
        let root = root.into();
        let path = root.join("devices");
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        match fcntl::open(&path, flags, Mode::empty()) {
            Ok(devices) => Ok(Self { root, devices }),
            Err(source) => Err(MonitorError::SysFs {
                path,
                source: source.into(),
            }),
        }
    }

    /// All devices that have nodes, all devices above them, and those of `extra` (with what is
    /// above them): parents first.
    ///
    /// A device that vanishes meanwhile is left out. Errors: `/sys/dev` cannot be listed.
    pub fn devices(&self, attributes: &Attributes, extra: &[SysPath]) -> Result<Vec<Device>, MonitorError> {
        let mut places = BTreeSet::new();
        for kind in ["char", "block"] {
            let path = self.root.join("dev").join(kind);
            let failed = |source| MonitorError::SysFs {
                path: path.clone(),
                source,
            };
            for entry in fs::read_dir(&path).map_err(failed)? {
                let Ok(target) = fs::read_link(entry.map_err(failed)?.path()) else {
                    continue;
                };
                if let Some(place) = place_of_link(&target) {
                    add_with_ancestors(&mut places, place);
                }
            }
        }
        for syspath in extra {
            if let Some(place) = place_of(syspath) {
                add_with_ancestors(&mut places, place);
            }
        }
        Ok(places
            .iter()
            .filter_map(|place| self.read(place, attributes))
            .collect())
    }

    /// Whether the device is there now.
    pub fn has(&self, syspath: &SysPath) -> bool {
        place_of(syspath).is_some_and(|place| self.has_file(&format!("{place}/uevent")))
    }

    /// Whether a path below `devices` exists; a link counts by itself.
    pub(super) fn has_file(&self, path: &str) -> bool {
        let flags = fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
        nix::sys::stat::fstatat(&self.devices, path, flags).is_ok()
    }

    /// The names in a directory, sorted; none if there is no such directory.
    pub(super) fn names_at(&self, place: &str) -> Vec<String> {
        let entries = fs::read_dir(self.devices_path().join(place));
        let names = entries.into_iter().flatten().flatten();
        let mut names: Vec<String> = names
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// Whether a path below `devices` is a directory, not a link to one.
    pub(super) fn is_directory(&self, path: &str) -> bool {
        let flags = fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
        nix::sys::stat::fstatat(&self.devices, path, flags)
            .is_ok_and(|found| SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
    }

    pub(super) fn devices_path(&self) -> PathBuf {
        self.root.join("devices")
    }

    /// Whether the device is there now, under the same number. What udevd says late may be of a
    /// device that was there before, and its number another device's by now; of an earlier life
    /// that nobody here has seen, no removal tells.
    pub fn is_same(&self, device: &Device) -> bool {
        let (Some(node), Some(place)) = (&device.node, place_of(&device.syspath)) else {
            return self.has(&device.syspath);
        };
        let number = format!("{}:{}\n", node.num.major, node.num.minor);
        self.file(&format!("{place}/dev")).as_deref() == Some(number.as_bytes())
    }

    /// Adds to the snapshot that an event gave what only sysfs knows: the driver bound now, and
    /// attributes. What is gone already stays as the event told it.
    pub fn complete(&self, device: &mut Device, attributes: &Attributes) {
        let Some(place) = place_of(&device.syspath).map(str::to_owned) else {
            return;
        };
        match self.link_name(&place, "driver") {
            Ok(driver) => device.driver = Some(driver),
            // The event may be older than the last unbind: a device that is there without the link
            // has no driver.
            Err(Errno::ENOENT) if self.has(&device.syspath) => device.driver = None,
            Err(_) => {}
        }
        if device.subsystem.is_none() {
            device.subsystem = self.link_name(&place, "subsystem").ok();
        }
        device.attributes = self.attributes(&place, device.devtype.as_deref(), attributes);
        device.companion = self.companion(device);
    }

    /// One device; `None` if it does not exist.
    pub fn device(&self, syspath: &SysPath, attributes: &Attributes) -> Option<Device> {
        self.read(place_of(syspath)?, attributes)
    }

    /// One device by its place; `None` if it does not exist.
    pub(super) fn read(&self, place: &str, attributes: &Attributes) -> Option<Device> {
        let syspath = SysPath::new(format!("/sys/devices/{place}"));
        let uevent = self.file(&format!("{place}/uevent"))?;
        let subsystem = self.link_name(place, "subsystem").ok();
        let mut properties = parse_uevent(&uevent);
        // As every message and udev's database have them.
        properties.insert("DEVPATH".to_owned(), format!("/devices/{place}"));
        if let Some(subsystem) = &subsystem {
            properties.insert("SUBSYSTEM".to_owned(), subsystem.clone());
        }
        let mut device = from_uevent(syspath, subsystem, properties);
        device.attributes = self.attributes(place, device.devtype.as_deref(), attributes);
        device.companion = self.companion(&device);
        Some(device)
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

fn add_with_ancestors(places: &mut BTreeSet<String>, place: &str) {
    let mut place = place;
    // Where a place is known, everything above it is.
    while places.insert(place.to_owned()) {
        match place.rsplit_once('/') {
            Some((above, _)) => place = above,
            None => break,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::symlink;
    use tempfile::TempDir;

    const HUB: &str = "pci0000:00/0000:00:14.0/usb1/1-1";

    /// A recorded host: a hub, an adapter with a tty behind it, /dev/null.
    struct Recorded(TempDir);

    impl Recorded {
        fn new() -> Self {
            let tree = Self(TempDir::new().unwrap());
            fs::create_dir_all(tree.path("dev/char")).unwrap();
            fs::create_dir_all(tree.path("dev/block")).unwrap();
            let adapter = format!("{HUB}/1-1.4");
            let interface = format!("{adapter}/1-1.4:1.0");
            tree.device("pci0000:00", b"", None);
            tree.device("pci0000:00/0000:00:14.0", b"DRIVER=xhci_hcd\n", Some("pci"));
            tree.device(
                "pci0000:00/0000:00:14.0/usb1",
                b"DEVTYPE=usb_device\n",
                Some("usb"),
            );
            tree.device(HUB, b"DEVTYPE=usb_device\nDRIVER=usb\n", Some("usb"));
            tree.node(
                HUB,
                "189:1",
                b"MAJOR=189\nMINOR=1\nDEVNAME=bus/usb/001/002\nDEVTYPE=usb_device\nDRIVER=usb\n",
            );
            tree.device(&adapter, b"", Some("usb"));
            tree.node(
                &adapter,
                "189:5",
                b"MAJOR=189\nMINOR=5\nDEVNAME=bus/usb/001/006\nDEVTYPE=usb_device\nDRIVER=usb\n",
            );
            tree.attribute(&adapter, "idVendor", b"0403\n");
            tree.attribute(&adapter, "serial", b"FT\xff01 \n");
            tree.device(
                &interface,
                b"DEVTYPE=usb_interface\nDRIVER=ftdi_sio\n",
                Some("usb"),
            );
            tree.attribute(&interface, "idVendor", b"never read\n");
            tree.device(
                &format!("{interface}/ttyUSB0"),
                b"DRIVER=ftdi_sio\n",
                Some("usb-serial"),
            );
            let tty = format!("{interface}/ttyUSB0/tty/ttyUSB0");
            tree.device(&tty, b"", Some("tty"));
            tree.node(&tty, "188:0", b"MAJOR=188\nMINOR=0\nDEVNAME=ttyUSB0\n");
            tree.device("virtual/net/lo", b"INTERFACE=lo\n", Some("net"));
            tree
        }

        fn path(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        fn attribute(&self, place: &str, name: &str, value: &[u8]) {
            fs::write(self.path(&format!("devices/{place}/{name}")), value).unwrap();
        }

        fn device(&self, place: &str, uevent: &[u8], subsystem: Option<&str>) {
            fs::create_dir_all(self.path(&format!("devices/{place}"))).unwrap();
            self.attribute(place, "uevent", uevent);
            if let Some(subsystem) = subsystem {
                let link = self.path(&format!("devices/{place}/subsystem"));
                symlink(format!("../../../bus/{subsystem}"), link).unwrap();
            }
        }

        fn node(&self, place: &str, number: &str, uevent: &[u8]) {
            self.attribute(place, "uevent", uevent);
            symlink(
                format!("../../devices/{place}"),
                self.path(&format!("dev/char/{number}")),
            )
            .unwrap();
        }

        fn sysfs(&self) -> SysFs {
            SysFs::open(self.0.path()).unwrap()
        }
    }

    fn wanted(pairs: &[(&str, Option<&str>)]) -> Attributes {
        pairs
            .iter()
            .map(|(name, only)| ((*name).to_owned(), only.map(str::to_owned)))
            .collect()
    }

    fn find<'a>(devices: &'a [Device], name: &str) -> &'a Device {
        devices
            .iter()
            .rev()
            .find(|device| device.syspath.name() == name)
            .unwrap()
    }

    #[test]
    fn devices_with_nodes_and_all_above_them_are_listed_once_and_parents_first() {
        let devices = Recorded::new().sysfs().devices(&Attributes::new(), &[]).unwrap();
        let names: Vec<_> = devices.iter().map(|device| device.syspath.name()).collect();
        let expected = [
            "pci0000:00",
            "0000:00:14.0",
            "usb1",
            "1-1",
            "1-1.4",
            "1-1.4:1.0",
            "ttyUSB0",
            "ttyUSB0",
        ];
        assert_eq!(
            names, expected,
            "the glue directory tty and the node-less lo do not belong to it"
        );
    }

    #[test]
    fn a_listed_device_has_its_facts() {
        let devices = Recorded::new().sysfs().devices(&Attributes::new(), &[]).unwrap();
        let tty = find(&devices, "ttyUSB0");
        assert_eq!(tty.subsystem.as_deref(), Some("tty"));
        assert_eq!(tty.node.as_ref().unwrap().num.to_string(), "c 188:0");
        assert_eq!(tty.node.as_ref().unwrap().path, PathBuf::from("/dev/ttyUSB0"));
        assert_eq!((tty.seqnum, tty.driver.as_deref()), (0, None));
        let interface = find(&devices, "1-1.4:1.0");
        assert_eq!(interface.driver.as_deref(), Some("ftdi_sio"));
        assert_eq!(interface.devtype.as_deref(), Some("usb_interface"));
        assert_eq!(interface.properties["SUBSYSTEM"], "usb");
        assert_eq!(find(&devices, "pci0000:00").subsystem, None);
    }

    #[test]
    fn attributes_are_read_where_the_devtype_fits_and_cleaned() {
        let attributes = wanted(&[
            ("idVendor", Some("usb_device")),
            ("serial", None),
            ("absent", None),
        ]);
        let devices = Recorded::new().sysfs().devices(&attributes, &[]).unwrap();
        let adapter = find(&devices, "1-1.4");
        assert_eq!(adapter.attribute("idVendor"), Some("0403"));
        assert_eq!(adapter.attribute("serial"), Some("FT\u{fffd}01"));
        assert_eq!(adapter.attribute("absent"), None);
        assert_eq!(find(&devices, "1-1.4:1.0").attribute("idVendor"), None);
    }

    #[test]
    fn what_a_hanging_usbip_server_holds_up_is_not_read() {
        for (place, attribute, blocks) in [
            ("platform/vhci_hcd.0/usb3", "serial", true),
            ("platform/vhci_hcd.0/usb3", "idVendor", false),
            ("platform/vhci_hcd.0/usb3/3-1", "serial", false),
            ("pci0000:00/0000:00:14.0/usb1", "serial", false),
        ] {
            assert_eq!(may_block(place, attribute), blocks, "{place}/{attribute}");
        }
    }

    #[test]
    fn an_attribute_name_cannot_leave_the_device() {
        let tree = Recorded::new();
        fs::write(tree.path("secret"), "x").unwrap();
        let absolute = tree.path("secret");
        let names = [
            ("../../../../../secret", None),
            ("../1-1/uevent", None),
            (absolute.to_str().unwrap(), None),
        ];
        let devices = tree.sysfs().devices(&wanted(&names), &[]).unwrap();
        assert!(devices.iter().all(|device| device.attributes.is_empty()));
    }

    #[test]
    fn an_attribute_is_cut_at_the_limit() {
        let tree = Recorded::new();
        tree.attribute(HUB, "long", &[b'x'; 3 * ATTRIBUTE_LIMIT]);
        let devices = tree.sysfs().devices(&wanted(&[("long", None)]), &[]).unwrap();
        assert_eq!(
            find(&devices, "1-1").attribute("long").unwrap().len(),
            ATTRIBUTE_LIMIT
        );
    }

    #[test]
    fn a_keyboard_behind_a_page_of_other_descriptors_is_found() {
        let tree = Recorded::new();
        let mut descriptors = vec![0; 18];
        // What a camera says of its pictures.
        while descriptors.len() <= ATTRIBUTE_LIMIT {
            descriptors.extend([16, 0x24]);
            descriptors.extend([0; 14]);
        }
        descriptors.extend([9, 4, 3, 0, 1, 3, 1, 1, 0]);
        tree.attribute(HUB, DESCRIPTORS, &descriptors);
        let attributes = wanted(&[(DESCRIPTORS, Some("usb_device"))]);
        let device = tree.sysfs().read(HUB, &attributes).unwrap();
        assert_eq!(device.attribute(DESCRIPTORS), Some("00:0301"));
    }

    #[test]
    fn what_a_device_can_report_is_read_of_hid_and_input_devices_and_of_no_other() {
        let tree = Recorded::new();
        let hid = format!("{HUB}/1-1.4/1-1.4:1.0/0003:046D:C215.0002");
        let input = format!("{hid}/input/input8");
        for place in [&hid, &input] {
            tree.device(place, b"", None);
            fs::write(
                tree.path(&format!("devices/{place}/report_descriptor")),
                b"\x05\x01\x09\x06\xa1\x01",
            )
            .unwrap();
            fs::create_dir(tree.path(&format!("devices/{place}/capabilities"))).unwrap();
            fs::write(
                tree.path(&format!("devices/{place}/capabilities/key")),
                "fffffffe\n",
            )
            .unwrap();
            fs::write(tree.path(&format!("devices/{place}/properties")), "0\n").unwrap();
        }
        let sysfs = tree.sysfs();
        let attributes = wanted(&[(REPORT_DESCRIPTOR, None), (CAPABILITIES, None)]);
        let read = |place: &str| sysfs.read(place, &attributes).unwrap().attributes;
        assert_eq!(
            read(&hid),
            [(REPORT_DESCRIPTOR.to_owned(), "0001:0006".to_owned())].into()
        );
        assert_eq!(
            read(&input),
            [(CAPABILITIES.to_owned(), "keyboard".to_owned())].into()
        );
        assert_eq!(read(HUB), BTreeMap::new());
    }

    #[test]
    fn the_devices_that_one_is_made_of_are_listed_by_name() {
        let tree = Recorded::new();
        tree.device("virtual/block/dm-0", b"DEVTYPE=disk\n", Some("block"));
        for slave in ["sdb1", "sda2"] {
            fs::create_dir_all(tree.path(&format!("devices/virtual/block/dm-0/slaves/{slave}"))).unwrap();
        }
        let attributes = wanted(&[(SLAVES, Some("disk"))]);
        let device = tree.sysfs().read("virtual/block/dm-0", &attributes).unwrap();
        assert_eq!(device.attribute(SLAVES), Some("sda2 sdb1"));
    }

    #[test]
    fn a_device_without_node_is_listed_when_it_is_asked_for() {
        let lo = SysPath::new("/sys/devices/virtual/net/lo");
        let devices = Recorded::new()
            .sysfs()
            .devices(&Attributes::new(), &[lo])
            .unwrap();
        assert_eq!(find(&devices, "lo").subsystem.as_deref(), Some("net"));
    }

    #[test]
    fn a_device_that_vanishes_while_listing_is_left_out() {
        let tree = Recorded::new();
        symlink("../../devices/virtual/mem/gone", tree.path("dev/char/1:99")).unwrap();
        fs::write(tree.path("dev/char/README"), "no link").unwrap();
        let devices = tree.sysfs().devices(&Attributes::new(), &[]).unwrap();
        assert!(devices.iter().all(|device| device.syspath.name() != "gone"));
        assert_eq!(devices.len(), 8);
    }

    #[test]
    fn an_event_s_device_gets_driver_and_attributes_of_now() {
        let tree = Recorded::new();
        let sysfs = tree.sysfs();
        let mut device = Device::new(SysPath::new(format!("/sys/devices/{HUB}/1-1.4")));
        device.devtype = Some("usb_device".into());
        device.driver = Some("old".into());
        let attributes = wanted(&[("idVendor", Some("usb_device"))]);
        sysfs.complete(&mut device, &attributes);
        assert_eq!(
            (device.driver.as_deref(), device.attribute("idVendor")),
            (None, Some("0403"))
        );
        assert_eq!(device.subsystem.as_deref(), Some("usb"));
        symlink(
            "../../../bus/usb/drivers/usb",
            tree.path(&format!("devices/{HUB}/1-1.4/driver")),
        )
        .unwrap();
        sysfs.complete(&mut device, &attributes);
        assert_eq!(device.driver.as_deref(), Some("usb"));
    }

    #[test]
    fn what_an_event_said_of_a_device_that_is_gone_stays() {
        let sysfs = Recorded::new().sysfs();
        let mut device = Device::new(SysPath::new("/sys/devices/gone"));
        device.driver = Some("usb".into());
        sysfs.complete(&mut device, &Attributes::new());
        assert_eq!(device.driver.as_deref(), Some("usb"));
        assert!(!sysfs.has(&device.syspath));
    }

    #[test]
    fn a_host_without_sysfs_is_an_error_that_names_the_path() {
        let empty = TempDir::new().unwrap();
        let error = SysFs::open(empty.path()).err().unwrap().to_string();
        assert!(error.contains(empty.path().to_str().unwrap()), "{error}");
    }

    proptest! {
        #[test]
        fn a_place_never_leaves_sys_devices(target in "(\\.\\./){0,3}(devices/)?[a-z./:]{0,20}") {
            if let Some(place) = place_of_link(Path::new(&target)) {
                prop_assert!(!place.starts_with('/') && !place.split('/').any(|name| name == ".."));
            }
        }
    }
}
