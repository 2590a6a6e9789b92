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
    #[serde(default, deserialize_with = "fields::text_map", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "or_default")]
    pub devices: Vec<Device>,
    /// Edits for every container with one of the devices.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Edits::is_empty")]
    pub container_edits: Edits,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Device {
    /// The part of its qualified name after the `=`.
    #[serde(deserialize_with = "fields::text")]
    pub name: String,
    /// Not interpreted.
    #[serde(default, deserialize_with = "fields::text_map", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Edits for containers with this device.
    #[serde(default, deserialize_with = "or_default")]
    pub container_edits: Edits,
}

/// Changes to a container's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Edits {
    #[serde(default, deserialize_with = "fields::texts", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub device_nodes: Vec<DeviceNode>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub net_devices: Vec<NetDevice>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Hook>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<IntelRdt>,
    #[serde(default, deserialize_with = "fields::numbers", skip_serializing_if = "Vec::is_empty")]
    pub additional_gids: Vec<u32>,
}

/// A device node. An absent number is that of the host's node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DeviceNode {
    #[serde(deserialize_with = "fields::text")]
    pub path: String,
    #[serde(default, deserialize_with = "fields::optional_text", skip_serializing_if = "Option::is_none")]
    pub host_path: Option<String>,
    #[serde(
        rename = "type",
        default,
        deserialize_with = "fields::optional_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub kind: Option<String>,
    #[serde(default, deserialize_with = "fields::optional_number", skip_serializing_if = "Option::is_none")]
    pub major: Option<i64>,
    #[serde(default, deserialize_with = "fields::optional_number", skip_serializing_if = "Option::is_none")]
    pub minor: Option<i64>,
    #[serde(default, deserialize_with = "fields::optional_number", skip_serializing_if = "Option::is_none")]
    pub file_mode: Option<u32>,
    #[serde(default, deserialize_with = "fields::optional_text", skip_serializing_if = "Option::is_none")]
    pub permissions: Option<String>,
    #[serde(default, deserialize_with = "fields::optional_number", skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    #[serde(default, deserialize_with = "fields::optional_number", skip_serializing_if = "Option::is_none")]
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
    #[serde(default, deserialize_with = "fields::texts", skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    #[serde(default, deserialize_with = "fields::texts", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// In seconds.
    #[serde(default, deserialize_with = "fields::optional_number", skip_serializing_if = "Option::is_none")]
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
    #[serde(default, deserialize_with = "fields::texts", skip_serializing_if = "Vec::is_empty")]
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
    #[serde(default, deserialize_with = "fields::optional_text", skip_serializing_if = "Option::is_none")]
    pub l3_cache_schema: Option<String>,
    #[serde(default, deserialize_with = "fields::optional_text", skip_serializing_if = "Option::is_none")]
    pub mem_bw_schema: Option<String>,
    #[serde(default, deserialize_with = "fields::optional_texts", skip_serializing_if = "Option::is_none")]
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
mod tests;
