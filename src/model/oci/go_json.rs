//! JSON as Go's encoding/json decodes it into structs; runc and the engines read config.json that
//! way.
//!
//! Names of fields match in any case, including the two letters that fold to ASCII ones (`ſ`, `K`).
//! Duplicate fields are merged. null empties pointers, lists and maps and leaves anything else
//! unchanged. Unknown fields, numbers of any size in them, and text after the document are skipped.
//! Invalid UTF-8 becomes replacement characters. (Each observed with runc 1.1.5.)
//!
//! Must not know which fields there are.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// A value that a document is decoded into.
pub(super) trait Fill {
    /// Applies null.
    fn empty(&mut self) {}

    /// Applies a value other than null.
    fn fill<'de, D: Deserializer<'de>>(&mut self, deserializer: D) -> Result<(), D::Error>;
}

/// A struct whose fields are decoded by name.
pub(super) trait Fields {
    /// Decodes the value of the field with this name.
    fn take<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error>;
}

/// Maps JSON names to the fields of a struct.
macro_rules! go_fields {
    ($name:ident { $($key:literal => $field:ident),* $(,)? }) => {
        impl $crate::model::oci::go_json::Fields for $name {
            fn take<'de, A: serde::de::MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
                $(if $crate::model::oci::go_json::is_same(name, $key) {
                    return map.next_value_seed($crate::model::oci::go_json::Into(&mut self.$field));
                })*
                map.next_value::<serde::de::IgnoredAny>().map(drop)
            }
        }

        impl $crate::model::oci::go_json::Fill for $name {
            fn fill<'de, D: serde::Deserializer<'de>>(&mut self, deserializer: D) -> Result<(), D::Error> {
                deserializer.deserialize_map($crate::model::oci::go_json::Struct(self))
            }
        }
    };
}
pub(super) use go_fields;

/// Decodes the document at the beginning of a text.
///
/// # Errors
/// If it is not JSON, or a field has the wrong type.
pub(super) fn from_slice<T: Fill + Default>(json: &[u8]) -> Result<T, serde_json::Error> {
    let mut value = T::default();
    Into(&mut value).deserialize(&mut serde_json::Deserializer::from_slice(json))?;
    Ok(value)
}

/// Whether a name in a document matches the name of a field (encoding/json, fold.go).
pub(super) fn is_same(name: &str, field: &str) -> bool {
    let folded = |letter: char| match letter {
        'ſ' => 's',
        '\u{212a}' => 'k',
        letter => letter.to_ascii_lowercase(),
    };
    name.chars().map(folded).eq(field.chars().map(folded))
}

/// The destination of the next value.
pub(super) struct Into<'a, T>(pub &'a mut T);

impl<'de, T: Fill> DeserializeSeed<'de> for Into<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de, T: Fill> Visitor<'de> for Into<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        self.0.empty();
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.0.fill(deserializer)
    }
}

/// Reads an object into a struct.
pub(super) struct Struct<'a, T>(pub &'a mut T);

impl<'de, T: Fields> Visitor<'de> for Struct<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(name)) = map.next_key_seed(TextSeed)? {
            self.0.take(&name, &mut map)?;
        }
        Ok(())
    }
}

/// A string, read as bytes: serde_json refuses strings that are not UTF-8 or contain half of a
/// surrogate pair.
struct Text(String);
struct TextSeed;

impl<'de> DeserializeSeed<'de> for TextSeed {
    type Value = Text;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Text, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for TextSeed {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Text, E> {
        Ok(Text(String::from_utf8_lossy(bytes).into_owned()))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
        Ok(Text(text.to_owned()))
    }
}

impl Fill for String {
    fn fill<'de, D: Deserializer<'de>>(&mut self, deserializer: D) -> Result<(), D::Error> {
        *self = TextSeed.deserialize(deserializer)?.0;
        Ok(())
    }
}

macro_rules! scalar {
    ($($name:ty),*) => {
        $(impl Fill for $name {
            fn fill<'de, D: Deserializer<'de>>(&mut self, deserializer: D) -> Result<(), D::Error> {
                *self = serde::Deserialize::deserialize(deserializer)?;
                Ok(())
            }
        })*
    };
}
scalar!(bool, u32, i64);

/// A pointer in Go.
impl<T: Fill + Default> Fill for Option<T> {
    fn empty(&mut self) {
        *self = None;
    }

    fn fill<'de, D: Deserializer<'de>>(&mut self, deserializer: D) -> Result<(), D::Error> {
        self.get_or_insert_default().fill(deserializer)
    }
}

impl<T: Fill + Default> Fill for Vec<T> {
    fn empty(&mut self) {
        self.clear();
    }

    fn fill<'de, D: Deserializer<'de>>(&mut self, deserializer: D) -> Result<(), D::Error> {
        *self = deserializer.deserialize_seq(List(PhantomData))?;
        Ok(())
    }
}

struct List<T>(PhantomData<T>);

impl<'de, T: Fill + Default> Visitor<'de> for List<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        loop {
            let mut item = T::default();
            match seq.next_element_seed(Into(&mut item))? {
                Some(()) => list.push(item),
                None => return Ok(list),
            }
        }
    }
}

impl Fill for BTreeMap<String, String> {
    fn empty(&mut self) {
        self.clear();
    }

    fn fill<'de, D: Deserializer<'de>>(&mut self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(Map(self))
    }
}

struct Map<'a>(&'a mut BTreeMap<String, String>);

impl<'de> Visitor<'de> for Map<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(key)) = map.next_key_seed(TextSeed)? {
            let mut value = String::new();
            map.next_value_seed(Into(&mut value))?;
            self.0.insert(key, value);
        }
        Ok(())
    }
}
