//! `--check`: prints what would be advertised and what this node lacks. Changes nothing.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

use super::config::{self, Configuration};
use super::engine::Cdi;
use super::kubelet::api::KUBELET_SOCKET;
use super::options::Options;
use super::resources;
use super::resources::names::Names;
use super::snapshot::Snapshot;
use super::usbip_servers::{self, ListResult};
use crate::host::monitor::{DeviceMonitor, udevd_is_running};
use crate::model::remote::address::Server;
use crate::model::remote::vhci;

/// Something that the plugin or pods need on this node.
struct Finding {
    is_present: bool,
    subject: String,
    /// How to fix it.
    hint: &'static str,
}

/// Prints the report. Returns false if something is missing that pods need.
///
/// # Errors
///
/// If the configuration is unusable, or the host's devices cannot be listed.
pub(super) fn run(options: &Options, engine: &Cdi) -> Result<bool> {
    let (_, configuration) = options.config_sources.read()?;
    let servers = config::servers(&configuration.definitions);
    let lists = usbip_servers::list_all(&servers);
    let mut out = std::io::stdout().lock();
    print_resources(&mut out, options, configuration, &lists)?;
    let mut is_complete = engine.is_used();
    for finding in findings(options, !servers.is_empty()) {
        let Finding { subject, hint, .. } = &finding;
        match finding.is_present {
            true => writeln!(out, "ok: {subject}")?,
            false => writeln!(out, "missing: {subject} ({hint})")?,
        }
        is_complete &= finding.is_present;
    }
    for (server, list) in &lists {
        match list {
            Ok(exported) => writeln!(
                out,
                "ok: usbip server {server}: {} devices that no host has imported",
                exported.len()
            )?,
            Err(error) => writeln!(out, "missing: {error}")?,
        }
        is_complete &= list.is_ok();
    }
    match engine {
        Cdi::On(_) => writeln!(out, "ok: {engine}")?,
        Cdi::Off(_) => writeln!(
            out,
            "missing: {engine} (set enable_cdi = true in containerd's configuration: without it devices stay as they are when \
             the pod starts)"
        )?,
        Cdi::Unknown(_) => writeln!(
            out,
            "unknown: {engine} (set enable_cdi = true there, name the engine's socket with --engine-socket, or give --cdi on or \
             --cdi off)"
        )?,
    }
    Ok(is_complete)
}

/// Prints the resources that would be advertised, and the notes on the configuration.
fn print_resources(
    out: &mut impl Write,
    options: &Options,
    configuration: Configuration,
    lists: &[(&Server, ListResult)],
) -> Result<()> {
    let Configuration { definitions, notes } = configuration;
    let monitor = DeviceMonitor::open(resources::facts_needed(&definitions), 0)
        .context("cannot list the host's devices")?;
    let mut snapshot = Snapshot::take(&definitions, &monitor, &options.state_dir)?;
    for (server, list) in lists {
        if let (Ok(exported), true) = (list, options.cdi_specs.enabled) {
            snapshot.exports.insert((*server).clone(), exported.clone());
        }
    }
    let mut names = Names::default();
    for resource in resources::resources(&definitions, &snapshot, &mut names) {
        let (healthy, unhealthy) = resource.health();
        writeln!(out, "{}: {healthy} healthy, {unhealthy} unhealthy", resource.name)?;
    }
    for note in names.take_notes().into_iter().chain(notes) {
        writeln!(out, "note: {note}")?;
    }
    Ok(())
}

fn findings(options: &Options, has_servers: bool) -> Vec<Finding> {
    let kubelet = options.kubelet_dir.join(KUBELET_SOCKET);
    let mut findings = vec![
        Finding {
            is_present: kubelet.exists(),
            subject: format!("kubelet's socket {}", kubelet.display()),
            hint: "does kubelet run here? --kubelet-dir names its directory",
        },
        Finding {
            is_present: udevd_is_running(),
            subject: "udevd, the source of devices' properties and links".to_owned(),
            hint: "without it requests for them match nothing",
        },
    ];
    if options.cdi_specs.enabled {
        let hooks = [
            "oci-hotplug-prestart",
            "oci-hotplug-poststop",
            "oci-hotplug-watcher",
        ];
        findings.extend(hooks.map(|hook| {
            let path = options.cdi_specs.hooks.join(hook);
            Finding {
                is_present: path.exists(),
                subject: path.display().to_string(),
                hint: "run packaging/install.sh on the node; --hook-dir names another directory",
            }
        }));
    }
    if has_servers {
        findings.push(Finding {
            is_present: vhci::controller(Path::new(vhci::PLATFORM), 0).exists(),
            subject: "the virtual USB host controller, to which devices of USB/IP servers are attached".to_owned(),
            hint: "load its module on the node with `modprobe vhci-hcd`, and at each boot with a line \"vhci-hcd\" in \
                   /etc/modules-load.d/usbip.conf",
        });
    }
    findings
}
