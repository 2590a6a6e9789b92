//! Whether a selector matches a device and its parents: the one evaluator for requests, `only=` and
//! policy rules.
//!
//! A term matches if its selector matches the device itself or one of its parents, as with udev's
//! `ATTRS==` and `SUBSYSTEMS==`. A negated term matches if its selector matches none of them.
//!
//! Must not know the grammar (`grammar`) or what a match is used for (`request`, `policy`).

use super::{DeviceSelector, Selector, Term};
use crate::model::device::{Device, SysPath, UdevState};

/// Whether something matches, as far as the facts are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// It does not match, whatever facts udevd delivers.
    No,
    /// It depends on facts of this device that udevd has not delivered yet.
    Unknown(SysPath),
    Yes,
}

impl Match {
    /// A result that depends on no unknown fact.
    pub fn certain(matches: bool) -> Match {
        if matches { Match::Yes } else { Match::No }
    }

    /// Whether one of the two matches.
    pub fn or(self, other: impl FnOnce() -> Match) -> Match {
        match self {
            Match::Yes => Match::Yes,
            Match::No => other(),
            Match::Unknown(whose) => match other() {
                Match::Yes => Match::Yes,
                _ => Match::Unknown(whose),
            },
        }
    }

    /// Whether both match.
    pub fn and(self, other: impl FnOnce() -> Match) -> Match {
        match self {
            Match::No => Match::No,
            Match::Yes => other(),
            Match::Unknown(whose) => match other() {
                Match::No => Match::No,
                _ => Match::Unknown(whose),
            },
        }
    }

    /// The opposite.
    #[allow(clippy::should_implement_trait)]
    pub fn not(self) -> Match {
        match self {
            Match::No => Match::Yes,
            Match::Yes => Match::No,
            unknown => unknown,
        }
    }

    /// Whether at least one matches.
    pub fn any(all: impl IntoIterator<Item = Match>) -> Match {
        let mut found = Match::No;
        for one in all {
            found = found.or(|| one);
            if found == Match::Yes {
                break;
            }
        }
        found
    }

    /// Whether all match.
    pub fn all(all: impl IntoIterator<Item = Match>) -> Match {
        let mut found = Match::Yes;
        for one in all {
            found = found.and(|| one);
            if found == Match::No {
                break;
            }
        }
        found
    }
}

/// A device under all its names, and its parents, the nearest first ([`Inventory::chain`]).
///
/// [`Inventory::chain`]: crate::model::device::inventory::Inventory::chain
#[derive(Debug, Clone)]
pub struct Chain<'a> {
    devices: Vec<&'a Device>,
    own: usize,
    /// Whether udev's facts are unknown where no udevd runs. If false, they are absent there.
    is_strict: bool,
    /// Whether a link counts that a device claims although the host's link points to another
    /// device.
    counts_claims: bool,
}

impl<'a> Chain<'a> {
    /// A chain of a device under its names (at least one) and its parents.
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

    /// The same chain for deny rules: each device that claims a denied link is denied. Otherwise a
    /// second device with the same label would take the first one out of the rule.
    pub fn with_claims(self) -> Self {
        Self {
            counts_claims: true,
            ..self
        }
    }

    /// The same chain for the policy: where no udevd runs, udev's facts of a device are unknown.
    /// (For a request they are absent, because no link or tag will ever be made there.)
    pub fn strict(self) -> Self {
        Self {
            is_strict: true,
            ..self
        }
    }

    /// The device under each of its names.
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

/// Directories in which udev's rules create links that describe a device (systemd's
/// rules.d/60-*.rules, lvm2's and others').
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
    /// Whether this matches the device itself. Where no udevd runs, udev's facts count as absent.
    pub fn found(&self, device: &Device) -> Match {
        self.found_when(device, device.udev_state >= UdevState::NoUdevd)
    }

    fn found_when(&self, device: &Device, is_complete: bool) -> Match {
        let unknown = || Match::Unknown(device.syspath.clone());
        match self.decided_by(device) {
            Some(stage) if is_complete || device.udev_state >= stage => Match::Yes,
            Some(_) => unknown(),
            None if is_complete || !self.needs_udev() => Match::No,
            None => match self {
                // Only nodes have links.
                Self::DevNode(_) | Self::Glob(_) | Self::Regex(_) if device.node.is_none() => Match::No,
                _ => unknown(),
            },
        }
    }

    /// Whether the policy needs udevd to know that this does not match a device. A path outside the
    /// directories in which udev creates links is the kernel's name of a node, and needs no udevd.
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

    /// Whether this selects by the path of this link.
    fn is_by_path(&self, link: &std::path::Path) -> bool {
        match self {
            Self::DevNode(path) => path == link,
            Self::Glob(pattern) => pattern.matches_path(link),
            Self::Regex(expression) => expression.matches_path(link),
            _ => false,
        }
    }

    /// Whether this matches one of these devices.
    pub fn found_in(&self, devices: &[&Device]) -> Match {
        Match::any(devices.iter().map(|device| self.found(device)))
    }
}

impl Term {
    /// Whether the term matches a device with these parents.
    pub fn found(&self, chain: &Chain<'_>) -> Match {
        let selector = &self.selector;
        let complete = match chain.is_strict && selector.needs_udevd() {
            true => UdevState::Processed,
            false => UdevState::NoUdevd,
        };
        let all = chain.all().iter();
        let found = Match::any(all.map(|device| selector.found_when(device, device.udev_state >= complete)));
        if self.negated {
            return found.not();
        }
        let claims = |device: &&Device| device.lost_links.iter().any(|link| selector.is_by_path(link));
        found.or(|| match chain.counts_claims && chain.all().iter().any(claims) {
            true => Match::Yes,
            false => Match::No,
        })
    }
}

impl DeviceSelector {
    /// Whether all terms match a device with these parents. Ignores `parent-of:`.
    pub fn matches(&self, chain: &Chain<'_>) -> Match {
        Match::all(self.terms.iter().map(|term| term.found(chain)))
    }

    /// Whether the terms name a device: all of them match it or its parents, and at least one that
    /// is not negated matches the device itself. (With `parent-of:`, the root is above this
    /// device.)
    ///
    /// `chain` is called only if the device itself does not decide: most devices match no term.
    pub fn names<'a>(&self, device: &Device, chain: impl FnOnce() -> Chain<'a>) -> Match {
        let named = self.names_itself(device);
        if named == Match::No {
            return Match::No;
        }
        if let [_] = self.terms[..] {
            return named;
        }
        let chain = chain();
        named.and(|| self.matches(&chain))
    }

    /// Whether at least one term that is not negated matches the device itself under this very
    /// name. A term that matches the device with a static node's number makes that device a root,
    /// but not the static node.
    pub fn names_itself(&self, device: &Device) -> Match {
        let positive = self.terms.iter().filter(|term| !term.negated);
        Match::any(positive.map(|term| term.selector.found(device)))
    }

    /// Whether a device at or below a root stays in the request: no negated term matches it or one
    /// of its parents. With `parent-of:`, the terms are about the device that leads to the parent,
    /// and everything below the parent stays.
    pub fn leaves<'a>(&self, chain: impl FnOnce() -> Chain<'a>) -> Match {
        if self.parents > 0 || !self.terms.iter().any(|term| term.negated) {
            return Match::Yes;
        }
        let chain = chain();
        let negated = self.terms.iter().filter(|term| term.negated);
        Match::all(negated.map(|term| term.found(&chain)))
    }
}
