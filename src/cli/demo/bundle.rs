//! The demo's bundle: a root file system with busybox, and config.json with our hooks.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use oci_spec::runtime::{
    Capability, Hook, HookBuilder, HooksBuilder, Linux, LinuxBuilder, LinuxCapabilitiesBuilder,
    LinuxDeviceCgroupBuilder, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxResourcesBuilder, Mount,
    Process, ProcessBuilder, RootBuilder, Spec, SpecBuilder, get_default_mounts,
};

use super::setup::{Scratch, Tools};
use crate::model::request::annotations;

/// Creates the bundle of a container that requests `node`.
pub(super) fn create(dir: &Path, tools: &Tools, scratch: &Scratch, node: &str) -> Result<()> {
    create_rootfs(&dir.join("rootfs"), &tools.busybox)?;
    spec(tools, scratch, node)?
        .save(dir.join("config.json"))
        .context("cannot write config.json")
}

fn create_rootfs(rootfs: &Path, busybox: &Path) -> Result<()> {
    let bin = rootfs.join("bin");
    for dir in [
        &bin,
        &rootfs.join("dev"),
        &rootfs.join("proc"),
        &rootfs.join("sys"),
    ] {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    fs::copy(busybox, bin.join("busybox")).context("cannot copy busybox")?;
    fs::set_permissions(bin.join("busybox"), fs::Permissions::from_mode(0o755))?;
    for applet in ["sh", "ls", "head", "sleep", "mknod"] {
        std::os::unix::fs::symlink("busybox", bin.join(applet))?;
    }
    Ok(())
}

fn spec(tools: &Tools, scratch: &Scratch, node: &str) -> Result<Spec> {
    let hooks = HooksBuilder::default()
        .create_runtime(vec![hook(&tools.prestart, scratch)?])
        .poststop(vec![hook(&tools.poststop, scratch)?])
        .build()?;
    let mounts: Vec<Mount> = get_default_mounts().into_iter().filter(is_basic).collect();
    let annotation = (annotations::DEVICES.to_owned(), format!("devnode:{node}"));
    Ok(SpecBuilder::default()
        .version("1.0.2")
        .root(RootBuilder::default().path("rootfs").readonly(false).build()?)
        .process(process()?)
        .mounts(mounts)
        .hostname("hotplug")
        .annotations(HashMap::from([annotation]))
        .hooks(hooks)
        .linux(linux()?)
        .build()?)
}

/// A process that only waits, with the capability to create a node itself.
fn process() -> Result<Process> {
    let mknod: HashSet<Capability> = [Capability::Mknod].into_iter().collect();
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(mknod.clone())
        .effective(mknod.clone())
        .permitted(mknod)
        .inheritable(HashSet::new())
        .ambient(HashSet::new())
        .build()?;
    let mut process = ProcessBuilder::default()
        .terminal(false)
        .capabilities(capabilities)
        .args(["/bin/sleep".to_owned(), "600".to_owned()])
        .env(["PATH=/bin".to_owned()])
        .cwd("/")
        .no_new_privileges(true)
        .build()?;
    process.set_rlimits(None);
    Ok(process)
}

/// Own namespaces, and a cgroup without access to devices, as every engine creates it.
fn linux() -> Result<Linux> {
    let namespaces = [
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Network,
    ]
    .into_iter()
    .map(|kind| LinuxNamespaceBuilder::default().typ(kind).build())
    .collect::<Result<Vec<_>, _>>()?;
    let nothing = LinuxDeviceCgroupBuilder::default()
        .allow(false)
        .access("rwm")
        .build()?;
    let resources = LinuxResourcesBuilder::default().devices(vec![nothing]).build()?;
    Ok(LinuxBuilder::default()
        .namespaces(namespaces)
        .resources(resources)
        .build()?)
}

/// Whether it is /proc or below /dev: the mounts of cgroups differ between hosts.
fn is_basic(mount: &Mount) -> bool {
    ["/proc", "/dev", "/dev/pts"]
        .iter()
        .any(|path| mount.destination() == Path::new(path))
}

fn hook(program: &Path, scratch: &Scratch) -> Result<Hook> {
    let name = program
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    Ok(HookBuilder::default()
        .path(program)
        .args([
            name,
            "--state-dir".into(),
            scratch.state_dir().to_string_lossy().into_owned(),
            "--config".into(),
            scratch.config().to_string_lossy().into_owned(),
        ])
        .timeout(10)
        .build()?)
}
