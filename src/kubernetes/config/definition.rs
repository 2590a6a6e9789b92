//! What to advertise, as values that are the same for all formats.
//!
//! Must not know the formats.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::go_glob::GoGlob;
use super::go_regex::GoRegex;
use crate::kubernetes::resources::names::ResourceName;
use crate::model::device::Access;
use crate::model::remote::address::{RemoteDevice, Server};
use crate::model::request::Request;
use crate::model::request::entry::Requests;
use crate::model::request::selector::Selector;

pub const DEV: &str = "/dev";

/// The most units of one device. Each message to kubelet lists all units of a resource with about
/// 80 bytes each, and kubelet accepts at most 4 MiB (gRPC's default), which is about 50,000 units.
pub const MAX_UNITS: u32 = 20_000;

#[derive(Debug, Clone)]
pub enum Definition {
    /// hostdev: one path, always advertised, healthy while it exists.
    Path {
        path: PathBuf,
        /// The access of containers.
        access: Access,
        /// How many containers can have it at the same time.
        count: u32,
    },
    /// smarter-device-manager: each path below /dev that matches is a separate resource.
    Pattern {
        /// Matched with the path below /dev.
        pattern: GoRegex,
        /// How many containers can have each path at the same time.
        count: u32,
    },
    /// smarter-device-manager's `nvidia-gpu`.
    NvidiaGpu {
        /// How many containers can have each GPU at the same time.
        count: u32,
    },
    /// A resource of generic-device-plugin.
    Groups {
        name: ResourceName,
        /// Each group is a source of units.
        groups: Vec<Group>,
    },
    /// A resource of usbip-device-plugin: devices of USB/IP servers.
    Remote {
        name: ResourceName,
        /// Each entry is a unit.
        entries: Vec<RemoteEntry>,
    },
    /// A resource in our own format: requests.
    Requested(Requested),
}

/// A resource in our own format.
#[derive(Debug, Clone)]
pub struct Requested {
    pub name: ResourceName,
    /// The requests that select its devices.
    pub requests: Requests,
    /// How they are offered.
    pub mode: Mode,
    /// How many containers can have it at the same time.
    pub count: u32,
}

/// How the devices of a resource are offered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Slots for devices that come and go while a container runs; always healthy.
    #[default]
    Hotplug,
    /// One unit per device, healthy while the device is present; the device comes and goes in the
    /// running container.
    Present,
    /// One unit per present device; the engine creates its nodes together with the container.
    Static,
}

/// One group: a unit consists of all its paths, or of all its USB devices.
#[derive(Debug, Clone)]
pub enum Group {
    /// Files and devices.
    Paths {
        paths: Vec<PathInGroup>,
        /// How many containers can have each combination at the same time.
        count: u32,
    },
    /// USB devices: their raw nodes below /dev/bus/usb.
    Usb {
        /// Each is a `usb:` selector.
        devices: Vec<Selector>,
        /// How many containers can have them at the same time.
        count: u32,
    },
}

/// One path of a group.
#[derive(Debug, Clone)]
pub struct PathInGroup {
    pub pattern: GoGlob,
    /// The path in the container if it differs from the host's; a directory if it ends with `/`.
    pub mount_path: Option<String>,
    /// The access of the container.
    pub access: Access,
    pub kind: PathType,
    /// Whether a mount is read-only.
    pub read_only: bool,
    /// How often a match is used if another path has more matches.
    pub limit: u32,
    /// Whether the group has units even without a match.
    pub optional: bool,
}

/// How a container gets a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathType {
    Device,
    Mount,
    /// Not at all: the path must exist for the group's units, and is not given.
    Nothing,
}

/// An entry for one device of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteEntry {
    /// The server and the device.
    pub device: RemoteDevice,
    /// The requests for the device and for its nodes at the paths of the extras.
    pub requests: Vec<Request>,
    /// Paths of the host that the container also gets.
    pub extras: Vec<Extra>,
    /// Differences between the configuration and what the plugin does.
    pub notes: Vec<String>,
}

/// A path of the host that a container gets with a device: a node of the device, or a path that
/// always exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extra {
    pub host: PathBuf,
    pub container: PathBuf,
    /// The access of the container.
    pub access: Access,
}

impl Definition {
    /// The patterns of its paths.
    pub fn patterns(&self) -> impl Iterator<Item = &GoGlob> {
        let groups = match self {
            Self::Groups { groups, .. } => groups.as_slice(),
            _ => &[],
        };
        let paths = groups.iter().flat_map(|group| match group {
            Group::Paths { paths, .. } => paths.as_slice(),
            Group::Usb { .. } => &[],
        });
        paths.map(|path| &path.pattern)
    }

    /// The patterns for paths outside /dev.
    pub fn patterns_outside_dev(&self) -> impl Iterator<Item = &GoGlob> {
        let patterns = self.patterns();
        patterns.filter(|pattern| !pattern.is_below(Path::new(DEV)))
    }

    /// The path outside /dev in hostdev's list.
    pub fn path_outside_dev(&self) -> Option<&PathBuf> {
        match self {
            Self::Path { path, .. } if !path.starts_with(DEV) => Some(path),
            _ => None,
        }
    }

    /// Whether it depends on the host's devices.
    pub fn needs_devices(&self) -> bool {
        match self {
            Self::Requested(_) | Self::Remote { .. } => true,
            Self::Groups { groups, .. } => groups.iter().any(|group| matches!(group, Group::Usb { .. })),
            Self::Path { .. } | Self::Pattern { .. } | Self::NvidiaGpu { .. } => false,
        }
    }

    /// Whether it depends on the paths below /dev.
    pub fn needs_paths(&self) -> bool {
        !matches!(self, Self::Requested(_) | Self::Remote { .. })
    }
}

/// The definitions of devices of USB/IP servers.
pub fn remote(definitions: &[Definition]) -> impl Iterator<Item = (&ResourceName, &[RemoteEntry])> {
    definitions.iter().filter_map(|definition| match definition {
        Definition::Remote { name, entries } => Some((name, &entries[..])),
        _ => None,
    })
}

/// The USB/IP servers that definitions name.
pub fn servers(definitions: &[Definition]) -> BTreeSet<Server> {
    let entries = remote(definitions).flat_map(|(_, entries)| entries);
    entries.map(|entry| entry.device.server.clone()).collect()
}
