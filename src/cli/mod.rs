//! `oci-hotplug`, the operator's tool: one file per verb. Requests watchers and reads records; changes nothing inside a
//! container itself. `attach` enrolls one that nobody watches, `recover` sweeps what is left of others; both start watchers.

mod allow;
mod attach;
mod bash_completion;
mod cdi;
mod check;
mod class;
mod demo;
mod docs;
mod drop_in;
mod events;
#[cfg(test)]
mod examples;
mod explain;
mod follow;
mod inspect;
mod install;
mod list;
mod matching;
mod metrics;
mod placed;
mod recover;
mod reload;
mod table;
mod tree;
mod unwatched;
mod usbip;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

use crate::cdi::generate::GenerateError;
use crate::cdi::names::NameError;
use crate::exit;
use crate::host::config::Config;
use crate::host::engine_names;
use crate::host::state::control::{self, ControlRequest, ControlResponse, Status};
use crate::host::state::registry::{Record, Registry};
use crate::host::systemd;
use crate::model::oci::ContainerId;
use crate::model::oci::engine::{self, Engine};
use crate::model::quoting::{visible, visible_lines};
use crate::model::request::annotations::AskError;

/// Device hotplug for running OCI containers.
///
/// Containers ask for devices by the annotation io.oci-hotplug.devices; the hooks oci-hotplug-prestart and
/// oci-hotplug-poststop, started by the OCI runtime, give each of them a watcher. This tool shows what they do.
#[derive(Debug, Parser)]
#[command(name = "oci-hotplug", version, max_term_width = 110)]
pub struct Command {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    common: Common,
}

/// What all verbs know.
#[derive(Debug, clap::Args)]
struct Common {
    /// Print JSON, for programs.
    #[arg(long, global = true)]
    json: bool,
    /// The configuration [default: /etc/oci-hotplug/config.toml, or $OCI_HOTPLUG_CONFIG].
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the state lives [default: /run/oci-hotplug, or $OCI_HOTPLUG_STATE_DIR].
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// The containers that have a watcher, what they ask for, and what is inside.
    List,
    /// All that is known of one container.
    Inspect {
        /// The container's id, the beginning of it, or its name.
        #[arg(value_name = "ID")]
        id: String,
    },
    /// What a request would select now, and the nodes a container would get.
    ///
    /// Examples: oci-hotplug match usb:0403:6001; oci-hotplug match 'subsystem:tty&driver:ftdi_sio';
    /// oci-hotplug match 'glob:/dev/ttyUSB*'.
    Match {
        /// The request, as in the annotation io.oci-hotplug.devices, or a path such as /dev/ttyUSB0.
        #[arg(value_name = "REQUEST")]
        request: String,
        /// Go on, and tell what comes and goes, until interrupted.
        #[arg(long)]
        watch: bool,
    },
    /// The host's devices as a tree, and which container holds each.
    Tree(tree::Options),
    /// Start the watchers of running containers that have none, and clear away what is left of containers that are gone.
    ///
    /// Where systemd runs the host it starts them itself; elsewhere let cron or any supervisor run this, say each minute.
    /// The exit code is 1 when a container is left that could not be dealt with; the others are, all the same.
    Recover {
        /// Also replace the watchers that run, by the version that is installed now. No container notices.
        #[arg(long)]
        restart_watchers: bool,
    },
    /// Give a running container devices, at once and until it stops or restarts.
    ///
    /// The container's record keeps the request: devices come and go as if it had been made at the start. A restart of the
    /// container (podman restart) begins again with the requests of its annotations and hooks. A container that was started
    /// without oci-hotplug gets a watcher. For a rootless container, run this as root with --pid and the host's process id
    /// of a process in it.
    ///
    /// Examples: oci-hotplug attach lab usb:0403:6001; oci-hotplug attach 3f2a 'usb:0403:6001;link=/dev/board' class:probes;
    /// oci-hotplug attach lab vendor.com/gpu=0; oci-hotplug attach --pid 4711 devnode:/dev/ttyACM0.
    Attach(attach::Attach),
    /// Take requests back from a running container, and with them the devices that nothing else asks for.
    ///
    /// Nodes of the engine or the image stay. A selector is enough where it names one request only.
    ///
    /// Examples: oci-hotplug detach lab usb:0403:6001; oci-hotplug detach lab class:probes vendor.com/gpu=0.
    Detach(attach::Detach),
    /// Why a device is, or is not, in a container, rule by rule, with the hint.
    ///
    /// Examples: oci-hotplug explain lab /dev/ttyUSB0; oci-hotplug explain 3f2a /dev/serial/by-id/usb-FTDI_Board-if00;
    /// oci-hotplug explain lab /sys/bus/usb/devices/1-1.4.
    Explain {
        /// The container's id, the beginning of it, or its name.
        #[arg(value_name = "ID")]
        id: String,
        /// The device: its node or a link to it, as the container or the host has it, or its path in sysfs.
        #[arg(value_name = "DEVICE")]
        device: PathBuf,
    },
    /// Allow containers to request these devices: writes a rule of the policy and reloads the watchers.
    ///
    /// The rule becomes a file in config.d beside the configuration. It is checked together with the whole configuration
    /// before it takes effect. Running containers that already requested a device get it at once.
    ///
    /// Examples: oci-hotplug allow usb:0627:0001; oci-hotplug allow 'subsystem:tty&usb:0403' --access rw;
    /// oci-hotplug allow --list; oci-hotplug allow --remove usb:0627:0001.
    Allow(allow::Allow),
    /// Define classes: requests that root writes and that containers request by name (class:NAME).
    Class(class::Class),
    /// Make all watchers read the configuration again.
    ///
    /// A stricter policy detaches devices, a wider one attaches them. A configuration with an error changes nothing: the
    /// watcher keeps its policy. Exits with 1 if a watcher could not reload.
    Reload,
    /// What was attached, detached, refused and failed, per container, and which containers were not started.
    ///
    /// From the journal where there is one, where journalctl finds the same by the fields OCI_HOTPLUG_CONTAINER=,
    /// OCI_HOTPLUG_EVENT= (attached, detached, refused, waiting, shared, failed, restored, overrun, no-start), OCI_HOTPLUG_DEVICE= and
    /// OCI_HOTPLUG_NODE=; else from oci-hotplug.log in the state directory, whose lines end in container="…" event="…"
    /// device="…" node="…". With --json one object a line: time (UTC), container, event, device, node, message.
    ///
    /// Examples: oci-hotplug events --since 15m; oci-hotplug events --follow --container lab.
    Events(events::Options),
    /// Whether this host is ready: kernel, cgroups, udevd, configuration, hooks, CDI, engines, runtimes, leftovers.
    ///
    /// Each line says ok, warn or fail, what was seen, and in brackets what to do. Only what is installed is judged.
    /// Nothing is changed. The exit code is 0 when nothing failed, and 1 otherwise.
    ///
    /// Examples: oci-hotplug check; oci-hotplug check --json | jq '.findings[] | select(.verdict != "ok")'.
    Check(check::Options),
    /// What the watchers have counted, for Prometheus.
    ///
    /// Attachments, grants, refusals, failures, lost events, how long events took, watchers that began and died; for each
    /// container, under its id. To be scraped by node_exporter's textfile collector: the units
    /// oci-hotplug-metrics.timer and .service write the file each half minute, once they are enabled.
    ///
    /// Examples: oci-hotplug metrics; oci-hotplug metrics --textfile /var/lib/prometheus/node-exporter/oci-hotplug.prom.
    Metrics(metrics::Options),
    /// Devices of the Container Device Interface (CDI): write, list, validate, resolve.
    Cdi(cdi::Cdi),
    /// USB devices of other hosts (USB/IP): list, attach, detach; containers get them as any other device.
    Usbip(usbip::Usbip),
    /// Put the programs beside this one on a host: what packaging/install.sh does, for an image without a shell.
    ///
    /// Hooks, watcher and this tool; the CDI device "annotated"; the units of watchers; the hooks' JSON. What is there as
    /// it should be stays untouched, and what changes is put in place by rename: watchers that run go on with their
    /// version (`oci-hotplug recover --restart-watchers` moves them). That the programs run on this host is tried before
    /// any engine starts them.
    ///
    /// Example, in an init container: oci-hotplug install --to /host.
    Install(install::Options),
    /// Write the man pages and completions of this program into a directory.
    #[command(hide = true)]
    GenerateDocs {
        /// The directory.
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
    /// Show hotplug at work: a container under runc, and a disk partition that comes and goes.
    Demo,
}

/// Runs the tool with this process's arguments.
pub fn main() -> ExitCode {
    let command = Command::parse();
    let outcome = run(command.verb, &command.common);
    match outcome {
        Ok(code) => ExitCode::from(code),
        // Whoever reads has read enough (`oci-hotplug list | head`).
        Err(error) if is_broken_pipe(&error) => ExitCode::from(exit::DONE),
        Err(error) => {
            eprintln!("oci-hotplug: {}", visible_lines(&exit::told(error.as_ref())));
            let malformed = error.is::<AskError>()
                || error.is::<Usage>()
                || error.is::<NameError>()
                || matches!(error.downcast_ref(), Some(GenerateError::Name(_)));
            ExitCode::from(match malformed {
                true => exit::USAGE,
                false if error.is::<Refused>() => exit::REFUSED,
                false => exit::FAILED,
            })
        }
    }
}

fn run(verb: Verb, common: &Common) -> Result<u8> {
    let load = || Config::load(common.config.as_deref(), common.state_dir.as_deref());
    // A watcher says where the state is, which is all that these want: a fault that somebody makes in the configuration
    // keeps no device from being attached again, or given back.
    if let (Verb::Usbip(arguments), Some(state_dir)) = (&verb, &common.state_dir) {
        return usbip::run(arguments, state_dir, common.json).map(|()| exit::DONE);
    }
    let verb = match verb {
        // A configuration that can't be used is one of its findings.
        Verb::Check(options) => return check::run(&options, load(), common.json),
        Verb::Install(options) => return install::run(&options, common.json).map(|()| exit::DONE),
        verb => verb,
    };
    let config = match load() {
        Ok(config) => config,
        // A fault in the configuration does not hide the containers.
        Err(error) if verb.needs_only_state() => {
            let known = Config::of_state_only(common.config.as_deref(), common.state_dir.as_deref());
            let Some(config) = known else {
                bail!(
                    "{error} (--state-dir names the state directory, which is unknown until that is fixed)"
                );
            };
            warn(&error.to_string());
            config
        }
        Err(error) => return Err(error.into()),
    };
    config.broken().for_each(warn);
    let registry = Registry::new(&config.state_dir);
    match verb {
        Verb::List => list::run(&registry, common.json),
        Verb::Inspect { id } => inspect::run(&registry, &id, common.json),
        Verb::Match { request, watch } => matching::run(
            &with_kind(&request),
            &config.usable_classes(),
            &config.state_dir,
            watch,
            common.json,
        ),
        Verb::Tree(options) => tree::run(&registry, options, common.json),
        Verb::Recover { restart_watchers } => recover::run(&registry, restart_watchers, common.json),
        Verb::Attach(arguments) => attach::attach(&arguments, &config, &registry, common.json),
        Verb::Detach(arguments) => attach::detach(&arguments, &registry, common.json),
        Verb::Allow(arguments) => allow::run(&arguments, &config, &registry, common.json),
        Verb::Class(arguments) => class::run(&arguments, &config, common.json),
        Verb::Reload => reload::run(&registry, common.json),
        Verb::Explain { id, device } => explain::run(&registry, &config, &id, &device, common.json),
        Verb::Events(options) => events::run(&registry, &options, common.json),
        // Nothing of a host's configuration or state is needed for it.
        Verb::Check(_) | Verb::Install(_) => Ok(()),
        Verb::Metrics(options) => metrics::run(&registry, &options, common.json),
        Verb::Cdi(arguments) => cdi::run(&arguments, &config, common.json),
        Verb::Usbip(arguments) => usbip::run(&arguments, &config.state_dir, common.json),
        Verb::GenerateDocs { dir } => docs::run(&dir),
        Verb::Demo => demo::run(),
    }
    .map(|()| exit::DONE)
}

impl Verb {
    /// Whether it needs nothing of the configuration but the state directory.
    fn needs_only_state(&self) -> bool {
        matches!(
            self,
            Self::List
                | Self::Inspect { .. }
                | Self::Tree(_)
                | Self::Recover { .. }
                | Self::Detach(_)
                | Self::Reload
                | Self::Events(_)
                | Self::Metrics(_)
                | Self::Usbip(_)
        )
    }
}

fn warn(fault: &str) {
    eprintln!("oci-hotplug: warning: {}", visible(fault));
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// A command line that says too little.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// What the policy refuses.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

/// One enrolled container: its record, and its watcher's word, if it has one.
struct Enrolled {
    id: ContainerId,
    record: Option<Record>,
    /// Why there is no record to show.
    record_fault: Option<String>,
    status: Option<Status>,
    /// The watcher that is there and says nothing.
    silent: Option<i32>,
}

fn engine_of(record: &Record) -> Option<Engine> {
    engine::engine(&record.container.bundle, &record.circumstances.annotations)
}

fn name_of(record: &Record) -> Option<String> {
    engine::name(&record.circumstances.annotations)
        .or_else(|| engine_names::name(engine_of(record)?, &record.container))
}

/// How long a watcher may take to say how it goes.
const STATUS_PATIENCE: Duration = Duration::from_secs(2);

/// How long to pause before asking a watcher again that is just starting or ending.
const ASK_AGAIN: Duration = Duration::from_millis(5);

impl Enrolled {
    fn read(registry: &Registry, id: ContainerId) -> Self {
        let status = status(registry, &id, STATUS_PATIENCE);
        let (record, record_fault) = match registry.record(&id) {
            Ok(record) => (record, None),
            Err(error) => (None, Some(error.to_string())),
        };
        let is_silent = status.is_none() && registry.is_watched(&id);
        let silent = registry.watcher(&id).filter(|_| is_silent);
        Self {
            silent: silent.map(|watcher| watcher.pid),
            id,
            record,
            record_fault,
            status,
        }
    }

    fn all(registry: &Registry) -> Result<Vec<Self>> {
        check_access(registry)?;
        Ok(registry
            .ids()?
            .into_iter()
            .map(|id| Self::read(registry, id))
            .collect())
    }

    /// The one container whose id is, or begins with, `id`, or whose name it is.
    fn find(registry: &Registry, id: &str) -> Result<Self> {
        check_access(registry)?;
        match Self::search(registry, id)? {
            Some(found) => Ok(found),
            None => match unwatched::explanation(registry, id) {
                Some(explanation) => bail!("{explanation}"),
                None => bail!("no container {id:?} is known here (`oci-hotplug list` shows those that are)"),
            },
        }
    }

    /// As [`Enrolled::find`]; `None` when there is none.
    fn search(registry: &Registry, id: &str) -> Result<Option<Self>> {
        let names: Vec<(ContainerId, Option<String>)> = registry
            .ids()?
            .into_iter()
            .map(|known| {
                let record = registry.record(&known).ok().flatten();
                (known, record.and_then(|record| name_of(&record)))
            })
            .collect();
        Ok(find_id(&names, id)?.map(|id| Self::read(registry, id)))
    }

    /// The engine that started it, as far as its bundle tells.
    fn engine(&self) -> Option<Engine> {
        self.record.as_ref().and_then(engine_of)
    }

    /// The name that its engine gives it.
    fn name(&self) -> Option<String> {
        self.record.as_ref().and_then(name_of)
    }

    /// Its id as people know it: of an engine's 64 digits the first twelve.
    fn short_id(&self) -> &str {
        engine::short_id(self.id.as_str())
    }

    /// Its name; where it has none, its id.
    fn called(&self) -> String {
        self.name().unwrap_or_else(|| self.short_id().to_owned())
    }

    /// One word for how it goes.
    fn health(&self) -> &'static str {
        match &self.status {
            Some(status) if status.problems.is_empty() => "ok",
            Some(status) if status.problems.iter().all(|problem| problem.waiting) => "waiting",
            Some(_) => "problems",
            None if self.silent.is_some() => "no answer",
            None if self.record_fault.is_some() => "unreadable",
            None => "no watcher",
        }
    }
}

/// A watcher's own words; nothing when there is none, or when it does not answer in time.
fn status(registry: &Registry, id: &ContainerId, patience: Duration) -> Option<Status> {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).max(ASK_AGAIN);
        match control::ask(&registry.container_dir(id), &ControlRequest::Status, left) {
            Ok(ControlResponse::Status(status)) => return Some(*status),
            // It has just been started, or makes room for the next.
            Err(error) if error.is_ended() && left > ASK_AGAIN && registry.is_watched(id) => {
                std::thread::sleep(ASK_AGAIN);
            }
            _ => return None,
        }
    }
}

/// The unit of systemd's that looks after a watcher.
fn unit_of(status: &Status) -> Option<String> {
    let cgroups = std::fs::read_to_string(format!("/proc/{}/cgroup", status.watcher)).ok()?;
    systemd::unit_in(&cgroups).map(str::to_owned)
}

/// The one id of these that is `text`, or whose name that is, or that begins with it; `None` when there is none.
///
/// # Errors
/// When several ids begin with it.
fn find_id(all: &[(ContainerId, Option<String>)], text: &str) -> Result<Option<ContainerId>> {
    let mut named = all.iter().filter(|(_, name)| name.as_deref() == Some(text));
    let exact = all
        .iter()
        .find(|(id, _)| id.as_str() == text)
        .or_else(|| named.next().filter(|_| named.next().is_none()));
    if let Some((id, _)) = exact {
        return Ok(Some(id.clone()));
    }
    let starting: Vec<&str> = all
        .iter()
        .map(|(id, _)| id.as_str())
        .filter(|id| !text.is_empty() && id.starts_with(text))
        .collect();
    match starting[..] {
        [] => Ok(None),
        [id] => Ok(Some(id.parse()?)),
        _ => bail!(
            "{text:?} begins the ids of several containers: {} (give more of it)",
            starting.join(", ")
        ),
    }
}

/// The state directory lets only root in: says so before a listing looks empty.
fn check_access(registry: &Registry) -> Result<()> {
    match std::fs::read_dir(registry.root()) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            Err(error).with_context(|| format!("reading {} (run this as root)", registry.root().display()))
        }
        _ => Ok(registry.check()?),
    }
}

/// A word of the command line that is a path below /dev, as the request for it; others as they are.
fn with_kind(word: &str) -> String {
    if word.starts_with("/dev/") {
        format!("devnode:{word}")
    } else {
        word.to_owned()
    }
}
