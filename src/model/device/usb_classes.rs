//! The classes in the descriptors of a USB device, known before any driver is bound.
//!
//! Must not know what follows from them (`policy`) or where the descriptors are read.

use std::collections::BTreeSet;
use std::fmt::Write;

/// The class of hubs (linux/usb/ch9.h, USB_CLASS_HUB).
const HUB: u8 = 9;

/// The class of human interface devices (USB_CLASS_HID), and the subclass of those with a boot
/// interface, which a BIOS supports: keyboards and mice (HID 1.11, 4.2).
const HID: u8 = 3;
const BOOT: u8 = 1;

/// The length of a device descriptor, and the offset of its class (USB 2.0, table 9-8).
const DEVICE: (usize, usize) = (18, 4);

/// The type of an interface descriptor, its length, and the offset of its class, which the subclass
/// follows (table 9-12).
const INTERFACE: (u8, usize, usize) = (4, 9, 5);

/// The classes of a device and of its interfaces, in all configurations and settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsbClasses {
    device: u8,
    /// Class and subclass.
    interfaces: BTreeSet<(u8, u8)>,
}

impl UsbClasses {
    /// Reads sysfs' attribute `descriptors`: the device descriptor, then those of each
    /// configuration as the device sent them (Documentation/ABI/stable/sysfs-bus-usb). `None` if
    /// the device descriptor is incomplete.
    pub fn in_descriptors(bytes: &[u8]) -> Option<Self> {
        let device = *bytes.get(..DEVICE.0)?.get(DEVICE.1)?;
        let mut interfaces = BTreeSet::new();
        let mut rest = &bytes[DEVICE.0..];
        while let [length, kind, ..] = *rest {
            let length = usize::from(length);
            let descriptor = rest.get(..length).unwrap_or(rest);
            if kind == INTERFACE.0 && descriptor.len() >= INTERFACE.1 {
                interfaces.insert((descriptor[INTERFACE.2], descriptor[INTERFACE.2 + 1]));
            }
            // A length of 0 or 1 is invalid: skip two bytes and continue.
            rest = rest.get(length.max(2)..).unwrap_or_default();
        }
        Some(Self { device, interfaces })
    }

    /// As text: `00:0202:0a00`.
    pub fn to_text(&self) -> String {
        let mut text = format!("{:02x}", self.device);
        for (class, subclass) in &self.interfaces {
            // Writing into a String does not fail.
            let _ = write!(text, ":{class:02x}{subclass:02x}");
        }
        text
    }

    /// Parses the output of [`UsbClasses::to_text`].
    pub fn from_text(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let number = |digits: &str| u8::from_str_radix(digits, 16).ok();
        let device = number(parts.next()?)?;
        let interfaces = parts
            .map(|part| Some((number(part.get(..2)?)?, number(part.get(2..)?)?)))
            .collect::<Option<_>>()?;
        Some(Self { device, interfaces })
    }

    pub fn is_hub(&self) -> bool {
        self.device == HUB
    }

    /// Whether an interface is that of a boot keyboard or mouse.
    pub fn is_keyboard_or_mouse(&self) -> bool {
        self.interfaces.contains(&(HID, BOOT))
    }

    /// Whether an interface is a human interface device: keyboard, joystick, security key, power
    /// supply.
    pub fn has_hid(&self) -> bool {
        self.interfaces.iter().any(|(class, _)| *class == HID)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The descriptors of a keyboard, as in sysfs.
    const KEYBOARD: &[u8] = b"\x12\x01\x10\x01\x00\x00\x00\x08\x6d\x04\x1c\xc3\x00\x64\x01\x02\x00\x01\
        \x09\x02\x22\x00\x01\x01\x00\xa0\x2d\x09\x04\x00\x00\x01\x03\x01\x01\x00\
        \x09\x21\x10\x01\x21\x01\x22\x41\x00\x07\x05\x81\x03\x08\x00\x0a";

    #[test]
    fn a_keyboard_is_recognized() {
        let classes = UsbClasses::in_descriptors(KEYBOARD).unwrap();
        assert_eq!(classes.to_text(), "00:0301");
        assert!(classes.is_keyboard_or_mouse() && classes.has_hid() && !classes.is_hub());
        let mut hub = KEYBOARD.to_vec();
        hub[4] = 9;
        assert!(UsbClasses::in_descriptors(&hub).unwrap().is_hub());
        let disk = UsbClasses::from_text("00:0806").unwrap();
        assert!(!disk.is_keyboard_or_mouse() && !disk.has_hid() && !disk.is_hub());
        let joystick = UsbClasses::from_text("00:0300:0806").unwrap();
        assert!(!joystick.is_keyboard_or_mouse() && joystick.has_hid());
    }

    #[test]
    fn truncated_descriptors_are_read_as_far_as_possible() {
        assert_eq!(UsbClasses::in_descriptors(&KEYBOARD[..17]), None);
        let cut = UsbClasses::in_descriptors(&KEYBOARD[..30]).unwrap();
        assert_eq!(cut.to_text(), "00");
    }

    proptest! {
        #[test]
        fn no_descriptors_cause_a_panic_and_classes_survive_formatting(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(classes) = UsbClasses::in_descriptors(&bytes) {
                prop_assert_eq!(UsbClasses::from_text(&classes.to_text()), Some(classes));
            }
        }

        #[test]
        fn no_text_causes_a_panic(text in "[0-9a-f:é]{0,20}") {
            let _ = UsbClasses::from_text(&text);
        }
    }
}
