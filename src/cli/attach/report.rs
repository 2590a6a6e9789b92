//! What came of `attach` and `detach`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::target::Target;
use super::wishes::Wishes;
use crate::host::control::{Problem, Status};
use crate::model::asked::Asked;
use crate::model::attachment::Attachment;
use crate::model::reconcile::place_of;

/// Whether it is for this request that a device is inside.
fn is_for(asked: &Asked, path: &PathBuf, attachment: &Attachment) -> bool {
    let device = &attachment.device;
    asked.roots.iter().any(|root| device.syspath.is_at_or_below(root))
        && asked.request.options.admits(device)
        && place_of(asked, device) == *path
}

/// What is inside for one request.
fn of_request<'s>(
    asked: &'s Asked,
    status: &'s Status,
) -> impl Iterator<Item = (&'s PathBuf, &'s Attachment)> {
    status
        .attached
        .iter()
        .filter(move |(path, attachment)| is_for(asked, path, attachment))
}

fn to_json(path: &PathBuf, attachment: &Attachment) -> Value {
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

/// Prints what is inside for the wishes now, or why it is not.
///
/// # Errors
/// When a device is there and can't be inside; what is asked for stays asked for.
pub(super) fn attached(
    target: &Target,
    status: &Status,
    before: Option<&Status>,
    wishes: &Wishes,
    as_json: bool,
) -> Result<()> {
    let known = |problem: &&Problem| before.is_some_and(|before| before.problems.contains(problem));
    let problems: Vec<&Problem> = status.problems.iter().filter(|problem| !known(problem)).collect();
    let is_wished = |asked: &&Asked| wishes.asked.contains(&asked.without_roots());
    let asked: Vec<&Asked> = status.asked.iter().filter(is_wished).collect();
    let mut out = std::io::stdout().lock();
    if as_json {
        let requests: Vec<Value> = asked
            .iter()
            .map(|asked| {
                let nodes: Vec<Value> = of_request(asked, status)
                    .map(|(path, attachment)| to_json(path, attachment))
                    .collect();
                json!({
                    "request": asked.request, "class": asked.class, "cdi": asked.cdi,
                    "selects": asked.roots, "nodes": nodes,
                })
            })
            .collect();
        let whole = json!({
            "id": target.id(), "requests": requests, "problems": problems, "left-out": wishes.left_out,
        });
        writeln!(out, "{}", serde_json::to_string_pretty(&whole)?)?;
    } else {
        for asked in &asked {
            write_request(&mut out, asked, status)?;
        }
        for left_out in &wishes.left_out {
            writeln!(
                out,
                "{}: not for a container that runs: {}",
                left_out.device, left_out.edit
            )?;
        }
    }
    let is_empty = |asked: &&&Asked| !asked.roots.is_empty() && of_request(asked, status).next().is_none();
    if problems.is_empty() || !asked.iter().any(|asked| is_empty(&asked)) {
        return Ok(());
    }
    let reasons: Vec<String> = problems
        .iter()
        .map(|problem| format!("{}: {}", problem.path.display(), problem.reason))
        .collect();
    bail!(
        "not inside yet: {} (it stays asked for; `oci-hotplug detach` takes the request back)",
        reasons.join("; ")
    )
}

fn write_request(out: &mut impl Write, asked: &Asked, status: &Status) -> std::io::Result<()> {
    match (&asked.class, &asked.cdi) {
        (None, None) => writeln!(out, "{}", asked.request)?,
        _ => writeln!(out, "{}: {}", asked.called(), asked.request)?,
    }
    if asked.roots.is_empty() {
        writeln!(out, "  no such device is present: it comes when it is plugged in")?;
    }
    for (path, attachment) in of_request(asked, status) {
        writeln!(
            out,
            "  {}  {}  access {}",
            path.display(),
            attachment.node.num,
            attachment.access
        )?;
        for link in attachment.links.keys() {
            writeln!(out, "    link {}", link.display())?;
        }
    }
    Ok(())
}

/// Prints what is gone, and what stays because something else asks for it.
///
/// # Errors
/// When a node could not be taken away.
pub(super) fn detached(
    target: &Target,
    before: &Status,
    after: &Status,
    gone: &[Asked],
    as_json: bool,
) -> Result<()> {
    let went: Vec<&Asked> = before
        .asked
        .iter()
        .filter(|asked| gone.contains(&asked.without_roots()))
        .collect();
    let inside = |asked: &Asked| -> Vec<(PathBuf, Option<String>)> {
        of_request(asked, before)
            .map(|(path, attachment)| {
                let still = after
                    .attached
                    .get(path)
                    .is_some_and(|now| now.device.syspath == attachment.device.syspath);
                let holder = after.asked.iter().find(|asked| is_for(asked, path, attachment));
                let stays = still.then(|| holder.map_or_else(String::new, Asked::called));
                (path.clone(), stays)
            })
            .collect()
    };
    let mut out = std::io::stdout().lock();
    if as_json {
        let requests: Vec<Value> = went
            .iter()
            .map(|asked| {
                let (stays, leaves): (Vec<_>, Vec<_>) =
                    inside(asked).into_iter().partition(|(_, stays)| stays.is_some());
                let paths = |nodes: Vec<(PathBuf, _)>| -> Vec<PathBuf> {
                    nodes.into_iter().map(|(path, _)| path).collect()
                };
                json!({
                    "request": asked.request, "class": asked.class, "cdi": asked.cdi,
                    "gone": paths(leaves), "stays": paths(stays),
                })
            })
            .collect();
        let whole = json!({ "id": target.id(), "requests": requests, "problems": after.problems });
        writeln!(out, "{}", serde_json::to_string_pretty(&whole)?)?;
    }
    let mut stuck = Vec::new();
    for asked in &went {
        if !as_json {
            writeln!(out, "{} is not asked for any more", asked.called())?;
        }
        for (path, stays) in inside(asked) {
            match stays {
                Some(holder) if holder.is_empty() => stuck.push(path.display().to_string()),
                _ if as_json => {}
                None => writeln!(out, "  {} is gone", path.display())?,
                Some(holder) => writeln!(out, "  {} stays: {holder} asks for it, too", path.display())?,
            }
        }
    }
    if stuck.is_empty() {
        return Ok(());
    }
    bail!(
        "{} could not be taken away, only the access (`oci-hotplug inspect {}` tells why; it is tried again)",
        stuck.join(", "),
        target.id()
    )
}
