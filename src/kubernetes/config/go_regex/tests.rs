use proptest::prelude::*;

use super::*;

/// Case README 15. Each expected value is the result of Go's regexp.MatchString.
#[test]
fn expressions_match_the_same_texts_as_in_go() {
    for (expression, text, expected) in [
        ("^[[:alpha:]]+$", "null", true),
        ("^[[:alpha:]]+$", "tty0", false),
        ("^[[:^alpha:]]+$", "012", true),
        ("\\Qusb-1\\E", "x/usb-1", true),
        ("\\Qusb-1", "usb-1", true),
        ("^\\Qa.b\\E$", "axb", false),
        ("^\\Qa[b\\E+$", "a[bb", true),
        ("^\\p{L}+$", "größe", true),
        ("^\\p{L}+$", "tty0", false),
        ("^\\pN$", "7", true),
        ("^\\PN$", "7", false),
        ("^\\p{^L}$", "7", true),
        ("^\\P{^L}$", "7", false),
        ("^\\p{Greek}$", "λ", true),
        ("^[\\pN_]$", "_", true),
        ("(?i)^TTY", "ttyS0", true),
        ("^(?i:TTY)S", "ttys", false),
        ("^tty(?P<kind>S|USB)[0-9]$", "ttyUSB0", true),
        ("^tty(?<kind>S)0$", "ttyS0", true),
        ("^a\\z", "a", true),
        ("^\\d$", "٣", false),
        ("^\\d$", "3", true),
        ("^\\w+$", "a_9", true),
        ("^\\w+$", "ü", false),
        ("\\bS0", "tty S0", true),
        ("\\bS0", "ttyS0", false),
        ("y\\B", "tty", false),
        ("t\\B", "tty", true),
        ("^[\\d-]+$", "1-2", true),
        ("^[\\D]$", "1", false),
        ("^[^\\D]$", "1", true),
        ("^a{,2}$", "a{,2}", true),
        ("^a{2}$", "aa", true),
        ("^a{2,}$", "aaa", true),
        ("^a{b$", "a{b", true),
        ("^}]$", "}]", true),
        ("^[a&&b]+$", "&a", true),
        ("^[[a]+$", "[a", true),
        ("^[]a]+$", "]a", true),
        ("^[a~~-]+$", "~-", true),
        ("^[--/]$", ".", true),
        ("^\\x41\\x{42}\\103$", "ABC", true),
        ("^\\_\\-\\<$", "_-<", true),
        ("a # b", "a # b", true),
        ("^.$", "\n", false),
        ("(?s)^.$", "\n", true),
        ("", "anything", true),
    ] {
        let regex = GoRegex::new(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
        assert_eq!(regex.is_match(text), expected, "{expression} {text:?}");
    }
}

#[test]
fn an_expression_that_go_refuses_is_refused_by_the_name_of_the_construct() {
    for (expression, part) in [
        ("a(", "unclosed group"),
        ("a)", "unopened group"),
        ("\\C", "\\C"),
        ("a\\Z", "\\Z"),
        ("(a)\\1", "\\1"),
        ("(?=a)", "(?=a"),
        ("(?<!a)b", "(?<!"),
        ("(?x)a", "(?x"),
        ("a{1001}", "{1001}"),
        ("[a", "its [ has no ]"),
        ("[]", "its [ has no ]"),
        ("\\p{Nosuch}", "Unicode"),
        ("\\p{L", "has no }"),
        ("a\\", "last \\"),
        ("\\Ea", "\\E"),
        ("[[:nosuch:]]", "class"),
        ("*a", "repetition"),
        ("[b-a]", "range"),
    ] {
        match GoRegex::new(expression) {
            Ok(regex) => panic!("{expression}: {regex:?}"),
            Err(error) => assert!(
                error.contains(part) && !error.contains('\n'),
                "{expression}: {error}"
            ),
        }
    }
}

proptest! {
    #[test]
    fn quoted_text_matches_only_itself(text in "[ -~]{0,12}", other in "[ -~]{0,12}") {
        prop_assume!(!text.contains("\\E"));
        let regex = GoRegex::new(&format!("^\\Q{text}\\E$")).unwrap();
        prop_assert!(regex.is_match(&text));
        prop_assert_eq!(regex.is_match(&other), text == other);
    }

    #[test]
    fn no_text_causes_a_panic_in_the_parser(text in "[\\[\\]\\\\(){}?:^$QEpPLxd0-9,&~-]{0,20}") {
        let _ = GoRegex::new(&text);
    }
}
