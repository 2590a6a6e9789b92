//! The CDI specs of the plugin's devices: each adds the hooks of one CDI device to a container.
//!
//! A spec is written before its resource is sent to kubelet, and stays while a pod may use it:
//! kubelet remembers the names that a pod was given and uses them whenever a container of the pod
//! restarts, even long after the device was unplugged. Must not know kubelet.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::resources::names::CDI_PREFIX;
use super::resources::resource::Resource;
use super::resources::unit::Offer;
use crate::cdi::directories::Specs;
use crate::cdi::generate::{self, GenerateError, NewDevice};
use crate::cdi::generated_files::{self, FileChange};
use crate::cdi::names::Kind;

/// Where specs are written, and what they contain.
#[derive(Debug, Clone)]
pub(super) struct CdiSpecs {
    /// Vendor and class of the devices.
    pub kind: Kind,
    pub dir: PathBuf,
    /// The directory of the hooks on the host.
    pub hooks: PathBuf,
    /// Whether the engine supports CDI devices.
    pub enabled: bool,
    /// Files known to be written by the plugin. Others are checked once, because there are many
    /// specs and frequent calls.
    pub ours: Arc<Mutex<BTreeSet<PathBuf>>>,
}

impl CdiSpecs {
    /// Writes the specs of a resource that are missing or differ. Returns their number.
    ///
    /// # Errors
    ///
    /// If a spec cannot be written, or a file of another program has its path.
    pub(super) fn write(&self, resource: &Resource) -> Result<usize, GenerateError> {
        if !self.enabled {
            return Ok(0);
        }
        let mut written = 0;
        for cdi_device in &resource.cdi_devices {
            written += usize::from(self.place(cdi_device)? != FileChange::Unchanged);
        }
        Ok(written)
    }

    fn place(&self, cdi_device: &NewDevice) -> Result<FileChange, GenerateError> {
        let document = generate::document(&self.kind, &self.hooks, std::slice::from_ref(cdi_device))?;
        let path = self
            .dir
            .join(generated_files::file_name(&self.kind, &cdi_device.name)?);
        let ours = || self.ours.lock().unwrap_or_else(PoisonError::into_inner);
        if !ours().contains(&path) {
            let specs = Specs::scan(std::slice::from_ref(&self.dir));
            generated_files::check(&specs, &self.dir, &self.kind, &cdi_device.name, false)?;
            ours().insert(path.clone());
        }
        generated_files::write(&path, &document)
    }

    /// The specs written by this or an earlier run of the plugin: their files, and the names of
    /// their devices.
    pub(super) fn own_specs(&self) -> Vec<(PathBuf, String)> {
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

    /// Removes a spec that no container can use any more.
    ///
    /// # Errors
    ///
    /// If its file cannot be removed.
    pub(super) fn remove(&self, spec: &Path) -> io::Result<()> {
        self.ours
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(spec);
        match std::fs::remove_file(spec) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The qualified name of an offer's CDI device; `None` for an offer of nodes, or if CDI is off.
    pub(super) fn device_name(&self, offer: &Offer) -> Option<String> {
        let name = offer.cdi.as_ref().filter(|_| self.enabled)?;
        Some(format!("{}={name}", self.kind))
    }
}

/// Specs that are not needed, each with the time since when.
#[derive(Debug, Default)]
pub(super) struct Unneeded(BTreeMap<PathBuf, Instant>);

impl Unneeded {
    /// Removes the specs whose devices have not been needed for the grace period.
    pub(super) fn remove(&mut self, specs: &CdiSpecs, is_needed: impl Fn(&str) -> bool, grace: Duration) {
        let before = std::mem::take(&mut self.0);
        for (path, device) in specs.own_specs() {
            if is_needed(&device) {
                continue;
            }
            let since = before.get(&path).copied().unwrap_or_else(Instant::now);
            if since.elapsed() < grace {
                self.0.insert(path, since);
                continue;
            }
            match specs.remove(&path) {
                Ok(()) => info!(
                    "removed {}: no pod uses {device}, and no resource has it",
                    path.display()
                ),
                Err(error) => warn!("cannot remove {}: {error}", path.display()),
            }
        }
    }
}
