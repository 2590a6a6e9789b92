//! Finds out which directories a running process watches with inotify.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::tree::Tree;

/// The `directories` that exist and that no process called `name` watches. Empty if there is no
/// such process, or if its open files cannot be read (that needs root).
pub(super) fn unwatched(tree: &Tree, name: &str, directories: &[&Path]) -> Vec<PathBuf> {
    let watched: Vec<Vec<u64>> = processes(tree, name)
        .filter_map(|process| watched_inodes(&process))
        .collect();
    let is_unwatched = |directory: &Path| {
        let inode = fs::metadata(tree.at(directory)).map(|found| found.ino());
        // Inodes alone are compared: the device number of a watch is that of the superblock, and
        // stat(2) returns another number on btrfs.
        inode.is_ok_and(|inode| watched.iter().any(|inodes| !inodes.contains(&inode)))
    };
    let unwatched = directories.iter().filter(|directory| is_unwatched(directory));
    unwatched.map(|directory| directory.to_path_buf()).collect()
}

/// The directories in /proc of the processes with this name.
fn processes<'a>(tree: &Tree, name: &'a str) -> impl Iterator<Item = PathBuf> + use<'a> {
    let entries = fs::read_dir(tree.at("/proc")).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(move |path| fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == name))
}

/// The inodes that a process watches (proc_pid_fdinfo(5): `inotify wd:1 ino:192627 sdev:800001 …`,
/// hexadecimal); `None` if its open files cannot be read.
fn watched_inodes(process: &Path) -> Option<Vec<u64>> {
    let mut inodes = Vec::new();
    for entry in fs::read_dir(process.join("fdinfo")).ok()?.flatten() {
        // A descriptor that was closed in the meantime watches nothing.
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let watches = text.lines().filter(|line| line.starts_with("inotify "));
        let fields = watches.flat_map(str::split_ascii_whitespace);
        inodes.extend(fields.filter_map(|field| u64::from_str_radix(field.strip_prefix("ino:")?, 16).ok()));
    }
    Some(inodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOOKS: &str = "/usr/share/hooks.d";

    fn host(process: &str, watched: impl Fn(u64) -> u64) -> (tempfile::TempDir, Tree) {
        let root = tempfile::tempdir().unwrap();
        let tree = Tree::new(root.path());
        fs::create_dir_all(tree.at(HOOKS)).unwrap();
        fs::create_dir_all(tree.at("/proc/17/fdinfo")).unwrap();
        fs::write(tree.at("/proc/17/comm"), format!("{process}\n")).unwrap();
        let inode = watched(fs::metadata(tree.at(HOOKS)).unwrap().ino());
        fs::write(
            tree.at("/proc/17/fdinfo/5"),
            format!(
                "pos:\t0\nflags:\t02004000\ninotify wd:1 ino:{inode:x} sdev:800001 mask:fc6 ignored_mask:0\n"
            ),
        )
        .unwrap();
        (root, tree)
    }

    #[test]
    fn a_replaced_directory_is_not_watched_any_more() {
        let directories = [Path::new(HOOKS), Path::new("/not/there")];
        let (_root, tree) = host("crio", |inode| inode);
        assert!(unwatched(&tree, "crio", &directories).is_empty());
        let (_root, tree) = host("crio", |inode| inode + 1);
        assert_eq!(unwatched(&tree, "crio", &directories), [Path::new(HOOKS)]);
    }

    #[test]
    fn nothing_is_reported_without_the_process_or_the_permission() {
        let directories = [Path::new(HOOKS)];
        let (_root, tree) = host("podman", |inode| inode + 1);
        assert!(unwatched(&tree, "crio", &directories).is_empty());
        let (_root, tree) = host("crio", |inode| inode + 1);
        fs::remove_dir_all(tree.at("/proc/17/fdinfo")).unwrap();
        assert!(unwatched(&tree, "crio", &directories).is_empty());
    }

    #[test]
    fn a_real_watch_is_recognised() {
        use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
        let root = tempfile::tempdir().unwrap();
        let process = Path::new("/proc/self");
        let inode = fs::metadata(root.path()).unwrap().ino();
        assert!(!watched_inodes(process).unwrap().contains(&inode));
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC).unwrap();
        inotify.add_watch(root.path(), AddWatchFlags::IN_CREATE).unwrap();
        assert!(watched_inodes(process).unwrap().contains(&inode));
    }
}
