//! The rules of the configuration, the list of protected devices, and the verdict on each device
//! that a request selects.
//!
//! Requests in annotations are untrusted; hook arguments and classes are trusted
//! (`RequestEntry::is_trusted`). For an untrusted request, the first of these that applies decides:
//! ```text
//! a matching deny rule                        denied
//! classes-only                                denied
//! a protected line that no rule lifts         denied (protected.rs: the host's disks, its memory)
//! allow rules that cover the access           allowed
//! a protected line                            denied
//! default = removable | nothing | anything    allowed or denied
//! ```
//! Untrusted requests get a device of another host (`usbip:`) only if an allow rule names that
//! host: they must not make this host connect to others, nor expose its kernel to their devices.
//! Trusted requests are denied only by deny rules with `applies-to = "all"`.
//!
//! An unknown fact does not count as "no". While udevd has not processed a device, and one of its
//! facts decides, the verdict is pending. When udevd is overdue or does not run, an unknown fact
//! counts as matching in deny rules and protected lines, and as not matching in allow rules. A deny
//! rule that matches a device also applies to the devices that expose its bytes (`same_data`). Must
//! not know how the rules were read (`host::config`) nor what is done with a verdict
//! (`watcher::admission`).

mod denial;
mod fallback;
mod hints;
mod host_use;
mod of_user;
pub(crate) mod protected;
mod rule;
mod subject;
mod traits;
mod untrusted;

use std::path::{Path, PathBuf};

pub use denial::Denial;
pub use fallback::Fallback;
pub use host_use::{HostUse, Use};
pub use protected::{LINES, Line};
pub use rule::{AppliesTo, List, Place, Rule, RuleDefinition, RuleError, RuleFault};
pub use subject::blocks_that_decide;
pub use traits::ContainerTraits;

use self::hints::Hints;
use self::subject::Subject;
use crate::model::device::inventory::Inventory;
use crate::model::device::same_data;
use crate::model::device::{Device, SysPath};
use crate::model::remote::address::RemoteDevice;
use crate::model::request::Request;
use crate::model::request::entry::RequestEntry;
use crate::model::request::selector::{DeviceSelector, Match, Selector};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// What untrusted requests get when no rule matches.
    pub fallback: Fallback,
    /// Whether untrusted requests may only use classes.
    pub classes_only: bool,
    pub allow: Vec<Rule>,
    pub deny: Vec<Rule>,
    pub written_in: PathBuf,
    /// The options that make `oci-hotplug` use this configuration and state directory, as words of
    /// a shell, each followed by a space; empty for the defaults.
    pub tool_options: String,
    /// Files whose rules are unknown because of an error in them.
    pub unknown: Vec<UnknownRules>,
}

/// A file of the configuration with an error: which rules it would have is unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownRules {
    pub fault: String,
    /// Whether one of its rules may deny trusted requests.
    pub may_concern_trusted: bool,
}

/// What a verdict depends on, besides the request and the device.
#[derive(Clone, Copy)]
pub struct PolicyContext<'a> {
    pub traits: &'a ContainerTraits,
    /// All devices of the host: the devices above and below count, too.
    pub inventory: &'a Inventory,
    /// The block devices that the host itself uses. Ignored where [`blocks_that_decide`] is empty.
    pub host_use: &'a HostUse,
}

/// Why a device is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllowedBy<'p> {
    Trusted,
    /// An allow rule.
    Rule(&'p Place),
    /// The default: no rule matches.
    Fallback(Fallback),
}

/// What the policy says about one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<'p> {
    Allowed(AllowedBy<'p>),
    Denied(Denial),
    /// The facts of this device decide, and udevd has not processed it yet.
    Undecided(SysPath),
}

/// What the deny rules say about one device.
enum Denied<'p> {
    /// A rule matches.
    Surely(Denial),
    /// This rule matches or not, depending on facts of this device that udevd has not delivered.
    Unknown(&'p Rule, SysPath),
    No,
}

impl Policy {
    /// Whether a container with this request may start, as far as that is certain before any device
    /// is known.
    ///
    /// # Errors
    /// [`Denial`] if no device that this request can ever select would be allowed.
    pub fn authorise(&self, traits: &ContainerTraits, entry: &RequestEntry) -> Result<(), Denial> {
        if let Some(denial) = self.denied_as_unknown(entry) {
            return Err(denial);
        }
        let request = &entry.request;
        let remote = request.selector.remote();
        if let Some(rule) = remote.as_ref().and_then(|remote| {
            let denies = |rule: &&Rule| {
                rule.concerns(entry)
                    && rule.applies(traits)
                    && rule.access.meets(request.options.access)
                    && rule.may_mean(remote)
            };
            self.deny.iter().find(denies)
        }) {
            return Err(Denial::by_rule(rule, request.options.access));
        }
        if entry.is_trusted() {
            return Ok(());
        }
        if self.classes_only {
            return Err(self.denied_by_classes_only(request));
        }
        if let Some(remote) = &remote {
            return match self.allow_remote(remote, traits) {
                true => Ok(()),
                false => Err(Denial::as_remote(
                    &remote.server,
                    self.hints().allow_server(&remote.server),
                )),
            };
        }
        let only_one = Some(&request.selector).filter(|_| request.options.or.is_empty());
        let line = only_one.and_then(named_node).and_then(protected::by_node);
        if let Some(line) = line.filter(|line| line.always) {
            return Err(self.denied_by_line(line, request));
        }
        if self.allow.iter().any(|rule| rule.applies(traits)) {
            return Ok(());
        }
        match line {
            Some(line) => Err(self.denied_by_line(line, request)),
            None if self.fallback == Fallback::Nothing => {
                Err(Denial::by_fallback(self.fallback, self.hints().allow(request)))
            }
            None => Ok(()),
        }
    }

    /// Whether a container may have this device for this request. The device is at or below a root.
    pub fn judge(&self, entry: &RequestEntry, device: &Device, context: &PolicyContext<'_>) -> Verdict<'_> {
        if let Some(denial) = self.denied_as_unknown(entry) {
            return Verdict::Denied(denial);
        }
        let subject = Subject::new(device, context.inventory, context.host_use);
        if entry.request.selector.remote().is_some() {
            if let Err(denial) = self.authorise(context.traits, entry) {
                return Verdict::Denied(denial);
            }
        }
        let unknown = match self.denied(entry, device, context) {
            Denied::Surely(denial) => return Verdict::Denied(denial),
            Denied::Unknown(rule, whose) => Some((rule, whose)),
            Denied::No => None,
        };
        let verdict = if entry.is_trusted() {
            Verdict::Allowed(AllowedBy::Trusted)
        } else {
            self.judge_untrusted(&entry.request, &subject, context.traits)
        };
        match (verdict, unknown) {
            (Verdict::Allowed(_), Some((_, whose))) if subject.is_awaited(&whose) => {
                Verdict::Undecided(whose)
            }
            (Verdict::Allowed(_), Some((rule, whose))) => {
                Verdict::Denied(Denial::by_undecided_rule(rule, &whose, context.inventory))
            }
            (verdict, _) => verdict,
        }
    }

    /// Whether a deny rule matches the device, or a device whose bytes it exposes.
    fn denied(&self, entry: &RequestEntry, device: &Device, context: &PolicyContext<'_>) -> Denied<'_> {
        let access = entry.request.options.access;
        let concerns =
            |rule: &&Rule| rule.concerns(entry) && rule.applies(context.traits) && rule.access.meets(access);
        let rules: Vec<&Rule> = self.deny.iter().filter(concerns).collect();
        if rules.is_empty() {
            return Denied::No;
        }
        let mut unknown: Option<(&Rule, SysPath)> = None;
        let exposed = same_data::exposed(device, context.inventory);
        for (index, exposed) in std::iter::once(device).chain(exposed).enumerate() {
            let subject = Subject::for_deny(exposed, context.inventory, context.host_use);
            for rule in &rules {
                match rule.finds(&subject) {
                    Match::Yes => {
                        let denial = Denial::by_rule(rule, access);
                        return Denied::Surely(match index {
                            0 => denial,
                            _ => denial.of_exposed(exposed),
                        });
                    }
                    // An overdue device decides at once: waiting for the other devices would not
                    // change the verdict.
                    Match::Unknown(whose)
                        if unknown
                            .as_ref()
                            .is_none_or(|(_, known)| subject.is_awaited(known)) =>
                    {
                        unknown = Some((rule, whose));
                    }
                    _ => {}
                }
            }
        }
        unknown.map_or(Denied::No, |(rule, whose)| Denied::Unknown(rule, whose))
    }

    /// The deny rules that deny everything that they could match where no udevd runs.
    pub fn denials_that_need_udevd(&self) -> impl Iterator<Item = &Place> {
        let needs_udevd = |rule: &&Rule| {
            let mut terms = rule.devices.iter().flat_map(|devices| devices.terms());
            terms.any(|term| term.selector.needs_udevd())
        };
        self.deny.iter().filter(needs_udevd).map(|rule| &rule.place)
    }

    /// The selectors of all rules: they decide which facts of a device the monitor must read.
    pub fn selectors(&self) -> impl Iterator<Item = &Selector> {
        let rules = self.allow.iter().chain(&self.deny);
        rules.flat_map(|rule| {
            rule.devices
                .iter()
                .flat_map(|devices| devices.terms())
                .map(|term| &term.selector)
        })
    }

    fn allow_remote(&self, remote: &RemoteDevice, of: &ContainerTraits) -> bool {
        let mut rules = self.allow.iter().filter(|rule| rule.applies(of));
        rules.any(|rule| rule.covers(remote))
    }

    /// Denies a request, whatever it selects, if rules that may apply to it are unknown.
    pub fn denied_as_unknown(&self, entry: &RequestEntry) -> Option<Denial> {
        let trusted = entry.is_trusted();
        let mut unknown = self.unknown.iter();
        let rules = unknown.find(|rules| !trusted || rules.may_concern_trusted)?;
        Some(Denial::by_unknown_rules(&rules.fault))
    }

    fn denied_by_classes_only(&self, request: &Request) -> Denial {
        Denial::by_classes_only(&self.written_in, self.hints().class(request))
    }

    fn denied_by_line(&self, line: &'static Line, request: &Request) -> Denial {
        let hint = match line.always {
            true => self.hints().class(request),
            false => self.hints().allow(request),
        };
        Denial::by_line(line, hint)
    }

    /// The same for a present device, with the reason why the line protects it.
    fn denied_by_line_of(&self, line: &'static Line, request: &Request, subject: &Subject<'_>) -> Denial {
        let hint = match line.always {
            true => self.hints().class(request),
            false => self.hints().allow_device(request, subject),
        };
        let denial = Denial::by_line(line, hint);
        match protected::because(line, subject) {
            Some(because) => denial.because(because),
            None => denial,
        }
    }

    fn hints(&self) -> Hints<'_> {
        Hints {
            tool_options: &self.tool_options,
        }
    }
}

/// The only node that this selector can ever select.
fn named_node(selector: &DeviceSelector) -> Option<&Path> {
    if selector.parents() > 0 {
        return None;
    }
    selector
        .terms()
        .iter()
        .filter(|term| !term.negated)
        .find_map(|term| match &term.selector {
            Selector::DevNode(path) | Selector::Node(path) => Some(path.as_path()),
            _ => None,
        })
}

#[cfg(test)]
pub(crate) mod tests;
