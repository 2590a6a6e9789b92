//! Rootless engines: whose process this is, where its state is, and which requests such an engine
//! cannot satisfy.
//!
//! The hooks of a rootless engine are root of a user namespace. They have no privileges over the
//! devices of the host: they can only mount the host's own nodes into the container.

use std::fmt;
use std::path::PathBuf;

use crate::model::device::Access;
use crate::model::id_maps::IdMaps;
use crate::model::request::Request;

/// A process without the privileges of the host's root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rootless {
    /// The user id, as the host counts it.
    pub uid: u32,
    /// Whether the process is root of a user namespace, as the hooks of rootless engines are.
    pub is_namespace_root: bool,
}

impl Rootless {
    /// Decides from the effective user id and the texts of `/proc/self/uid_map`
    /// (user_namespaces(7), "Defining user and group ID mappings"). `None`: this is the host's
    /// root.
    pub fn of(euid: u32, uid_map: &str) -> Option<Self> {
        let map = IdMaps::parse(uid_map, "").ok();
        match map.filter(|map| !uid_map.is_empty() && !map.is_initial()) {
            Some(map) => Some(Self {
                uid: map.host_uid(euid).unwrap_or(euid),
                is_namespace_root: euid == 0,
            }),
            None => (euid != 0).then_some(Self {
                uid: euid,
                is_namespace_root: false,
            }),
        }
    }

    /// The directory that the user's login session or lingering creates (pam_systemd(8)):
    /// owned by the user, in a directory of root.
    pub fn runtime_dir(self) -> PathBuf {
        format!("/run/user/{}", self.uid).into()
    }

    /// The default state directory. Does not depend on the environment, because hooks of stage
    /// poststop have none.
    pub fn state_dir(self) -> PathBuf {
        self.runtime_dir().join("oci-hotplug")
    }
}

/// The user id by which a process with this map sees the host's root, for instance as the sender of
/// a message; `None` if it is not mapped.
pub(crate) fn host_root(uid_map: &str) -> Option<u32> {
    match IdMaps::parse(uid_map, "") {
        Ok(map) if !uid_map.is_empty() => map.container_uid(0),
        _ => Some(0),
    }
}

/// A part of a request that a rootless engine cannot satisfy, because only the host's root can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsupported {
    /// The kernel does not restrict what is done with a node that can be opened.
    Access,
    /// The node inside is the host's own: changing it would change the host.
    NodeOption(&'static str),
    /// Only the host's root can attach a remote device.
    Remote,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Access => f.write_str(
                "a rootless container cannot be given only a part of the access, because it has no device cgroup (remove access=, or write access=rw)",
            ),
            Self::NodeOption(name) => write!(
                f,
                "{name}= is not possible in a rootless container, because its node is the host's own (remove {name}=, and set owner and mode on the host by a udev rule)"
            ),
            Self::Remote => f.write_str(
                "a rootless engine cannot attach a device over USB/IP (let root attach it to the host with `usbip attach`, and request it by usb:)",
            ),
        }
    }
}

/// The first part of the request that a rootless engine cannot satisfy.
///
/// `access=rw` is possible: in a user namespace the kernel never allows to create device nodes
/// (mknod(2)), which is what `m` stands for.
pub(crate) fn unsupported(request: &Request) -> Option<Unsupported> {
    let options = &request.options;
    if request.selector.remote().is_some() {
        return Some(Unsupported::Remote);
    }
    if !options.access.covers(Access::READ | Access::WRITE) {
        return Some(Unsupported::Access);
    }
    let given = [
        ("mode", options.mode.is_some()),
        ("uid", options.uid.is_some()),
        ("gid", options.gid.is_some()),
    ];
    let given = given.into_iter().find(|(_, is_given)| *is_given);
    given.map(|(name, _)| Unsupported::NodeOption(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INITIAL: &str = "         0          0 4294967295\n";
    const PODMAN: &str = "         0       1000          1\n         1     100000      65536\n";

    /// Case README 21.
    #[test]
    fn root_of_a_user_namespace_and_an_ordinary_user_are_rootless() {
        let rootless = |uid, is_namespace_root| {
            Some(Rootless {
                uid,
                is_namespace_root,
            })
        };
        assert_eq!(Rootless::of(0, INITIAL), None);
        assert_eq!(Rootless::of(0, ""), None);
        assert_eq!(Rootless::of(1000, INITIAL), rootless(1000, false));
        assert_eq!(Rootless::of(0, PODMAN), rootless(1000, true));
        assert_eq!(Rootless::of(33, PODMAN), rootless(100_032, false));
        let state = Rootless::of(0, PODMAN).map(Rootless::state_dir);
        assert_eq!(state, Some("/run/user/1000/oci-hotplug".into()));
    }

    #[test]
    fn the_host_s_root_is_seen_by_its_own_id_or_as_an_unmapped_user() {
        assert_eq!(host_root(INITIAL), Some(0));
        assert_eq!(host_root(""), Some(0));
        assert_eq!(host_root(PODMAN), None);
        assert_eq!(host_root("5 0 1\n"), Some(5));
    }

    #[test]
    fn what_only_root_can_do_is_unsupported() {
        let unsupported = |text: &str| unsupported(&text.parse().unwrap());
        for text in [
            "usb:0403:6001",
            "usb:0403:6001;access=rw",
            "usb:0403:6001;access=rwm;path=/dev/board;link=/dev/b;exclusive;required;on-removal=stop",
        ] {
            assert_eq!(unsupported(text), None, "{text}");
        }
        for (text, expected) in [
            ("usb:0403:6001;access=r", Unsupported::Access),
            ("usb:0403:6001;access=wm", Unsupported::Access),
            ("usb:0403:6001;mode=0666", Unsupported::NodeOption("mode")),
            ("usb:0403:6001;uid=1000", Unsupported::NodeOption("uid")),
            ("usb:0403:6001;gid=20", Unsupported::NodeOption("gid")),
            ("usbip:192.0.2.1/0403:6001", Unsupported::Remote),
        ] {
            assert_eq!(unsupported(text), Some(expected), "{text}");
            let text = expected.to_string();
            assert!(text.contains("rootless") && text.ends_with(')'), "{text}");
        }
    }
}
