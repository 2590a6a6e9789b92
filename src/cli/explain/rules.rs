//! The rules that a device must pass to be attached for a request, and whether it passes them.

use std::path::Path;

use serde::Serialize;

use crate::cli::nodes_of_request::nodes_of_request;
use crate::host::state::control::{Problem, Status};
use crate::host::state::record::Record;
use crate::host::users::Users;
use crate::model::device::inventory::Inventory;
use crate::model::device::{Device, SysPath};
use crate::model::device::{nodeless, usb_hub};
use crate::model::plan::attachment::{Attachment, NodeCreator};
use crate::model::plan::{NotAttached, Planner};
use crate::model::policy::{AllowedBy, HostUse, Policy, PolicyContext, Verdict};
use crate::model::quoting::shell_word;
use crate::model::request::Request;
use crate::model::request::entry::RequestEntry;
use crate::model::request::selector::{DeviceSelector, Match};

/// One rule that a device must pass to be attached for a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Rule {
    /// `reserved`, `selected`, `only`, `policy`, `watcher`.
    pub(super) rule: &'static str,
    /// Whether the device passes it.
    pub(super) holds: bool,
    /// Why.
    pub(super) reason: String,
}

/// The rules for one request, up to the first that the device does not pass.
#[derive(Debug, Serialize)]
pub(super) struct Explained {
    pub(super) request: String,
    pub(super) name: String,
    pub(super) rules: Vec<Rule>,
}

/// The name of the rule that the watcher decides.
const WATCHER: &str = "watcher";

/// What follows from the rules of all requests, as one sentence.
pub(super) struct Conclusion {
    /// With the reason, or with node and access.
    pub(super) complete: String,
    /// Without what the rules say already.
    pub(super) short: String,
}

/// The facts that the rules need.
pub(super) struct Facts<'a> {
    /// The container's name or short id.
    pub(super) name: &'a str,
    /// The word by which the operator named the container.
    pub(super) asked: &'a str,
    pub(super) device: &'a Device,
    pub(super) inventory: &'a Inventory,
    pub(super) policy: &'a Policy,
    pub(super) host_use: &'a HostUse,
    pub(super) record: &'a Record,
    pub(super) status: &'a Status,
    pub(super) planner: &'a Planner,
    /// What the requests would select if it were not reserved for other containers.
    pub(super) reserved: Vec<NotAttached>,
}

impl Facts<'_> {
    pub(super) fn attached(&self) -> Vec<(&Path, &Attachment)> {
        let attached = self.status.attached.iter();
        attached
            .filter(|(_, attachment)| attachment.device.syspath == self.device.syspath)
            .map(|(path, attachment)| (path.as_path(), attachment))
            .collect()
    }

    pub(super) fn explain(&self, entry: &RequestEntry) -> Explained {
        let mut rules = Vec::new();
        for rule in [
            Self::reserved,
            Self::selected,
            Self::only,
            Self::policy,
            Self::watcher,
        ] {
            let Some(rule) = rule(self, entry) else { continue };
            let holds = rule.holds;
            rules.push(rule);
            if !holds {
                break;
            }
        }
        Explained {
            request: entry.request.to_string(),
            name: entry.display_name(),
            rules,
        }
    }

    /// Only for a device that is reserved for another container and would be selected if it were
    /// not.
    fn reserved(&self, entry: &RequestEntry) -> Option<Rule> {
        let request = self.planner.id_of(&entry.request)?;
        let is_it =
            |reserved: &&NotAttached| reserved.device == self.device.syspath && reserved.request == request;
        Some(Rule {
            rule: "reserved",
            holds: false,
            reason: self.reserved.iter().find(is_it)?.to_string(),
        })
    }

    fn selected(&self, entry: &RequestEntry) -> Option<Rule> {
        let request = &entry.request;
        // `only=` is a separate rule.
        let mut all = request.clone();
        all.options.only.clear();
        let selects = |root: &SysPath| all.gives(root, self.device, self.inventory) != Match::No;
        // With `or=`, one root may exclude what another one selects.
        let above = |place: &SysPath| self.device.syspath.is_at_or_below(place);
        let own = entry
            .roots
            .iter()
            .filter(|root| above(root))
            .map(|root| (root, root));
        let halves = entry.companions.iter().filter(|(_, half)| above(half));
        let mut roots = own.chain(halves);
        let root = roots
            .clone()
            .find(|(root, _)| selects(root))
            .or_else(|| roots.next());
        let reason = match root {
            Some((root, _)) if !selects(root) => self.why_not_selected(request),
            Some((root, half)) if root != half => self.why_as_other_half(root, half),
            Some((root, _)) if *root == self.device.syspath => "the request selects this device".to_owned(),
            Some((root, _)) => format!("the request selects {root}, a parent of this device"),
            None => self.why_not_selected(request),
        };
        let root = root.map(|(root, _)| root);
        Some(Rule {
            rule: "selected",
            holds: root.is_some_and(selects),
            reason,
        })
    }

    /// The device is, or is below, the half of a USB 3 hub that the request does not name.
    fn why_as_other_half(&self, root: &SysPath, other: &SysPath) -> String {
        let half = self.inventory.get(other).map_or("other half", usb_hub::half);
        let (hub, name) = (root.name(), other.name());
        match *other == self.device.syspath {
            true => format!("the request selects {root}, and this device is the {half} of {hub}"),
            false => {
                format!("the request selects {root}; this device is below {name}, the {half} of {hub}")
            }
        }
    }

    /// The terms that do not match the device.
    fn why_not_selected(&self, request: &Request) -> String {
        if request.selector.remote().is_some() {
            return "this is not the remote device that the request selects (`oci-hotplug usbip ports` shows it)"
                .into();
        }
        let reasons: Vec<String> = request
            .selectors()
            .map(|selector| self.why_not_named(selector))
            .collect();
        reasons.join("; ")
    }

    fn why_not_named(&self, selector: &DeviceSelector) -> String {
        let own = self.inventory.chain(self.device);
        if selector.parents() == 0 {
            return selector.why_not(&own).unwrap_or_else(|| {
                format!("{selector} matches the device, but the watcher has not processed it yet")
            });
        }
        let parents = own.parents().iter();
        let named = std::iter::once(self.device)
            .chain(parents.copied())
            .find(|device| selector.names(device, || self.inventory.chain(device)) == Match::Yes);
        match named {
            Some(device) => format!(
                "{selector} matches {}, but selects a different device",
                device.syspath
            ),
            None => format!("{selector} does not match a device of which this is a parent"),
        }
    }

    fn only(&self, entry: &RequestEntry) -> Option<Rule> {
        let options = &entry.request.options;
        if options.only.is_empty() {
            return None;
        }
        let admits = options.admits(self.inventory.chain(self.device).own());
        if let Match::Unknown(pending) = &admits {
            return Some(Rule {
                rule: "only",
                holds: false,
                reason: format!("udevd has not processed {pending} yet"),
            });
        }
        let holds = admits == Match::Yes;
        let word = if holds {
            "matches the device"
        } else {
            "does not match the device itself"
        };
        Some(Rule {
            rule: "only",
            holds,
            reason: format!("only= {word}"),
        })
    }

    fn policy(&self, entry: &RequestEntry) -> Option<Rule> {
        let context = PolicyContext {
            traits: &self.record.traits,
            inventory: self.inventory,
            host_use: self.host_use,
        };
        let (holds, reason) = match self.policy.judge(entry, self.device, &context) {
            Verdict::Allowed(AllowedBy::Trusted) => (true, "the request is trusted".to_owned()),
            Verdict::Allowed(AllowedBy::Rule(place)) => (true, format!("allowed by {place}")),
            Verdict::Allowed(AllowedBy::Fallback(fallback)) => {
                (true, format!("allowed by default = \"{}\"", fallback.as_str()))
            }
            Verdict::Denied(denial) => (false, denial.to_string()),
            Verdict::Undecided(pending) => (false, format!("udevd has not processed {pending} yet")),
        };
        Some(Rule {
            rule: "policy",
            holds,
            reason,
        })
    }

    /// What only the watcher knows.
    fn watcher(&self, entry: &RequestEntry) -> Option<Rule> {
        let problem = self.status.problems.iter().find(|problem| self.concerns(problem));
        let is_it = |(_, attachment): &(&Path, &Attachment)| attachment.device.syspath == self.device.syspath;
        let here = nodes_of_request(entry, self.status).into_iter().find(is_it);
        let (holds, reason) = match (here, problem) {
            (Some((path, attachment)), _) => (true, described(path, attachment)),
            (None, Some(problem)) => (false, format!("{}: {}", problem.path.display(), problem.reason)),
            (None, None) if self.device.node.is_none() => (
                false,
                nodeless::instead_of_node(self.device)
                    .unwrap_or_else(|| "the device has no node; devices below it may have nodes".to_owned()),
            ),
            (None, None) => (
                false,
                "the device is not attached yet, and the watcher reports no reason (try again)".to_owned(),
            ),
        };
        Some(Rule {
            rule: WATCHER,
            holds,
            reason,
        })
    }

    fn concerns(&self, problem: &Problem) -> bool {
        match &problem.device {
            Some(device) => *device == self.device.syspath,
            // A problem with the access to all devices.
            None => problem.path == Path::new("/dev"),
        }
    }

    pub(super) fn conclude(&self, explained: &[Explained]) -> Conclusion {
        if let Some((path, attachment)) = self.attached().into_iter().next() {
            return self.is_attached(path, attachment, explained);
        }
        let not_attached = format!("The device is not attached to container {}", self.name);
        // Report on the request that passed the most rules.
        let is_reserved = |explained: &Explained| explained.rules.iter().any(|rule| rule.rule == "reserved");
        let farthest = explained
            .iter()
            .max_by_key(|explained| (explained.rules.len(), is_reserved(explained)));
        let last = farthest.and_then(|explained| Some((explained, explained.rules.last()?)));
        match last.filter(|(_, rule)| rule.rule != "selected") {
            Some((explained, rule)) => Conclusion {
                complete: format!("{not_attached}: {}", rule.reason),
                short: format!(
                    "{not_attached}: rule `{}` of {} is not met",
                    rule.rule, explained.name
                ),
            },
            None => {
                let complete = format!("{not_attached}: no request selects it{}", self.hint());
                Conclusion {
                    short: complete.clone(),
                    complete,
                }
            }
        }
    }

    fn is_attached(&self, path: &Path, attachment: &Attachment, explained: &[Explained]) -> Conclusion {
        let attached = format!("The device is attached to container {}", self.name);
        let fault = Users::of(self.record.container.pid).fault(attachment);
        let fault = fault.map_or_else(String::new, |fault| format!("; {fault}"));
        let complete = format!("{attached}: {}{fault}", described(path, attachment));
        let mut rules = explained.iter().flat_map(|explained| &explained.rules);
        let short = match rules.any(|rule| rule.rule == WATCHER && rule.holds) {
            true => format!("{attached}{fault}"),
            // The policy has changed since: no rule shows where the device is.
            false => complete.clone(),
        };
        Conclusion { complete, short }
    }

    /// How the container could get the device, which no request selects.
    fn hint(&self) -> String {
        match &self.device.node {
            Some(node) => format!(
                " (`oci-hotplug attach {} devnode:{}` attaches it)",
                shell_word(self.asked),
                node.path.display()
            ),
            None => nodeless::instead_of_node(self.device)
                .map_or_else(String::new, |instead| format!(" ({instead})")),
        }
    }
}

fn described(path: &Path, attachment: &Attachment) -> String {
    let made = match attachment.node_creator {
        NodeCreator::Watcher => "",
        NodeCreator::Other => ", at a node of the engine or the image",
    };
    let links: Vec<String> = attachment
        .links
        .keys()
        .map(|link| format!(", link {}", link.display()))
        .collect();
    format!(
        "{} with access {}{made}{}",
        path.display(),
        attachment.access,
        links.concat()
    )
}
