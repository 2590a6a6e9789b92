//! `oci-hotplug tree`

use std::io::Write;

use anyhow::{Context, Result};
use serde_json::json;

use super::enrolled::Enrolled;
use super::follow::{Screen, follow};
use super::render;
use super::render::json::versioned;
use super::render::table::screen_width;
use crate::host::monitor::{DeviceMonitor, RECEIVE_BUFFER};
use crate::host::state::registry::Registry;
use crate::model::device::tree::{ATTRIBUTES, Holder, Holders, tree};
use crate::model::device::{Device, STATIC_NODE};
use crate::model::request::facts_needed::FactsNeeded;

/// The options.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct Options {
    /// Show the kernel's own nodes too (terminals, memory, loop devices ...).
    #[arg(long)]
    all: bool,
    /// Draw the tree again whenever a device is plugged or unplugged, until interrupted.
    #[arg(long)]
    watch: bool,
}

/// Prints the host's devices, and which container holds each.
pub(super) fn run(registry: &Registry, options: Options, as_json: bool) -> Result<()> {
    let mut facts = FactsNeeded {
        udev_of_all: true,
        ..FactsNeeded::default()
    };
    facts
        .attributes
        .extend(ATTRIBUTES.map(|name| (name.to_owned(), None)));
    let mut monitor = DeviceMonitor::open(facts, RECEIVE_BUFFER).context("cannot list the host's devices")?;
    if !options.watch {
        let picture = picture(&monitor, registry, options.all, as_json)?;
        anstream::stdout().lock().write_all(picture.as_bytes())?;
        return Ok(());
    }
    let mut screen = Screen::default();
    follow(&mut monitor, |monitor| {
        screen.show(picture(monitor, registry, options.all, as_json)?)
    })
}

fn picture(monitor: &DeviceMonitor, registry: &Registry, all: bool, as_json: bool) -> Result<String> {
    let mut devices = monitor.enumerate().context("cannot list the host's devices")?;
    let holders = holders(&Enrolled::all(registry)?, &mut devices);
    let branches = tree(&devices, &holders, all);
    if as_json {
        return Ok(format!("{:#}\n", versioned(&json!({ "buses": branches }))?));
    }
    Ok(render::tree::draw(&branches, screen_width()))
}

/// The containers that have each device. Nodes that sysfs does not list are added to the devices:
/// only the containers' attachments name them.
fn holders(containers: &[Enrolled], devices: &mut Vec<Device>) -> Holders {
    let mut holders = Holders::new();
    for container in containers {
        let attached = container.status.iter().flat_map(|status| status.attached.iter());
        for (path, attachment) in attached {
            let device = &attachment.device;
            let is_static = device.subsystem.as_deref() == Some(STATIC_NODE);
            if is_static && !devices.iter().any(|known| known.syspath == device.syspath) {
                devices.push(device.clone());
            }
            holders.entry(device.syspath.clone()).or_default().push(Holder {
                container: container.display_name(),
                path: path.clone(),
            });
        }
    }
    holders
}
