//! Single values, and the errors and notes about them.

use super::Reader;
use crate::kubernetes::config::definition::MAX_UNITS;
use crate::kubernetes::config::error::{ConfigError, Fault};
use crate::kubernetes::config::go_yaml::{Dialect, Node};

impl Reader<'_> {
    /// A number of units: 1 if it is missing or 0, and at most what kubelet accepts.
    pub(super) fn count(&mut self, node: &Node, key: &'static str) -> Result<u32, ConfigError> {
        let number = match node.get(key) {
            None => 0,
            Some(Node::Integer(number)) if *number >= 0 => *number,
            Some(Node::Float(number))
                if *number >= 0.0 && (self.dialect == Dialect::File || number.fract() == 0.0) =>
            {
                *number as i128
            }
            Some(other) => return Err(self.wrong_kind(key, "a whole number of 0 or more", other)),
        };
        let count = u32::try_from(number).unwrap_or(u32::MAX).max(1);
        if count > MAX_UNITS {
            self.note(&format!(
                "{key} {number} is more than kubelet accepts in one list: using {MAX_UNITS}"
            ));
        }
        Ok(count.min(MAX_UNITS))
    }

    /// Text. In an argument, numbers and booleans are accepted as text, as by that plugin.
    pub(super) fn text(&mut self, node: &Node, key: &'static str) -> Result<Option<String>, ConfigError> {
        match (node.get(key), self.dialect) {
            (None, _) => Ok(None),
            (Some(Node::Text(text)), _) => Ok(Some(text.clone())),
            (Some(Node::Integer(number)), Dialect::Argument) => Ok(Some(number.to_string())),
            (Some(Node::Float(number)), Dialect::Argument) => Ok(Some(number.to_string())),
            (Some(Node::Bool(value)), Dialect::Argument) => Ok(Some(value.to_string())),
            (Some(other), _) => Err(self.wrong_kind(key, "text (write it in quotes)", other)),
        }
    }

    pub(super) fn boolean(&mut self, node: &Node, key: &'static str) -> Result<bool, ConfigError> {
        match node.get(key) {
            None => Ok(false),
            Some(Node::Bool(value)) => Ok(*value),
            Some(other) => Err(self.wrong_kind(key, "true or false", other)),
        }
    }

    pub(super) fn list<'a>(&self, key: &'static str, node: &'a Node) -> Result<&'a [Node], ConfigError> {
        match node {
            Node::List(list) => Ok(list),
            other => Err(self.wrong_kind(key, "a list", other)),
        }
    }

    pub(super) fn expect_mapping(&self, what: &'static str, node: &Node) -> Result<(), ConfigError> {
        match node {
            Node::Map(_) => Ok(()),
            other => Err(self.wrong_kind(what, "a mapping of keys to values", other)),
        }
    }

    pub(super) fn wrong_kind(&self, key: &'static str, expected: &'static str, found: &Node) -> ConfigError {
        let key = match key {
            "mountpath" => "mountPath",
            "readonly" => "readOnly",
            key => key,
        };
        self.fault(Fault::Kind {
            key: key.to_owned(),
            expected,
            found: found.kind(),
        })
    }

    pub(super) fn note_ignored_keys(&mut self, node: &Node, known: &[&str]) {
        for key in node.keys().filter(|key| !known.contains(key)) {
            self.note(&format!("the key {key} is ignored, as by generic-device-plugin"));
        }
    }

    pub(super) fn note(&mut self, note: &str) {
        self.notes.push(format!("{}: {note}", self.place));
    }

    pub(super) fn fault(&self, fault: Fault) -> ConfigError {
        ConfigError::Element {
            place: self.place.clone(),
            fault,
        }
    }
}
