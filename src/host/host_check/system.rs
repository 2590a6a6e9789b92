//! Facts about the kernel, its cgroups, udevd and security modules.

use std::path::{Path, PathBuf};

use super::tree::Tree;
use crate::host::monitor::is_listened_on;
use crate::model::host_check::facts::{Cgroups, Live, Udevd};
use crate::sys::bpf;

/// `r0 = 1; exit`: a device program that allows everything (linux/bpf.h).
const ALLOW_ALL: [u8; 16] = [0xb7, 0, 0, 0, 1, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];

/// The facts about a system that are read from files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct System {
    /// The kernel's release.
    pub kernel: String,
    /// The mount points of the cgroup hierarchies.
    pub cgroups: Cgroups,
    pub udevd: Udevd,
    /// Whether SELinux enforces; `None` if it is off.
    pub selinux: Option<bool>,
    /// Whether AppArmor is on.
    pub apparmor: bool,
    /// `fs.inotify.max_user_instances`.
    pub inotify_instances: Option<u64>,
    pub has_systemd: bool,
}

/// Facts about this process and the running kernel. Loads a trivial program and drops it.
pub(crate) fn live() -> Live {
    Live {
        uid: nix::unistd::geteuid().as_raw(),
        bpf_error: bpf::prog_load(&ALLOW_ALL, c"Apache-2.0", "oci_hotplug")
            .err()
            .map(|error| error.source.to_string()),
    }
}

/// Reads all facts.
pub(crate) fn system(tree: &Tree) -> System {
    let trimmed = |path: &str| tree.read(path).map(|text| text.trim().to_owned());
    System {
        kernel: trimmed("/proc/sys/kernel/osrelease").unwrap_or_default(),
        cgroups: cgroups(&tree.read("/proc/self/mountinfo").unwrap_or_default()),
        udevd: udevd(tree),
        selinux: trimmed("/sys/fs/selinux/enforce").map(|enforce| enforce == "1"),
        apparmor: trimmed("/sys/module/apparmor/parameters/enabled").is_some_and(|enabled| enabled == "Y"),
        inotify_instances: trimmed("/proc/sys/fs/inotify/max_user_instances")
            .and_then(|limit| limit.parse().ok()),
        // sd_booted(3)
        has_systemd: tree.at("/run/systemd/system").is_dir(),
    }
}

fn udevd(tree: &Tree) -> Udevd {
    if !tree.at("/run/udev/control").exists() {
        Udevd::Absent
    } else if is_listened_on(&tree.at("/proc/thread-self/net/unix")) {
        Udevd::Running
    } else {
        Udevd::Silent
    }
}

/// A line of mountinfo, proc_pid_mountinfo(5).
struct Mount<'t> {
    point: PathBuf,
    filesystem: &'t str,
    super_options: &'t str,
}

fn mounts(mountinfo: &str) -> impl Iterator<Item = Mount<'_>> {
    mountinfo.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        Some(Mount {
            point: before.split(' ').nth(4)?.replace("\\040", " ").into(),
            filesystem: after.next()?,
            super_options: after.nth(1).unwrap_or_default(),
        })
    })
}

fn cgroups(mountinfo: &str) -> Cgroups {
    let mut cgroups = Cgroups::default();
    for mount in mounts(mountinfo) {
        let has_devices = mount.super_options.split(',').any(|option| option == "devices");
        match mount.filesystem {
            "cgroup" if has_devices => {
                cgroups.v1_devices.get_or_insert(mount.point);
            }
            "cgroup" => cgroups.other_v1 = true,
            "cgroup2" => {
                cgroups.v2.get_or_insert(mount.point);
            }
            _ => {}
        }
    }
    cgroups
}

/// The type of the file system that a path is on. If several are mounted at the same place, the
/// last one covers the others.
pub(super) fn filesystem_of(tree: &Tree, path: &Path) -> Option<String> {
    let mountinfo = tree.read("/proc/self/mountinfo")?;
    let above = mounts(&mountinfo).filter(|mount| path.starts_with(&mount.point));
    let nearest = above.max_by_key(|mount| mount.point.as_os_str().len())?;
    Some(nearest.filesystem.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "29 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n";
    const V1: &str = "30 24 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755\n\
        35 30 0:31 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:11 - cgroup cgroup rw,cpu,cpuacct\n\
        37 30 0:33 / /sys/fs/cgroup/devices rw,nosuid shared:13 - cgroup cgroup rw,devices\n";
    const NAMED: &str =
        "32 30 0:28 / /sys/fs/cgroup/systemd rw,nosuid shared:6 - cgroup cgroup rw,xattr,name=systemd\n";

    #[test]
    fn cgroup_hierarchies_are_distinguished() {
        assert_eq!(
            cgroups(V2),
            Cgroups {
                v2: Some("/sys/fs/cgroup".into()),
                ..Cgroups::default()
            }
        );
        assert_eq!(
            cgroups(V1),
            Cgroups {
                v1_devices: Some("/sys/fs/cgroup/devices".into()),
                other_v1: true,
                v2: None,
            }
        );
        let unified = V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified");
        assert_eq!(
            cgroups(&format!("{NAMED}{unified}")),
            Cgroups {
                v1_devices: None,
                other_v1: true,
                v2: Some("/sys/fs/cgroup/unified".into()),
            }
        );
        assert_eq!(cgroups("torn line\n1 2 - \n"), Cgroups::default());
    }

    #[test]
    fn the_nearest_mount_determines_the_file_system() {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(scratch.path().join("proc/self")).unwrap();
        std::fs::write(
            scratch.path().join("proc/self/mountinfo"),
            "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:5 / /run rw,nosuid shared:2 master:1 - tmpfs tmpfs rw,mode=755\n3 2 0:9 / /run/a\\040b rw - ramfs none rw\n",
        )
        .unwrap();
        let tree = Tree::new(scratch.path());
        for (path, kind) in [
            ("/run/oci-hotplug", "tmpfs"),
            ("/var/lib/x", "ext4"),
            ("/running", "ext4"),
            ("/run/a b/c", "ramfs"),
        ] {
            assert_eq!(
                filesystem_of(&tree, Path::new(path)).as_deref(),
                Some(kind),
                "{path}"
            );
        }
    }
}
