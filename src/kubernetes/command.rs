//! `oci-hotplug-device-plugin`: arguments and log.

use std::ffi::OsString;
use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, ValueEnum};
use clap_complete::{Shell, generate_to};
use tracing_subscriber::prelude::*;

use super::api_server::client::ApiServer;
use super::cdi_specs::CdiSpecs;
use super::check;
use super::config;
use super::daemon;
use super::engine::{self, Places};
use super::options::{ConfigSources, Options};
use super::resources::names::ResourceName;
use crate::exit;
use crate::host::config::{Config, LogLevel};

/// This program.
const NAME: &str = "oci-hotplug-device-plugin";

/// The default path of smarter-device-manager's file.
const SMARTER_DEFAULT: &str = "config/conf.yaml";

/// The default paths of usbip-device-plugin's file: the first that exists.
const USBIP_DEFAULTS: [&str; 2] = ["config.yaml", "/etc/usbip-device-plugin/config.yaml"];

/// The default address of generic-device-plugin's metrics: all addresses.
const GENERIC_LISTEN: &str = ":8080";

/// Advertises devices to Kubernetes, and lets them come and go in running pods.
///
/// The sources --devs, --smarter-config, --device, --usbip-config and --config add up.
#[derive(Debug, Parser)]
#[command(name = NAME, version, args_override_self = true)]
struct Arguments {
    /// Devices in the hostdev plugin's format, such as /dev/mem:r,/dev/fuse:rwm.
    #[arg(long, value_name = "LIST", env = "OCI_HOTPLUG_PLUGIN_DEVS")]
    devs: Option<String>,
    /// smarter-device-manager's conf.yaml; watched. Without a value: config/conf.yaml.
    #[arg(long, value_name = "FILE", env = "OCI_HOTPLUG_PLUGIN_SMARTER_CONFIG", num_args = 0..=1, default_missing_value = SMARTER_DEFAULT)]
    smarter_config: Option<PathBuf>,
    /// usbip-device-plugin's config.yaml: devices of USB/IP servers; watched. Without a value: config.yaml, or else
    /// /etc/usbip-device-plugin/config.yaml.
    #[arg(long, value_name = "FILE", env = "OCI_HOTPLUG_PLUGIN_USBIP_CONFIG", num_args = 0..=1, default_missing_value = USBIP_DEFAULTS[0])]
    usbip_config: Option<PathBuf>,
    /// A device in generic-device-plugin's format, YAML or JSON, such as {"name": "fuse", "groups": [{"count": 10, "paths":
    /// [{"path": "/dev/fuse"}]}]}. Can be repeated; the devices in its file are ignored then, as by generic-device-plugin.
    #[arg(long, value_name = "DEVICE")]
    device: Vec<String>,
    /// The domain of resources whose names have none; overrides the files' own. The default depends on the format: devic.es for
    /// --device and `devices:`, usbip.dev.mvalvekens.be, or oci-hotplug.dev.
    #[arg(long, value_name = "DOMAIN", env = "OCI_HOTPLUG_PLUGIN_DOMAIN", value_parser = domain)]
    domain: Option<String>,
    /// Our own file, or generic-device-plugin's, or usbip-device-plugin's; watched. If no source is given, the default is
    /// /etc/generic-device-plugin/config.yaml if it exists.
    #[arg(long, value_name = "FILE", env = "OCI_HOTPLUG_PLUGIN_CONFIG")]
    config: Option<PathBuf>,
    /// kubelet's directory of device plugins.
    #[arg(
        long,
        alias = "plugin-directory",
        value_name = "DIR",
        env = "OCI_HOTPLUG_PLUGIN_KUBELET_DIR",
        default_value = "/var/lib/kubelet/device-plugins"
    )]
    kubelet_dir: PathBuf,
    /// kubelet's pod-resources socket, which lists the devices of each pod; "" for none: then allocated devices count as in use
    /// forever, and CDI specs stay.
    #[arg(
        long,
        alias = "pod-resources-socket",
        value_name = "SOCKET",
        env = "OCI_HOTPLUG_PLUGIN_POD_RESOURCES",
        default_value = "/var/lib/kubelet/pod-resources/kubelet.sock"
    )]
    pod_resources: String,
    /// How long no container must have had a device before it is free and the CDI specs of a resource that is not configured any
    /// more are removed, in seconds. kubelet lists neither a pod that was just admitted nor, while it starts, any pod.
    #[arg(
        long,
        value_name = "SECONDS",
        env = "OCI_HOTPLUG_PLUGIN_GRACE_PERIOD",
        default_value_t = 300
    )]
    grace_period: u64,
    /// The directory for CDI specs; the container engine must read it.
    #[arg(
        long,
        value_name = "DIR",
        env = "OCI_HOTPLUG_PLUGIN_CDI_DIR",
        default_value = "/var/run/cdi"
    )]
    cdi_dir: PathBuf,
    /// Whether the container engine supports CDI devices. Without CDI there is no hotplug: a container has the devices that exist
    /// when it starts.
    #[arg(
        long,
        value_name = "WHEN",
        env = "OCI_HOTPLUG_PLUGIN_CDI",
        default_value = "auto"
    )]
    cdi: Cdi,
    /// The container engine's socket, which --cdi auto and --check use first; several, separated by commas, are tried in turn. If
    /// none answers, containerd's configuration decides.
    #[arg(
        long,
        value_name = "FILE",
        env = "OCI_HOTPLUG_PLUGIN_ENGINE_SOCKET",
        value_delimiter = ',',
        default_value = "/run/containerd/containerd.sock,/run/crio/crio.sock"
    )]
    engine_socket: Vec<PathBuf>,
    /// containerd's configuration, which --cdi auto and --check read if no engine answers.
    #[arg(
        long,
        value_name = "FILE",
        env = "OCI_HOTPLUG_PLUGIN_CONTAINERD_CONFIG",
        default_value = "/etc/containerd/config.toml"
    )]
    containerd_config: PathBuf,
    /// The directory of the hooks on the host.
    #[arg(
        long,
        value_name = "DIR",
        env = "OCI_HOTPLUG_PLUGIN_HOOK_DIR",
        default_value = "/usr/libexec/oci/hooks.d"
    )]
    hook_dir: PathBuf,
    /// Send an event about the pod to the API server when a device in use is unplugged, and when it is back. Needs the right to create
    /// and patch events.
    #[arg(long, env = "OCI_HOTPLUG_PLUGIN_EVENTS")]
    events: bool,
    /// The directory of the token and the CA certificate (token, ca.crt) that --events uses at the API server.
    #[arg(
        long,
        value_name = "DIR",
        env = "OCI_HOTPLUG_PLUGIN_SERVICE_ACCOUNT_DIR",
        default_value = "/var/run/secrets/kubernetes.io/serviceaccount"
    )]
    service_account_dir: PathBuf,
    /// The address of /metrics, /healthz and /readyz; "" for none. With --device or generic-device-plugin's file the default is
    /// :8080.
    #[arg(
        long,
        value_name = "ADDR",
        env = "OCI_HOTPLUG_PLUGIN_LISTEN",
        default_value = "127.0.0.1:8080"
    )]
    listen: String,
    /// The format of log lines.
    #[arg(
        long,
        value_name = "FORMAT",
        env = "OCI_HOTPLUG_PLUGIN_LOG_FORMAT",
        default_value = "text"
    )]
    log_format: LogFormat,
    /// The lowest level that is logged.
    #[arg(
        long,
        value_name = "LEVEL",
        env = "OCI_HOTPLUG_PLUGIN_LOG_LEVEL",
        default_value = "info"
    )]
    log_level: Level,
    /// Check the configuration and this node, print what would be advertised and what is missing, and exit.
    #[arg(long)]
    check: bool,
    /// Write the man page and the completions of this program into a directory, and exit.
    #[arg(long, value_name = "DIR", hide = true)]
    generate_docs: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Cdi {
    /// As the engine reports, or else as containerd's configuration has it; on if neither says off.
    Auto,
    On,
    Off,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Level {
    None,
    Error,
    Warn,
    Info,
    #[value(alias = "all")]
    Debug,
}

/// The program.
pub fn main() -> ExitCode {
    let matches = Arguments::command().get_matches_from(with_two_dashes(std::env::args_os()));
    let arguments = Arguments::from_arg_matches(&matches)
        .and_then(|arguments| arguments.with_compatible_settings(&matches));
    let arguments = match arguments {
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
            let is_usage = error.is::<super::config::ConfigError>();
            ExitCode::from(if is_usage { exit::USAGE } else { exit::FAILED })
        }
    }
}

impl Arguments {
    /// Adds what generic-device-plugin and usbip-device-plugin read from their environment and their files, if their format is
    /// used. Their variables have names that other programs may use, such as DOMAIN and LISTEN: with other formats they are
    /// ignored, and ours come first. As with these plugins, arguments override variables, and variables override files.
    fn with_compatible_settings(mut self, matches: &ArgMatches) -> Result<Self, clap::Error> {
        self.find_default_files();
        let read = |path: &PathBuf| fs::read_to_string(path).ok();
        let text = self.config.as_ref().and_then(read).unwrap_or_default();
        let is_usbip_used = config::is_usbip(&text) || has_source(&self.usbip_config);
        let is_generic_used = !self.device.is_empty() || config::is_generic(&text);
        if !is_usbip_used && !is_generic_used {
            return Ok(self);
        }
        let settings = match config::is_usbip(&text) {
            true => config::Settings::default(),
            false => config::settings(&text),
        };
        let setting = |ours: &str, name: &str, of_file: Option<String>| {
            let is_default = matches!(matches.value_source(ours), None | Some(ValueSource::DefaultValue));
            let of_environment = std::env::var(name).ok().filter(|value| !value.is_empty());
            of_environment.or(of_file).filter(|_| is_default)
        };
        // The file's own domain is read with its resources, again at each change.
        if let Some(value) = setting("domain", "DOMAIN", None) {
            let domain = domain(&value);
            let domain = domain.map_err(|reason| bad_value("the variable DOMAIN", &value, &reason))?;
            self.domain = Some(domain);
        }
        if let Some(value) = setting("kubelet_dir", "PLUGIN_DIRECTORY", settings.plugin_directory) {
            self.kubelet_dir = value.into();
        }
        if let Some(value) = setting("pod_resources", "POD_RESOURCES_SOCKET", None) {
            self.pod_resources = value;
        }
        let default_listen = is_generic_used.then(|| GENERIC_LISTEN.to_owned());
        if let Some(value) = setting("listen", "LISTEN", settings.listen.or(default_listen)) {
            self.listen = value;
        }
        if let Some(value) = setting("log_level", "LOG_LEVEL", settings.log_level) {
            let reason = "it must be all, debug, info, warn, error or none";
            self.log_level =
                Level::from_str(&value, true).map_err(|_| bad_value("the log level", &value, reason))?;
        }
        Ok(self)
    }

    /// Uses the default files of generic-device-plugin and usbip-device-plugin if no argument names one.
    fn find_default_files(&mut self) {
        let [near, far] = USBIP_DEFAULTS.map(PathBuf::from);
        let has_other = has_source(&self.config) || has_source(&self.smarter_config) || self.devs.is_some();
        let has_devices = !self.device.is_empty();
        let is_elsewhere = match &self.usbip_config {
            Some(path) => *path == near && !near.exists(),
            None => !has_other && !has_devices && far.exists(),
        };
        let is_nothing_given = !has_other && self.usbip_config.is_none();
        if is_elsewhere {
            self.usbip_config = Some(far);
        }
        if !is_nothing_given {
            return;
        }
        // With --device, the devices of its file are ignored, but not its flags.
        let [etc, here] = config::GENERIC_DEFAULTS.map(PathBuf::from);
        let is_generic =
            |path: &PathBuf| fs::read_to_string(path).is_ok_and(|text| config::is_generic(&text));
        if etc.exists() {
            self.config = Some(etc);
        } else if is_generic(&here) {
            self.config = Some(here);
        }
    }
}

/// Whether a file is named.
fn has_source(given: &Option<PathBuf>) -> bool {
    given.as_ref().is_some_and(|path| !path.as_os_str().is_empty())
}

/// A usage error about a value that is not an argument.
fn bad_value(name: &str, value: &str, reason: &str) -> clap::Error {
    let text = format!("{name} is {value:?}: {reason}");
    Arguments::command().error(clap::error::ErrorKind::ValueValidation, text)
}

/// Reads a domain, by kubelet's rules for names of resources.
fn domain(text: &str) -> Result<String, String> {
    let name: Result<ResourceName, _> = format!("{text}/name").parse();
    name.map(|_| text.to_owned())
        .map_err(|_| "it must be a DNS name in lower case, such as example.com".to_owned())
}

/// Writes `man/oci-hotplug-device-plugin.8` and `completions/*` below a directory, from the definition that the
/// arguments are read with.
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

/// hostdev is written in Go, which reads `-devs` as `--devs`.
fn with_two_dashes(arguments: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    arguments.map(|argument| match argument.to_str() {
        Some(text) if text == "-devs" || text.starts_with("-devs=") => format!("-{text}").into(),
        _ => argument,
    })
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
    if !cdi {
        tracing::warn!(
            "pods have the devices that exist when they start, and no hotplug (switch CDI on in the container engine): \
             {engine}"
        );
    } else if arguments.cdi == Cdi::Auto && matches!(engine, engine::Cdi::Unknown(_)) {
        tracing::warn!(
            "{engine}; assuming that it is on (confirm with --cdi on or --cdi off; --check prints details)"
        );
    }
    let is_given = |path: &&PathBuf| !path.as_os_str().is_empty();
    let options = Options {
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
    };
    if arguments.check {
        return check::run(&options, &engine);
    }
    let done = runtime.block_on(daemon::run(options)).map(|()| true);
    // Does not wait for USB/IP servers that are being listed.
    runtime.shutdown_background();
    done
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
    // Set once per process: a second call is a bug of the caller, but not worth a panic.
    let _ = match format {
        LogFormat::Text => tracing::subscriber::set_global_default(registry.with(layer)),
        LogFormat::Json => tracing::subscriber::set_global_default(registry.with(layer.json())),
    };
}
