//! generic-device-plugin's devices: groups of paths and of USB devices (its
//! deviceplugin/generic.go, path.go, usb.go). Each is the value of an argument `--device` or an
//! element of `devices:` in its file (its config.go).
//!
//! Returns an error where that plugin exits. Adds a note where it ignores something, or sends
//! something to kubelet that cannot work.

mod usb_id;
mod values;

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::Path;

use super::definition::{Definition, Group, PathInGroup, PathType};
use super::error::{self, ConfigError, Fault};
use super::go_glob::GoGlob;
use super::go_yaml::{Dialect, Node};
use crate::kubernetes::resources::names::ResourceName;
use crate::model::device::Access;
use crate::model::request::selector::Selector;

/// The domain of its resources since 0.2.0; it was squat.ai before.
pub(super) const GENERIC_DOMAIN: &str = "devic.es";

/// The default paths of its file (its config.go).
pub const GENERIC_DEFAULTS: [&str; 2] = ["/etc/generic-device-plugin/config.yaml", "config.yaml"];

/// The keys of its file that are also flags.
const FLAGS: [&str; 6] = [
    "config",
    "domain",
    "listen",
    "log-level",
    "plugin-directory",
    "version",
];

/// The flags in generic-device-plugin's file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    pub domain: Option<String>,
    pub listen: Option<String>,
    pub log_level: Option<String>,
    pub plugin_directory: Option<String>,
}

/// Whether a file has this format: it has a list of devices.
pub fn is_generic(text: &str) -> bool {
    Node::read(text, Dialect::File).is_ok_and(|file| listed(&file).is_some())
}

/// Parses the flags in a file.
pub fn settings(text: &str) -> Settings {
    let file = Node::read(text, Dialect::File).unwrap_or(Node::Null);
    let value = |key: &str| match file.get(key) {
        Some(Node::Text(text)) => Some(text.clone()),
        Some(Node::Integer(number)) => Some(number.to_string()),
        _ => None,
    };
    Settings {
        domain: value("domain"),
        listen: value("listen"),
        log_level: value("log-level"),
        plugin_directory: value("plugin-directory"),
    }
}

/// The list of devices: `devices` overrides `device`, as in that plugin.
fn listed(file: &Node) -> Option<&Node> {
    file.get("devices").or_else(|| file.get("device"))
}

/// Parses the arguments, each the text of one device.
pub(super) fn arguments(
    texts: &[String],
    domain: &str,
    notes: &mut Vec<String>,
) -> Result<Vec<Definition>, ConfigError> {
    let mut names = BTreeSet::new();
    let mut definitions = Vec::new();
    for (text, number) in texts.iter().zip(1..) {
        let place = format!("--device, number {number}");
        let device = Node::read(text, Dialect::Argument).map_err(|error| ConfigError::Element {
            place: place.clone(),
            fault: Fault::Entry(error),
        })?;
        let mut reader = Reader::new(Dialect::Argument, &place, text, notes);
        definitions.push(reader.device(&device, domain, &mut names)?);
    }
    Ok(definitions)
}

/// Parses the devices of a file, if it has any. `names` contains the names of the file's other
/// resources.
pub(super) fn file(
    path: &Path,
    file: &Node,
    source: &str,
    domain: &str,
    names: &mut BTreeSet<ResourceName>,
    notes: &mut Vec<String>,
) -> Result<Vec<Definition>, ConfigError> {
    let Some(list) = listed(file) else {
        return Ok(Vec::new());
    };
    for key in file.keys() {
        let is_known = FLAGS.contains(&key) || ["device", "devices", "resources"].contains(&key);
        if !is_known {
            notes.push(format!(
                "{}: the key {key} is ignored, as by generic-device-plugin",
                path.display()
            ));
        }
    }
    let Node::List(list) = list else {
        return Err(ConfigError::Element {
            place: path.display().to_string(),
            fault: Fault::Kind {
                key: "devices".to_owned(),
                expected: "a list",
                found: list.kind(),
            },
        });
    };
    let mut definitions = Vec::new();
    for (device, number) in list.iter().zip(1..) {
        let place = format!("{}, device {number}", path.display());
        let mut reader = Reader::new(Dialect::File, &place, source, notes);
        definitions.push(reader.device(device, domain, names)?);
    }
    Ok(definitions)
}

/// Parses the groups of a resource in our own format.
pub(super) fn groups(
    groups: &Node,
    place: &str,
    source: &str,
    notes: &mut Vec<String>,
) -> Result<Vec<Group>, ConfigError> {
    Reader::new(Dialect::File, place, source, notes).groups(groups)
}

/// Parses one device.
struct Reader<'n> {
    dialect: Dialect,
    place: String,
    source: &'n str,
    notes: &'n mut Vec<String>,
}

impl<'n> Reader<'n> {
    fn new(dialect: Dialect, place: &str, source: &'n str, notes: &'n mut Vec<String>) -> Self {
        Self {
            dialect,
            place: place.to_owned(),
            source,
            notes,
        }
    }

    fn device(
        &mut self,
        device: &Node,
        domain: &str,
        names: &mut BTreeSet<ResourceName>,
    ) -> Result<Definition, ConfigError> {
        self.expect_mapping("it", device)?;
        let name = self.text(device, "name")?.unwrap_or_default();
        let name = name.trim();
        self.place = format!("{} ({name:?})", self.place);
        self.note_ignored_keys(device, &["name", "groups"]);
        let name: ResourceName = match format!("{domain}/{name}").parse() {
            Ok(name) => name,
            Err(error) => return Err(self.fault(Fault::Name(error))),
        };
        if !names.insert(name.clone()) {
            return Err(self.fault(Fault::DefinedTwice(name)));
        }
        let groups = match device.get("groups") {
            Some(groups) => self.groups(groups)?,
            None => Vec::new(),
        };
        if groups.is_empty() {
            self.note("no group has paths or usb, so it has no units");
        }
        Ok(Definition::Groups { name, groups })
    }

    fn groups(&mut self, groups: &Node) -> Result<Vec<Group>, ConfigError> {
        let mut read = Vec::new();
        let device = self.place.clone();
        for (group, number) in self.list("groups", groups)?.iter().zip(1..) {
            self.place = format!("{device}, group {number}");
            read.extend(self.group(group)?);
        }
        self.place = device;
        Ok(read)
    }

    /// Returns `None` for a group without units.
    fn group(&mut self, group: &Node) -> Result<Option<Group>, ConfigError> {
        self.expect_mapping("it", group)?;
        self.note_ignored_keys(group, &["paths", "usb", "count"]);
        let count = self.count(group, "count")?;
        let empty = Node::List(Vec::new());
        let paths = self.list("paths", group.get("paths").unwrap_or(&empty))?;
        let usb = self.list("usb", group.get("usb").unwrap_or(&empty))?;
        match (paths.is_empty(), usb.is_empty()) {
            (true, true) => {
                self.note("it has neither paths nor usb, so it has no units");
                Ok(None)
            }
            (false, false) => Err(self.fault(Fault::Keys(
                "a group has paths or usb, not both: make two groups of it",
            ))),
            (false, true) => {
                // Parse all of them, so that there is a note for each problem.
                let paths: Vec<Option<PathInGroup>> = paths
                    .iter()
                    .map(|path| self.path(path))
                    .collect::<Result<_, _>>()?;
                let paths: Option<Vec<PathInGroup>> = paths.into_iter().collect();
                Ok(paths.map(|paths| Group::Paths { paths, count }))
            }
            (true, false) => {
                let devices = usb.iter().map(|usb| self.usb(usb));
                let devices = devices.collect::<Result<_, _>>()?;
                Ok(Some(Group::Usb { devices, count }))
            }
        }
    }

    /// Returns `None` if the path can never match, so that the group has no units.
    fn path(&mut self, path: &Node) -> Result<Option<PathInGroup>, ConfigError> {
        const KEYS: [&str; 7] = [
            "path",
            "mountpath",
            "permissions",
            "type",
            "readonly",
            "limit",
            "optional",
        ];
        self.expect_mapping("a path", path)?;
        self.note_ignored_keys(path, &KEYS);
        let text = self.text(path, "path")?.unwrap_or_default();
        let text = text.trim();
        let mount_path = self.text(path, "mountpath")?;
        let mount_path = mount_path
            .map(|path| path.trim().to_owned())
            .filter(|path| !path.is_empty());
        let kind = self.path_type(path, text)?;
        let permissions = self
            .text(path, "permissions")?
            .filter(|_| kind == PathType::Device);
        let access = self.note_fault(text, access(permissions.as_deref()));
        let read_only = self.boolean(path, "readonly")?;
        let limit = self.count(path, "limit")?;
        let optional = self.boolean(path, "optional")?;
        let pattern = self.note_fault(text, GoGlob::new(text));
        Ok(pattern.zip(access).map(|(pattern, access)| PathInGroup {
            pattern,
            mount_path,
            access,
            kind,
            read_only,
            limit,
            optional,
        }))
    }

    fn path_type(&mut self, path: &Node, text: &str) -> Result<PathType, ConfigError> {
        let kind = self.text(path, "type")?;
        Ok(match kind.as_deref() {
            None | Some("" | "Device") => PathType::Device,
            Some("Mount") => PathType::Mount,
            Some(other) => {
                self.note(&format!(
                    "the type {other:?} of the path {text:?} is neither Device nor Mount: containers do not get it"
                ));
                PathType::Nothing
            }
        })
    }

    /// Adds a note if a part of a path is invalid.
    fn note_fault<T>(&mut self, path: &str, part: Result<T, impl Display>) -> Option<T> {
        match part {
            Ok(part) => Some(part),
            Err(fault) => {
                self.note(&format!("path {path:?}: {fault}; its group has no units"));
                None
            }
        }
    }

    fn usb(&mut self, usb: &Node) -> Result<Selector, ConfigError> {
        self.expect_mapping("a usb", usb)?;
        self.note_ignored_keys(usb, &["vendor", "product", "serial"]);
        Ok(Selector::Usb {
            vendor: self.usb_id(usb, "vendor")?,
            product: Some(self.usb_id(usb, "product")?),
            serial: self.text(usb, "serial")?.filter(|serial| !serial.is_empty()),
        })
    }
}

/// The access of a path; all without permissions.
fn access(permissions: Option<&str>) -> Result<Access, Fault> {
    match permissions {
        None | Some("") => Ok(Access::ALL),
        Some(permissions) => error::permissions(permissions),
    }
}
