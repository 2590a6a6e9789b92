//! Serial numbers, as reported by devices and as rewritten by udev.

/// Whether a serial number in a request is the serial number of this device: either as the device
/// reports it or as udev shows it (ID_SERIAL_SHORT, and in the names of links).
///
/// Trailing white space in a serial number is ignored, because the snapshot of the attribute does
/// not include it.
pub(crate) fn same(actual: &str, written: &str) -> bool {
    actual.trim_end() == written.trim_end() || as_udev_spells(actual) == written
}

/// How udev's usb_id rewrites a serial number: it removes white space at both ends, and replaces
/// each inner run of white space and each other ASCII character that is neither a letter, a digit
/// nor one of `#+-.:=@_` by one `_`. Other UTF-8 characters and `\x` stay (systemd,
/// udev_replace_whitespace and udev_replace_chars in src/shared/udev-util.c,
/// allow_listed_char_for_devnode in src/shared/device-nodes.c).
pub(crate) fn as_udev_spells(serial: &str) -> String {
    let words: Vec<&str> = serial.split_ascii_whitespace().collect();
    let joined = words.join("_");
    let mut spelled = String::with_capacity(joined.len());
    let mut letters = joined.chars().peekable();
    while let Some(letter) = letters.next() {
        let is_hex = letter == '\\' && letters.peek() == Some(&'x');
        let stays =
            is_hex || !letter.is_ascii() || letter.is_ascii_alphanumeric() || "#+-.:=@_".contains(letter);
        spelled.push(if stays { letter } else { '_' });
    }
    spelled
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Case README 6.
    #[test]
    fn a_serial_number_may_be_written_as_udev_shows_it() {
        for (actual, written) in [
            ("My Board 01", "My Board 01"),
            ("My Board 01", "My_Board_01"),
            ("My  Board\t01 ", "My_Board_01"),
            (" A/B", "A_B"),
            ("A,B;C&D!E", "A_B_C_D_E"),
            ("AA:BB:CC+#1.2-3=@_", "AA:BB:CC+#1.2-3=@_"),
            ("Größe ©", "Größe_©"),
            ("a\\x20b", "a\\x20b"),
            ("a\\b\\", "a_b_"),
            ("xyz", "xyz"),
        ] {
            assert!(same(actual, written), "{actual:?} {written:?}");
        }
        for (actual, written) in [
            ("My_Board_01", "My Board 01"),
            ("My Board 01", "My_Board_1"),
            ("A+B", "A_B"),
            ("A  B", "A__B"),
            ("A", "a"),
            ("a\\b", "a\\\\b"),
            ("(x", "(x)"),
        ] {
            assert!(!same(actual, written), "{actual:?} {written:?}");
        }
    }

    #[test]
    fn a_backslash_stays_only_in_an_escape() {
        assert_eq!(as_udev_spells("a\\x20b"), "a\\x20b");
        assert_eq!(as_udev_spells("a\\b(x\\"), "a_b_x_");
    }

    proptest! {
        #[test]
        fn rewriting_twice_changes_nothing_and_no_text_gets_longer(serial in ".{0,40}") {
            let spelled = as_udev_spells(&serial);
            prop_assert!(spelled.len() <= serial.len());
            prop_assert_eq!(as_udev_spells(&spelled), spelled.clone());
            prop_assert!(same(&serial, &serial) && same(&serial, &spelled));
        }
    }
}
