//! Serial numbers as devices have them, and as udev spells them.

/// Whether a serial number that somebody wrote is this one of a device: written as it is, or as
/// udev shows it (ID_SERIAL_SHORT, and in the names of links).
///
/// White space at the end of a serial number does not count: it is not seen in the attribute's
/// snapshot.
pub(crate) fn same(actual: &str, written: &str) -> bool {
    actual.trim_end() == written.trim_end() || as_udev_spells(actual) == written
}

/// How udev's usb_id spells a serial number: white space at both ends goes, each run of it becomes
/// one `_`, and so does each other ASCII character that is neither a letter, a digit nor one of
/// `#+-.:=@_`; other UTF-8 stays (systemd, udev_replace_whitespace and udev_replace_chars in
/// src/shared/udev-util.c, allow_listed_char_for_devnode in src/shared/device-nodes.c). A `\x`
/// stays there as well.
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
    fn only_an_escape_keeps_its_backslash() {
        assert_eq!(as_udev_spells("a\\x20b"), "a\\x20b");
        assert_eq!(as_udev_spells("a\\b(x\\"), "a_b_x_");
    }

    proptest! {
        #[test]
        fn udevs_spelling_is_final_and_never_longer(serial in ".{0,40}") {
            let spelled = as_udev_spells(&serial);
            prop_assert!(spelled.len() <= serial.len());
            prop_assert_eq!(as_udev_spells(&spelled), spelled.clone());
            prop_assert!(same(&serial, &serial) && same(&serial, &spelled));
        }
    }
}
