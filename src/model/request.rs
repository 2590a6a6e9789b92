//! What a container requests: which devices, and with which options.
//!
//! Must not know whether a request is allowed or how a device gets into a container.

pub mod annotations;
pub mod class;
mod class_use;
mod cost;
pub mod entry;
mod error;
pub mod facts_needed;
mod grammar;
pub(crate) mod id;
pub(crate) mod mismatch;
mod options;
pub mod selector;
mod signals;
pub mod symlink;
mod untrusted;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use class_use::{ClassFault, ClassName, ClassUse, ListItem, MAX_CLASS_NAME};
pub use error::{MAX_REQUESTS, MAX_TEXT, RequestError, RequestFault};
pub use grammar::{parse_lowrisc_devices, parse_request_list, parse_requests};
#[cfg(test)]
pub(crate) use options::names as option_names;
pub use options::{MAX_ALTERNATIVES, MAX_GRACE, MAX_LINKS, OptionError};
pub use untrusted::check_untrusted;

use crate::model::device::inventory::Inventory;
use crate::model::device::{Access, DevKind, Device, SysPath, UdevState};
use crate::model::quoting::escape;
use crate::model::request::selector::{DeviceSelector, Match, Selector};

/// One request. `FromStr` and `Display` are inverse, and the text is also the stored form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The selector of the roots. The container gets every node at or below a root.
    pub selector: DeviceSelector,
    pub options: Options,
}

/// How a container gets the requested devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `access=`: what the container may do; by default everything.
    pub access: Access,
    /// `mode=`: the node's permission bits, 1 to 0o777.
    pub mode: Option<u32>,
    /// `uid=`: the owner of the node, in the container's user namespace.
    pub uid: Option<u32>,
    /// `gid=`: the group of the node, in the container's user namespace.
    pub gid: Option<u32>,
    /// `path=`: where nodes are; by default at the host's paths.
    pub path: Option<NodePath>,
    /// `link=`, repeatable: links to the node. Not together with a directory as `path=`.
    pub links: Vec<PathBuf>,
    /// `only=`, repeatable: selects the devices at or below the root that **any** of these matches;
    /// empty: all.
    pub only: Vec<Selector>,
    /// `required`: the container does not start if the device is absent.
    pub required: bool,
    /// `exclusive`: the container gets a device only if no other container has it, and then no
    /// other container gets it.
    pub exclusive: bool,
    /// `ready=`: which event a device waits for.
    pub ready: Option<Ready>,
    /// `on-removal=`: what happens to the container when a root is removed.
    pub on_removal: OnRemoval,
    /// `grace=`: how long the device may be absent before that happens; at most [`MAX_GRACE`], in
    /// milliseconds.
    pub grace: Duration,
    /// `or=`, repeatable: further selectors of roots.
    pub or: Vec<DeviceSelector>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            access: Access::ALL,
            mode: None,
            uid: None,
            gid: None,
            path: None,
            links: Vec::new(),
            only: Vec::new(),
            required: false,
            exclusive: false,
            ready: None,
            on_removal: OnRemoval::Keep,
            grace: Duration::ZERO,
            or: Vec::new(),
        }
    }
}

impl Options {
    /// Whether `only=` admits this device, which is at or below a root. Evaluates the device itself
    /// and not its parents: `only=subsystem:usb` is the raw node, not everything below it.
    pub fn admits(&self, own: &[&Device]) -> Match {
        if self.only.is_empty() {
            return Match::Yes;
        }
        Match::any(self.only.iter().map(|only| only.found_in(own)))
    }
}

/// Where `path=` puts nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodePath {
    /// The path, below `/dev`, of the node that is named (`plan::named_node`).
    Node(PathBuf),
    /// A directory for all nodes of a device, `/dev` or below (`plan::node_names`). Written with a
    /// `/` at the end, stored without.
    Directory(PathBuf),
}

impl NodePath {
    /// The path of the node that is named.
    pub fn node(&self) -> Option<&Path> {
        match self {
            Self::Node(path) => Some(path),
            Self::Directory(_) => None,
        }
    }

    /// The directory for all nodes.
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Self::Node(_) => None,
            Self::Directory(path) => Some(path),
        }
    }
}

impl fmt::Display for NodePath {
    /// As in a request: only a directory has a `/` at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Node(path) | Self::Directory(path)) = self;
        let text = path.display().to_string();
        f.write_str(text.trim_end_matches('/'))?;
        f.write_str(self.directory().map_or("", |_| "/"))
    }
}

/// Which event a request waits for before a device is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// The kernel's event: the device is attached at once.
    Kernel,
    /// udevd's event: its rules have run.
    Udev,
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Udev => "udev",
        })
    }
}

/// What happens to the container when a root is removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum OnRemoval {
    /// It keeps running and waits for the device to come back.
    #[default]
    Keep,
    /// It is stopped: its init gets the stop signal, and is killed if it does not end.
    Stop,
    Kill,
    /// Its init gets this signal, named as in signal(7): `SIGHUP`.
    Signal(String),
}

impl fmt::Display for OnRemoval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep => f.write_str("keep"),
            Self::Stop => f.write_str("stop"),
            Self::Kill => f.write_str("kill"),
            Self::Signal(name) => write!(f, "signal:{name}"),
        }
    }
}

impl Request {
    /// The selectors of the roots: the request's own and its alternatives (`or=`).
    pub fn selectors(&self) -> impl Iterator<Item = &DeviceSelector> {
        std::iter::once(&self.selector).chain(&self.options.or)
    }

    /// Whether the removal of a root matters only if the request has no other root: it has
    /// alternatives, or the device has time to return.
    pub fn survives_on_another_root(&self) -> bool {
        !self.options.or.is_empty() || !self.options.grace.is_zero()
    }

    /// Whether the container gets the node of a device at or below `root`: no negated term excludes
    /// it or one of its parents, and `only=` admits it.
    pub fn gives(&self, root: &SysPath, device: &Device, inventory: &Inventory) -> Match {
        self.leaves(root, device, inventory).and(|| {
            if self.options.only.is_empty() {
                return Match::Yes;
            }
            self.options.admits(inventory.chain(device).own())
        })
    }

    /// Whether the negated terms keep the device, according to one of the alternatives that name
    /// its root. A root that none of them names is the parent of a device (`parent-of:`), and
    /// everything below it is kept.
    fn leaves(&self, root: &SysPath, device: &Device, inventory: &Inventory) -> Match {
        let chain = || inventory.chain(device);
        if self.options.or.is_empty() {
            return self.selector.leaves(chain);
        }
        let root = inventory.get(root);
        let names = |selector: &&DeviceSelector| {
            let named = |root| selector.names(root, || inventory.chain(root)) != Match::No;
            selector.parents() == 0 && root.is_some_and(named)
        };
        let naming: Vec<&DeviceSelector> = self.selectors().filter(names).collect();
        if naming.is_empty() {
            return Match::Yes;
        }
        Match::any(naming.into_iter().map(|selector| selector.leaves(chain)))
    }

    /// Whether udevd must process this device, which the container gets, first.
    ///
    /// A block device waits for udevd, whose probes read it first, and so does any device with
    /// `ready=udev`. No device waits where no udevd runs, or for longer than udevd may take
    /// ([`UdevState::Overdue`]).
    pub fn awaits_udev(&self, device: &Device) -> bool {
        let is_block = device
            .node
            .as_ref()
            .is_some_and(|node| node.num.kind == DevKind::Block);
        let waits = match self.options.ready {
            Some(Ready::Kernel) => false,
            Some(Ready::Udev) => true,
            None => is_block,
        };
        waits && device.udev_state == UdevState::Pending
    }
}

impl fmt::Display for Request {
    /// The request in its shortest form: options in the order of the documentation, without
    /// defaults.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.selector, self.options)
    }
}

impl fmt::Display for Options {
    /// The options that are not defaults, each after a `;`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = |path: &dyn fmt::Display| escape(&path.to_string(), &[',', ';', '&']);
        if self.access != Access::ALL {
            write!(f, ";access={}", self.access)?;
        }
        if let Some(mode) = self.mode {
            write!(f, ";mode={mode:04o}")?;
        }
        if let Some(uid) = self.uid {
            write!(f, ";uid={uid}")?;
        }
        if let Some(gid) = self.gid {
            write!(f, ";gid={gid}")?;
        }
        if let Some(place) = &self.path {
            write!(f, ";path={}", path(place))?;
        }
        for link in &self.links {
            write!(f, ";link={}", path(&link.display()))?;
        }
        for only in &self.only {
            write!(f, ";only={only}")?;
        }
        for or in &self.or {
            write!(f, ";or={or}")?;
        }
        if self.required {
            f.write_str(";required")?;
        }
        if self.exclusive {
            f.write_str(";exclusive")?;
        }
        if let Some(ready) = self.ready {
            write!(f, ";ready={ready}")?;
        }
        if self.on_removal != OnRemoval::Keep {
            write!(f, ";on-removal={}", self.on_removal)?;
            match (self.grace.as_secs(), self.grace.subsec_millis()) {
                (0, 0) => {}
                (seconds, 0) => write!(f, ";grace={seconds}s")?,
                _ => write!(f, ";grace={}ms", self.grace.as_millis())?,
            }
        }
        Ok(())
    }
}

impl Serialize for Request {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Request {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
