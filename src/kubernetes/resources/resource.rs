//! What is advertised, as values: names that kubelet takes, units with their health, and which units belong together.
//!
//! Pure. Must not know configuration formats, gRPC, nor how the host's devices are read.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use crate::cdi::generate::Wish;
use crate::model::device::Access;

/// The longest that may stand behind the `/` of a resource's name (Kubernetes' qualified names).
pub const MAX_NAME: usize = 63;

/// The longest domain in front of it (a DNS subdomain).
const MAX_DOMAIN: usize = 253;

/// The longest id of a unit, as the protocol's comments have it.
pub const MAX_ID: usize = 63;

/// The name of an extended resource: `domain/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceName(String);

/// A text that is no name of a resource, and the cure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No `/`, or more than one.
    #[error("resource name {0:?}: write DOMAIN/NAME, such as oci-hotplug.dev/sensor")]
    Shape(String),
    /// Names that Kubernetes keeps for itself.
    #[error("resource name {0:?}: kubernetes.io/ and requests. are Kubernetes' own: choose another domain")]
    Reserved(String),
    /// The part before the `/`.
    #[error(
        "resource name {0:?}: the domain must be a DNS name of at most {MAX_DOMAIN} lower-case letters, digits, \"-\" and \".\", such as example.com"
    )]
    Domain(String),
    /// The part behind the `/`.
    #[error(
        "resource name {0:?}: the part behind the \"/\" must be 1 to {MAX_NAME} letters, digits, \"-\", \"_\" and \".\", with a letter or digit first and last"
    )]
    Name(String),
}

impl ResourceName {
    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part behind the `/`.
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

    /// Judges as kubelet's `IsExtendedResourceName` does (pkg/apis/core/v1/helper/helpers.go:38-60).
    fn from_str(text: &str) -> Result<Self, NameError> {
        let owned = || text.to_owned();
        let (domain, name) = text.split_once('/').ok_or_else(|| NameError::Shape(owned()))?;
        if name.contains('/') {
            return Err(NameError::Shape(owned()));
        }
        if text.contains("kubernetes.io/") || text.starts_with("requests.") {
            return Err(NameError::Reserved(owned()));
        }
        // kubelet puts `requests.` in front and judges the whole.
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

/// The names that were given to what has none of its own, such as paths: a path keeps its name for the plugin's life,
/// whatever else comes and goes.
#[derive(Debug, Clone, Default)]
pub struct Names {
    given: BTreeMap<(String, String), ResourceName>,
    taken: BTreeSet<ResourceName>,
    notes: Vec<String>,
    told: BTreeSet<String>,
}

impl Names {
    /// A name that a configuration gives, which no path can have.
    pub fn reserve(&mut self, name: &ResourceName) {
        self.taken.insert(name.clone());
    }

    /// The name of `what`, as near to `plain` as kubelet's rules and the other names allow.
    pub fn name(&mut self, domain: &str, what: &str, plain: &str) -> Option<ResourceName> {
        let key = (domain.to_owned(), what.to_owned());
        if let Some(name) = self.given.get(&key) {
            return Some(name.clone());
        }
        let fitted: ResourceName = format!("{domain}/{}", fitted(plain)).parse().ok()?;
        let name = if self.taken.contains(&fitted) {
            let own: ResourceName = format!("{domain}/{}", marked(plain, what)).parse().ok()?;
            self.notes.push(format!(
                "{what} is advertised as {own}: {fitted} is another's name"
            ));
            own
        } else {
            if fitted.short() != plain {
                self.notes.push(format!(
                    "{what} is advertised as {fitted}: kubelet takes no name {plain:?}"
                ));
            }
            fitted
        };
        self.taken.insert(name.clone());
        self.given.insert(key, name.clone());
        Some(name)
    }

    /// Whether a name was given here, and not by a configuration.
    pub fn is_given(&self, name: &ResourceName) -> bool {
        self.given.values().any(|given| given == name)
    }

    /// Something to be told once.
    pub fn note(&mut self, note: String) {
        if self.told.insert(note.clone()) {
            self.notes.push(note);
        }
    }

    /// What is to be told of names given since this was last asked.
    pub fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }
}

/// The text as a name behind the `/`: what is not allowed becomes `_`, or goes at the ends; what is too long is cut,
/// and told apart by a fingerprint of the whole.
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

/// `plain` with a fingerprint of `what` behind it.
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

/// 16 hex digits that tell texts apart (FNV-1a, 64 bits): the same for ever, as a container's cached answer names
/// them. No secret rests on it.
pub fn fingerprint(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// The id of the unit `number` of what a resource has under `what`: unique among all resources, as kubelet wants it.
pub fn unit_id(resource: &ResourceName, what: &str, number: u32) -> String {
    let mark = fingerprint(&format!("{resource} {what}"));
    let name: String = resource.short().chars().take(MAX_ID - mark.len() - 12).collect();
    format!("{name}-{mark}-{number}")
}

/// A node that a container gets when it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSpec {
    /// Its path on the host; a directory stands for all nodes in it.
    pub host: PathBuf,
    /// Its path in the container.
    pub container: PathBuf,
    /// What the container may do.
    pub access: Access,
}

/// A path that is mounted into a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountSpec {
    /// Its path on the host.
    pub host: PathBuf,
    /// Its path in the container.
    pub container: PathBuf,
    /// Whether the container may only read.
    pub read_only: bool,
}

/// What a container gets with a unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    /// The CDI device that brings the hooks, by its name behind the `=`: then the nodes are the watcher's affair.
    pub cdi: Option<String>,
    /// Nodes, at creation: where there is no CDI device, or CDI is off.
    pub nodes: Vec<NodeSpec>,
    /// Nodes, at creation, whatever brings the others.
    pub beside: Vec<NodeSpec>,
    /// Mounts.
    pub mounts: Vec<MountSpec>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
}

/// Something that a container can be given once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Whether a container can be given it now.
    pub healthy: bool,
    /// Of a device of another host that a container has: whether it is attached, or can be at any moment. It is healthy in
    /// any case.
    pub attached: Option<bool>,
    /// The NUMA node it is at.
    pub numa: Option<i64>,
    /// Where it is (a path of sysfs, say): units with long common beginnings belong together.
    pub place: String,
    /// What the container gets; units that are alike share it.
    pub offer: Arc<Offer>,
}

/// A resource as it is at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Its name.
    pub name: ResourceName,
    /// Its units by id.
    pub units: BTreeMap<String, Unit>,
    /// The CDI devices that its units name.
    pub wishes: Vec<Wish>,
    /// Whether its units are places for devices that come and go.
    pub hotplug: bool,
    /// Whose metrics it has beside ours.
    pub metrics: Metrics,
}

/// The program whose metrics a resource has beside ours: those of its own format.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Metrics {
    /// No other's.
    #[default]
    Ours,
    /// generic-device-plugin's.
    Generic,
    /// usbip-device-plugin's.
    Usbip,
}

impl Metrics {
    /// The name of that program's counter of answers to Allocate.
    pub fn allocations(self) -> Option<&'static str> {
        match self {
            Self::Ours => None,
            Self::Generic => Some("generic_device_plugin_allocations_total"),
            Self::Usbip => Some("usbip_device_plugin_allocations_total"),
        }
    }

    /// The name of that program's counter of registrations beyond the first.
    pub fn restarts(self) -> Option<&'static str> {
        match self {
            Self::Ours => None,
            Self::Generic => Some("generic_device_plugin_restarts_total"),
            Self::Usbip => Some("usbip_device_plugin_restarts_total"),
        }
    }
}

impl Resource {
    /// How many units are healthy, and how many are not.
    pub fn health(&self) -> (usize, usize) {
        let healthy = self.units.values().filter(|unit| unit.healthy).count();
        (healthy, self.units.len() - healthy)
    }

    /// The state that follows `before`: what was given to a container and has gone stays, unhealthy, so that kubelet
    /// can tell whose device is away; all else that has gone is withdrawn.
    pub fn keep_allocated(&mut self, before: &Resource, allocated: &BTreeSet<String>) {
        for (id, unit) in &before.units {
            if allocated.contains(id) && !self.units.contains_key(id) {
                let gone = Unit {
                    healthy: false,
                    ..unit.clone()
                };
                self.units.insert(id.clone(), gone);
                for wish in &before.wishes {
                    if unit.offer.cdi.as_ref() == Some(&wish.name) && !self.wishes.contains(wish) {
                        self.wishes.push(wish.clone());
                    }
                }
            }
        }
    }

    /// Only these units, as they are, and what brings them.
    pub fn retain(&mut self, ids: &BTreeSet<String>) {
        self.units.retain(|id, _| ids.contains(id));
        let units = &self.units;
        let brings = |wish: &Wish| {
            units
                .values()
                .any(|unit| unit.offer.cdi.as_ref() == Some(&wish.name))
        };
        self.wishes.retain(brings);
    }

    /// Which `size` of the units `available` a container should get that must have `must`: those that are at the same
    /// NUMA node, and then behind the same hub. Units that are not there are passed over.
    pub fn preferred(&self, available: &[String], must: &[String], size: usize) -> Vec<String> {
        let mut chosen: Vec<&String> = must
            .iter()
            .filter(|id| self.units.contains_key(*id))
            .take(size)
            .collect();
        let mut rest: Vec<(&String, &Unit)> = available
            .iter()
            .filter(|id| !chosen.contains(id))
            .filter_map(|id| self.units.get_key_value(id))
            .filter(|(_, unit)| unit.healthy)
            .collect();
        rest.sort_by(|(one, left), (other, right)| {
            (left.numa, &left.place, one).cmp(&(right.numa, &right.place, other))
        });
        rest.dedup_by(|one, other| one.0 == other.0);
        let missing = size.saturating_sub(chosen.len()).min(rest.len());
        if chosen.is_empty() {
            // Neighbours stand side by side: the best run is the one whose ends have most in common.
            let runs = rest.windows(missing.max(1));
            let best = runs.rev().max_by_key(|run| match run {
                [(_, first), .., (_, last)] => nearness(first, last),
                _ => (false, 0),
            });
            chosen.extend(best.unwrap_or_default().iter().take(missing).map(|(id, _)| *id));
        } else {
            let near = |unit: &Unit| {
                let musts = chosen.iter().filter_map(|id| self.units.get(*id));
                musts.map(|other| nearness(unit, other)).max()
            };
            rest.sort_by_key(|(_, unit)| std::cmp::Reverse(near(unit)));
            let nearest: Vec<&String> = rest.iter().take(missing).map(|(id, _)| *id).collect();
            chosen.extend(nearest);
        }
        chosen.into_iter().cloned().collect()
    }
}

/// Whether two units are at one NUMA node, and how many directories they have in common.
fn nearness(one: &Unit, other: &Unit) -> (bool, usize) {
    let common = one
        .place
        .split('/')
        .zip(other.place.split('/'))
        .take_while(|(left, right)| left == right)
        .count();
    (one.numa == other.numa, common)
}

#[cfg(test)]
mod tests;
