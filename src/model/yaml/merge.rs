//! Merge keys: `<<: *base` adds the entries of another mapping
//! (<https://yaml.org/type/merge.html>).

use super::{Error, Node, Value};

impl Node {
    /// The tree with merge keys expanded, and each key at most once. An entry of the mapping itself
    /// overrides a merged one, and an earlier merged mapping overrides a later one.
    ///
    /// # Errors
    /// If a merge key has a value other than mappings, or a mapping has a duplicate key.
    pub fn merged(mut self) -> Result<Self, Error> {
        self.value = match self.value {
            Value::List(list) => Value::List(list.into_iter().map(Self::merged).collect::<Result<_, _>>()?),
            Value::Map(entries) => Value::Map(entries_merged(entries)?),
            scalar => scalar,
        };
        Ok(self)
    }
}

fn entries_merged(entries: Vec<(Node, Node)>) -> Result<Vec<(Node, Node)>, Error> {
    let mut all: Vec<(Node, Node)> = Vec::new();
    let mut bases: Vec<Node> = Vec::new();
    for (key, value) in entries {
        let value = value.merged()?;
        if has_key(&all, &key) {
            let text = key.text().unwrap_or("?");
            return Err(Error::at(
                key.position,
                &format!("duplicate entry with key {text:?}"),
            ));
        }
        match (key.text() == Some("<<"), value.value) {
            (false, content) => {
                let position = value.position;
                all.push((
                    key,
                    Node {
                        position,
                        value: content,
                    },
                ));
            }
            (true, Value::List(list)) => bases.extend(list),
            (true, content) => bases.push(Node {
                position: value.position,
                value: content,
            }),
        }
    }
    for base in bases {
        let Value::Map(entries) = base.value else {
            return Err(Error::at(base.position, "only a mapping can be merged"));
        };
        for (key, value) in entries {
            if !has_key(&all, &key) {
                all.push((key, value));
            }
        }
    }
    Ok(all)
}

fn has_key(entries: &[(Node, Node)], key: &Node) -> bool {
    entries.iter().any(|(known, _)| known.value == key.value)
}
