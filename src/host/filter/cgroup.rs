//! A cgroup, identified so that another cgroup with the same path is not mistaken for it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};

/// One cgroup; stays the same one if its path is used again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    pub path: PathBuf,
    /// The directory's inode number; 0 if unknown.
    pub inode: u64,
}

impl Cgroup {
    /// The cgroup at this directory.
    ///
    /// # Errors
    /// When there is none.
    pub fn at(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            inode: fs::metadata(path)?.ino(),
        })
    }

    /// Whether the cgroup still exists at its path.
    pub fn exists(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode)
    }
}

/// The hierarchy that a cgroup belongs to. Inode numbers are unique within one hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The v1 hierarchy with the devices controller.
    V1,
    V2,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_with_the_same_path_is_another_cgroup_after_the_directory_was_replaced() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("cgroup");
        fs::create_dir(&path).unwrap();
        let cgroup = Cgroup::at(&path).unwrap();
        assert!(cgroup.exists());
        // Both directories exist at the same time, so their inode numbers differ on every file
        // system.
        fs::create_dir(scratch.path().join("next")).unwrap();
        fs::rename(scratch.path().join("next"), &path).unwrap();
        assert!(!cgroup.exists());
        fs::remove_dir(&path).unwrap();
        assert!(!cgroup.exists());
        assert!(Cgroup::at(&path).is_err());
    }
}
