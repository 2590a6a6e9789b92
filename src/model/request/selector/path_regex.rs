//! Regular expressions for paths below `/dev`.
//!
//! Time and memory of matching are linear in the size of the compiled expression and in the text.
//! Must not know which facts of a device an expression is matched with (`matching`).

use std::path::Path;

use super::SelectorError;
use super::pattern::Pattern;

/// The most memory that a compiled regular expression may take, in bytes: refuses expressions such
/// as `(((a{100}){100}){100}`.
const MAX_COMPILED: usize = 256 * 1024;

/// The size limit of the first attempt to compile an expression, in bytes. It is doubled until the
/// expression fits, which shows the size; regex-lite does not report it.
const FIRST_LIMIT: usize = 256;

/// A regular expression for paths below `/dev`, not anchored.
pub type PathRegex = Pattern<Compiled>;

/// The compiled form of a regular expression.
#[derive(Debug, Clone)]
pub struct Compiled {
    regex: regex_lite::Regex,
    size: usize,
}

impl PathRegex {
    /// Compiles an expression of at most 1000 characters. Groups do not capture: regex-lite would
    /// store the beginning and end of each group for each state of the expression.
    ///
    /// # Errors
    /// [`SelectorError::PatternTooLong`], or [`SelectorError::Regex`] with the engine's message.
    pub fn new(expression: &str) -> Result<Self, SelectorError> {
        Self::compiled_by(compile, "regex", expression)
    }

    /// The size in memory after compilation, in bytes, up to a factor of two. Matching visits all
    /// of it for each character of a text.
    pub fn size(&self) -> usize {
        self.compiled.size
    }

    /// Whether the expression matches anywhere in the part of the path below `/dev`.
    pub fn matches_path(&self, path: &Path) -> bool {
        path.strip_prefix("/dev")
            .ok()
            .and_then(Path::to_str)
            .is_some_and(|below| self.verdict(below, |compiled| compiled.regex.is_match(below)))
    }
}

/// Compiles the expression as written first: that decides about validity.
fn compile(expression: &str) -> Result<Compiled, SelectorError> {
    let failed = |error: regex_lite::Error| SelectorError::Regex {
        reason: error.to_string(),
    };
    let build = |text: &str, limit| {
        let mut builder = regex_lite::RegexBuilder::new(text);
        builder.size_limit(limit).build()
    };
    build(expression, MAX_COMPILED).map_err(failed)?;
    let plain = without_captures(expression);
    let mut size = FIRST_LIMIT;
    while size <= MAX_COMPILED {
        if let Ok(regex) = build(&plain, size) {
            return Ok(Compiled { regex, size });
        }
        size *= 2;
    }
    let regex = regex_lite::Regex::new(&plain).map_err(failed)?;
    Ok(Compiled {
        regex,
        size: MAX_COMPILED,
    })
}

/// The same expression with groups that do not capture: `(`, `(?P<name>` and `(?<name>` become
/// `(?:`.
fn without_captures(expression: &str) -> String {
    let mut plain = String::with_capacity(expression.len());
    let mut rest = expression;
    let mut classes = 0usize;
    while let Some(letter) = rest.chars().next() {
        let (taken, written) = match letter {
            '\\' => (1 + rest[1..].chars().next().map_or(0, char::len_utf8), None),
            '[' => {
                classes += 1;
                // A `]` in the first position is an ordinary character.
                let negated = usize::from(rest[1..].starts_with('^'));
                let first = usize::from(rest[1 + negated..].starts_with(']'));
                (1 + negated + first, None)
            }
            ']' => {
                classes = classes.saturating_sub(1);
                (1, None)
            }
            '(' if classes == 0 && !rest.starts_with("(?") => (1, Some("(?:")),
            '(' if classes == 0 && (rest.starts_with("(?P<") || rest.starts_with("(?<")) => {
                match rest.find('>') {
                    Some(end) => (end + 1, Some("(?:")),
                    None => (1, None),
                }
            }
            other => (other.len_utf8(), None),
        };
        plain.push_str(written.unwrap_or(&rest[..taken]));
        rest = &rest[taken..];
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_regex_matches_anywhere_in_the_path_below_dev() {
        let matches = |text: &str, path: &str| PathRegex::new(text).unwrap().matches_path(Path::new(path));
        assert!(matches("USB", "/dev/ttyUSB0"));
        assert!(matches("^snd/pcm", "/dev/snd/pcmC0D0p"));
        assert!(!matches("^/dev", "/dev/ttyUSB0"));
        assert!(!matches("^USB", "/dev/ttyUSB0"));
    }
    /// Case security 3.
    #[test]
    fn groups_do_not_capture() {
        for (written, plain) in [
            ("(a)(?:b)(?P<n>c)(?<m>d)", "(?:a)(?:b)(?:c)(?:d)"),
            (r"\(a[(]b[^](]()", r"\(a[(]b[^](](?:)"),
            ("(?i)a(?i:b)(c)", "(?i)a(?i:b)(?:c)"),
            ("[[(]a](b)", "[[(]a](?:b)"),
            ("a\\\\(b)", "a\\\\(?:b)"),
        ] {
            assert_eq!(without_captures(written), plain);
        }
    }

    proptest! {
        #[test]
        fn an_expression_without_captures_matches_the_same_texts(
            expression in r"([ab]|\(|\)|\[[\^(]?[ab(]{1,2}\]|\\\(|\(\?P<x>|\(\?:|[|?*]){0,8}",
            text in "[ab()]{0,8}",
        ) {
            if let Ok(reference) = regex_lite::Regex::new(&expression) {
                let path = format!("/dev/{text}");
                let regex = PathRegex::new(&expression).unwrap();
                prop_assert_eq!(regex.matches_path(Path::new(&path)), reference.is_match(&text));
            }
        }
    }
}
