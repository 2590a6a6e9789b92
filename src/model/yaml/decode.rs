//! Types of serde from trees. Errors name the value and its position.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::{Dialect, Error, Node, Position, Resolved, Value};

impl Node {
    /// The tree as a type. Where the type is text, every scalar is, whatever value it has.
    ///
    /// # Errors
    /// The first value that is not of the expected type.
    pub fn decode<T: DeserializeOwned>(&self, dialect: Dialect) -> Result<T, Error> {
        T::deserialize(Decoder { node: self, dialect })
    }
}

impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            path: String::new(),
            message: message.to_string(),
            position: None,
        }
    }
}

impl Error {
    fn or_at(mut self, position: Position) -> Self {
        self.position.get_or_insert(position);
        self
    }

    /// The error of a part, as one of the whole.
    fn inside(mut self, step: &str) -> Self {
        let dot = match self.path.is_empty() || self.path.starts_with('[') {
            true => "",
            false => ".",
        };
        self.path = format!("{step}{dot}{}", self.path);
        self
    }
}

#[derive(Clone, Copy)]
struct Decoder<'n> {
    node: &'n Node,
    dialect: Dialect,
}

impl<'n> Decoder<'n> {
    fn resolve(self) -> Result<Resolved<'n>, Error> {
        let contradiction = || Error::at(self.node.position, "the value is not what its tag says");
        self.node.resolve(self.dialect).ok_or_else(contradiction)
    }

    fn visit<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let dialect = self.dialect;
        match &self.node.value {
            Value::List(list) => visitor.visit_seq(Elements {
                nodes: list.iter(),
                index: 0,
                dialect,
            }),
            Value::Map(entries) => visitor.visit_map(Entries {
                nodes: entries.iter(),
                value: None,
                dialect,
            }),
            Value::Scalar(_) => match self.resolve()? {
                Resolved::Null => visitor.visit_unit(),
                Resolved::Bool(value) => visitor.visit_bool(value),
                Resolved::Integer(number) => match u64::try_from(number) {
                    Ok(number) => visitor.visit_u64(number),
                    Err(_) => visitor.visit_i64(number as i64),
                },
                Resolved::Float(number) => visitor.visit_f64(number),
                Resolved::Text(text) => visitor.visit_str(text),
            },
        }
    }
}

impl<'de> Deserializer<'de> for Decoder<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.visit(visitor)
            .map_err(|error| error.or_at(self.node.position))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.text() {
            Some(text) => visitor
                .visit_str(text)
                .map_err(|error: Error| error.or_at(self.node.position)),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.resolve(self.dialect) {
            Some(Resolved::Null) => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.node.text() {
            Some(text) => {
                let variant: StrDeserializer<'_, Error> = text.into_deserializer();
                visitor
                    .visit_enum(variant)
                    .map_err(|error| error.or_at(self.node.position))
            }
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf
        unit unit_struct seq tuple tuple_struct map struct
    }
}

struct Elements<'n> {
    nodes: std::slice::Iter<'n, Node>,
    index: usize,
    dialect: Dialect,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some(node) = self.nodes.next() else {
            return Ok(None);
        };
        let index = self.index;
        self.index += 1;
        seed.deserialize(Decoder {
            node,
            dialect: self.dialect,
        })
        .map(Some)
        .map_err(|error| error.inside(&format!("[{index}]")))
    }
}

struct Entries<'n> {
    nodes: std::slice::Iter<'n, (Node, Node)>,
    value: Option<(Decoder<'n>, Decoder<'n>)>,
    dialect: Dialect,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((key, value)) = self.nodes.next() else {
            return Ok(None);
        };
        let dialect = self.dialect;
        let (key, value) = (Decoder { node: key, dialect }, Decoder { node: value, dialect });
        self.value = Some((key, value));
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some((key, value)) = self.value.take() else {
            return Err(serde::de::Error::custom("a value without a key"));
        };
        let step = key.node.text().unwrap_or("?");
        seed.deserialize(value).map_err(|error| error.inside(step))
    }
}
