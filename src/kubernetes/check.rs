//! `--check`: what would be advertised, and what this node lacks. Changes nothing.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

use super::config::{self, Configuration};
use super::engine::Cdi;
use super::options::Options;
use super::resources;
use super::resources::names::Names;
use super::snapshot::Snapshot;
use super::usbip_servers;
use crate::host::monitor::{DeviceMonitor, udevd_is_running};

/// Prints what there is; false when something is missing that pods need.
///
/// # Errors
/// When the configuration can't be used, or the host's devices can't be listed.
pub fn run(options: &Options, engine: &Cdi) -> Result<bool> {
    let (_, Configuration { definitions, notes }) = options.config_sources.read()?;
    let monitor = DeviceMonitor::open(resources::facts_needed(&definitions), 0)
        .context("listing the host's devices")?;
    let mut snapshot = Snapshot::take(&definitions, &monitor, &options.state_dir)?;
    let servers = config::servers(&definitions);
    let answers = usbip_servers::list_all(&servers);
    for (server, answer) in &answers {
        if let (Ok(exported), true) = (answer, options.cdi_specs.enabled) {
            snapshot.exports.insert((*server).clone(), exported.clone());
        }
    }
    let mut names = Names::default();
    let mut out = std::io::stdout().lock();
    for resource in resources::resources(&definitions, &snapshot, &mut names) {
        let (healthy, unhealthy) = resource.health();
        writeln!(out, "{}: {healthy} healthy, {unhealthy} unhealthy", resource.name)?;
    }
    for note in names.take_notes().into_iter().chain(notes) {
        writeln!(out, "note: {note}")?;
    }
    let mut sound = true;
    for (is_well, told, cure) in findings(options, !servers.is_empty()) {
        let (word, cure) = if is_well { ("ok", "") } else { ("missing", cure) };
        writeln!(out, "{word}: {told}{cure}")?;
        sound &= is_well;
    }
    for (server, answer) in &answers {
        match answer {
            Ok(exported) => writeln!(
                out,
                "ok: usbip server {server}: {} devices that nobody has imported",
                exported.len()
            )?,
            Err(error) => writeln!(out, "missing: {error}")?,
        }
        sound &= answer.is_ok();
    }
    let (word, cure) = match engine {
        Cdi::On(_) => ("ok", ""),
        Cdi::Off(_) => (
            "missing",
            " (set enable_cdi = true in containerd's configuration: without it devices stay as they are when the pod starts)",
        ),
        Cdi::Unknown(_) => (
            "unknown",
            " (say enable_cdi = true there, let --engine-socket name the engine's socket, or give --cdi on or --cdi off)",
        ),
    };
    writeln!(out, "{word}: {engine}{cure}")?;
    Ok(sound && engine.is_used())
}

fn findings(options: &Options, is_remote: bool) -> Vec<(bool, String, &'static str)> {
    let kubelet = options.kubelet_dir.join(super::kubelet::api::KUBELET_SOCKET);
    let mut findings = vec![
        (
            kubelet.exists(),
            format!("kubelet's socket {}", kubelet.display()),
            " (does kubelet run here? --kubelet-dir names its directory)",
        ),
        (
            udevd_is_running(),
            "udevd, which tells of devices' properties and links".to_owned(),
            " (without it requests for them match nothing)",
        ),
    ];
    if options.cdi_specs.enabled {
        let hooks = [
            "oci-hotplug-prestart",
            "oci-hotplug-poststop",
            "oci-hotplug-watcher",
        ];
        for hook in hooks.map(|hook| options.cdi_specs.hooks.join(hook)) {
            let told = hook.display().to_string();
            findings.push((
                hook.exists(),
                told,
                " (run packaging/install.sh on the node; --hook-dir names another place)",
            ));
        }
    }
    if is_remote {
        let controller = Path::new("/sys/devices/platform/vhci_hcd.0");
        findings.push((
            controller.exists(),
            "the virtual USB host controller, by which devices of USB/IP servers are attached".to_owned(),
            " (load its module on the node: `modprobe vhci-hcd`, and at each boot with a line \"vhci-hcd\" in \
             /etc/modules-load.d/usbip.conf)",
        ));
    }
    findings
}
