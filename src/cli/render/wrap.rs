//! Sentences on a terminal: broken between words, and never inside a command.

use super::table::width;

/// The text with line feeds, so that no line is longer than the screen. The first line begins
/// behind `begin` columns, each further one with `indent` spaces. What is between backticks is a
/// command, which stays in one line: it must be whole when it is copied.
pub(in crate::cli) fn wrapped(text: &str, begin: usize, indent: usize, screen: Option<usize>) -> String {
    let Some(screen) = screen else {
        return text.to_owned();
    };
    let mut lines = String::new();
    let mut column = begin;
    let mut is_first = true;
    for word in words(text) {
        let needed = width(&word) + usize::from(!is_first);
        if !is_first && column + needed > screen {
            lines.push('\n');
            lines += &" ".repeat(indent);
            column = indent + width(&word);
        } else {
            lines += if is_first { "" } else { " " };
            column += needed;
        }
        lines += &word;
        is_first = false;
    }
    lines
}

/// The words of a text; a command counts as one.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut is_command = false;
    for word in text.split(' ') {
        match words.last_mut() {
            Some(last) if is_command => {
                last.push(' ');
                last.push_str(word);
            }
            _ => words.push(word.to_owned()),
        }
        is_command ^= word.matches('`').count() % 2 == 1;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_are_broken_between_words_and_not_inside_commands() {
        assert_eq!(
            wrapped(
                "refused: to allow it, run `oci-hotplug allow usb:1`",
                4,
                2,
                Some(24)
            ),
            "refused: to allow\n  it, run\n  `oci-hotplug allow usb:1`"
        );
        assert_eq!(wrapped("a  b", 0, 2, Some(80)), "a  b");
        assert_eq!(wrapped("refused: to", 0, 2, None), "refused: to");
    }

    proptest! {
        #[test]
        fn no_word_is_lost_and_short_words_fit(text in "[a-z` ]{0,60}", screen in 20..40usize) {
            let lines = wrapped(&text, 0, 0, Some(screen));
            prop_assert_eq!(lines.replace('\n', " "), text.clone());
            let longest = words(&text).iter().map(|word| width(word)).max().unwrap_or_default();
            prop_assert!(lines.lines().all(|line| width(line) <= screen.max(longest)));
        }
    }
}
