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
use crate::model::remote::{RemoteDevice, Server};
use crate::model::request::Request;
use crate::model::request::annotations::Requests;
use crate::model::request::selector::Selector;

/// Where device nodes are.
pub const DEV: &str = "/dev";

/// The most units of one device. Each message to kubelet lists all of a resource with some 80 bytes each, and kubelet takes
/// no more than 4 MiB (gRPC's default), which is some 50,000.
pub const MAX_UNITS: u32 = 20_000;

/// Something to be advertised.
#[derive(Debug, Clone)]
pub enum Definition {
    /// hostdev: one path, always advertised, healthy while it is there.
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
    /// Ours.
    Requested(Requested),
}

/// A resource in our own words.
#[derive(Debug, Clone)]
pub struct Requested {
    /// The resource.
    pub name: ResourceName,
    /// Which devices, and how a container wants them.
    pub asks: Requests,
    /// How they are offered.
    pub mode: Mode,
    /// How many containers can have it.
    pub count: u32,
}

/// How devices are offered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Places for devices that come and go while the container runs: always healthy.
    #[default]
    Hotplug,
    /// One unit for each device, healthy while it is there; it comes and goes in the running container, too.
    Present,
    /// One unit for each device that is there, whose nodes are made with the container.
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
        /// Which, each a `usb:`.
        devices: Vec<Selector>,
        /// How many containers can have them.
        count: u32,
    },
}

/// One path of a group.
#[derive(Debug, Clone)]
pub struct PathInGroup {
    /// Which paths it stands for.
    pub pattern: GoGlob,
    /// Where it goes in the container, if not to where it is on the host; with a `/` at its end, a directory.
    pub mount_path: Option<String>,
    /// What the container may do.
    pub access: Access,
    /// How it goes there.
    pub kind: PathType,
    /// Whether a mount can only be read.
    pub read_only: bool,
    /// How often a match can serve where another path has more matches.
    pub limit: u32,
    /// Whether the group does without it.
    pub optional: bool,
}

/// How a path goes into a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathType {
    /// As a device node.
    Device,
    /// As a mount.
    Mount,
    /// Not at all: the group has no units where it is missing, and that is all.
    Nothing,
}

/// One device of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteEntry {
    /// Where and which.
    pub device: RemoteDevice,
    /// What a container asks for so that it has the device, and its nodes where the extras say.
    pub requests: Vec<Request>,
    /// Paths of the host that are given with it.
    pub extras: Vec<Extra>,
    /// What can't be done as it is written, and what is done instead.
    pub notes: Vec<String>,
}

/// A path of the host that a container gets with a device: a node of the device's, or one that is there anyhow.
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
