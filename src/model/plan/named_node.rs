//! Which of a device's nodes `path=`, `link=` and symlink rules name.
//!
//! A USB adapter has a tty and a raw node, a camera has a button beside its pictures, a debug probe a small disk. The nodes appear
//! one after the other, in an order that drivers and timing decide. The choice therefore rests on facts that stay the same while
//! the device is plugged in: the node's class, the number of the USB interface, and the node's name. requests(7) documents it.
//!
//! Must not know what a container has (`plan::desired`).

use crate::model::device::inventory::Inventory;
use crate::model::device::{Device, SysPath};
use crate::model::request::Request;
use crate::model::request::selector::{DeviceSelector, Found, Selector};

/// The classes of nodes. Of several nodes, the one with the first class is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Tty,
    /// `/dev/videoN`: pictures.
    Video,
    Dvb,
    Disk,
    Partition,
    /// The event node of an input device that also has a `jsN`.
    Joystick,
    /// Radio, teletext, software radio.
    OtherVideo,
    /// Subsystems that this list does not name.
    Other,
    Sound,
    /// Modems' control channels, printers, `hiddevN`.
    UsbMisc,
    InputEvent,
    /// `jsN`.
    OldJoystick,
    /// `mouseN`.
    OtherInput,
    Hidraw,
    /// Nodes beside the node that a device is bought for.
    Companion,
    /// The raw USB node and GPIO pins: they exist before the nodes of the other drivers, so a program that waits for
    /// `/dev/board` would open the wrong node.
    OnlyIfMeant,
}

/// Subsystems of [`Class::Companion`].
const COMPANIONS: [&str; 6] = ["media", "cec", "i2c-dev", "scsi_generic", "bsg", "nvme-generic"];

/// The subsystem of a serial adapter's GPIO pins (ftdi_sio, cp210x).
pub const PINS: &str = "gpio";

/// A node's place in the order of one device's nodes; the least is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank<'a> {
    class: Class,
    /// Whether the node is not the first of its class: DVB's front end and a sound card's control node are.
    is_secondary: bool,
    /// The USB interface; nodes without one come last.
    interface: u16,
    name: NaturalName<'a>,
}

/// A kernel name that compares as people count: `ttyUSB9` before `ttyUSB10`, `sdb` before `sdaa`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct NaturalName<'a> {
    length: usize,
    text: &'a str,
    number: u64,
}

impl<'a> NaturalName<'a> {
    fn new(name: &'a str) -> Self {
        let text = name.trim_end_matches(|digit: char| digit.is_ascii_digit());
        Self {
            length: text.len(),
            text,
            number: name[text.len()..].parse().unwrap_or(0),
        }
    }
}

fn rank<'a>(device: &'a Device, inventory: &Inventory) -> Rank<'a> {
    let name = device.syspath.name();
    let class = class_of(device, inventory);
    Rank {
        class,
        is_secondary: match class {
            Class::Dvb => !name.contains("frontend"),
            Class::Sound => !name.starts_with("controlC"),
            _ => false,
        },
        interface: interface_of(device, inventory).unwrap_or(u16::MAX),
        name: NaturalName::new(name),
    }
}

fn class_of(device: &Device, inventory: &Inventory) -> Class {
    let name = device.syspath.name();
    match device.subsystem.as_deref().unwrap_or_default() {
        "tty" => Class::Tty,
        "video4linux" if name.starts_with("video") => Class::Video,
        "video4linux" => Class::OtherVideo,
        "dvb" => Class::Dvb,
        "block" if device.devtype.as_deref() == Some("partition") => Class::Partition,
        "block" => Class::Disk,
        "sound" => Class::Sound,
        "usbmisc" => Class::UsbMisc,
        "input" if name.starts_with("js") => Class::OldJoystick,
        "input" if !name.starts_with("event") => Class::OtherInput,
        "input" if is_joystick(device, inventory) => Class::Joystick,
        "input" => Class::InputEvent,
        "hidraw" => Class::Hidraw,
        // The nodes of the subsystem usb are those of USB devices.
        PINS | "usb" => Class::OnlyIfMeant,
        subsystem if COMPANIONS.contains(&subsystem) => Class::Companion,
        _ => Class::Other,
    }
}

/// Whether joydev serves the same input device (drivers/input/joydev.c): keys of a headset are not a joystick.
fn is_joystick(event: &Device, inventory: &Inventory) -> bool {
    let parent = event.syspath.parent();
    parent.is_some_and(|parent| {
        let mut nodes = inventory.at_or_below(&parent);
        nodes.any(|device| device.syspath.name().starts_with("js") && device.node.is_some())
    })
}

/// The number of the USB interface that the node hangs on. The kernel names interfaces `BUS-PORT:CONFIGURATION.INTERFACE`, in
/// decimal (drivers/usb/core/message.c, usb_set_configuration).
fn interface_of(device: &Device, inventory: &Inventory) -> Option<u16> {
    let mut ancestors = inventory.ancestors(&device.syspath);
    let interface = ancestors.find(|ancestor| ancestor.devtype.as_deref() == Some("usb_interface"))?;
    interface.syspath.name().rsplit_once('.')?.1.parse().ok()
}

/// The physical device that a node belongs to: its USB device, else the nearest device of another subsystem (a SCSI disk, a
/// PCI function), else the topmost device of its own.
pub fn unit_of(device: &Device, inventory: &Inventory) -> SysPath {
    let is_usb = |device: &&Device| device.devtype.as_deref() == Some("usb_device");
    let own = [device];
    let mut chain = own.into_iter().chain(inventory.ancestors(&device.syspath));
    if let Some(usb) = chain.find(is_usb) {
        return usb.syspath.clone();
    }
    let mut unit = device;
    for ancestor in inventory.ancestors(&device.syspath) {
        unit = ancestor;
        if ancestor.subsystem != device.subsystem {
            break;
        }
    }
    unit.syspath.clone()
}

/// A node that can be named.
#[derive(Debug, Clone, Copy)]
pub struct NameCandidate<'a> {
    /// The node's device.
    pub device: &'a Device,
    /// Whether the container has the name for this node now.
    pub has_name: bool,
    /// Whether the node can be attached now. A better node that waits (for udevd, for another container) is not replaced by a
    /// worse one for this time.
    pub is_ready: bool,
}

/// The node that gets the name; `None` if there is none, or if it is not ready.
///
/// Among the nodes of one physical device the rank alone decides, whichever node came first. Among several physical devices
/// below one root (two adapters on a hub), the class decides, then the device that has the name keeps it.
pub fn choose<'a>(candidates: &[NameCandidate<'a>], inventory: &Inventory) -> Option<&'a Device> {
    let best = candidates
        .iter()
        .map(|candidate| class_of(candidate.device, inventory))
        .min()?;
    let of_best_class = candidates
        .iter()
        .filter(|candidate| class_of(candidate.device, inventory) == best);
    let holder = candidates.iter().find(|candidate| candidate.has_name);
    let holders_unit = holder.map(|holder| unit_of(holder.device, inventory));
    let ranked = of_best_class.map(|candidate| {
        let unit = unit_of(candidate.device, inventory);
        let is_elsewhere = holders_unit.as_ref() != Some(&unit);
        ((is_elsewhere, unit, rank(candidate.device, inventory)), candidate)
    });
    let (_, chosen) = ranked.min_by(|(one, _), (other, _)| one.cmp(other))?;
    if chosen.is_ready {
        return Some(chosen.device);
    }
    holder
        .filter(|holder| holder.is_ready)
        .map(|holder| holder.device)
}

/// The node that a request names in a container that starts with these devices.
pub fn of_request<'a>(
    request: &Request,
    devices: impl Iterator<Item = &'a Device>,
    inventory: &Inventory,
) -> Option<&'a Device> {
    let candidates: Vec<NameCandidate<'a>> = devices
        .filter(|device| device.node.is_some() && can_name(request, device))
        .map(|device| NameCandidate {
            device,
            has_name: false,
            is_ready: true,
        })
        .collect();
    choose(&candidates, inventory)
}

/// Whether `path=` and `link=` of the request can name this node.
pub fn can_name(request: &Request, device: &Device) -> bool {
    if is_raw_usb(device) {
        return means_nodes(request);
    }
    let is_pins = device.subsystem.as_deref() == Some(PINS);
    !is_pins || means_nodes(request) || means_itself(request, device)
}

/// Whether the device, which the container gets, is what the request names, and not something below it.
fn means_itself(request: &Request, device: &Device) -> bool {
    request
        .selectors()
        .any(|selector| selector.parents() == 0 && selector.names_itself(device) != Found::No)
}

fn is_raw_usb(device: &Device) -> bool {
    device.devtype.as_deref() == Some("usb_device")
}

/// Whether the request picks nodes, not devices that have nodes: `only=`, or a selector that is about a path of /dev.
fn means_nodes(request: &Request) -> bool {
    let is_of_nodes = |selector: &Selector| {
        matches!(
            selector,
            Selector::DevNode(_) | Selector::Glob(_) | Selector::Regex(_) | Selector::Node(_)
        )
    };
    let picks_nodes = |selector: &DeviceSelector| {
        let mut terms = selector.terms().iter();
        selector.parents() == 0 && terms.any(|term| !term.negated && is_of_nodes(&term.selector))
    };
    !request.options.only.is_empty() || request.selectors().any(picks_nodes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::device::recorded;

    /// The node that this request names among these devices.
    fn named(request: &str, devices: &[Device]) -> Option<String> {
        let request: Request = request.parse().unwrap();
        let inventory = Inventory::new(devices.to_vec());
        let given = inventory
            .iter()
            .filter(|device| request.options.admits(&[device]) != Found::No);
        let chosen = of_request(&request, given, &inventory)?;
        Some(chosen.node.as_ref()?.path.display().to_string())
    }

    /// A node of a USB device.
    fn node(subsystem: &str, name: &str) -> Device {
        let mut device = Device::new(SysPath::new(format!("/sys/devices/usb1/1-1/{subsystem}/{name}")));
        device.subsystem = Some(subsystem.to_owned());
        let is_partition = subsystem == "block" && name.ends_with('1');
        device.devtype = is_partition.then(|| "partition".to_owned());
        let name = device.syspath.name();
        device.node = recorded::virtual_device(subsystem, name, &format!("/dev/{name}"), 1, 1).node;
        device
    }

    #[test]
    fn of_two_nodes_the_one_of_the_earlier_class_is_named() {
        let in_order = [
            vec![node("tty", "ttyUSB0")],
            vec![node("video4linux", "video0")],
            vec![node("dvb", "dvb0.frontend0")],
            vec![node("block", "sdb")],
            vec![node("block", "sda1")],
            // A joystick's event node has a jsN beside it, which is named only without it.
            vec![node("input", "event5"), node("input", "js0")],
            vec![node("video4linux", "radio0")],
            vec![node("lirc", "lirc0")],
            vec![node("sound", "controlC0")],
            vec![node("usbmisc", "cdc-wdm0")],
            vec![node("input", "event7")],
            vec![node("input", "js1")],
            vec![node("input", "joydump0")],
            vec![node("hidraw", "hidraw0")],
            vec![node("media", "media0")],
            vec![node(PINS, "gpiochip0")],
        ];
        let path = |device: &Device| device.node.as_ref().unwrap().path.display().to_string();
        let glob = "glob:**;path=/dev/board";
        for (index, first) in in_order.iter().enumerate() {
            for later in &in_order[index + 1..] {
                // Alone it is another class beside a jsN.
                let is_joystick = |nodes: &[Device]| nodes[0].subsystem.as_deref() == Some("input");
                if is_joystick(first) && is_joystick(later) {
                    continue;
                }
                let both: Vec<Device> = later.iter().chain(first).cloned().collect();
                assert_eq!(
                    named(glob, &both),
                    Some(path(&first[0])),
                    "beside {}",
                    path(&later[0])
                );
            }
        }
        for (first, second) in [("event7", "js1"), ("js1", "joydump0"), ("event7", "accel0")] {
            let both = [node("input", second), node("input", first)];
            assert_eq!(named(glob, &both), Some(format!("/dev/{first}")));
        }
    }

    #[test]
    fn of_one_class_the_main_node_is_named_and_else_the_least_name() {
        for (nodes, expected) in [
            ([("sound", "aloopC0"), ("sound", "controlC1")], "/dev/controlC1"),
            (
                [("dvb", "dvb0.demux0"), ("dvb", "dvb0.frontend1")],
                "/dev/dvb0.frontend1",
            ),
            ([("tty", "ttyUSB10"), ("tty", "ttyUSB9")], "/dev/ttyUSB9"),
        ] {
            let mut devices = nodes.map(|(subsystem, name)| node(subsystem, name)).to_vec();
            let mut unit = Device::new(SysPath::new("/sys/devices/usb1/1-1"));
            unit.devtype = Some("usb_device".to_owned());
            devices.push(unit);
            assert_eq!(named("glob:**;path=/dev/x", &devices).as_deref(), Some(expected));
        }
    }

    #[test]
    fn the_unit_of_a_node_is_its_usb_device_else_the_nearest_device_of_another_subsystem() {
        let unit = |devices: &[Device], node: &str| {
            let inventory = Inventory::new(devices.to_vec());
            unit_of(recorded::with_node(devices, node), &inventory)
                .name()
                .to_owned()
        };
        assert_eq!(unit(&recorded::hub_with_two_adapters(), "/dev/ttyUSB0"), "1-1.1");
        let disk = recorded::disk_with_partitions();
        let of_disk = unit(&disk, "/dev/sda");
        assert_ne!(of_disk, "sda");
        assert_eq!(
            unit(&disk, "/dev/sda1"),
            of_disk,
            "that of its partition is no other"
        );
        let alone = [recorded::virtual_device("tty", "tty7", "/dev/tty7", 4, 7)];
        assert_eq!(unit(&alone, "/dev/tty7"), "tty7");
    }

    #[test]
    fn an_adapter_is_named_for_its_tty_and_never_for_its_raw_node() {
        let tree = recorded::hub_with_two_adapters();
        let adapter: Vec<Device> = tree
            .iter()
            .filter(|device| device.syspath.as_str().contains("1-1.1"))
            .cloned()
            .collect();
        assert_eq!(
            named("usb:0403:6001;path=/dev/board", &adapter).as_deref(),
            Some("/dev/ttyUSB0")
        );
        assert_eq!(named("usb:0403:6001;path=/dev/board", &adapter[..1]), None);
    }

    #[test]
    fn the_raw_node_has_a_name_when_it_is_meant() {
        let tree = recorded::hub_with_two_adapters();
        for request in [
            "usb:0403:6001:A;only=subsystem:usb;path=/dev/probe",
            "devnode:/dev/bus/usb/001/003;path=/dev/probe",
            "glob:/dev/bus/usb/001/*;path=/dev/probe",
        ] {
            let raw: Vec<Device> = tree
                .iter()
                .filter(|device| device.syspath.name() == "1-1.1")
                .cloned()
                .collect();
            assert_eq!(
                named(request, &raw).as_deref(),
                Some("/dev/bus/usb/001/003"),
                "{request}"
            );
        }
        assert_eq!(
            named("parent-of:devnode:/dev/ttyUSB0;path=/dev/x", &tree[..1]),
            None
        );
    }

    #[test]
    fn an_adapters_pins_are_named_only_when_they_are_meant() {
        let pins: Vec<Device> = recorded::hub_with_two_adapters()
            .into_iter()
            .filter(|device| device.subsystem.as_deref() == Some("tty"))
            .take(1)
            .map(|mut device| {
                device.subsystem = Some(PINS.into());
                device
            })
            .collect();
        let name = pins[0].node.as_ref().unwrap().path.display().to_string();
        for (request, is_named) in [
            ("usb:0403:6001;link=/dev/board", false),
            ("parent-of:usb:0403:6001;link=/dev/board", false),
            ("usb:0403:6001;only=subsystem:gpio;link=/dev/pins", true),
            ("subsystem:gpio;link=/dev/pins", true),
        ] {
            assert_eq!(named(request, &pins), is_named.then(|| name.clone()), "{request}");
        }
    }

    #[test]
    fn kernel_names_compare_as_people_count() {
        let mut names = ["ttyUSB10", "sdaa", "ttyUSB9", "sdb10", "sdb9"].map(NaturalName::new);
        names.sort();
        let sorted = names.map(|name| format!("{}{}", name.text, name.number));
        assert_eq!(sorted, ["sdb9", "sdb10", "sdaa0", "ttyUSB9", "ttyUSB10"]);
    }

    #[test]
    fn a_composite_device_is_named_for_its_modem_and_not_for_its_keys() {
        let tree = recorded::composite_device();
        assert_eq!(
            named("usb:2341:8036;link=/dev/board", &tree).as_deref(),
            Some("/dev/ttyACM0")
        );
        assert_eq!(
            named("usb:2341:8036;only=subsystem:hidraw;link=/dev/keys", &tree).as_deref(),
            Some("/dev/hidraw0")
        );
    }

    #[test]
    fn a_disk_is_named_before_its_partitions() {
        let tree = recorded::disk_with_partitions();
        assert_eq!(
            named("pci:0000:00:17.0;path=/dev/data", &tree).as_deref(),
            Some("/dev/sda")
        );
    }
}
