//! Our own file, which may also have devices in generic-device-plugin's format.
//!
//! ```yaml
//! domain: example.com            # of names without a "/"
//! resources:
//! - name: sensor
//!   requests: ["usb:0403:6001"]  # the grammar of oci-hotplug-requests(7), classes too
//!   mode: hotplug                # or present, or static
//! ```

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::definition::{Definition, Mode, Requested};
use super::error::{ConfigError, Fault, count, permissions};
use super::generic::{self, GENERIC_DOMAIN};
use super::go_yaml::{Dialect, Node};
use crate::kubernetes::resources::names::ResourceName;
use crate::model::request::annotations::{RequestListError, read_list};
use crate::model::request::class::Classes;
use crate::model::request::entry::{Origin, Requests};
use crate::model::request::symlink::parse_symlinks;
use crate::model::yaml;

/// The domain of resources in our own format, if no other is given.
pub(crate) const DEFAULT_DOMAIN: &str = "oci-hotplug.dev";

/// The part of the file in our own format.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FileText {
    resources: Vec<ResourceText>,
}

/// The keys at the top level of our own format. Only a file of generic-device-plugin may have
/// others.
const TOP_KEYS: [&str; 7] = [
    "domain",
    "resources",
    "device",
    "devices",
    "listen",
    "log-level",
    "plugin-directory",
];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResourceText {
    name: String,
    requests: Option<Vec<String>>,
    symlinks: Option<Vec<String>>,
    mode: Option<Mode>,
    count: Option<u32>,
    shared: Option<bool>,
    permissions: Option<String>,
    path: Option<PathBuf>,
    /// Parsed as in generic-device-plugin.
    groups: Option<IgnoredAny>,
}

/// Parses the file. `domain` overrides that of the file. Without `with_devices`, the devices of
/// generic-device-plugin are ignored, as that plugin does if an argument names others.
pub(super) fn parse(
    path: &Path,
    text: &str,
    classes: &Classes,
    domain: Option<&str>,
    with_devices: bool,
    notes: &mut Vec<String>,
) -> Result<Vec<Definition>, ConfigError> {
    let malformed = |source| ConfigError::Malformed {
        path: path.to_owned(),
        source,
    };
    let root = yaml::parse(text).map_err(malformed)?;
    let file: Option<FileText> = root.decode(yaml::Dialect::Core).map_err(malformed)?;
    let tree = Node::of(&root, Dialect::File);
    let is_generic = generic::is_generic(text);
    if !is_generic {
        check_keys(path, &tree)?;
    }
    let own_domain = generic::settings(text).domain;
    let domain = domain.or(own_domain.as_deref());
    let mut reader = Reader {
        path,
        text,
        tree: &tree,
        domain: domain.unwrap_or(DEFAULT_DOMAIN),
        classes,
        names: BTreeSet::new(),
        notes,
    };
    let mut definitions = Vec::new();
    for (index, resource) in file.unwrap_or_default().resources.into_iter().enumerate() {
        definitions.push(reader.definition(index, resource)?);
    }
    let Reader { mut names, .. } = reader;
    if with_devices {
        let domain = domain.unwrap_or(GENERIC_DOMAIN);
        definitions.extend(generic::file(path, &tree, text, domain, &mut names, notes)?);
    } else if is_generic {
        notes.push(format!(
            "{}: its devices are not advertised because --device names others, as in generic-device-plugin",
            path.display()
        ));
    }
    Ok(definitions)
}

/// What the resources of a file are read with.
struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    tree: &'a Node,
    domain: &'a str,
    classes: &'a Classes,
    /// The names of the resources that were read.
    names: BTreeSet<ResourceName>,
    notes: &'a mut Vec<String>,
}

impl Reader<'_> {
    /// Reads the resource with this index in the file.
    fn definition(&mut self, index: usize, resource: ResourceText) -> Result<Definition, ConfigError> {
        let path = self.path.display();
        let place = format!("{path}, resource {} ({:?})", index + 1, resource.name);
        let at = |fault| ConfigError::Element {
            place: place.clone(),
            fault,
        };
        let name = named(self.domain, &resource.name).map_err(at)?;
        if !self.names.insert(name.clone()) {
            return Err(at(Fault::DefinedTwice(name)));
        }
        match groups_of(&resource, index, self.tree) {
            Some(groups) => {
                reject_with_groups(&resource).map_err(at)?;
                let groups = generic::groups(groups, &place, self.text, self.notes)?;
                Ok(Definition::Groups { name, groups })
            }
            None => requested(name, resource, self.classes).map_err(at),
        }
    }
}

fn check_keys(path: &Path, tree: &Node) -> Result<(), ConfigError> {
    let Some(key) = tree.keys().find(|key| !TOP_KEYS.contains(key)) else {
        return Ok(());
    };
    Err(ConfigError::Element {
        place: path.display().to_string(),
        fault: Fault::UnknownKey {
            key: key.to_owned(),
            known: TOP_KEYS.join(", "),
        },
    })
}

/// The groups of the resource with this index in the file, if it has groups.
fn groups_of<'t>(resource: &ResourceText, index: usize, tree: &'t Node) -> Option<&'t Node> {
    resource.groups.as_ref()?;
    match tree.get("resources")? {
        Node::List(resources) => resources.get(index)?.get("groups"),
        _ => None,
    }
}

fn named(domain: &str, name: &str) -> Result<ResourceName, Fault> {
    let whole = if name.contains('/') {
        name.to_owned()
    } else {
        format!("{domain}/{name}")
    };
    Ok(whole.parse()?)
}

/// Rejects keys that are not allowed with groups.
fn reject_with_groups(text: &ResourceText) -> Result<(), Fault> {
    if text.requests.is_some() {
        return Err(Fault::Keys(
            "a resource has requests or groups, not both: make two resources of it",
        ));
    }
    let ours = text.symlinks.is_some()
        || text.mode.is_some()
        || text.count.is_some()
        || text.shared.is_some()
        || text.permissions.is_some()
        || text.path.is_some();
    match ours {
        true => Err(Fault::Keys(
            "a resource with groups can have only a name: move count and permissions into the groups",
        )),
        false => Ok(()),
    }
}

fn requested(name: ResourceName, text: ResourceText, classes: &Classes) -> Result<Definition, Fault> {
    let requests = text.requests.as_ref().ok_or(Fault::SelectsNothing)?;
    Ok(Definition::Requested(Requested {
        name,
        requests: read_requests(&text, requests, classes)?,
        mode: text.mode.unwrap_or_default(),
        count: count("count", text.count.unwrap_or(1))?,
    }))
}

/// The requests, with the keys of the resource that apply to all of them.
fn read_requests(text: &ResourceText, texts: &[String], classes: &Classes) -> Result<Requests, Fault> {
    let mut requests = Requests::default();
    for request in texts {
        // The keys of the resource are options, so parse and check them like the options of a
        // request.
        let mut whole = request.trim_end_matches(['\n', '\r']).to_owned();
        if let Some(path) = &text.path {
            whole.push_str(&format!(";path={}", path.display()));
        }
        if text.shared == Some(false) {
            whole.push_str(";exclusive");
        }
        let read = read_list(Origin::Root, &whole, classes);
        requests.extend(read.map_err(Box::new)?);
    }
    if requests.is_empty() {
        return Err(Fault::SelectsNothing);
    }
    if let Some(text) = &text.permissions {
        let access = permissions(text)?;
        for entry in &mut requests.entries {
            entry.request.options.access = access;
        }
    }
    for rule in text.symlinks.iter().flatten() {
        let rules = parse_symlinks(rule).map_err(|source| Box::new(RequestListError::from(source)))?;
        requests.symlinks.extend(rules);
    }
    Ok(requests)
}
