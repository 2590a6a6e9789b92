//! The way into a container: a CDI device that brings the hooks, or, where CDI is off, nodes at creation.
//!
//! A spec is written before kubelet hears of its resource, and stays while a pod may have it: kubelet remembers the
//! names that a pod was given, and asks for them again at every restart of its containers, also long after the device
//! has gone.
//! Must not know kubelet.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::resources::names::CDI_PREFIX;
use super::resources::resource::Resource;
use super::resources::unit::Offer;
use crate::cdi::directories::Specs;
use crate::cdi::generate::{self, GenerateError, Placed, Wish};
use crate::cdi::names::Kind;

/// Where specs go, and what is in them.
#[derive(Debug, Clone)]
pub struct Door {
    /// Vendor and class of our devices.
    pub kind: Kind,
    /// The directory that engines read.
    pub dir: PathBuf,
    /// Where the hooks are on the host.
    pub hooks: PathBuf,
    /// Whether the engine takes CDI devices.
    pub cdi: bool,
    /// The files that are known to be ours: others' are looked at once, for specs are many and calls frequent.
    pub ours: Arc<Mutex<BTreeSet<PathBuf>>>,
}

impl Door {
    /// Makes sure that the specs of a resource are there; returns how many were not as they should be.
    ///
    /// # Errors
    /// When one can't be written, or somebody else's file is in its place.
    pub fn open(&self, resource: &Resource) -> Result<usize, GenerateError> {
        if !self.cdi {
            return Ok(0);
        }
        let mut written = 0;
        for wish in &resource.wishes {
            written += usize::from(self.place(wish)? != Placed::Unchanged);
        }
        Ok(written)
    }

    fn place(&self, wish: &Wish) -> Result<Placed, GenerateError> {
        let document = generate::document(&self.kind, &self.hooks, std::slice::from_ref(wish))?;
        let path = self.dir.join(generate::file_name(&self.kind, &wish.name)?);
        let ours = || self.ours.lock().unwrap_or_else(PoisonError::into_inner);
        if !ours().contains(&path) {
            let specs = Specs::scan(std::slice::from_ref(&self.dir));
            generate::check(&specs, &self.dir, &self.kind, &wish.name, false)?;
            ours().insert(path.clone());
        }
        generate::place(&path, &document)
    }

    /// The specs that the plugin has written, this one or an earlier: their files, and the names of their devices.
    pub fn specs(&self) -> Vec<(PathBuf, String)> {
        let specs = Specs::scan(std::slice::from_ref(&self.dir));
        let ours = specs.files.into_iter().filter_map(|file| {
            let document = file.spec.ok().filter(generate::is_ours)?;
            let [device] = &document.devices[..] else {
                return None;
            };
            let is_of_a_resource =
                document.kind == self.kind.to_string() && device.name.starts_with(CDI_PREFIX);
            is_of_a_resource.then(|| (file.path, device.name.clone()))
        });
        ours.collect()
    }

    /// Removes a spec that nobody can ask for any more.
    ///
    /// # Errors
    /// When its file can't be removed.
    pub fn close(&self, spec: &Path) -> io::Result<()> {
        self.ours
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(spec);
        match std::fs::remove_file(spec) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The qualified name of the CDI device by which an offer is taken up, if it is by one.
    pub fn device(&self, offer: &Offer) -> Option<String> {
        let name = offer.cdi.as_ref().filter(|_| self.cdi)?;
        Some(format!("{}={name}", self.kind))
    }
}
