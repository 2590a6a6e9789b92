//! Shell patterns: `*`, `?`, `[a-z]`, and `**` for directories.
//!
//! Matching takes time and memory linear in pattern and text. Must not know which facts of a device
//! a pattern is matched with (`matching`).

use std::path::Path;

use super::SelectorError;
use super::pattern::Pattern;

/// The size of one token of a glob, in bytes: a quarter of a state in regex-lite, which matches its
/// time.
const TOKEN_SIZE: usize = 8;

/// A shell pattern: `*`, `?`, `[a-z]`, `[!a]`, and `**` for any number of directories.
pub type Glob = Pattern<Tokens>;

/// The compiled form of a glob.
#[derive(Debug, Clone)]
pub struct Tokens(Vec<Token>);

/// One element of a glob.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Char(char),
    /// `?`
    Any,
    /// `[a-z]`, `[!a-z]`
    Class {
        ranges: Vec<(char, char)>,
        negated: bool,
    },
    /// `*`
    Sequence,
    /// `**/`, or `**` at the end
    Directories,
}

impl Glob {
    /// Compiles a pattern of at most 1000 characters.
    ///
    /// # Errors
    /// [`SelectorError::PatternTooLong`], or [`SelectorError::Glob`] with position and reason.
    pub fn new(pattern: &str) -> Result<Self, SelectorError> {
        Self::compiled_by(compile, "glob", pattern)
    }

    /// The cost of evaluating it: the size in bytes of a compiled expression with the same cost.
    pub fn size(&self) -> usize {
        let ranges = |token: &Token| match token {
            Token::Class { ranges, .. } => ranges.len(),
            _ => 0,
        };
        let Tokens(tokens) = &self.compiled;
        tokens.iter().map(|token| TOKEN_SIZE * (1 + ranges(token))).sum()
    }

    /// Whether the path of a node or link in `/dev` matches. `*` and `?` do not match `/`.
    ///
    /// A pattern without a leading `/` is relative to `/dev`.
    pub fn matches_path(&self, path: &Path) -> bool {
        let path = if self.as_str().starts_with('/') {
            Some(path)
        } else {
            path.strip_prefix("/dev").ok()
        };
        path.and_then(Path::to_str)
            .is_some_and(|path| self.verdict(path, |Tokens(tokens)| matches(tokens, path, true)))
    }

    /// Whether the value of a property or attribute matches. Here, `/` is an ordinary character.
    pub fn matches_value(&self, value: &str) -> bool {
        self.verdict(value, |Tokens(tokens)| matches(tokens, value, false))
    }
}

/// The crate glob decides about validity.
fn compile(pattern: &str) -> Result<Tokens, SelectorError> {
    glob::Pattern::new(pattern).map_err(|error| SelectorError::Glob {
        position: error.pos + 1,
        reason: error.msg,
    })?;
    Ok(Tokens(tokens(&pattern.chars().collect::<Vec<_>>())))
}

/// The tokens of a pattern that the crate glob accepts; each character has the same meaning as
/// there.
fn tokens(pattern: &[char]) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&letter) = pattern.get(at) {
        at += 1;
        match letter {
            '?' => tokens.push(Token::Any),
            '*' if pattern.get(at) == Some(&'*') => {
                // `**` fills a whole component, and several `**/` in a row mean the same as one.
                at += 1;
                if pattern.get(at) == Some(&'/') {
                    at += 1;
                }
                if tokens.last() != Some(&Token::Directories) {
                    tokens.push(Token::Directories);
                }
            }
            '*' => tokens.push(Token::Sequence),
            '[' => {
                let negated = pattern.get(at) == Some(&'!');
                let first = at + usize::from(negated);
                // A `]` in the first position is an ordinary character.
                let end = (first + 1..pattern.len()).find(|&end| pattern[end] == ']');
                let end = end.unwrap_or(pattern.len());
                tokens.push(Token::Class {
                    ranges: ranges(&pattern[first.min(end)..end]),
                    negated,
                });
                at = end + 1;
            }
            letter => tokens.push(Token::Char(letter)),
        }
    }
    tokens
}

fn ranges(class: &[char]) -> Vec<(char, char)> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < class.len() {
        match class[at..] {
            [first, '-', last, ..] => {
                ranges.push((first, last));
                at += 3;
            }
            _ => {
                ranges.push((class[at], class[at]));
                at += 1;
            }
        }
    }
    ranges
}

/// Follows all paths through the pattern at once, one character after the other. Position `n` is
/// reached when everything before token `n` has matched. The crate's own matcher tries one path
/// after the other, which takes exponential time for `*0*0*0*0*0*0/x`.
fn matches(tokens: &[Token], text: &str, is_path: bool) -> bool {
    let mut here = vec![false; tokens.len() + 1];
    let mut next = here.clone();
    // Whether the match is inside a directory that `**/` skips.
    let mut inside = vec![false; tokens.len()];
    let mut next_inside = inside.clone();
    here[0] = true;
    for letter in text.chars() {
        skip_empty(tokens, &mut here);
        next.fill(false);
        next_inside.fill(false);
        let separates = letter == '/';
        for (at, token) in tokens.iter().enumerate() {
            match token {
                Token::Directories if here[at] || inside[at] => {
                    next[at] |= separates;
                    next_inside[at] |= !separates;
                }
                Token::Sequence if here[at] => next[at] |= !(is_path && separates),
                token if here[at] && token.is(letter, is_path) => next[at + 1] = true,
                _ => {}
            }
        }
        std::mem::swap(&mut here, &mut next);
        std::mem::swap(&mut inside, &mut next_inside);
    }
    skip_empty(tokens, &mut here);
    // A trailing `**` matches the rest.
    let ends_inside = tokens.last() == Some(&Token::Directories) && inside.last() == Some(&true);
    here[tokens.len()] || ends_inside
}

/// `*` and `**/` also match nothing.
fn skip_empty(tokens: &[Token], here: &mut [bool]) {
    for (at, token) in tokens.iter().enumerate() {
        if here[at] && matches!(token, Token::Sequence | Token::Directories) {
            here[at + 1] = true;
        }
    }
}

impl Token {
    /// Whether the token matches this single character.
    fn is(&self, letter: char, is_path: bool) -> bool {
        match self {
            Self::Char(wanted) => letter == *wanted,
            _ if is_path && letter == '/' => false,
            Self::Class { ranges, negated } => {
                ranges
                    .iter()
                    .any(|(first, last)| (*first..=*last).contains(&letter))
                    != *negated
            }
            Self::Any => true,
            Self::Sequence | Self::Directories => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_glob_without_a_leading_slash_is_relative_to_dev() {
        let matches = |pattern: &str, path: &str| Glob::new(pattern).unwrap().matches_path(Path::new(path));
        assert!(matches("ttyUSB*", "/dev/ttyUSB0"));
        assert!(matches("/dev/ttyUSB[0-9]", "/dev/ttyUSB0"));
        assert!(matches("snd/*", "/dev/snd/pcmC0D0p"));
        assert!(!matches("*", "/dev/snd/pcmC0D0p"));
        assert!(!matches("snd?pcm*", "/dev/snd/pcmC0D0p"));
        assert!(matches("**/pcm*", "/dev/snd/pcmC0D0p"));
        assert!(!matches("USB*", "/dev/ttyUSB0"));
        assert!(!matches("x*", "/elsewhere/xyz"));
    }

    #[test]
    fn a_character_class_has_ranges_and_may_begin_with_a_bracket() {
        let matched = |pattern: &str| -> String {
            let glob = Glob::new(pattern).unwrap();
            let letters = "!-[]abcde".chars();
            letters
                .filter(|letter| glob.matches_value(&letter.to_string()))
                .collect()
        };
        for (pattern, letters) in [
            ("[b-d]", "bcd"),
            ("[!b-d]", "!-[]ae"),
            ("[ac-]", "-ac"),
            ("[a-ce]", "abce"),
            ("[]a]", "]a"),
            ("[!]a]", "!-[bcde"),
            ("[!!]", "-[]abcde"),
            ("[[]", "["),
        ] {
            assert_eq!(matched(pattern), letters, "{pattern}");
        }
    }

    #[test]
    fn each_token_and_each_range_of_a_character_class_has_the_same_size() {
        assert_eq!(Glob::new("a?*").unwrap().size(), 3 * TOKEN_SIZE);
        assert_eq!(Glob::new("a[b-dx]*").unwrap().size(), 5 * TOKEN_SIZE);
    }

    #[test]
    fn a_value_may_contain_slashes() {
        assert!(Glob::new("pci-*").unwrap().matches_value("pci-0000:00/usb"));
        assert!(Glob::new("").unwrap().matches_value(""));
        assert!(!Glob::new("").unwrap().matches_value("x"));
    }

    proptest! {
        #[test]
        fn globs_match_as_in_the_crate_glob(
            pattern in r"(\*\*/)?([ab/*?]|\[!?[ab\]-]{1,3}\]){0,6}(/\*\*(/a)?)?",
            text in "[ab/.\\]-]{0,8}",
        ) {
            let Ok(reference) = glob::Pattern::new(&pattern) else {
                prop_assert!(Glob::new(&pattern).is_err());
                return Ok(());
            };
            let glob = Glob::new(&pattern).unwrap();
            let options = glob::MatchOptions {
                require_literal_separator: true,
                ..glob::MatchOptions::default()
            };
            prop_assert_eq!(matches(&glob.compiled.0, &text, false), reference.matches(&text));
            prop_assert_eq!(matches(&glob.compiled.0, &text, true), reference.matches_with(&text, options));
        }
    }
}
