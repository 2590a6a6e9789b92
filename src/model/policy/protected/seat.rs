//! Keyboards and pointing devices, by their event, hidraw and USB nodes.

use crate::model::device::hid_usages::HidUsages;
use crate::model::device::input_capabilities::InputCapabilities;
use crate::model::device::usb_classes::UsbClasses;
use crate::model::device::{Device, UdevState};
use crate::model::policy::subject::{Subject, usb_classes};
use crate::model::request::facts_needed::{CAPABILITIES, REPORT_DESCRIPTOR};
use crate::model::request::selector::Match;

/// udev's input_id properties of keyboards and pointing devices (udev-builtin-input_id.c). A
/// joystick has none of these. ID_INPUT_KEY is not in the list: any device with a single key has
/// it, such as a camera with a button.
const SEAT: [&str; 7] = [
    "ID_INPUT_KEYBOARD",
    "ID_INPUT_MOUSE",
    "ID_INPUT_POINTINGSTICK",
    "ID_INPUT_TABLET",
    "ID_INPUT_TOUCHPAD",
    "ID_INPUT_TOUCHSCREEN",
    "ID_INPUT_TRACKBALL",
];

/// Classifies an input node by the capabilities of its device; a hidraw or hiddev node by the
/// devices of its HID interface; a USB node by all interfaces of its device.
pub(super) fn is_at_the_seat(subject: &Subject<'_>) -> Match {
    let device = subject.device();
    match device.subsystem.as_deref() {
        Some("input") if device.node.is_some() => is_seat_input(subject, device, false),
        Some("hidraw" | "usbmisc") => {
            let owner = subject
                .ancestors()
                .iter()
                .find(|above| matches!(above.subsystem.as_deref(), Some("hid" | "usb")));
            owner.map_or(Match::No, |owner| reports_what_is_typed(subject, owner))
        }
        // A USB device itself: its interfaces have no descriptors.
        Some("usb") => {
            usb_classes(device).map_or(Match::No, |classes| is_typed_on(subject, device, &classes))
        }
        _ => Match::No,
    }
}

/// A keyboard or mouse with a boot interface is known from the descriptors before any driver is
/// bound. Other human interface devices are classified by their HID devices.
fn is_typed_on(subject: &Subject<'_>, device: &Device, classes: &UsbClasses) -> Match {
    if classes.is_keyboard_or_mouse() {
        return Match::Yes;
    }
    if !classes.has_hid() || classes.is_hub() {
        return Match::No;
    }
    if matches!(device.udev_state, UdevState::Pending | UdevState::Overdue) {
        return Match::Unknown(device.syspath.clone());
    }
    reports_what_is_typed(subject, device)
}

/// Whether a HID device at or below this one is a keyboard or mouse by its usages, or has inputs
/// that are. A gamepad's touchpad does not count here: its reports show only what is played,
/// because nobody uses it to type or point elsewhere. (The touchpad's own event node is still
/// protected.)
fn reports_what_is_typed(subject: &Subject<'_>, owner: &Device) -> Match {
    let at_or_below = || subject.inventory.at_or_below(&owner.syspath);
    let is_hid = |device: &&Device| device.subsystem.as_deref() == Some("hid");
    let says_so = |hid: &Device| {
        let usages = hid.attribute(REPORT_DESCRIPTOR);
        usages.is_none_or(|usages| HidUsages::from_text(usages).is_typed_or_pointed())
    };
    let by_usage = at_or_below().filter(is_hid).any(says_so);
    Match::certain(by_usage).or(|| {
        let inputs =
            at_or_below().filter(|below| below.subsystem.as_deref() == Some("input") && below.node.is_some());
        Match::any(inputs.map(|input| {
            let mut above = subject.inventory.ancestors(&input.syspath);
            let is_gamepads = above.find(is_hid).is_some_and(|hid| {
                let mut inputs = subject.inventory.at_or_below(&hid.syspath);
                inputs.any(|input| capabilities_of(input).is_some_and(|found| found.joystick))
            });
            is_seat_input(subject, input, is_gamepads)
        }))
    })
}

/// Whether an input node belongs to a keyboard or a pointing device. What the kernel reports is
/// certain; udev may add to it. Where no udevd runs, the kernel's facts decide alone. A device that
/// neither classifies counts as a keyboard.
fn is_seat_input(subject: &Subject<'_>, device: &Device, without_touchpad: bool) -> Match {
    let mut above = subject.inventory.ancestors(&device.syspath);
    let found = above
        .find(|above| above.subsystem.as_deref() == Some("input"))
        .and_then(capabilities_of);
    let passes_as_touchpad = without_touchpad && found.is_some_and(|found| found.touchpad);
    if found.is_some_and(|found| found.keyboard || found.pointer || (found.touchpad && !without_touchpad)) {
        return Match::Yes;
    }
    let is = |key: &str| device.properties.get(key).is_some_and(|value| value == "1");
    match device.udev_state {
        UdevState::Pending | UdevState::Overdue => Match::Unknown(device.syspath.clone()),
        UdevState::NoUdevd => Match::certain(found.is_none()),
        UdevState::Processed if found.is_none() && !is("ID_INPUT") => Match::Yes,
        UdevState::Processed => {
            let mut seat = SEAT
                .into_iter()
                .filter(|key| !passes_as_touchpad || *key != "ID_INPUT_TOUCHPAD");
            Match::certain(seat.any(is))
        }
    }
}

fn capabilities_of(input: &Device) -> Option<InputCapabilities> {
    input.attribute(CAPABILITIES).map(InputCapabilities::from_text)
}
