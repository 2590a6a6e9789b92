//! Names of resources, of their units and of their CDI devices.
//!
//! Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use crate::model::device::SysPath;

/// The prefix of the names of all CDI devices of resources.
pub const CDI_PREFIX: &str = "k8s-";

/// The longest part after the `/` of a resource's name (Kubernetes' qualified names).
pub const MAX_NAME: usize = 63;

/// The longest domain (a DNS subdomain).
const MAX_DOMAIN: usize = 253;

/// The longest id of a unit (api.proto, `Device`).
pub const MAX_ID: usize = 63;

/// The name of an extended resource: `domain/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceName(String);

/// Why a text is not the name of a resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It has no `/`, or more than one.
    #[error("resource name {0:?}: write DOMAIN/NAME, such as oci-hotplug.dev/sensor")]
    Shape(String),
    #[error(
        "resource name {0:?}: kubernetes.io/ and requests. are reserved for Kubernetes: choose another domain"
    )]
    Reserved(String),
    /// The part before the `/` is invalid.
    #[error(
        "resource name {0:?}: the domain must be a DNS name of at most {MAX_DOMAIN} lower-case letters, digits, \"-\" and \".\", such as example.com"
    )]
    Domain(String),
    /// The part after the `/` is invalid.
    #[error(
        "resource name {0:?}: the part behind the \"/\" must be 1 to {MAX_NAME} letters, digits, \"-\", \"_\" and \".\", with a letter or digit first and last"
    )]
    Name(String),
}

impl ResourceName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part after the `/`.
    pub fn short(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, name)| name)
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ResourceName {
    type Err = NameError;

    /// Applies the rules of kubelet's `IsExtendedResourceName`
    /// (pkg/apis/core/v1/helper/helpers.go:38-60).
    fn from_str(text: &str) -> Result<Self, NameError> {
        let owned = || text.to_owned();
        let (domain, name) = text.split_once('/').ok_or_else(|| NameError::Shape(owned()))?;
        if name.contains('/') {
            return Err(NameError::Shape(owned()));
        }
        if text.contains("kubernetes.io/") || text.starts_with("requests.") {
            return Err(NameError::Reserved(owned()));
        }
        // kubelet adds the prefix `requests.` and checks the result.
        if domain.len() + "requests.".len() > MAX_DOMAIN || !domain.split('.').all(is_dns_label) {
            return Err(NameError::Domain(owned()));
        }
        if !is_qualified(name) {
            return Err(NameError::Name(owned()));
        }
        Ok(Self(owned()))
    }
}

fn is_dns_label(label: &str) -> bool {
    let is_plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    label.starts_with(is_plain)
        && label.ends_with(is_plain)
        && label.chars().all(|letter| is_plain(letter) || letter == '-')
}

fn is_qualified(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.starts_with(|letter: char| letter.is_ascii_alphanumeric())
        && name.ends_with(|letter: char| letter.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter))
}

/// Names that do not come from the configuration, such as those for paths: a path keeps its name
/// for the plugin's life, whichever other paths come and go.
#[derive(Debug, Clone, Default)]
pub struct Names {
    given: BTreeMap<(String, String), ResourceName>,
    taken: BTreeSet<ResourceName>,
    notes: Vec<String>,
    noted: BTreeSet<String>,
}

impl Names {
    /// Reserves a name from the configuration: no path gets it.
    pub fn reserve(&mut self, name: &ResourceName) {
        self.taken.insert(name.clone());
    }

    /// A name for a path (`what`), as similar to `plain` as kubelet's rules and the other names
    /// allow.
    pub fn name(&mut self, domain: &str, what: &str, plain: &str) -> Option<ResourceName> {
        let key = (domain.to_owned(), what.to_owned());
        if let Some(name) = self.given.get(&key) {
            return Some(name.clone());
        }
        let fitted: ResourceName = format!("{domain}/{}", fitted(plain)).parse().ok()?;
        let name = if self.taken.contains(&fitted) {
            let own: ResourceName = format!("{domain}/{}", marked(plain, what)).parse().ok()?;
            self.notes.push(format!(
                "{what} is advertised as {own}: {fitted} is already in use"
            ));
            own
        } else {
            if fitted.short() != plain {
                self.notes.push(format!(
                    "{what} is advertised as {fitted}: kubelet does not accept the name {plain:?}"
                ));
            }
            fitted
        };
        self.taken.insert(name.clone());
        self.given.insert(key, name.clone());
        Some(name)
    }

    /// Whether the name was given to a path, and does not come from the configuration.
    pub fn is_given(&self, name: &ResourceName) -> bool {
        self.given.values().any(|given| given == name)
    }

    /// Adds a note, unless it was added before.
    pub fn note(&mut self, note: String) {
        if self.noted.insert(note.clone()) {
            self.notes.push(note);
        }
    }

    /// The notes since the last call.
    pub fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }
}

/// The text as a valid part after the `/`: forbidden characters become `_`, or are removed at the
/// ends; a text that is too long is cut and gets a fingerprint of the whole text.
fn fitted(plain: &str) -> String {
    let safe: String = plain.chars().map(allowed).collect();
    let safe = safe.trim_matches(|letter: char| !letter.is_ascii_alphanumeric());
    if safe.is_empty() || safe.len() > MAX_NAME {
        marked(safe, plain)
    } else {
        safe.to_owned()
    }
}

fn allowed(letter: char) -> char {
    if letter.is_ascii_alphanumeric() || "-_.".contains(letter) {
        letter
    } else {
        '_'
    }
}

/// `plain`, followed by a fingerprint of `what`.
fn marked(plain: &str, what: &str) -> String {
    const MARK: usize = 8;
    let mark = &fingerprint(what)[..MARK];
    let safe: String = plain.chars().map(allowed).take(MAX_NAME - MARK - 1).collect();
    let safe = safe.trim_start_matches(|letter: char| !letter.is_ascii_alphanumeric());
    if safe.is_empty() {
        return format!("x{mark}");
    }
    format!("{safe}-{mark}")
}

/// 16 hex digits that distinguish texts (FNV-1a, 64 bits). The function must never change, because
/// kubelet's cached responses contain its results. Not for secrets.
pub fn fingerprint(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// The id of unit `number` of a resource's device `what`: unique among all resources, as kubelet
/// requires.
pub fn unit_id(resource: &ResourceName, what: &str, number: u32) -> String {
    let mark = fingerprint(&format!("{resource} {what}"));
    let name: String = resource.short().chars().take(MAX_ID - mark.len() - 12).collect();
    format!("{name}-{mark}-{number}")
}

/// The part after the `=` in the name of the CDI device for a resource's slots, or for one of its
/// devices. It must never change: kubelet uses it again whenever a container of the pod restarts.
pub(super) fn cdi_name(resource: &ResourceName, root: Option<&SysPath>) -> String {
    let own = root.map_or_else(String::new, |root| format!("-{}", fingerprint(root.as_str())));
    format!("{}{own}", cdi_stem(resource.as_str()))
}

/// The prefix of the names of a resource's CDI devices; no other resource has it.
pub fn cdi_stem(resource: &str) -> String {
    let short = resource.split_once('/').map_or("", |(_, name)| name);
    format!("{CDI_PREFIX}{short}-{}", &fingerprint(resource)[..8])
}

#[cfg(test)]
mod tests;
