//! Units: what kubelet calls devices, each for one container at a time.
//!
//! Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::model::device::Access;

/// A device node that the engine creates in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeSpec {
    /// The path on the host; a directory means all nodes in it.
    pub host: PathBuf,
    pub container: PathBuf,
    pub access: Access,
}

/// A path of the host that the engine mounts in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountSpec {
    pub host: PathBuf,
    pub container: PathBuf,
    pub read_only: bool,
}

/// What a container gets with a unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Offer {
    /// The part after the `=` in the name of the CDI device with the hooks; with it, the watcher
    /// creates the nodes.
    pub cdi: Option<String>,
    /// Nodes that the engine creates if there is no CDI device, or CDI is off.
    pub nodes: Vec<NodeSpec>,
    /// Nodes that the engine creates in any case.
    pub extra_nodes: Vec<NodeSpec>,
    pub mounts: Vec<MountSpec>,
    pub env: BTreeMap<String, String>,
}

/// What one container at a time can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unit {
    /// Whether a container can get it now.
    pub healthy: bool,
    /// For a remote device that a container has: whether it is attached or about to be. Such a unit
    /// is always healthy.
    pub attached: Option<bool>,
    pub numa: Option<i64>,
    /// Its place, such as a path in sysfs: units with a long common prefix are near each other.
    pub place: String,
    /// What the container gets; equal units share it.
    pub offer: Arc<Offer>,
}

/// Whether two units are on the same NUMA node, and how many directories their places share.
pub(super) fn nearness(one: &Unit, other: &Unit) -> (bool, usize) {
    let common = one
        .place
        .split('/')
        .zip(other.place.split('/'))
        .take_while(|(left, right)| left == right)
        .count();
    (one.numa == other.numa, common)
}
