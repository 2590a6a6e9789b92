//! `oci-hotplug match`

use std::io::Write;

use anyhow::{Context, Result};
use serde_json::json;

use super::table;
use crate::host::monitor::DeviceMonitor;
use crate::model::annotations::{Asks, read_list};
use crate::model::asked::Origin;
use crate::model::attachment::Attachments;
use crate::model::class::Classes;
use crate::model::grants::GrantSet;
use crate::model::inventory::Inventory;
use crate::model::reconcile::{ProcessUser, Reconciler, Step, admit_all};
use crate::model::wanted::Wanted;

/// Prints what a request selects now. It is the watcher's own plan for an empty container, carried out by nobody.
pub fn run(text: &str, classes: &Classes, as_json: bool) -> Result<()> {
    let Asks { asked, symlinks } = read_list(Origin::Administrator, text, classes)?;
    let requests: Vec<_> = asked.iter().map(|asked| asked.request.clone()).collect();
    let mut wanted = Wanted::of(&requests, &symlinks);
    // Nobody waits for a fast answer here, and everybody wants to see the links.
    wanted.udev = true;
    let monitor = DeviceMonitor::open(wanted, 0).context("listing the host's devices")?;
    let inventory = Inventory::new(monitor.enumerate().context("listing the host's devices")?);
    let mut reconciler = Reconciler::new(asked, symlinks, ProcessUser { uid: 0, gid: 0 });
    reconciler.find_roots(&inventory);
    let plan = reconciler.plan(
        &inventory,
        &Attachments::default(),
        &GrantSet::new(),
        &Default::default(),
        &admit_all,
    );
    let mut out = std::io::stdout().lock();
    if as_json {
        let roots: Vec<_> = reconciler
            .asked()
            .iter()
            .map(|asked| json!({ "request": asked.request.to_string(), "selects": asked.roots }))
            .collect();
        let nodes: Vec<_> = nodes(&plan.steps)
            .map(|(path, num, syspath)| json!({ "path": path, "number": num, "device": syspath }))
            .collect();
        writeln!(
            out,
            "{}",
            serde_json::to_string_pretty(&json!({ "requests": roots, "nodes": nodes }))?
        )?;
        return Ok(());
    }
    for asked in reconciler.asked() {
        if asked.roots.is_empty() {
            writeln!(out, "{}: no such device is present now", asked.request)?;
        }
        for root in &asked.roots {
            writeln!(out, "{}: selects {root}", asked.request)?;
        }
    }
    let rows: Vec<[String; 3]> = nodes(&plan.steps)
        .map(|(path, num, syspath)| [path, num, syspath])
        .collect();
    if !rows.is_empty() {
        writeln!(out)?;
        table::write(&mut out, ["NODE", "NUMBER", "DEVICE"], &rows)?;
    }
    for conflict in &plan.conflicts {
        writeln!(
            out,
            "{}: {} has it, and {} wants it too",
            conflict.path.display(),
            conflict.holder,
            conflict.syspath
        )?;
    }
    Ok(())
}

fn nodes(steps: &[Step]) -> impl Iterator<Item = (String, String, String)> + '_ {
    steps.iter().filter_map(|step| match step {
        Step::AddNode { path, attachment } => Some((
            path.display().to_string(),
            attachment.node.num.to_string(),
            attachment.device.syspath.to_string(),
        )),
        _ => None,
    })
}
