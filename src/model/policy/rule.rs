//! A rule: the devices, the access and the containers that it applies to.
//!
//! Must not know what follows when a rule matches.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;

use super::subject::Subject;
use super::traits::ContainerTraits;
use crate::model::device::Access;
use crate::model::remote::address::{RemoteDevice, ServerDevice};
use crate::model::request::entry::RequestEntry;
use crate::model::request::selector::{Chain, DeviceSelector, Glob, Match, SelectorError};

/// A rule in the configuration: an element of `[[policy.allow]]` or `[[policy.deny]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RuleDefinition {
    /// Selectors as in requests, without `parent-of:` and options. The rule matches a device if one
    /// of them matches the device or a device above it.
    pub devices: Vec<String>,
    /// The access that is allowed or denied; by default all.
    pub access: Option<Access>,
    /// The rule applies only to containers with all of these annotations: patterns of keys and of
    /// whole values.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// The rule applies only to containers with, or without, a user namespace.
    pub user_namespace: Option<bool>,
    /// The rule applies only to containers that are, or are not, privileged.
    pub privileged: Option<bool>,
    /// The reason that messages show.
    pub reason: Option<String>,
    /// The requests that the rule applies to; only in deny rules.
    pub applies_to: Option<AppliesTo>,
}

/// Which requests a deny rule applies to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AppliesTo {
    /// Requests in annotations that do not use a class.
    #[default]
    Untrusted,
    /// All requests, including hook arguments and classes.
    All,
}

/// The list that contains a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    /// `[[policy.allow]]`
    Allow,
    /// `[[policy.deny]]`
    Deny,
}

/// Where a rule is written, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub list: List,
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

/// A parsed rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub place: Place,
    /// The devices that any of these selectors matches.
    pub devices: Vec<DeviceSelector>,
    pub access: Access,
    /// Patterns of annotations, all of which the container must have.
    pub annotations: Vec<(Glob, Glob)>,
    /// Whether the container must have a user namespace (`true`) or must not (`false`).
    pub user_namespace: Option<bool>,
    /// Whether the container must be privileged (`true`) or must not (`false`).
    pub privileged: Option<bool>,
    /// The reason that messages show.
    pub reason: Option<String>,
    /// The requests that the rule applies to.
    pub applies_to: AppliesTo,
}

/// An invalid rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {fault}")]
pub struct RuleError {
    pub place: Place,
    pub fault: Box<RuleFault>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleFault {
    /// It names no device.
    #[error("no devices: write for example devices = [\"usb:0403\"]")]
    Empty,
    /// A selector is invalid.
    #[error("device {text:?}: {source} (devices, element {position})")]
    Selector {
        /// The selector as written.
        text: String,
        /// Counted from 1.
        position: usize,
        source: SelectorError,
    },
    /// A selector begins with `parent-of:`.
    #[error(
        "device {text:?}: rules do not support parent-of: select the parent itself, which includes all devices below it (devices, element {position})"
    )]
    Parent {
        /// The selector as written.
        text: String,
        /// Counted from 1.
        position: usize,
    },
    /// A selector has options.
    #[error(
        "device {text:?}: devices of a rule have no options: use the key access = \"rw\" (devices, element {position})"
    )]
    Options {
        /// The selector as written.
        text: String,
        /// Counted from 1.
        position: usize,
    },
    /// A pattern of annotations is invalid.
    #[error("annotations, {text:?}: {source}")]
    Pattern {
        /// The pattern as written.
        text: String,
        source: SelectorError,
    },
    /// `applies-to` in an allow rule.
    #[error("applies-to is only for [[policy.deny]]: trusted requests need no allow rule")]
    AppliesTo,
}

impl Rule {
    /// Parses a rule that is written at `place`.
    ///
    /// # Errors
    /// The first error in the rule.
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

    /// Whether the rule applies to requests of this origin.
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

    /// Whether the rule names a remote host and surely matches every device that the request can
    /// select.
    pub fn covers(&self, remote: &RemoteDevice) -> bool {
        self.remote(remote, ServerDevice::covers)
    }

    /// The same for deny rules: whether the rule may match a device that the request can select. A
    /// vague request must not get a device that is denied by name.
    pub fn may_mean(&self, remote: &RemoteDevice) -> bool {
        self.remote(remote, ServerDevice::may_overlap)
    }

    fn remote(&self, remote: &RemoteDevice, means: impl Fn(&ServerDevice, &ServerDevice) -> bool) -> bool {
        let named = self.devices.iter().filter_map(DeviceSelector::named_remote);
        named
            .filter(|(server, _)| **server == remote.server)
            .any(|(_, device)| device.is_none_or(|device| means(device, &remote.device)))
    }

    /// Whether the rule matches this device by any of its names: for deny rules.
    pub fn finds(&self, subject: &Subject<'_>) -> Match {
        self.finds_in(subject.chain())
    }

    /// Whether the rule matches the device by its names in sysfs alone: for allow rules, because
    /// the path of a static node comes from the request.
    pub fn finds_in_sysfs(&self, subject: &Subject<'_>) -> Match {
        subject
            .in_sysfs()
            .map_or(Match::No, |chain| self.finds_in(&chain))
    }

    fn finds_in(&self, chain: &Chain<'_>) -> Match {
        Match::any(self.devices.iter().map(|devices| devices.matches(chain)))
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
