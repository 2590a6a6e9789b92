//! YAML documents, each as a tree whose nodes know their line and column.
//!
//! `saphyr-parser` parses the text. This module builds the tree and expands aliases; `scalar`
//! decides the value of an unquoted text; `decode` turns a tree into serde types.

mod decode;
mod merge;
mod scalar;

use std::collections::BTreeMap;
use std::fmt;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};
use serde::de::DeserializeOwned;

pub use self::scalar::{Dialect, Resolved, go_integer};

/// The deepest nesting: trees are visited recursively.
const MAX_DEPTH: usize = 128;

/// The most nodes that aliases may add to a document ("billion laughs").
const MAX_ALIASED: usize = 1 << 18;

/// A position in the text; line and column are counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub line: usize,
    /// In characters.
    pub column: usize,
}

/// A value with its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Where the value begins.
    pub position: Position,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Any other value; [`Node::resolve`] interprets it.
    Scalar(Scalar),
    List(Vec<Node>),
    /// A mapping, which may still have duplicate and merge (`<<`) keys.
    Map(Vec<(Node, Node)>),
}

/// The text of a scalar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scalar {
    /// The text, without quotes and escapes.
    pub text: String,
    /// Whether it is unquoted, and may thus be something other than text.
    pub is_plain: bool,
    /// The name of its tag in YAML's own schema, such as `str` for `!!str`.
    tag: Option<String>,
}

/// Why a text cannot be parsed, or a value is not of the expected type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The path of the value, such as `devices[0].name`; empty for the whole document.
    pub path: String,
    pub message: String,
    pub position: Option<Position>,
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match self.position {
            Some(Position { line, column }) => write!(f, " at line {line} column {column}"),
            None => Ok(()),
        }
    }
}

impl Error {
    fn at(position: Position, message: &str) -> Self {
        Self {
            path: String::new(),
            message: message.to_owned(),
            position: Some(position),
        }
    }
}

impl From<ScanError> for Error {
    fn from(error: ScanError) -> Self {
        let marker = error.marker();
        let position = Position {
            line: marker.line(),
            column: marker.col() + 1,
        };
        Self::at(position, error.info())
    }
}

/// Parses one document. An empty text is null.
///
/// # Errors
/// If the text is not YAML, has more than one document, has tags other than YAML's own, or exceeds
/// the limits of nesting or aliases.
pub fn parse(text: &str) -> Result<Node, Error> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event?;
        builder.take(event, span)?;
    }
    Ok(builder.document.unwrap_or(NULL))
}

/// Parses one document and decodes it.
///
/// # Errors
/// As for [`parse`] and [`Node::decode`].
pub fn from_str<T: DeserializeOwned>(text: &str, dialect: Dialect) -> Result<T, Error> {
    parse(text)?.decode(dialect)
}

const NULL: Node = Node {
    position: Position { line: 1, column: 1 },
    value: Value::Scalar(Scalar {
        text: String::new(),
        is_plain: true,
        tag: None,
    }),
};

impl Node {
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(scalar) => Some(&scalar.text),
            Value::List(_) | Value::Map(_) => None,
        }
    }

    /// The value of a scalar in a dialect; `None` for lists, mappings, and scalars that contradict
    /// their tag.
    pub fn resolve(&self, dialect: Dialect) -> Option<Resolved<'_>> {
        match &self.value {
            Value::Scalar(scalar) => scalar.resolve(dialect),
            Value::List(_) | Value::Map(_) => None,
        }
    }

    /// The node with changed text, if it is a scalar.
    pub fn map_text(mut self, change: impl Fn(&str) -> String) -> Self {
        if let Value::Scalar(scalar) = &mut self.value {
            scalar.text = change(&scalar.text);
        }
        self
    }

    /// The number of nodes and the depth of nesting.
    fn extent(&self) -> (usize, usize) {
        let sum = |all: &mut dyn Iterator<Item = &Self>| {
            all.map(Self::extent)
                .fold((1, 1), |(count, depth), (inner, below)| {
                    (count + inner, depth.max(below + 1))
                })
        };
        match &self.value {
            Value::Scalar(_) => (1, 1),
            Value::List(list) => sum(&mut list.iter()),
            Value::Map(entries) => sum(&mut entries.iter().flat_map(|(key, value)| [key, value])),
        }
    }
}

/// Builds the tree from the parser's events.
#[derive(Default)]
struct Builder {
    document: Option<Node>,
    open: Vec<Open>,
    anchors: BTreeMap<usize, Node>,
    aliased: usize,
}

/// A list or mapping whose end has not been read yet.
struct Open {
    node: Node,
    anchor: usize,
    /// The key whose value comes next.
    key: Option<Node>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Error> {
        let position = Position {
            line: span.start.line(),
            column: span.start.col() + 1,
        };
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let scalar = Scalar {
                    text: text.into_owned(),
                    is_plain: style == ScalarStyle::Plain,
                    tag: tag.map(|tag| core_tag(&tag, position)).transpose()?,
                };
                let value = Value::Scalar(scalar);
                self.add(Node { position, value }, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.open(position, Value::List(Vec::new()), anchor, tag.as_deref())
            }
            Event::MappingStart(anchor, tag) => {
                self.open(position, Value::Map(Vec::new()), anchor, tag.as_deref())
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { node, anchor, .. }) => self.add(node, anchor),
                None => Ok(()),
            },
            Event::Alias(anchor) => {
                let node = self.alias(anchor, position)?;
                self.add(node, 0)
            }
            Event::DocumentStart(_) if self.document.is_some() => {
                Err(Error::at(position, "there is more than one document"))
            }
            _ => Ok(()),
        }
    }

    fn open(
        &mut self,
        position: Position,
        value: Value,
        anchor: usize,
        tag: Option<&Tag>,
    ) -> Result<(), Error> {
        if let Some(tag) = tag {
            core_tag(tag, position)?;
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(Error::at(position, "the nesting is too deep"));
        }
        let node = Node { position, value };
        self.open.push(Open {
            node,
            anchor,
            key: None,
        });
        Ok(())
    }

    /// Adds a complete node to the innermost open list or mapping.
    fn add(&mut self, node: Node, anchor: usize) -> Result<(), Error> {
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(parent) = self.open.last_mut() else {
            self.document = Some(node);
            return Ok(());
        };
        match (&mut parent.node.value, parent.key.take()) {
            (Value::List(list), _) => list.push(node),
            (Value::Map(entries), Some(key)) => entries.push((key, node)),
            (_, None) => parent.key = Some(node),
            (Value::Scalar(_), Some(_)) => {}
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, position: Position) -> Result<Node, Error> {
        let Some(node) = self.anchors.get(&anchor) else {
            return Err(Error::at(position, "the alias is inside its own anchor"));
        };
        let (count, depth) = node.extent();
        self.aliased += count;
        if self.aliased > MAX_ALIASED || self.open.len() + depth > MAX_DEPTH {
            return Err(Error::at(position, "the aliases expand to too many nodes"));
        }
        Ok(node.clone())
    }
}

/// The name of one of YAML's own tags.
fn core_tag(tag: &Tag, position: Position) -> Result<String, Error> {
    match tag.is_yaml_core_schema() {
        true => Ok(tag.suffix.clone()),
        false => Err(Error::at(
            position,
            &format!("tag {}{} is unknown", tag.handle, tag.suffix),
        )),
    }
}

#[cfg(test)]
mod tests;
