//! What the kernel knows about the purpose of an input device: typing, pointing or playing.
//!
//! Reads the same bitmaps as udev's builtin input_id (linux/input-event-codes.h has the numbers).
//! Must not know what follows from them (`policy`) or where they are read.

/// The number of bits in a word of sysfs' bitmaps: the kernel's `long`, in the size that a program
/// of our word size reads (drivers/input/input.c, input_bits_to_string).
const WORD_BITS: u32 = usize::BITS;

/// ESC, the digits, the letters Q to D: a keyboard, in the sense of input_id, has all of them.
const FULL_KEYBOARD: std::ops::RangeInclusive<u32> = 1..=31;

/// KEY_KP7 to KEY_KP0. People type numbers such as PINs on a keypad, although input_id reports only
/// ID_INPUT_KEY.
const KEYPAD: [u32; 10] = [71, 72, 73, 75, 76, 77, 79, 80, 81, 82];

/// BTN_MOUSE to BTN_TASK and the rest of their block.
const MOUSE_BUTTONS: std::ops::RangeInclusive<u32> = 0x110..=0x11f;

/// BTN_JOYSTICK, BTN_GAMEPAD and the rest of their blocks.
const GAME_BUTTONS: std::ops::RangeInclusive<u32> = 0x120..=0x13f;

/// BTN_DIGI, the tools of tablets, touch screens and touchpads, BTN_TOUCH among them.
const TOOLS: std::ops::RangeInclusive<u32> = 0x140..=0x14f;

const BTN_TOOL_PEN: u32 = 0x140;
const BTN_TOOL_FINGER: u32 = 0x145;
const BTN_STYLUS: u32 = 0x14b;

/// INPUT_PROP_POINTER to INPUT_PROP_POINTING_STICK; INPUT_PROP_ACCELEROMETER follows.
const POINTER_PROPERTIES: std::ops::RangeInclusive<u32> = 0..=5;
const INPUT_PROP_DIRECT: u32 = 1;

/// The purposes of an input device, as far as its keys and properties show.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InputCapabilities {
    /// A keyboard or a keypad.
    pub keyboard: bool,
    /// A mouse, a tablet, a touch screen, a pointing stick.
    pub pointer: bool,
    /// A touchpad.
    pub touchpad: bool,
    /// A joystick or a gamepad with buttons.
    pub joystick: bool,
}

impl InputCapabilities {
    /// Reads sysfs' attributes `capabilities/key` and `properties` of an `inputN`. `None` if one of
    /// them is not a bitmap.
    pub fn in_bitmaps(keys: &str, properties: &str) -> Option<Self> {
        let (keys, properties) = (Bitmap::read(keys)?, Bitmap::read(properties)?);
        let has_pen = keys.has(BTN_TOOL_PEN) || keys.has(BTN_STYLUS);
        let touchpad = keys.has(BTN_TOOL_FINGER) && !has_pen && !properties.has(INPUT_PROP_DIRECT);
        let points = keys.any(MOUSE_BUTTONS) || keys.any(TOOLS) || properties.any(POINTER_PROPERTIES);
        // The buttons of a mouse with more than 16 buttons extend into the next block.
        let plays = keys.any(GAME_BUTTONS) && !keys.has(*MOUSE_BUTTONS.end());
        Some(Self {
            keyboard: keys.all(FULL_KEYBOARD) || keys.all(KEYPAD),
            pointer: points && !touchpad,
            touchpad,
            joystick: plays,
        })
    }

    /// As text: `keyboard,joystick`; `other` for a device without these purposes.
    pub fn to_text(self) -> String {
        let names: Vec<&str> = self
            .named()
            .into_iter()
            .filter(|(_, is)| *is)
            .map(|(name, _)| name)
            .collect();
        match names.is_empty() {
            true => "other".to_owned(),
            false => names.join(","),
        }
    }

    /// Parses the output of [`InputCapabilities::to_text`].
    pub fn from_text(text: &str) -> Self {
        let has = |name: &str| text.split(',').any(|part| part == name);
        Self {
            keyboard: has("keyboard"),
            pointer: has("pointer"),
            touchpad: has("touchpad"),
            joystick: has("joystick"),
        }
    }

    fn named(self) -> [(&'static str, bool); 4] {
        [
            ("keyboard", self.keyboard),
            ("pointer", self.pointer),
            ("touchpad", self.touchpad),
            ("joystick", self.joystick),
        ]
    }
}

/// A bitmap as sysfs writes it: hexadecimal words, the highest first, without leading zero words.
struct Bitmap(Vec<u64>);

impl Bitmap {
    fn read(text: &str) -> Option<Self> {
        let words = text.split_ascii_whitespace().rev();
        let words: Option<Vec<u64>> = words.map(|word| u64::from_str_radix(word, 16).ok()).collect();
        words.filter(|words| !words.is_empty()).map(Self)
    }

    fn has(&self, bit: u32) -> bool {
        let word = usize::try_from(bit / WORD_BITS)
            .ok()
            .and_then(|index| self.0.get(index));
        word.is_some_and(|word| word >> (bit % WORD_BITS) & 1 == 1)
    }

    fn any(&self, bits: impl IntoIterator<Item = u32>) -> bool {
        bits.into_iter().any(|bit| self.has(bit))
    }

    fn all(&self, bits: impl IntoIterator<Item = u32>) -> bool {
        bits.into_iter().all(|bit| self.has(bit))
    }
}

/// A bitmap with these bits, in sysfs' format: for recorded devices.
#[cfg(test)]
pub(crate) fn bitmap(bits: &[u32]) -> String {
    let words = bits.iter().max().map_or(1, |bit| bit / WORD_BITS + 1);
    let word = |index: u32| -> u64 {
        let here = bits.iter().filter(|bit| **bit / WORD_BITS == index);
        here.map(|bit| 1u64 << (bit % WORD_BITS)).sum()
    };
    let words: Vec<String> = (0..words)
        .rev()
        .map(|index| format!("{:x}", word(index)))
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(keys: &[u32], properties: &[u32]) -> String {
        let keys: std::collections::BTreeSet<u32> = keys.iter().copied().collect();
        let keys: Vec<u32> = keys.into_iter().collect();
        InputCapabilities::in_bitmaps(&bitmap(&keys), &bitmap(properties))
            .unwrap()
            .to_text()
    }

    #[test]
    fn devices_are_classified_by_their_keys() {
        let letters: Vec<u32> = (1..=31).collect();
        let gamepad: Vec<u32> = (0x130..0x13f).collect();
        assert_eq!(of(&letters, &[]), "keyboard");
        assert_eq!(
            of(&letters[1..], &[]),
            "other",
            "a remote control has some of them"
        );
        assert_eq!(of(&KEYPAD, &[]), "keyboard", "numbers are typed on a keypad");
        assert_eq!(of(&[0x110, 0x111, 0x112], &[]), "pointer", "a mouse");
        assert_eq!(of(&[0x14a], &[1]), "pointer", "a touch screen");
        assert_eq!(of(&[0x140, 0x145, 0x14a, 0x14b], &[0]), "pointer", "a tablet");
        assert_eq!(of(&[0x110, 0x145, 0x14a], &[0, 2]), "touchpad");
        for pen in [BTN_TOOL_PEN, BTN_STYLUS] {
            assert_eq!(
                of(&[0x110, 0x145, pen], &[0]),
                "pointer",
                "a tablet that recognizes fingers"
            );
        }
        assert_eq!(of(&[0x110], &[5]), "pointer", "a pointing stick");
        assert_eq!(of(&gamepad, &[]), "joystick");
        let with_share: Vec<u32> = gamepad.iter().copied().chain([167]).collect();
        assert_eq!(of(&with_share, &[]), "joystick", "a pad with one key");
        assert_eq!(of(&[115, 114, 113], &[]), "other", "the volume keys of a headset");
        assert_eq!(of(&[212], &[]), "other", "a camera's button");
        assert_eq!(of(&[], &[6]), "other", "an accelerometer");
        let many: Vec<u32> = (0x110..0x124).collect();
        assert_eq!(of(&many, &[]), "pointer", "a mouse with 20 buttons");
    }

    /// Bitmaps as the kernel shows them, of an AT keyboard and of a USB mouse.
    #[test]
    #[cfg(target_pointer_width = "64")]
    fn real_bitmaps_are_read() {
        let keyboard = "402000000 3803078f800d001 feffffdfffefffff fffffffffffffffe";
        assert_eq!(
            InputCapabilities::in_bitmaps(keyboard, "0").unwrap().to_text(),
            "keyboard"
        );
        let mouse = "1f0000 0 0 0 0";
        assert_eq!(
            InputCapabilities::in_bitmaps(mouse, "0").unwrap().to_text(),
            "pointer"
        );
        assert_eq!(InputCapabilities::in_bitmaps("", "0"), None);
        assert_eq!(InputCapabilities::in_bitmaps("0", "none"), None);
    }

    proptest! {
        #[test]
        fn no_text_causes_a_panic_and_capabilities_survive_formatting(keys in "[0-9a-f ]{0,80}", properties in "[0-9a-f]{0,3}") {
            if let Some(found) = InputCapabilities::in_bitmaps(&keys, &properties) {
                prop_assert_eq!(InputCapabilities::from_text(&found.to_text()), found);
            }
        }
    }
}
