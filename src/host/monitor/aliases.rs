//! Where the paths lead that requests name: links made by hand in `/dev`, and `/sys/class/…`, `/sys/bus/…`.
//!
//! Must not know what asks. Only follows links (realpath(3)); never opens what they lead to.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::model::device::{Device, SysPath};

/// Paths with the place that each leads to at the time of asking.
pub(super) struct Aliases(Vec<(PathBuf, PathBuf)>);

impl Aliases {
    /// Follows each path. Those that are missing, or that are no links and lead to themselves, are left out.
    pub fn follow(paths: &BTreeSet<PathBuf>) -> Self {
        let follow = |path: &PathBuf| {
            let target = fs::canonicalize(path).ok()?;
            (target != *path).then(|| (path.clone(), target))
        };
        Self(
            paths
                .iter()
                .filter(|path| path.is_absolute())
                .filter_map(follow)
                .collect(),
        )
    }

    /// The devices of sysfs that the paths lead to.
    pub fn syspaths(&self) -> Vec<SysPath> {
        let targets = self.0.iter().filter_map(|(_, target)| target.to_str());
        targets
            .filter(|target| target.starts_with("/sys/devices/"))
            .map(SysPath::new)
            .collect()
    }

    /// Gives the device those paths that lead to it or to its node.
    pub fn apply(&self, device: &mut Device) {
        let node = device.node.as_ref().map(|node| node.path.as_path());
        let leads_here = |target: &Path| target == device.syspath.as_path() || Some(target) == node;
        let paths = self
            .0
            .iter()
            .filter(|(_, target)| leads_here(target))
            .map(|(path, _)| path.clone());
        let mut aliases = BTreeSet::new();
        aliases.extend(paths);
        device.aliases = aliases;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::device::{DevKind, DevNode, DevNum};
    use std::os::unix::fs::symlink;

    fn null() -> Device {
        let mut device = Device::new(SysPath::new("/sys/devices/virtual/mem/null"));
        let num = DevNum {
            kind: DevKind::Char,
            major: 1,
            minor: 3,
        };
        device.node = Some(DevNode {
            path: "/dev/null".into(),
            num,
        });
        device
    }

    #[test]
    fn links_of_links_to_a_node_or_a_sysfs_directory_are_aliases() {
        let directory = tempfile::tempdir().unwrap();
        let first = directory.path().join("first");
        let second = directory.path().join("second");
        symlink("/dev/null", &first).unwrap();
        symlink("first", &second).unwrap();
        let class = PathBuf::from("/sys/class/mem/null");
        let elsewhere = directory.path().join("elsewhere");
        symlink("/dev/zero", &elsewhere).unwrap();
        let paths = BTreeSet::from([first.clone(), second.clone(), class.clone(), elsewhere]);

        let aliases = Aliases::follow(&paths);
        let mut device = null();
        aliases.apply(&mut device);
        assert_eq!(device.aliases, BTreeSet::from([class, first, second]));
        assert_eq!(
            aliases.syspaths(),
            [SysPath::new("/sys/devices/virtual/mem/null")]
        );
    }

    #[test]
    fn paths_that_are_missing_relative_or_the_thing_itself_are_no_aliases() {
        let paths = [
            "/dev/null",
            "/dev/no such thing",
            "null",
            "/sys/devices/virtual/mem/null",
        ];
        let mut device = null();
        device.aliases.insert("/dev/stale".into());
        Aliases::follow(&paths.map(PathBuf::from).into()).apply(&mut device);
        assert_eq!(device.aliases, BTreeSet::new());
    }
}
