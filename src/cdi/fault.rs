//! Errors in a spec, with their positions.

use std::fmt;

use serde::Serialize;

use crate::model::quoting::shown;
use crate::model::yaml::{self, Node, Position, Value};

/// The longest message or field name that is shown, in characters: both may quote the text.
const MAX_MESSAGE: usize = 600;
const MAX_FIELD: usize = 200;

/// One error in a spec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The field, such as `devices[0].containerEdits.hooks[1].path`; empty for the whole spec.
    pub field: String,
    /// Counted from 1; `None` if the file cannot be read.
    pub line: Option<usize>,
    /// Counted from 1.
    pub column: Option<usize>,
    /// The error, with a hint.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, "line {line}, column {column}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

impl From<yaml::Error> for Fault {
    fn from(error: yaml::Error) -> Self {
        Self::new(&error.path, error.position, &error.message)
    }
}

impl Fault {
    fn new(field: &str, position: Option<Position>, message: &str) -> Self {
        Self {
            field: shown(field, MAX_FIELD),
            line: position.map(|position| position.line),
            column: position.map(|position| position.column),
            message: shown(message, MAX_MESSAGE),
        }
    }

    /// An error in a field, with its position in the text.
    pub(super) fn at(root: &Node, field: &str, message: &str) -> Self {
        Self::new(field, Some(position_of(root, field)), message)
    }
}

/// The position of a field, or, if it is absent, of the nearest field above it.
fn position_of(root: &Node, field: &str) -> Position {
    let mut node = root;
    for step in field.split(['.', '[', ']']).filter(|step| !step.is_empty()) {
        let below = match &node.value {
            Value::Map(entries) => entries
                .iter()
                .find(|(key, _)| key.text() == Some(step))
                .map(|(_, value)| value),
            Value::List(list) => step.parse().ok().and_then(|index: usize| list.get(index)),
            Value::Scalar(_) => None,
        };
        match below {
            Some(below) => node = below,
            None => break,
        }
    }
    node.position
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = "{\n  \"cdiVersion\": \"0.5.0\",\n  \"kind\": \"a.b/c\",\n  \"devices\": [\n    {\"name\": \"x\",\n     \"containerEdits\": {\"env\": [\"A=1\",\n                              \"B\"]}}\n  ]\n}\n";

    #[test]
    fn the_position_is_that_of_the_field_or_of_the_nearest_one_above() {
        let root = yaml::parse(JSON).unwrap();
        for (field, line, column) in [
            ("devices[0].containerEdits.env[1]", 7, 31),
            ("devices[0].name", 5, 14),
            ("devices[0].containerEdits.hooks", 6, 24),
            ("kind", 3, 11),
        ] {
            assert_eq!(position_of(&root, field), Position { line, column }, "{field}");
        }
    }
}
