//! The rules of the configuration, the list of protected devices, and the verdict on each device
//! that a request selects.
//!
//! Requests in annotations are untrusted; hook arguments and classes are trusted
//! (`RequestEntry::is_trusted`). For an untrusted request, the first of these that applies decides:
//! ```text
//! a matching deny rule                        denied
//! classes-only                                denied
//! a protected line that no rule lifts         denied    (protected.rs: disks of the host, its memory)
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

mod host_use;
pub mod protected;
mod rule;
mod subject;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use host_use::{HostUse, Use};
pub use protected::{LINES, Line};
pub use rule::{AppliesTo, List, Place, Rule, RuleDefinition, RuleError, RuleFault};
pub use subject::blocks_that_decide;

use self::subject::Subject;
use crate::model::device::inventory::Inventory;
use crate::model::device::same_data;
use crate::model::device::{Access, Device, SysPath, UdevState};
use crate::model::oci::Annotations;
use crate::model::quoting::{shell_quoted, slug};
use crate::model::remote::address::RemoteDevice;
use crate::model::request::Request;
use crate::model::request::entry::RequestEntry;
use crate::model::request::selector::{DeviceSelector, Match, Selector};

/// The longest name that a message suggests for a class, in bytes.
const MAX_SUGGESTED_NAME: usize = 40;

/// The longest value of an annotation that rules can match, in bytes; longer values are not kept.
const MAX_ANNOTATION: usize = 4096;

/// What the conditions of rules are evaluated on: properties of the container, fixed when its
/// engine creates it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct ContainerTraits {
    /// The annotations of the engine and of the user who started the container.
    pub annotations: Annotations,
    /// Whether the container has its own user namespace.
    pub user_namespace: bool,
    /// Whether its engine gave it every device (`--privileged`).
    pub privileged: bool,
}

impl ContainerTraits {
    /// The traits of a container, without annotation values longer than 4096 bytes.
    pub fn new(annotations: Annotations, user_namespace: bool, privileged: bool) -> Self {
        let mut annotations = annotations;
        annotations.retain(|_, value| value.len() <= MAX_ANNOTATION);
        Self {
            annotations,
            user_namespace,
            privileged,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fallback {
    /// USB devices that are not protected.
    #[default]
    Removable,
    Nothing,
    /// Every device that is not protected.
    Anything,
}

impl Fallback {
    /// The word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Removable => "removable",
            Self::Nothing => "nothing",
            Self::Anything => "anything",
        }
    }
}

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

/// Why something is denied, and what would allow it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Denial {
    /// The rule that denies it.
    pub rule: String,
    pub reason: String,
    pub hint: String,
    /// The name of the protected line, if one denies it.
    pub line: Option<&'static str>,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "refused by the policy ({}): {}: {}",
            self.rule, self.reason, self.hint
        )
    }
}

impl Denial {
    /// Whether to refuse the start of a container if this denial is all that its request leads to.
    /// The denial of a hub's node is not a reason to refuse: the request is for the devices on the
    /// hub.
    pub fn refuses_start(&self) -> bool {
        self.line != Some(protected::USB_HUB)
    }
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
            return Err(denied_by_rule(rule, request.options.access));
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
                false => Err(self.denied_as_remote(remote)),
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
            None if self.fallback == Fallback::Nothing => Err(self.denied_by_fallback(request)),
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
                Verdict::Denied(denied_as_unknown(rule, &whose, context.inventory))
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
                        let mut denial = denied_by_rule(rule, access);
                        if index > 0 {
                            denial.reason.push_str(&exposes(exposed));
                        }
                        return Denied::Surely(denial);
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

    /// The verdict after the deny rules, none of which matches for certain.
    fn judge_untrusted(&self, request: &Request, subject: &Subject<'_>, of: &ContainerTraits) -> Verdict<'_> {
        if self.classes_only {
            return Verdict::Denied(self.denied_by_classes_only(request));
        }
        let protection = protected::find(subject);
        if let Some((line, Match::Yes)) = &protection {
            if line.always {
                return Verdict::Denied(self.denied_by_line_of(line, request, subject));
            }
        }
        let wanted = request.options.access;
        let remote = request.selector.remote();
        let mut allowed = Access::NONE;
        let mut first = None;
        let mut unknown = None;
        for rule in self.allow.iter().filter(|rule| rule.applies(of)) {
            let found = match &remote {
                Some(remote) if rule.covers(remote) => Match::Yes,
                _ => rule.finds_in_sysfs(subject),
            };
            match found {
                Match::Yes => {
                    allowed |= rule.access;
                    first = first.or(Some(&rule.place));
                }
                // Facts that udevd will not deliver soon count as not allowed.
                Match::Unknown(_) => unknown = unknown.or_else(|| subject.next_awaited()),
                Match::No => {}
            }
        }
        let by_fallback = match self.fallback {
            Fallback::Anything => true,
            Fallback::Removable => subject.is_removable(),
            Fallback::Nothing => false,
        };
        match (first, protection, unknown) {
            // Lines that no rule lifts depend on the kernel's facts only, so they are never
            // unknown.
            (Some(place), _, _) if allowed.covers(wanted) => Verdict::Allowed(AllowedBy::Rule(place)),
            (_, None, _) if by_fallback => Verdict::Allowed(AllowedBy::Fallback(self.fallback)),
            (_, Some((_, Match::Unknown(whose))), _) if by_fallback => Verdict::Undecided(whose),
            (_, _, Some(whose)) => Verdict::Undecided(whose),
            (_, Some((line, Match::Yes)), _) => {
                Verdict::Denied(self.denied_by_line_of(line, request, subject))
            }
            (Some(place), _, _) => Verdict::Denied(denied_for_access(place, wanted, allowed)),
            (None, _, _) => {
                let mut denial = self.denied_by_fallback(request);
                denial.hint = self.allow_cure_of(request, subject);
                if subject.in_sysfs().is_none() {
                    denial.reason = "sysfs has no device of this number, so that no rule can match it".into();
                }
                Verdict::Denied(denial)
            }
        }
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

    fn denied_as_remote(&self, remote: &RemoteDevice) -> Denial {
        Denial {
            rule: "usbip".into(),
            reason: format!(
                "a device of another host, {}, and no rule allows it",
                remote.server
            ),
            hint: format!(
                "to allow all devices of that host, run `{}`",
                self.allow_command(&format!("usbip:{}", remote.server), Access::ALL),
            ),
            line: None,
        }
    }

    /// Denies a request, whatever it selects, if rules that may apply to it are unknown.
    pub fn denied_as_unknown(&self, entry: &RequestEntry) -> Option<Denial> {
        let trusted = entry.is_trusted();
        let mut unknown = self.unknown.iter();
        let rules = unknown.find(|rules| !trusted || rules.may_concern_trusted)?;
        Some(Denial {
            rule: "unknown rules".into(),
            reason: rules.fault.clone(),
            hint: "fix or remove that file (`oci-hotplug check` tests it)".into(),
            line: None,
        })
    }

    fn denied_by_classes_only(&self, request: &Request) -> Denial {
        Denial {
            rule: format!("classes-only, in {}", self.written_in.display()),
            reason: "an untrusted request must use a class".into(),
            hint: self.class_cure(request),
            line: None,
        }
    }

    fn denied_by_line(&self, line: &'static Line, request: &Request) -> Denial {
        Denial {
            rule: format!("protected: {}", line.name),
            reason: format!("{}: {}", line.devices, line.reason),
            hint: if line.always {
                self.class_cure(request)
            } else {
                self.allow_cure(request)
            },
            line: Some(line.name),
        }
    }

    /// The same for a present device, with the reason why the line protects it.
    fn denied_by_line_of(&self, line: &'static Line, request: &Request, subject: &Subject<'_>) -> Denial {
        let mut denial = self.denied_by_line(line, request);
        if !line.always {
            denial.hint = self.allow_cure_of(request, subject);
        }
        if let Some(because) = protected::because(line, subject) {
            denial.reason = format!("{} ({})", denial.reason, because.reason);
            denial.hint = match because.hint {
                Some(hint) => format!("{hint}, or, {}", denial.hint),
                None => denial.hint,
            };
        }
        denial
    }

    fn denied_by_fallback(&self, request: &Request) -> Denial {
        Denial {
            rule: format!("default = \"{}\"", self.fallback.as_str()),
            reason: match self.fallback {
                Fallback::Removable => "not a USB device, and no rule allows it".into(),
                _ => "no rule allows it".into(),
            },
            hint: self.allow_cure(request),
            line: None,
        }
    }

    fn allow_cure(&self, request: &Request) -> String {
        // A rule cannot have `parent-of:`. It applies to devices below the one that it names, not
        // above.
        if request.selector.parents() > 0 || !request.options.or.is_empty() {
            return self.class_cure(request);
        }
        self.allow_cure_by(&request.selector.to_string(), request)
    }

    fn allow_cure_by(&self, selector: &str, request: &Request) -> String {
        let command = self.allow_command(selector, request.options.access);
        format!("to allow it, run `{command}`")
    }

    /// The same for a present device. Allow rules do not match the path of a static node, only the
    /// device that sysfs has under its number.
    fn allow_cure_of(&self, request: &Request, subject: &Subject<'_>) -> String {
        if subject.in_sysfs().is_none() {
            return self.class_cure(request);
        }
        let is_by_number = subject.own().len() > 1;
        match subject.device().node.as_ref().filter(|_| is_by_number) {
            Some(node) => self.allow_cure_by(&Selector::DevNode(node.path.clone()).to_string(), request),
            None => self.allow_cure(request),
        }
    }

    /// The command that adds a rule for this selector.
    fn allow_command(&self, selector: &str, access: Access) -> String {
        let access = match access {
            Access::ALL => String::new(),
            access => format!(" --access {access}"),
        };
        format!(
            "oci-hotplug {}allow {}{access}",
            self.tool_options,
            shell_quoted(selector)
        )
    }

    fn class_cure(&self, request: &Request) -> String {
        let name = class_name(request);
        format!(
            "to allow it anyway, run `oci-hotplug {}class add {name} {}` and request class:{name}",
            self.tool_options,
            shell_quoted(&request.to_string())
        )
    }
}

/// A name for a class with this request, made from the letters of the selector.
fn class_name(request: &Request) -> String {
    let name = slug(&request.selector.to_string(), MAX_SUGGESTED_NAME);
    if name.is_empty() {
        "devices".to_owned()
    } else {
        name
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

fn denied_by_rule(rule: &Rule, wanted: Access) -> Denial {
    let left = wanted.without(rule.access);
    Denial {
        rule: rule.place.to_string(),
        reason: rule.reason.clone().unwrap_or_else(|| "the rule denies it".into()),
        hint: if left.is_none() {
            "to allow it, change the rule".into()
        } else {
            format!("request ;access={left}, or change the rule")
        },
        line: None,
    }
}

/// The denial by a deny rule that depends on facts that udevd will not deliver soon.
fn denied_as_unknown(rule: &Rule, whose: &SysPath, inventory: &Inventory) -> Denial {
    let has_udevd = inventory
        .get(whose)
        .is_none_or(|device| device.udev_state != UdevState::NoUdevd);
    let (reason, hint) = match has_udevd {
        true => (
            format!("udevd has not processed {whose}, and this deny rule depends on it"),
            "check `systemctl status systemd-udevd`",
        ),
        false => (
            "no udevd runs on this host, and this deny rule depends on facts that only udevd knows"
                .to_owned(),
            "start systemd-udevd",
        ),
    };
    Denial {
        rule: rule.place.to_string(),
        reason,
        hint: format!("{hint}, or write the rule without property:, tag: and links"),
        line: None,
    }
}

fn exposes(device: &Device) -> String {
    let node = device
        .node
        .as_ref()
        .map_or(device.syspath.as_path(), |node| &node.path);
    format!(
        " (the rule matches {}, whose data this device exposes)",
        node.display()
    )
}

fn denied_for_access(place: &Place, wanted: Access, allowed: Access) -> Denial {
    Denial {
        rule: place.to_string(),
        reason: format!("it allows access={allowed}, and the request needs access={wanted}"),
        hint: format!("request ;access={allowed}"),
        line: None,
    }
}

#[cfg(test)]
mod tests;
