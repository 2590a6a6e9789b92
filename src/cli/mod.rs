//! `oci-hotplug`, the operator's tool: one file per verb. The verbs send requests to watchers
//! (`client`) and read records (`enrolled`); only watchers change anything inside a container.
//! `attach` enrolls a container that has no watcher, and `recover` removes the records of
//! containers that have ended; both start watchers.

mod allow;
mod args;
mod attach;
mod cdi;
mod check;
mod class;
mod client;
mod complete;
mod demo;
mod docs;
mod drop_in;
mod engine_name;
mod enrolled;
mod error;
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
#[cfg(test)]
mod names;
mod nodes_of_request;
mod not_enrolled;
#[cfg(test)]
mod pictures;
mod recover;
mod reload;
mod render;
mod request_word;
mod tree;
mod usbip;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;

use self::args::{Command, Common, Verb};
use self::error::warn;
use self::request_word::request_text;
use crate::exit;
use crate::host::config::{Config, ConfigError};
use crate::host::state::registry::Registry;

/// Runs the tool with this process's arguments.
pub fn main() -> ExitCode {
    let command = Command::parse();
    let outcome = run(command.verb, &command.common);
    ExitCode::from(outcome.unwrap_or_else(|error| error::report(&error)))
}

fn run(verb: Verb, common: &Common) -> Result<u8> {
    let json = common.json;
    let registry = || registry(common);
    let configured = || configured(common);
    match verb {
        // A configuration that cannot be used is a finding of the check.
        Verb::Check(options) => return check::run(&options, load(common), json),
        Verb::List => list::run(&registry()?, json),
        Verb::Inspect { id } => inspect::run(&registry()?, &id, json),
        Verb::Match { request, watch } => {
            let (config, _) = configured()?;
            let classes = config.usable_classes();
            matching::run(&request_text(&request), &classes, &config.state_dir, watch, json)
        }
        Verb::Tree(options) => tree::run(&registry()?, options, json),
        Verb::Recover { restart_watchers } => recover::run(&registry()?, restart_watchers, json),
        Verb::Attach(arguments) => {
            let (config, registry) = configured()?;
            attach::attach(&arguments, &config, &registry, json)
        }
        Verb::Detach(arguments) => attach::detach(&arguments, &registry()?, json),
        Verb::Allow(arguments) => {
            let (config, registry) = configured()?;
            allow::run(&arguments, &config, &registry, json)
        }
        Verb::Class(arguments) => class::run(&arguments, &configured()?.0, json),
        Verb::Reload => reload::run(&registry()?, json),
        Verb::Explain { id, device } => {
            let (config, registry) = configured()?;
            explain::run(&registry, &config, &id, &device, json)
        }
        Verb::Events(options) => events::run(&registry()?, &options, json),
        Verb::Install(options) => install::run(&options, docs::run, json),
        Verb::Metrics(options) => metrics::run(&registry()?, &options, json),
        Verb::Cdi(arguments) => cdi::run(&arguments, &configured()?.0, json),
        Verb::Usbip(arguments) => usbip::run(&arguments, registry()?.root(), json),
        Verb::GenerateDocs { dir } => docs::run(&dir),
        Verb::Complete { words } => {
            let config = load(common).ok();
            complete::run(&words, &complete::HostNames { config })
        }
        Verb::Demo => demo::run(),
    }
    .map(|()| exit::DONE)
}

fn load(common: &Common) -> Result<Config, ConfigError> {
    Config::load(common.config.as_deref(), common.state_dir.as_deref())
}

/// What verbs use that need the policy or the classes.
fn configured(common: &Common) -> Result<(Config, Registry)> {
    let config = load(common)?;
    config.broken().for_each(|fault| warn(&fault));
    let registry = Registry::new(&config.state_dir);
    Ok((config, registry))
}

/// The containers of the state directory. An error in the configuration does not hide them.
fn registry(common: &Common) -> Result<Registry> {
    let config = match load(common) {
        Ok(config) => config,
        Err(error) => {
            let state_only = Config::of_state_only(common.config.as_deref(), common.state_dir.as_deref());
            let Some(config) = state_only else {
                bail!(
                    "{error} (--state-dir names the state directory, which is unknown until that is fixed)"
                );
            };
            warn(&error.to_string());
            config
        }
    };
    config.broken().for_each(|fault| warn(&fault));
    Ok(Registry::new(&config.state_dir))
}
