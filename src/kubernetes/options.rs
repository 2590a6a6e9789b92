//! The options of the daemon and of `--check`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::api_server::client::ApiServer;
use super::cdi_specs::CdiSpecs;
use super::config::{self, Configuration, Texts};
use crate::host::config::Config;

#[derive(Debug, Clone)]
pub(super) struct Options {
    pub config_sources: ConfigSources,
    pub kubelet_dir: PathBuf,
    /// kubelet's pod-resources socket; `None` if kubelet is not to be asked.
    pub pod_resources: Option<PathBuf>,
    /// How long a unit must not have been in use before it is free.
    pub grace: Duration,
    pub listen: Option<String>,
    /// The API server that receives events about the devices of pods.
    pub events: Option<ApiServer>,
    pub cdi_specs: CdiSpecs,
    pub state_dir: PathBuf,
}

/// The sources of the configuration. They are combined.
#[derive(Debug, Clone, Default)]
pub(super) struct ConfigSources {
    /// hostdev's list.
    pub devs: Option<String>,
    /// smarter-device-manager's file.
    pub smarter: Option<PathBuf>,
    /// generic-device-plugin's arguments `--device`.
    pub devices: Vec<String>,
    /// A file in our own format, or generic-device-plugin's, or usbip-device-plugin's.
    pub own: Option<PathBuf>,
    /// usbip-device-plugin's file.
    pub usbip: Option<PathBuf>,
    /// The domain of resources without one; it overrides the files' own.
    pub domain: Option<String>,
}

impl ConfigSources {
    /// The files among the sources.
    pub(super) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.own, &self.smarter, &self.usbip].into_iter().flatten()
    }

    /// Reads the current files, with the classes of oci-hotplug's own configuration.
    ///
    /// # Errors
    ///
    /// If a file cannot be read or is invalid.
    pub(super) fn read(&self) -> Result<(Texts, Configuration)> {
        let texts = self.texts()?;
        let classes = Config::load(None, None)?.classes()?;
        let configuration = config::read(&texts, &classes)?;
        Ok((texts, configuration))
    }

    fn texts(&self) -> Result<Texts> {
        let read = |path: &Option<PathBuf>| -> Result<Option<(PathBuf, String)>> {
            let Some(path) = path else { return Ok(None) };
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the configuration {}", path.display()))?;
            Ok(Some((path.clone(), text)))
        };
        Ok(Texts {
            devs: self.devs.clone(),
            devices: self.devices.clone(),
            smarter: read(&self.smarter)?,
            own: read(&self.own)?,
            usbip: read(&self.usbip)?,
            domain: self.domain.clone(),
        })
    }
}
