//! `oci-hotplug explain`: rule by rule, why a device is or is not in a container.
//!
//! What a request selects and what the policy says comes from the functions that the watcher itself decides with; what
//! only the watcher knows (leases, places that are taken, what failed) from the watcher.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::json;

use super::enrolled::Enrolled;
use super::nodes_of_request::nodes_of_request;
use super::render::json::write_json;
use super::render::table::print_line;
use crate::host::config::Config;
use crate::host::host_use;
use crate::host::monitor::DeviceMonitor;
use crate::host::state::control::{Problem, Status};
use crate::host::state::record::Record;
use crate::host::state::registry::Registry;
use crate::host::users::Users;
use crate::model::device::inventory::Inventory;
use crate::model::device::nodeless;
use crate::model::device::{Device, SysPath};
use crate::model::plan::attachment::{Attachment, NodeCreator};
use crate::model::plan::{NotAttached, Planner};
use crate::model::policy::{AllowedBy, HostUse, Policy, Situation, Verdict, blocks_that_decide};
use crate::model::request::Request;
use crate::model::request::entry::RequestEntry;
use crate::model::request::facts_needed::FactsNeeded;
use crate::model::request::selector::{DeviceSelector, Found};
use crate::usbip::records;

/// One rule that a device must pass to be inside for a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Rule {
    /// `whose`, `selected`, `only`, `policy`, `watcher`.
    rule: &'static str,
    /// Whether the device passes it.
    holds: bool,
    /// Why.
    reason: String,
}

/// What becomes of a device for one request: all rules up to the first that it does not pass.
#[derive(Debug, Serialize)]
struct Explained {
    request: String,
    called: String,
    rules: Vec<Rule>,
}

/// All that the rules look at.
struct Facts<'a> {
    device: &'a Device,
    inventory: &'a Inventory,
    policy: &'a Policy,
    host_use: &'a HostUse,
    record: &'a Record,
    status: &'a Status,
    planner: &'a Planner,
    /// What the requests would select if it were not reserved for other containers.
    reserved: Vec<NotAttached>,
}

/// Prints the explanation.
pub(super) fn run(registry: &Registry, config: &Config, id: &str, path: &Path, as_json: bool) -> Result<()> {
    let container = Enrolled::find(registry, id)?;
    let (Some(record), Some(status)) = (&container.record, &container.status) else {
        bail!(
            "container {} has no watcher that could tell (`oci-hotplug recover` starts it again)",
            container.id
        );
    };
    let policy = config.usable_policy();
    let inventory = look(status, &policy, path)?;
    let device = find(path, status, &inventory)?;
    let host_use = host_use::read(&blocks_that_decide(device, &inventory))?;
    let mut planner = Planner::new(status.requests.clone(), Vec::new(), record.container.user);
    planner.set_reserved(records::reserved_devices(
        registry.root(),
        &record.container.id,
        &inventory,
    ));
    let facts = Facts {
        reserved: planner.reserved_candidates(&inventory),
        planner: &planner,
        device,
        inventory: &inventory,
        policy: &policy,
        host_use: &host_use,
        record,
        status,
    };
    let explained: Vec<Explained> = status.requests.iter().map(|entry| facts.explain(entry)).collect();
    let inside = facts.inside();
    let verdict = facts.verdict(&explained);
    let mut out = std::io::stdout().lock();
    if as_json {
        let whole = json!({
            "id": container.id,
            "device": device.syspath,
            "node": device.node.as_ref().map(|node| &node.path),
            "number": device.node.as_ref().map(|node| node.num.to_string()),
            "inside": inside.iter().map(|(path, _)| path).collect::<Vec<_>>(),
            "requests": explained,
            "verdict": verdict,
        });
        write_json(&mut out, &whole)?;
        return Ok(());
    }
    match &device.node {
        Some(node) => print_line!(out, "{}  {}  {}", node.path.display(), node.num, device.syspath)?,
        None => print_line!(out, "{}", device.syspath)?,
    }
    for request in &explained {
        print_line!(out, "\n{}", request.called)?;
        for rule in &request.rules {
            let holds = if rule.holds { "yes" } else { "no" };
            print_line!(out, "  {holds:3}  {:8}  {}", rule.rule, rule.reason)?;
        }
    }
    print_line!(out, "\n{verdict}")?;
    Ok(())
}

/// All devices, with all that requests and rules look at.
fn look(status: &Status, policy: &Policy, path: &Path) -> Result<Inventory> {
    let mut requests: Vec<Request> = status
        .requests
        .iter()
        .map(|entry| entry.request.clone())
        .collect();
    // So that a node that only the host's /dev knows, and not sysfs, is among the devices as well.
    requests.extend(format!("node:{}", path.display()).parse().ok());
    let mut wanted = FactsNeeded::of(&requests, &[]);
    wanted.merge(&FactsNeeded::of_policy(policy.selectors()));
    wanted.udev = true;
    let monitor = DeviceMonitor::open(wanted, 0).context("listing the host's devices")?;
    let mut devices = monitor.enumerate().context("listing the host's devices")?;
    devices.extend(crate::host::nodeless::devices(&devices));
    Ok(Inventory::new(devices))
}

/// The device that is meant: by a path inside first, then by the host's.
fn find<'a>(path: &Path, status: &Status, inventory: &'a Inventory) -> Result<&'a Device> {
    let inside = status
        .attached
        .iter()
        .find(|(node, attachment)| *node == path || attachment.links.contains_key(path));
    let inside = inside.and_then(|(_, attachment)| inventory.get(&attachment.device.syspath));
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let is_it = |device: &&Device| {
        device.syspath.as_path() == real || device.node.as_ref().is_some_and(|node| node.path == real)
    };
    // sysfs's own device before one that was made of a node.
    let on_host = || {
        inventory
            .iter()
            .filter(is_it)
            .min_by_key(|device| inventory.real(device).syspath != device.syspath)
    };
    inside.or_else(on_host).with_context(|| {
        format!(
            "no device has the node, link or sysfs path {} now (plug it in; `oci-hotplug tree` shows what there is)",
            path.display()
        )
    })
}

impl Facts<'_> {
    fn inside(&self) -> Vec<(&Path, &Attachment)> {
        let attached = self.status.attached.iter();
        attached
            .filter(|(_, attachment)| attachment.device.syspath == self.device.syspath)
            .map(|(path, attachment)| (path.as_path(), attachment))
            .collect()
    }

    fn explain(&self, entry: &RequestEntry) -> Explained {
        let mut rules = Vec::new();
        for rule in [
            Self::whose,
            Self::selected,
            Self::only,
            Self::policy,
            Self::watcher,
        ] {
            let Some(judged) = rule(self, entry) else { continue };
            let holds = judged.holds;
            rules.push(judged);
            if !holds {
                break;
            }
        }
        Explained {
            request: entry.request.to_string(),
            called: entry.called(),
            rules,
        }
    }

    /// Only for a device that is reserved for another container and would be selected if it were not.
    fn whose(&self, entry: &RequestEntry) -> Option<Rule> {
        let request = self.planner.id_of(&entry.request)?;
        let is_it =
            |reserved: &&NotAttached| reserved.device == self.device.syspath && reserved.request == request;
        Some(Rule {
            rule: "whose",
            holds: false,
            reason: self.reserved.iter().find(is_it)?.to_string(),
        })
    }

    fn selected(&self, entry: &RequestEntry) -> Option<Rule> {
        let request = &entry.request;
        // What `only=` says is a rule of its own.
        let mut all = request.clone();
        all.options.only.clear();
        let is_left = |root: &SysPath| all.gives(root, self.device, self.inventory) != Found::No;
        // With `or=`, one root may leave out what another gives.
        let above = |root: &&SysPath| self.device.syspath.is_at_or_below(root);
        let mut roots = entry.roots.iter().filter(above);
        let root = roots.clone().find(|root| is_left(root)).or_else(|| roots.next());
        let reason = match root {
            Some(root) if !is_left(root) => self.why_not_selected(request),
            Some(root) if *root == self.device.syspath => "it is what is asked for".to_owned(),
            Some(root) => format!("it is below {root}, which is asked for"),
            None => self.why_not_selected(request),
        };
        Some(Rule {
            rule: "selected",
            holds: root.is_some_and(is_left),
            reason,
        })
    }

    /// The terms that keep the device out.
    fn why_not_selected(&self, request: &Request) -> String {
        if request.selector.remote().is_some() {
            return "it is not that device of the other host (`oci-hotplug usbip ports` shows which is)"
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
            return selector
                .why_not(&own)
                .unwrap_or_else(|| format!("{selector} matches it, and the watcher has yet to notice"));
        }
        let parents = own.parents().iter();
        let named = std::iter::once(self.device)
            .chain(parents.copied())
            .find(|device| selector.names(device, || self.inventory.chain(device)) == Found::Yes);
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
        if let Found::Unknown(whose) = &admits {
            return Some(Rule {
                rule: "only",
                holds: false,
                reason: format!("udevd has not processed {whose} yet"),
            });
        }
        let holds = admits == Found::Yes;
        let word = if holds {
            "lets it in"
        } else {
            "keeps it out: none of these selectors matches the device itself"
        };
        Some(Rule {
            rule: "only",
            holds,
            reason: format!("only= {word}"),
        })
    }

    fn policy(&self, entry: &RequestEntry) -> Option<Rule> {
        let situation = Situation {
            circumstances: &self.record.circumstances,
            inventory: self.inventory,
            host_use: self.host_use,
        };
        let (holds, reason) = match self.policy.judge(entry, self.device, &situation) {
            Verdict::Allowed(AllowedBy::Trusted) => (true, "the request is trusted".to_owned()),
            Verdict::Allowed(AllowedBy::Rule(place)) => (true, format!("allowed by {place}")),
            Verdict::Allowed(AllowedBy::Fallback(fallback)) => {
                (true, format!("allowed by default = \"{}\"", fallback.as_str()))
            }
            Verdict::Denied(denial) => (false, denial.to_string()),
            Verdict::Undecided(whose) => (false, format!("udevd has not processed {whose} yet")),
        };
        Some(Rule {
            rule: "policy",
            holds,
            reason,
        })
    }

    /// What only the watcher knows.
    fn watcher(&self, entry: &RequestEntry) -> Option<Rule> {
        let problem = self.status.problems.iter().find(|problem| self.is_its(problem));
        let is_it = |(_, attachment): &(&Path, &Attachment)| attachment.device.syspath == self.device.syspath;
        let here = nodes_of_request(entry, self.status).into_iter().find(is_it);
        let (holds, reason) = match (here, problem) {
            (Some((path, attachment)), _) => (true, described(path, attachment)),
            (None, Some(problem)) => (false, format!("{}: {}", problem.path.display(), problem.reason)),
            (None, None) if self.device.node.is_none() => (
                false,
                nodeless::instead_of_node(self.device)
                    .unwrap_or_else(|| "it has no node of its own; what is below it may have".to_owned()),
            ),
            (None, None) => (
                false,
                "it is not inside yet, and the watcher names no reason: ask again".to_owned(),
            ),
        };
        Some(Rule {
            rule: "watcher",
            holds,
            reason,
        })
    }

    fn is_its(&self, problem: &Problem) -> bool {
        match &problem.device {
            Some(device) => *device == self.device.syspath,
            // What is wrong with the access of all.
            None => problem.path == Path::new("/dev"),
        }
    }

    fn verdict(&self, explained: &[Explained]) -> String {
        let id = &self.record.container.id;
        if let Some((path, attachment)) = self.inside().into_iter().next() {
            let fault = Users::of(self.record.container.pid).fault(&attachment.node, attachment.access);
            let fault = fault.map_or_else(String::new, |fault| format!("; {fault}"));
            return format!("It is in container {id}: {}{fault}", described(path, attachment));
        }
        // The request that came farthest is the one that somebody wonders about.
        let is_whose = |explained: &Explained| explained.rules.iter().any(|rule| rule.rule == "whose");
        let farthest = explained
            .iter()
            .max_by_key(|explained| (explained.rules.len(), is_whose(explained)));
        let last = farthest.and_then(|explained| explained.rules.last());
        match last.filter(|rule| rule.rule != "selected") {
            Some(rule) => format!("It is not in container {id}: {}", rule.reason),
            None => {
                let hint = match &self.device.node {
                    Some(node) => format!(
                        " (`oci-hotplug attach {id} devnode:{}` does)",
                        node.path.display()
                    ),
                    None => nodeless::instead_of_node(self.device)
                        .map_or_else(String::new, |instead| format!(" ({instead})")),
                };
                format!("It is not in container {id}: no request asks for it{hint}")
            }
        }
    }
}

fn described(path: &Path, attachment: &Attachment) -> String {
    let made = match attachment.node_creator {
        NodeCreator::Watcher => "",
        NodeCreator::Other => ", by a node of the engine or the image",
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
