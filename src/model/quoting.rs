//! Splitting, unescaping, escaping and quoting of annotation values, and showing them in messages.
//!
//! Must not know what the pieces mean (`selector`, `request`, `symlink`).

use std::borrow::Cow;

/// Splits at every `separator` without a `\` before it. The pieces are still escaped.
///
/// There is always at least one piece, and a piece may be empty.
pub(crate) fn split_unescaped(text: &str, separator: char) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut start = 0;
    for (at, letter) in unescaped(text) {
        if letter == separator {
            pieces.push(&text[start..at]);
            start = at + letter.len_utf8();
        }
    }
    pieces.push(&text[start..]);
    pieces
}

/// The elements of a list: split at each `,` and line break without a `\` before it, and trimmed.
///
/// Blank lines are skipped, so that a YAML block is a list. An empty text between two commas is an
/// element.
pub(super) fn list_elements(text: &str) -> Vec<&str> {
    let mut elements = Vec::new();
    for piece in split_unescaped(text, ',') {
        let lines = split_unescaped(piece, '\n').into_iter().map(trim_unescaped);
        let before = elements.len();
        elements.extend(lines.filter(|line| !line.is_empty()));
        if elements.len() == before {
            elements.push("");
        }
    }
    elements
}

/// The same for a list in container-hotplug's grammar, which has no escapes and is not trimmed.
pub(super) fn plain_list_elements(text: &str) -> Vec<&str> {
    let mut elements = Vec::new();
    for piece in text.split(',') {
        let before = elements.len();
        elements.extend(piece.lines().filter(|line| !line.is_empty()));
        if elements.len() == before {
            elements.push("");
        }
    }
    elements
}

/// Splits once, at the first `separator` without a `\` before it.
pub(super) fn split_once_unescaped(text: &str, separator: char) -> Option<(&str, &str)> {
    let (at, letter) = unescaped(text).find(|(_, letter)| *letter == separator)?;
    Some((&text[..at], &text[at + letter.len_utf8()..]))
}

/// The characters that represent themselves, with their positions: neither a `\` nor the character
/// after one.
fn unescaped(text: &str) -> impl Iterator<Item = (usize, char)> + '_ {
    let mut after_backslash = false;
    text.char_indices().filter(move |(_, letter)| {
        let escapes = *letter == '\\' && !after_backslash;
        let plain = !escapes && !after_backslash;
        after_backslash = escapes;
        plain
    })
}

/// Removes white space at both ends, except where a `\` stands before it.
pub(super) fn trim_unescaped(text: &str) -> &str {
    let text = text.trim_start();
    let kept = text.trim_end();
    // An odd number of backslashes at the end: the last one escapes the white space after it, which
    // was just removed.
    let backslashes = kept.bytes().rev().take_while(|byte| *byte == b'\\').count();
    if backslashes % 2 == 0 {
        return kept;
    }
    let escaped = text[kept.len()..].chars().next().map_or(0, char::len_utf8);
    &text[..kept.len() + escaped]
}

/// Removes the backslashes. `None` if the last one has nothing to escape.
pub(super) fn unescape(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        plain.push(if letter == '\\' { letters.next()? } else { letter });
    }
    Some(plain)
}

/// The characters after a `\`, in order: for callers that need to know what was escaped.
pub(super) fn escapes(text: &str) -> impl Iterator<Item = (usize, char)> + '_ {
    let mut letters = text.char_indices();
    std::iter::from_fn(move || {
        loop {
            if letters.next()?.1 == '\\' {
                return letters.next();
            }
        }
    })
}

/// Puts a `\` before each `\`, each of `special` and white space at the end.
///
/// Leading white space needs no `\`: the value always follows a `:` or a `=`.
pub(super) fn escape(text: &str, special: &[char]) -> String {
    let mut escaped = String::with_capacity(text.len() + 2);
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let at_the_end = letters.peek().is_none() && letter.is_whitespace();
        if letter == '\\' || special.contains(&letter) || at_the_end {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}

/// The text for a message: at most `limit` characters and `…`, safe for a terminal.
///
/// Control characters, direction marks and invisible characters are escaped, so that an annotation
/// cannot forge a log line.
pub(crate) fn shown(text: &str, limit: usize) -> String {
    let mut shown = String::new();
    let mut length = 0;
    for letter in text.chars() {
        let visible = if is_invisible(letter) {
            letter.escape_default().to_string()
        } else {
            letter.to_string()
        };
        length += visible.chars().count();
        if length > limit {
            shown.push('…');
            break;
        }
        shown.push_str(&visible);
    }
    shown
}

/// The whole text, with the same characters escaped as in [`shown`]: for logs and terminals.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_invisible) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(shown(text, usize::MAX))
}

/// The same for a text of several lines, which keeps its line feeds.
pub(crate) fn visible_lines(text: &str) -> String {
    let lines: Vec<Cow<'_, str>> = text.split('\n').map(visible).collect();
    lines.join("\n")
}

/// The text as one word of a POSIX shell, in single quotes (POSIX.1-2017, Shell Command Language,
/// 2.2.2).
pub(crate) fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The same, without quotes where the shell needs none.
pub(crate) fn shell_word(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@".contains(&byte);
    match !text.is_empty() && text.bytes().all(is_plain) {
        true => text.to_owned(),
        false => shell_quoted(text),
    }
}

/// The ASCII letters and digits of a text, with one `-` for each run of other characters between
/// them; at most `limit` bytes.
pub(crate) fn slug(text: &str, limit: usize) -> String {
    let mut slug = String::new();
    for letter in text.chars() {
        if letter.is_ascii_alphanumeric() {
            slug.push(letter);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.truncate(limit);
    slug.trim_end_matches('-').to_owned()
}

/// Control characters, zero-width characters, line separators and direction marks.
fn is_invisible(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(letter, '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The entry of `known` that `word` probably misspells: one typo away, or two in a long word.
///
/// A typo is an additional letter, a missing one, a wrong one, or two swapped ones.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    if word.chars().count() > 20 {
        return None;
    }
    let word = word.trim().to_lowercase();
    known
        .iter()
        .map(|candidate| (slips(&word, candidate), *candidate))
        .filter(|(slips, candidate)| *slips <= if candidate.len() > 4 { 2 } else { 1 })
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, candidate)| candidate)
}

/// The optimal string alignment distance.
fn slips(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    let mut rows = vec![(0..=right.len()).collect::<Vec<usize>>()];
    for i in 1..=left.len() {
        let mut row = vec![i];
        for j in 1..=right.len() {
            let wrong = usize::from(left[i - 1] != right[j - 1]);
            let mut best = (rows[i - 1][j] + 1)
                .min(row[j - 1] + 1)
                .min(rows[i - 1][j - 1] + wrong);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests;
