//! `oci-hotplug match`

mod names;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::json;

use self::names::Names;
use super::follow::follow;
use super::render::json::{write_json, write_json_line};
use super::render::table::{self, print_line};
use crate::host::monitor::{DeviceMonitor, RECEIVE_BUFFER};
use crate::host::nodeless;
use crate::model::device::inventory::Inventory;
use crate::model::device::nodeless::instead_of_nodes;
use crate::model::oci::ProcessUser;
use crate::model::plan::attachment::Attachments;
use crate::model::plan::{NotAttached, Plan, Planner, Step, plan_without_restrictions};
use crate::model::request::Request;
use crate::model::request::annotations::read_list;
use crate::model::request::class::Classes;
use crate::model::request::entry::{Origin, RequestEntry, Requests};
use crate::model::request::facts_needed::FactsNeeded;
use crate::model::request::symlink::SymlinkRule;
use crate::usbip::{self, records};

/// Prints what a request selects now, and with `watch` also the changes.
pub(super) fn run(text: &str, classes: &Classes, state_dir: &Path, watch: bool, as_json: bool) -> Result<()> {
    let Requests {
        entries, symlinks, ..
    } = read_list(Origin::Root, text, classes)?;
    let mut facts = FactsNeeded::of(entries.iter().map(|entry| &entry.request), &symlinks);
    // The links are printed; the time to read them does not matter here.
    facts.udev_of_all = true;
    let buffer = if watch { RECEIVE_BUFFER } else { 0 };
    let mut monitor = DeviceMonitor::open(facts, buffer).context("cannot list the host's devices")?;
    let mut shown = select(&monitor, &entries, &symlinks, Some(state_dir))?;
    shown.print(as_json, watch)?;
    if !watch {
        return Ok(());
    }
    follow(&mut monitor, |monitor| {
        let now = select(monitor, &entries, &symlinks, Some(state_dir))?;
        print_change(&shown, &now, as_json)?;
        shown = now;
        Ok(())
    })
}

/// The paths of the nodes that a request for this sysfs device would attach.
pub(super) fn nodes_at(syspath: &str) -> Result<Vec<String>> {
    let request: Request = format!("syspath:{syspath}").parse()?;
    let mut facts = FactsNeeded::of([&request], &[]);
    // The kernel's facts are enough.
    facts.udev_of_all = false;
    let monitor = DeviceMonitor::open(facts, 0).context("cannot list the host's devices")?;
    let selection = select(&monitor, &[RequestEntry::new(Origin::Root, request)], &[], None)?;
    Ok(selection.nodes.into_iter().map(|node| node.path).collect())
}

/// What a request selects at one moment.
struct Selection {
    entries: Vec<RequestEntry>,
    /// For each request, the reason why it selects nothing, if one is known.
    why_nothing: Vec<Option<String>>,
    nodes: BTreeSet<Node>,
    names: Names,
    not_attached: Vec<String>,
    /// Selected devices that never have a node, and what to do instead.
    nodeless: BTreeSet<String>,
}

/// A node that a container would get.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Node {
    path: String,
    number: String,
    device: String,
}

/// The watcher's plan for a container without attachments. The state directory says which remote
/// devices are attached, and for which container.
fn select(
    monitor: &DeviceMonitor,
    entries: &[RequestEntry],
    symlinks: &[SymlinkRule],
    state_dir: Option<&Path>,
) -> Result<Selection> {
    let mut devices = monitor.enumerate().context("cannot list the host's devices")?;
    devices.extend(nodeless::devices(&devices));
    let inventory = Inventory::new(devices);
    let mut planner = Planner::new(
        entries.to_vec(),
        symlinks.to_vec(),
        ProcessUser { uid: 0, gid: 0 },
    );
    if let Some(state_dir) = state_dir {
        add_remote_devices(&mut planner, state_dir, &inventory);
    }
    planner.find_roots(&inventory);
    let plan = plan_without_restrictions(&planner, &inventory, &Attachments::default());
    let why_nothing = |entry: &RequestEntry| why_nothing(entry, &inventory);
    let roots = planner.entries().iter().flat_map(|entry| &entry.roots);
    let mut nodeless = BTreeSet::new();
    for root in roots.filter_map(|root| inventory.get(root)) {
        nodeless.extend(instead_of_nodes(root, &inventory));
    }
    Ok(Selection {
        nodeless,
        why_nothing: planner.entries().iter().map(why_nothing).collect(),
        entries: planner.entries().to_vec(),
        nodes: nodes(&plan),
        names: Names::new(&plan, planner.entries(), symlinks),
        not_attached: not_attached(&planner, &plan),
    })
}

/// Tells the planner which remote devices are attached. Those that are attached for a container are
/// reserved for it, and this plan is for a new container.
fn add_remote_devices(planner: &mut Planner, state_dir: &Path, inventory: &Inventory) {
    let entries = planner.entries().iter();
    let remotes: Vec<_> = entries
        .filter_map(|entry| entry.request.selector.remote())
        .collect();
    for remote in remotes {
        if let Some(bound) = usbip::binding_of(state_dir, &remote) {
            planner.bind(remote, bound);
        }
    }
    planner.set_reserved(records::reserved_devices(state_dir, "", inventory));
}

fn why_nothing(entry: &RequestEntry, inventory: &Inventory) -> Option<String> {
    if entry.request.selector.remote().is_some() || !entry.roots.is_empty() {
        return None;
    }
    let selectors = entry.request.selectors();
    let reasons: Vec<String> = selectors
        .filter_map(|selector| selector.why_nothing(inventory))
        .collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// A line for each node that the container would not get.
fn not_attached(planner: &Planner, plan: &Plan) -> Vec<String> {
    let describe = |not_attached: &NotAttached| {
        let path = not_attached.path.display();
        Some(format!("{path}: {}", planner.describe(not_attached)?))
    };
    plan.not_attached.iter().filter_map(describe).collect()
}

fn nodes(plan: &Plan) -> BTreeSet<Node> {
    let mut nodes = BTreeSet::new();
    nodes.extend(plan.steps.iter().filter_map(|step| match step {
        Step::AddNode { path, attachment } => Some(Node {
            path: path.display().to_string(),
            number: attachment.node.num.to_string(),
            device: attachment.device.syspath.to_string(),
        }),
        _ => None,
    }));
    nodes
}

impl Selection {
    /// Prints the selection. When changes follow, a JSON document takes one line, as theirs do.
    fn print(&self, as_json: bool, changes_follow: bool) -> Result<()> {
        let mut out = std::io::stdout().lock();
        if as_json {
            let roots: Vec<_> = self
                .entries
                .iter()
                .zip(&self.why_nothing)
                .map(|(entry, nothing)| {
                    let request = entry.request.to_string();
                    json!({ "request": request, "selects": entry.roots, "reason": nothing })
                })
                .collect();
            let whole = json!({
                "requests": roots, "nodes": self.nodes,
                "names": self.names.to_json(), "hints": self.names.hints(),
                "without_node": self.nodeless, "not_attached": self.not_attached,
            });
            return match changes_follow {
                true => write_json_line(&mut out, &whole),
                false => write_json(&mut out, &whole),
            };
        }
        for (entry, nothing) in self.entries.iter().zip(&self.why_nothing) {
            if entry.roots.is_empty() {
                let reason = nothing
                    .as_ref()
                    .map_or_else(String::new, |reason| format!(": {reason}"));
                print_line!(out, "{}: no such device is present now{reason}", entry.request)?;
            }
            for root in &entry.roots {
                print_line!(out, "{}: selects {root}", entry.request)?;
            }
        }
        let rows: Vec<[String; 3]> = self.nodes.iter().cloned().map(Node::into_row).collect();
        if !rows.is_empty() {
            writeln!(out)?;
            table::write(&mut out, ["NODE", "NUMBER", "DEVICE"], &rows)?;
        }
        self.names.print(&mut out)?;
        for line in self.not_attached.iter().chain(&self.nodeless) {
            print_line!(out, "{line}")?;
        }
        Ok(())
    }
}

impl Node {
    fn into_row(self) -> [String; 3] {
        [self.path, self.number, self.device]
    }
}

/// A line for each node that was added or removed, and for each name that has another node.
fn print_change(before: &Selection, now: &Selection, as_json: bool) -> Result<()> {
    let removed = before.nodes.difference(&now.nodes);
    let removed = removed.map(|node| ("remove", '-', node));
    let added = now.nodes.difference(&before.nodes).map(|node| ("add", '+', node));
    let mut out = std::io::stdout().lock();
    for (action, sign, node) in removed.chain(added) {
        if as_json {
            write_json_line(&mut out, &json!({ "action": action, "node": node }))?;
        } else {
            print_line!(out, "{sign} {}  {}  {}", node.path, node.number, node.device)?;
        }
    }
    for (name, node) in now.names.changes(&before.names) {
        if as_json {
            write_json_line(
                &mut out,
                &json!({ "action": "name", "name": name, "node_path": node }),
            )?;
        } else if let Some(node) = node {
            writeln!(out, "= {}  {}", name.display(), node.display())?;
        }
    }
    out.flush()?;
    Ok(())
}
