//! `oci-hotplug inspect`

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::client::unit_of;
use super::enrolled::Enrolled;
use super::render::json::write_json;
use super::render::table::print_line;
use super::render::time::{ago, since};
use crate::host::rootless::rootless;
use crate::host::state::control::{Problem, Status, first_of};
use crate::host::state::record::Record;
use crate::host::state::registry::Registry;
use crate::host::users::Users;
use crate::model::plan::attachment::{Attachment, NodeCreator};
use crate::model::request::entry::{Origin, RequestEntry};

/// Prints all that is known of one container.
pub(super) fn run(registry: &Registry, id: &str, as_json: bool) -> Result<()> {
    let container = Enrolled::find(registry, id)?;
    let mut out = std::io::stdout().lock();
    if as_json {
        let whole = json!({
            "id": container.id,
            "name": container.name(),
            "engine": container.engine(),
            "health": container.health(),
            "host_pid_namespace": container.record.as_ref().is_some_and(shares_pid_namespace),
            "record": container.record,
            "record_fault": container.record_fault,
            "status": container.status,
            "unit": container.status.as_ref().and_then(unit_of),
        });
        write_json(&mut out, &whole)?;
        return Ok(());
    }
    write(&mut out, &container)?;
    Ok(())
}

/// Whether the container has the host's pid namespace, and so sees its watcher (pid_namespaces(7)).
fn shares_pid_namespace(record: &Record) -> bool {
    let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/pid")).ok();
    let theirs = namespace(&record.container.pid.to_string());
    theirs.is_some() && theirs == namespace("self") && record.is_running()
}

fn write(out: &mut impl Write, container: &Enrolled) -> std::io::Result<()> {
    write_container(out, container)?;
    let Some(status) = &container.status else {
        for reason in container.reasons() {
            print_line!(out, "Watcher    {}: {reason}", container.health())?;
        }
        return Ok(());
    };
    write_watcher(out, status)?;
    write_requests(out, &status.requests)?;
    write_attachments(out, status)?;
    write_problems(out, &status.problems)
}

fn write_container(out: &mut impl Write, container: &Enrolled) -> std::io::Result<()> {
    print_line!(out, "Container  {}", container.id)?;
    if let Some(name) = container.name() {
        print_line!(out, "Name       {name}")?;
    }
    if let Some(engine) = container.engine() {
        print_line!(out, "Engine     {engine}")?;
    }
    print_line!(out, "Health     {}", container.health())?;
    let Some(record) = &container.record else {
        return Ok(());
    };
    let facts = &record.container;
    print_line!(out, "Init       process {}", facts.pid)?;
    print_line!(out, "Bundle     {}", facts.bundle.display())?;
    print_line!(out, "User       {}:{}", facts.user.uid, facts.user.gid)?;
    if shares_pid_namespace(record) {
        print_line!(
            out,
            "Pids       the host's pid namespace: root in the container can stop or end its watcher"
        )?;
    }
    Ok(())
}

fn write_watcher(out: &mut impl Write, status: &Status) -> std::io::Result<()> {
    match unit_of(status) {
        Some(unit) => print_line!(out, "Watcher    process {} of {unit}", status.watcher)?,
        None => print_line!(
            out,
            "Watcher    process {}, without a systemd unit",
            status.watcher
        )?,
    }
    if let Some(state) = &status.udev_database {
        print_line!(out, "Udev       {state}")?;
    }
    Ok(())
}

fn write_requests(out: &mut impl Write, requests: &[RequestEntry]) -> std::io::Result<()> {
    print_line!(out, "\nRequests")?;
    for entry in requests {
        let origin = match entry.origin {
            Origin::Annotation => "annotation",
            Origin::Root => "root",
        };
        let name = entry.display_name();
        if name == entry.request.to_string() {
            print_line!(out, "  {name}  ({origin})")?;
        } else {
            print_line!(out, "  {}  ({origin}, {name})", entry.request)?;
        }
        if entry.roots.is_empty() {
            print_line!(out, "    no such device is present")?;
        }
        for root in &entry.roots {
            print_line!(out, "    selects {root}")?;
        }
    }
    Ok(())
}

fn write_attachments(out: &mut impl Write, status: &Status) -> std::io::Result<()> {
    print_line!(out, "\nAttached")?;
    if status.attached.is_empty() {
        print_line!(out, "  nothing")?;
    }
    let users = Users::of(status.container.pid);
    for (path, attachment) in status.attached.iter() {
        write_attachment(out, path, attachment)?;
        if let Some(fault) = users.fault(attachment) {
            print_line!(out, "    {fault}")?;
        }
    }
    Ok(())
}

fn write_attachment(out: &mut impl Write, path: &Path, attachment: &Attachment) -> std::io::Result<()> {
    let node = &attachment.node;
    let age = ago(since(attachment.since));
    let creator = match attachment.node_creator {
        NodeCreator::Watcher if rootless().is_some() => "owner and mode of the host's node".to_owned(),
        NodeCreator::Watcher => format!("mode {:04o}, owner {}:{}", node.mode, node.uid, node.gid),
        NodeCreator::Other => "node made by the engine or the image".to_owned(),
    };
    print_line!(
        out,
        "  {}  {}  access {}  {creator}  for {age}",
        path.display(),
        node.num,
        attachment.access
    )?;
    print_line!(out, "    device {}", attachment.device.syspath)?;
    for link in attachment.links.keys() {
        print_line!(out, "    link {}", link.display())?;
    }
    Ok(())
}

fn write_problems(out: &mut impl Write, problems: &[Problem]) -> std::io::Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    print_line!(out, "\nProblems")?;
    for (paths, reason) in Problem::grouped(problems) {
        print_line!(out, "  {}: {reason}", first_of(&paths))?;
    }
    Ok(())
}
