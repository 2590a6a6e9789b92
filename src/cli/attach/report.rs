//! What `attach` and `detach` print.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::resolved::ResolvedRequests;
use super::target::Target;
use crate::cli::nodes_of_request::nodes_of_request;
use crate::cli::render::json::write_json;
use crate::cli::render::table::print_line;
use crate::host::state::control::{Problem, Status, first_of};
use crate::model::plan::attachment::Attachment;
use crate::model::request::entry::RequestEntry;

/// Prints the nodes that are inside for the requests now, or why there are none.
///
/// # Errors
/// When a device is present and cannot be attached; the request stays.
pub(super) fn attached(
    target: &Target,
    status: &Status,
    before: Option<&Status>,
    resolved: &ResolvedRequests,
    as_json: bool,
) -> Result<()> {
    let known = |problem: &&Problem| before.is_some_and(|before| before.problems.contains(problem));
    let problems: Vec<&Problem> = status.problems.iter().filter(|problem| !known(problem)).collect();
    let is_resolved = |entry: &&RequestEntry| resolved.requests.entries.contains(&entry.without_roots());
    let entries: Vec<&RequestEntry> = status.requests.iter().filter(is_resolved).collect();
    let mut out = std::io::stdout().lock();
    if as_json {
        let requests: Vec<Value> = entries.iter().map(|entry| to_json(entry, status)).collect();
        let whole = json!({
            "id": target.id(), "requests": requests, "problems": problems, "not_applied": resolved.not_applied,
        });
        write_json(&mut out, &whole)?;
    } else {
        for entry in &entries {
            write_request(&mut out, entry, status)?;
        }
        for not_applied in &resolved.not_applied {
            print_line!(
                out,
                "{}: not possible in a running container: {}",
                not_applied.device,
                not_applied.edit
            )?;
        }
    }
    let lacks_nodes =
        |entry: &&RequestEntry| !entry.roots.is_empty() && nodes_of_request(entry, status).is_empty();
    if problems.is_empty() || !entries.iter().any(lacks_nodes) {
        return Ok(());
    }
    let reasons: Vec<String> = Problem::grouped(problems)
        .iter()
        .map(|(paths, reason)| format!("{}: {reason}", first_of(paths)))
        .collect();
    bail!(
        "not attached yet: {} (the request stays; `oci-hotplug detach` removes it)",
        reasons.join("; ")
    )
}

fn to_json(entry: &RequestEntry, status: &Status) -> Value {
    let nodes: Vec<Value> = nodes_of_request(entry, status)
        .into_iter()
        .map(|(path, attachment)| node_to_json(path, attachment))
        .collect();
    json!({
        "request": entry.request, "class": entry.class, "cdi": entry.cdi,
        "selects": entry.roots, "nodes": nodes,
    })
}

fn node_to_json(path: &Path, attachment: &Attachment) -> Value {
    json!({
        "path": path,
        "number": attachment.node.num.to_string(),
        "access": attachment.access.to_string(),
        "mode": format!("{:04o}", attachment.node.mode),
        "uid": attachment.node.uid,
        "gid": attachment.node.gid,
        "links": attachment.links.keys().collect::<Vec<_>>(),
        "device": attachment.device.syspath,
    })
}

fn write_request(out: &mut impl Write, entry: &RequestEntry, status: &Status) -> std::io::Result<()> {
    match (&entry.class, &entry.cdi) {
        (None, None) => print_line!(out, "{}", entry.request)?,
        _ => print_line!(out, "{}: {}", entry.display_name(), entry.request)?,
    }
    if entry.roots.is_empty() {
        print_line!(
            out,
            "  no such device is present: it is attached when it is plugged in"
        )?;
    }
    for (path, attachment) in nodes_of_request(entry, status) {
        print_line!(
            out,
            "  {}  {}  access {}",
            path.display(),
            attachment.node.num,
            attachment.access
        )?;
        for link in attachment.links.keys() {
            print_line!(out, "    link {}", link.display())?;
        }
    }
    Ok(())
}

/// A node that a removed request had.
struct FormerNode {
    path: PathBuf,
    now: NodeNow,
}

#[derive(PartialEq, Eq)]
enum NodeNow {
    Removed,
    /// This other request has it as well.
    Kept(String),
    /// Only its access could be revoked.
    Stuck,
}

/// Prints which nodes are removed, and which stay because of another request.
///
/// # Errors
/// When a node could not be removed.
pub(super) fn detached(
    target: &Target,
    before: &Status,
    after: &Status,
    gone: &[RequestEntry],
    as_json: bool,
) -> Result<()> {
    let removed: Vec<(&RequestEntry, Vec<FormerNode>)> = before
        .requests
        .iter()
        .filter(|entry| gone.contains(&entry.without_roots()))
        .map(|entry| (entry, former_nodes(entry, before, after)))
        .collect();
    let mut out = std::io::stdout().lock();
    if as_json {
        let requests = removed.iter().map(|(entry, nodes)| removed_to_json(entry, nodes));
        let requests: Vec<Value> = requests.collect();
        let whole = json!({ "id": target.id(), "requests": requests, "problems": after.problems });
        write_json(&mut out, &whole)?;
    } else {
        for (entry, nodes) in &removed {
            write_removed(&mut out, entry, nodes)?;
        }
    }
    let nodes = removed.iter().flat_map(|(_, nodes)| nodes);
    let stuck: Vec<String> = nodes
        .filter(|node| node.now == NodeNow::Stuck)
        .map(|node| node.path.display().to_string())
        .collect();
    if stuck.is_empty() {
        return Ok(());
    }
    bail!(
        "{} could not be removed, but its access is revoked (`oci-hotplug inspect {}` shows why; it is retried)",
        stuck.join(", "),
        target.short_id()
    )
}

fn former_nodes(entry: &RequestEntry, before: &Status, after: &Status) -> Vec<FormerNode> {
    let now = |path: &Path, attachment: &Attachment| {
        let now = after.attached.get(path);
        if now.is_none_or(|now| now.device.syspath != attachment.device.syspath) {
            return NodeNow::Removed;
        }
        let has_node = |entry: &&RequestEntry| {
            let nodes = nodes_of_request(entry, after);
            nodes.iter().any(|(node, _)| *node == path)
        };
        match after.requests.iter().find(has_node) {
            Some(holder) => NodeNow::Kept(holder.display_name()),
            None => NodeNow::Stuck,
        }
    };
    nodes_of_request(entry, before)
        .into_iter()
        .map(|(path, attachment)| FormerNode {
            path: path.to_owned(),
            now: now(path, attachment),
        })
        .collect()
}

fn removed_to_json(entry: &RequestEntry, nodes: &[FormerNode]) -> Value {
    let (removed, kept): (Vec<_>, Vec<_>) = nodes.iter().partition(|node| node.now == NodeNow::Removed);
    let paths = |nodes: Vec<&FormerNode>| -> Vec<PathBuf> {
        nodes.into_iter().map(|node| node.path.clone()).collect()
    };
    json!({
        "request": entry.request, "class": entry.class, "cdi": entry.cdi,
        "detached": paths(removed), "kept": paths(kept),
    })
}

fn write_removed(out: &mut impl Write, entry: &RequestEntry, nodes: &[FormerNode]) -> std::io::Result<()> {
    print_line!(out, "{} is not requested any more", entry.display_name())?;
    for node in nodes {
        let path = node.path.display();
        match &node.now {
            NodeNow::Removed => print_line!(out, "  {path} is removed")?,
            NodeNow::Kept(holder) => print_line!(out, "  {path} stays: {holder} requests it as well")?,
            NodeNow::Stuck => {}
        }
    }
    Ok(())
}
