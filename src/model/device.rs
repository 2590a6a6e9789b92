//! What a device is: owned snapshots of the facts that the kernel and udev know of it. A snapshot
//! stays complete after the device is removed.
//!
//! Must not know where the facts come from (`host::monitor`) or which request selects the device
//! (`request`).

mod access;
pub mod event;
pub mod hid_usages;
pub mod input_capabilities;
pub mod inventory;
pub(crate) mod nodeless;
#[cfg(test)]
pub(crate) mod recorded;
pub(crate) mod same_data;
pub(crate) mod serial;
pub(crate) mod tree;
pub mod usb_classes;
pub mod usb_hub;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use access::{Access, AccessError};

/// A device's directory in sysfs with all links resolved, such as
/// `/sys/devices/pci0000:00/…/1-1.4`.
///
/// It identifies the device: a remove event is sure to carry nothing else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SysPath(String);

impl SysPath {
    /// Takes an absolute path below `/sys`; a trailing slash is dropped.
    pub fn new(path: impl Into<String>) -> Self {
        let mut path = path.into();
        while path.len() > 1 && path.ends_with('/') {
            path.pop();
        }
        Self(path)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }

    /// The kernel's name of the device: the last component.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// Whether this device is `root` or below it. Compares whole components: `1-1.40` is not below
    /// `1-1.4`.
    pub fn is_at_or_below(&self, root: &SysPath) -> bool {
        self.0
            .strip_prefix(root.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The parent directory, or `None` at `/sys/devices`, above which there are no devices.
    ///
    /// Not every parent directory is a device: class directories (`…/tty`) lie in between.
    pub fn parent(&self) -> Option<SysPath> {
        let (parent, _) = self.0.rsplit_once('/')?;
        parent
            .starts_with("/sys/devices/")
            .then(|| SysPath(parent.to_owned()))
    }

    /// All parent directories, the nearest first.
    pub fn ancestors(&self) -> impl Iterator<Item = SysPath> + use<> {
        std::iter::successors(self.parent(), SysPath::parent)
    }
}

impl fmt::Display for SysPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The two kinds of device nodes, which are numbered separately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DevKind {
    Block,
    Char,
}

/// A device number: kind, major and minor. Displayed as the device cgroup writes it: `c 188:0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DevNum {
    pub kind: DevKind,
    /// The driver's number.
    pub major: u32,
    /// The device's number within the driver.
    pub minor: u32,
}

/// Reads major and minor number as sysfs writes them: `188:0`.
pub fn major_minor(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

impl fmt::Display for DevNum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            DevKind::Block => 'b',
            DevKind::Char => 'c',
        };
        write!(f, "{kind} {}:{}", self.major, self.minor)
    }
}

/// A device's node as the host has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevNode {
    /// Absolute path on the host, below `/dev`.
    pub path: PathBuf,
    pub num: DevNum,
}

/// How far udevd has got with a device. The order is that in which a device passes through the
/// states; it never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UdevState {
    /// udevd has not processed the device yet: only the kernel's facts (sysfs) are known.
    Pending,
    /// udevd runs and should have processed the device long ago. Nothing waits for it any longer,
    /// but its facts (properties, tags, links) remain unknown, which is not the same as absent.
    Overdue,
    /// No udevd runs on this host, so only the kernel's facts will ever be known. Requests may rely
    /// on that; for the policy, udev's facts are unknown.
    NoUdevd,
    /// udevd has processed the device: all facts are known.
    Processed,
}

/// Paths, each with the node or sysfs directory that it leads to after all links are followed;
/// `None` if it leads nowhere.
pub type LinkTargets = BTreeMap<PathBuf, Option<PathBuf>>;

/// Links that selectors name, by the node or sysfs directory that each points to. Paths that are
/// not links are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Aliases(HashMap<OsString, BTreeSet<PathBuf>>);

impl Aliases {
    /// Keeps the paths that lead to something other than themselves.
    pub fn new(targets: LinkTargets) -> Self {
        let mut aliases = HashMap::<OsString, BTreeSet<PathBuf>>::new();
        for (path, target) in targets {
            match target {
                Some(target) if target != path => {
                    aliases.entry(target.into_os_string()).or_default().insert(path);
                }
                _ => {}
            }
        }
        Self(aliases)
    }

    /// The nodes and sysfs directories that the links point to.
    pub fn targets(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().map(Path::new)
    }

    /// The links that point to this device or to its node.
    pub fn of(&self, device: &Device) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        if self.0.is_empty() {
            return found;
        }
        let node = device.node.as_ref().map(|node| node.path.as_os_str());
        for place in node.into_iter().chain([OsStr::new(device.syspath.as_str())]) {
            found.extend(self.0.get(place).into_iter().flatten().cloned());
        }
        found
    }
}

/// The subsystem of a device that stands for a static node, which sysfs does not know by its path.
pub const STATIC_NODE: &str = "oci-hotplug-node";

/// The pretended location of such devices in sysfs; the node's path follows.
pub const STATIC_NODES: &str = "/sys/devices/oci-hotplug-node";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub syspath: SysPath,
    /// The kernel subsystem (`tty`, `block`, `usb`); some directories without a bus have none.
    pub subsystem: Option<String>,
    /// The uevent's DEVTYPE (`usb_device`, `usb_interface`, `disk`, `partition`).
    pub devtype: Option<String>,
    /// The driver that is bound to this device itself, not to a parent.
    pub driver: Option<String>,
    /// The device's node, if it has one.
    pub node: Option<DevNode>,
    /// The sysfs attributes of the device that the requests evaluate, without trailing white space.
    pub attributes: BTreeMap<String, String>,
    /// udev's properties; the kernel's uevent properties until udevd has processed the device.
    pub properties: BTreeMap<String, String>,
    /// udev's tags.
    pub tags: BTreeSet<String>,
    /// udev's links that point to the node on the host now: absolute paths below `/dev`. The same
    /// links as in the property DEVLINKS.
    pub links: BTreeSet<PathBuf>,
    /// udev's links that this device claims but that now point elsewhere or nowhere. Several
    /// devices can claim one link; the host's link points to one of them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub lost_links: BTreeSet<PathBuf>,
    /// Other paths in `/dev` and `/sys` that requests name and that lead to this device on the
    /// host.
    pub aliases: BTreeSet<PathBuf>,
    /// The other half of a USB 3 hub ([`usb_hub`]); `None` for every other device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub companion: Option<SysPath>,
    pub udev_state: UdevState,
    /// The kernel's sequence number of the latest event in this snapshot; 0 if the device was only
    /// enumerated.
    pub seqnum: u64,
}

impl Device {
    /// A device of which only the path is known.
    pub fn new(syspath: SysPath) -> Self {
        Self {
            syspath,
            subsystem: None,
            devtype: None,
            driver: None,
            node: None,
            attributes: BTreeMap::new(),
            properties: BTreeMap::new(),
            tags: BTreeSet::new(),
            links: BTreeSet::new(),
            lost_links: BTreeSet::new(),
            aliases: BTreeSet::new(),
            companion: None,
            udev_state: UdevState::Pending,
            seqnum: 0,
        }
    }

    /// The value of a recorded attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str)
    }

    /// Divides the claimed links into `links` and `lost_links` by where they point now. Links that
    /// `targets` does not contain stay where they are. Returns whether anything changed.
    pub fn sort_links(&mut self, targets: &LinkTargets) -> bool {
        let is_here = |link: &PathBuf| targets.get(link).map(|target| self.is_at(target.as_deref()));
        let mut gained = BTreeSet::new();
        gained.extend(
            self.lost_links
                .iter()
                .filter(|link| is_here(link) == Some(true))
                .cloned(),
        );
        let mut lost = BTreeSet::new();
        lost.extend(
            self.links
                .iter()
                .filter(|link| is_here(link) == Some(false))
                .cloned(),
        );
        if gained.is_empty() && lost.is_empty() {
            return false;
        }
        self.links.retain(|link| !lost.contains(link));
        self.lost_links.retain(|link| !gained.contains(link));
        self.links.extend(gained);
        self.lost_links.extend(lost);
        let shown: Vec<_> = self.links.iter().map(|link| link.to_string_lossy()).collect();
        let shown = shown.join(" ");
        if shown.is_empty() {
            self.properties.remove("DEVLINKS");
        } else {
            self.properties.insert("DEVLINKS".to_owned(), shown);
        }
        true
    }

    /// Whether a resolved path is this device's node or sysfs directory.
    fn is_at(&self, path: Option<&Path>) -> bool {
        let node = self.node.as_ref().map(|node| node.path.as_path());
        path.is_some_and(|path| Some(path) == node || path == self.syspath.as_path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_is_a_path_that_leads_to_another_path() {
        let lead = |path: &str, target: Option<&str>| (PathBuf::from(path), target.map(PathBuf::from));
        let aliases = Aliases::new(LinkTargets::from([
            lead("/dev/a", Some("/dev/ttyUSB0")),
            lead("/dev/ttyUSB0", Some("/dev/ttyUSB0")),
            lead("/dev/nowhere", None),
        ]));
        let targets: Vec<&Path> = aliases.targets().collect();
        assert_eq!(targets, [Path::new("/dev/ttyUSB0")]);
    }

    #[test]
    fn a_number_is_shown_as_the_device_cgroup_writes_it() {
        let num = |kind| DevNum {
            kind,
            major: 8,
            minor: 16,
        };
        assert_eq!(num(DevKind::Block).to_string(), "b 8:16");
        assert_eq!(num(DevKind::Char).to_string(), "c 8:16");
    }

    #[test]
    fn each_claimed_link_is_sorted_by_where_it_points() {
        let mut device = Device::new(SysPath::new("/sys/devices/tty"));
        let [stays, goes, comes, unknown] = ["/dev/a", "/dev/b", "/dev/c", "/dev/d"].map(PathBuf::from);
        device.links = [stays.clone(), goes.clone(), unknown.clone()].into();
        device.lost_links = [comes.clone()].into();
        let here = Some(device.syspath.as_path().to_owned());
        let targets = [
            (stays.clone(), here.clone()),
            (goes.clone(), Some("/sys/devices/other".into())),
            (comes.clone(), here),
        ]
        .into();
        assert!(device.sort_links(&targets));
        assert_eq!(device.links, [stays, comes, unknown].into());
        assert_eq!(device.lost_links, [goes].into());
        assert_eq!(device.properties["DEVLINKS"], "/dev/a /dev/c /dev/d");
        assert!(!device.sort_links(&targets), "all are where they belong");
    }
}
