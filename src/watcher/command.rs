//! The watcher as a command.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::prelude::*;

use super::detach::detach;
use super::run::{Ending, Settings, run};
use crate::exit;
use crate::host::config::Config;
use crate::host::log;
use crate::host::registry::Registry;
use crate::model::oci::ContainerId;

const WATCHER: &str = "oci-hotplug-watcher";

pub(crate) const HELP: &str = "\
oci-hotplug-watcher: brings the devices that a container asks for in and out of it, as long as it lives

oci-hotplug-prestart starts it; there is one for each container. Its requests are in the container's record.

Usage: oci-hotplug-watcher [--config FILE] [--state-dir DIR] CONTAINER

  --config FILE      the configuration [/etc/oci-hotplug/config.toml, or $OCI_HOTPLUG_CONFIG]
  --state-dir DIR    where the state lives [/run/oci-hotplug, or $OCI_HOTPLUG_STATE_DIR]
  --handed-over      standard input is the container's lock, standard output takes the word that all is ready
  -h, --help         this text
  -V, --version      the version

It stays in the foreground, and ends with the container, or on SIGTERM (then devices stay as they are, for the
watcher that comes next). On SIGHUP it reads the configuration again: a policy that has become stricter takes
devices away.
";

#[derive(Debug, Default)]
struct Options {
    config: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    handed_over: bool,
    container: Option<String>,
}

/// `oci-hotplug-watcher`.
pub fn watcher() -> ExitCode {
    let options = match parse() {
        Ok(Ok(options)) => options,
        Ok(Err(text)) => {
            let shown = io::stdout().write_all(text.as_bytes());
            return ExitCode::from(if shown.is_ok() { exit::DONE } else { exit::FAILED });
        }
        Err(error) => return wrong(&format!("{error} (--help shows the usage)")),
    };
    let id = match options.container.as_deref().map(str::parse::<ContainerId>) {
        Some(Ok(id)) => id,
        Some(Err(error)) => return wrong(&error.to_string()),
        None => return wrong("which container? (--help shows the usage)"),
    };
    let handed_over = match detach(options.handed_over) {
        Ok(handed_over) => handed_over,
        Err(error) => return wrong(&format!("leaving the starter behind: {error}")),
    };
    let config = match Config::load(options.config.as_deref(), options.state_dir.as_deref()) {
        Ok(config) => config,
        Err(error) => return wrong(&error.to_string()),
    };
    log::start(
        WATCHER,
        config.log_level.filter(),
        &config.state_dir,
        !options.handed_over,
    );
    let settings = match config.policy() {
        Ok(policy) => Settings {
            policy,
            config: config.named.clone(),
            // Our answer is to arrive before the hook stops waiting for it.
            ready_patience: config.prestart_timeout.mul_f32(0.8),
        },
        Err(error) => {
            tracing::error!(container = %id, "{error}");
            return ExitCode::FAILURE;
        }
    };
    match run(&Registry::new(&config.state_dir), &id, handed_over, settings) {
        Ok(ending) => {
            tracing::debug!(container = %id, "the watcher ends: {ending:?}");
            ExitCode::from(u8::from(ending == Ending::Refused))
        }
        Err(error) => {
            tracing::error!(container = %id, "{error}");
            ExitCode::FAILURE
        }
    }
}

fn wrong(message: &str) -> ExitCode {
    log::tell(&format!("{WATCHER}: {message}"));
    ExitCode::from(exit::USAGE)
}

fn parse() -> Result<Result<Options, String>, lexopt::Error> {
    let mut options = Options::default();
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("config") => options.config = Some(parser.value()?.into()),
            Long("state-dir") => options.state_dir = Some(parser.value()?.into()),
            Long("handed-over") => options.handed_over = true,
            Short('h') | Long("help") => return Ok(Err(HELP.to_owned())),
            Short('V') | Long("version") => {
                return Ok(Err(format!("{WATCHER} {}\n", env!("CARGO_PKG_VERSION"))));
            }
            Value(id) if options.container.is_none() => options.container = Some(id.string()?),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Ok(options))
}
