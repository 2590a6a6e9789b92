//! The main loop: takes a snapshot of the host, advertises the resources that result from it and
//! the configuration, and repeats that at each change.
//!
//! Runs in one thread.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::api_server::events::{Events, Reporter};
use super::changes::{Changes, DirectoryWatch, POLL_INTERVAL};
use super::config::{self, Configuration, Definition, Texts};
use super::metrics::Metrics;
use super::options::{ConfigSources, Options};
use super::publisher::Publisher;
use super::sources::{Signals, Sources, Wake};
use super::status;
use crate::exit;
use crate::model::remote::address::Server;

/// Runs until SIGTERM or SIGINT. Pods keep their devices, and the CDI specs remain.
///
/// # Errors
///
/// If the configuration is unusable at the start, or the host's devices cannot be watched.
pub(super) async fn run(options: Options) -> Result<()> {
    let signals = Signals::install()?;
    let mut current = Current::read(&options)?;
    let metrics = Arc::new(Metrics::new());
    let mut tasks = JoinSet::new();
    serve_status(&options, &metrics, &mut tasks).await?;
    let kubelet = watch_kubelet(options.kubelet_dir.clone(), &mut tasks);
    let events = report_events(&options, &metrics, &mut tasks)?;
    let mut sources = Sources::start(signals, &options, &current.definitions)?;
    sources.ask(current.servers(options.cdi_specs.enabled));
    let mut publisher = Publisher::new(&options, kubelet, Arc::clone(&metrics), events);
    if let Some(holders) = sources.first_answers().await {
        publisher.take_holders(holders, true);
    }
    let snapshot = sources.snapshot(&current.definitions, &options.state_dir)?;
    publisher.publish(&current.definitions, snapshot);
    loop {
        match sources.next(publisher.deadline()).await? {
            Wake::End => break,
            Wake::Holders(holders) => {
                if publisher.take_holders(holders, sources.has_servers()) {
                    sources.add(Changes::HOST);
                }
            }
            Wake::Changes(mut changes) => {
                if changes.configuration && current.reload(&metrics) {
                    sources.watch(&current.definitions);
                    sources.ask(current.servers(options.cdi_specs.enabled));
                    changes.host = true;
                }
                if changes.host {
                    let snapshot = sources.snapshot(&current.definitions, &options.state_dir)?;
                    publisher.publish(&current.definitions, snapshot);
                }
            }
        }
    }
    info!("stopping; pods keep their devices");
    Ok(())
}

/// The configuration in force.
struct Current {
    sources: ConfigSources,
    texts: Texts,
    definitions: Vec<Definition>,
}

impl Current {
    fn read(options: &Options) -> Result<Self> {
        let sources = options.config_sources.clone();
        let (texts, configuration) = sources.read()?;
        if configuration.definitions.is_empty() && sources.files().next().is_none() {
            bail!(
                "there is nothing to advertise: give --devs, --smarter-config, --device, --usbip-config or --config"
            );
        }
        let definitions = with_warnings(configuration);
        Ok(Self {
            sources,
            texts,
            definitions,
        })
    }

    /// Reads the files again. Returns whether anything changed. An unusable configuration is logged
    /// and changes nothing.
    fn reload(&mut self, metrics: &Metrics) -> bool {
        match self.sources.read() {
            Ok((texts, _)) if texts == self.texts => false,
            Ok((texts, configuration)) => {
                info!(
                    "reloaded the configuration: {} definitions",
                    configuration.definitions.len()
                );
                metrics.count_reload("ok");
                (self.texts, self.definitions) = (texts, with_warnings(configuration));
                true
            }
            Err(error) => {
                let error = exit::told(error.as_ref());
                warn!("{error}; the previous configuration stays in force");
                metrics.count_reload("failed");
                false
            }
        }
    }

    /// The USB/IP servers to list: none if CDI is off, because only hooks can attach their devices.
    fn servers(&self, has_cdi: bool) -> BTreeSet<Server> {
        let servers = config::servers(&self.definitions);
        if has_cdi || servers.is_empty() {
            return servers;
        }
        warn!(
            "devices of USB/IP servers are not advertised: the hooks that attach them need CDI (switch CDI on in the \
             container engine)"
        );
        BTreeSet::new()
    }
}

/// Logs the notes on a configuration.
fn with_warnings(configuration: Configuration) -> Vec<Definition> {
    for note in configuration.notes {
        warn!("{note}");
    }
    if configuration.definitions.is_empty() {
        warn!("the configuration has nothing to advertise");
    }
    configuration.definitions
}

async fn serve_status(options: &Options, metrics: &Arc<Metrics>, tasks: &mut JoinSet<()>) -> Result<()> {
    if let Some(address) = &options.listen {
        let listener = status::listen(address).await.with_context(|| {
            format!(
                "cannot listen on {address} for /metrics (choose another with --listen, or \"\" for none)"
            )
        })?;
        tasks.spawn(status::serve(listener, Arc::clone(metrics)));
    }
    Ok(())
}

/// Starts to send events to the API server, if the options say so.
///
/// # Errors
///
/// If kubelet's pod-resources socket is not set: then the pod of a unit is unknown.
fn report_events(
    options: &Options,
    metrics: &Arc<Metrics>,
    tasks: &mut JoinSet<()>,
) -> Result<Option<Arc<Events>>> {
    let Some(server) = options.events.clone() else {
        return Ok(None);
    };
    let Some(pod_resources) = options.pod_resources.clone() else {
        bail!(
            "--events needs kubelet's list of pods: set --pod-resources to the socket of kubelet's pod-resources"
        );
    };
    let events = Arc::new(Events::new(Arc::clone(metrics)));
    let node = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    let reporter = Reporter::new(
        Arc::clone(&events),
        server,
        pod_resources,
        options.kubelet_dir.clone(),
        node.trim().to_owned(),
    );
    tasks.spawn(reporter.run());
    Ok(Some(events))
}

/// A number that changes whenever kubelet's directory changes, and periodically.
fn watch_kubelet(dir: PathBuf, tasks: &mut JoinSet<()>) -> watch::Receiver<u64> {
    let (sender, receiver) = watch::channel(0);
    tasks.spawn(async move {
        let mut directory = DirectoryWatch::new(&dir);
        loop {
            directory.changed(POLL_INTERVAL).await;
            sender.send_modify(|changes| *changes += 1);
        }
    });
    receiver
}
