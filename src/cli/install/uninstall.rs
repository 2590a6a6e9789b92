//! `oci-hotplug install --uninstall`: removes what the manifest names.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::files::{Layout, METRICS_TIMER, RECOVER_UNIT, WANTED_AT_BOOT};
use super::manifest::{Notes, fingerprint, path_of};
use super::place::{Root, ignore_absent};
use super::report::Report;

/// The result for a file that stays.
const LEFT: &str = "left";

/// Checks that there is an installation, which no watcher uses.
pub(super) fn check(layout: &Layout, root: &Root, force: bool) -> Result<Notes> {
    let manifest = root.at(&path_of(layout));
    let Some(notes) = Notes::read(&manifest)? else {
        let command = match root.is_of_user() {
            true => "`oci-hotplug install --user`",
            false => "packaging/install.sh with these PREFIX and DESTDIR",
        };
        bail!(
            "cannot uninstall: {} does not exist (nothing was installed by {command})",
            manifest.display()
        );
    };
    let watchers = running_watchers(&root.at(&layout.watcher()));
    if !watchers.is_empty() && !force {
        bail!(
            "cannot uninstall: containers have watchers (processes {}): stop the containers first, or use --force, \
             and they keep their devices until they end",
            watchers.join(" ")
        );
    }
    Ok(notes)
}

/// Removes the files of an installation, and the directories that it has made and that are empty
/// then. A configuration that was changed stays.
pub(super) fn run(layout: &Layout, root: &Root, force: bool) -> Result<Report> {
    let manifest = root.at(&path_of(layout));
    let notes = check(layout, root, force)?;
    if root.is_run_by_systemd() && !root.is_of_user() {
        root.systemctl(&["--quiet", "disable", "--now", RECOVER_UNIT, METRICS_TIMER]);
        fs::remove_file(Path::new(WANTED_AT_BOOT).join(RECOVER_UNIT)).or_else(ignore_absent)?;
    }
    // The hooks' JSON first, so that no engine starts a removed hook.
    let is_json = |path: &PathBuf| path.starts_with(&layout.hooks_json);
    let (json, rest): (Vec<_>, Vec<_>) = notes.files.iter().partition(|(path, _)| is_json(path));
    let mut report = Report::new();
    for (path, mark) in json.into_iter().chain(rest) {
        if let Some(result) = remove(layout, root, path, mark)? {
            report.push((path.clone(), result));
        }
    }
    fs::remove_file(&manifest).with_context(|| format!("cannot remove {}", manifest.display()))?;
    // A directory is sorted behind those above it.
    for directory in notes.directories.iter().rev() {
        let _ = fs::remove_dir(root.at(directory));
    }
    if root.is_run_by_systemd() {
        root.systemctl(&["daemon-reload"]);
    }
    let reported: Vec<PathBuf> = report.iter().map(|(path, _)| path.clone()).collect();
    let left = left(layout, root).filter(|path| !reported.contains(path));
    report.extend(left.map(|path| (path, LEFT)));
    Ok(report)
}

/// What the operator's commands wrote, and stays: generated CDI devices, which start hooks that are
/// gone now, and rules and classes of the configuration.
fn left(layout: &Layout, root: &Root) -> impl Iterator<Item = PathBuf> {
    let files_in = |directory: PathBuf| {
        let entries = fs::read_dir(root.at(&directory)).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
        names.sort();
        names.into_iter().map(move |name| directory.join(name))
    };
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with("oci-hotplug.dev-")
    };
    let devices = files_in(layout.cdi.clone()).filter(is_ours);
    devices.chain(files_in(layout.config.with_file_name("config.d")))
}

/// Removes a file. Returns what was done; `None` when it does not exist.
fn remove(layout: &Layout, root: &Root, path: &Path, mark: &str) -> Result<Option<&'static str>> {
    let place = root.at(path);
    let Ok(content) = fs::read(&place) else {
        return Ok(None);
    };
    let is_configuration = path == layout.config || path.starts_with(&layout.cdi);
    if is_configuration && fingerprint(&content) != mark {
        return Ok(Some(LEFT));
    }
    fs::remove_file(&place).with_context(|| format!("cannot remove {}", place.display()))?;
    Ok(Some("removed"))
}

/// The processes that run the installed watcher, or one that it was replaced by since: the kernel
/// shows the path of a file that was replaced with a mark, and the name that it had before it was
/// renamed.
pub(super) fn running_watchers(watcher: &Path) -> Vec<String> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_watcher = |process: &PathBuf| {
        let exe = fs::read_link(process.join("exe")).unwrap_or_default();
        let exe = exe.to_string_lossy().into_owned();
        let path = Path::new(exe.strip_suffix(" (deleted)").unwrap_or(&exe));
        let name = watcher.file_name().unwrap_or_default().to_string_lossy();
        path == watcher
            || (path.parent() == watcher.parent()
                && path
                    .file_name()
                    .is_some_and(|own| own.to_string_lossy().starts_with(&format!(".{name}."))))
    };
    let watchers = processes.map(|process| process.path()).filter(is_watcher);
    let pid = |process: PathBuf| Some(process.file_name()?.to_str()?.to_owned());
    watchers.filter_map(pid).collect()
}
