//! What globs and regular expressions have in common.
//!
//! root evaluates patterns from untrusted requests for every device. Matching therefore takes time
//! and memory linear in pattern and text, and each verdict is computed only once per text
//! ([`Memo`]). The total cost of a container's patterns is limited in `request::cost`.
//!
//! [`Memo`]: super::memo::Memo

use std::fmt;

use super::SelectorError;
use super::memo::Memo;

/// The longest pattern, in characters.
const MAX_PATTERN: usize = 1000;

/// A pattern with its compiled form. Two are equal if their texts are equal.
#[derive(Debug, Clone)]
pub struct Pattern<C> {
    text: String,
    pub(super) compiled: C,
    memo: Memo,
}

impl<C> Pattern<C> {
    /// Compiles a pattern of at most 1000 characters; `kind` is the kind of the selector.
    ///
    /// # Errors
    /// [`SelectorError::PatternTooLong`], or those of `compile`.
    pub(super) fn compiled_by(
        compile: impl FnOnce(&str) -> Result<C, SelectorError>,
        kind: &'static str,
        text: &str,
    ) -> Result<Self, SelectorError> {
        check_length(kind, text)?;
        Ok(Self {
            text: text.to_owned(),
            compiled: compile(text)?,
            memo: Memo::default(),
        })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The length in characters.
    pub fn length(&self) -> usize {
        self.text.chars().count()
    }

    /// Whether a text matches, evaluated by `matches` if it is not known.
    pub(super) fn verdict(&self, text: &str, matches: impl FnOnce(&C) -> bool) -> bool {
        self.memo.verdict(text, || matches(&self.compiled))
    }

    #[cfg(test)]
    pub(super) fn evaluations(&self) -> u64 {
        self.memo.evaluations()
    }
}

impl<C> PartialEq for Pattern<C> {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl<C> Eq for Pattern<C> {}

impl<C> fmt::Display for Pattern<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
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
    use std::path::Path;

    use super::*;
    use crate::model::request::selector::{Glob, PathRegex};

    #[test]
    fn the_debug_form_of_a_pattern_does_not_contain_cached_texts() {
        let (glob, regex) = (Glob::new("a*").unwrap(), PathRegex::new("a+").unwrap());
        assert!(glob.matches_value("abc") && regex.matches_path(Path::new("/dev/abc")));
        for shown in [format!("{glob:?}"), format!("{regex:?}")] {
            assert!(shown.ends_with("memo: Memo }"), "{shown}");
        }
    }

    #[test]
    fn patterns_that_are_too_large_are_refused() {
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

    /// Case security 3.
    #[test]
    fn a_pattern_is_evaluated_once_per_text() {
        let regex = PathRegex::new("([^/]?){0,900}#").unwrap();
        let glob = Glob::new("*0*0*0*0*0*0*0*0*0*0*0*0*0*0*0*0/x").unwrap();
        let paths: Vec<String> = (0..10)
            .map(|index| format!("/dev/{}{index}/y", "0".repeat(60)))
            .collect();
        for _ in 0..3 {
            for path in &paths {
                assert!(!regex.matches_path(Path::new(path)) && !glob.matches_path(Path::new(path)));
            }
        }
        assert_eq!((regex.evaluations(), glob.evaluations()), (10, 10));
        assert!(!regex.clone().matches_path(Path::new(&paths[0])));
        assert_eq!(regex.evaluations(), 10, "a copy shares the cache of the original");
    }

    /// Case security 3.
    #[test]
    fn the_size_of_a_pattern_is_its_cost() {
        let regex = |text: &str| PathRegex::new(text).unwrap().size();
        assert!(regex("^ttyUSB[0-9]+$") <= 1024);
        assert!(regex("([^/]?){0,900}#") >= 64 * 1024);
        let many_groups = format!("({}){{0,8}}#", "()".repeat(240));
        assert!(regex(&many_groups) >= 32 * 1024);
        assert!(Glob::new("ttyUSB*").unwrap().size() <= 1024);
        assert!(Glob::new(&"*a".repeat(500)).unwrap().size() >= 8 * 1000);
    }
}
