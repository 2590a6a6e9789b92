//! Whether a selector is true of a device and its parents: the one evaluator of requests, `only=` and policy rules.
//!
//! A term may be true of the device itself or of one of its parents, as with udev's `ATTRS==` and `SUBSYSTEMS==`. A
//! negated term is true when its selector is true of none of them.
//!
//! Must not know the grammar (`grammar`), nor what a match is for (`request`, `policy`).

use super::{DeviceSelector, Selector, Term};
use crate::model::device::{Device, Seen, SysPath};

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
/// [`Inventory::chain`]: crate::model::inventory::Inventory::chain
#[derive(Debug, Clone)]
pub struct Chain<'a> {
    devices: Vec<&'a Device>,
    own: usize,
}

impl<'a> Chain<'a> {
    /// A chain of the device by its names (at least one), and its parents.
    pub fn new(own: &[&'a Device], parents: impl IntoIterator<Item = &'a Device>) -> Self {
        let mut devices = own.to_vec();
        devices.extend(parents);
        Self {
            devices,
            own: own.len(),
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

impl Selector {
    /// Whether this is true of the device itself.
    pub fn found(&self, device: &Device) -> Found {
        let unknown = || Found::Unknown(device.syspath.clone());
        match self.decided_by(device) {
            Some(stage) if device.seen >= stage => Found::Yes,
            Some(_) => unknown(),
            None if device.seen == Seen::Udev || !self.needs_udev() => Found::No,
            None => match self {
                // Only nodes have links.
                Self::DevNode(_) | Self::Glob(_) | Self::Regex(_) if device.node.is_none() => Found::No,
                _ => unknown(),
            },
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
        let found = self.selector.found_in(chain.all());
        if self.negated { found.not() } else { found }
    }
}

impl DeviceSelector {
    /// Whether all terms are true of a device with these parents. `parent-of:` does not count.
    pub fn matches(&self, chain: &Chain<'_>) -> Found {
        Found::all(self.terms.iter().map(|term| term.found(chain)))
    }

    /// Whether a device is what the terms name: all of them are true of it or its parents, and at least one that is not
    /// negated of the device itself. (With `parent-of:`, the root is above this device.)
    ///
    /// `chain` is called only when the device itself leaves that open: of most devices nothing is true.
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

    /// Whether at least one term that is not negated is true of the device itself, by this very name: what is true of
    /// the device behind a `node:` makes that device a root, and not the `node:` as well.
    pub fn names_itself(&self, device: &Device) -> Found {
        let positive = self.terms.iter().filter(|term| !term.negated);
        Found::any(positive.map(|term| term.selector.found(device)))
    }

    /// Whether a device at or below a root is left to the container: no negated term speaks against it or one of its
    /// parents. With `parent-of:` the terms are about the device that names the parent, and all below the parent is left.
    pub fn leaves<'a>(&self, chain: impl FnOnce() -> Chain<'a>) -> Found {
        if self.parents > 0 || !self.terms.iter().any(|term| term.negated) {
            return Found::Yes;
        }
        let chain = chain();
        let negated = self.terms.iter().filter(|term| term.negated);
        Found::all(negated.map(|term| term.found(&chain)))
    }
}
