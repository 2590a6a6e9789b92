//! The plugin's life: look at the host, make the list of resources, tell kubelet; again whenever something happens.
//!
//! One thread. Events only wake: devices, the configuration and kubelet's directory are then looked at anew. A burst of
//! events is waited for, so that kubelet, which rewrites its checkpoint at each list, gets one list of it.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::unix::AsyncFd;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::api_server::client::ApiServer;
use super::api_server::events::{Change, Events, Reporter};
use super::cdi_specs::CdiSpecs;
use super::changes::DirectoryWatch;
use super::config::{self, Configuration, Definition, Texts};
use super::kubelet::grpc;
use super::kubelet::plugin::Plugin;
use super::kubelet::pod_resources::{self, Held, Holders};
use super::kubelet::registrar::Registrar;
use super::resources;
use super::resources::names::{Names, ResourceName, cdi_stem};
use super::resources::own;
use super::resources::resource::{Metrics, Resource};
use super::resources::usbip;
use super::snapshot::{self, Found, Snapshot};
use super::status::{self, Counters};
use super::usbip_servers::Servers;
use crate::cdi::generate::Wish;
use crate::exit;
use crate::host::config::Config;
use crate::host::monitor::{DeviceMonitor, RECEIVE_BUFFER};
use crate::sys::readiness;
use crate::usbip::records;

/// A burst of events is over when none has come for this long...
const QUIET: Duration = Duration::from_millis(150);

/// ... and is not waited for longer than this.
const LONGEST_BURST: Duration = Duration::from_secs(3);

/// How often is looked for what no event tells: a directory mounted over another.
const LOOK_ANYWAY: Duration = Duration::from_secs(10);

/// How often is looked for paths outside /dev, of which no event tells: as often as generic-device-plugin looks.
const LOOK_OUTSIDE: Duration = Duration::from_secs(5);

/// How long the first look waits for USB/IP servers and for kubelet's word of who has their devices: what is withdrawn for
/// a moment is missing to a kubelet that starts at the same time.
const FIRST_ANSWERS: Duration = Duration::from_secs(3);

/// What kubelet was told to give is a container's for so long, if it does not say otherwise: it starts first.
const STARTING: Duration = Duration::from_secs(60);

/// How long a device of another host that a container has may be away before it counts as gone: a container that starts
/// anew gives it back and takes it again, and by then its server has been asked. A device that changes its ids is away for as
/// long as its firmware takes to start, which is two seconds or three.
const SETTLING: Duration = Duration::from_secs(5);

/// Where the sources of the configuration are.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// hostdev's list.
    pub devs: Option<String>,
    /// smarter-device-manager's file.
    pub smarter: Option<PathBuf>,
    /// generic-device-plugin's arguments `--device`.
    pub devices: Vec<String>,
    /// Our own file, or one of another's.
    pub own: Option<PathBuf>,
    /// usbip-device-plugin's file.
    pub usbip: Option<PathBuf>,
    /// The domain of resources that have none, instead of the files' own.
    pub domain: Option<String>,
}

/// What the program was told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the configuration is.
    pub sources: Sources,
    /// kubelet's directory of device plugins.
    pub kubelet_dir: PathBuf,
    /// kubelet's socket of pod-resources, if it is to be asked.
    pub pod_resources: Option<PathBuf>,
    /// How long nobody must have had something before it is free.
    pub grace: Duration,
    /// Where /metrics and the others are, if anywhere.
    pub listen: Option<String>,
    /// The API server that is told what happens to pods' devices, if any is.
    pub events: Option<ApiServer>,
    /// The way into containers.
    pub cdi_specs: CdiSpecs,
    /// Where the hooks and watchers of this node note what is whose.
    pub state_dir: PathBuf,
}

impl Sources {
    /// The files.
    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.own, &self.smarter, &self.usbip].into_iter().flatten()
    }

    /// The texts, as they are now.
    ///
    /// # Errors
    /// When a file can't be read.
    pub fn texts(&self) -> Result<Texts> {
        let read = |path: &Option<PathBuf>| -> Result<Option<(PathBuf, String)>> {
            let Some(path) = path else { return Ok(None) };
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("reading the configuration {}", path.display()))?;
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

    /// What is to be advertised, as the files say now. Classes are those of oci-hotplug's own configuration.
    ///
    /// # Errors
    /// When a file can't be used.
    pub fn read(&self) -> Result<(Texts, Configuration)> {
        let texts = self.texts()?;
        let classes = Config::load(None, None)?.classes()?;
        let configuration = config::read(&texts, &classes)?;
        Ok((texts, configuration))
    }
}

/// A resource that is served.
struct Served {
    resource: watch::Sender<Arc<Resource>>,
    plugin: Arc<Plugin>,
    registrar: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.registrar.abort();
    }
}

/// All of it.
struct Program {
    options: Options,
    texts: Texts,
    definitions: Vec<Definition>,
    /// What is to be said of them.
    notes: Vec<String>,
    names: Names,
    served: BTreeMap<ResourceName, Served>,
    /// Ticks when something has happened in kubelet's directory.
    kubelet: watch::Sender<u64>,
    counters: Arc<Counters>,
    /// Where is noted what happens to pods' devices, if anybody is told.
    events: Option<Arc<Events>>,
    held: Held,
    servers: Servers,
    /// Units of theirs that are away: since when.
    away: BTreeMap<String, Instant>,
    /// Whether kubelet is asked often who has what: others wait for what a pod gives back.
    often: watch::Sender<bool>,
    /// Specs that nothing here needs and no container has: since when.
    unneeded: BTreeMap<PathBuf, Instant>,
}

/// Runs until SIGTERM or SIGINT. Pods, their devices and the CDI specs stay as they are then.
///
/// # Errors
/// When the configuration can't be used at the start, or the host's devices can't be watched.
pub async fn run(options: Options) -> Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (texts, Configuration { definitions, notes }) = options.sources.read()?;
    if definitions.is_empty() && options.sources.files().next().is_none() {
        bail!(
            "there is nothing to advertise: give --devs, --smarter-config, --device, --usbip-config or --config"
        );
    }
    let counters = Arc::new(Counters::default());
    let mut helpers: JoinSet<()> = JoinSet::new();
    if let Some(address) = &options.listen {
        let listener = listen(address).await.with_context(|| {
            format!("listening on {address} for /metrics (choose another with --listen, or \"\" for none)")
        })?;
        helpers.spawn(serve_status(listener, Arc::clone(&counters)));
    }
    let kubelet = watch::Sender::new(0);
    helpers.spawn(watch_kubelet(options.kubelet_dir.clone(), kubelet.clone()));
    let answers = watch::Sender::new(None);
    let often = watch::Sender::new(false);
    let mut told = answers.subscribe();
    if let Some(socket) = &options.pod_resources {
        let (socket, grace) = (socket.clone(), options.grace);
        helpers.spawn(pod_resources::follow(
            socket,
            grace,
            often.subscribe(),
            answers.clone(),
        ));
    }
    let events = report_events(&options, &counters, &mut helpers)?;
    let mut monitor = DeviceMonitor::open(resources::wanted(&definitions), RECEIVE_BUFFER)
        .context("watching the host's devices")?;
    // Of nodes that only their directory tells of, from now on every change is seen: also that one goes which is there.
    monitor.poll_static_nodes();
    let mut wakers = wakers(&monitor)?;
    let mut files = FileWatch::of(options.sources.files());
    let mut paths = FileWatch::of(paths_outside_dev(&definitions));
    let mut program = Program {
        options,
        texts,
        definitions,
        notes,
        names: Names::default(),
        served: BTreeMap::new(),
        kubelet,
        counters,
        events,
        held: Held::default(),
        servers: Servers::none(),
        away: BTreeMap::new(),
        often,
        unneeded: BTreeMap::new(),
    };
    program.take_definitions();
    program.hear_first(&mut told).await;
    let mut servers = program.servers.known();
    program.publish(&monitor)?;
    let mut burst: Option<Burst> = None;
    // What happened in it: something to the devices, something beside the configuration files.
    let (mut stirred, mut reread) = (false, false);
    let mut paths_outside = outside(&program.definitions);
    let mut next_look_outside = Instant::now() + LOOK_OUTSIDE;
    loop {
        // What is to be looked at anew is waited for no more.
        let settled = program.settled().filter(|_| burst.is_none());
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = any_readable(&wakers) => {
                // udevd's remove event is not reported, but its processing can move a link to another device.
                if !monitor.drain().is_empty() || monitor.links_may_have_moved() {
                    stirred = true;
                    Burst::extend(&mut burst);
                }
                if monitor.refresh() {
                    wakers = self::wakers(&monitor)?;
                    stirred = true;
                    Burst::extend(&mut burst);
                }
            }
            () = files.changed() => {
                reread = true;
                Burst::extend(&mut burst);
            }
            () = paths.changed() => {
                stirred = true;
                Burst::extend(&mut burst);
            }
            Ok(()) = told.changed() => {
                let holders = told.borrow_and_update().clone().unwrap_or_default();
                if program.take_holders(holders) {
                    stirred = true;
                    Burst::extend(&mut burst);
                }
            }
            Ok(()) = servers.changed() => {
                stirred = true;
                Burst::extend(&mut burst);
            }
            () = sleep_until(next_look_outside), if has_outside(&program.definitions) => {
                next_look_outside = Instant::now() + LOOK_OUTSIDE;
                let now = outside(&program.definitions);
                if now != paths_outside {
                    paths_outside = now;
                    stirred = true;
                    Burst::extend(&mut burst);
                }
            }
            () = sleep_until(settled.unwrap_or_else(Instant::now)), if settled.is_some() => {
                stirred = true;
                Burst::extend(&mut burst);
            }
            () = Burst::over(burst) => {
                burst = None;
                if std::mem::take(&mut reread) && program.reload() {
                    program.take_definitions();
                    monitor.want(resources::wanted(&program.definitions));
                    monitor.poll_static_nodes();
                    paths = FileWatch::of(paths_outside_dev(&program.definitions));
                    stirred = true;
                }
                if std::mem::take(&mut stirred) {
                    program.publish(&monitor)?;
                }
            }
        }
    }
    info!("ending: pods keep what they have");
    Ok(())
}

impl Program {
    /// Reads the configuration anew; true when it says something else than before. One that can't be used is told of
    /// and changes nothing.
    fn reload(&mut self) -> bool {
        match self.options.sources.read() {
            Ok((texts, _)) if texts == self.texts => false,
            Ok((texts, Configuration { definitions, notes })) => {
                info!(
                    "the configuration was read anew: {} definitions",
                    definitions.len()
                );
                self.counters
                    .add_labelled("reloads_total", "result=\"ok\"".to_owned(), 1);
                (self.texts, self.definitions, self.notes) = (texts, definitions, notes);
                true
            }
            Err(error) => {
                let why = exit::told(error.as_ref());
                warn!("{why}; the configuration read before stays in force");
                self.counters
                    .add_labelled("reloads_total", "result=\"failed\"".to_owned(), 1);
                false
            }
        }
    }

    /// Says what is to be said of new definitions, and asks the servers that they name.
    fn take_definitions(&mut self) {
        for note in std::mem::take(&mut self.notes) {
            warn!("{note}");
        }
        if self.definitions.is_empty() {
            warn!("the configuration names nothing to advertise");
        }
        let mut servers = config::servers(&self.definitions);
        if !self.options.cdi_specs.enabled && !servers.is_empty() {
            warn!(
                "devices of USB/IP servers need CDI, which brings in the hooks that attach them: they are not advertised \
                 (switch CDI on in the container engine)"
            );
            servers.clear();
        }
        self.often.send_replace(!servers.is_empty());
        self.servers.want(servers);
    }

    /// Waits a little for what the first look needs to know of devices of other hosts.
    async fn hear_first(&mut self, told: &mut watch::Receiver<Option<Holders>>) {
        if !*self.often.borrow() {
            return;
        }
        let is_asked = self.options.pod_resources.is_some();
        let of_kubelet = async {
            if is_asked {
                let holders = told.wait_for(Option::is_some).await;
                holders.ok().and_then(|holders| holders.clone())
            } else {
                None
            }
        };
        let (_, holders) = tokio::join!(
            self.servers.heard(FIRST_ANSWERS),
            tokio::time::timeout(FIRST_ANSWERS, of_kubelet)
        );
        if let Ok(Some(holders)) = holders {
            self.take_holders(holders);
        }
    }

    /// Who has devices of other hosts, as far as known, and whether that is sure.
    fn held_remotes(&self) -> BTreeMap<String, bool> {
        let mut held = BTreeMap::new();
        for (name, _) in config::remote(&self.definitions) {
            let served = self.served.get(name);
            let given = served.map(|served| served.plugin.allocated()).unwrap_or_default();
            let lately = served.map(|served| served.plugin.given_within(STARTING));
            let seen = self.held.units(name.as_str());
            let mut starting = lately.unwrap_or_default();
            starting.retain(|id| !seen.contains(id));
            let listed = self.held.now.get(name.as_str());
            held.extend(seen.into_iter().chain(given).map(|id| (id, false)));
            held.extend(starting.into_iter().map(|id| (id, true)));
            held.extend(
                listed
                    .into_iter()
                    .flat_map(BTreeMap::keys)
                    .map(|id| (id.clone(), true)),
            );
        }
        held
    }

    /// Looks at the host and brings what is served to what should be.
    fn publish(&mut self, monitor: &DeviceMonitor) -> Result<()> {
        let mut snapshot = look(&self.definitions, monitor, &self.options.state_dir)?;
        if self.options.cdi_specs.enabled {
            snapshot.exports = self.servers.known().borrow().exports.clone();
            snapshot.held = self.held_remotes();
            let free = usbip::given_back(&self.definitions, &snapshot);
            self.held.forget(&free);
            for served in self.served.values() {
                served.plugin.free(&free);
            }
        }
        let resources = resources::resources(&self.definitions, &snapshot, &mut self.names);
        for note in self.names.take_notes() {
            warn!("{note}");
        }
        let mut gone: Vec<ResourceName> = self.served.keys().cloned().collect();
        let away = std::mem::take(&mut self.away);
        for mut resource in resources {
            gone.retain(|name| *name != resource.name);
            self.settle(&mut resource, &away);
            self.publish_one(resource);
        }
        for name in gone {
            self.withdraw(&name);
        }
        Ok(())
    }

    /// When it is certain of the next unit whether its device is away.
    fn settled(&self) -> Option<Instant> {
        self.away.values().min().map(|since| *since + SETTLING)
    }

    /// Leaves a unit as it was whose device went only a moment ago, if it is one of another host or one that may change its ids;
    /// `away` says since when each of before is away.
    fn settle(&mut self, resource: &mut Resource, away: &BTreeMap<String, Instant>) {
        let Some(served) = self.served.get(&resource.name) else {
            return;
        };
        let before = served.resource.borrow().clone();
        let gone_since = |id: &String| away.get(id).copied().unwrap_or_else(Instant::now);
        for (id, unit) in &mut resource.units {
            let was = before.units.get(id).and_then(|unit| unit.attached);
            if (was, unit.attached) == (Some(true), Some(false)) {
                let since = gone_since(id);
                if since.elapsed() < SETTLING {
                    unit.attached = Some(true);
                    self.away.insert(id.clone(), since);
                }
            }
        }
        if !own::takes_turns(&self.definitions, &resource.name) {
            return;
        }
        let mut waited_for = BTreeSet::new();
        for (id, unit) in before.units.iter().filter(|(_, unit)| unit.healthy) {
            if !resource.units.contains_key(id) {
                let since = gone_since(id);
                if since.elapsed() < SETTLING {
                    resource.units.insert(id.clone(), unit.clone());
                    self.away.insert(id.clone(), since);
                    waited_for.extend(unit.offer.cdi.clone());
                }
            }
        }
        let is_kept = |wish: &&Wish| waited_for.contains(&wish.name);
        resource
            .wishes
            .extend(before.wishes.iter().filter(is_kept).cloned());
    }

    fn publish_one(&mut self, mut resource: Resource) {
        let name = resource.name.clone();
        if let Some(served) = self.served.get(&name) {
            let before = served.resource.borrow().clone();
            resource.keep_allocated(&before, &served.plugin.allocated());
            if resource == *before {
                return;
            }
            self.tell_of_changes(&before, &resource, served);
        }
        // Before kubelet hears of it: a container that names a device without a spec can't start.
        if let Err(error) = self.options.cdi_specs.write(&resource) {
            warn!("{name}: {error}; containers with it can't start until this is mended");
        }
        let (healthy, unhealthy) = resource.health();
        info!("{name}: {healthy} healthy, {unhealthy} unhealthy");
        let set = |health: &str, value: usize| {
            let label = format!(",health=\"{health}\"");
            self.counters.set("devices", name.as_str(), &label, value as u64);
        };
        set("healthy", healthy);
        set("unhealthy", unhealthy);
        self.count_as_theirs(&resource);
        let resource = Arc::new(resource);
        match self.served.get(&name) {
            Some(served) => {
                served.resource.send_replace(resource);
            }
            None => {
                let served = self.serve(resource);
                self.served.insert(name, served);
            }
        }
    }

    /// Counts as the program did whose format the resource has.
    fn count_as_theirs(&self, resource: &Resource) {
        let count = |attached| {
            let units = resource.units.values();
            units.filter(|unit| unit.attached == attached).count() as u64
        };
        let name = resource.name.as_str();
        let set = |metric, value| self.counters.set(metric, name, "", value);
        match resource.metrics {
            Metrics::Ours => {}
            Metrics::Generic => set("generic_device_plugin_devices", resource.units.len() as u64),
            Metrics::Usbip => {
                // What can be had, and what is attached for a container.
                set("usbip_device_plugin_available_devices", count(None));
                set("usbip_device_plugin_attached_devices", count(Some(true)));
            }
        }
        // Shown from the beginning, as there.
        let metrics = [resource.metrics.allocations(), resource.metrics.restarts()];
        for metric in metrics.into_iter().flatten() {
            self.counters
                .add_labelled(metric, format!("resource=\"{name}\""), 0);
        }
    }

    /// Takes in who has what; whether a unit is free that was not.
    fn take_holders(&mut self, holders: Holders) -> bool {
        let grace = self.options.grace;
        let mut changed = *self.often.borrow() && holders != self.held.now;
        self.held.update(holders, Instant::now(), grace);
        for (name, served) in &self.served {
            let now = self.held.now.get(name.as_str()).map_or(0, BTreeMap::len);
            self.counters.set("held", name.as_str(), "", now as u64);
            changed |= served.plugin.take_held(&self.held.units(name.as_str()), grace);
        }
        if self.options.cdi_specs.enabled {
            self.remove_unneeded_specs();
        }
        changed
    }

    /// Removes the specs of what is no longer configured, or has gone, once no container has had it for a while.
    fn remove_unneeded_specs(&mut self) {
        let mut needed = BTreeSet::new();
        for served in self.served.values() {
            needed.extend(
                served
                    .resource
                    .borrow()
                    .wishes
                    .iter()
                    .map(|wish| wish.name.clone()),
            );
        }
        let held: Vec<String> = self.held.resources().into_iter().map(cdi_stem).collect();
        let is_held = |device: &str| {
            let mut behind = held.iter().filter_map(|stem| device.strip_prefix(stem.as_str()));
            behind.any(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        let mut unneeded = self.options.cdi_specs.own_specs();
        unneeded.retain(|(_, device)| !needed.contains(device) && !is_held(device));
        let before = std::mem::take(&mut self.unneeded);
        for (path, device) in unneeded {
            let since = before.get(&path).copied().unwrap_or_else(Instant::now);
            if since.elapsed() < self.options.grace {
                self.unneeded.insert(path, since);
            } else {
                match self.options.cdi_specs.remove(&path) {
                    Ok(()) => info!(
                        "removed {}: no pod has {device}, and nothing offers it",
                        path.display()
                    ),
                    Err(error) => warn!("removing {}: {error}", path.display()),
                }
            }
        }
    }

    /// Whether it was noted that a unit's device went.
    fn has_vanished(&self, resource: &Resource, id: &str) -> bool {
        let events = self.events.as_ref();
        events.is_some_and(|events| events.has_vanished(resource.name.as_str(), id))
    }

    /// Tells of devices that went while a container has them, or are there again.
    fn tell_of_changes(&self, before: &Resource, now: &Resource, served: &Served) {
        let allocated = served.plugin.allocated();
        for (id, unit) in before.units.iter().filter(|(id, _)| allocated.contains(*id)) {
            let after = now.units.get(id);
            let is_healthy = after.is_some_and(|unit| unit.healthy);
            let change = match (unit.healthy, is_healthy) {
                (true, false) => Change::Vanished,
                (false, true) => Change::Returned,
                // One of another host is attached at first as well: that is no return.
                _ => match (unit.attached, after.and_then(|unit| unit.attached)) {
                    (Some(true), Some(false)) => Change::Vanished,
                    (Some(false), Some(true)) if self.has_vanished(now, id) => Change::Returned,
                    _ => continue,
                },
            };
            let holder = self.held.holder(now.name.as_str(), id);
            if change == Change::Vanished {
                warn!(
                    "{}: {id} ({}) went while {} has it; its pod is left alone",
                    now.name,
                    unit.place,
                    holder.unwrap_or("a container")
                );
                self.counters.add("vanished_total", now.name.as_str());
            }
            if let Some(events) = &self.events {
                events.note(now.name.as_str(), id, &unit.place, holder, change);
            }
        }
    }

    fn serve(&self, resource: Arc<Resource>) -> Served {
        let name = resource.name.clone();
        let (sender, receiver) = watch::channel(resource);
        let plugin = Arc::new(Plugin::new(
            receiver,
            self.options.cdi_specs.clone(),
            Arc::clone(&self.counters),
        ));
        let registrar = Registrar {
            name,
            plugin: Arc::clone(&plugin),
            dir: self.options.kubelet_dir.clone(),
            stirred: self.kubelet.subscribe(),
            counters: Arc::clone(&self.counters),
        };
        Served {
            resource: sender,
            plugin,
            registrar: tokio::spawn(registrar.run()),
        }
    }

    /// What is still configured but not there is told of as none: a stream that ended and came again could lose both
    /// (kubernetes#121994). What is configured no more ends once no container has anything of it, for a container that
    /// starts anew does so only while its resources are registered (kubelet's devicemanager/manager.go,
    /// callPreStartContainerIfNeeded); kubelet forgets it after its grace period of 5 minutes.
    fn withdraw(&mut self, name: &ResourceName) {
        let Some(served) = self.served.get(name) else {
            return;
        };
        let is_configured = self.names.is_given(name)
            && self.definitions.iter().any(|definition| {
                matches!(
                    definition,
                    Definition::Pattern { .. } | Definition::NvidiaGpu { .. }
                )
            });
        let before = served.resource.borrow().clone();
        let mut rest = Resource::clone(&before);
        let allocated = served.plugin.allocated();
        if is_configured {
            rest.units.clear();
            self.publish_one(rest);
        } else if !allocated.is_empty() {
            rest.retain(&allocated);
            if rest != *before {
                let count = allocated.len();
                info!("{name}: no longer configured, and kept while containers have {count} of it");
            }
            self.publish_one(rest);
        } else {
            info!("{name}: no longer configured");
            self.counters.forget(name.as_str());
            self.served.remove(name);
        }
    }
}

/// What there is now, as far as the definitions look at it.
///
/// # Errors
/// When sysfs can't be listed.
pub fn look(definitions: &[Definition], monitor: &DeviceMonitor, state_dir: &Path) -> Result<Snapshot> {
    let (devices, paths) = config::looks_at(definitions);
    let holdings = records::holdings(state_dir);
    let mut snapshot = Snapshot::default();
    if devices || !holdings.is_empty() {
        snapshot
            .inventory
            .replace(monitor.enumerate().context("listing the host's devices")?);
    }
    if paths {
        snapshot.paths = snapshot::paths_below_dev();
    }
    snapshot.paths.extend(outside(definitions));
    for definition in definitions {
        match definition {
            // It may lie outside /dev, or deeper than is walked.
            Definition::Path { path, .. } => snapshot.look_at(path),
            Definition::Remote { entries, .. } => {
                let extras = entries.iter().flat_map(|entry| &entry.extras);
                extras.for_each(|extra| snapshot.look_at(&extra.host));
            }
            Definition::NvidiaGpu { .. } => snapshot.gpus = snapshot::gpus(),
            _ => {}
        }
    }
    snapshot.tell_apart(&holdings);
    let is_requested = |definition: &Definition| matches!(definition, Definition::Requested(_));
    if definitions.iter().any(is_requested) {
        snapshot.find_peers();
    }
    Ok(snapshot)
}

/// The paths outside /dev that groups name, and are there.
fn outside(definitions: &[Definition]) -> BTreeMap<PathBuf, Found> {
    let mut found = BTreeMap::new();
    for definition in definitions {
        if let Definition::Groups { groups, .. } = definition {
            let patterns = config::patterns(groups);
            for pattern in patterns.filter(|pattern| !pattern.is_below(Path::new(snapshot::DEV))) {
                found.extend(snapshot::glob(pattern));
            }
        }
    }
    found
}

/// The single paths outside /dev that hostdev's list names. (The monitor watches those in /dev.)
fn paths_outside_dev(definitions: &[Definition]) -> impl Iterator<Item = &PathBuf> {
    let paths = definitions.iter().filter_map(|definition| match definition {
        Definition::Path { path, .. } => Some(path),
        _ => None,
    });
    paths.filter(|path| !path.starts_with(snapshot::DEV))
}

/// Whether groups name any.
fn has_outside(definitions: &[Definition]) -> bool {
    definitions.iter().any(|definition| {
        let Definition::Groups { groups, .. } = definition else {
            return false;
        };
        config::patterns(groups).any(|pattern| !pattern.is_below(Path::new(snapshot::DEV)))
    })
}

/// Listens on `ADDRESS:PORT`; `:PORT` is all addresses, as in Go.
async fn listen(address: &str) -> std::io::Result<TcpListener> {
    match address.strip_prefix(':') {
        // Where the kernel has no IPv6, IPv4 is all.
        Some(port) => match TcpListener::bind(format!("[::]:{port}")).await {
            Ok(listener) => Ok(listener),
            Err(_) => TcpListener::bind(format!("0.0.0.0:{port}")).await,
        },
        None => TcpListener::bind(address).await,
    }
}

/// Starts to tell the API server what is noted in what is returned, if that is wanted.
///
/// # Errors
/// When kubelet is not to be asked who has what: then there is nobody to tell of.
fn report_events(
    options: &Options,
    counters: &Arc<Counters>,
    helpers: &mut JoinSet<()>,
) -> Result<Option<Arc<Events>>> {
    let Some(server) = options.events.clone() else {
        return Ok(None);
    };
    let Some(pod_resources) = options.pod_resources.clone() else {
        bail!("--events tells of pods, which kubelet's pod-resources names: give --pod-resources its socket");
    };
    let events = Arc::new(Events::new(Arc::clone(counters)));
    let reporter = Reporter {
        events: Arc::clone(&events),
        server,
        pod_resources,
        kubelet_dir: options.kubelet_dir.clone(),
        node: std::fs::read_to_string("/proc/sys/kernel/hostname")?
            .trim()
            .to_owned(),
    };
    helpers.spawn(reporter.run());
    Ok(Some(events))
}

async fn serve_status(listener: TcpListener, counters: Arc<Counters>) {
    let served: std::io::Result<Infallible> =
        grpc::serve_http(listener, move |request| status::answer(&counters, &request)).await;
    let Err(error) = served;
    warn!("serving /metrics: {error}");
}

/// Ticks for whatever happens in kubelet's directory, and now and then.
async fn watch_kubelet(dir: PathBuf, stirred: watch::Sender<u64>) {
    let mut directory = DirectoryWatch::new(&dir);
    loop {
        directory.changed(LOOK_ANYWAY).await;
        stirred.send_modify(|ticks| *ticks += 1);
    }
}

/// Copies of the monitor's descriptors: the monitor itself stays free to be drained.
fn wakers(monitor: &DeviceMonitor) -> Result<Vec<AsyncFd<OwnedFd>>> {
    let copies = monitor.fds().map(|fd| readiness::of(fd.try_clone_to_owned()?));
    copies
        .collect::<std::io::Result<_>>()
        .context("waiting for the host's devices")
}

/// Waits until one is readable. Its readiness is taken: who waits reads all there is.
async fn any_readable(wakers: &[AsyncFd<OwnedFd>]) {
    std::future::poll_fn(|context| {
        let mut woken = false;
        for waker in wakers {
            while let std::task::Poll::Ready(ready) = waker.poll_read_ready(context) {
                woken = true;
                match ready {
                    Ok(mut guard) => guard.clear_ready(),
                    Err(_) => break,
                }
            }
        }
        if woken {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}

/// Events that have not been acted on yet.
#[derive(Debug, Clone, Copy)]
struct Burst {
    first: Instant,
    last: Instant,
}

impl Burst {
    /// One more.
    fn extend(burst: &mut Option<Self>) {
        let now = Instant::now();
        let first = burst.map_or(now, |burst| burst.first);
        *burst = Some(Self { first, last: now });
    }

    /// Waits until it is over; for ever, if there is none.
    async fn over(burst: Option<Self>) {
        match burst {
            Some(burst) => sleep_until((burst.last + QUIET).min(burst.first + LONGEST_BURST)).await,
            None => std::future::pending().await,
        }
    }
}

/// The directories of files: a ConfigMap's files change by a link beside them, and a node that somebody made outside /dev
/// has no other event.
struct FileWatch(Vec<DirectoryWatch>);

impl FileWatch {
    fn of<'a>(files: impl Iterator<Item = &'a PathBuf>) -> Self {
        let directory = |file: &'a PathBuf| match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let directories: BTreeSet<&Path> = files.map(directory).collect();
        Self(directories.into_iter().map(DirectoryWatch::new).collect())
    }

    async fn changed(&mut self) {
        let mut changes: Vec<_> = self
            .0
            .iter_mut()
            .map(|directory| Box::pin(directory.changed(LOOK_ANYWAY)))
            .collect();
        std::future::poll_fn(|context| {
            let mut polls = changes.iter_mut().map(|change| change.as_mut().poll(context));
            match polls.any(|poll| poll.is_ready()) {
                true => std::task::Poll::Ready(()),
                false => std::task::Poll::Pending,
            }
        })
        .await;
    }
}
