//! The ids of USB devices, which generic-device-plugin reads in different ways from its file and
//! from its arguments.

use super::{Dialect, Fault, Node, Reader};
use crate::kubernetes::config::error::ConfigError;
use crate::model::yaml::go_integer;

impl Reader<'_> {
    /// Four hexadecimal digits (its usb.go: ToUSBIDHookFunc for files, UnmarshalJSON for
    /// arguments).
    ///
    /// If the value is quoted, or not a number in YAML, its text is parsed. In a file, an unquoted
    /// number counts by its value. In an argument, it is first converted to decimal digits, which
    /// are then parsed as hexadecimal: 0x0403 becomes 1027.
    pub(super) fn usb_id(&mut self, usb: &Node, key: &'static str) -> Result<String, ConfigError> {
        let wrong = |value: String| Fault::UsbId { what: key, value };
        let (id, number) = match (usb.get(key), self.dialect) {
            (None, _) => (Some(0), None),
            (Some(Node::Text(text)), Dialect::Argument) if text.is_empty() => (Some(0), None),
            (Some(Node::Text(text)), _) => (hexadecimal(text), None),
            (Some(Node::Integer(number)), _) => (self.id_of_number(*number as f64), Some(*number as f64)),
            (Some(Node::Float(number)), _) => (self.id_of_number(*number), Some(*number)),
            (Some(other), _) => return Err(self.wrong_kind(key, "hexadecimal digits in quotes", other)),
        };
        let Some(id) = id else {
            let value = match usb.get(key) {
                Some(Node::Text(text)) => text.clone(),
                _ => number.unwrap_or_default().to_string(),
            };
            return Err(self.fault(wrong(value)));
        };
        let id = format!("{id:04x}");
        match number {
            Some(number) if self.is_read_otherwise(number, &id) => self.note(&format!(
                "the {key} is not in quotes: it is the number {number} and is read as {id}, as in generic-device-plugin; in quotes \
                 it is read as hexadecimal"
            )),
            None if id == "0000" => self.note(&format!("the {key} is 0000, which no device has")),
            _ => {}
        }
        Ok(id)
    }

    /// The id of a number, if it has one.
    fn id_of_number(&self, number: f64) -> Option<u16> {
        match self.dialect {
            Dialect::Argument => hexadecimal(&number.to_string()),
            // That plugin uses the lower 16 bits of any number, which is never what the author
            // intended.
            Dialect::File => (0.0..65536.0).contains(&number).then_some(number as u16),
        }
    }

    /// Whether a number is written with other digits than the id.
    fn is_read_otherwise(&self, number: f64, id: &str) -> bool {
        let mut words = self.source.split(|letter: char| !letter.is_ascii_alphanumeric());
        let mut is_written = |prefix: &str| {
            words.any(|word| {
                let value = go_integer(word).filter(|_| word.len() > 1 && word.starts_with(prefix));
                value.map(|value| value as f64) == Some(number)
            })
        };
        match self.dialect {
            // That plugin parses it as hexadecimal or octal.
            Dialect::Argument => is_written("0"),
            Dialect::File => format!("{number:0>4}") != id && !is_written("0x"),
        }
    }
}

/// Up to 16 bits in hexadecimal digits without 0x, as Go's strconv.ParseUint parses them.
fn hexadecimal(text: &str) -> Option<u16> {
    let is_plain = text.chars().all(|digit| digit.is_ascii_hexdigit());
    is_plain.then(|| u16::from_str_radix(text, 16).ok()).flatten()
}
