//! Our own file, and generic-device-plugin's, whose devices may stand beside our resources.
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
use crate::model::request::annotations::{AskError, Requests, read_list};
use crate::model::request::class::Classes;
use crate::model::request::entry::Origin;
use crate::model::request::symlink::parse_symlinks;

/// The domain of resources of ours that are given none.
pub const DEFAULT_DOMAIN: &str = "oci-hotplug.dev";

/// Our part of the file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FileText {
    resources: Vec<ResourceText>,
}

/// What else may stand at the top of a file of ours. Of other keys only a file of generic-device-plugin's has any.
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
    /// Read as generic-device-plugin reads them.
    groups: Option<IgnoredAny>,
}

/// Reads the file. `domain` is one that counts instead of the file's. `with_devices` tells whether generic-device-plugin's
/// devices count: there they do not where an argument names others.
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
    let file: Option<FileText> = serde_yaml::from_str(text).map_err(malformed)?;
    let tree = Node::read(text, Dialect::File).map_err(malformed)?;
    let is_generic = generic::is_generic(text);
    let unknown = tree.keys().find(|key| !TOP_KEYS.contains(key));
    if let (Some(key), false) = (unknown, is_generic) {
        return Err(ConfigError::Element {
            place: path.display().to_string(),
            fault: Fault::UnknownKey {
                key: key.to_owned(),
                known: TOP_KEYS.join(", "),
            },
        });
    }
    let own_domain = generic::settings(text).domain;
    let domain = domain.or(own_domain.as_deref());
    let mut names = BTreeSet::new();
    let mut definitions = Vec::new();
    for (index, resource) in file.unwrap_or_default().resources.into_iter().enumerate() {
        let place = format!("{}, resource {} ({:?})", path.display(), index + 1, resource.name);
        let at = |fault| ConfigError::Element {
            place: place.clone(),
            fault,
        };
        let name = named(domain.unwrap_or(DEFAULT_DOMAIN), &resource.name).map_err(at)?;
        if !names.insert(name.clone()) {
            return Err(at(Fault::Twice(name)));
        }
        let groups = match (&resource.groups, tree.get("resources")) {
            (Some(_), Some(Node::List(list))) => list.get(index).and_then(|resource| resource.get("groups")),
            _ => None,
        };
        let definition = match groups {
            Some(groups) => {
                beside_groups(&resource).map_err(at)?;
                let groups = generic::groups(groups, &place, text, notes)?;
                Definition::Groups { name, groups }
            }
            None => requested(name, resource, classes).map_err(at)?,
        };
        definitions.push(definition);
    }
    if with_devices {
        let domain = domain.unwrap_or(GENERIC_DOMAIN);
        definitions.extend(generic::file(path, &tree, text, domain, &mut names, notes)?);
    } else if is_generic {
        notes.push(format!(
            "{}: its devices are not advertised, for --device names others, as in generic-device-plugin",
            path.display()
        ));
    }
    Ok(definitions)
}

fn named(domain: &str, name: &str) -> Result<ResourceName, Fault> {
    let whole = if name.contains('/') {
        name.to_owned()
    } else {
        format!("{domain}/{name}")
    };
    Ok(whole.parse()?)
}

/// What must not stand beside groups.
fn beside_groups(text: &ResourceText) -> Result<(), Fault> {
    if text.requests.is_some() {
        return Err(Fault::Keys(
            "it has requests and groups: make two resources of it",
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
            "beside groups there can be nothing but a name: count and permissions stand in the groups",
        )),
        false => Ok(()),
    }
}

fn requested(name: ResourceName, text: ResourceText, classes: &Classes) -> Result<Definition, Fault> {
    let requests = text.requests.as_ref().ok_or(Fault::Nothing)?;
    Ok(Definition::Requested(Requested {
        name,
        asks: asks(&text, requests, classes)?,
        mode: text.mode.unwrap_or_default(),
        count: count("count", text.count.unwrap_or(1))?,
    }))
}

/// The requests, with what the resource says of all of them.
fn asks(text: &ResourceText, requests: &[String], classes: &Classes) -> Result<Requests, Fault> {
    let fault = |request: &String, source: AskError| Fault::Request {
        request: request.clone(),
        source: Box::new(source),
    };
    let mut asks = Requests::default();
    for request in requests {
        // The keys beside it are options like those behind its `;`: read with them, they are judged alike.
        let mut whole = request.trim_end_matches(['\n', '\r']).to_owned();
        if let Some(path) = &text.path {
            whole.push_str(&format!(";path={}", path.display()));
        }
        if text.shared == Some(false) {
            whole.push_str(";exclusive");
        }
        let read = read_list(Origin::Administrator, &whole, classes);
        asks.extend(read.map_err(|source| fault(request, source))?);
    }
    if asks.is_empty() {
        return Err(Fault::Nothing);
    }
    if let Some(text) = &text.permissions {
        let access = permissions(text)?;
        for asked in &mut asks.entries {
            asked.request.options.access = access;
        }
    }
    for rule in text.symlinks.iter().flatten() {
        let rules = parse_symlinks(rule).map_err(|source| fault(rule, source.into()))?;
        asks.symlinks.extend(rules);
    }
    Ok(asks)
}
