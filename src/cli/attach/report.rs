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

fn to_json(path: &Path, attachment: &Attachment) -> Value {
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
        let requests: Vec<Value> = entries
            .iter()
            .map(|entry| {
                let nodes: Vec<Value> = nodes_of_request(entry, status)
                    .into_iter()
                    .map(|(path, attachment)| to_json(path, attachment))
                    .collect();
                json!({
                    "request": entry.request, "class": entry.class, "cdi": entry.cdi,
                    "selects": entry.roots, "nodes": nodes,
                })
            })
            .collect();
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
    let is_empty =
        |entry: &&&RequestEntry| !entry.roots.is_empty() && nodes_of_request(entry, status).is_empty();
    if problems.is_empty() || !entries.iter().any(|entry| is_empty(&entry)) {
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
    let went: Vec<&RequestEntry> = before
        .requests
        .iter()
        .filter(|entry| gone.contains(&entry.without_roots()))
        .collect();
    let inside = |entry: &RequestEntry| -> Vec<(PathBuf, Option<String>)> {
        nodes_of_request(entry, before)
            .into_iter()
            .map(|(path, attachment)| {
                let now = after.attached.get(path);
                let still = now.is_some_and(|now| now.device.syspath == attachment.device.syspath);
                let is_for = |entry: &&RequestEntry| {
                    nodes_of_request(entry, after)
                        .iter()
                        .any(|(node, _)| *node == path)
                };
                let holder = after.requests.iter().find(is_for);
                let stays = still.then(|| holder.map_or_else(String::new, RequestEntry::display_name));
                (path.to_owned(), stays)
            })
            .collect()
    };
    let mut out = std::io::stdout().lock();
    if as_json {
        let requests: Vec<Value> = went
            .iter()
            .map(|entry| {
                let (stays, leaves): (Vec<_>, Vec<_>) =
                    inside(entry).into_iter().partition(|(_, stays)| stays.is_some());
                let paths = |nodes: Vec<(PathBuf, _)>| -> Vec<PathBuf> {
                    nodes.into_iter().map(|(path, _)| path).collect()
                };
                json!({
                    "request": entry.request, "class": entry.class, "cdi": entry.cdi,
                    "detached": paths(leaves), "kept": paths(stays),
                })
            })
            .collect();
        let whole = json!({ "id": target.id(), "requests": requests, "problems": after.problems });
        write_json(&mut out, &whole)?;
    }
    let mut stuck = Vec::new();
    for entry in &went {
        if !as_json {
            print_line!(out, "{} is not requested any more", entry.display_name())?;
        }
        for (path, stays) in inside(entry) {
            match stays {
                Some(holder) if holder.is_empty() => stuck.push(path.display().to_string()),
                _ if as_json => {}
                None => print_line!(out, "  {} is removed", path.display())?,
                Some(holder) => print_line!(out, "  {} stays: {holder} requests it as well", path.display())?,
            }
        }
    }
    if stuck.is_empty() {
        return Ok(());
    }
    bail!(
        "{} could not be removed, but its access is revoked (`oci-hotplug inspect {}` shows why; it is retried)",
        stuck.join(", "),
        target.short_id()
    )
}
