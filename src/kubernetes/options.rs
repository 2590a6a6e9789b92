//! What the daemon and `--check` are started with.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::api_server::client::ApiServer;
use super::cdi_specs::CdiSpecs;
use super::config::{self, Configuration, Texts};
use crate::host::config::Config;

/// The options of one run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the configuration is.
    pub config_sources: ConfigSources,
    /// kubelet's directory of device plugins.
    pub kubelet_dir: PathBuf,
    /// kubelet's pod-resources socket; `None` if kubelet is not to be asked.
    pub pod_resources: Option<PathBuf>,
    /// How long no container must have had a unit before it is free.
    pub grace: Duration,
    /// The address of /metrics, /healthz and /readyz.
    pub listen: Option<String>,
    /// The API server that receives events about the devices of pods.
    pub events: Option<ApiServer>,
    /// The CDI specs of the plugin's devices.
    pub cdi_specs: CdiSpecs,
    /// The state directory of this node's hooks and watchers.
    pub state_dir: PathBuf,
}

/// Where the parts of the configuration are. They add up.
#[derive(Debug, Clone, Default)]
pub struct ConfigSources {
    /// hostdev's list.
    pub devs: Option<String>,
    /// smarter-device-manager's file.
    pub smarter: Option<PathBuf>,
    /// generic-device-plugin's arguments `--device`.
    pub devices: Vec<String>,
    /// Our own file, or generic-device-plugin's, or usbip-device-plugin's.
    pub own: Option<PathBuf>,
    /// usbip-device-plugin's file.
    pub usbip: Option<PathBuf>,
    /// The domain of resources without one; it overrides the files' own.
    pub domain: Option<String>,
}

impl ConfigSources {
    /// The files.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.own, &self.smarter, &self.usbip].into_iter().flatten()
    }

    /// Reads the configuration as the files are now, with the classes of oci-hotplug's own
    /// configuration.
    ///
    /// # Errors
    /// When a file can't be read or used.
    pub fn read(&self) -> Result<(Texts, Configuration)> {
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
