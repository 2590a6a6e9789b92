//! Decodes the fields of a spec like the Go library: sigs.k8s.io/yaml interprets plain scalars by
//! YAML 1.1 (go-yaml v2, resolve.go), converts the document to JSON and decodes that with
//! encoding/json.
//!
//! Must not know which fields there are.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected, Visitor};

use crate::model::yaml::{Dialect, Resolved};

/// The dialect of sigs.k8s.io/yaml.
pub(super) const DIALECT: Dialect = Dialect::GoV2;

/// Whether the text would be a number if it were not quoted.
fn is_number(text: &str) -> bool {
    matches!(DIALECT.resolve(text), Resolved::Integer(_) | Resolved::Float(_))
}

/// The integer that equals a float: both are the same in JSON. `None` for a fraction, and for
/// magnitudes at which a double cannot represent every integer.
fn whole(float: f64) -> Option<i128> {
    (float.is_finite() && float.fract() == 0.0 && float.abs() < 1e18).then_some(float as i128)
}

/// Any scalar as text: `name: 0` is `name: "0"` (sigs.k8s.io/yaml, convertToJSONableObject); null
/// is the empty text.
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
        match whole(float) {
            Some(number) => fitting(number),
            None => Err(E::invalid_type(Unexpected::Float(float), &"an integer")),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Option<T>, E> {
        let expected = match is_number(text) {
            true => "a number (write it without quotes)",
            false => "a number",
        };
        Err(E::invalid_type(Unexpected::Str(text), &expected))
    }

    fn visit_unit<E: Error>(self) -> Result<Option<T>, E> {
        Ok(None)
    }
}

fn fitting<T: TryFrom<i128>, E: Error>(number: i128) -> Result<Option<T>, E> {
    let fitted = T::try_from(number).map_err(|_| E::custom(format_args!("{number} is out of range")))?;
    Ok(Some(fitted))
}

/// A text; null is the empty text.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Text::deserialize(deserializer).map(|text| text.0)
}

/// An optional text; null is absent.
pub(super) fn optional_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<Text>::deserialize(deserializer)?.map(|text| text.0))
}

/// A list of texts; null is the empty list.
pub(super) fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let texts = Option::<Vec<Text>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(texts.into_iter().map(|text| text.0).collect())
}

/// An optional list of texts; null is absent.
pub(super) fn optional_texts<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<String>>, D::Error> {
    let texts = Option::<Vec<Text>>::deserialize(deserializer)?;
    Ok(texts.map(|texts| texts.into_iter().map(|text| text.0).collect()))
}

/// A map of texts; null is the empty map.
pub(super) fn text_map<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let map = Option::<BTreeMap<String, Text>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(map.into_iter().map(|(key, text)| (key, text.0)).collect())
}

/// An optional number; null is absent.
pub(super) fn optional_number<'de, T: TryFrom<i128>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Number::deserialize(deserializer).map(|number| number.0)
}

/// A list of numbers; null is the empty list, and a null in it is 0.
pub(super) fn numbers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u32>, D::Error> {
    let numbers = Option::<Vec<Number<u32>>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(numbers.into_iter().map(|number| number.0.unwrap_or(0)).collect())
}
