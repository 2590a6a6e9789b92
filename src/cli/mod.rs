//! `oci-hotplug`, the operator's tool: one file per verb. Asks watchers and reads records; changes nothing itself.

mod cdi;
mod demo;
mod docs;
mod follow;
mod inspect;
mod list;
mod matching;
mod table;
mod tree;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

use crate::cdi::generate::GenerateError;
use crate::cdi::names::NameError;
use crate::exit;
use crate::host::config::Config;
use crate::host::control::{self, Answer, Question, Status};
use crate::host::engine_names;
use crate::host::registry::{Record, Registry};
use crate::model::annotations::AskError;
use crate::model::engine::{self, Engine};
use crate::model::oci::ContainerId;

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
        /// The request, as in the annotation io.oci-hotplug.devices.
        #[arg(value_name = "REQUEST")]
        request: String,
        /// Go on, and tell what comes and goes, until interrupted.
        #[arg(long)]
        watch: bool,
    },
    /// The host's devices as a tree, and which container holds each.
    Tree(tree::Options),
    /// Devices of the Container Device Interface (CDI): write, list, validate, resolve.
    Cdi(cdi::Cdi),
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
    let outcome = Config::load(
        command.common.config.as_deref(),
        command.common.state_dir.as_deref(),
    )
    .map_err(anyhow::Error::from)
    .and_then(|config| {
        let registry = Registry::new(&config.state_dir);
        match command.verb {
            Verb::List => list::run(&registry, command.common.json),
            Verb::Inspect { id } => inspect::run(&registry, &id, command.common.json),
            Verb::Match { request, watch } => {
                matching::run(&request, &config.classes()?, watch, command.common.json)
            }
            Verb::Tree(options) => tree::run(&registry, options, command.common.json),
            Verb::Cdi(arguments) => cdi::run(&arguments, &config, command.common.json),
            Verb::GenerateDocs { dir } => docs::run(&dir),
            Verb::Demo => demo::run(),
        }
    });
    match outcome {
        Ok(()) => ExitCode::from(exit::DONE),
        // Whoever reads has read enough (`oci-hotplug list | head`).
        Err(error) if is_broken_pipe(&error) => ExitCode::from(exit::DONE),
        Err(error) => {
            eprintln!("oci-hotplug: {error:#}");
            let malformed = error.is::<AskError>()
                || error.is::<NameError>()
                || matches!(error.downcast_ref(), Some(GenerateError::Name(_)));
            ExitCode::from(if malformed { exit::USAGE } else { exit::FAILED })
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// One enrolled container: its record, and its watcher's word, if it has one.
struct Enrolled {
    id: ContainerId,
    record: Option<Record>,
    status: Option<Status>,
}

fn engine_of(record: &Record) -> Option<Engine> {
    engine::engine(&record.container.bundle, &record.circumstances.annotations)
}

fn name_of(record: &Record) -> Option<String> {
    engine::name(&record.circumstances.annotations)
        .or_else(|| engine_names::name(engine_of(record)?, &record.container))
}

/// How long a watcher may take to say how it goes.
const STATUS_PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

impl Enrolled {
    fn read(registry: &Registry, id: ContainerId) -> Self {
        let status = match control::ask(&registry.container_dir(&id), &Question::Status, STATUS_PATIENCE) {
            Ok(Answer::Status(status)) => Some(*status),
            _ => None,
        };
        let record = registry.record(&id).ok().flatten();
        Self { id, record, status }
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
        let ids = registry.ids()?;
        let is_named = |known: &&ContainerId| {
            let record = registry.record(known).ok().flatten();
            record.is_some_and(|record| name_of(&record).is_some_and(|name| name == id))
        };
        let mut named = ids.iter().filter(is_named);
        let exact = ids
            .iter()
            .find(|known| known.as_str() == id)
            .or_else(|| named.next().filter(|_| named.next().is_none()))
            .cloned();
        let mut starting: Vec<ContainerId> = ids
            .into_iter()
            .filter(|known| !id.is_empty() && known.as_str().starts_with(id))
            .collect();
        match (exact, starting.len()) {
            (Some(id), _) => Ok(Self::read(registry, id)),
            (None, 1) => Ok(Self::read(registry, starting.remove(0))),
            (None, 0) => bail!("no container {id:?} is known here (`oci-hotplug list` shows those that are)"),
            (None, _) => {
                let names: Vec<&str> = starting.iter().map(ContainerId::as_str).collect();
                bail!(
                    "{id:?} begins the ids of several containers: {} (give more of it)",
                    names.join(", ")
                )
            }
        }
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
        let id = self.id.as_str();
        if id.len() == 64 { &id[..12] } else { id }
    }

    /// Its name; where it has none, its id.
    fn called(&self) -> String {
        self.name().unwrap_or_else(|| self.short_id().to_owned())
    }

    /// One word for how it goes.
    fn health(&self) -> &'static str {
        match &self.status {
            Some(status) if status.problems.is_empty() => "ok",
            Some(_) => "problems",
            None => "no watcher",
        }
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
