//! The file system that is checked: the host's, or one below a directory.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::host::regular_file;

/// The maximum size of a file that is read, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// The root of all paths that are checked.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    root: PathBuf,
}

impl Tree {
    /// The tree below `root`; `/` is the host.
    pub(crate) fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Whether it is the host's own tree, so that facts about the running kernel apply to it.
    pub(crate) fn is_host(&self) -> bool {
        self.root == Path::new("/")
    }

    /// The real path of an absolute path of the tree.
    pub(crate) fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The path of a file within the tree.
    pub(crate) fn name(&self, file: &Path) -> PathBuf {
        file.strip_prefix(&self.root)
            .map_or_else(|_| file.to_owned(), |below| Path::new("/").join(below))
    }

    /// The text of a file, if it can be read.
    pub(crate) fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        regular_file::read_text_at_most(&self.at(path), MAX_FILE).ok()
    }

    /// The text of a configuration file; `None` if it does not exist.
    ///
    /// # Errors
    /// When it exists and cannot be read; the message names it.
    pub(crate) fn config(&self, path: impl AsRef<Path>) -> Result<Option<String>, String> {
        let path = path.as_ref();
        match regular_file::read_text_at_most(&self.at(path), MAX_FILE) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }

    /// The files of a directory with this extension, sorted by name; empty if the directory cannot
    /// be listed.
    pub(crate) fn files(&self, dir: impl AsRef<Path>, extension: &str) -> Vec<PathBuf> {
        let dir = dir.as_ref();
        let entries = fs::read_dir(self.at(dir)).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries
            .map(|entry| dir.join(entry.file_name()))
            .filter(|path| path.extension().is_some_and(|found| found == extension))
            .collect();
        files.sort();
        files
    }

    /// Whether the path is an executable file.
    pub(crate) fn has_executable(&self, path: impl AsRef<Path>) -> bool {
        fs::metadata(self.at(path)).is_ok_and(|file| file.is_file() && file.mode() & 0o111 != 0)
    }

    /// The user and the group that own the tree: root, on a host.
    pub(super) fn owner(&self) -> (u32, u32) {
        fs::metadata(&self.root).map_or((0, 0), |root| (root.uid(), root.gid()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_resolved_below_the_root_and_shown_without_it() {
        let tree = Tree::new("/mnt/image");
        assert_eq!(tree.at("/etc/cdi"), Path::new("/mnt/image/etc/cdi"));
        assert_eq!(tree.name(Path::new("/mnt/image/etc/cdi")), Path::new("/etc/cdi"));
        let host = Tree::new("/");
        assert_eq!(host.at("/etc/cdi"), Path::new("/etc/cdi"));
        assert_eq!(host.name(Path::new("/etc/cdi")), Path::new("/etc/cdi"));
        assert!(host.is_host() && !tree.is_host());
    }

    #[test]
    fn a_fifo_in_the_place_of_a_file_is_reported() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("daemon.json");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let tree = Tree::new(scratch.path());
        assert_eq!(tree.read("/daemon.json"), None);
        let error = tree.config("/daemon.json").unwrap_err();
        assert_eq!(error, "/daemon.json: it is a FIFO, not a regular file");
        assert_eq!(tree.config("/absent.json"), Ok(None));
    }
}
