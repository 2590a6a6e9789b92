//! Globs and regular expressions that can be compared, shown and written down again.
//!
//! Must not know which of a device's facts they are held against (`matching`).

use std::fmt;
use std::path::Path;

use super::SelectorError;

/// The longest pattern, in characters.
const MAX_PATTERN: usize = 1000;

/// The most memory a compiled regular expression may take, in bytes: `(((a{100}){100}){100}` is not for us.
const MAX_COMPILED: usize = 256 * 1024;

/// A shell pattern: `*`, `?`, `[a-z]`, `[!a]`, and `**` for any number of directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(glob::Pattern);

impl Glob {
    /// Compiles a pattern of at most 1000 characters.
    ///
    /// # Errors
    /// [`SelectorError::PatternTooLong`], and [`SelectorError::Glob`] with the place and reason.
    pub fn new(pattern: &str) -> Result<Self, SelectorError> {
        check_length("glob", pattern)?;
        let compiled = glob::Pattern::new(pattern).map_err(|error| SelectorError::Glob {
            position: error.pos + 1,
            reason: error.msg,
        })?;
        Ok(Self(compiled))
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether a node or link of `/dev` matches. `*` and `?` stop at `/`.
    ///
    /// A pattern that does not begin with `/` is taken below `/dev`.
    pub fn matches_path(&self, path: &Path) -> bool {
        let path = if self.as_str().starts_with('/') {
            Some(path)
        } else {
            path.strip_prefix("/dev").ok()
        };
        let options = glob::MatchOptions {
            require_literal_separator: true,
            ..glob::MatchOptions::default()
        };
        path.is_some_and(|path| self.0.matches_path_with(path, options))
    }

    /// Whether the value of a property or an attribute matches. `/` is a character like any other here.
    pub fn matches_value(&self, value: &str) -> bool {
        self.0.matches(value)
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A regular expression on paths below `/dev`, not anchored. Two are equal when they are written alike.
#[derive(Debug, Clone)]
pub struct PathRegex(regex_lite::Regex);

impl PathRegex {
    /// Compiles an expression of at most 1000 characters.
    ///
    /// # Errors
    /// [`SelectorError::PatternTooLong`], and [`SelectorError::Regex`] with the engine's reason.
    pub fn new(expression: &str) -> Result<Self, SelectorError> {
        check_length("regex", expression)?;
        regex_lite::RegexBuilder::new(expression)
            .size_limit(MAX_COMPILED)
            .build()
            .map(Self)
            .map_err(|error| SelectorError::Regex {
                reason: error.to_string(),
            })
    }

    /// The expression as it was written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether the part of the path below `/dev` matches somewhere.
    pub fn matches_path(&self, path: &Path) -> bool {
        path.strip_prefix("/dev")
            .ok()
            .and_then(Path::to_str)
            .is_some_and(|below| self.0.is_match(below))
    }
}

impl PartialEq for PathRegex {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for PathRegex {}

impl fmt::Display for PathRegex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn check_length(kind: &'static str, pattern: &str) -> Result<(), SelectorError> {
    let length = pattern.chars().count();
    if length > MAX_PATTERN {
        return Err(SelectorError::PatternTooLong {
            kind,
            length,
            limit: MAX_PATTERN,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_without_a_slash_in_front_is_below_dev() {
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
    fn a_value_may_have_slashes() {
        assert!(Glob::new("pci-*").unwrap().matches_value("pci-0000:00/usb"));
        assert!(Glob::new("").unwrap().matches_value(""));
        assert!(!Glob::new("").unwrap().matches_value("x"));
    }

    #[test]
    fn a_regex_finds_its_place_in_the_path_below_dev() {
        let matches = |text: &str, path: &str| PathRegex::new(text).unwrap().matches_path(Path::new(path));
        assert!(matches("USB", "/dev/ttyUSB0"));
        assert!(matches("^snd/pcm", "/dev/snd/pcmC0D0p"));
        assert!(!matches("^/dev", "/dev/ttyUSB0"));
        assert!(!matches("^USB", "/dev/ttyUSB0"));
    }

    #[test]
    fn patterns_that_are_too_much_are_refused() {
        let long = "x".repeat(1001);
        let too_long = |kind| SelectorError::PatternTooLong {
            kind,
            length: 1001,
            limit: 1000,
        };
        assert_eq!(Glob::new(&long), Err(too_long("glob")));
        assert_eq!(PathRegex::new(&long), Err(too_long("regex")));
        assert!(matches!(
            PathRegex::new("((a{100}){100}){100}"),
            Err(SelectorError::Regex { .. })
        ));
        assert!(Glob::new(&"x".repeat(1000)).is_ok());
    }
}
