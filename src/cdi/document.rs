//! One CDI spec in JSON or YAML.
//!
//! The fields are those of the CDI specification, specs-go/config.go. Unknown fields are errors, as
//! there (SPEC.md, "unknown fields"). Must not know other files.

use std::collections::BTreeMap;

use serde::de::Deserializer;
use serde::{Deserialize, Serialize};

use super::fault::Fault;
use super::fields;
use crate::model::yaml::{self, Node};

/// A spec: the devices of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Document {
    /// The version of the specification that readers must support.
    #[serde(deserialize_with = "fields::text")]
    pub cdi_version: String,
    /// `vendor/class`.
    #[serde(deserialize_with = "fields::text")]
    pub kind: String,
    /// Not interpreted.
    #[serde(
        default,
        deserialize_with = "fields::text_map",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "or_default")]
    pub devices: Vec<Device>,
    /// Edits for every container with one of the devices.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Edits::is_empty"
    )]
    pub container_edits: Edits,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Device {
    /// The part of its qualified name after the `=`.
    #[serde(deserialize_with = "fields::text")]
    pub name: String,
    /// Not interpreted.
    #[serde(
        default,
        deserialize_with = "fields::text_map",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// Edits for containers with this device.
    #[serde(default, deserialize_with = "or_default")]
    pub container_edits: Edits,
}

/// Changes to a container's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Edits {
    #[serde(
        default,
        deserialize_with = "fields::texts",
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
        deserialize_with = "fields::numbers",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub additional_gids: Vec<u32>,
}

/// A device node. An absent number is that of the host's node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DeviceNode {
    #[serde(deserialize_with = "fields::text")]
    pub path: String,
    #[serde(
        default,
        deserialize_with = "fields::optional_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub host_path: Option<String>,
    #[serde(
        rename = "type",
        default,
        deserialize_with = "fields::optional_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub kind: Option<String>,
    #[serde(
        default,
        deserialize_with = "fields::optional_number",
        skip_serializing_if = "Option::is_none"
    )]
    pub major: Option<i64>,
    #[serde(
        default,
        deserialize_with = "fields::optional_number",
        skip_serializing_if = "Option::is_none"
    )]
    pub minor: Option<i64>,
    #[serde(
        default,
        deserialize_with = "fields::optional_number",
        skip_serializing_if = "Option::is_none"
    )]
    pub file_mode: Option<u32>,
    #[serde(
        default,
        deserialize_with = "fields::optional_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub permissions: Option<String>,
    #[serde(
        default,
        deserialize_with = "fields::optional_number",
        skip_serializing_if = "Option::is_none"
    )]
    pub uid: Option<u32>,
    #[serde(
        default,
        deserialize_with = "fields::optional_number",
        skip_serializing_if = "Option::is_none"
    )]
    pub gid: Option<u32>,
}

/// A network interface that moves into the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NetDevice {
    #[serde(deserialize_with = "fields::text")]
    pub host_interface_name: String,
    #[serde(deserialize_with = "fields::text")]
    pub name: String,
}

/// An OCI hook.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Hook {
    #[serde(deserialize_with = "fields::text")]
    pub hook_name: String,
    #[serde(deserialize_with = "fields::text")]
    pub path: String,
    #[serde(
        default,
        deserialize_with = "fields::texts",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub args: Vec<String>,
    #[serde(
        default,
        deserialize_with = "fields::texts",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub env: Vec<String>,
    /// In seconds.
    #[serde(
        default,
        deserialize_with = "fields::optional_number",
        skip_serializing_if = "Option::is_none"
    )]
    pub timeout: Option<i64>,
}

/// A mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Mount {
    #[serde(deserialize_with = "fields::text")]
    pub host_path: String,
    #[serde(deserialize_with = "fields::text")]
    pub container_path: String,
    #[serde(
        default,
        deserialize_with = "fields::texts",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub options: Vec<String>,
    #[serde(
        rename = "type",
        default,
        deserialize_with = "fields::optional_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub kind: Option<String>,
}

/// Intel Resource Director Technology. `enableCMT` and `enableMBM` exist only before version 1.1.0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct IntelRdt {
    #[serde(
        rename = "closID",
        default,
        deserialize_with = "fields::optional_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub clos_id: Option<String>,
    #[serde(
        default,
        deserialize_with = "fields::optional_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub l3_cache_schema: Option<String>,
    #[serde(
        default,
        deserialize_with = "fields::optional_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub mem_bw_schema: Option<String>,
    #[serde(
        default,
        deserialize_with = "fields::optional_texts",
        skip_serializing_if = "Option::is_none"
    )]
    pub schemata: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_monitoring: Option<bool>,
    #[serde(rename = "enableCMT", default, skip_serializing_if = "Option::is_none")]
    pub enable_cmt: Option<bool>,
    #[serde(rename = "enableMBM", default, skip_serializing_if = "Option::is_none")]
    pub enable_mbm: Option<bool>,
}

impl Edits {
    /// Whether the edits change nothing, which is valid for a whole spec and an error for a device.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Appends other edits; the last `intelRdt` is used (pkg/cdi/container-edits.go, Append).
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

/// The Go library treats `null` as an absent field.
fn or_default<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Document {
    /// Parses a spec as YAML, which includes JSON, whatever the name of the file, as the Go library
    /// does.
    ///
    /// # Errors
    /// The first error in the text or in the type of a field, with its position. `rules` checks the
    /// values.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        Self::decode(&yaml::parse(text)?)
    }

    /// Decodes a spec from its tree.
    ///
    /// # Errors
    /// As for [`Document::parse`].
    pub fn decode(root: &Node) -> Result<Self, Fault> {
        Ok(root.decode(fields::DIALECT)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const JSON: &str = "{\n  \"cdiVersion\": \"0.5.0\",\n  \"kind\": \"a.b/c\",\n  \"devices\": [\n    {\"name\": \"x\",\n     \"containerEdits\": {\"env\": [\"A=1\",\n                              \"B\"]}}\n  ]\n}\n";

    #[test]
    fn json_and_yaml_are_parsed_alike() {
        let yaml = "---\ncdiVersion: 0.5.0\nkind: a.b/c\ndevices:\n- name: x\n  containerEdits:\n    env: [A=1, B]\n";
        assert_eq!(Document::parse(JSON).unwrap(), Document::parse(yaml).unwrap());
    }

    #[test]
    fn texts_that_the_go_library_accepts_are_accepted() {
        let document =
            Document::parse("cdiVersion: 0.5.0\nkind: a.b/c\ndevices:\n- name: 0\n  containerEdits: null\n")
                .unwrap();
        assert_eq!(document.devices[0].name, "0");
        assert!(document.devices[0].container_edits.is_empty());
    }

    fn first_node(fields: &str) -> Result<DeviceNode, Fault> {
        let text = format!(
            "cdiVersion: 0.6.0\nkind: vendor.com/device\ndevices:\n- name: \"0\"\n  containerEdits: {{deviceNodes: [{{path: /dev/null, {fields}}}]}}\n"
        );
        Document::parse(&text).map(|document| document.devices[0].container_edits.device_nodes[0].clone())
    }

    /// Case README 16.
    #[test]
    fn a_number_with_a_leading_zero_is_octal_in_every_numeric_field() {
        let node =
            first_node("fileMode: 0666, permissions: rw, uid: 010, gid: 0o17, major: +0x10, minor: 1_0")
                .unwrap();
        assert_eq!(
            (node.file_mode, node.uid, node.gid),
            (Some(0o666), Some(8), Some(15))
        );
        assert_eq!((node.major, node.minor), (Some(16), Some(10)));
        assert_eq!(node.permissions.as_deref(), Some("rw"));
        for same in [
            "fileMode: 0o666",
            "fileMode: 438",
            "fileMode: 438.0",
            "fileMode: &mode 0666",
            "\"fileMode\":438",
        ] {
            assert_eq!(first_node(same).unwrap().file_mode, Some(0o666), "{same}");
        }
        let edits = "cdiVersion: 0.7.0\nkind: a.b/device\ndevices: [{name: x, containerEdits: {additionalGids: [010, 9], hooks: [{hookName: poststop, path: /x, timeout: 010}]}}]\n";
        let document = Document::parse(edits).unwrap();
        let edits = &document.devices[0].container_edits;
        assert_eq!(
            (&edits.additional_gids[..], edits.hooks[0].timeout),
            (&[8, 9][..], Some(8))
        );
    }

    /// Case README 16.
    #[test]
    fn a_number_that_is_quoted_fractional_or_too_large_is_a_fault_with_its_position() {
        for (fields, part) in [
            ("fileMode: '0666'", "expected a number (write it without quotes)"),
            ("fileMode: \"438\"", "expected a number (write it without quotes)"),
            ("fileMode: 1.5", "expected an integer"),
            ("uid: 4294967296", "4294967296 is out of range"),
            ("uid: -1", "-1 is out of range"),
            ("gid: staff", "invalid type: string \"staff\", expected a number"),
        ] {
            let fault = first_node(fields).unwrap_err();
            assert!(fault.message.contains(part), "{fields}: {fault}");
            assert_eq!(fault.line, Some(5), "{fields}: {fault}");
            assert!(
                fault.column.is_some_and(|column| column > 50),
                "{fields}: {fault}"
            );
        }
    }

    /// Case README 16: the value of a text that YAML 1.1 treats as a number or boolean.
    #[test]
    fn a_devices_name_is_the_one_that_engines_see() {
        let name = |name: &str| {
            let text = format!(
                "cdiVersion: 0.6.0\nkind: a.b/device\ndevices:\n- name: {name}\n  containerEdits: {{env: [A=1]}}\n"
            );
            Document::parse(&text).unwrap().devices[0].name.clone()
        };
        for (written, read) in [
            ("01", "1"),
            ("'01'", "01"),
            ("\"0666\"", "0666"),
            ("0666", "438"),
            ("on", "true"),
            ("'on'", "on"),
            ("1.0", "1"),
            ("board", "board"),
        ] {
            assert_eq!(name(written), read, "{written}");
        }
    }

    /// Case README 17: the expected results are those of tags.cncf.io/container-device-interface
    /// 1.1.0 and 0.8.0 (pkg/cdi/container-edits.go, isEmpty).
    #[test]
    fn edits_are_empty_if_every_list_is_and_there_is_no_intel_rdt() {
        for (edits, is_empty) in [
            ("{}", true),
            ("null", true),
            ("{mounts: []}", true),
            ("{mounts: null}", true),
            (
                "{env: [], deviceNodes: [], hooks: [], netDevices: [], additionalGids: []}",
                true,
            ),
            ("{intelRdt: null}", true),
            ("{intelRdt: {}}", false),
            ("{additionalGids: [0]}", false),
            ("{env: ['']}", false),
            ("{env: [null]}", false),
        ] {
            let text = format!(
                "cdiVersion: 1.1.0\nkind: vendor.com/device\ndevices:\n- name: managed\n  containerEdits: {edits}\n"
            );
            let document = Document::parse(&text).unwrap();
            assert_eq!(
                document.devices[0].container_edits.is_empty(),
                is_empty,
                "{edits}"
            );
        }
    }

    #[test]
    fn a_fault_has_line_column_and_field() {
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
    fn a_duplicate_field_is_a_fault() {
        let fault = Document::parse("cdiVersion: 0.5.0\nkind: a.b/c\nkind: a.b/d\n").unwrap_err();
        assert!(fault.message.contains("duplicate"), "{fault}");
    }

    #[test]
    fn the_last_intel_rdt_is_used() {
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
        fn no_text_causes_a_panic(text in "[ -~\n]{0,200}") {
            if let Err(fault) = Document::parse(&text) {
                prop_assert!(!fault.message.is_empty());
            }
        }
    }
}
