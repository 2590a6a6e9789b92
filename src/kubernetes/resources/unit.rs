//! A unit: something that a container can be given once.
//!
//! Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::model::device::Access;

/// A node that a container gets when it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSpec {
    /// Its path on the host; a directory stands for all nodes in it.
    pub host: PathBuf,
    /// Its path in the container.
    pub container: PathBuf,
    /// What the container may do.
    pub access: Access,
}

/// A path that is mounted into a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountSpec {
    /// Its path on the host.
    pub host: PathBuf,
    /// Its path in the container.
    pub container: PathBuf,
    /// Whether the container may only read.
    pub read_only: bool,
}

/// What a container gets with a unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    /// The CDI device that brings the hooks, by its name behind the `=`: then the nodes are the watcher's affair.
    pub cdi: Option<String>,
    /// Nodes, at creation: where there is no CDI device, or CDI is off.
    pub nodes: Vec<NodeSpec>,
    /// Nodes, at creation, whatever brings the others.
    pub beside: Vec<NodeSpec>,
    /// Mounts.
    pub mounts: Vec<MountSpec>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
}

/// Something that a container can be given once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Whether a container can be given it now.
    pub healthy: bool,
    /// Of a device of another host that a container has: whether it is attached, or can be at any moment. It is healthy in
    /// any case.
    pub attached: Option<bool>,
    /// The NUMA node it is at.
    pub numa: Option<i64>,
    /// Where it is (a path of sysfs, say): units with long common beginnings belong together.
    pub place: String,
    /// What the container gets; units that are alike share it.
    pub offer: Arc<Offer>,
}

/// Whether two units are at one NUMA node, and how many directories they have in common.
pub(super) fn nearness(one: &Unit, other: &Unit) -> (bool, usize) {
    let common = one
        .place
        .split('/')
        .zip(other.place.split('/'))
        .take_while(|(left, right)| left == right)
        .count();
    (one.numa == other.numa, common)
}
