//! Decodes trees into serde types. Errors name the value and its position.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;

use super::{Dialect, Error, Node, Position, Resolved, Value};

impl Node {
    /// Decodes the tree. Where the type is text, any scalar is accepted as text.
    ///
    /// # Errors
    /// The first value that is not of the expected type.
    pub fn decode<T: DeserializeOwned>(&self, dialect: Dialect) -> Result<T, Error> {
        self.decode_with(dialect, false)
    }

    /// Decodes the tree. Where the type is text, numbers and booleans are errors.
    ///
    /// # Errors
    /// As for [`Node::decode`].
    pub fn decode_strictly<T: DeserializeOwned>(&self, dialect: Dialect) -> Result<T, Error> {
        self.decode_with(dialect, true)
    }

    fn decode_with<T: DeserializeOwned>(&self, dialect: Dialect, is_strict: bool) -> Result<T, Error> {
        T::deserialize(Decoder {
            node: self,
            dialect,
            is_strict,
        })
    }

    /// Whether there is no value: `key:` alone.
    fn is_absent(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar)
            if scalar.is_plain && scalar.text.is_empty() && scalar.tag.is_none())
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

    /// Adds the parent's key or index to the path of an error.
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
    is_strict: bool,
}

impl<'n> Decoder<'n> {
    fn of(self, node: &'n Node) -> Self {
        Self { node, ..self }
    }

    fn resolve(self) -> Result<Resolved<'n>, Error> {
        let contradiction = || Error::at(self.node.position, "the value does not match its tag");
        self.node.resolve(self.dialect).ok_or_else(contradiction)
    }

    fn elements(self, list: &'n [Node]) -> Elements<'n> {
        Elements {
            nodes: list.iter(),
            index: 0,
            parent: self,
        }
    }

    fn entries(self, entries: &'n [(Node, Node)]) -> Entries<'n> {
        Entries {
            nodes: entries.iter(),
            value: None,
            parent: self,
        }
    }

    fn visit<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::List(list) => visitor.visit_seq(self.elements(list)),
            Value::Map(entries) => visitor.visit_map(self.entries(entries)),
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
            Some(text) if !self.is_strict => visitor
                .visit_str(text)
                .map_err(|error: Error| error.or_at(self.node.position)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.is_absent() {
            true => visitor.visit_seq(self.elements(&[])),
            false => self.deserialize_any(visitor),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let visited = match &self.node.value {
            // serde would accept the elements as the fields in their order.
            Value::List(_) => Err(Error::invalid_type(Unexpected::Seq, &visitor)),
            _ if self.node.is_absent() => visitor.visit_map(self.entries(&[])),
            _ => self.visit(visitor),
        };
        visited.map_err(|error| error.or_at(self.node.position))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
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
        unit unit_struct tuple tuple_struct
    }
}

struct Elements<'n> {
    nodes: std::slice::Iter<'n, Node>,
    index: usize,
    parent: Decoder<'n>,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some(node) = self.nodes.next() else {
            return Ok(None);
        };
        let index = self.index;
        self.index += 1;
        seed.deserialize(self.parent.of(node))
            .map(Some)
            .map_err(|error| error.inside(&format!("[{index}]")))
    }
}

struct Entries<'n> {
    nodes: std::slice::Iter<'n, (Node, Node)>,
    /// The key and value to be read next.
    value: Option<(&'n Node, &'n Node)>,
    parent: Decoder<'n>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((key, value)) = self.nodes.next() else {
            return Ok(None);
        };
        self.value = Some((key, value));
        let key = Decoder {
            is_strict: false,
            ..self.parent.of(key)
        };
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some((key, value)) = self.value.take() else {
            return Err(Error::custom("a value without a key"));
        };
        let step = key.text().unwrap_or("?");
        seed.deserialize(self.parent.of(value))
            .map_err(|error| error.inside(step))
    }
}
