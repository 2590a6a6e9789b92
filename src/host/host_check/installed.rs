//! What is installed of this project (executables, units), and the content of its state directory.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access, getegid, geteuid};

use super::programs::output_start;
use super::system::filesystem_of;
use super::tree::Tree;
use crate::host::programs;
use crate::host::state::registry::Registry;
use crate::model::host_check::facts::{Access, Containers, Programs, StateDir};
use crate::model::oci::engine::short_id;

/// The directory where install.sh and packages install the hooks.
const HOOK_DIR: &str = "/usr/libexec/oci/hooks.d";

const PROGRAMS: [&str; 4] = [
    "oci-hotplug-prestart",
    "oci-hotplug-poststop",
    "oci-hotplug-watcher",
    "oci-hotplug-usbip",
];

/// The directories of systemd.unit(5) that packages and administrators use.
const UNIT_DIRS: [&str; 3] = [
    "/usr/lib/systemd/system",
    "/usr/local/lib/systemd/system",
    "/etc/systemd/system",
];

/// The hooks and the watcher: in their installation directory, or in that of this program.
pub(crate) fn hook_programs(tree: &Tree) -> Programs {
    let of_this_program = match tree.is_host() {
        true => programs::directories().unwrap_or_default(),
        false => Vec::new(),
    };
    let dirs = std::iter::once(PathBuf::from(HOOK_DIR)).chain(of_this_program);
    let mut looked_at: Vec<Programs> = dirs.map(|dir| programs_in(tree, &dir)).collect();
    let complete = looked_at.iter().position(|programs| programs.missing.is_empty());
    looked_at.swap_remove(complete.unwrap_or(0))
}

fn programs_in(tree: &Tree, dir: &Path) -> Programs {
    let mut programs = Programs {
        dir: dir.to_owned(),
        ..Programs::default()
    };
    for name in PROGRAMS {
        let path = dir.join(name);
        if !tree.has_executable(&path) {
            programs.missing.push(name.to_owned());
            continue;
        }
        // A file that other users can write is not executed.
        if may_be_written_by_others(tree, &tree.at(&path)) {
            programs.open.push(name.to_owned());
        } else if output_start(&tree.at(&path)).is_none_or(|text| text.trim() != format!("{name} {VERSION}"))
        {
            programs.other_versions.push(name.to_owned());
        }
    }
    programs
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Whether users other than root, who owns the tree, and the user who runs the check can write a
/// file.
pub(crate) fn may_be_written_by_others(tree: &Tree, path: &Path) -> bool {
    let (uid, gid) = tree.owner();
    let is_owner = |owner| owner == uid || (tree.is_host() && owner == geteuid().as_raw());
    let is_group = |group| group == gid || (tree.is_host() && group == getegid().as_raw());
    fs::metadata(path).is_ok_and(|file| {
        !is_owner(file.uid())
            || file.mode() & 0o002 != 0
            || (file.mode() & 0o020 != 0 && !is_group(file.gid()))
    })
}

/// Whether systemd finds our units.
pub(crate) fn has_units(tree: &Tree) -> bool {
    UNIT_DIRS
        .iter()
        .any(|dir| tree.at(dir).join("oci-hotplug-watcher@.service").is_file())
}

/// The state directory `path` of the tree.
pub(crate) fn state_dir(tree: &Tree, path: &Path) -> StateDir {
    let owner = match tree.is_host() {
        true => geteuid().as_raw(),
        false => tree.owner().0,
    };
    let found = fs::metadata(tree.at(path)).ok().map(|dir| Access {
        is_own: dir.uid() == owner,
        mode: dir.mode() & 0o7777,
    });
    let mut nearest = path.ancestors().map(|dir| tree.at(dir));
    let writable = nearest
        .find(|dir| dir.exists())
        .is_some_and(|dir| access(&dir, AccessFlags::W_OK).is_ok());
    StateDir {
        path: path.to_owned(),
        access: found,
        writable,
        filesystem: filesystem_of(tree, path),
    }
}

/// The enrolled containers. While a hook enrolls one, it counts as watched.
pub(crate) fn containers(tree: &Tree, state_dir: &Path) -> Containers {
    let registry = Registry::new(tree.at(state_dir));
    let mut containers = Containers::default();
    let ids = match registry.ids() {
        Ok(ids) => ids,
        Err(error) => {
            containers.unreadable.push(error.to_string());
            return containers;
        }
    };
    for id in ids {
        if registry.is_watched(&id) {
            containers.watched += 1;
            let watcher = registry.watcher(&id).map(|watcher| watcher.pid);
            containers.outdated += usize::from(watcher.is_some_and(is_outdated));
            continue;
        }
        match registry.record(&id) {
            Ok(Some(record)) if record.is_running() => {
                // The container may have ended or got its watcher since the first check.
                if !registry.is_watched(&id) && record.is_running() {
                    containers.unwatched.push(short_id(id.as_str()).to_owned());
                }
            }
            Ok(_) => containers.gone.push(short_id(id.as_str()).to_owned()),
            Err(error) => containers.unreadable.push(error.to_string()),
        }
    }
    containers
}

/// Whether a process runs from a file that was deleted or replaced: proc_pid_exe(5).
fn is_outdated(pid: i32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe"))
        .is_ok_and(|exe| exe.as_os_str().as_encoded_bytes().ends_with(b" (deleted)"))
}
