//! `oci-hotplug explain`: rule by rule, why a device is or is not in a container.
//!
//! Selection and policy are decided by the same functions as in the watcher. What only the watcher
//! knows (leases, conflicts, failures) comes from its status.

mod rules;

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::json;

use self::rules::{Explained, Facts, Rule};
use super::enrolled::Enrolled;
use super::render::color::{BAD, GOOD};
use super::render::json::write_json;
use super::render::table::screen_width;
use super::render::wrap::wrapped;
use crate::host::config::Config;
use crate::host::host_use;
use crate::host::monitor::DeviceMonitor;
use crate::host::state::control::Status;
use crate::host::state::registry::Registry;
use crate::model::device::Device;
use crate::model::device::inventory::Inventory;
use crate::model::oci::ContainerId;
use crate::model::plan::Planner;
use crate::model::policy::{Policy, blocks_that_decide};
use crate::model::quoting::visible;
use crate::model::request::facts_needed::FactsNeeded;
use crate::model::udev_database::DatabaseState;
use crate::usbip::records;

/// Prints the explanation.
pub(super) fn run(registry: &Registry, config: &Config, id: &str, path: &Path, as_json: bool) -> Result<()> {
    let container = Enrolled::find(registry, id)?;
    let (Some(record), Some(status)) = (&container.record, &container.status) else {
        bail!(
            "container {} has no watcher that answers (`oci-hotplug recover` starts it again)",
            container.display_name()
        );
    };
    let policy = config.usable_policy();
    let inventory = enumerate(status, &policy, path)?;
    let device = find(path, status, &inventory)?;
    let host_use = host_use::read(&blocks_that_decide(device, &inventory))?;
    let mut planner = Planner::new(status.requests.clone(), Vec::new(), record.container.user);
    planner.set_reserved(records::reserved_devices(
        registry.root(),
        &record.container.id,
        &inventory,
    ));
    let name = container.display_name();
    let facts = Facts {
        name: &name,
        asked: id,
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
    if as_json {
        print_json(&facts, &container.id, &explained)
    } else {
        print_text(&facts, &explained)
    }
}

fn print_json(facts: &Facts<'_>, id: &ContainerId, explained: &[Explained]) -> Result<()> {
    let device = facts.device;
    let attached = facts.attached();
    let whole = json!({
        "id": id,
        "device": device.syspath,
        "node": device.node.as_ref().map(|node| &node.path),
        "number": device.node.as_ref().map(|node| node.num.to_string()),
        "attached": attached.iter().map(|(path, _)| path).collect::<Vec<_>>(),
        "requests": explained,
        "verdict": facts.conclude(explained).complete,
        "udev_database": facts.status.udev_database,
    });
    write_json(&mut anstream::stdout().lock(), &whole)
}

fn print_text(facts: &Facts<'_>, explained: &[Explained]) -> Result<()> {
    let conclusion = facts.conclude(explained).short;
    let mut drawn = draw(facts.device, explained, &conclusion, screen_width());
    let database = facts.status.udev_database.as_ref();
    if let Some(state) = database.filter(|state| **state != DatabaseState::Placed) {
        if !facts.attached().is_empty() {
            drawn += &format!("udev database: {}\n", visible(&state.to_string()));
        }
    }
    anstream::stdout().lock().write_all(drawn.as_bytes())?;
    Ok(())
}

/// All devices, with the facts that requests and rules need.
fn enumerate(status: &Status, policy: &Policy, path: &Path) -> Result<Inventory> {
    let mut facts = FactsNeeded::of_container(&status.requests, &[], policy.selectors());
    // A node that is in the host's /dev and not in sysfs.
    if path.starts_with("/dev") {
        facts.static_nodes.insert(path.to_owned());
    }
    facts.udev_of_all = true;
    let monitor = DeviceMonitor::open(facts, 0).context("cannot list the host's devices")?;
    let mut devices = monitor.enumerate().context("cannot list the host's devices")?;
    devices.extend(crate::host::nodeless::devices(&devices));
    Ok(Inventory::new(devices))
}

/// The device of a path: of the container if an attachment has the path, otherwise of the host.
fn find<'a>(path: &Path, status: &Status, inventory: &'a Inventory) -> Result<&'a Device> {
    let attached = status
        .attached
        .iter()
        .find(|(node, attachment)| *node == path || attachment.links.contains_key(path));
    let attached = attached.and_then(|(_, attachment)| inventory.get(&attachment.device.syspath));
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let has_path = |device: &&Device| {
        device.syspath.as_path() == real || device.node.as_ref().is_some_and(|node| node.path == real)
    };
    // Prefer the device in sysfs to one that was made from a node.
    let on_host = || {
        inventory
            .iter()
            .filter(has_path)
            .min_by_key(|device| inventory.real(device).syspath != device.syspath)
    };
    attached.or_else(on_host).with_context(|| {
        format!(
            "no device has the node, link or sysfs path {} now (plug it in; `oci-hotplug tree` shows the devices)",
            path.display()
        )
    })
}

/// The column of reasons.
const REASON: usize = 17;

/// The device, the rules for each request, and the conclusion.
fn draw(device: &Device, explained: &[Explained], conclusion: &str, screen: Option<usize>) -> String {
    let mut drawn = match &device.node {
        Some(node) => format!(
            "{}  {}  {}\n",
            visible(&node.path.display().to_string()),
            node.num,
            visible(device.syspath.as_str())
        ),
        None => format!("{}\n", visible(device.syspath.as_str())),
    };
    for request in explained {
        drawn += &format!("\n{}\n", visible(&request.name));
        for Rule { rule, holds, reason } in &request.rules {
            let (word, style) = if *holds { ("yes", GOOD) } else { ("no ", BAD) };
            let reason = wrapped(&visible(reason), REASON, REASON, screen);
            drawn += &format!("  {style}{word}{style:#}  {rule:8}  {reason}\n");
        }
    }
    drawn + &format!("\n{}\n", wrapped(&visible(conclusion), 0, 0, screen))
}

#[cfg(test)]
mod tests;
