//! `--check`: what would be advertised, and what this node lacks. Changes nothing.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

use super::catalogue;
use super::resource::Names;
use super::run::{self, Options};
use crate::host::monitor::{DeviceMonitor, udevd_is_running};

/// Whether containerd takes CDI devices, as far as its configuration says so. Without the key, containerd 1.7 takes
/// none and 2.0 does, and nothing in the file tells which it is.
pub fn containerd_cdi(config: &Path) -> Option<bool> {
    let text = std::fs::read_to_string(config).ok()?;
    let file: toml::Table = toml::from_str(&text).ok()?;
    let plugins = file.get("plugins")?;
    // Of 1.7, and of 2.x.
    ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"]
        .iter()
        .find_map(|plugin| plugins.get(plugin)?.get("enable_cdi")?.as_bool())
}

/// Prints what there is; false when something is missing that pods need.
///
/// # Errors
/// When the configuration can't be used, or the host's devices can't be listed.
pub fn run(options: &Options, containerd_config: &Path) -> Result<bool> {
    let (_, definitions) = options.sources.read()?;
    let monitor =
        DeviceMonitor::open(catalogue::wanted(&definitions), 0).context("listing the host's devices")?;
    let sight = run::look(&definitions, &monitor)?;
    let mut names = Names::default();
    let mut out = std::io::stdout().lock();
    for resource in catalogue::resources(&definitions, &sight, &mut names) {
        let (healthy, unhealthy) = resource.health();
        writeln!(out, "{}: {healthy} healthy, {unhealthy} unhealthy", resource.name)?;
    }
    for note in names.take_notes() {
        writeln!(out, "note: {note}")?;
    }
    let mut sound = true;
    for (is_well, told, cure) in findings(options, containerd_config) {
        let (word, cure) = if is_well { ("ok", "") } else { ("missing", cure) };
        writeln!(out, "{word}: {told}{cure}")?;
        sound &= is_well;
    }
    Ok(sound)
}

fn findings(options: &Options, containerd_config: &Path) -> Vec<(bool, String, &'static str)> {
    let kubelet = options.kubelet_dir.join(super::api::KUBELET_SOCKET);
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
    if options.door.cdi {
        let hooks = [
            "oci-hotplug-prestart",
            "oci-hotplug-poststop",
            "oci-hotplug-watcher",
        ];
        for hook in hooks.map(|hook| options.door.hooks.join(hook)) {
            let told = hook.display().to_string();
            findings.push((
                hook.exists(),
                told,
                " (run packaging/install.sh on the node; --hook-dir names another place)",
            ));
        }
    }
    let said = containerd_cdi(containerd_config);
    let told = match said {
        Some(true) => "CDI, which containerd's configuration switches on".to_owned(),
        Some(false) => format!("CDI: {} switches it off", containerd_config.display()),
        None => "CDI: on in containerd 2.0 and CRI-O 1.28 and later; containerd 1.7 needs enable_cdi = true"
            .to_owned(),
    };
    findings.push((
        said != Some(false),
        told,
        " (set enable_cdi = true: without it devices stay as they are when the pod starts)",
    ));
    findings
}
