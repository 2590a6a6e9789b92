//! YAML as Go programs interpret it: keys in any case, `<<` merged, numbers as in Go's YAML
//! libraries.

use crate::model::yaml::{self, Resolved, Value};

/// Which of Go's two YAML libraries interprets a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// yaml.v3, for files (viper).
    File,
    /// yaml.v2 and then JSON, for arguments (ghodss/yaml): there `yes` and `on` are booleans.
    Argument,
}

impl Dialect {
    fn of_scalars(self) -> yaml::Dialect {
        match self {
            Self::File => yaml::Dialect::GoV3,
            Self::Argument => yaml::Dialect::GoV2,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    /// `null`, `~`, or an empty text.
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// A mapping: its keys in lower case, without duplicates, in order.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// Parses a text.
    ///
    /// # Errors
    ///
    /// If it is not YAML, or has custom tags.
    pub(super) fn read(text: &str, dialect: Dialect) -> Result<Self, yaml::Error> {
        Ok(Self::of(&yaml::parse(text)?, dialect))
    }

    /// The value as Go interprets it.
    pub(super) fn of(node: &yaml::Node, dialect: Dialect) -> Self {
        match &node.value {
            Value::List(list) => Self::List(list.iter().map(|element| Self::of(element, dialect)).collect()),
            Value::Map(entries) => mapping(entries, dialect),
            Value::Scalar(scalar) => match node.resolve(dialect.of_scalars()) {
                Some(Resolved::Null) => Self::Null,
                Some(Resolved::Bool(value)) => Self::Bool(value),
                Some(Resolved::Integer(number)) => Self::Integer(number),
                Some(Resolved::Float(number)) => Self::Float(number),
                Some(Resolved::Text(_)) | None => Self::Text(scalar.text.clone()),
            },
        }
    }

    /// The value of a key, given in lower case; `None` if it is absent or null.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let Self::Map(entries) = self else { return None };
        let found = entries.iter().find(|(known, _)| known == key);
        found
            .map(|(_, value)| value)
            .filter(|value| **value != Self::Null)
    }

    /// The keys in lower case; empty if it is not a mapping.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        let entries = match self {
            Self::Map(entries) => entries.as_slice(),
            _ => &[],
        };
        entries.iter().map(|(key, _)| key.as_str())
    }

    /// The type of the value, for messages.
    pub(super) fn kind(&self) -> &'static str {
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

/// The last of duplicate keys is used; explicit keys override merged ones.
fn mapping(entries: &[(yaml::Node, yaml::Node)], dialect: Dialect) -> Node {
    let mut written: Vec<(String, Node)> = Vec::new();
    let mut merged: Vec<(String, Node)> = Vec::new();
    for (key, value) in entries {
        let key = match key.resolve(yaml::Dialect::Core) {
            Some(Resolved::Text(key)) => key.to_lowercase(),
            Some(Resolved::Integer(key)) => key.to_string(),
            Some(Resolved::Bool(key)) => key.to_string(),
            // These formats have only text keys.
            _ => continue,
        };
        match (key.as_str(), Node::of(value, dialect)) {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(text: &str, dialect: Dialect) -> Node {
        let node = Node::read(&format!("{{vendor: {text}}}"), dialect).unwrap();
        node.get("vendor").cloned().unwrap_or(Node::Null)
    }

    /// The values in generic-device-plugin's libraries, observed by running them.
    #[test]
    fn numbers_have_the_same_values_as_in_go() {
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
    fn keys_match_in_any_case_and_override_merged_ones() {
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
        fn no_text_causes_a_panic_in_the_parser(text in "\\PC{0,60}") {
            let _ = Node::read(&text, Dialect::File);
            let _ = Node::read(&text, Dialect::Argument);
        }
    }
}
