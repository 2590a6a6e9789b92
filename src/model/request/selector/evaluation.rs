//! Whether a selector is true of a device and its parents: the one evaluator of requests, `only=`
//! and policy rules.
//!
//! A term may be true of the device itself or of one of its parents, as with udev's `ATTRS==` and
//! `SUBSYSTEMS==`. A negated term is true when its selector is true of none of them.
//!
//! Must not know the grammar (`grammar`), nor what a match is for (`request`, `policy`).

use super::{DeviceSelector, Selector, Term};
use crate::model::device::{Device, SysPath, UdevState};

/// Whether something is so, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It is not, whatever udevd will say.
    No,
    /// It depends on facts of this device that udevd has not delivered yet.
    Unknown(SysPath),
    /// It is.
    Yes,
}

impl Found {
    /// Whether one of the two is so.
    pub fn or(self, other: impl FnOnce() -> Found) -> Found {
        match self {
            Found::Yes => Found::Yes,
            Found::No => other(),
            Found::Unknown(whose) => match other() {
                Found::Yes => Found::Yes,
                _ => Found::Unknown(whose),
            },
        }
    }

    /// Whether both are so.
    pub fn and(self, other: impl FnOnce() -> Found) -> Found {
        match self {
            Found::No => Found::No,
            Found::Yes => other(),
            Found::Unknown(whose) => match other() {
                Found::No => Found::No,
                _ => Found::Unknown(whose),
            },
        }
    }

    /// Whether it is not so.
    #[allow(clippy::should_implement_trait)]
    pub fn not(self) -> Found {
        match self {
            Found::No => Found::Yes,
            Found::Yes => Found::No,
            unknown => unknown,
        }
    }

    /// Whether one of many is so.
    pub fn any(all: impl IntoIterator<Item = Found>) -> Found {
        let mut found = Found::No;
        for one in all {
            found = found.or(|| one);
            if found == Found::Yes {
                break;
            }
        }
        found
    }

    /// Whether all of many are so.
    pub fn all(all: impl IntoIterator<Item = Found>) -> Found {
        let mut found = Found::Yes;
        for one in all {
            found = found.and(|| one);
            if found == Found::No {
                break;
            }
        }
        found
    }
}

/// A device by all its names, and its parents, the nearest first ([`Inventory::chain`]).
///
/// [`Inventory::chain`]: crate::model::device::inventory::Inventory::chain
#[derive(Debug, Clone)]
pub struct Chain<'a> {
    devices: Vec<&'a Device>,
    own: usize,
    /// Whether udev's facts are unknown where no udevd runs. Otherwise they are absent there.
    is_strict: bool,
    /// Whether a link that a device claims counts although the host's link points to another
    /// device.
    counts_claims: bool,
}

impl<'a> Chain<'a> {
    /// A chain of the device by its names (at least one), and its parents.
    pub fn new(own: &[&'a Device], parents: impl IntoIterator<Item = &'a Device>) -> Self {
        let mut devices = own.to_vec();
        devices.extend(parents);
        Self {
            devices,
            own: own.len(),
            is_strict: false,
            counts_claims: false,
        }
    }

    /// The same for deny rules: whoever claims a link that is denied is denied, so that a second
    /// device with the same label does not take the first one out of the rule.
    pub fn with_claims(self) -> Self {
        Self {
            counts_claims: true,
            ..self
        }
    }

    /// The same for the policy: where no udevd runs, what it would say of a device is unknown. (For
    /// a request it is absent: nobody will ever make a link or set a tag there.)
    pub fn strict(self) -> Self {
        Self {
            is_strict: true,
            ..self
        }
    }

    /// The device, by each of its names.
    pub fn own(&self) -> &[&'a Device] {
        &self.devices[..self.own]
    }

    /// Its parents, the nearest first.
    pub fn parents(&self) -> &[&'a Device] {
        &self.devices[self.own..]
    }

    /// The device and its parents.
    pub fn all(&self) -> &[&'a Device] {
        &self.devices
    }
}

/// Where udev's rules make links that say something of a device (systemd's rules.d/60-*.rules,
/// lvm2's and others').
const LINK_PLACES: [&str; 9] = [
    "/dev/disk/",
    "/dev/dri/by-",
    "/dev/gpio/by-",
    "/dev/input/by-",
    "/dev/mapper/",
    "/dev/media/by-",
    "/dev/serial/",
    "/dev/snd/by-",
    "/dev/v4l/",
];

impl Selector {
    /// Whether this is true of the device itself. Where no udevd runs, udev's facts count as
    /// absent.
    pub fn found(&self, device: &Device) -> Found {
        self.found_when(device, device.udev_state >= UdevState::NoUdevd)
    }

    fn found_when(&self, device: &Device, is_complete: bool) -> Found {
        let unknown = || Found::Unknown(device.syspath.clone());
        match self.decided_by(device) {
            Some(stage) if is_complete || device.udev_state >= stage => Found::Yes,
            Some(_) => unknown(),
            None if is_complete || !self.needs_udev() => Found::No,
            None => match self {
                // Only nodes have links.
                Self::DevNode(_) | Self::Glob(_) | Self::Regex(_) if device.node.is_none() => Found::No,
                _ => unknown(),
            },
        }
    }

    /// Whether a udevd would have to run for the policy to know that this is not true of a device.
    /// A path that is not in one of the directories where udev makes links is the kernel's name of
    /// a node, and is decided without it.
    pub fn needs_udevd(&self) -> bool {
        let is_by_path = |fixed: &str| {
            let mut places = LINK_PLACES.into_iter();
            places.any(|place| place.starts_with(fixed) || fixed.starts_with(place))
        };
        match self {
            Self::Tag(_) | Self::Property { .. } | Self::Regex(_) => true,
            Self::DevNode(path) => is_by_path(&path.to_string_lossy()),
            Self::Glob(pattern) => {
                let pattern = pattern.to_string();
                let end = pattern.find(['*', '?', '[', '{', '\\']).unwrap_or(pattern.len());
                is_by_path(&pattern[..end]) || !pattern.starts_with("/dev/")
            }
            _ => false,
        }
    }

    /// Whether this names a link at this path.
    fn is_by_path(&self, link: &std::path::Path) -> bool {
        match self {
            Self::DevNode(path) => path == link,
            Self::Glob(pattern) => pattern.matches_path(link),
            Self::Regex(expression) => expression.matches_path(link),
            _ => false,
        }
    }

    /// Whether this is true of one of these devices.
    pub fn found_in(&self, devices: &[&Device]) -> Found {
        Found::any(devices.iter().map(|device| self.found(device)))
    }
}

impl Term {
    /// Whether the term is true of a device with these parents.
    pub fn found(&self, chain: &Chain<'_>) -> Found {
        let selector = &self.selector;
        let complete = match chain.is_strict && selector.needs_udevd() {
            true => UdevState::Processed,
            false => UdevState::NoUdevd,
        };
        let all = chain.all().iter();
        let found = Found::any(all.map(|device| selector.found_when(device, device.udev_state >= complete)));
        if self.negated {
            return found.not();
        }
        let claims = |device: &&Device| device.lost_links.iter().any(|link| selector.is_by_path(link));
        found.or(|| match chain.counts_claims && chain.all().iter().any(claims) {
            true => Found::Yes,
            false => Found::No,
        })
    }
}

impl DeviceSelector {
    /// Whether all terms are true of a device with these parents. `parent-of:` does not count.
    pub fn matches(&self, chain: &Chain<'_>) -> Found {
        Found::all(self.terms.iter().map(|term| term.found(chain)))
    }

    /// Whether a device is what the terms name: all of them are true of it or its parents, and at
    /// least one that is not negated of the device itself. (With `parent-of:`, the root is above
    /// this device.)
    ///
    /// `chain` is called only when the device itself leaves that open: of most devices nothing is
    /// true.
    pub fn names<'a>(&self, device: &Device, chain: impl FnOnce() -> Chain<'a>) -> Found {
        let named = self.names_itself(device);
        if named == Found::No {
            return Found::No;
        }
        if let [_] = self.terms[..] {
            return named;
        }
        let chain = chain();
        named.and(|| self.matches(&chain))
    }

    /// Whether at least one term that is not negated is true of the device itself, by this very
    /// name: what is true of the device behind a `node:` makes that device a root, and not the
    /// `node:` as well.
    pub fn names_itself(&self, device: &Device) -> Found {
        let positive = self.terms.iter().filter(|term| !term.negated);
        Found::any(positive.map(|term| term.selector.found(device)))
    }

    /// Whether a device at or below a root is left to the container: no negated term speaks against
    /// it or one of its parents. With `parent-of:` the terms are about the device that names the
    /// parent, and all below the parent is left.
    pub fn leaves<'a>(&self, chain: impl FnOnce() -> Chain<'a>) -> Found {
        if self.parents > 0 || !self.terms.iter().any(|term| term.negated) {
            return Found::Yes;
        }
        let chain = chain();
        let negated = self.terms.iter().filter(|term| term.negated);
        Found::all(negated.map(|term| term.found(&chain)))
    }
}
