//! Scalars as the Go library reads them: sigs.k8s.io/yaml resolves plain scalars by YAML 1.1 (go-yaml v2, resolve.go), converts
//! the document to JSON and decodes that by encoding/json. serde_yaml knows YAML 1.2 only, where `0666` and `yes` are texts.
//!
//! Must not know which fields there are.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected, Visitor};

/// Begins the error of a number that serde_yaml has as a text; the text follows.
const TEXT_NUMBER: &str = "\u{1}text ";

/// How many such numbers of one document are read: each costs one more pass over the text.
const MAX_TEXT_NUMBERS: usize = 4096;

/// Deserializes a document, with numbers that only YAML 1.1 knows.
///
/// # Errors
/// The error of serde_yaml, whose message [`message`] makes readable.
pub(super) fn from_str<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, serde_yaml::Error> {
    let mut text = Cow::Borrowed(text);
    let mut rounds = 0;
    loop {
        let error = match serde_yaml::from_str(&text) {
            Ok(document) => return Ok(document),
            Err(error) => error,
        };
        rounds += 1;
        match plain_number(&text, &error).filter(|_| rounds <= MAX_TEXT_NUMBERS) {
            // As long as before, so that places stay as they are. A decimal number is never longer.
            Some((range, number)) => {
                let width = range.len();
                text.to_mut().replace_range(range, &format!("{number:width$}"));
            }
            None => return Err(error),
        }
    }
}

/// Where the number of an error stands, if it is a plain scalar, and its value.
fn plain_number(text: &str, error: &serde_yaml::Error) -> Option<(Range<usize>, i128)> {
    let scalar = scalar_of(&error.to_string())?.to_owned();
    let place = error.location()?;
    let start = plain_at(text, place.line(), place.column(), &scalar)?;
    let number = number(&scalar)?;
    (number.to_string().len() <= scalar.len()).then_some((start..start + scalar.len(), number))
}

fn scalar_of(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once(TEXT_NUMBER)?;
    Some(rest.split_once('\u{1}')?.0)
}

/// The offset of a plain scalar that begins at a line and column, each counted from 1; `None` when another text stands
/// there, such as a quoted one. An anchor before it is passed over.
pub(super) fn plain_at(text: &str, line: usize, column: usize, scalar: &str) -> Option<usize> {
    // A byte order mark counts neither as a column nor as a character.
    let bom = text.len() - text.trim_start_matches('\u{feff}').len();
    let mut offset = bom;
    for _ in 1..line {
        offset += line_length(&text[offset..])?;
    }
    let in_line = text[offset..].char_indices().nth(column.checked_sub(1)?);
    offset += in_line?.0;
    if text[offset..].starts_with('&') {
        let anchor = text[offset..].find(' ')?;
        let blanks = text[offset + anchor..].find(|letter| letter != ' ')?;
        offset += anchor + blanks;
    }
    text[offset..].starts_with(scalar).then_some(offset)
}

/// In bytes, with its break; YAML 1.1 has more breaks than others (4.2).
fn line_length(text: &str) -> Option<usize> {
    let (at, found) = text
        .char_indices()
        .find(|(_, letter)| matches!(letter, '\r' | '\n' | '\u{85}' | '\u{2028}' | '\u{2029}'))?;
    let is_pair = found == '\r' && text[at + 1..].starts_with('\n');
    Some(at + found.len_utf8() + usize::from(is_pair))
}

/// An error's message without the mark of a number in quotes.
pub(super) fn message(message: &str) -> String {
    match scalar_of(message) {
        Some(scalar) => message.replacen(
            &format!("{TEXT_NUMBER}{scalar}\u{1}"),
            &format!("invalid type: string {scalar:?}, expected a number (write it without quotes)"),
            1,
        ),
        None => message.to_owned(),
    }
}

/// The integer that a plain scalar stands for in YAML 1.1 as go-yaml v2 resolves it; `None` when it is none. A float
/// without a fraction is one: it is the same in JSON.
pub(super) fn number(scalar: &str) -> Option<i128> {
    let plain = scalar.replace('_', "");
    let (negative, digits) = match plain.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, plain.strip_prefix('+').unwrap_or(&plain)),
    };
    if !digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return None;
    }
    let (radix, rest) = match digits.get(..2) {
        Some("0x" | "0X") => (16, &digits[2..]),
        Some("0o" | "0O") => (8, &digits[2..]),
        Some("0b" | "0B") => (2, &digits[2..]),
        Some(zero) if zero.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    };
    let integer = match rest.starts_with(['+', '-']) {
        true => None,
        false => i128::from_str_radix(rest, radix).ok(),
    };
    // 08 is no octal number, and so a float.
    let value = match integer {
        Some(integer) if i64::try_from(integer).is_ok() || u64::try_from(integer).is_ok() => integer,
        Some(_) => return None,
        None => integral(digits.parse().ok()?)?,
    };
    Some(if negative { -value } else { value })
}

/// A float as an integer, where it is one that a double has exactly.
fn integral(float: f64) -> Option<i128> {
    (float.is_finite() && float.fract() == 0.0 && float.abs() < 1e18).then_some(float as i128)
}

/// What a plain text is in YAML 1.1, as Go's JSON spells it; `None` when it is a text there, too.
pub(super) fn respelled(scalar: &str) -> Option<String> {
    match scalar {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some("true".into()),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some("false".into()),
        _ => number(scalar).map(|number| number.to_string()),
    }
}

/// Any scalar: `name: 0` is `name: "0"` (sigs.k8s.io/yaml, convertToJSONableObject), null the empty text.
#[derive(Default)]
struct Text(String);

/// An integer; `None` for null.
struct Number<T>(Option<T>);

struct TextVisitor;
struct NumberVisitor<T>(PhantomData<T>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor).map(Self)
    }
}

impl<'de, T: TryFrom<i128>> Deserialize<'de> for Number<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor(PhantomData)).map(Self)
    }
}

impl Visitor<'_> for TextVisitor {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_unit<E: Error>(self) -> Result<String, E> {
        Ok(String::new())
    }
}

impl<T: TryFrom<i128>> Visitor<'_> for NumberVisitor<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Option<T>, E> {
        fitting(number.into())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Option<T>, E> {
        fitting(number.into())
    }

    fn visit_f64<E: Error>(self, float: f64) -> Result<Option<T>, E> {
        match integral(float) {
            Some(number) => fitting(number),
            None => Err(E::invalid_type(Unexpected::Float(float), &"an integer")),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Option<T>, E> {
        match number(text) {
            Some(_) => Err(E::custom(format_args!("{TEXT_NUMBER}{text}\u{1}"))),
            None => Err(E::invalid_type(Unexpected::Str(text), &self)),
        }
    }

    fn visit_unit<E: Error>(self) -> Result<Option<T>, E> {
        Ok(None)
    }
}

fn fitting<T: TryFrom<i128>, E: Error>(number: i128) -> Result<Option<T>, E> {
    let fitted = T::try_from(number).map_err(|_| E::custom(format_args!("{number} is out of range")))?;
    Ok(Some(fitted))
}

/// A text; null is the empty one.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Text::deserialize(deserializer).map(|text| text.0)
}

/// A text that may be absent: null is.
pub(super) fn optional_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<Text>::deserialize(deserializer)?.map(|text| text.0))
}

/// A list of texts; null is the empty one.
pub(super) fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let texts = Option::<Vec<Text>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(texts.into_iter().map(|text| text.0).collect())
}

/// A list of texts that may be absent: null is.
pub(super) fn optional_texts<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<String>>, D::Error> {
    let texts = Option::<Vec<Text>>::deserialize(deserializer)?;
    Ok(texts.map(|texts| texts.into_iter().map(|text| text.0).collect()))
}

/// Texts by key; null is none.
pub(super) fn text_map<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let map = Option::<BTreeMap<String, Text>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(map.into_iter().map(|(key, text)| (key, text.0)).collect())
}

/// A number that may be absent: null is.
pub(super) fn optional_number<'de, T: TryFrom<i128>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Number::deserialize(deserializer).map(|number| number.0)
}

/// A list of numbers; null is the empty one, and 0 in it.
pub(super) fn numbers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u32>, D::Error> {
    let numbers = Option::<Vec<Number<u32>>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(numbers.into_iter().map(|number| number.0.unwrap_or(0)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Expected values: sigs.k8s.io/yaml 1.6.0 by tags.cncf.io/container-device-interface 1.1.0, field `fileMode`.
    #[test]
    fn plain_scalars_are_the_numbers_that_go_yaml_has() {
        for (scalar, expected) in [
            ("0666", Some(0o666)),
            ("0o666", Some(0o666)),
            ("0O666", Some(0o666)),
            ("438", Some(438)),
            ("0b11", Some(3)),
            ("0x1B6", Some(438)),
            ("0X1b6", Some(438)),
            ("1_000", Some(1000)),
            ("0_666", Some(0o666)),
            ("08", Some(8)),
            ("+0666", Some(0o666)),
            ("-0", Some(0)),
            ("438.0", Some(438)),
            ("4.38e2", Some(438)),
            ("010", Some(8)),
            ("+10", Some(10)),
            ("0o7_7", Some(0o77)),
            ("0_", Some(0)),
            ("1_0.0", Some(10)),
            ("18446744073709551615", Some(18_446_744_073_709_551_615)),
            ("1.5", None),
            ("1:30", None),
            ("0o08", None),
            ("0x", None),
            ("1e400", None),
            ("abc", None),
            ("", None),
            ("-", None),
            ("0x-1", None),
        ] {
            assert_eq!(number(scalar), expected, "{scalar}");
        }
    }

    #[test]
    fn texts_that_yaml_1_1_has_as_something_else_are_spelled_as_go_does() {
        for (scalar, expected) in [
            ("01", Some("1")),
            ("yes", Some("true")),
            ("Off", Some("false")),
            ("lab", None),
        ] {
            assert_eq!(respelled(scalar).as_deref(), expected, "{scalar}");
        }
    }

    proptest! {
        #[test]
        fn a_plain_scalar_is_found_where_it_stands(before in "[a-z\n\u{85}é]{0,30}", scalar in "0[0-7]{1,6}") {
            let text = format!("{before}{scalar}\n");
            let breaks = |letter: char| matches!(letter, '\n' | '\u{85}');
            let line = 1 + before.chars().filter(|letter| breaks(*letter)).count();
            let column = 1 + before.chars().rev().take_while(|letter| !breaks(*letter)).count();
            prop_assert_eq!(plain_at(&text, line, column, &scalar), Some(before.len()));
        }
    }
}
