//! How nodes get into a container, and what came of it.

/// How nodes get into a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// The container has its own `/dev`: nodes are created in it.
    Own,
    /// The container's `/dev` is the host's devtmpfs: the kernel creates and removes nodes.
    HostDev,
    /// The container has a user namespace, in whose file systems nodes cannot be opened: nodes are
    /// bind-mounted into it.
    UserNamespace,
    /// A rootless engine runs the container: the host's own nodes are bind-mounted into it.
    HostNodes,
}

/// The owner and mode of a node, with the ids of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeOwner {
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// The outcome of adding a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeOutcome {
    /// The node was created, or created again.
    Created,
    /// A node with this number existed that is not ours: it stays unchanged, and is not removed
    /// later.
    Adopted,
    /// Our node existed already.
    Unchanged,
    /// The path is in the host's devtmpfs.
    HostOwned,
}

/// The outcome of adding a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkOutcome {
    /// The link was created, or created again.
    Created,
    /// A link to the same target existed that is not ours.
    Adopted,
    /// Our link existed already.
    Unchanged,
    /// The path is in the host's devtmpfs.
    HostOwned,
}
