//! Which of a device's nodes `path=`, `link=` and symlink rules name.
//!
//! A USB adapter has a tty and a raw node, a camera has a button beside its pictures, a debug probe
//! a small disk. The nodes appear one after the other, in an order that drivers and timing decide.
//! The choice therefore rests on facts that stay the same while the device is plugged in: the
//! node's class, the number of the USB interface, and the node's name. A node that always exists
//! before the main one waits for it ([`early`]). requests(7) documents it.
//!
//! Must not know what a container has (`plan::desired`).

mod early;

use self::early::{Early, PINS, early};
use crate::model::device::inventory::Inventory;
use crate::model::device::{Device, SysPath};
use crate::model::request::Request;
use crate::model::request::selector::{DeviceSelector, Match, Selector};

/// The classes of nodes. Of several nodes, the one with the first class is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Tty,
    /// `/dev/videoN`: pictures.
    Video,
    Dvb,
    /// `mtdN`, the flash memory that `mtdblockN` shows as a disk.
    Flash,
    Disk,
    Partition,
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
    /// Nodes that accompany the node that a device is bought for.
    Companion,
    /// The raw USB node and GPIO pins.
    Last,
}

/// Subsystems of [`Class::Companion`].
const COMPANIONS: [&str; 9] = [
    "media",
    "cec",
    "i2c-dev",
    "scsi_generic",
    "bsg",
    "nvme",
    "nvme-generic",
    "graphics",
    "drm_dp_aux_dev",
];

/// A node's place in the order of a device's nodes; the node with the least rank is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank<'a> {
    class: Class,
    /// Whether the node is not the main one of its class, as DVB's front end and a sound card's
    /// control node are.
    is_secondary: bool,
    /// The USB interface; nodes without one come last.
    interface: u16,
    name: NaturalName<'a>,
}

/// A kernel name in natural order: `ttyUSB9` before `ttyUSB10`, `sdb` before `sdaa`.
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
        "mtd" => Class::Flash,
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
        PINS | "usb" => Class::Last,
        subsystem if COMPANIONS.contains(&subsystem) => Class::Companion,
        _ => Class::Other,
    }
}

/// Whether joydev serves the same input device (drivers/input/joydev.c): the keys of a headset are
/// not a joystick.
fn is_joystick(event: &Device, inventory: &Inventory) -> bool {
    let parent = event.syspath.parent();
    parent.is_some_and(|parent| {
        let mut nodes = inventory.at_or_below(&parent);
        nodes.any(|device| device.syspath.name().starts_with("js") && device.node.is_some())
    })
}

/// The number of the USB interface that the node belongs to. The kernel names interfaces
/// `BUS-PORT:CONFIGURATION.INTERFACE`, in decimal (drivers/usb/core/message.c,
/// usb_set_configuration).
fn interface_of(device: &Device, inventory: &Inventory) -> Option<u16> {
    let mut ancestors = inventory.ancestors(&device.syspath);
    let interface = ancestors.find(|ancestor| ancestor.devtype.as_deref() == Some("usb_interface"))?;
    interface.syspath.name().rsplit_once('.')?.1.parse().ok()
}

/// The physical device that a node belongs to: its USB device, else the nearest device of another
/// subsystem (a SCSI disk, a PCI function), else the topmost device of the same subsystem.
pub(crate) fn unit_of(device: &Device, inventory: &Inventory) -> SysPath {
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
pub(crate) struct NameCandidate<'a> {
    pub device: &'a Device,
    /// Whether the container has the name for this node now.
    pub has_name: bool,
    /// Whether the node can be attached now. While the best node waits (for udevd, for another
    /// container), no other node gets the name.
    pub is_ready: bool,
}

/// The node that gets the name; `None` if there is none, or if it is not ready.
///
/// Among the nodes of one physical device the rank alone decides, whichever node came first. Among
/// several physical devices below one root (two adapters on a hub), the class decides, then the
/// device that has the name keeps it.
pub(crate) fn choose<'a>(candidates: &[NameCandidate<'a>], inventory: &Inventory) -> Option<&'a Device> {
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

/// The node that a request names in a container that starts with these devices: the device plugin
/// must know it before there is a container.
#[cfg(any(feature = "kubernetes", test))]
pub(crate) fn of_request<'a>(
    request: &Request,
    devices: impl Iterator<Item = &'a Device>,
    inventory: &Inventory,
) -> Option<&'a Device> {
    let candidates: Vec<NameCandidate<'a>> = devices
        .filter(|device| device.node.is_some() && can_name(request, device, inventory))
        .map(|device| NameCandidate {
            device,
            has_name: false,
            is_ready: true,
        })
        .collect();
    choose(&candidates, inventory)
}

/// Whether `path=` and `link=` of the request can name this node now.
pub(crate) fn can_name(request: &Request, device: &Device, inventory: &Inventory) -> bool {
    if is_raw_usb(device) {
        return means_nodes(request);
    }
    match early(device, inventory) {
        None => true,
        Some(Early::IfMeant) => !request.options.only.is_empty() || means_itself(request, device),
        Some(Early::AfterMain { main }) => {
            means_itself(request, device) || means_it_beside(main, request, device)
        }
    }
}

/// Whether a directory (`path=` that ends in `/`) has a name for this node.
pub(crate) fn is_in_directory(request: &Request, device: &Device) -> bool {
    if is_raw_usb(device) {
        return means_nodes(request);
    }
    let is_pins = device.subsystem.as_deref() == Some(PINS);
    !is_pins || !request.options.only.is_empty() || means_itself(request, device)
}

/// Whether a symlink rule can name this node now. A rule names the drivers' nodes of an interface;
/// it has no option that could mean others.
pub(crate) fn can_be_named_by_rule(device: &Device, inventory: &Inventory) -> bool {
    early(device, inventory).is_none()
}

/// Whether the request names the device itself, not a device above it.
fn means_itself(request: &Request, device: &Device) -> bool {
    request
        .selectors()
        .any(|selector| selector.parents() == 0 && selector.names_itself(device) != Match::No)
}

/// Whether an option `only=` is about this node and not about the main one, which is of the
/// subsystem `main`: it selects the node by its path or by its subsystem.
fn means_it_beside(main: &str, request: &Request, device: &Device) -> bool {
    let is_about_it = |selector: &&Selector| match selector {
        Selector::Subsystem(subsystem) => subsystem != main,
        selector => is_of_nodes(selector),
    };
    let mut about_it = request.options.only.iter().filter(is_about_it);
    about_it.any(|selector| selector.matches(device))
}

fn is_raw_usb(device: &Device) -> bool {
    device.devtype.as_deref() == Some("usb_device")
}

/// Whether the request selects nodes, not devices that have nodes: `only=`, or a selector for a
/// path in /dev.
fn means_nodes(request: &Request) -> bool {
    let picks_nodes = |selector: &DeviceSelector| {
        let mut terms = selector.terms().iter();
        selector.parents() == 0 && terms.any(|term| !term.negated && is_of_nodes(&term.selector))
    };
    !request.options.only.is_empty() || request.selectors().any(picks_nodes)
}

fn is_of_nodes(selector: &Selector) -> bool {
    matches!(
        selector,
        Selector::DevNode(_) | Selector::Glob(_) | Selector::Regex(_) | Selector::Node(_)
    )
}

#[cfg(test)]
mod tests;
