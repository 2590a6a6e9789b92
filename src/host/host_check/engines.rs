//! The installed engines and runtimes, and their configurations.

use std::path::{Path, PathBuf};

use super::inotify::unwatched;
use super::programs::{find, version};
use super::tree::Tree;
use crate::host::rootless::{home, rootless};
use crate::model::host_check::engine_config::{
    ContainerdConfig, CriOConfig, DEFAULT_HOOK_DIR, DockerConfig, hook_definition, take_podman_hooks_dirs,
};
use crate::model::host_check::facts::{Containerd, CriO, Docker, Engines, HookFile, Hooks, Podman};
use crate::model::host_check::version::Version;

const RUNTIMES: [&str; 3] = ["runc", "crun", "youki"];

/// The maximum depth of containerd's imports: containerd itself rejects cycles.
const MAX_IMPORTS: usize = 4;

/// The runtimes with their versions.
pub(crate) fn runtimes(tree: &Tree) -> Vec<(&'static str, Option<Version>)> {
    let found = RUNTIMES
        .into_iter()
        .filter_map(|name| Some((name, find(tree, name)?)));
    found.map(|(name, path)| (name, version(tree, &path))).collect()
}

/// The engines. Docker means the daemon: a client alone starts no containers on this host.
pub(crate) fn engines(tree: &Tree) -> Engines {
    let installed = |name| find(tree, name).map(|path| version(tree, &path));
    Engines {
        podman: installed("podman").map(|version| Podman {
            version,
            hooks: podman_hooks_dirs(tree).map(|dirs| hooks(tree, dirs)),
        }),
        docker: installed("dockerd").map(|version| docker(tree, version)),
        containerd: installed("containerd").map(|version| Containerd {
            version,
            config: containerd(tree),
        }),
        cri_o: installed("crio").map(|version| {
            let config = cri_o(tree);
            let dirs = config.as_ref().map(|config| config.hooks_dirs.clone());
            let hooks = hooks(tree, dirs.unwrap_or_default());
            let mut directories: Vec<&Path> =
                hooks.files.iter().filter_map(|file| file.path.parent()).collect();
            directories.dedup();
            CriO {
                version,
                unwatched: unwatched(tree, "crio", &directories),
                hooks,
                config,
            }
        }),
    }
}

fn of_file(path: &Path) -> impl Fn(String) -> String {
    let path = path.display().to_string();
    // A parser's message may have further lines that quote the file.
    move |error| {
        format!(
            "{path}: {}",
            error.lines().map(str::trim).collect::<Vec<_>>().join(" ")
        )
    }
}

/// The hook directories of all podmans that root starts, or those of the user who runs the check
/// (containers.conf(5)).
fn podman_hooks_dirs(tree: &Tree) -> Result<Vec<PathBuf>, String> {
    let mut files: Vec<PathBuf> = vec![
        "/usr/share/containers/containers.conf".into(),
        "/etc/containers/containers.conf".into(),
    ];
    files.extend(tree.files("/etc/containers/containers.conf.d", "conf"));
    let home = rootless().and_then(home).filter(|_| tree.is_host());
    files.extend(home.map(|home| home.join(".config/containers/containers.conf")));
    let mut dirs = vec![PathBuf::from(DEFAULT_HOOK_DIR)];
    for path in files {
        if let Some(text) = tree.config(&path)? {
            take_podman_hooks_dirs(&mut dirs, &text).map_err(of_file(&path))?;
        }
    }
    Ok(dirs)
}

/// The daemon that root runs, or that of the user who runs the check, which is rootless.
fn docker(tree: &Tree, version: Option<Version>) -> Docker {
    let user = rootless().filter(|user| tree.is_host() && user.runtime_dir().join("docker.sock").exists());
    let path = match user.and_then(home) {
        Some(home) => home.join(".config/docker/daemon.json"),
        None => PathBuf::from("/etc/docker/daemon.json"),
    };
    let parse = |text: String| DockerConfig::parse(&text).map_err(of_file(&path));
    let text = tree.config(&path).transpose();
    Docker {
        version,
        config: text.map_or_else(|| Ok(DockerConfig::default()), |text| parse(text?)),
        is_rootless: user.is_some(),
    }
}

fn containerd(tree: &Tree) -> Result<ContainerdConfig, String> {
    let mut config = ContainerdConfig::default();
    let mut waiting = vec![PathBuf::from("/etc/containerd/config.toml")];
    for _ in 0..MAX_IMPORTS {
        let mut imports = Vec::new();
        for path in &waiting {
            let Some(text) = tree.config(path)? else { continue };
            for pattern in config.take(&text).map_err(of_file(path))? {
                imports.extend(matching(tree, &path.with_file_name(pattern)));
            }
        }
        waiting = imports;
    }
    Ok(config)
}

/// The files that match a pattern, sorted by name.
fn matching(tree: &Tree, pattern: &Path) -> Vec<PathBuf> {
    let pattern = tree.at(pattern);
    let found = pattern.to_str().and_then(|pattern| glob::glob(pattern).ok());
    found
        .into_iter()
        .flatten()
        .flatten()
        .map(|path| tree.name(&path))
        .collect()
}

/// crio.conf(5), crio.conf.d(5).
fn cri_o(tree: &Tree) -> Result<CriOConfig, String> {
    let mut files = vec![PathBuf::from("/etc/crio/crio.conf")];
    files.extend(tree.files("/etc/crio/crio.conf.d", "conf"));
    let mut config = CriOConfig::default();
    for path in files {
        if let Some(text) = tree.config(&path)? {
            config.take(&text).map_err(of_file(&path))?;
        }
    }
    Ok(config)
}

/// The configuration files of our hooks in these directories. A file in a later directory overrides
/// those with the same name.
fn hooks(tree: &Tree, dirs: Vec<PathBuf>) -> Hooks {
    let mut paths: Vec<PathBuf> = Vec::new();
    for dir in &dirs {
        let files = tree.files(dir, "json");
        paths.retain(|path| !files.iter().any(|file| file.file_name() == path.file_name()));
        paths.extend(files);
    }
    let is_ours = |program: &Path| {
        let name = program.file_name().unwrap_or_default().as_encoded_bytes();
        name == b"oci-hotplug-prestart" || name == b"oci-hotplug-poststop"
    };
    let file = |path: PathBuf| {
        let definition = hook_definition(&tree.read(&path)?).filter(|found| is_ours(&found.program))?;
        Some(HookFile {
            is_executable: tree.has_executable(&definition.program),
            path,
            definition,
        })
    };
    Hooks {
        files: paths.into_iter().filter_map(file).collect(),
        dirs,
    }
}
