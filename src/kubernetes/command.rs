//! `oci-hotplug-device-plugin`: sets up the log, and runs the daemon or `--check`.

use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::{Shell, generate_to};
use tracing_subscriber::prelude::*;

use super::api_server::client::ApiServer;
use super::arguments::{Arguments, Cdi, Level, LogFormat, NAME};
use super::cdi_specs::CdiSpecs;
use super::check;
use super::config::ConfigError;
use super::daemon;
use super::engine::{self, Places};
use super::options::{ConfigSources, Options};
use crate::exit;
use crate::host::config::{Config, LogLevel};

pub fn main() -> ExitCode {
    let arguments = match Arguments::read() {
        Ok(arguments) => arguments,
        Err(error) => error.format(&mut Arguments::command()).exit(),
    };
    start_log(arguments.log_format, arguments.log_level);
    let done = match &arguments.generate_docs {
        Some(dir) => write_docs(dir).map(|()| true),
        None => execute(&arguments),
    };
    match done {
        Ok(true) => ExitCode::from(exit::DONE),
        Ok(false) => ExitCode::from(exit::FAILED),
        Err(error) => {
            tracing::error!("{}", exit::told(error.as_ref()));
            let is_usage = error.is::<ConfigError>();
            ExitCode::from(if is_usage { exit::USAGE } else { exit::FAILED })
        }
    }
}

/// Writes `man/oci-hotplug-device-plugin.8` and `completions/*` below a directory, from the
/// definition of the arguments.
fn write_docs(dir: &Path) -> Result<()> {
    let (man, completions) = (dir.join("man"), dir.join("completions"));
    for dir in [&man, &completions] {
        fs::create_dir_all(dir).with_context(|| format!("cannot create the directory {}", dir.display()))?;
    }
    let page = man.join(format!("{NAME}.8"));
    let mut text = Vec::new();
    clap_mangen::Man::new(Arguments::command())
        .section("8")
        .render(&mut text)?;
    fs::write(&page, text).with_context(|| format!("cannot write {}", page.display()))?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut Arguments::command(), NAME, &completions)
            .with_context(|| format!("cannot write completions into {}", completions.display()))?;
    }
    Ok(())
}

fn execute(arguments: &Arguments) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let places = Places {
        sockets: arguments.engine_socket.clone(),
        containerd_config: arguments.containerd_config.clone(),
    };
    let engine = runtime.block_on(engine::cdi(&places));
    let cdi = match arguments.cdi {
        Cdi::On => true,
        Cdi::Off => false,
        Cdi::Auto => engine.is_used(),
    };
    warn_about_cdi(cdi, arguments.cdi, &engine);
    let options = options(arguments, cdi)?;
    if arguments.check {
        return check::run(&options, &engine);
    }
    let done = runtime.block_on(daemon::run(options)).map(|()| true);
    // Does not wait for USB/IP servers that are being listed.
    runtime.shutdown_background();
    done
}

fn warn_about_cdi(is_used: bool, setting: Cdi, engine: &engine::Cdi) {
    if !is_used {
        tracing::warn!(
            "pods have the devices that exist when they start, and no hotplug (switch CDI on in the container engine): \
             {engine}"
        );
    } else if setting == Cdi::Auto && matches!(engine, engine::Cdi::Unknown(_)) {
        tracing::warn!(
            "{engine}; assuming that it is on (confirm with --cdi on or --cdi off; --check prints details)"
        );
    }
}

fn options(arguments: &Arguments, cdi: bool) -> Result<Options> {
    let is_given = |path: &&PathBuf| !path.as_os_str().is_empty();
    Ok(Options {
        config_sources: ConfigSources {
            devs: arguments.devs.clone().filter(|devs| !devs.is_empty()),
            devices: arguments.device.clone(),
            smarter: arguments.smarter_config.as_ref().filter(is_given).cloned(),
            own: arguments.config.as_ref().filter(is_given).cloned(),
            usbip: arguments.usbip_config.as_ref().filter(is_given).cloned(),
            domain: arguments.domain.clone(),
        },
        kubelet_dir: arguments.kubelet_dir.clone(),
        pod_resources: Some(&arguments.pod_resources)
            .filter(|socket| !socket.is_empty())
            .map(PathBuf::from),
        grace: Duration::from_secs(arguments.grace_period),
        listen: Some(arguments.listen.clone()).filter(|address| !address.is_empty()),
        events: match arguments.events {
            true => Some(ApiServer::of_this_pod(&arguments.service_account_dir).context("--events")?),
            false => None,
        },
        cdi_specs: CdiSpecs {
            kind: crate::cdi::generate::DEFAULT_KIND.parse()?,
            dir: arguments.cdi_dir.clone(),
            hooks: arguments.hook_dir.clone(),
            enabled: cdi,
            ours: Default::default(),
        },
        state_dir: Config::load(None, None)?.state_dir,
    })
}

fn start_log(format: LogFormat, level: Level) {
    let level = match level {
        Level::None => return,
        Level::Error => LogLevel::Error,
        Level::Warn => LogLevel::Warn,
        Level::Info => LogLevel::Info,
        Level::Debug => LogLevel::Debug,
    };
    let layer = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    let registry = tracing_subscriber::registry().with(level.filter());
    // This is set once per process: a second call is a bug of the caller, but no reason to panic.
    let _ = match format {
        LogFormat::Text => tracing::subscriber::set_global_default(registry.with(layer)),
        LogFormat::Json => tracing::subscriber::set_global_default(registry.with(layer.json())),
    };
}
