//! What is to be advertised, as values: the same for all formats.
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

/// Where device nodes are.
pub const DEV: &str = "/dev";

/// The most units of one device. Each message to kubelet lists all units of a resource with about
/// 80 bytes each, and kubelet accepts at most 4 MiB (gRPC's default), which is about 50,000 units.
pub const MAX_UNITS: u32 = 20_000;

/// Something to be advertised.
#[derive(Debug, Clone)]
pub enum Definition {
    /// hostdev: one path, always advertised, healthy while it exists.
    Path {
        /// The path on the host.
        path: PathBuf,
        /// What containers may do.
        access: Access,
        /// How many containers can have it.
        count: u32,
    },
    /// smarter-device-manager: each path below /dev that matches is a resource of its own.
    Pattern {
        /// Run on the path below /dev.
        pattern: GoRegex,
        /// How many containers can have each.
        count: u32,
    },
    /// smarter-device-manager's `nvidia-gpu`.
    NvidiaGpu {
        /// How many containers can have each.
        count: u32,
    },
    /// generic-device-plugin's.
    Groups {
        /// The resource.
        name: ResourceName,
        /// Each is a source of units.
        groups: Vec<Group>,
    },
    /// usbip-device-plugin's: devices of USB/IP servers.
    Remote {
        /// The resource.
        name: ResourceName,
        /// Each is a unit.
        entries: Vec<RemoteEntry>,
    },
    /// Our own format: requests.
    Requested(Requested),
}

/// A resource of our own format.
#[derive(Debug, Clone)]
pub struct Requested {
    /// The resource.
    pub name: ResourceName,
    /// The requests that select its devices.
    pub requests: Requests,
    /// How they are offered.
    pub mode: Mode,
    /// How many containers can have it.
    pub count: u32,
}

/// How devices are offered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Slots for devices that come and go while the container runs: always healthy.
    #[default]
    Hotplug,
    /// One unit for each device, healthy while it is present; it comes and goes in the running
    /// container.
    Present,
    /// One unit for each device that is present; the engine creates its nodes with the container.
    Static,
}

/// One group: all its paths together are a unit, or all its USB devices.
#[derive(Debug, Clone)]
pub enum Group {
    /// Files and devices.
    Paths {
        /// The paths.
        paths: Vec<PathInGroup>,
        /// How many containers can have each.
        count: u32,
    },
    /// USB devices: their own nodes below /dev/bus/usb.
    Usb {
        /// The devices, each a `usb:`.
        devices: Vec<Selector>,
        /// How many containers can have them.
        count: u32,
    },
}

/// One path of a group.
#[derive(Debug, Clone)]
pub struct PathInGroup {
    /// The paths that it matches.
    pub pattern: GoGlob,
    /// Its path in the container, if it is not that on the host; a directory if it ends with `/`.
    pub mount_path: Option<String>,
    /// What the container may do.
    pub access: Access,
    /// How the container gets it.
    pub kind: PathType,
    /// Whether a mount can only be read.
    pub read_only: bool,
    /// How often a match is used if another path has more matches.
    pub limit: u32,
    /// Whether the group can do without it.
    pub optional: bool,
}

/// How a container gets a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathType {
    /// As a device node.
    Device,
    /// As a mount.
    Mount,
    /// Not at all: it is only necessary for the group's units.
    Nothing,
}

/// One device of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteEntry {
    /// The server and the device.
    pub device: RemoteDevice,
    /// The requests for the device and for its nodes at the paths of the extras.
    pub requests: Vec<Request>,
    /// Paths of the host that the container gets with it.
    pub extras: Vec<Extra>,
    /// Differences between what is written and what is done.
    pub notes: Vec<String>,
}

/// A path of the host that a container gets with a device: a node of the device, or a path that
/// always exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extra {
    /// On the host.
    pub host: PathBuf,
    /// In the container.
    pub container: PathBuf,
    /// What the container may do.
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

    /// The patterns of paths outside /dev.
    pub fn patterns_outside_dev(&self) -> impl Iterator<Item = &GoGlob> {
        let patterns = self.patterns();
        patterns.filter(|pattern| !pattern.is_below(Path::new(DEV)))
    }

    /// The path outside /dev that hostdev's list names.
    pub fn path_outside_dev(&self) -> Option<&PathBuf> {
        match self {
            Self::Path { path, .. } if !path.starts_with(DEV) => Some(path),
            _ => None,
        }
    }

    /// Whether it needs the host's devices.
    pub fn needs_devices(&self) -> bool {
        match self {
            Self::Requested(_) | Self::Remote { .. } => true,
            Self::Groups { groups, .. } => groups.iter().any(|group| matches!(group, Group::Usb { .. })),
            Self::Path { .. } | Self::Pattern { .. } | Self::NvidiaGpu { .. } => false,
        }
    }

    /// Whether it needs the paths below /dev.
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
