//! Patterns of paths in Go's syntax (path/filepath.Match): `*`, `?`, `[a-z]`, `[^a-z]`, and `\`
//! before a literal character.

use std::path::{Component, Path};

/// A pattern of absolute paths. No part of it matches a `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoGlob {
    text: String,
    parts: Vec<Part>,
}

/// The pattern of one component of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    Name(String),
    /// A name that these tokens match.
    Tokens(Vec<Token>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    Char(char),
    /// `?`
    Any,
    /// `*`
    Many,
    /// `[a-z]`, `[^a-z]`
    Class {
        negated: bool,
        /// The first and last character of each range.
        ranges: Vec<(char, char)>,
    },
}

impl GoGlob {
    /// Parses a pattern. `//`, `/./` and `/../` are resolved first, as in Go.
    ///
    /// # Errors
    ///
    /// Why the pattern is invalid.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        if !text.starts_with('/') {
            return Err("it must be absolute, such as /dev/ttyUSB*");
        }
        let mut parts = Vec::new();
        for component in Path::new(text).components() {
            match component {
                Component::Normal(name) => parts.push(part(name.to_str().unwrap_or_default())?),
                Component::ParentDir => {
                    parts.pop();
                }
                _ => {}
            }
        }
        Ok(Self {
            text: text.to_owned(),
            parts,
        })
    }

    #[cfg(test)]
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// The patterns of the components of a path, starting at the root.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The only path that it can match, if it has no wildcards.
    pub fn literal(&self) -> Option<std::path::PathBuf> {
        let names = self.parts.iter().map(|part| match part {
            Part::Name(name) => Some(name.as_str()),
            Part::Tokens(_) => None,
        });
        let names: Vec<&str> = names.collect::<Option<_>>()?;
        Some(Path::new("/").join(names.join("/")))
    }

    /// Whether all paths that it matches are below this directory.
    pub fn is_below(&self, directory: &Path) -> bool {
        let mut parts = self.parts.iter();
        let mut names = directory.components().filter_map(|component| match component {
            Component::Normal(name) => name.to_str(),
            _ => None,
        });
        let is_same = names.all(|name| matches!(parts.next(), Some(Part::Name(part)) if part == name));
        is_same && parts.next().is_some()
    }

    /// Whether it matches a path.
    pub fn is_match(&self, path: &Path) -> bool {
        let mut parts = self.parts.iter();
        let mut names = path
            .components()
            .filter(|component| matches!(component, Component::Normal(_)));
        names.all(|name| {
            let name = name.as_os_str().to_str();
            parts
                .next()
                .zip(name)
                .is_some_and(|(part, name)| part.is_match(name))
        }) && parts.next().is_none()
    }
}

impl Part {
    /// Whether it matches a name.
    pub fn is_match(&self, name: &str) -> bool {
        match self {
            Self::Name(only) => only == name,
            Self::Tokens(tokens) => {
                let name: Vec<char> = name.chars().collect();
                matches(tokens, &name)
            }
        }
    }
}

/// Backtracks to the last `*` only, which suffices: the time is proportional to the product of both
/// lengths.
fn matches(tokens: &[Token], name: &[char]) -> bool {
    let (mut token, mut at) = (0, 0);
    let mut last: Option<(usize, usize)> = None;
    loop {
        match tokens.get(token) {
            Some(Token::Many) => {
                last = Some((token, at));
                token += 1;
                continue;
            }
            Some(one) if name.get(at).is_some_and(|letter| one.is_match(*letter)) => {
                token += 1;
                at += 1;
                continue;
            }
            None if at == name.len() => return true,
            _ => {}
        }
        match last {
            Some((many, from)) if from < name.len() => {
                last = Some((many, from + 1));
                (token, at) = (many + 1, from + 1);
            }
            _ => return false,
        }
    }
}

impl Token {
    fn is_match(&self, letter: char) -> bool {
        match self {
            Self::Char(only) => *only == letter,
            Self::Any => true,
            Self::Many => false,
            Self::Class { negated, ranges } => {
                let is_in = ranges.iter().any(|(low, high)| (*low..=*high).contains(&letter));
                is_in != *negated
            }
        }
    }
}

fn part(name: &str) -> Result<Part, &'static str> {
    let mut tokens = Vec::new();
    let mut letters = name.chars();
    while let Some(letter) = letters.next() {
        tokens.push(match letter {
            '*' => Token::Many,
            '?' => Token::Any,
            '[' => class(&mut letters)?,
            '\\' => Token::Char(letters.next().ok_or("nothing follows its \\")?),
            letter => Token::Char(letter),
        });
    }
    let plain = tokens.iter().map(|token| match token {
        Token::Char(letter) => Some(*letter),
        _ => None,
    });
    let plain: Option<String> = plain.collect();
    Ok(plain.map_or(Part::Tokens(tokens), Part::Name))
}

/// Parses what follows a `[`.
fn class(letters: &mut std::str::Chars<'_>) -> Result<Token, &'static str> {
    let negated = letters.as_str().starts_with('^');
    if negated {
        letters.next();
    }
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && letters.as_str().starts_with(']') {
            letters.next();
            return Ok(Token::Class { negated, ranges });
        }
        let low = member(letters)?;
        let high = if letters.as_str().starts_with('-') {
            letters.next();
            member(letters)?
        } else {
            low
        };
        ranges.push((low, high));
    }
}

/// One character between `[` and `]`.
fn member(letters: &mut std::str::Chars<'_>) -> Result<char, &'static str> {
    const OPEN: &str = "its [ has no ]";
    match letters.next() {
        None => Err(OPEN),
        Some('-' | ']') => Err("write \\- and \\] for these characters between [ and ]"),
        Some('\\') => letters.next().ok_or(OPEN),
        Some(letter) => Ok(letter),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_match(pattern: &str, path: &str) -> bool {
        GoGlob::new(pattern)
            .unwrap_or_else(|error| panic!("{pattern}: {error}"))
            .is_match(Path::new(path))
    }

    /// Case README 14.
    #[test]
    fn a_caret_negates_and_no_wildcard_matches_a_slash() {
        for (pattern, path, expected) in [
            ("/dev/ttyS[^0]", "/dev/ttyS1", true),
            ("/dev/ttyS[^0]", "/dev/ttyS0", false),
            ("/dev/ttyS[^0]", "/dev/ttyS^", true),
            ("/dev/ttyS[!0]", "/dev/ttyS0", true),
            ("/dev/ttyS[!0]", "/dev/ttyS1", false),
            ("/dev/ttyS[0-9a-f]", "/dev/ttySb", true),
            ("/dev/tty*", "/dev/ttyS0", true),
            ("/dev/*", "/dev/snd/timer", false),
            ("/dev/*/timer", "/dev/snd/timer", true),
            ("/dev/**/timer", "/dev/a/b/timer", false),
            ("/dev/a?c", "/dev/abc", true),
            ("/dev/a?c", "/dev/a/c", false),
            ("/dev/a\\*", "/dev/a*", true),
            ("/dev/a\\*", "/dev/ab", false),
            ("/dev/{a,b}", "/dev/a", false),
            ("/dev//x/../ttyS0/", "/dev/ttyS0", true),
            ("/dev/*a*b*", "/dev/xaxaxbx", true),
            ("/dev/*a*b", "/dev/xaxaxbx", false),
            ("/dev/.*", "/dev/.x", true),
            ("/dev/*", "/dev/.x", true),
            ("/dev/[\\]x]", "/dev/]", true),
        ] {
            assert_eq!(is_match(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn patterns_that_go_refuses_are_refused() {
        for pattern in [
            "dev/x",
            "",
            "/dev/[",
            "/dev/[]",
            "/dev/[]a]",
            "/dev/[a-",
            "/dev/[a-]",
            "/dev/[-a]",
            "/dev/[^]",
            "/dev/a\\",
            "/dev/[a",
        ] {
            assert!(GoGlob::new(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn a_pattern_without_wildcards_is_one_path() {
        let one = |text: &str| GoGlob::new(text).unwrap().literal();
        assert_eq!(one("/run//x.sock"), Some("/run/x.sock".into()));
        assert_eq!(one("/dev/a\\*"), Some("/dev/a*".into()));
        assert_eq!(one("/dev/a*"), None);
        let below = |text: &str| GoGlob::new(text).unwrap().is_below(Path::new("/dev"));
        assert!(below("/dev/x") && below("/dev/*/x"));
        assert!(!below("/dev") && !below("/run/x") && !below("/*/x") && !below("/dev/../run/x"));
    }

    proptest! {
        #[test]
        fn a_pattern_of_plain_letters_matches_only_itself(names in prop::collection::vec("[a-z0-9.]{1,5}x", 1..4), other in "(/[a-z0-9]{1,5}){1,4}") {
            let path = format!("/{}", names.join("/"));
            prop_assert!(is_match(&path, &path));
            prop_assert_eq!(is_match(&path, &other), path == other);
        }

        #[test]
        fn the_time_for_stars_is_limited_by_the_lengths(stars in 1..60usize) {
            let (pattern, path) = (format!("/dev/{}b", "*a".repeat(stars)), format!("/dev/{}", "a".repeat(200)));
            prop_assert!(!is_match(&pattern, &path));
        }

        #[test]
        fn no_text_causes_a_panic_in_the_parser(text in "/[a*?\\[\\]^\\\\/.-]{0,20}", path in "(/[a-z.]{0,5}){0,4}") {
            if let Ok(glob) = GoGlob::new(&text) {
                let _ = (glob.is_match(Path::new(&path)), glob.literal());
            }
        }
    }
}
