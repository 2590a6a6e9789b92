//! YAML as Go programs read it: keys in any case, `<<` merged, numbers as Go's YAML libraries resolve them.
//!
//! The library that reads the text follows YAML 1.2, where `0825` is text and `0403` is not octal. In Go's YAML libraries the
//! first is the number 825 and the second 259, unless they are quoted (yaml.v2's and yaml.v3's resolve.go).

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// Which of Go's two YAML libraries reads a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// yaml.v3, for files (viper).
    File,
    /// yaml.v2 and then JSON, for arguments (ghodss/yaml): there `yes` and `on` are booleans.
    Argument,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// `null`, `~`, or nothing.
    Null,
    /// A boolean.
    Bool(bool),
    /// A whole number.
    Integer(i128),
    /// Another number.
    Float(f64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping: its keys in lower case, each once, in their order.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// Reads a text.
    ///
    /// # Errors
    /// When it is not YAML, or has tags of its own.
    pub fn read(text: &str, dialect: Dialect) -> Result<Self, serde_yaml::Error> {
        let raw: Raw<'_> = serde_yaml::from_str(text)?;
        Ok(resolve(raw, text, dialect))
    }

    /// The value of a key, given in lower case; `None` where it is absent or null.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Self::Map(entries) = self else { return None };
        let found = entries.iter().find(|(known, _)| known == key);
        found
            .map(|(_, value)| value)
            .filter(|value| **value != Self::Null)
    }

    /// The keys, in lower case; none where it is not a mapping.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let entries = match self {
            Self::Map(entries) => entries.as_slice(),
            _ => &[],
        };
        entries.iter().map(|(key, _)| key.as_str())
    }

    /// The type of the value, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// A value as the library reads it.
enum Raw<'de> {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    /// Borrowed if the text contains it literally, as it always does without quotes.
    Text(Cow<'de, str>),
    List(Vec<Raw<'de>>),
    Map(Vec<(Raw<'de>, Raw<'de>)>),
}

impl<'de> Deserialize<'de> for Raw<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("plain YAML, without tags")
    }

    fn visit_unit<E>(self) -> Result<Raw<'de>, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw<'de>, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw<'de>, E> {
        Ok(Raw::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw<'de>, E> {
        Ok(Raw::Integer(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw<'de>, E> {
        Ok(Raw::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw<'de>, E> {
        Ok(Raw::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Raw<'de>, E> {
        Ok(Raw::Text(Cow::Borrowed(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw<'de>, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = access.next_element()? {
            list.push(element);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw<'de>, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

fn resolve(raw: Raw<'_>, text: &str, dialect: Dialect) -> Node {
    match raw {
        Raw::Null => Node::Null,
        Raw::Bool(value) => Node::Bool(value),
        Raw::Integer(value) => Node::Integer(value),
        Raw::Float(value) => Node::Float(value),
        Raw::Text(Cow::Borrowed(value)) if !is_quoted(value, text) => plain(value, dialect),
        Raw::Text(value) => Node::Text(value.into_owned()),
        Raw::List(list) => {
            let list = list.into_iter().map(|element| resolve(element, text, dialect));
            Node::List(list.collect())
        }
        Raw::Map(entries) => mapping(entries, text, dialect),
    }
}

/// The last of two equal keys counts; written keys override merged ones.
fn mapping(entries: Vec<(Raw<'_>, Raw<'_>)>, text: &str, dialect: Dialect) -> Node {
    let mut written: Vec<(String, Node)> = Vec::new();
    let mut merged: Vec<(String, Node)> = Vec::new();
    for (key, value) in entries {
        let key = match key {
            Raw::Text(key) => key.to_lowercase(),
            Raw::Integer(key) => key.to_string(),
            Raw::Bool(key) => key.to_string(),
            // No key of these formats is anything else.
            _ => continue,
        };
        match (key.as_str(), resolve(value, text, dialect)) {
            ("<<", Node::Map(entries)) => merged.extend(entries),
            ("<<", Node::List(list)) => {
                for element in list {
                    if let Node::Map(entries) = element {
                        merged.extend(entries);
                    }
                }
            }
            (_, value) => {
                written.retain(|(known, _)| *known != key);
                written.push((key, value));
            }
        }
    }
    for (key, value) in merged {
        if !written.iter().any(|(known, _)| *known == key) {
            written.push((key, value));
        }
    }
    Node::Map(written)
}

/// Whether a value that lies in the text is quoted there.
fn is_quoted(value: &str, text: &str) -> bool {
    let offset = (value.as_ptr() as usize).checked_sub(text.as_ptr() as usize);
    let before = offset.and_then(|offset| text.as_bytes().get(offset.checked_sub(1)?));
    matches!(before, Some(b'"' | b'\''))
}

/// Reads an unquoted text that is not one of YAML 1.2's numbers and words as Go does.
fn plain(text: &str, dialect: Dialect) -> Node {
    const TRUE: [&str; 8] = ["y", "Y", "yes", "Yes", "YES", "on", "On", "ON"];
    const FALSE: [&str; 8] = ["n", "N", "no", "No", "NO", "off", "Off", "OFF"];
    if dialect == Dialect::Argument && (TRUE.contains(&text) || FALSE.contains(&text)) {
        return Node::Bool(TRUE.contains(&text));
    }
    let is_number = text.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first));
    let digits = text.replace('_', "");
    let number = if is_number {
        integer(&digits)
            .map(Node::Integer)
            .or_else(|| decimal(&digits).map(Node::Float))
    } else {
        None
    };
    number.unwrap_or_else(|| Node::Text(text.to_owned()))
}

/// Reads a number like Go's strconv.ParseInt with base 0: a leading 0 makes it octal.
pub(super) fn integer(text: &str) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (digits, base) = [("0x", 16), ("0o", 8), ("0b", 2)]
        .iter()
        .find_map(|(prefix, base)| Some((lower.strip_prefix(prefix)?, *base)))
        .unwrap_or(match lower.len() {
            2.. if lower.starts_with('0') => (&lower[1..], 8),
            _ => (lower.as_str(), 10),
        });
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let value = u64::from_str_radix(digits, base).ok()?;
    Some(sign * i128::from(value))
}

/// Reads a floating point number like Go's YAML libraries.
fn decimal(text: &str) -> Option<f64> {
    let is_of_a_number = |letter: char| letter.is_ascii_digit() || "+-.eE".contains(letter);
    let is_decimal =
        text.chars().all(is_of_a_number) && text.contains(|letter: char| letter.is_ascii_digit());
    is_decimal.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(text: &str, dialect: Dialect) -> Node {
        let node = Node::read(&format!("{{vendor: {text}}}"), dialect).unwrap();
        node.get("vendor").cloned().unwrap_or(Node::Null)
    }

    /// What generic-device-plugin's libraries make of these, as seen by running them.
    #[test]
    fn numbers_are_what_they_are_in_go() {
        let text = |text: &str| Node::Text(text.into());
        for (written, expected) in [
            ("0x0403", Node::Integer(1027)),
            ("0403", Node::Integer(259)),
            ("0825", Node::Float(825.0)),
            ("\"0825\"", text("0825")),
            ("'0825'", text("0825")),
            ("1e10", Node::Float(1e10)),
            ("\"1e10\"", text("1e10")),
            ("1209", Node::Integer(1209)),
            ("000F", text("000F")),
            ("1a86", text("1a86")),
            ("0e1f", text("0e1f")),
            ("12e1", Node::Float(120.0)),
            ("0o17", Node::Integer(15)),
            ("0b11", Node::Integer(3)),
            ("1_0", Node::Integer(10)),
            ("+12", Node::Integer(12)),
            ("\"+12\"", text("+12")),
            ("-1", Node::Integer(-1)),
            ("null", Node::Null),
            ("~", Node::Null),
        ] {
            for dialect in [Dialect::File, Dialect::Argument] {
                assert_eq!(value(written, dialect), expected, "{written} {dialect:?}");
            }
        }
        assert_eq!(value("yes", Dialect::File), text("yes"));
        assert_eq!(value("yes", Dialect::Argument), Node::Bool(true));
    }

    #[test]
    fn keys_are_found_in_any_case_and_what_is_merged_counts_less() {
        let text = "base: &b {Count: 2, Name: x}\ndevices: [{<<: *b, count: 3, count: 4}]";
        let read = Node::read(text, Dialect::File).unwrap();
        let Some(Node::List(devices)) = read.get("devices") else {
            panic!("{read:?}")
        };
        assert_eq!(devices[0].get("count"), Some(&Node::Integer(4)));
        assert_eq!(devices[0].get("name"), Some(&Node::Text("x".into())));
        assert_eq!(devices[0].keys().collect::<Vec<_>>(), ["count", "name"]);
    }

    proptest! {
        #[test]
        fn quoted_text_stays_as_it_is(text in "[0-9a-fxob_.+-]{0,8}") {
            prop_assert_eq!(value(&format!("\"{text}\""), Dialect::File), Node::Text(text.clone()));
            prop_assert_eq!(value(&format!("'{text}'"), Dialect::Argument), Node::Text(text));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,60}") {
            let _ = Node::read(&text, Dialect::File);
            let _ = Node::read(&text, Dialect::Argument);
        }
    }
}
