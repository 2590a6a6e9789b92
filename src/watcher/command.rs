//! The command `oci-hotplug-watcher`.

use std::process::ExitCode;

use lexopt::{Parser, ValueExt};

use super::detach::detach;
use super::error::WatcherError;
use super::run::{Beginning, run};
use super::{Ending, Settings, systemd_unit};
use crate::command_line::{self, CommonOptions, OwnArgument, Program};
use crate::exit;
use crate::host::config::{Config, ConfigError};
use crate::host::log::{self, WATCHER};
use crate::host::state::error::RegistryError;
use crate::host::state::registry::Registry;
use crate::host::systemd;
use crate::model::oci::ContainerId;
use crate::model::policy::{Denial, Policy};
use crate::sys::memory::keep_free_heap;

pub(crate) const PROGRAM: Program = Program {
    name: WATCHER,
    help: "\
oci-hotplug-watcher: attaches and detaches the devices that a container requests, while the container runs

oci-hotplug-prestart starts one watcher for each container. The requests are in the container's record.

Usage: oci-hotplug-watcher [--config FILE] [--state-dir DIR] [--take-over] CONTAINER

  --config FILE      the configuration [/etc/oci-hotplug/config.toml, or $OCI_HOTPLUG_CONFIG]
  --state-dir DIR    the state directory [/run/oci-hotplug, or $OCI_HOTPLUG_STATE_DIR;
                     of a rootless engine /run/user/UID/oci-hotplug]
  --handed-over      standard input is the container's lock; the response goes to standard output
  --take-over        replace the watcher that runs, if there is one, and use the configuration of the container's
                     hook; nothing changes in the container
  -h, --help         this text
  -V, --version      the version

It stays in the foreground, and ends with the container, or on SIGTERM (then devices stay as they are, for the
next watcher). On SIGHUP it reads the configuration again: a stricter policy detaches devices.

Where systemd runs the host, and has the unit oci-hotplug-watcher@.service, the unit's watcher takes over from the one
that the hook started, and systemd restarts it (for a rootless engine, the user's systemd manager). Elsewhere
`oci-hotplug recover` starts missing watchers.

Exit codes: 0 the container has ended, or the watcher was stopped or replaced; 1 failed; 2 usage, or a record or
configuration that cannot be read (a restart would not change that).
",
};

#[derive(Debug, Default)]
struct Options {
    common: CommonOptions,
    handed_over: bool,
    take_over: bool,
    container: Option<String>,
}

impl Options {
    fn read() -> Result<Self, ExitCode> {
        let mut options = Self::default();
        let take = |argument: OwnArgument, _: &mut Parser| {
            match argument {
                OwnArgument::Option(name) if name == "handed-over" => options.handed_over = true,
                OwnArgument::Option(name) if name == "take-over" => options.take_over = true,
                OwnArgument::Value(id) if options.container.is_none() => {
                    options.container = Some(id.string()?);
                }
                other => return Err(other.unexpected()),
            }
            Ok(())
        };
        options.common = command_line::read(&PROGRAM, take)?;
        Ok(options)
    }
}

pub fn watcher() -> ExitCode {
    keep_free_heap();
    let options = match Options::read() {
        Ok(options) => options,
        Err(code) => return code,
    };
    let id = match options.container.as_deref().map(str::parse::<ContainerId>) {
        Some(Ok(id)) => id,
        Some(Err(error)) => return wrong(&error.to_string()),
        None => return command_line::usage_error(&PROGRAM, "no container is given: name its id"),
    };
    let handed_over = match detach(options.handed_over) {
        Ok(handed_over) => handed_over,
        Err(error) => {
            return wrong(&format!(
                "cannot become independent of the parent process: {error}"
            ));
        }
    };
    let config = match configuration(&options, &id) {
        Ok(config) => config,
        Err(error) => return wrong(&error.to_string()),
    };
    log::start(
        WATCHER,
        config.log_level.filter(),
        &config.state_dir,
        !options.handed_over && !options.take_over,
    );
    let registry = Registry::new(&config.state_dir);
    let policy = config.usable_policy();
    // A container that is handed over has no current watcher, and each plan checks this, too.
    let checked = match options.handed_over {
        true => Ok(()),
        false => check_known(&policy, &registry, &id),
    };
    if let Err(error) = checked {
        tracing::error!(container = %id, "{error}");
        return ExitCode::from(exit::USAGE);
    }
    let beginning = match handed_over {
        Some(given) => Beginning::HandedOver(given),
        None if options.take_over => Beginning::TakeOver,
        None => Beginning::Alone,
    };
    let outcome = run(&registry, &id, beginning, settings(&config, policy));
    exit_code(outcome, &id, options.take_over)
}

fn settings(config: &Config, policy: Policy) -> Settings {
    Settings {
        policy,
        config: config.named.clone(),
        // The response must arrive before the hook stops waiting for it.
        ready_timeout: config.prestart_timeout.mul_f32(0.8),
        manager: systemd_unit::manager(config),
    }
}

fn exit_code(outcome: Result<Ending, WatcherError>, id: &ContainerId, take_over: bool) -> ExitCode {
    if matches!(outcome, Ok(_) | Err(WatcherError::NotEnrolled(..))) {
        // Without this, systemd would count the watcher as failed and start it again and again.
        systemd::notify("READY=1");
    }
    match outcome {
        Ok(ending) => {
            tracing::debug!(container = %id, "the watcher ends: {ending}");
            ExitCode::from(u8::from(ending == Ending::Refused))
        }
        // The container ended while the watcher was being started.
        Err(WatcherError::NotEnrolled(..)) if take_over => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(container = %id, "{error}");
            use RegistryError::{Malformed, MalformedLine, TooNew};
            let unreadable = matches!(
                error,
                WatcherError::Registry(Malformed { .. } | MalformedLine { .. } | TooNew { .. })
            );
            ExitCode::from(if unreadable { exit::USAGE } else { exit::FAILED })
        }
    }
}

/// The configuration of the command line; for a watcher that takes over, the one in the container's
/// record.
fn configuration(options: &Options, id: &ContainerId) -> Result<Config, ConfigError> {
    let config = Config::load(
        options.common.config.as_deref(),
        options.common.state_dir.as_deref(),
    )?;
    if !options.take_over || options.common.config.is_some() {
        return Ok(config);
    }
    // An error in the record is reported when the record is needed.
    match Registry::new(&config.state_dir)
        .record(id)
        .ok()
        .flatten()
        .and_then(|record| record.config)
    {
        Some(named) => Config::load(Some(&named), Some(&config.state_dir)),
        None => Ok(config),
    }
}

/// Checks that all rules are known that may concern the container.
///
/// # Errors
/// When they are not: a watcher would then detach its devices, whereas the current one can continue
/// until the configuration is fixed. An error in the record is reported when the record is needed.
fn check_known(policy: &Policy, registry: &Registry, id: &ContainerId) -> Result<(), Denial> {
    let record = registry.record(id).ok().flatten();
    let mut entry = record.iter().flat_map(|record| &record.requests);
    match entry.find_map(|entry| policy.denied_as_unknown(entry)) {
        Some(denial) => Err(denial),
        None => Ok(()),
    }
}

fn wrong(message: &str) -> ExitCode {
    log::print_to_stderr(&format!("{WATCHER}: {message}"));
    ExitCode::from(exit::USAGE)
}
