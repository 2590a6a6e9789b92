//! Nodes that the kernel registers before the node that a device is bought for.
//!
//! The disk of a USB stick appears up to seconds after its generic SCSI node, a tuner's front end
//! after its demultiplexer. A program that waits for `/dev/board` must not open the wrong one, so
//! such a node does not get the name while the main node can still come. requests(7) documents it.

use crate::model::device::hid_usages::HidUsages;
use crate::model::device::inventory::Inventory;
use crate::model::device::{Device, SysPath};
use crate::model::request::facts_needed::REPORT_DESCRIPTOR;

/// The subsystem of a serial adapter's GPIO pins (ftdi_sio, cp210x).
pub(super) const PINS: &str = "gpio";

/// Subsystems whose nodes stand beside those of other drivers and exist before them: pins before
/// the tty; media controllers and I2C buses before a tuner's front end; generic SCSI nodes before
/// the disk, which is probed in the background (drivers/scsi/sd.c); an NVMe controller before its
/// namespaces. The facts of the device do not show whether another node comes.
const BESIDE_OTHERS: [&str; 6] = [PINS, "media", "i2c-dev", "scsi_generic", "bsg", "nvme"];

/// When a node that exists before the main node of its device may get the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Early {
    /// If the request is about such nodes.
    IfMeant,
    /// When the main node exists, or if the request is about such nodes.
    AfterMain {
        /// The subsystem of the main node.
        main: &'static str,
    },
}

/// `None` for a node that gets the name at once.
pub(super) fn early(device: &Device, inventory: &Inventory) -> Option<Early> {
    let subsystem = device.subsystem.as_deref()?;
    if BESIDE_OTHERS.contains(&subsystem) {
        return Some(Early::IfMeant);
    }
    let name = device.syspath.name();
    let above = device.syspath.parent()?;
    let (main, exists) = match subsystem {
        // One adapter has `dvb0.demux0`, `dvb0.frontend0` (drivers/media/dvb-core/dvbdev.c).
        "dvb" => {
            let (adapter, kind) = name.split_once('.')?;
            let front_end = format!("{adapter}.frontend");
            let exists = kind.starts_with("frontend") || has_node(inventory, &above, "dvb", &front_end);
            ("dvb", exists)
        }
        // A card's control node is registered last (sound/core/device.c).
        "sound" if is_numbered(above.name(), "card") => {
            let exists = name.starts_with("controlC") || has_node(inventory, &above, "sound", "controlC");
            ("sound", exists)
        }
        // evdev serves every input device (drivers/input/evdev.c, evdev_ids).
        "input" if is_numbered(above.name(), "input") => {
            let exists = name.starts_with("event") || has_node(inventory, &above, "input", "event");
            ("input", exists)
        }
        // drivers/gpu/drm/drm_drv.c, drm_dev_register.
        "drm" if name.starts_with("renderD") => ("drm", has_node(inventory, &above, "drm", "card")),
        // Drivers of game controllers register the hidraw node first, and the input when the
        // controller has answered (drivers/hid/hid-playstation.c, hid-nintendo.c).
        "hidraw" => {
            let hid = inventory.ancestors(&device.syspath).next()?;
            (
                "input",
                !is_input(hid) || has_node(inventory, &hid.syspath, "input", "event"),
            )
        }
        _ => return None,
    };
    (!exists).then_some(Early::AfterMain { main })
}

/// Whether a node whose kernel name begins so exists at or below this place.
fn has_node(inventory: &Inventory, place: &SysPath, subsystem: &str, start: &str) -> bool {
    let mut nodes = inventory.at_or_below(place);
    nodes.any(|device| {
        device.node.is_some()
            && device.subsystem.as_deref() == Some(subsystem)
            && device.syspath.name().starts_with(start)
    })
}

fn is_numbered(name: &str, text: &str) -> bool {
    let number = name.strip_prefix(text).unwrap_or_default();
    !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())
}

/// Whether the kernel makes an input device of this HID device.
fn is_input(hid: &Device) -> bool {
    let usages = hid.attribute(REPORT_DESCRIPTOR);
    usages.is_some_and(|usages| HidUsages::from_text(usages).is_input())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::device::recorded::virtual_device;

    fn node(place: &str, subsystem: &str) -> Device {
        let mut device = virtual_device(subsystem, "x", "/dev/x", 240, 1);
        device.syspath = SysPath::new(format!("/sys/devices/{place}"));
        device
    }

    fn is_early(device: &Device, others: &[Device]) -> bool {
        early(device, &Inventory::new(others.iter().chain([device]).cloned())).is_some()
    }

    #[test]
    fn a_node_that_no_card_controller_or_input_will_follow_is_not_early() {
        for (place, subsystem) in [
            ("virtual/sound/seq", "sound"),
            ("virtual/sound/cards/seq", "sound"),
            ("virtual/sound/card/seq", "sound"),
            ("virtual/sound/soundcard1/seq", "sound"),
            ("virtual/input/mice", "input"),
            ("virtual/input/inputs/mice", "input"),
            ("pci/drm/card0", "drm"),
            ("pci/drm/controlD64", "drm"),
        ] {
            assert!(!is_early(&node(place, subsystem), &[]), "{place}");
        }
        assert!(is_early(&node("pci/sound/card1/pcmC1D0p", "sound"), &[]));
        assert!(is_early(&node("usb/input/input43/js0", "input"), &[]));
    }

    #[test]
    fn only_the_node_of_a_card_ends_the_wait_of_its_render_node() {
        let render = node("pci/drm/renderD128", "drm");
        let mut connector = node("pci/drm/card0/card0-HDMI-A-1", "drm");
        connector.node = None;
        let others = [
            connector,
            node("pci/drm/card0", "x"),
            node("pci/drm/control", "drm"),
        ];
        assert!(is_early(&render, &others));
        assert!(!is_early(&render, &[node("pci/drm/card0", "drm")]));
    }
}
