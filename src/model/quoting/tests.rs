use super::*;
use crate::model::any_text::any_text;
use proptest::prelude::*;

#[test]
fn only_unescaped_separators_split() {
    assert_eq!(split_unescaped(r"a,b\,c\\,d", ','), ["a", r"b\,c\\", "d"]);
    assert_eq!(split_unescaped("", ','), [""]);
    assert_eq!(split_unescaped(",", ','), ["", ""]);
    assert_eq!(split_once_unescaped(r"a\=b=c=d", '='), Some((r"a\=b", "c=d")));
    assert_eq!(split_once_unescaped(r"a\=b", '='), None);
}

/// Case newcomer: quoting.
#[test]
fn line_breaks_separate_like_commas_and_blank_lines_are_skipped() {
    assert_eq!(list_elements("a\nb"), ["a", "b"]);
    assert_eq!(list_elements("\n a \r\n\n  b,c ,\n d\n"), ["a", "b", "c", "d"]);
    assert_eq!(list_elements("a,,b\n,"), ["a", "", "b", ""]);
    assert_eq!(list_elements("a\\\nb"), ["a\\\nb"]);
    assert_eq!(plain_list_elements("a\r\n\nb ,c\n"), ["a", "b ", "c"]);
    assert_eq!(plain_list_elements("a,"), ["a", ""]);
}

#[test]
fn escaped_white_space_at_the_end_is_kept() {
    assert_eq!(trim_unescaped(" a\t"), "a");
    assert_eq!(trim_unescaped(r" a\  "), r"a\ ");
    assert_eq!(trim_unescaped(r" a\\  "), r"a\\");
    assert_eq!(trim_unescaped(r"\ a "), r"\ a");
    assert_eq!(trim_unescaped("  "), "");
    assert_eq!(trim_unescaped(r"a\"), r"a\");
}

#[test]
fn a_backslash_with_nothing_to_escape_is_refused() {
    assert_eq!(unescape(r"a\,\\b"), Some(r"a,\b".to_owned()));
    assert_eq!(unescape(r"a\"), None);
    assert_eq!(unescape(r"a\\"), Some(r"a\".to_owned()));
}

#[test]
fn shown_text_is_short_and_cannot_forge_a_line() {
    assert_eq!(shown("a\nb\u{1b}[1m\u{202e}", 80), r"a\nb\u{1b}[1m\u{202e}");
    assert_eq!(shown(&"x".repeat(100), 5), "xxxxx…");
    assert_eq!(shown("größe", 80), "größe");
    assert_eq!(visible("a\u{1b}\nb"), r"a\u{1b}\nb");
    assert_eq!(visible_lines("a\u{1b}\n\tb\nc"), "a\\u{1b}\n\\tb\nc");
}

#[test]
fn a_typo_is_recognized_and_an_unrelated_word_is_not() {
    let known = ["usb", "pci", "syspath", "subsystem"];
    assert_eq!(nearest("ubs", &known), Some("usb"));
    assert_eq!(nearest("USB", &known), Some("usb"));
    assert_eq!(nearest("sypaht", &known), Some("syspath"));
    assert_eq!(nearest("vid", &known), None);
    assert_eq!(nearest("pid", &known), None);
    assert_eq!(nearest(&"u".repeat(30), &known), None);
    let names = ["port", "abcdefghijklmnopqrst"];
    assert_eq!(nearest("pott", &names), Some("port"));
    assert_eq!(nearest("patt", &names), None, "two typos in a short word");
    assert_eq!(nearest("abcdefghijklmnopqrsx", &names), Some(names[1]));
    assert_eq!(
        nearest("abcdefghijklmnopqrstx", &names),
        None,
        "longer than any name"
    );
}

#[test]
fn additional_missing_wrong_and_swapped_letters_are_typos() {
    for (left, right, expected) in [
        ("usb", "usb", 0),
        ("", "usb", 3),
        ("usbxyz", "usb", 3),
        ("usx", "usb", 1),
        ("ubs", "usb", 1),
        ("kitten", "sitting", 3),
        ("abcd", "badc", 2),
    ] {
        assert_eq!(slips(left, right), expected, "{left} {right}");
        assert_eq!(slips(right, left), expected, "{right} {left}");
    }
}

#[test]
fn a_word_is_quoted_for_a_shell_and_a_slug_is_made_of_its_letters() {
    assert_eq!(shell_quoted("usb:0403&!driver:x"), "'usb:0403&!driver:x'");
    assert_eq!(shell_quoted("it's"), r"'it'\''s'");
    for plain in ["lab", "3f2a", "shop/web-0/box", "/dev/ttyUSB0"] {
        assert_eq!(shell_word(plain), plain);
    }
    for (text, word) in [("", "''"), ("a b", "'a b'"), ("$(id)", "'$(id)'"), ("ä", "'ä'")] {
        assert_eq!(shell_word(text), word);
    }
    assert_eq!(slug("subsystem:tty&usb:0403", 40), "subsystem-tty-usb-0403");
    assert_eq!(slug("devnode:/dev/x", 8), "devnode");
    assert_eq!(slug("é", 8), "");
}

proptest! {
    #[test]
    fn terminal_text_contains_no_invisible_characters(text in any_text()) {
        prop_assert!(!visible(&text).contains(is_invisible));
        let lines = visible_lines(&text);
        prop_assert!(lines.split('\n').all(|line| !line.contains(is_invisible)));
        prop_assert_eq!(lines.lines().count(), text.split('\n').map(visible).collect::<Vec<_>>().join("\n").lines().count());
    }

    #[test]
    fn an_escaped_text_is_one_piece_and_unescapes_to_the_original(text in any_text()) {
        let escaped = escape(&text, &[',', ';', '&']);
        prop_assert_eq!(split_unescaped(&escaped, ',').len(), 1);
        prop_assert_eq!(unescape(&escaped), Some(text.clone()));
        let value = format!("x{escaped}  ");
        prop_assert_eq!(trim_unescaped(&value), &value[..value.len() - 2]);
    }

    #[test]
    fn shown_text_is_never_longer_than_the_limit(text in any_text(), limit in 0..100usize) {
        prop_assert!(shown(&text, limit).chars().count() <= limit + 1);
    }
}
