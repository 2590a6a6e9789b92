//! A rule: which devices, with which access, of which containers.
//!
//! Must not know what it means that a rule fits.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;

use super::ContainerTraits;
use super::subject::Subject;
use crate::model::device::Access;
use crate::model::remote::address::{RemoteDevice, ServerDevice};
use crate::model::request::entry::RequestEntry;
use crate::model::request::selector::{Chain, DeviceSelector, Found, Glob, SelectorError};

/// A rule as it is written: an element of `[[policy.allow]]` or `[[policy.deny]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RuleDefinition {
    /// Selectors as in requests, without `parent-of:` and options. A device is meant when it, or
    /// one above it, is what one of them says.
    pub devices: Vec<String>,
    /// The access that is allowed, or refused; everything unless it is said.
    pub access: Option<Access>,
    /// Containers with all of these annotations: patterns of keys, and of their whole values.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Containers with, or without, a user namespace.
    pub user_namespace: Option<bool>,
    /// Containers that have, or have not, every device from their engine.
    pub privileged: Option<bool>,
    /// What a message says.
    pub reason: Option<String>,
    /// Which requests; only in deny rules.
    pub applies_to: Option<AppliesTo>,
}

/// Which requests a deny rule applies to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AppliesTo {
    /// Requests in annotations that use no class.
    #[default]
    Untrusted,
    /// All, also hook arguments and classes.
    All,
}

/// ServerDevice of the two lists a rule stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    /// `[[policy.allow]]`
    Allow,
    /// `[[policy.deny]]`
    Deny,
}

/// Where a rule stands, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The list.
    pub list: List,
    /// The file.
    pub file: PathBuf,
    /// The line of its heading, counted from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = match self.list {
            List::Allow => "allow",
            List::Deny => "deny",
        };
        write!(
            f,
            "[[policy.{list}]] at {} line {}",
            self.file.display(),
            self.line
        )
    }
}

/// A rule, ready for use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Where it stands.
    pub place: Place,
    /// ServerDevice devices: those of any of these.
    pub devices: Vec<DeviceSelector>,
    /// ServerDevice access.
    pub access: Access,
    /// Patterns of annotations, all of which must be there.
    pub annotations: Vec<(Glob, Glob)>,
    /// Whether a user namespace is demanded, or none.
    pub user_namespace: Option<bool>,
    /// Whether a privileged container is demanded, or none.
    pub privileged: Option<bool>,
    /// What a message says.
    pub reason: Option<String>,
    /// Whose requests.
    pub applies_to: AppliesTo,
}

/// A rule that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {fault}")]
pub struct RuleError {
    /// The rule.
    pub place: Place,
    /// What is wrong with it.
    pub fault: Box<RuleFault>,
}

/// What is wrong with a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleFault {
    /// It names no device.
    #[error("no devices: write for example devices = [\"usb:0403\"]")]
    Empty,
    /// A selector.
    #[error("device {text:?}: {source} (devices, element {position})")]
    Selector {
        /// As it was written.
        text: String,
        /// Counted from 1.
        position: usize,
        /// What is wrong with it.
        source: SelectorError,
    },
    /// `parent-of:`
    #[error(
        "device {text:?}: rules do not support parent-of: select the parent itself, which includes all devices below it (devices, element {position})"
    )]
    Parent {
        /// As it was written.
        text: String,
        /// Counted from 1.
        position: usize,
    },
    /// Options.
    #[error(
        "device {text:?}: devices of a rule have no options: use the key access = \"rw\" (devices, element {position})"
    )]
    Options {
        /// As it was written.
        text: String,
        /// Counted from 1.
        position: usize,
    },
    /// A pattern of an annotation.
    #[error("annotations, {text:?}: {source}")]
    Pattern {
        /// As it was written.
        text: String,
        /// What is wrong with it.
        source: SelectorError,
    },
    /// `applies-to` where it makes no sense.
    #[error("applies-to is only for [[policy.deny]]: trusted requests need no allow rule")]
    AppliesTo,
}

impl Rule {
    /// Reads a rule that stands at `place`.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(place: Place, definition: &RuleDefinition) -> Result<Self, RuleError> {
        let list = place.list;
        Self::read(place.clone(), list, definition).map_err(|fault| RuleError {
            place,
            fault: Box::new(fault),
        })
    }

    fn read(place: Place, list: List, definition: &RuleDefinition) -> Result<Self, RuleFault> {
        if definition.devices.is_empty() {
            return Err(RuleFault::Empty);
        }
        if list == List::Allow && definition.applies_to.is_some() {
            return Err(RuleFault::AppliesTo);
        }
        let devices = definition
            .devices
            .iter()
            .zip(1..)
            .map(|(text, position)| parse_devices(text, position))
            .collect::<Result<_, _>>()?;
        let pattern = |text: &str| {
            Glob::new(text).map_err(|source| RuleFault::Pattern {
                text: text.to_owned(),
                source,
            })
        };
        let annotations = definition
            .annotations
            .iter()
            .map(|(key, value)| Ok((pattern(key)?, pattern(value)?)))
            .collect::<Result<_, RuleFault>>()?;
        Ok(Self {
            place,
            devices,
            access: definition.access.unwrap_or(Access::ALL),
            annotations,
            user_namespace: definition.user_namespace,
            privileged: definition.privileged,
            reason: definition.reason.clone(),
            applies_to: definition.applies_to.unwrap_or_default(),
        })
    }

    /// Whether the rule speaks of requests of this origin.
    pub fn concerns(&self, entry: &RequestEntry) -> bool {
        self.applies_to == AppliesTo::All || !entry.is_trusted()
    }

    /// Whether the rule's conditions hold for a container.
    pub fn applies(&self, to: &ContainerTraits) -> bool {
        let has = |(key, value): &(Glob, Glob)| {
            to.annotations
                .iter()
                .any(|(name, text)| key.matches_value(name) && value.matches_value(text))
        };
        self.user_namespace
            .is_none_or(|demanded| demanded == to.user_namespace)
            && self.privileged.is_none_or(|demanded| demanded == to.privileged)
            && self.annotations.iter().all(has)
    }

    /// Whether the rule speaks of devices of another host by their host, and surely means what is
    /// asked for.
    pub fn covers(&self, remote: &RemoteDevice) -> bool {
        self.remote(remote, ServerDevice::covers)
    }

    /// The same, and whether it could mean what is asked for: who asks vaguely is not to have what
    /// is denied by name.
    pub fn may_mean(&self, remote: &RemoteDevice) -> bool {
        self.remote(remote, ServerDevice::may_overlap)
    }

    fn remote(&self, remote: &RemoteDevice, means: impl Fn(&ServerDevice, &ServerDevice) -> bool) -> bool {
        let named = self.devices.iter().filter_map(DeviceSelector::named_remote);
        named
            .filter(|(server, _)| **server == remote.server)
            .any(|(_, device)| device.is_none_or(|device| means(device, &remote.device)))
    }

    /// Whether the rule means this device, by any of its names: for rules that deny.
    pub fn finds(&self, subject: &Subject<'_>) -> Found {
        self.finds_in(subject.chain())
    }

    /// The same, by what sysfs says of it alone: for rules that allow, as the path of `node:` is
    /// the request's.
    pub fn finds_in_sysfs(&self, subject: &Subject<'_>) -> Found {
        subject
            .in_sysfs()
            .map_or(Found::No, |chain| self.finds_in(&chain))
    }

    fn finds_in(&self, chain: &Chain<'_>) -> Found {
        Found::any(self.devices.iter().map(|devices| devices.matches(chain)))
    }
}

fn parse_devices(text: &str, position: usize) -> Result<DeviceSelector, RuleFault> {
    let text = text.to_owned();
    let has_options = crate::model::quoting::split_unescaped(&text, ';').len() > 1;
    if has_options {
        return Err(RuleFault::Options { text, position });
    }
    match text.parse::<DeviceSelector>() {
        Ok(selector) if selector.parents() > 0 => Err(RuleFault::Parent { text, position }),
        Ok(selector) => Ok(selector),
        Err(source) => Err(RuleFault::Selector {
            text,
            position,
            source,
        }),
    }
}
