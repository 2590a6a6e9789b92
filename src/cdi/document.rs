//! One CDI spec as it is written, in JSON or YAML, and the places of what is wrong with it.
//!
//! Must not know which files there are, nor what a container makes of them. The fields are those of the CDI
//! specification, specs-go/config.go; a field that is not among them is an error there (SPEC.md, "unknown fields")
//! and here.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::model::quoting::shown;

/// The most characters of a message and of a field's name that are shown: both may quote the text.
const MAX_MESSAGE: usize = 600;
const MAX_FIELD: usize = 200;

/// A spec: the devices of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Document {
    /// The version of the specification that its reader must know.
    #[serde(deserialize_with = "scalar")]
    pub cdi_version: String,
    /// `vendor/class`.
    pub kind: String,
    /// For anyone's use.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// The devices.
    #[serde(default, deserialize_with = "or_default")]
    pub devices: Vec<Device>,
    /// What every container gets that gets one of the devices.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Edits::is_empty"
    )]
    pub container_edits: Edits,
}

/// One device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Device {
    /// What stands behind the `=` of its qualified name.
    #[serde(deserialize_with = "scalar")]
    pub name: String,
    /// For anyone's use.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// What a container gets with it.
    #[serde(default, deserialize_with = "or_default")]
    pub container_edits: Edits,
}

/// Changes to a container's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are the specification's")]
pub struct Edits {
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub env: Vec<String>,
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub device_nodes: Vec<DeviceNode>,
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub net_devices: Vec<NetDevice>,
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub hooks: Vec<Hook>,
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub mounts: Vec<Mount>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<IntelRdt>,
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub additional_gids: Vec<u32>,
}

/// A device node; its numbers are those of the host's node where they are not given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are the specification's")]
pub struct DeviceNode {
    pub path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_path: Option<String>,
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub major: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minor: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_mode: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

/// A network interface that moves into the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are the specification's")]
pub struct NetDevice {
    pub host_interface_name: String,
    #[serde(deserialize_with = "scalar")]
    pub name: String,
}

/// An OCI hook.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are the specification's")]
pub struct Hook {
    pub hook_name: String,
    pub path: String,
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub args: Vec<String>,
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub env: Vec<String>,
    /// In seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}

/// A mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are the specification's")]
pub struct Mount {
    pub host_path: String,
    pub container_path: String,
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub options: Vec<String>,
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

/// Intel's resource director. `enableCMT` and `enableMBM` are of the versions before 1.1.0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are the specification's")]
pub struct IntelRdt {
    #[serde(rename = "closID", default, skip_serializing_if = "Option::is_none")]
    pub clos_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l3_cache_schema: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mem_bw_schema: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schemata: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_monitoring: Option<bool>,
    #[serde(rename = "enableCMT", default, skip_serializing_if = "Option::is_none")]
    pub enable_cmt: Option<bool>,
    #[serde(rename = "enableMBM", default, skip_serializing_if = "Option::is_none")]
    pub enable_mbm: Option<bool>,
}

impl Edits {
    /// Whether they change nothing: right for a whole spec, an error for a device.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds others behind these; of several `intelRdt` the last one holds (pkg/cdi/container-edits.go, Append).
    pub fn append(&mut self, other: &Self) {
        self.env.extend_from_slice(&other.env);
        self.device_nodes.extend_from_slice(&other.device_nodes);
        self.net_devices.extend_from_slice(&other.net_devices);
        self.hooks.extend_from_slice(&other.hooks);
        self.mounts.extend_from_slice(&other.mounts);
        self.intel_rdt = other.intel_rdt.clone().or(self.intel_rdt.take());
        self.additional_gids.extend_from_slice(&other.additional_gids);
    }
}

/// The Go library takes `null` for what is not there.
fn or_default<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The Go library takes `name: 0` for `name: "0"` (sigs.k8s.io/yaml, convertToJSONableObject).
fn scalar<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a string")]
    enum Scalar {
        Text(String),
        Integer(i64),
        Float(f64),
        Bool(bool),
    }
    Ok(match Scalar::deserialize(deserializer)? {
        Scalar::Text(text) => text,
        Scalar::Integer(number) => number.to_string(),
        Scalar::Float(number) => number.to_string(),
        Scalar::Bool(value) => value.to_string(),
    })
}

/// One thing that is wrong with a spec, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The field, such as `devices[0].containerEdits.hooks[1].path`; empty for the whole.
    pub field: String,
    /// Counted from 1; `None` where the text is at fault as a whole.
    pub line: Option<usize>,
    /// Counted from 1.
    pub column: Option<usize>,
    /// What is wrong, and the cure.
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

impl Document {
    /// Reads a spec. YAML, which JSON is a part of, whatever the file's name: the Go library does the same.
    ///
    /// # Errors
    /// What is wrong with the text or with a field, and where. What the fields say is judged by `rules`.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        serde_yaml::from_str(text).map_err(|error| Fault::of_text(&error))
    }
}

impl Fault {
    /// A fault of a field, with its place in the text.
    pub fn at(text: &str, field: &str, message: impl Into<String>) -> Self {
        let place = place_of(text, field);
        Self {
            field: shown(field, MAX_FIELD),
            line: place.map(|place| place.0),
            column: place.map(|place| place.1),
            message: shown(&message.into(), MAX_MESSAGE),
        }
    }

    /// The YAML reader says `field: what at line L column C`: taken apart, so that all faults read alike.
    fn of_text(error: &serde_yaml::Error) -> Self {
        let place = error.location();
        let mut message = error.to_string();
        if let Some(at) = place
            .as_ref()
            .and_then(|place| message.rfind(&format!(" at line {} column {}", place.line(), place.column())))
        {
            message.truncate(at);
        }
        let (field, message) = match message.split_once(": ") {
            Some((field, rest)) if is_field(field) => (shown(field, MAX_FIELD), rest.to_owned()),
            _ => (String::new(), message),
        };
        Self {
            field,
            line: place.as_ref().map(serde_yaml::Location::line),
            column: place.as_ref().map(serde_yaml::Location::column),
            message: shown(&message, MAX_MESSAGE),
        }
    }
}

fn is_field(text: &str) -> bool {
    let first = text.split(['.', '[']).next().unwrap_or_default();
    ["cdiVersion", "kind", "annotations", "devices", "containerEdits"].contains(&first)
}

/// Line and column of a field, each counted from 1; of the nearest one above it where it is absent.
fn place_of(text: &str, field: &str) -> Option<(usize, usize)> {
    let mut steps: Vec<&str> = field
        .split(['.', '[', ']'])
        .filter(|step| !step.is_empty())
        .collect();
    loop {
        let deserializer = serde_yaml::Deserializer::from_str(text);
        let error = Seek(&steps).deserialize(deserializer).err();
        if let Some(place) = error.filter(|error| error.to_string().contains(FOUND)) {
            return place.location().map(|place| (place.line(), place.column()));
        }
        steps.pop()?;
    }
}

const FOUND: &str = "\u{1}here";

/// Walks to a field and fails there: the reader then tells the place.
struct Seek<'s>(&'s [&'s str]);

impl Seek<'_> {
    fn stop<T, E: serde::de::Error>(&self, passed: T) -> Result<T, E> {
        if self.0.is_empty() {
            return Err(E::custom(FOUND));
        }
        Ok(passed)
    }
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.stop(())?;
        while let Some(key) = map.next_key::<String>()? {
            if key == self.0[0] {
                map.next_value_seed(Seek(&self.0[1..]))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.stop(())?;
        let wanted: usize = self.0[0].parse().unwrap_or(usize::MAX);
        for index in 0.. {
            let more = if index == wanted {
                seq.next_element_seed(Seek(&self.0[1..]))?.is_some()
            } else {
                seq.next_element::<IgnoredAny>()?.is_some()
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        self.stop(())
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        self.stop(())
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        self.stop(())
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        self.stop(())
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        self.stop(())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.stop(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const JSON: &str = "{\n  \"cdiVersion\": \"0.5.0\",\n  \"kind\": \"a.b/c\",\n  \"devices\": [\n    {\"name\": \"x\",\n     \"containerEdits\": {\"env\": [\"A=1\",\n                              \"B\"]}}\n  ]\n}\n";

    #[test]
    fn json_and_yaml_are_read_alike() {
        let yaml = "---\ncdiVersion: 0.5.0\nkind: a.b/c\ndevices:\n- name: x\n  containerEdits:\n    env: [A=1, B]\n";
        assert_eq!(Document::parse(JSON).unwrap(), Document::parse(yaml).unwrap());
    }

    #[test]
    fn what_the_go_library_takes_is_taken() {
        let document =
            Document::parse("cdiVersion: 0.5.0\nkind: a.b/c\ndevices:\n- name: 0\n  containerEdits: null\n")
                .unwrap();
        assert_eq!(document.devices[0].name, "0");
        assert!(document.devices[0].container_edits.is_empty());
    }

    #[test]
    fn a_fault_is_told_with_line_column_and_field() {
        let text =
            "cdiVersion: 0.5.0\nkind: a.b/c\ndevices:\n- name: x\n  containerEdits:\n    deviceNode: []\n";
        let fault = Document::parse(text).unwrap_err();
        assert_eq!((fault.line, fault.column), (Some(6), Some(5)));
        assert_eq!(fault.field, "devices[0].containerEdits");
        assert!(
            fault
                .message
                .starts_with("unknown field `deviceNode`, expected one of"),
            "{fault}"
        );
        let fault = Document::parse("cdiVersion: 0.5.0\nkind: a.b/c\ndevices: 7\n").unwrap_err();
        assert_eq!((fault.line, fault.field.as_str()), (Some(3), "devices"));
        let fault = Document::parse("{\"cdiVersion\": \"0.5.0\",\n \"kind\": \n").unwrap_err();
        assert!(fault.line.is_some(), "{fault}");
    }

    #[test]
    fn a_field_twice_is_a_fault() {
        let fault = Document::parse("cdiVersion: 0.5.0\nkind: a.b/c\nkind: a.b/d\n").unwrap_err();
        assert!(fault.message.contains("duplicate"), "{fault}");
    }

    #[test]
    fn the_place_of_a_field_is_found_or_that_of_the_one_above() {
        assert_eq!(place_of(JSON, "devices[0].containerEdits.env[1]"), Some((7, 31)));
        assert_eq!(place_of(JSON, "devices[0].name"), Some((5, 14)));
        assert_eq!(place_of(JSON, "devices[0].containerEdits.hooks"), Some((6, 24)));
        assert_eq!(place_of(JSON, "kind"), Some((3, 11)));
    }

    #[test]
    fn the_last_intel_rdt_holds() {
        let rdt = |name: &str| Edits {
            intel_rdt: Some(IntelRdt {
                clos_id: Some(name.into()),
                ..Default::default()
            }),
            ..Default::default()
        };
        let mut edits = rdt("a");
        edits.append(&Edits::default());
        assert_eq!(edits, rdt("a"));
        edits.append(&rdt("b"));
        assert_eq!(edits, rdt("b"));
    }

    proptest! {
        #[test]
        fn nothing_that_is_read_makes_it_panic(text in "[ -~\n]{0,200}") {
            if let Err(fault) = Document::parse(&text) {
                prop_assert!(!fault.message.is_empty());
            }
            let _ = place_of(&text, "devices[0].name");
        }
    }
}
