//! Decides which cgroups are a container's own, from the text of `/proc/PID/cgroup` and the OCI
//! config. Pure: reads no file.

use std::path::{Component, Path, PathBuf};

use procfs::ProcResult;
use procfs::process::MountInfo;

/// The cgroups of a process in the hierarchies that control device access; `None` for a root
/// cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Membership {
    /// The path in the v1 hierarchy with the `devices` controller.
    pub v1_devices: Option<String>,
    /// The path in the v2 hierarchy.
    pub v2: Option<String>,
}

impl Membership {
    /// Parses the lines `hierarchy:controllers:path` of `/proc/PID/cgroup` (cgroups(7)). Only the
    /// first two colons are separators, because paths can contain colons. A cgroup that was removed
    /// (`… (deleted)`) is ignored.
    pub(super) fn parse(text: &str) -> Self {
        let mut membership = Membership {
            v1_devices: None,
            v2: None,
        };
        for line in text.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(hierarchy), Some(controllers), Some(path)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let path = (path != "/" && !path.ends_with(" (deleted)")).then(|| path.to_owned());
            if controllers.split(',').any(|name| name == "devices") {
                membership.v1_devices = path;
            } else if hierarchy == "0" && controllers.is_empty() {
                membership.v2 = path;
            }
        }
        membership
    }

    /// The container's own v2 cgroups, from the leaf up to the one that `cgroups_path` (the OCI
    /// config's `linux.cgroupsPath`, else the container's id) names.
    ///
    /// If none has that name, it is the leaf alone. On a hybrid host, where a v1 hierarchy controls
    /// devices, it is then none: runtimes there leave the process in its caller's v2 cgroup, which
    /// is not the container's.
    pub(super) fn own_v2(&self, cgroups_path: Option<&str>, id: &str) -> Vec<PathBuf> {
        let Some(leaf) = self.v2.as_deref().map(Path::new) else {
            return Vec::new();
        };
        let named = leaf
            .ancestors()
            .take_while(|path| path.file_name().is_some())
            .position(|path| is_named(path, cgroups_path, id));
        match (named, &self.v1_devices) {
            (Some(levels), _) => leaf.ancestors().take(levels + 1).map(Path::to_owned).collect(),
            (None, None) => vec![leaf.to_owned()],
            (None, Some(_)) => Vec::new(),
        }
    }
}

/// Whether the OCI config names this cgroup.
fn is_named(cgroup: &Path, cgroups_path: Option<&str>, id: &str) -> bool {
    let name = cgroup
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let Some(configured) = cgroups_path.filter(|path| !path.is_empty()) else {
        return name == id || name.ends_with(&format!("-{id}.scope"));
    };
    if systemd_units(configured).iter().any(|unit| unit == name) {
        return true;
    }
    let components: PathBuf = Path::new(configured)
        .components()
        .filter(|part| matches!(part, Component::Normal(_)))
        .collect();
    components.file_name().is_some() && cgroup.ends_with(components)
}

/// The systemd units that `slice:prefix:name` may mean (runc's docs/systemd.md): without a prefix,
/// runc and crun use different names.
fn systemd_units(configured: &str) -> Vec<String> {
    let parts: Vec<&str> = configured.split(':').collect();
    match parts[..] {
        [_, _, name] if name.ends_with(".slice") => vec![name.to_owned()],
        [_, "", name] => vec![format!("{name}.scope"), format!("-{name}.scope")],
        [_, prefix, name] => vec![format!("{prefix}-{name}.scope")],
        _ => Vec::new(),
    }
}

/// A mount of a cgroup hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CgroupMount {
    /// The mount point.
    pub point: PathBuf,
    /// The cgroup at the mount point: `/`, or a deeper one in a container or with a bind mount.
    pub root: PathBuf,
}

impl CgroupMount {
    /// The directory of a cgroup; `None` if it is not below this mount. (A path with `..` lies
    /// outside our cgroup namespace, cgroup_namespaces(7).)
    pub(super) fn directory(&self, cgroup: &Path) -> Option<PathBuf> {
        let below = cgroup.strip_prefix(&self.root).ok()?;
        let plain = cgroup
            .components()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        plain.then(|| self.point.join(below))
    }
}

/// The mounts of the hierarchies that control device access.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct CgroupMounts {
    pub v1_devices: Vec<CgroupMount>,
    pub v2: Vec<CgroupMount>,
}

impl CgroupMounts {
    /// Adds a line of a list of mounts (proc_pid_mountinfo(5)) if it is such a mount.
    ///
    /// # Errors
    /// When it looks like one and is malformed.
    pub(super) fn add_line(&mut self, line: &str) -> ProcResult<()> {
        // There may be thousands of other mounts.
        if !line.contains(" - cgroup") {
            return Ok(());
        }
        let info = MountInfo::from_line(line)?;
        let mounts = match &*info.fs_type {
            "cgroup2" => &mut self.v2,
            "cgroup" if info.super_options.contains_key("devices") => &mut self.v1_devices,
            _ => return Ok(()),
        };
        mounts.push(CgroupMount {
            point: info.mount_point,
            root: info.root.into(),
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// proc_pid_mountinfo(5).
    #[test]
    fn mounts_of_the_two_hierarchies_are_found_in_a_list_of_mounts() {
        let mut mounts = CgroupMounts::default();
        for line in [
            "25 30 0:23 / /sys rw,nosuid - sysfs sysfs rw",
            "36 25 0:30 / /sys/fs/cgroup/unified rw shared:10 master:2 - cgroup2 cgroup2 rw,nsdelegate",
            "37 25 0:31 / /sys/fs/cgroup/cpu rw shared:11 - cgroup cgroup rw,cpu,cpuacct",
            "38 25 0:32 /a /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices",
            "39 25 0:33 / /sys/fs/cgroup/x rw - cgroup devices rw,name=devices",
            "40 25 0:34 / /cgroup2 rw - tmpfs cgroup rw",
            "41 25 0:35 / /c rw - cgroup3 cgroup3 rw,devices",
            "",
        ] {
            mounts.add_line(line).unwrap();
        }
        mounts.add_line("42 - cgroup2 cgroup2 rw").unwrap_err();
        let mount = |root: &str, point: &str| CgroupMount {
            point: point.into(),
            root: root.into(),
        };
        let expected = CgroupMounts {
            v1_devices: vec![mount("/a", "/sys/fs/cgroup/devices")],
            v2: vec![mount("/", "/sys/fs/cgroup/unified")],
        };
        assert_eq!(mounts, expected);
    }

    fn own(text: &str, cgroups_path: Option<&str>, id: &str) -> Vec<String> {
        let own = Membership::parse(text).own_v2(cgroups_path, id);
        own.iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn with_docker_and_systemd_there_is_one_scope() {
        let found = own(
            "0::/system.slice/docker-abc.scope\n",
            Some("system.slice:docker:abc"),
            "abc",
        );
        assert_eq!(found, ["/system.slice/docker-abc.scope"]);
    }

    #[test]
    fn with_podman_and_crun_own_cgroups_are_scope_and_child_the_leaf_first() {
        let text = "0::/machine.slice/libpod-abc.scope/container\n";
        let scope = "/machine.slice/libpod-abc.scope";
        let expected = [format!("{scope}/container"), scope.to_owned()];
        assert_eq!(own(text, Some("machine.slice:libpod:abc"), "abc"), expected);
    }

    #[test]
    fn the_scope_is_found_after_systemd_in_the_container_moved_init() {
        let text = "0::/machine.slice/libpod-abc.scope/init.scope\n";
        assert_eq!(own(text, Some("machine.slice:libpod:abc"), "abc").len(), 2);
    }

    #[test]
    fn slices_of_kubelet_are_not_the_containers_own() {
        let unit = "cri-containerd-abc.scope";
        let text = format!("0::/kubepods.slice/kubepods-besteffort.slice/kubepods-podx.slice/{unit}\n");
        let found = own(&text, Some("kubepods-podx.slice:cri-containerd:abc"), "abc");
        assert_eq!(found.len(), 1);
        assert!(found[0].ends_with(unit));
    }

    #[test]
    fn a_configured_slice_is_its_own_unit() {
        assert_eq!(systemd_units("system.slice:x:my.slice"), ["my.slice"]);
        assert_eq!(
            own("0::/a.slice/abc.scope/x\n", Some("a.slice::abc"), "abc").len(),
            2
        );
    }

    #[test]
    fn cgroupfs_paths_match_by_their_last_components() {
        let text = "0::/outer/kubepods/podx/abc/sub\n";
        assert_eq!(own(text, Some("/kubepods/podx/abc"), "abc").len(), 2);
        assert_eq!(own(text, Some("kubepods/podx/abc/"), "abc").len(), 2);
        assert_eq!(
            own(text, Some("/pods/podx/abc"), "abc"),
            ["/outer/kubepods/podx/abc/sub"]
        );
    }

    #[test]
    fn without_a_configured_path_the_id_names_the_cgroup() {
        assert_eq!(own("0::/user.slice/runc-abc.scope/x\n", None, "abc").len(), 2);
        assert_eq!(own("0::/abc/x\n", Some(""), "abc").len(), 2);
        assert_eq!(own("0::/b/x\n", None, "abc"), ["/b/x"]);
    }

    #[test]
    fn a_colon_in_youkis_path_is_not_a_separator() {
        let membership = Membership::parse("5:devices:/:youki:y1\n0::/:youki:y1\n");
        assert_eq!(membership.v1_devices.as_deref(), Some("/:youki:y1"));
        assert_eq!(
            membership.own_v2(Some(":youki:y1"), "y1"),
            [PathBuf::from("/:youki:y1")]
        );
    }

    #[test]
    fn on_a_hybrid_host_the_v1_cgroup_counts_and_a_v2_cgroup_that_is_not_the_containers_is_ignored() {
        let text = "9:name=systemd:/\n5:cpu,devices:/x/abc\n4:memory:/y\n0::/\n";
        let membership = Membership::parse(text);
        assert_eq!(membership.v1_devices.as_deref(), Some("/x/abc"));
        assert_eq!(membership.v2, None);
        assert!(
            own(
                "5:devices:/x/abc\n0::/user.slice/session-1.scope\n",
                Some("/x/abc"),
                "abc"
            )
            .is_empty()
        );
        assert_eq!(
            own("5:devices:/x/abc\n0::/x/abc\n", Some("/x/abc"), "abc"),
            ["/x/abc"]
        );
    }

    #[test]
    fn the_root_cgroup_and_removed_cgroups_are_ignored() {
        let none = Membership {
            v1_devices: None,
            v2: None,
        };
        assert_eq!(Membership::parse("5:devices:/\n0::/\n"), none);
        assert_eq!(
            Membership::parse("5:devices:/a (deleted)\n0::/a (deleted)\nrubbish\n"),
            none
        );
    }

    #[test]
    fn the_root_of_a_cgroup_mount_is_removed_from_the_path() {
        let whole = CgroupMount {
            point: "/sys/fs/cgroup".into(),
            root: "/".into(),
        };
        assert_eq!(
            whole.directory(Path::new("/a/b")),
            Some("/sys/fs/cgroup/a/b".into())
        );
        let part = CgroupMount {
            point: "/mnt".into(),
            root: "/a".into(),
        };
        assert_eq!(part.directory(Path::new("/a/b")), Some("/mnt/b".into()));
        assert_eq!(part.directory(Path::new("/ab")), None);
        assert_eq!(whole.directory(Path::new("/../b")), None);
    }

    proptest! {
        #[test]
        fn own_cgroups_are_the_leaf_and_its_ancestors_without_the_root(
            path in "(/[a-c:][a-c:.]{0,3}){1,5}",
            configured in proptest::option::of("[a-c:./]{0,8}"),
        ) {
            let membership = Membership { v1_devices: None, v2: Some(path.clone()) };
            let own = membership.own_v2(configured.as_deref(), "a");
            prop_assert_eq!(own.first().map(PathBuf::as_path), Some(Path::new(&path)));
            for cgroup in own {
                prop_assert!(Path::new(&path).starts_with(&cgroup));
                prop_assert!(cgroup != Path::new("/"));
            }
        }

        #[test]
        fn any_text_parses(text in ".*") {
            let _ = Membership::parse(&text);
        }
    }
}
