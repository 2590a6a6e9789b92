//! The purpose of a HID device according to its report descriptor, known before any driver is
//! bound: the usages of its application collections (HID 1.11, 6.2.2; HID Usage Tables 1.12).
//!
//! Must not know what follows from them (`policy`) or where the descriptor is read.

use std::collections::BTreeSet;

/// Generic Desktop: Pointer, Mouse, Keyboard, Keypad.
const DESKTOP: u16 = 0x01;
const TYPED_OR_POINTED: [u16; 4] = [0x01, 0x02, 0x06, 0x07];

/// Digitizers: Digitizer, Pen, Light Pen, Touch Screen, Touch Pad, White Board.
const DIGITIZERS: u16 = 0x0d;
const FIRST_DIGITIZERS: std::ops::RangeInclusive<u16> = 0x01..=0x06;

/// Generic Desktop: Pointer to Multi-axis Controller, Wireless Radio Controls, System Control.
const FIRST_DESKTOP: std::ops::RangeInclusive<u16> = 0x00..=0x08;
const FURTHER_DESKTOP: [u16; 2] = [0x0c, 0x80];

/// Consumer: Consumer Control.
const CONSUMER: u16 = 0x0c;
const CONSUMER_CONTROL: u16 = 0x01;

/// The relevant items, without the bits for their size (6.2.2.7, 6.2.2.8, 6.2.2.4).
const USAGE_PAGE: u8 = 0x04;
const PUSH: u8 = 0xa4;
const POP: u8 = 0xb4;
const USAGE: u8 = 0x08;
const USAGE_MINIMUM: u8 = 0x18;
const USAGE_MAXIMUM: u8 = 0x28;
const COLLECTION: u8 = 0xa0;
const LONG_ITEM: u8 = 0xfe;

/// The type of item that ends a list of usages: Input, Output, Feature, Collection, End Collection.
const MAIN: u8 = 0;

/// The type of an application collection (6.2.2.6).
const APPLICATION: u32 = 1;

/// How many collections are kept besides those of keyboards and mice. A descriptor has at most 4096
/// bytes, enough for two thousand.
const MAX_COLLECTIONS: usize = 64;

/// How many usages of one range are read. The usages of keyboards and mice are the first ones of
/// their pages.
const MAX_RANGE: usize = 64;

/// Usage page and usage of each application collection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HidUsages(BTreeSet<(u16, u16)>);

impl HidUsages {
    /// Reads sysfs' attribute `report_descriptor`, as far as it is well-formed.
    pub fn in_report_descriptor(bytes: &[u8]) -> Self {
        let mut found = BTreeSet::new();
        let mut page = 0;
        let mut pages = Vec::new();
        // A usage of 4 bytes contains its page; otherwise the page in force at the main item
        // counts.
        let mut usages: Vec<(Option<u16>, u16)> = Vec::new();
        let mut minimum = 0;
        let mut rest = bytes;
        while let [prefix, ..] = *rest {
            if prefix == LONG_ITEM {
                let length = rest.get(1).copied().map_or(0, usize::from);
                rest = rest.get(3 + length..).unwrap_or_default();
                continue;
            }
            let size = [0, 1, 2, 4][usize::from(prefix & 3)];
            let Some(data) = rest.get(1..=size) else { break };
            let mut bytes = [0; 4];
            bytes[..size].copy_from_slice(data);
            let value = u32::from_le_bytes(bytes);
            let low = (value & 0xffff) as u16;
            let own_page = (size == 4).then_some((value >> 16) as u16);
            match prefix & 0xfc {
                USAGE_PAGE => page = low,
                PUSH => pages.push(page),
                POP => page = pages.pop().unwrap_or(page),
                USAGE => usages.push((own_page, low)),
                USAGE_MINIMUM => minimum = low,
                USAGE_MAXIMUM => {
                    usages.extend((minimum..=low).take(MAX_RANGE).map(|usage| (own_page, usage)))
                }
                // The kernel compares the low byte alone (drivers/hid/hid-core.c, hid_parser_main).
                COLLECTION if value & 0xff == APPLICATION => {
                    for (own, usage) in &usages {
                        let found_one = (own.unwrap_or(page), *usage);
                        if found.len() < MAX_COLLECTIONS || is_typed_or_pointed(found_one) {
                            found.insert(found_one);
                        }
                    }
                }
                _ => {}
            }
            if prefix >> 2 & 3 == MAIN {
                usages.clear();
                minimum = 0;
            }
            rest = &rest[1 + size..];
        }
        Self(found)
    }

    /// As text: `0001:0006,f1d0:0001`.
    pub fn to_text(&self) -> String {
        let texts: Vec<String> = self
            .0
            .iter()
            .map(|(page, usage)| format!("{page:04x}:{usage:04x}"))
            .collect();
        texts.join(",")
    }

    /// Parses the output of [`HidUsages::to_text`].
    pub fn from_text(text: &str) -> Self {
        let number = |digits: &str| u16::from_str_radix(digits, 16).ok();
        let pairs = text.split(',').filter_map(|pair| pair.split_once(':'));
        Self(
            pairs
                .filter_map(|(page, usage)| Some((number(page)?, number(usage)?)))
                .collect(),
        )
    }

    /// Whether a collection is that of a keyboard, a keypad, a mouse, a tablet or a touch screen.
    pub fn is_typed_or_pointed(&self) -> bool {
        self.0.iter().copied().any(is_typed_or_pointed)
    }

    /// Whether the kernel makes an input device of it (include/linux/hid.h, IS_INPUT_APPLICATION).
    pub fn is_input(&self) -> bool {
        self.0.iter().any(|(page, usage)| match *page {
            DESKTOP => FIRST_DESKTOP.contains(usage) || FURTHER_DESKTOP.contains(usage),
            DIGITIZERS => FIRST_DIGITIZERS.contains(usage),
            CONSUMER => *usage == CONSUMER_CONTROL,
            _ => false,
        })
    }
}

fn is_typed_or_pointed((page, usage): (u16, u16)) -> bool {
    match page {
        DESKTOP => TYPED_OR_POINTED.contains(&usage),
        DIGITIZERS => FIRST_DIGITIZERS.contains(&usage),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(bytes: &[u8]) -> String {
        HidUsages::in_report_descriptor(bytes).to_text()
    }

    #[test]
    fn the_applications_of_a_descriptor_are_read_and_nested_collections_are_not() {
        // The beginning of a boot keyboard's descriptor (HID 1.11, E.6).
        let keyboard =
            b"\x05\x01\x09\x06\xa1\x01\x05\x07\x19\xe0\x29\xe7\x15\x00\x25\x01\x75\x01\x95\x08\x81\x02\xc0";
        // A boot mouse (E.10), which contains the pointer as a physical collection.
        let mouse = b"\x05\x01\x09\x02\xa1\x01\x09\x01\xa1\x00\x05\x09\x19\x01\x29\x03\x81\x02\xc0\xc0";
        // A security key (FIDO CTAP 2, 11.2.8.1).
        let key = b"\x06\xd0\xf1\x09\x01\xa1\x01\x09\x20\x15\x00\x26\xff\x00\x75\x08\x95\x40\x81\x02\xc0";
        assert_eq!(text(keyboard), "0001:0006");
        assert_eq!(text(mouse), "0001:0002");
        assert_eq!(text(key), "f1d0:0001");
        assert_eq!(text(&[&key[..], keyboard].concat()), "0001:0006,f1d0:0001");
        assert!(HidUsages::in_report_descriptor(keyboard).is_typed_or_pointed());
        assert!(HidUsages::in_report_descriptor(mouse).is_typed_or_pointed());
        assert!(!HidUsages::in_report_descriptor(key).is_typed_or_pointed());
    }

    #[test]
    fn inputs_are_what_the_kernel_takes_for_inputs() {
        for (usages, is_input) in [
            ("0001:0005", true),
            ("0001:0008", true),
            ("0001:0009", false),
            ("0001:000c", true),
            ("0001:0080", true),
            ("000c:0001", true),
            ("000c:0002", false),
            ("000d:0006", true),
            ("000d:0007", false),
            ("f1d0:0001", false),
            ("0020:0001,0001:0004", true),
            ("", false),
        ] {
            assert_eq!(HidUsages::from_text(usages).is_input(), is_input, "{usages}");
        }
    }

    #[test]
    fn a_usage_may_include_its_page_and_a_page_may_follow_its_usage() {
        assert_eq!(text(b"\x0b\x06\x00\x01\x00\xa1\x01"), "0001:0006");
        assert_eq!(text(b"\x05\x0c\x09\x06\x05\x01\xa1\x01"), "0001:0006");
        assert_eq!(
            text(b"\x05\x01\xa4\x05\x0c\xb4\x09\x06\xa1\x01"),
            "0001:0006",
            "page pushed and popped"
        );
        assert_eq!(
            text(b"\xfe\x02\x00\x05\x0c\x05\x01\x09\x05\xa1\x01"),
            "0001:0005",
            "a long item is passed over"
        );
    }

    #[test]
    fn a_range_of_usages_extends_from_its_minimum_to_its_maximum() {
        let both = b"\x05\x01\x19\x04\x29\x05\xa1\x01";
        assert_eq!(text(both), "0001:0004,0001:0005");
        // The next main item clears the minimum together with the usages.
        let and_more = [&both[..], b"\x29\x01\xa1\x01"].concat();
        assert_eq!(text(&and_more), "0001:0000,0001:0001,0001:0004,0001:0005");
    }

    /// The kernel (drivers/hid/hid-core.c) recognizes each of these spellings as a keyboard.
    #[test]
    fn a_keyboard_is_found_however_its_collection_is_written() {
        let typed = |bytes: &[u8]| HidUsages::in_report_descriptor(bytes).is_typed_or_pointed();
        assert!(typed(b"\x05\x01\x19\x06\x29\x06\xa1\x01"), "by a range of usages");
        assert!(
            typed(b"\x05\x01\x09\x06\xa2\x01\x01"),
            "with two bytes for its type"
        );
        let mut behind_many: Vec<u8> = Vec::new();
        for number in 0..200 {
            behind_many.extend([0x06, 0x00, 0xff, 0x09, number, 0xa1, 0x01, 0xc0]);
        }
        behind_many.extend(b"\x05\x01\x09\x06\xa1\x01");
        assert!(typed(&behind_many), "behind many other collections");
        let kept = HidUsages::in_report_descriptor(&behind_many).0.len();
        assert_eq!(kept, MAX_COLLECTIONS + 1, "the rest is kept up to the limit");
        assert!(!typed(b"\x05\x01\x19\x00\x2a\xff\xff\x81\x02\x09\x05\xa1\x01"));
    }

    #[test]
    fn game_controllers_power_supplies_and_volume_keys_are_not_keyboards_or_pointers() {
        for usages in [
            "0001:0004",
            "0001:0005",
            "0084:0004",
            "000c:0001",
            "ff00:0001",
            "",
        ] {
            assert!(!HidUsages::from_text(usages).is_typed_or_pointed(), "{usages}");
        }
        for usages in [
            "0001:0007",
            "000d:0002",
            "000d:0004",
            "000d:0005",
            "000c:0001,0001:0006",
        ] {
            assert!(HidUsages::from_text(usages).is_typed_or_pointed(), "{usages}");
        }
    }

    proptest! {
        #[test]
        fn no_descriptor_causes_a_panic_and_usages_survive_formatting(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let usages = HidUsages::in_report_descriptor(&bytes);
            prop_assert_eq!(HidUsages::from_text(&usages.to_text()), usages);
        }

        #[test]
        fn no_text_causes_a_panic(text in "[0-9a-f:,é]{0,20}") {
            let _ = HidUsages::from_text(&text);
        }
    }
}
