//! Our own file, and generic-device-plugin's, whose resources may stand among ours.
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

use super::generic::{GENERIC_DOMAIN, GroupText};
use super::{ConfigError, DEFAULT_DOMAIN, Definition, Fault, Requested, count, permissions};
use crate::kubernetes::resource::ResourceName;
use crate::model::annotations::{AskError, Asks, read_list};
use crate::model::asked::Origin;
use crate::model::class::Classes;
use crate::model::symlink::parse_symlinks;

/// How devices are offered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Places for devices that come and go while the container runs: always healthy.
    #[default]
    Hotplug,
    /// One unit for each device, healthy while it is there; it comes and goes in the running container, too.
    Present,
    /// One unit for each device that is there, whose nodes are made with the container.
    Static,
}

/// The file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileText {
    domain: Option<String>,
    resources: Vec<ResourceText>,
    /// generic-device-plugin's word for them.
    #[serde(alias = "device")]
    devices: Vec<ResourceText>,
}

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
    groups: Option<Vec<GroupText>>,
}

/// Reads the file.
pub(super) fn parse(path: &Path, text: &str, classes: &Classes) -> Result<Vec<Definition>, ConfigError> {
    let file: Option<FileText> = serde_yaml::from_str(text).map_err(|source| ConfigError::Malformed {
        path: path.to_owned(),
        source,
    })?;
    let file = file.unwrap_or_default();
    let mut names = BTreeSet::new();
    let mut definitions = Vec::new();
    let lists = [
        ("resource", file.resources, DEFAULT_DOMAIN),
        ("device", file.devices, GENERIC_DOMAIN),
    ];
    for (what, list, default_domain) in lists {
        let domain = file.domain.as_deref().unwrap_or(default_domain);
        for (resource, number) in list.into_iter().zip(1..) {
            let place = format!("{}, {what} {number} ({:?})", path.display(), resource.name);
            let read = named(domain, &resource.name)
                .and_then(|name| match names.insert(name.clone()) {
                    true => Ok(name),
                    false => Err(Fault::Twice(name)),
                })
                .and_then(|name| definition(name, resource, classes));
            definitions.push(read.map_err(|fault| ConfigError::Element { place, fault })?);
        }
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

fn definition(name: ResourceName, mut text: ResourceText, classes: &Classes) -> Result<Definition, Fault> {
    let groups = text.groups.take();
    match (&text.requests, groups) {
        (Some(_), Some(_)) => Err(Fault::Keys(
            "it has requests and groups: make two resources of it",
        )),
        (None, None) => Err(Fault::Nothing),
        (None, Some(groups)) => {
            let ours = text.symlinks.is_some()
                || text.mode.is_some()
                || text.count.is_some()
                || text.shared.is_some()
                || text.permissions.is_some()
                || text.path.is_some();
            if ours {
                return Err(Fault::Keys(
                    "beside groups there can be nothing but a name: count and permissions stand in the groups",
                ));
            }
            let groups = groups.into_iter().map(GroupText::into_group);
            Ok(Definition::Groups {
                name,
                groups: groups.collect::<Result<_, _>>()?,
            })
        }
        (Some(requests), None) => {
            let asks = asks(&text, requests, classes)?;
            Ok(Definition::Requested(Requested {
                name,
                asks,
                mode: text.mode.unwrap_or_default(),
                count: count("count", text.count.unwrap_or(1))?,
            }))
        }
    }
}

/// The requests, with what the resource says of all of them.
fn asks(text: &ResourceText, requests: &[String], classes: &Classes) -> Result<Asks, Fault> {
    let fault = |request: &String, source: AskError| Fault::Request {
        request: request.clone(),
        source: Box::new(source),
    };
    let mut asks = Asks::default();
    for request in requests {
        // The keys beside it are options like those behind its `;`: read with them, they are judged alike.
        let mut whole = request.clone();
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
        for asked in &mut asks.asked {
            asked.request.options.access = access;
        }
    }
    for rule in text.symlinks.iter().flatten() {
        let rules = parse_symlinks(rule).map_err(|source| fault(rule, source.into()))?;
        asks.symlinks.extend(rules);
    }
    Ok(asks)
}
