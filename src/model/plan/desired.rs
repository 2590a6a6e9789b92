//! The nodes and links that a container should have: the admitted candidates, each at its path.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::model::device::{Access, Device, SysPath};
use crate::model::oci::ProcessUser;
use crate::model::plan::admission::{Admissions, Decision};
use crate::model::plan::attachment::{Attachments, NodeSpec};
use crate::model::plan::candidates::{Candidate, Candidates};
use crate::model::plan::named_node::{NameCandidate, can_be_named_by_rule, can_name, choose, unit_of};
use crate::model::plan::node_names::NodePaths;
use crate::model::plan::{Current, NotAttached, Plan, Reason};
use crate::model::request::NodePath;
use crate::model::request::id::RequestId;

/// The mode of a node if the request names none.
const DEFAULT_MODE: u32 = 0o660;

/// The node that a container should have at a path.
pub(super) struct DesiredNode<'a> {
    /// The first request for it.
    pub request: RequestId,
    pub device: &'a Device,
    pub node: NodeSpec,
    pub access: Access,
    /// The links to it, each with the request that it is for.
    pub links: BTreeMap<PathBuf, RequestId>,
}

/// All desired nodes, by path.
pub(super) type Desired<'a> = BTreeMap<PathBuf, DesiredNode<'a>>;

/// A candidate that is not denied: it gets a node now, or later. One for later keeps its name
/// reserved.
struct NodeCandidate<'a> {
    candidate: &'a Candidate<'a>,
    is_ready: bool,
}

/// The links of symlink rules, each with the device that gets it.
type RuleLinks<'a> = Vec<(&'a PathBuf, &'a SysPath)>;

/// The nodes that should be in the container. Notes in `plan` what is not attached, pending or
/// postponed.
pub(super) fn nodes<'a>(
    candidates: &'a Candidates<'a>,
    admissions: &Admissions,
    current: &Current<'_>,
    plan: &mut Plan,
) -> Desired<'a> {
    let mut paths = NodePaths::new(candidates.inventory(), current.attachments);
    let node_candidates = node_candidates(candidates, admissions, &mut paths, plan);
    let rule_links = rule_links(&node_candidates, candidates, current.attachments);
    let owner = candidates.planner().owner();
    let mut nodes: Vec<(PathBuf, DesiredNode<'a>)> = Vec::new();
    for group in node_candidates.chunk_by(|a, b| {
        std::ptr::eq(a.candidate.entry, b.candidate.entry) && a.candidate.root == b.candidate.root
    }) {
        let named = named(group, candidates, current.attachments);
        for node_candidate in group.iter().filter(|node_candidate| node_candidate.is_ready) {
            let is_named = named.is_some_and(|named| std::ptr::eq(named, node_candidate.candidate.device));
            nodes.extend(desired_node(
                node_candidate.candidate,
                is_named,
                owner,
                &rule_links,
                &mut paths,
            ));
        }
    }
    let mut desired = assign_paths(nodes, current, plan);
    // A device that one request may not have is attached if another request may have it.
    let attached: BTreeSet<&SysPath> = desired.values().map(|node| &node.device.syspath).collect();
    plan.not_attached
        .retain(|refusal| !refusal.is_denied() || !attached.contains(&refusal.device));
    assign_links(&mut desired, current.attachments, plan);
    desired
}

/// The candidates that are or will be attached, unless another file has their path.
fn node_candidates<'a>(
    candidates: &'a Candidates<'a>,
    admissions: &Admissions,
    paths: &mut NodePaths<'_>,
    plan: &mut Plan,
) -> Vec<NodeCandidate<'a>> {
    let mut node_candidates = Vec::new();
    for (candidate, decision) in admissions.of(candidates) {
        let mut not_attached = |reason| NotAttached {
            request: candidate.request,
            device: candidate.device.syspath.clone(),
            path: paths.path_of(&candidate.entry.request, candidate.device),
            reason,
        };
        match decision {
            Decision::Denied(denial) => {
                plan.not_attached
                    .push(not_attached(Reason::Denied(denial.clone())));
                continue;
            }
            Decision::Waiting(reason) => {
                plan.not_attached
                    .push(not_attached(Reason::Waiting(reason.clone())));
            }
            Decision::Pending(device) => plan.pending.push(device.clone()),
            Decision::Admitted => {}
        }
        node_candidates.push(NodeCandidate {
            candidate,
            is_ready: *decision == Decision::Admitted,
        });
    }
    node_candidates
}

/// The node that each symlink rule names: one node of each USB device with the rule's ids.
fn rule_links<'a>(
    node_candidates: &[NodeCandidate<'a>],
    candidates: &'a Candidates<'a>,
    attachments: &Attachments,
) -> RuleLinks<'a> {
    let inventory = candidates.inventory();
    let mut links = Vec::new();
    for rule in candidates.planner().symlinks() {
        let mut by_unit = BTreeMap::<SysPath, Vec<NameCandidate<'a>>>::new();
        for node_candidate in node_candidates {
            let device = node_candidate.candidate.device;
            if rule.matches(device, inventory.ancestors(&device.syspath))
                && can_be_named_by_rule(device, inventory)
            {
                let unit = unit_of(device, inventory);
                let mut attached = attachments.iter().map(|(_, attachment)| attachment);
                by_unit.entry(unit).or_default().push(NameCandidate {
                    device,
                    has_name: attached.any(|attachment| {
                        attachment.device.syspath == device.syspath
                            && attachment.links.contains_key(&rule.path)
                    }),
                    is_ready: node_candidate.is_ready,
                });
            }
        }
        let chosen = by_unit.values().filter_map(|nodes| choose(nodes, inventory));
        links.extend(chosen.map(|device| (&rule.path, &device.syspath)));
    }
    links
}

/// The device of a root whose node `path=` and `link=` name.
fn named<'a>(
    group: &[NodeCandidate<'a>],
    candidates: &'a Candidates<'a>,
    attachments: &Attachments,
) -> Option<&'a Device> {
    let request = &group.first()?.candidate.entry.request;
    let options = &request.options;
    let path = options.path.as_ref().and_then(NodePath::node);
    if path.is_none() && options.links.is_empty() {
        return None;
    }
    let has_name = |device: &Device| {
        attachments.iter().any(|(attached, attachment)| {
            let is_named = path == Some(attached)
                || options
                    .links
                    .iter()
                    .any(|link| attachment.links.contains_key(link));
            is_named && attachment.device.syspath == device.syspath
        })
    };
    let node_candidates = group
        .iter()
        .filter(|node_candidate| can_name(request, node_candidate.candidate.device, candidates.inventory()));
    let nodes: Vec<NameCandidate<'a>> = node_candidates
        .map(|node_candidate| NameCandidate {
            device: node_candidate.candidate.device,
            has_name: has_name(node_candidate.candidate.device),
            is_ready: node_candidate.is_ready,
        })
        .collect();
    choose(&nodes, candidates.inventory())
}

/// The node for a candidate, and its path. `is_named` is true for the node of a root that `path=`
/// and `link=` name; the other nodes of the root keep the host's paths, unless `path=` is a
/// directory.
fn desired_node<'a>(
    candidate: &Candidate<'a>,
    is_named: bool,
    owner: ProcessUser,
    rule_links: &RuleLinks<'_>,
    paths: &mut NodePaths<'_>,
) -> Option<(PathBuf, DesiredNode<'a>)> {
    let device = candidate.device;
    let options = &candidate.entry.request.options;
    let host_node = device.node.as_ref()?;
    let mut links: BTreeSet<&PathBuf> = device.links.iter().collect();
    if is_named {
        links.extend(&options.links);
    }
    let path = match &options.path {
        Some(NodePath::Node(_)) if !is_named => host_node.path.clone(),
        _ => paths.path_of(&candidate.entry.request, device),
    };
    let by_rules = rule_links.iter().filter(|(_, named)| **named == device.syspath);
    links.extend(by_rules.map(|(link, _)| *link));
    links.remove(&path);
    let request = candidate.request;
    let node = DesiredNode {
        request,
        device,
        node: NodeSpec {
            num: host_node.num,
            mode: options.mode.unwrap_or(DEFAULT_MODE),
            uid: options.uid.unwrap_or(owner.uid),
            gid: options.gid.unwrap_or(owner.gid),
        },
        access: options.access,
        links: links.into_iter().map(|link| (link.clone(), request)).collect(),
    };
    Some((path, node))
}

/// Assigns each path to one device: to the device that has it now, else to the first.
fn assign_paths<'a>(
    mut nodes: Vec<(PathBuf, DesiredNode<'a>)>,
    current: &Current<'_>,
    plan: &mut Plan,
) -> Desired<'a> {
    let has_path = |path: &Path, device: &Device| {
        let attachment = current.attachments.get(path);
        attachment.is_some_and(|attachment| attachment.device.syspath == device.syspath)
    };
    nodes.sort_by_key(|(path, node)| !has_path(path, node.device));
    let mut desired = Desired::new();
    for (path, node) in nodes {
        if current.postponed.contains(&path) && !has_path(&path, node.device) {
            plan.postponed.push(path);
            plan.postponed.extend(node.links.into_keys());
            continue;
        }
        match desired.get_mut(&path) {
            Some(taken) if taken.device.syspath == node.device.syspath => {
                taken.access |= node.access;
                for (link, request) in node.links {
                    taken.links.entry(link).or_insert(request);
                }
            }
            Some(taken) => plan.not_attached.push(NotAttached {
                request: node.request,
                device: node.device.syspath.clone(),
                path,
                reason: Reason::Conflict(taken.device.syspath.clone()),
            }),
            None => {
                desired.insert(path, node);
            }
        }
    }
    desired
}

/// Assigns each link path to one node: to the node that has it now, else to the first.
fn assign_links(desired: &mut Desired<'_>, attachments: &Attachments, plan: &mut Plan) {
    let mut links: Vec<(bool, PathBuf, PathBuf, RequestId)> = Vec::new();
    for (path, node) in desired.iter_mut() {
        for (link, request) in std::mem::take(&mut node.links) {
            let has_link = attachments
                .get(path)
                .is_some_and(|attachment| attachment.links.contains_key(&link));
            links.push((!has_link, path.clone(), link, request));
        }
    }
    links.sort();
    let mut owners = BTreeMap::<PathBuf, PathBuf>::new();
    for (_, path, link, request) in links {
        let holder = if desired.contains_key(&link) {
            Some(&link)
        } else {
            owners.get(&link)
        };
        if let Some(holder) = holder {
            plan.not_attached.push(NotAttached {
                request,
                device: desired[&path].device.syspath.clone(),
                path: link.clone(),
                reason: Reason::Conflict(desired[holder].device.syspath.clone()),
            });
            continue;
        }
        owners.insert(link.clone(), path.clone());
        if let Some(node) = desired.get_mut(&path) {
            node.links.insert(link, request);
        }
    }
}
