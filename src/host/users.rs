//! Finds users of a container that cannot open a node. Many images start as root and drop
//! privileges, which config.json does not show. Reads /proc. Used for hints only: nothing is
//! decided by it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{AccessFlags, access};

use crate::host::rootless::{rootless, unmapped_user};
use crate::model::access_list::{Permissions, parse_list};
use crate::model::device::{Access, Device};
use crate::model::id_maps::IdMaps;
use crate::model::plan::attachment::{Attachment, NodeSpec};

/// The maximum number of host processes that are examined.
const MAX_PROCESSES: usize = 65_536;

/// CAP_DAC_OVERRIDE bypasses permission bits (linux/capability.h).
const DAC_OVERRIDE: u32 = 1;

/// The ids and capabilities that decide on a process's access to files, as the host counts users
/// and groups (proc_pid_status(5)).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Credentials {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    passes_over_modes: bool,
}

impl Credentials {
    fn read(status: &str) -> Option<Self> {
        let numbers = |name: &str| -> Option<Vec<u32>> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(
                line.split_whitespace()
                    .filter_map(|number| number.parse().ok())
                    .collect(),
            )
        };
        let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        let capabilities = u64::from_str_radix(capabilities.trim(), 16).ok()?;
        // Real, effective, saved, file system.
        Some(Self {
            uid: *numbers("Uid:")?.get(3)?,
            gid: *numbers("Gid:")?.get(3)?,
            groups: numbers("Groups:")?,
            passes_over_modes: capabilities >> DAC_OVERRIDE & 1 == 1,
        })
    }

    /// Whether the process can open a node with this owner (ids as the host counts them) for at
    /// least part of the granted access (path_resolution(7), "Permissions").
    fn can_open(&self, mode: u32, uid: u32, gid: u32, access: Access) -> bool {
        let bits = if self.uid == uid {
            mode >> 6
        } else if self.gid == gid || self.groups.contains(&gid) {
            mode >> 3
        } else {
            mode
        };
        let read = access.covers(Access::READ) && bits & 4 != 0;
        let write = access.covers(Access::WRITE) && bits & 2 != 0;
        self.passes_over_modes || read || write
    }
}

/// The users that a container's processes run as now.
#[derive(Debug, Clone, Default)]
pub(crate) struct Users {
    all: BTreeSet<Credentials>,
    maps: Option<IdMaps>,
}

impl Users {
    /// The users of the container with this init. Empty if the container shares the host's pid
    /// namespace, in which other processes run as well.
    pub(crate) fn of(init: i32) -> Self {
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let own = namespace("self");
        let Some(its) = namespace(&init.to_string()).filter(|its| Some(its) != own.as_ref()) else {
            return Self::default();
        };
        let map = |name: &str| fs::read_to_string(format!("/proc/{init}/{name}")).unwrap_or_default();
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let all = processes
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.bytes().all(|letter| letter.is_ascii_digit()))
            .take(MAX_PROCESSES)
            .filter(|pid| namespace(pid).as_ref() == Some(&its))
            .filter_map(|pid| Credentials::read(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?));
        Self {
            all: all.collect(),
            maps: IdMaps::parse(&map("uid_map"), &map("gid_map")).ok(),
        }
    }

    /// Why a user cannot open the node of an attached device, and what changes that; `None` if all
    /// users can open it.
    pub(crate) fn fault(&self, attachment: &Attachment) -> Option<String> {
        match (rootless(), &attachment.device.node) {
            (Some(_), Some(node)) => {
                let permissions = permissions_of(&node.path)?;
                self.host_node_fault(&permissions, &attachment.device, attachment.access, &own_groups())
            }
            _ => self.node_fault(&attachment.node, attachment.access),
        }
    }

    /// The same for a rootless container, whose node is the host's own. Root of a user namespace
    /// has no capabilities over it (capabilities(7), "Interaction with user namespaces").
    /// `own_groups` are those of the user who runs the engine.
    fn host_node_fault(
        &self,
        node: &Permissions,
        device: &Device,
        access: Access,
        own_groups: &[u32],
    ) -> Option<String> {
        let can_open = |user: &&Credentials| {
            let groups: Vec<u32> = user.groups.iter().copied().chain([user.gid]).collect();
            let bits = node.bits(user.uid, &groups);
            let read = access.covers(Access::READ) && bits & 4 != 0;
            read || access.covers(Access::WRITE) && bits & 2 != 0
        };
        let refused = self.all.iter().find(|user| !can_open(user))?;
        let keep_groups = match own_groups.contains(&node.gid) && node.mode & 0o060 != 0 {
            true => ", or with crun start it with --group-add keep-groups",
            false => "",
        };
        Some(format!(
            "the container's user {} (as the host counts) cannot open it: the host's node has mode {:04o} and owner {}:{} (add a udev rule such as `{}`{keep_groups})",
            refused.uid,
            node.mode,
            node.uid,
            node.gid,
            udev_rule(device, refused.uid)
        ))
    }

    /// The same for a node of our own.
    fn node_fault(&self, node: &NodeSpec, access: Access) -> Option<String> {
        let maps = self.maps.as_ref()?;
        let (uid, gid) = (maps.host_uid(node.uid)?, maps.host_gid(node.gid)?);
        let refused = self
            .all
            .iter()
            .find(|user| !user.can_open(node.mode, uid, gid, access))?;
        // A hint must have the ids of the container. They are the same as the host's if the group
        // is mapped to itself; else the id in the container is not known here.
        let hint = match maps.host_gid(refused.gid) {
            Some(same) if same == refused.gid => format!("`;gid={same}` or `;mode=0666`"),
            _ => "`;mode=0666`".to_owned(),
        };
        Some(format!(
            "the container's user {} (group {}) cannot open it: it has mode {:04o} and owner {}:{} (add {hint} to the request)",
            refused.uid, refused.gid, node.mode, node.uid, node.gid
        ))
    }
}

/// Why nobody in a rootless container can open the host's node of a device, for the log; `None` if
/// someone may. For a process in the engine's user namespace, by whose ids files belong to the
/// user, to subordinate ids, or to nobody.
pub(crate) fn closed_to_all(device: &Device, init: i32) -> Option<String> {
    let node = &device.node.as_ref()?.path;
    let permissions = permissions_of(node)?;
    let unmapped = unmapped_user();
    let maps = nested_maps(init);
    let has_user = |uid| {
        let maps = maps.as_ref();
        uid != unmapped && maps.is_none_or(|maps| maps.container_uid(uid).is_some())
    };
    let has_group = |gid| {
        let maps = maps.as_ref();
        gid != unmapped && maps.is_none_or(|maps| maps.container_gid(gid).is_some())
    };
    if permissions.admits(has_user, has_group) || opens_by_groups(node, init, unmapped) {
        return None;
    }
    Some(format!(
        "no user of the container can open {}: the host's node has mode {:04o}, and neither its owner nor its group is in the container (`oci-hotplug explain` shows a udev rule that changes that)",
        node.display(),
        permissions.mode
    ))
}

/// The id maps of a container with a user namespace below this process's own.
fn nested_maps(init: i32) -> Option<IdMaps> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/user")).ok();
    namespace(&init.to_string()).filter(|its| Some(its) != namespace("self").as_ref())?;
    let map = |name: &str| fs::read_to_string(format!("/proc/{init}/{name}")).ok();
    IdMaps::parse(&map("uid_map")?, &map("gid_map")?).ok()
}

/// Whether the container keeps the user's groups (`--group-add keep-groups`), and one of them,
/// which this process has as well, opens the node. The kernel decides (access(2)).
fn opens_by_groups(node: &Path, init: i32, unmapped: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{init}/status")).unwrap_or_default();
    let keeps = Credentials::read(&status).is_some_and(|init| init.groups.contains(&unmapped));
    keeps
        && [AccessFlags::R_OK, AccessFlags::W_OK]
            .iter()
            .any(|flag| access(node, *flag).is_ok())
}

/// The permissions of a node in the host's /dev.
fn permissions_of(node: &Path) -> Option<Permissions> {
    let found = fs::symlink_metadata(node).ok()?;
    let mut list = [0; 1024];
    let length = rustix::fs::lgetxattr(node, "system.posix_acl_access", &mut list[..]).unwrap_or(0);
    Some(Permissions {
        mode: found.mode() & 0o777,
        uid: found.uid(),
        gid: found.gid(),
        list: parse_list(list.get(..length).unwrap_or_default()),
    })
}

fn own_groups() -> Vec<u32> {
    let groups = nix::unistd::getgroups().unwrap_or_default();
    groups.into_iter().map(nix::unistd::Gid::as_raw).collect()
}

/// A rule that makes a user the owner of the device's node (udev(7)).
fn udev_rule(device: &Device, uid: u32) -> String {
    let property = |key: &str| device.properties.get(key).map(String::as_str);
    let subsystem = device.subsystem.as_deref().unwrap_or("*");
    let which = match (property("ID_VENDOR_ID"), property("ID_MODEL_ID")) {
        (Some(vendor), Some(model)) => {
            format!("ENV{{ID_VENDOR_ID}}==\"{vendor}\", ENV{{ID_MODEL_ID}}==\"{model}\"")
        }
        _ => {
            let name = device.node.as_ref().and_then(|node| node.path.file_name());
            format!("KERNEL==\"{}\"", name.unwrap_or_default().to_string_lossy())
        }
    };
    format!("SUBSYSTEM==\"{subsystem}\", {which}, OWNER=\"{uid}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::device::{DevKind, DevNum};

    const STATUS: &str = "Name:\tapp\nUid:\t911\t911\t911\t911\nGid:\t911\t911\t911\t911\nGroups:\t911 20 \nCapEff:\t0000000000000000\n";

    fn users(status: &str, map: &str) -> Users {
        Users {
            all: [Credentials::read(status).unwrap()].into(),
            maps: Some(IdMaps::parse(map, map).unwrap()),
        }
    }

    fn node(mode: u32, uid: u32, gid: u32) -> NodeSpec {
        NodeSpec {
            num: DevNum {
                kind: DevKind::Char,
                major: 188,
                minor: 0,
            },
            mode,
            uid,
            gid,
        }
    }

    /// Case newcomer: images that start as root and drop privileges.
    #[test]
    fn a_user_that_cannot_open_a_node_is_reported_with_an_option() {
        let same = "0 0 4294967295\n";
        let users_of = |status: &str| users(status, same);
        let fault = users_of(STATUS)
            .node_fault(&node(0o660, 0, 0), Access::ALL)
            .unwrap();
        assert!(fault.contains("user 911 (group 911) cannot open it"), "{fault}");
        assert!(
            fault.contains("mode 0660 and owner 0:0 (add `;gid=911` or `;mode=0666`"),
            "{fault}"
        );
        for (mode, uid, gid) in [
            (0o666, 0, 0),
            (0o660, 0, 20),
            (0o660, 911, 0),
            (0o664, 0, 0),
            (0o060, 0, 911),
        ] {
            assert_eq!(
                users_of(STATUS).node_fault(&node(mode, uid, gid), Access::ALL),
                None,
                "{mode:o} {uid}:{gid}"
            );
        }
        // The owner's permission bits apply to the owner, whatever the bits for others are.
        assert!(
            users_of(STATUS)
                .node_fault(&node(0o066, 911, 0), Access::ALL)
                .is_some()
        );
        let root = STATUS.replace("0000000000000000", "00000000a80425fb");
        assert_eq!(users_of(&root).node_fault(&node(0o660, 0, 0), Access::ALL), None);
        assert_eq!(Users::default().node_fault(&node(0, 0, 0), Access::ALL), None);
        // With other ids in the container than on the host, only `mode=` can be suggested.
        let fault = users(STATUS, "0 100000 65536\n")
            .node_fault(&node(0o660, 0, 0), Access::ALL)
            .unwrap();
        assert!(fault.contains("(add `;mode=0666` to"), "{fault}");
    }

    /// This process is in the initial user namespace, where every id but one is mapped.
    #[test]
    fn a_node_that_nobody_can_open_is_reported_and_one_of_a_user_is_not() {
        let node = tempfile::NamedTempFile::new().unwrap();
        let mut device =
            crate::model::device::recorded::virtual_device("tty", "ttyUSB0", "/dev/ttyUSB0", 188, 0);
        if let Some(its) = &mut device.node {
            its.path = node.path().to_owned();
        }
        let init = std::process::id() as i32;
        let set_mode = |mode| {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(node.path(), fs::Permissions::from_mode(mode)).unwrap();
        };
        for mode in [0o600, 0o060, 0o002] {
            set_mode(mode);
            assert_eq!(closed_to_all(&device, init), None, "{mode:o}");
        }
        set_mode(0o000);
        let text = closed_to_all(&device, init).unwrap();
        assert!(
            text.contains("mode 0000") && text.contains("oci-hotplug explain"),
            "{text}"
        );
        device.node = None;
        assert_eq!(closed_to_all(&device, init), None);
    }

    #[test]
    fn a_rootless_user_that_cannot_open_the_host_s_node_is_reported_with_a_udev_rule() {
        let mut device =
            crate::model::device::recorded::virtual_device("tty", "ttyUSB0", "/dev/ttyUSB0", 188, 0);
        let permissions = |mode, uid, gid| Permissions {
            mode,
            uid,
            gid,
            list: Vec::new(),
        };
        // Capabilities in a user namespace do not count.
        let status = STATUS.replace("0000000000000000", "00000000a80425fb");
        let users = users(&status, "0 911 1\n");
        let fault = |node, device: &Device, own| users.host_node_fault(&node, device, Access::ALL, own);
        for node in [
            permissions(0o666, 0, 0),
            permissions(0o600, 911, 0),
            permissions(0o660, 0, 20),
        ] {
            assert_eq!(fault(node, &device, &[]), None);
        }
        let text = fault(permissions(0o660, 0, 18), &device, &[]).unwrap();
        assert!(
            text.contains("user 911 (as the host counts) cannot open it"),
            "{text}"
        );
        assert!(text.contains("mode 0660 and owner 0:18"), "{text}");
        assert!(
            text.contains("`SUBSYSTEM==\"tty\", KERNEL==\"ttyUSB0\", OWNER=\"911\"`"),
            "{text}"
        );
        assert!(!text.contains("keep-groups"), "{text}");
        for (key, value) in [("ID_VENDOR_ID", "0403"), ("ID_MODEL_ID", "6001")] {
            device.properties.insert(key.to_owned(), value.to_owned());
        }
        let text = fault(permissions(0o660, 0, 18), &device, &[18]).unwrap();
        assert!(
            text.contains("ENV{ID_VENDOR_ID}==\"0403\"") && text.contains("keep-groups"),
            "{text}"
        );
    }

    #[test]
    fn processes_of_the_host_are_not_container_users() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(Users::of(own).node_fault(&node(0, 0, 0), Access::ALL), None);
    }
}
